//! Every decoder of foreign text: what people and tools save of a node ([`text`], [`rules`]), and what programs and
//! the kernel write there. No IO, and no verdicts.

#![forbid(unsafe_code)]

pub mod connection;
pub mod ipvs;
pub mod kube_proxy_metrics;
pub mod programs;
pub mod resolv;
pub mod rules;
pub mod text;
