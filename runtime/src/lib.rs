//! Embedded container runtime of Berth
