//! A berth that gets the files of its image again: what goes, what stays, and who may ask.
#![forbid(unsafe_code)]

use std::{fs, os::unix::fs::MetadataExt, time::Duration};

use berth_tests::{Berth, Host, Options};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

fn rebuild(host: &Host, berth: &Berth, more: &[&str]) {
    let words = [&["rebuild", berth.name(), "--yes"], more].concat();
    host.berth(words).limit(SOON).ok();
    berth.await_docker();
}

#[test]
fn a_rebuilt_berth_is_as_its_image_and_keeps_what_docker_has_unless_that_is_wiped() {
    let host = Host::with(Options { node_config: "[disk]\nbackend = \"loop\"\n".into(), ..Options::default() });
    let a = host.assign(&host.user("a"), &["--disk", "2g"]);
    a.load_busybox();
    let script = "echo kept >> /v/file; exec sleep 100000";
    a.docker(&["run", "-d", "--name", "keep", "--restart", "always", "-v", "vol:/v", "busybox", "sh", "-c", script]).ok();
    a.sh("echo mine > /root/mine && chmod 0 /etc/debian_version && rm -r /usr/share && dd if=/dev/urandom of=/opt/big bs=1M count=300 conv=fsync").ok();
    a.sh("mkdir -p /srv/deep && cd /srv/deep && for i in $(seq 300); do mkdir d && cd d; done && touch bottom && ln -s /etc /srv/link")
        .ok();
    let is = |berth: &Berth| (berth.id_base(), berth.status()["address"].clone(), berth.status()["limits"].clone());
    let (before, pid) = (is(&a), a.pid());
    let occupied = || fs::metadata(a.disk()).expect("the image").blocks() * 512;
    let full = occupied();

    let asked = host.berth(["rebuild", a.name()]).fails();
    assert!(asked.stderr.contains("--yes"), "{asked:?}");
    assert_eq!(a.pid(), pid, "nothing was done without a yes");

    rebuild(&host, &a, &[]);
    assert!(is(&a) == before && a.pid() != pid);
    a.sh("test ! -e /root/mine && test ! -e /opt/big && test ! -e /srv/deep && test ! -e /srv/link && test -d /usr/share").ok();
    assert!(occupied() < full - 250 * MIB, "{full} bytes, now {}", occupied());
    assert_eq!(a.docker(&["exec", "keep", "cat", "/v/file"]).ok().trim(), "kept\nkept", "the container and its volume are there");

    // His own user may, and what Docker has goes too.
    host.berth_as(&a.user, ["rebuild", "--wipe", "--yes"]).limit(SOON).ok();
    a.await_docker();
    assert_eq!(a.docker(&["ps", "-aq"]).ok() + &a.docker(&["images", "-q"]).ok() + &a.docker(&["volume", "ls", "-q"]).ok(), "");
    a.load_busybox();
    a.docker_run(&[], "true");
    let other = host.user("b");
    host.berth_as(&other, ["rebuild", a.name(), "--yes"]).fails();

    // Stopped it is rebuilt as well, and suspended it is not.
    a.sh("touch /root/again").ok();
    a.stop().ok();
    rebuild(&host, &a, &[]);
    a.sh("test ! -e /root/again && touch /root/again").ok();
    host.berth(["suspend", a.name(), "--reason", "a look at it"]).ok();
    let told = host.berth(["rebuild", a.name(), "--yes"]).fails();
    assert!(told.stderr.contains("a look at it"), "{told:?}");
    host.berth(["resume", a.name()]).ok();
    a.await_docker();
    a.sh("test -e /root/again").ok();
    // What was asked for is done once, also where the node forgot what it had answered.
    host.kill_node();
    host.start_node();
    a.restart().ok();
    a.await_docker();
    a.sh("test -e /root/again").ok();
}
