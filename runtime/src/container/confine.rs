use nix::{
    sys::prctl,
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

use crate::{
    error::{Result, Step},
    seccomp,
};

/// Gives up everything: the caller becomes the base id of its container, without a capability, non-dumpable, with `no_new_privs` and a
/// system-call filter. What it needs of the host it must hold open already.
pub fn confine(base: u32) -> Result<()> {
    // Of the program's code, most was needed for the start alone; afterwards `/proc/self` is root's.
    let _ = berth_sys::code::forget();
    // Capabilities that this kernel does not have, or that are gone already, are refused: nothing to drop.
    for capability in CapabilitySet::all().iter() {
        let _ = remove_capability_from_bounding_set(capability);
    }
    setgroups(&[]).step("drop", "supplementary groups")?;
    let (uid, gid) = (Uid::from_raw(base), Gid::from_raw(base));
    setresgid(gid, gid, gid).step("become", "the base group")?;
    setresuid(uid, uid, uid).step("become", "the base user")?;
    prctl::set_no_new_privs().step("set", "no_new_privs")?;
    prctl::set_dumpable(false).step("clear", "dumpable")?;
    seccomp::confine_shim()
}

/// Closes what a careless starter left open beyond the standard descriptors; to be called first thing in `main`.
pub fn close_strays() -> Result<()> {
    berth_sys::descriptor::close_strays_from(3).step("close", "stray descriptors")
}
