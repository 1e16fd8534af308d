//! A static program without a C library (`tests/hostile`), in a 64-bit and a 32-bit build, tries from inside a berth whatever a hostile
//! tenant may try against the host and against another berth. Each attempt is a line with the errors by which it may be refused; one that
//! succeeds, or fails in another way, fails the test. The behaviours' numbers stand before the lines.
#![forbid(unsafe_code)]

use std::{
    fs,
    os::{linux::net::SocketAddrExt, unix::fs::PermissionsExt, unix::net::SocketAddr, unix::net::UnixListener},
    path::PathBuf,
    time::Duration,
};

use berth_tests::{Berth, Host, Run, programs};

/// Builds the program for 64 or 32 bits.
fn attacker(host: &Host, bits: u32) -> PathBuf {
    let program = host.slot.dir.join(format!("attack{bits}"));
    let source = programs::repository().join("tests/hostile/attack.c");
    let multiarch = Run::new("gcc").arg("-print-multiarch").ok();
    Run::new("gcc")
        .args([
            "-O1",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-static",
            "-nostdlib",
            "-ffreestanding",
            "-fno-stack-protector",
            "-fno-pie",
            "-no-pie",
        ])
        .args([format!("-m{bits}"), "-isystem".into(), format!("/usr/include/{multiarch}"), "-o".into()])
        .arg(&program)
        .arg(source)
        .ok();
    program
}

/// Serials of keys as `/proc/keys` shows them.
fn serial(keys: &str, wanted: impl Fn(&[&str]) -> bool) -> String {
    let rows = keys.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.into_iter().find(|row| row.len() > 7 && wanted(row)).unwrap_or_else(|| panic!("no such key: {keys}"));
    i64::from_str_radix(row[0], 16).expect("a serial").to_string()
}

/// What the program gets to know about: things that do exist, outside of the berth.
struct Targets {
    args: Vec<String>,
}

/// Runs it; the table, checked.
#[track_caller]
fn attack(berth: &Berth<'_>, bits: u32, who: &str, targets: &Targets) -> Vec<String> {
    let ids = if who == "root" { "0:0" } else { "1000:1000" };
    let program = format!("/usr/local/bin/attack{bits}");
    let run = berth.host.berth(["exec", "-u", ids, berth.name(), "--", &program, who]).args(&targets.args);
    let output = run.limit(Duration::from_secs(120)).output();
    println!("--- {bits}-bit as {who} ---\n{}", output.stdout);
    let wrong: Vec<&str> = output.stdout.lines().filter(|line| !line.starts_with("refused\t") && !line.starts_with("attempts ")).collect();
    assert!(output.success() && wrong.is_empty(), "{bits}-bit as {who}: {wrong:#?}\n{}", output.stderr);
    let lines: Vec<String> = output.stdout.lines().filter(|line| line.starts_with("refused\t")).map(str::to_owned).collect();
    let last = output.stdout.lines().last().unwrap_or_default();
    assert_eq!(last, format!("attempts {} wrong 0", lines.len()), "it came to its end");
    lines
}

#[test]
fn s02_a_hostile_program_reaches_nothing_outside_on_any_abi() {
    let host = Host::start();
    let (user, other) = (host.user("a"), host.user("b"));
    fs::set_permissions(&user.home, fs::Permissions::from_mode(0o755)).expect("open the home");
    let (a, b) = (host.assign(&user, &[]), host.assign(&other, &[]));

    let victim = Run::new("sleep").arg("1000").spawn();
    let marker = host.slot.dir.join("marker");
    fs::write(&marker, "of the host").expect("write the marker");
    let name = format!("{}-hostile", host.slot.instance());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _listener = UnixListener::bind_addr(&address).expect("listen");
    let of_host = fs::read_to_string("/proc/keys").expect("keys");
    let of_host = serial(&of_host, |row| row[5] == "0" && row[7] == "keyring" && !row[8].starts_with('.'));
    let (held, _) = b.hold(&["keys-fill"]);
    let of_b = serial(&b.exec(&["cat", "/proc/keys"]).ok(), |row| row[7] != "keyring");
    b.sh("ipcmk -M 4096").ok();
    let shared = b.exec(&["ipcs", "-m"]).ok();
    let shared = shared.split_whitespace().find_map(|word| word.strip_prefix("0x")).expect("a key of shared memory").to_owned();
    let shared = i64::from(u32::from_str_radix(&shared, 16).expect("a number")).to_string();

    let targets = Targets {
        args: vec![
            victim.pid().to_string(),
            b.pid().to_string(),
            marker.to_string_lossy().into_owned(),
            name,
            of_host,
            of_b,
            shared,
            user.home.to_string_lossy().into_owned(),
        ],
    };
    for bits in [64, 32] {
        let bytes = fs::read(attacker(&host, bits)).expect("read the program");
        a.exec_input(&["sh", "-c", &format!("cat > /usr/local/bin/attack{bits} && chmod 0755 /usr/local/bin/attack{bits}")], bytes).ok();
        for who in ["root", "user"] {
            let lines = attack(&a, bits, who, &targets);
            assert!(lines.len() > 180, "{} attempts", lines.len());
        }
    }
    assert_eq!((a.state(), b.state()), ("running".to_owned(), "running".to_owned()));
    assert!(PathBuf::from(format!("/proc/{}", victim.pid())).exists());
    // In an inner container that may everything it is the same.
    a.load_busybox();
    let told = a
        .docker(&["run", "--rm", "--privileged", "--pid", "host", "--net", "host", "-v", "/usr/local/bin:/attack:ro", "busybox"])
        .args(["sh", "-c", "/attack/attack64 | grep -c usage; cat /proc/kcore | head -c 1 | wc -c"])
        .output();
    assert!(told.stdout.starts_with("1\n0\n"), "{told:?}");
    drop(held);
}

#[test]
fn s01_nothing_of_the_host_shows_in_descriptors_environment_and_mount_table() {
    let host = Host::start();
    let a = host.new_berth("a");
    let own = a.user.home.to_string_lossy().into_owned();
    let below = host.slot.dir.to_string_lossy().into_owned();
    let all = "for p in /proc/[0-9]*; do ls -l $p/fd $p/cwd $p/root $p/exe 2>/dev/null; tr '\\0' '\\n' < $p/environ; cat $p/cmdline | tr '\\0' ' '; done; \
               cat /proc/self/mountinfo /proc/self/mounts";
    let told = a.sh(all).output().stdout;
    assert!(told.lines().count() > 60, "something was seen: {told}");
    let shown: Vec<&str> = told.lines().filter(|line| line.contains(&below) && !line.contains(&own)).collect();
    assert!(shown.is_empty(), "paths of the host: {shown:#?}");
    for secret in ["BERTH_FAULT", "BERTH_LOG", "BERTH_TEST", "NOTIFY_SOCKET", "/work/"] {
        assert!(!told.contains(secret), "{secret}: {told}");
    }
    let exe = a.exec(&["readlink", "/proc/1/exe"]).ok();
    assert!(exe.starts_with("/memfd:berth-init"), "{exe}");
    let written = a.sh("cp /bin/true /tmp/t && cat /tmp/t > /proc/1/exe").output();
    assert!(!written.success(), "{written:?}");
    // CVE-2024-21626: a working directory by a descriptor that was left open.
    let marker = host.slot.dir.join("marker");
    fs::write(&marker, "of the host").expect("write the marker");
    for fd in 0..24 {
        let dir = format!("/proc/self/fd/{fd}");
        let up = "../".repeat(40);
        a.load_busybox();
        let told = a.docker(&["run", "--rm", "-w", &dir, "busybox", "cat", &format!("{up}{}", marker.display())]).output();
        assert!(!told.success() && !told.stdout.contains("of the host"), "{told:?}");
    }
}

#[test]
fn p05_a_network_sysctl_is_the_berths_own_and_no_value_of_the_host_changes() {
    let host = Host::start();
    let a = host.new_berth("a");
    let own = [
        ("net.ipv4.ip_forward", "0"),
        ("net.ipv4.ip_unprivileged_port_start", "80"),
        ("net.ipv4.tcp_syncookies", "0"),
        ("net.core.somaxconn", "77"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv4.ping_group_range", "0 100"),
    ];
    let file = |name: &str| format!("/proc/sys/{}", name.replace('.', "/"));
    let before: Vec<String> = own.iter().map(|(name, _)| fs::read_to_string(file(name)).expect("a sysctl")).collect();
    for (name, value) in own {
        a.sh(&format!("echo {value} > {}", file(name))).ok();
        let seen = a.exec(&["cat", &file(name)]).ok();
        assert_eq!(seen.split_whitespace().collect::<Vec<_>>().join(" "), value, "{name} inside");
    }
    let after: Vec<String> = own.iter().map(|(name, _)| fs::read_to_string(file(name)).expect("a sysctl")).collect();
    assert_eq!(before, after, "the host's");
    // All the rest, as root inside writes back what it reads and a number: nothing moves on the host.
    let global = ["vm", "kernel", "fs"];
    let values = || -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        for dir in global {
            let listed = fs::read_dir(format!("/proc/sys/{dir}")).expect("list").flatten();
            let files = listed.map(|e| e.path()).filter(|p| p.is_file());
            // These move by themselves.
            let moving = [
                "random",
                "ns_last_pid",
                "dentry-state",
                "inode-nr",
                "inode-state",
                "file-nr",
                "aio-nr",
                "pid_max",
                "hostname",
                "domainname",
                "tainted",
            ];
            let still = files.filter(|p| !moving.iter().any(|m| p.ends_with(m)));
            found.extend(still.filter_map(|p| fs::read_to_string(&p).ok().map(|text| (p, text))));
        }
        found
    };
    let before = values();
    assert!(before.len() > 60, "{}", before.len());
    a.sh("for f in /proc/sys/vm/* /proc/sys/kernel/* /proc/sys/fs/*; do test -f $f || continue; case $f in *hostname|*domainname) continue;; esac; \
          for v in 1 7; do echo $v > $f; done; done 2>/dev/null; true")
        .ok();
    assert_eq!(values(), before);
}

#[test]
fn p06_the_kernels_log_memory_keys_and_addresses_are_out_of_reach() {
    let host = Host::start();
    let a = host.new_berth("a");
    for script in [
        "dmesg",
        "cat /proc/kmsg",
        "head -c 1 /proc/kcore",
        "echo h > /proc/sysrq-trigger",
        "cat /dev/kmsg",
        "cat /sys/kernel/debug/sleep_time",
    ] {
        // A program that is not in the image would prove nothing.
        assert!(!script.starts_with("dmesg") || a.sh("command -v dmesg").output().success());
        let told =
            a.sh(&format!("timeout 5 {}", if script.starts_with("echo") { format!("sh -c '{script}'") } else { script.into() })).output();
        assert!(!told.success() && told.stdout.is_empty() && told.status != 124, "{script}: {told:?}");
    }
    let symbols = a.sh("head -n 200 /proc/kallsyms | cut -d' ' -f1 | sort -u").ok();
    assert!(matches!(symbols.as_str(), "0000000000000000" | "(null)" | ""), "addresses of the kernel: {symbols}");
    let links = a.sh("ls /sys/class/net").ok();
    let own: Vec<&str> = links.split_whitespace().collect();
    assert!(
        own.contains(&"lo")
            && own.contains(&"eth0")
            && own.iter().all(|l| matches!(*l, "lo" | "eth0") || l.starts_with("docker") || l.starts_with("br-")),
        "{links}"
    );
}
