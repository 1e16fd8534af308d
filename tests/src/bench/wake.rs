//! x
use super::{Report, Settings};
pub fn run(_: Settings) -> Report { Report::default() }
