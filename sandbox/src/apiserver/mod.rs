//! The API server of the sandbox: plain HTTP on loopback.
