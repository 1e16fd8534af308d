//! Images of berths that a test makes itself, in the form in which `docker save` wrote them before version 25.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::{host::Host, run::Run};

/// Imports `root` (a tar of the root file system) under `name`, with what the image says of itself: `{"Entrypoint": […]}`.
#[track_caller]
pub fn import(host: &Host, name: &str, root: &Path, says: &Value) {
    let dir = host.slot.dir.join(name);
    fs::create_dir(&dir).expect("make directory");
    let sum = |file: &Path| Run::new("sha256sum").arg(file).ok().split_whitespace().next().expect("a sum").to_owned();
    let layer = sum(root);
    Run::new("ln").arg("-s").arg(root).arg(dir.join(format!("{layer}.tar"))).ok();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": says,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
    });
    let written = dir.join("config");
    fs::write(&written, config.to_string()).expect("write file");
    let config = format!("{}.json", sum(&written));
    fs::rename(written, dir.join(&config)).expect("rename file");
    let layer = format!("{layer}.tar");
    let manifest = json!([{ "Config": config, "RepoTags": [], "Layers": [layer] }]);
    fs::write(dir.join("manifest.json"), manifest.to_string()).expect("write file");
    let tar = host.slot.dir.join(format!("{name}.tar"));
    let files = ["manifest.json", &config, &layer];
    Run::new("tar").arg("--dereference").arg("-cf").arg(&tar).arg("-C").arg(&dir).args(files).limit(Duration::from_secs(100)).ok();
    host.berth(["image", "import"]).arg(&tar).args(["--name", name]).limit(Duration::from_secs(300)).ok();
    fs::remove_file(&tar).expect("remove the tar");
    fs::remove_dir_all(&dir).expect("remove the image");
}

/// An image that starts at once and ends when told to: nothing but a shell that waits. Its digest.
#[track_caller]
pub fn import_small(host: &Host) -> String {
    const NAME: &str = "small";
    let root = host.cache.as_ref().expect("the instance has images").busybox();
    import(host, NAME, &root, &json!({ "Entrypoint": ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"] }));
    let images = host.berth(["image", "list", "--json"]).json();
    let list = images.as_array().or_else(|| images["items"].as_array()).unwrap_or_else(|| panic!("{images}"));
    let small = list.iter().find(|image| image["name"] == NAME).unwrap_or_else(|| panic!("{images}"));
    small["digest"].as_str().unwrap_or_else(|| panic!("{small}")).to_owned()
}
