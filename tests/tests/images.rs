//! Images that mean harm, through `berth image import` and as the root of a berth: refused, or harmless.
#![forbid(unsafe_code)]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use berth_tests::{Host, Options, Run, berth::BUSYBOX, programs, systemd_image::systemd_image, until};
use serde_json::Value;

/// Archives that must be refused, and a word of the reason.
const REFUSED: [(&str, &str); 9] = [
    ("whiteout-of-the-root", "removes no name"),
    ("whiteout-above", ".."),
    ("10000-layers", "layers"),
    ("bomb", "expands more than"),
    ("hard-link-absolute", "no directory"),
    ("hard-link-escaping", "refused"),
    ("hard-link-by-symlink", "no directory"),
    ("foreign-id", "70000"),
    ("climbs", ".."),
];
/// Archives that are images, whatever is odd about them.
const TAKEN: [&str; 6] = ["no-shell", "no-etc", "links-absolute", "links-escaping", "special", "whiteouts"];

/// What lies in a directory, and what is in it.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("list").flatten();
    entries.map(|e| (e.file_name().to_string_lossy().into_owned(), fs::read(e.path()).unwrap_or_default())).collect()
}

#[test]
fn d04_bad_images_are_refused_or_harmless_and_berths_start_on_those_that_are_taken() {
    let host = Host::with(Options { images: false, ..Options::default() });
    let (archives, outside) = (host.slot.dir.join("archives"), host.slot.dir.join("outside"));
    for dir in [&archives, &outside] {
        fs::create_dir(dir).expect("make directory");
    }
    fs::write(outside.join("kept"), "of the host").expect("write");
    let before = contents(&outside);
    Run::new("python3")
        .arg(programs::repository().join("tests/images/bad.py"))
        .args([&archives, &outside, &programs::find("berth-probe")])
        .limit(Duration::from_secs(120))
        .ok();
    let import = |name: &str| {
        let archive = archives.join(format!("{name}.tar"));
        host.berth(["image", "import"]).arg(archive).args(["--name", name]).limit(Duration::from_secs(120)).output()
    };
    for (name, reason) in REFUSED {
        let told = import(name);
        assert!(!told.success() && told.stderr.contains(reason), "{name}: {told:?}");
    }
    for name in TAKEN {
        let told = import(name);
        assert!(told.success(), "{name}: {told:?}");
    }
    let images = host.berth(["image", "list", "--json"]).ok();
    for (name, _) in REFUSED {
        assert!(!images.contains(&format!("\"{name}\"")), "{name} is listed: {images}");
    }
    let left: Vec<String> = contents(&host.state_dir.join("images")).into_keys().filter(|name| name.starts_with('.')).collect();
    assert_eq!(left, [""; 0], "what refused imports left");

    for name in TAKEN {
        let user = host.user(&name.replace("links-", "l").replace("whiteouts", "white").replace("no-", "n"));
        let told = host.assign_command(&user, &["--image", name, "--disk", "1g"]).output();
        let berth = host.berth_of(&user);
        assert!(berth.state() == "running", "{name}: {told:?}: {}", berth.status());
        // No shell: the probe is all there is.
        let probe = |args: &[&str]| -> Value { berth.exec(&["/bin/probe"]).args(args).json() };
        assert_eq!(probe(&["maps"])["uid_map"][0][0], 0, "{name}");
        assert!(probe(&["read", "/etc/resolv.conf"])["text"].as_str().is_some_and(|t| t.contains("nameserver")), "{name}");
        assert_eq!(probe(&["stat", "/dev/null"])["major"], 1, "{name}");
        assert_eq!(probe(&["read", "/proc/sys/kernel/ostype"])["text"], "Linux\n", "{name}");
        let seen = probe(&["read", &outside.join("kept").to_string_lossy()]);
        assert!(!seen["text"].as_str().is_some_and(|t| t.contains("of the host")), "{name}: {seen}");
        if name == "special" {
            for node in ["/dev/vda", "/bin/mem"] {
                assert_eq!(probe(&["stat", node])["errno"], "ENOENT", "{node}");
            }
            // Setuid of the image's root is root inside, and nothing on the host.
            let as_user = host.berth(["exec", "-u", "1000:1000", berth.name(), "--", "/bin/suid", "caps"]).json();
            assert_eq!((&as_user["uid"][0], &as_user["uid"][1]), (&Value::from(1000), &Value::from(0)), "{as_user}");
        }
        berth.delete().ok();
    }
    assert_eq!(contents(&outside), before, "the host's directory that links pointed to");
}

#[test]
fn d04_an_image_with_systemd_boots_to_running_with_sshd_and_docker_under_it() {
    let tar = systemd_image();
    let host = Host::start();
    host.berth(["image", "import"]).arg(&tar).args(["--name", "systemd"]).limit(Duration::from_secs(300)).ok();
    let user = host.user("a");
    host.assign_command(&user, &["--image", "systemd"]).ok();
    let a = host.berth_of(&user);
    let limit = Duration::from_secs(120);
    until("systemd has started everything", limit, || {
        let told = a.exec(&["systemctl", "is-system-running"]).output();
        let state = told.stdout.trim().to_owned();
        (state == "running" || state == "degraded").then_some(())
    });
    let failed = a.exec(&["systemctl", "--failed", "--no-legend", "--plain"]).output();
    let state = a.exec(&["systemctl", "is-system-running"]).output();
    let reasons = a.exec(&["journalctl", "-b", "-p", "warning", "--no-pager", "-n", "60"]).output();
    assert_eq!(state.stdout.trim(), "running", "{failed:?}\n{reasons:?}");
    assert_eq!(a.exec(&["cat", "/proc/1/comm"]).ok(), "systemd");
    assert_eq!(a.exec(&["systemctl", "is-active", "ssh", "docker"]).ok(), "active\nactive");
    let greeting = a.exec(&["timeout", "10", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/22 && head -n 1 <&3"]).ok();
    assert!(greeting.starts_with("SSH-2.0-"), "{greeting}");
    // The user under his own name, with a key of his home; nobody else with another.
    let ssh = |name: &str, words: &[&str]| {
        let options =
            ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes"];
        let key = user.home.join(name);
        user.run("ssh").arg("-i").arg(key).args(options).arg(a.address()).args(words)
    };
    for name in ["key", "other"] {
        user.run("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(user.home.join(name)).ok();
    }
    user.run("sh").args(["-c", "umask 077; mkdir .ssh; cp key.pub .ssh/authorized_keys"]).current_dir(&user.home).ok();
    assert_eq!(ssh("key", &["echo $USER; id -u; pwd"]).ok(), format!("{}\n0\n{}", user.name, user.home.display()));
    assert!(ssh("other", &["true"]).output().stderr.contains("Permission denied"));
    // Docker through the user's socket, which leads to systemd's.
    until("docker answers", limit, || a.docker(&["info"]).output().success().then_some(()));
    a.load_busybox();
    assert_eq!(a.docker(&["run", "--rm", "-m", "64m", "--pids-limit", "20", BUSYBOX, "echo", "under systemd"]).ok(), "under systemd");
    assert_eq!(a.docker(&["info", "--format", "{{.Driver}}"]).ok(), "overlay2");
    assert_eq!(ssh("key", &["docker", "run", "--rm", BUSYBOX, "echo", "by", "ssh"]).ok(), "by ssh");
    // The image is as it was: what does not fit a berth is masked in /run.
    assert_eq!(a.exec(&["readlink", "/run/systemd/system/sys-kernel-debug.mount"]).ok(), "/dev/null");
    a.stop().limit(limit).ok();
    a.await_state("stopped");
    a.start().limit(limit).ok();
    until("docker is back", limit, || a.docker(&["images", "-q", BUSYBOX]).output().stdout.lines().next().map(drop));
}
