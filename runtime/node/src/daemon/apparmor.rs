//! The AppArmor profile that berths run under, on hosts with AppArmor: it allows everything, so that no profile of the host attaches by
//! path to a program inside (a berth's `/usr/sbin/…` is not the host's).

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use berth_runtime::{
    Error,
    error::{Result, Step},
};

use super::config::Config;

/// Name of the profile, where this host has AppArmor.
pub(crate) fn profile(config: &Config) -> Option<String> {
    enabled().then(|| format!("berth{}", config.instance))
}

pub(crate) fn enabled() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.trim() == "Y")
        && Path::new("/sys/kernel/security/apparmor").is_dir()
}

/// True when the kernel knows the profile.
pub(crate) fn loaded(name: &str) -> bool {
    let profiles = fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    profiles.lines().any(|line| line.split(' ').next() == Some(name))
}

/// Loads the profile, or replaces it; a host without AppArmor needs none.
pub(crate) fn load(config: &Config) -> Result<()> {
    let Some(name) = profile(config) else { return Ok(()) };
    // `userns` is refused by parsers older than 4.0, and needed where newer ones restrict user namespaces.
    parser("-r", &text(&name, "  userns,\n")).or_else(|_| parser("-r", &text(&name, "")))
}

/// Takes the profile out of the kernel; gone already is success.
pub(crate) fn unload(config: &Config) -> Result<()> {
    match profile(config) {
        Some(name) if loaded(&name) => parser("-R", &text(&name, "")),
        _ => Ok(()),
    }
}

fn text(name: &str, more: &str) -> String {
    format!(
        "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n  capability,\n  network,\n  mount,\n  remount,\n  umount,\n  pivot_root,\n  \
         ptrace,\n  signal,\n  dbus,\n  unix,\n  file,\n{more}}}\n"
    )
}

fn parser(action: &str, profile: &str) -> Result<()> {
    let mut child = Command::new("apparmor_parser")
        .args([action, "--skip-cache"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .step("run", "apparmor_parser (package apparmor)")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(profile.as_bytes()).step("write to", "apparmor_parser")?;
    }
    let output = child.wait_with_output().step("await", "apparmor_parser")?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().chars().take(1000).collect();
    Err(Error::Program { program: "apparmor_parser", status: output.status.to_string(), stderr })
}
