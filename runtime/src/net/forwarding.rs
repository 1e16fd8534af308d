//! The host's IPv4 forwarding switch, and the memory of whether it was we who turned it.

use std::{fs, io::ErrorKind, path::Path};

use crate::error::{Result, Step};

const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";

/// Switches forwarding on where it is off, noting that in `state_file` first. Returns true when it is ours.
pub fn enable(state_file: &Path) -> Result<bool> {
    if fs::read_to_string(SWITCH).step("read", SWITCH)?.trim() == "1" {
        return Ok(state_file.exists());
    }
    crate::durable::replace_file(state_file, b"0\n")?;
    fs::write(SWITCH, "1").step("switch on", SWITCH)?;
    Ok(true)
}

/// Switches forwarding off again if [`enable`] had switched it on.
pub fn restore(state_file: &Path) -> Result<()> {
    match fs::metadata(state_file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.step("look at", state_file.display())?,
    };
    fs::write(SWITCH, "0").step("switch off", SWITCH)?;
    fs::remove_file(state_file).step("remove", state_file.display())
}
