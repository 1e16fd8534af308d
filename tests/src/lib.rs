//! Kernel and end-to-end tests
