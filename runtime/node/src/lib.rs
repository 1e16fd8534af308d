//! The node daemon and the shim
