//! The unprivileged control plane: API, intent, reconciler.
//!
//! One request goes one way: `http` (extract) → `service` (authorise, validate) → `store` (one transaction: intent, audit row, operation)
//! → 202, and the `reconcile`r asks the node. State comes back the other way: node → `reconcile` → `store`. The server never runs as root
//! and never touches a container.

#![forbid(unsafe_code)]

pub mod app;
pub mod authz;
pub mod config;
pub mod domain;
pub mod http;
pub mod lifecycle;
pub mod node_client;
pub mod reconcile;
pub mod registry;
pub mod service;
pub mod store;

/// An error with all its causes, for the log.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
