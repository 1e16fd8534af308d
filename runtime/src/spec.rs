//! The OCI runtime spec of a berth, from data to data.

use std::{net::Ipv4Addr, path::PathBuf};

use oci_spec::{
    OciSpecError,
    runtime::{ProcessBuilder, RootBuilder, Spec, SpecBuilder},
};

use crate::error::{Error, Result};

/// What the spec of a berth depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Berth {
    /// The image's root file system.
    pub rootfs: PathBuf,
    pub user: String,
    pub uid: u32,
    /// The image's own entry point; empty: berth-init runs the Docker of the image.
    pub entry: Vec<String>,
    /// The image's environment, `NAME=value`.
    pub env: Vec<String>,
    /// Networks for the inner Docker, CIDR.
    pub docker_pools: Vec<String>,
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The path of the user's socket, the same inside and outside (X12).
pub fn socket_path(uid: u32) -> String {
    format!("/run/berth/users/{uid}/docker.sock")
}

/// `/etc/resolv.conf` of a berth whose DNS answers at `resolver`.
pub fn resolv_conf(resolver: Ipv4Addr) -> String {
    format!("nameserver {resolver}\noptions edns0\n")
}

/// Builds the spec. PID 1 is berth-init with these arguments; see its `--help` for their meaning.
pub fn berth(berth: &Berth) -> Result<Spec> {
    build(berth).map_err(|e| Error::Invalid(format!("the spec of the berth of {} cannot be built: {e}", berth.user)))
}

fn build(berth: &Berth) -> Result<Spec, OciSpecError> {
    let mut args = vec!["berth-init".to_owned()];
    let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
    option("--channel", "3".into());
    option("--docker-socket", socket_path(berth.uid));
    option("--user-name", berth.user.clone());
    for pool in &berth.docker_pools {
        let size = if pool.ends_with("/16") { 24 } else { 26 };
        option("--dockerd-arg", format!("--default-address-pool=base={pool},size={size}"));
    }
    if !berth.entry.is_empty() {
        args.push("--".into());
        args.extend(berth.entry.iter().cloned());
    }
    let mut env = vec![PATH.to_owned(), "HOME=/root".into(), "LANG=C.UTF-8".into(), "container=berth".into()];
    env.retain(|default| !berth.env.iter().any(|e| e.split('=').next() == default.split('=').next()));
    env.extend(berth.env.iter().cloned());
    SpecBuilder::default()
        .root(RootBuilder::default().path(berth.rootfs.clone()).readonly(false).build()?)
        .hostname(host_name(&berth.user))
        .mounts(Vec::new())
        .process(ProcessBuilder::default().args(args).env(env).cwd("/").terminal(false).build()?)
        .build()
}

/// A host name of the user's name: letters, digits and dashes, at most 63.
fn host_name(user: &str) -> String {
    let name: String = user.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).take(57).collect();
    format!("{}-berth", name.trim_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_entry_gets_the_engine_and_one_with_entry_is_handed_over_to() {
        let mut with = Berth {
            rootfs: "/images/x/rootfs".into(),
            user: "Alice.B".into(),
            uid: 1000,
            entry: Vec::new(),
            env: vec!["PATH=/bin".into()],
            docker_pools: vec!["172.17.0.0/16".into()],
        };
        let spec = berth(&with).unwrap();
        assert_eq!(spec.hostname().as_deref(), Some("alice-b-berth"));
        let process = spec.process().as_ref().unwrap();
        assert!(!process.args().as_ref().unwrap().contains(&"--".to_owned()));
        let paths = process.env().iter().flatten().filter(|e| e.starts_with("PATH="));
        assert_eq!(paths.collect::<Vec<_>>(), ["PATH=/bin"]);
        with.entry = vec!["/sbin/init".into()];
        let args = berth(&with).unwrap().process().as_ref().unwrap().args().clone().unwrap();
        assert_eq!(args[args.len() - 2..], ["--", "/sbin/init"]);
    }
}
