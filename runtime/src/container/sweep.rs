use std::time::Duration;

use crate::{
    cgroup::{Group, Part},
    error::Result,
    net,
};

/// Removes what a container left that nobody stands by any more: processes, link, control groups. Nothing there is success.
pub fn sweep(group: &Group, link_name: &str) -> Result<()> {
    for part in [Part::Shim, Part::Payload] {
        group.kill(part)?;
    }
    for part in [Part::Shim, Part::Payload] {
        group.wait_empty(part, Duration::from_secs(15))?;
    }
    net::link::delete(link_name)?;
    group.remove()
}
