//! `berth-node ids purge`: quarantines end before their time, by an administrator's word.

use anyhow::{Context, Result};
use berth_runtime::{error::chain, idmap::Allocator};

use super::{Lock, config::Config, host::now_ms, layout::Layout};

/// Ends the quarantine of the range that begins at `base`, or of all. What files or processes still hold stays held.
pub fn ids(config: &Config, base: Option<u32>) -> Result<()> {
    let layout = Layout::new(config)?;
    let _lock = Lock::take(&layout).context("stop the node first; running berths go on meanwhile")?;
    let opened = Allocator::open(&layout.ranges(), config.ids.first, config.ids.last);
    let mut allocator = opened.map_err(|e| anyhow::anyhow!("{}", chain(&e)))?;
    let purged = allocator.purge(base, now_ms()).map_err(|e| anyhow::anyhow!("{}", chain(&e)))?;
    eprintln!("quarantines ended: {purged}");
    Ok(())
}
