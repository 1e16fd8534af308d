//! The OCI runtime spec of a berth.
