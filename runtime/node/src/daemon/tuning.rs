//! Which kernel limits of the host this node raises, and puts back at its teardown.

use berth_runtime::{
    error::{Result, chain},
    tuning::{Seen, Tuning, wanted},
};

use super::host::Host;

impl Host {
    /// Best done before berths run; a host on which it cannot be done has berths all the same, and the doctor tells.
    pub(crate) fn tune(&self) {
        if !self.config.tune_host {
            return;
        }
        match Tuning::new().and_then(|tuning| tuning.raise(&self.table.name, &wanted(memory()))) {
            Ok(refused) => refused.iter().for_each(|reason| tracing::warn!(reason, "a limit of the host stays low")),
            Err(error) => tracing::warn!(error = chain(&error), "the host's limits stay as they are"),
        }
    }

    /// Puts back what is still ours; says what is not any more.
    pub(crate) fn untune(&self) -> Result<Vec<String>> {
        Tuning::new()?.restore(&self.table.name)
    }

    pub(crate) fn tuned(&self) -> Result<Vec<Seen>> {
        Ok(Tuning::new()?.look(&wanted(memory())))
    }
}

/// Bytes of the host's memory.
pub(crate) fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit.max(1)))
}
