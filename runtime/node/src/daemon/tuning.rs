//! What this node changes of the host's kernel: limits that it raises, and puts back at its teardown; haste while berths start.

use std::time::Duration;

use berth_runtime::{
    error::{Result, chain},
    tuning::{Seen, Tuning, wanted},
};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::host::Host;

/// Longest haste for one start: what takes longer than this waits for something else.
const LONGEST_HASTE: Duration = Duration::from_secs(10);

impl Host {
    /// The kernel hurries until what is returned is dropped, but not for long.
    pub(super) fn hasten(&self) -> DropGuard {
        let done = CancellationToken::new();
        if self.config.tune_host {
            let (hasty, over) = (self.haste.begin(), done.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = over.cancelled() => {}
                    () = sleep(LONGEST_HASTE) => {}
                }
                drop(hasty);
            });
        }
        done.drop_guard()
    }

    /// Best done before berths run; a host on which it cannot be done has berths all the same, and the doctor tells.
    pub(crate) fn tune(&self) {
        if let Err(error) = self.haste.settle() {
            tracing::warn!(error = chain(&error), "the kernel still hurries as an earlier run had it do");
        }
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
        self.haste.settle()?;
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
