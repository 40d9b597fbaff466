//! What support engineers paste: output of commands and logs, as text.
//!
//! One module per form; each turns text into a small value and does no IO. Lines that are not understood
//! are passed over, since people paste prompts, comments and halves of lines. A text of which nothing is
//! understood is a [`ParseError`], never a good sign. [`prompt`] cuts a text into commands and outputs.

mod api_errors;
pub mod bridge;
pub mod carrier_config;
pub mod conntrack;
pub mod continued;
pub mod coredns_log;
pub mod corefile;
pub mod describe;
pub mod error;
pub mod events;
pub mod http;
pub mod kernel_log;
mod klog;
pub mod kube_proxy_faults;
pub mod kube_proxy_log;
pub mod kubectl;
pub mod kubelet_config;
pub mod kubelet_log;
pub mod names;
pub mod offload;
pub mod paste;
pub mod prompt;
pub mod ps;
pub mod resolv_conf;
pub mod routes;
pub mod sockets;
pub mod sysctl;
pub mod table;

pub use error::ParseError;
pub use klog::LogTime;
