//! The unprivileged control plane
