//! What a change of limits and policy makes different on the host: all of it, or nothing and the reason.
//!
//! Each step pushes its inverse, and the record goes last: what the kernel refuses leaves the old limits in force and written down. A node
//! that dies in between leaves the old record, and the next one sets a running berth's limits anew from it.

use std::{process::Command, sync::Arc};

use berth_protocol::{Limits, OpenTo};
use berth_runtime::{
    Error,
    error::{Refused, Result, chain},
    net,
    undo::Undo,
};

use super::owner::{Life, Owner};
use crate::daemon::{
    disks::Plan,
    host::{Host, group_limits},
    network::{egress, rates},
    record::Record,
    refusal::Refusal,
};

/// The condition of a berth that was taken up again and does not have the limits of its record.
const NOT_APPLIED: &str = "LimitsNotApplied";

/// Makes the host and the record true to `new`, or leaves both true to `old`. Blocking.
pub(super) fn change(host: &Host, old: &Record, new: &mut Record, disk: Option<Plan>, running: bool) -> std::result::Result<(), Refusal> {
    let _told = host.telling();
    let mut undo = Undo::new();
    match steps(host, old, new, disk, running, &mut undo) {
        Ok(()) => {
            undo.commit();
            Ok(())
        }
        Err(error) => Err(refusal(old, &undo.fail(error))),
    }
}

fn steps(host: &Host, old: &Record, new: &mut Record, disk: Option<Plan>, running: bool, undo: &mut Undo) -> Result<()> {
    if let Some(plan) = disk {
        let (disks, back) = (Arc::clone(&host.disks), plan.clone());
        new.disk_bytes = undo.step("change the disk", || host.disks.apply(&plan), move || disks.undo(&back))?;
    }
    let (id, user_opens) = (new.id, |record: &Record| record.policy.ports.open_to == OpenTo::Host);
    let (before, after) = (group_limits(&old.limits), group_limits(&new.limits));
    if running && before != after {
        let (group, disk) = (host.group(id), host.layout.disk(id));
        let (group_back, disk_back) = (group.clone(), disk.clone());
        let back = move || Ok(group_back.change(&after, &before, &disk_back)?);
        undo.step("change limits", || Ok(group.change(&before, &after, &disk)?), back)?;
    }
    if running && host.systemd && before.cpu_weight != after.cpu_weight {
        let unit = host.group_name(id);
        let back = unit.clone();
        undo.step("tell systemd", || weigh(&unit, after.cpu_weight), move || weigh(&back, before.cpu_weight))?;
    }
    let (slow, fast) = (rates(&old.limits), rates(&new.limits));
    if running && slow != fast {
        let link = new.link.clone();
        undo.step("change rates", || net::rates::change(&new.link, slow, fast), move || net::rates::change(&link, fast, slow))?;
    }
    let (left, leaves) = (egress(&old.policy.egress), egress(&new.policy.egress));
    if left != leaves {
        let (table, address, from, to) = (host.table.clone(), new.address, leaves.clone(), left.clone());
        undo.step("change egress", || host.table.egress(new.address, &left, &leaves), move || table.egress(address, &from, &to))?;
    }
    if user_opens(old) != user_opens(new) {
        let (table, address, was) = (host.table.clone(), new.address, user_opens(old));
        undo.step("change nft table", || host.table.open(new.address, user_opens(new)), move || table.open(address, was))?;
    }
    host.records.save(new)
}

/// systemd writes the weights of its units again when it reads its configuration anew: it has to know this one.
fn weigh(unit: &str, weight: u32) -> Result<()> {
    let failed = |status: String, stderr: String| Error::Program { program: "systemctl", status, stderr };
    let output = Command::new("systemctl").args(["set-property", "--runtime", unit, &weight_property(weight)]).output();
    let output = output.map_err(|e| failed("not executed".into(), e.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(output.status.to_string(), String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// A limit that the kernel did not take is the asker's to think about; anything else is the host's trouble.
fn refusal(old: &Record, error: &Error) -> Refusal {
    let user = &old.user;
    let (refused, left) = match error {
        Error::Refused(refused) => (Some(refused), refused.left.as_slice()),
        Error::Undone { cause, leftovers } => match &**cause {
            Error::Refused(refused) => (Some(refused), leftovers.as_slice()),
            _ => (None, leftovers.as_slice()),
        },
        _ => (None, [].as_slice()),
    };
    let Some(refused) = refused.filter(|_| left.is_empty()) else {
        return Refusal::failed("change_failed", format!("the limits of {user} are not changed"), error);
    };
    let stays = old.limits.bounds().iter().find(|(field, ..)| *field == refused.field).and_then(|(_, value, ..)| *value);
    let stays = stays.map_or_else(|| "without limit".to_owned(), |value| format!("at {value}"));
    let Refused { field, wanted, used, source, .. } = refused;
    let (why, first) = match (*field, used) {
        ("memory_bytes", Some(used)) => (format!("{used} are in use and cannot be taken back"), "end what uses it inside"),
        ("cpu_millis", Some(given)) => (format!("a container inside has been given {given}"), "lower it there: docker update --cpus …"),
        _ => (chain(source.as_ref()), "see what this host lacks: berth doctor"),
    };
    Refusal::conflict("limit_refused", format!("{field} of {user} cannot be {wanted}: {why}. It stays {stays}"))
        .hint(format!("{first}; or change it while the berth is stopped: berth stop {user}"))
}

impl Owner {
    /// After a former daemon, which may have died in the middle of a change: the record holds.
    pub(super) async fn renew_limits(&mut self) {
        let (id, limits) = (self.record.id, group_limits(&self.record.limits));
        let (link, rates) = (self.record.link.clone(), rates(&self.record.limits));
        let renewed = self.blocking(move |host| {
            let rates = net::rates::apply(&link, rates);
            host.group(id).renew(&limits, &host.layout.disk(id)).map_err(Error::from).and(rates)
        });
        match renewed.await {
            Ok(()) => self.clear(NOT_APPLIED),
            Err(refused) => self.condition(NOT_APPLIED, format!("{}; a restart of the berth applies all limits", chain(&refused))),
        }
    }

    /// What of the limits waits for a start.
    pub(super) fn limits_pending(&self, limits: &Limits) -> Option<String> {
        let escapes =
            group_limits(limits).io.any() && matches!(self.life, Life::Running(_)) && self.node.host.group(self.record.id).io_escapes();
        escapes.then(|| {
            "on this host (cgroup v1) each container inside has the I/O limits by itself; from the next start all together have them"
                .to_owned()
        })
    }
}

/// A berth's weight as systemd takes it, also when it makes the scope.
pub(super) fn weight_property(weight: u32) -> String {
    format!("CPUWeight={weight}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::record::tests::record;

    fn refused(field: &'static str, used: Option<u64>) -> Error {
        let source = Box::new(Error::Invalid("no such controller".into()));
        Error::Refused(Refused { field, wanted: 300, used, left: Vec::new(), source })
    }

    #[test]
    fn a_refusal_of_the_kernel_names_field_figures_and_what_to_do() {
        let alice = record("alice", 1000, 0);
        let told = refusal(&alice, &refused("memory_bytes", Some(400)));
        assert_eq!((told.status.as_u16(), told.problem.code.as_str()), (409, "limit_refused"));
        let expected = "memory_bytes of alice cannot be 300: 400 are in use and cannot be taken back. It stays at 268435456";
        assert_eq!(told.problem.detail, expected);
        assert!(told.problem.hint.unwrap().contains("berth stop alice"));
        let told = refusal(&alice, &refused("io_read_bps", None));
        assert_eq!(told.problem.detail, "io_read_bps of alice cannot be 300: no such controller. It stays without limit");
    }

    #[test]
    fn a_refusal_that_left_something_is_a_failure() {
        let alice = record("alice", 1000, 0);
        let error = Error::Undone { cause: Box::new(refused("cpu_millis", None)), leftovers: vec!["change limits (busy)".into()] };
        assert_eq!(refusal(&alice, &error).status.as_u16(), 500);
        let Error::Refused(mut one) = refused("cpu_millis", None) else { unreachable!() };
        one.left.push("cpu.max".into());
        assert_eq!(refusal(&alice, &Error::Refused(one)).problem.code, "change_failed");
    }
}
