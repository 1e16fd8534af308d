//! The node daemon: turns intent into containers, keeps a durable record per berth.
