//! An image in the manner of docker:dind: the default image with another entry point, `tests/images/dockerd-entrypoint.sh`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{cache, host::Host, programs, run::Run};

/// Where the entry point makes its certificates.
pub const CERTS: &str = "/certs";

/// What such an image says of itself.
pub fn says() -> Value {
    json!({
        "Entrypoint": ["dockerd-entrypoint.sh"], "Cmd": [], "Volumes": { "/var/lib/docker": {} },
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", format!("DOCKER_TLS_CERTDIR={CERTS}")],
        "ExposedPorts": { "2375/tcp": {}, "2376/tcp": {} },
    })
}

/// Its root, a tar in the directory of `host`.
#[track_caller]
pub fn root(host: &Host) -> PathBuf {
    let (tar, tree) = (host.slot.dir.join("dind-root.tar"), host.slot.dir.join("dind-tree"));
    let bin = tree.join("usr/local/bin");
    fs::create_dir_all(&bin).expect("make directory");
    let entry = programs::repository().join("tests/images/dockerd-entrypoint.sh");
    fs::copy(entry, bin.join("dockerd-entrypoint.sh")).expect("copy the entry point");
    fs::copy(cache::default_image(), &tar).expect("copy the default image");
    append(&tar, &tree);
    fs::remove_dir_all(tree).expect("remove directory");
    tar
}

fn append(tar: &Path, tree: &Path) {
    Run::new("tar")
        .arg("--append")
        .arg("--file")
        .arg(tar)
        .args(["--owner=0", "--group=0", "--numeric-owner", "-C"])
        .arg(tree)
        .arg("./usr/local/bin/dockerd-entrypoint.sh")
        .limit(Duration::from_secs(60))
        .ok();
}
