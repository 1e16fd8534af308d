//! The user's Docker socket from the outside: who may use it, what passes through it, and what never does.
#![forbid(unsafe_code)]

use std::{
    fs,
    io::ErrorKind,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use berth_tests::{Berth, Host, Run, User, berth::BUSYBOX, http};

const SOON: Duration = Duration::from_secs(20);

/// A copy of the stream program that every user may execute.
fn stream_program(host: &Host) -> PathBuf {
    let program = host.slot.dir.join("stream");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_berth-tests-stream"), &program).unwrap();
    }
    program
}

/// Raw bytes to and from the socket of `berth`, as `user`.
fn stream(berth: &Berth<'_>, user: &User) -> Run {
    user.run(stream_program(berth.host).to_str().unwrap()).arg(berth.socket())
}

/// `docker ARGS` on a terminal of its own (script(1)), as the berth's user.
fn on_a_terminal(berth: &Berth<'_>, command: &str) -> Run {
    let docker = berth.host.cache.as_ref().unwrap().client().join("docker");
    let command = format!("{} {command}", docker.display());
    let host = format!("unix://{}", berth.socket().display());
    berth.user.run("script").args(["-qec", &command, "/dev/null"]).env("DOCKER_HOST", host).env("TERM", "dumb")
}

#[test]
fn x01_the_owner_needs_only_docker_host_and_everybody_else_gets_eacces() {
    let host = Host::start();
    let a = host.new_berth("a");
    let b = host.user("b");
    assert_eq!(a.user.run("id").arg("-Gn").ok(), a.user.name, "the owner is in no group but his own");
    assert!(a.docker(&["version", "--format", "{{.Server.Version}}"]).ok().contains('.'));

    let (dir, socket) = (a.socket().parent().unwrap().to_path_buf(), a.socket());
    let dir = fs::metadata(dir).unwrap();
    assert_eq!((dir.uid(), dir.permissions().mode() & 0o777), (0, 0o711));
    let file = fs::metadata(socket).unwrap();
    assert_eq!((file.uid(), file.permissions().mode() & 0o777), (a.user.uid, 0o600));

    let other = stream(&a, &b).fails();
    assert!(other.stderr.contains("os error 13"), "{other:?}");
    let unknown = User { name: "nobody-at-all".into(), uid: 1_234_567, gid: 1_234_567, home: "/".into() };
    let refused = stream(&a, &unknown).fails();
    assert!(refused.stderr.contains("os error 13"), "{refused:?}");
    let told = a.docker_as(&b, &["ps"]).fails();
    assert!(told.stderr.contains("permission denied"), "{told:?}");
}

#[test]
fn x01_root_is_told_whose_socket_it_is_and_no_byte_reaches_the_inner_docker() {
    let host = Host::start();
    let a = host.new_berth("a");
    // What listens in Docker's place writes down every connection and its first bytes.
    let recorder = "use IO::Socket::UNIX; $SIG{CHLD}='IGNORE'; exit 0 if fork; open(STDIN,'<','/dev/null'); open(STDOUT,'>','/dev/null');\
         open(STDERR,'>','/dev/null'); my $s = IO::Socket::UNIX->new(Local => '/run/recorder.sock', Listen => 5) or die; \
         while (my $c = $s->accept) { sysread($c, my $b, 4096); open(my $f, '>>', '/root/seen'); print $f \"connection $b\\n\"; close $f; \
         print $c \"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nOK\"; close $c }";
    a.exec(&["perl", "-e", recorder]).ok();
    a.sh("i=0; until [ -S /run/recorder.sock ]; do i=$((i+1)); [ $i -lt 500 ] || exit 1; sleep 0.01; done; mv -f /run/recorder.sock /run/docker.sock")
        .ok();

    for request in
        [&b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n{}\n"]
    {
        let answer = http::raw(&a.socket(), request).unwrap();
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(answer.head.to_ascii_lowercase().contains("content-type: application/json"), "{answer:?}");
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains(&a.user.name), "the message names the owner: {message}");
    }
    // Docker's own client shows that message.
    let docker = host.cache.as_ref().unwrap().client().join("docker");
    let told = Run::new(docker).args(["-H", &format!("unix://{}", a.socket().display()), "ps"]).fails();
    assert!(told.text().contains(&a.user.name), "{told:?}");
    assert_eq!(a.sh("cat /root/seen 2>/dev/null || echo nothing").ok(), "nothing");

    // The recorder would have seen it: the owner's request is there.
    let answer = stream(&a, &a.user).input("GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n").ok();
    assert!(answer.ends_with("OK"), "{answer}");
    assert!(a.sh("cat /root/seen").ok().starts_with("connection GET /_ping"));
}

#[test]
fn x02_attach_and_exec_work_with_and_without_input_and_terminal() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.load_busybox();
    assert_eq!(a.docker(&["run", "--rm", BUSYBOX, "echo", "plain"]).ok(), "plain");
    assert_eq!(a.docker(&["run", "--rm", "-i", BUSYBOX, "cat"]).input("through\n").ok(), "through");
    let terminal = on_a_terminal(&a, "run --rm -it busybox sh -c 'tty; stty size; echo on a terminal'").ok();
    assert!(terminal.contains("/dev/pts/0") && terminal.contains("on a terminal"), "{terminal}");

    a.docker(&["run", "-d", "--name", "sleeper", BUSYBOX, "sh", "-c", "while read l; do echo got $l; done; sleep 300"]).ok();
    assert_eq!(a.docker(&["exec", "sleeper", "echo", "exec"]).ok(), "exec");
    assert_eq!(a.docker(&["exec", "sleeper", "sh", "-c", "echo out; echo err >&2; exit 7"]).output().status, 7);
    assert_eq!(a.docker(&["exec", "-i", "sleeper", "sh", "-c", "cat; echo end"]).input("in\n").ok(), "in\nend");
    assert!(on_a_terminal(&a, "exec -t sleeper sh -c 'tty && echo yes'").ok().contains("yes"));
    let typed = on_a_terminal(&a, "exec -it sleeper sh").input("echo $((40 + 2)) && exit\n").output();
    assert!(typed.stdout.contains("42"), "{typed:?}");

    // Attach to what is there already, its input kept open.
    a.docker(&["create", "-i", "--name", "listener", BUSYBOX, "sh", "-c", "while read l; do echo got $l; done"]).ok();
    a.docker(&["start", "listener"]).ok();
    let mut attached = a.docker(&["attach", "listener"]).spawn();
    for word in ["one", "two"] {
        attached.send(format!("{word}\n"));
        assert_eq!(attached.line(SOON).unwrap(), format!("got {word}"));
    }
    attached.close_input();
    assert!(attached.finish(SOON).success());
}

#[test]
fn x02_an_old_client_without_the_upgrade_header_gets_its_stream() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.load_busybox();
    let id = a.docker(&["create", "-i", BUSYBOX, "sh", "-c", "read l; echo got $l; cat; echo end"]).ok();
    for (upgrade, expected) in [("", "HTTP/1.1 200"), ("Upgrade: tcp\r\nConnection: Upgrade\r\n", "HTTP/1.1 101")] {
        let request = format!(
            "POST /v1.41/containers/{id}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: docker\r\n{upgrade}\
             Content-Type: text/plain\r\nContent-Length: 0\r\n\r\n"
        );
        let mut attached = stream(&a, &a.user).spawn();
        attached.send(request);
        let head = attached.line(SOON).unwrap();
        assert!(head.starts_with(expected), "{head}");
        attached.line_with("\r", SOON);
        a.docker(&["start", &id]).ok();
        attached.send("hello\n");
        assert!(attached.line_with("got", SOON).contains("got hello"));
        attached.send("more\n");
        attached.line_with("more", SOON);
        // The half-close is the end of the container's input, and what it still says arrives.
        attached.close_input();
        attached.line_with("end", SOON);
        assert!(attached.finish(SOON).success());
        a.docker(&["wait", &id]).ok();
    }
}

#[test]
fn x03_half_close_ends_the_command_and_a_large_input_arrives_whole() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.load_busybox();
    assert_eq!(a.docker(&["run", "--rm", "-i", BUSYBOX, "cat"]).input("x").limit(SOON).output().stdout, "x");
    assert_eq!(a.docker(&["run", "--rm", "-i", BUSYBOX, "sh", "-c", "cat; echo; echo tail"]).input("x").limit(SOON).ok(), "x\ntail");

    // 64 MiB that no compression or repetition hides a lost block of.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let bytes: Vec<u8> = (0..(64 << 20) / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    let file = host.slot.dir.join("large");
    fs::write(&file, &bytes).unwrap();
    let sum = Run::new("sha256sum").arg(&file).ok();
    let sum = sum.split_whitespace().next().unwrap();
    let run = a.docker(&["run", "--rm", "-i", BUSYBOX, "sha256sum"]).input(bytes).limit(Duration::from_secs(120)).ok();
    assert_eq!(run.split_whitespace().next().unwrap(), sum);
    // And the other way, through an exec.
    a.docker(&["run", "-d", "--name", "sleeper", BUSYBOX, "sleep", "300"]).ok();
    let out = a.docker(&["exec", "sleeper", "sh", "-c", "yes 0123456789abcde | head -c 33554432"]).limit(Duration::from_secs(120)).output();
    assert_eq!((out.status, out.stdout.len()), (0, 32 << 20));
}

#[test]
fn x08_a_stopped_berth_wakes_on_the_first_connection_and_says_why_when_it_cannot() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.stop().ok();
    a.await_state("stopped");
    let listed = a.docker(&["ps", "--format", "{{.ID}}"]).limit(SOON).output();
    assert!(listed.success(), "{listed:?}");
    assert_eq!(a.state(), "running");

    a.stop().ok();
    a.await_state("stopped");
    let (disk, aside) = (a.disk(), host.slot.dir.join("disk.aside"));
    fs::rename(&disk, &aside).unwrap();
    let refused = stream(&a, &a.user).input("GET /containers/json HTTP/1.1\r\nHost: x\r\n\r\n").limit(SOON).output();
    assert!(refused.stdout.starts_with("HTTP/1.1 5"), "{refused:?}");
    let body = refused.stdout.split_once("\r\n\r\n").unwrap().1;
    let message = serde_json::from_str::<serde_json::Value>(body).unwrap()["message"].as_str().unwrap().to_owned();
    assert!(message.contains(&a.user.name) && message.contains("berth "), "says whose berth and what to do: {message}");
    let told = a.docker(&["ps"]).limit(SOON).fails();
    assert!(told.stderr.contains("cannot start"), "{told:?}");

    fs::rename(&aside, &disk).unwrap();
    a.start().ok();
    a.docker(&["ps"]).ok();
}

#[test]
fn x09_whatever_stands_in_place_of_the_inner_socket_nothing_of_the_host_is_reached() {
    let host = Host::start();
    let a = host.new_berth("a");
    let open = host.slot.dir.join("open");
    fs::create_dir(&open).unwrap();
    let target = open.join("host.sock");
    let listener = UnixListener::bind(&target).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o777)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let target = target.display();
    let user_dir = a.socket().parent().unwrap().display().to_string();

    a.sh("mv /run/docker.sock /run/docker.real").ok();
    for (what, make) in [
        ("an absolute symbolic link to a socket of the host", format!("ln -s {target} /run/docker.sock")),
        ("a relative one", format!("ln -s ../../../../../..{target} /run/docker.sock")),
        ("one through the host's own file descriptors", "ln -s /proc/1/root/run/docker.real /run/docker.sock".to_owned()),
        ("one to the user's own socket on the host", format!("ln -s {user_dir}/docker.sock /run/docker.sock")),
        ("another socket", "ln /run/containerd/containerd.sock /run/docker.sock || cp -l /run/berth/*.sock /run/docker.sock".to_owned()),
        ("a fifo", "mkfifo /run/docker.sock".to_owned()),
        ("a directory", "mkdir /run/docker.sock".to_owned()),
        ("a file", "echo x > /run/docker.sock".to_owned()),
        ("a device", "ln -s /dev/null /run/docker.sock".to_owned()),
        ("nothing", "true".to_owned()),
    ] {
        a.sh(&format!("rm -rf /run/docker.sock; {make}")).ok();
        let refused = a.docker(&["version"]).limit(SOON).fails();
        assert!(!refused.stderr.trim().is_empty(), "{what}: {refused:?}");
        let came = listener.accept().map(|_| ()).map_err(|e| e.kind());
        assert_eq!(came, Err(ErrorKind::WouldBlock), "{what}: the host's socket saw a connection");
    }
    a.sh("rm -rf /run/docker.sock; mv /run/docker.real /run/docker.sock").ok();
    a.docker(&["version"]).ok();
}

#[test]
fn x12_the_path_of_the_users_socket_is_the_inner_socket_inside() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.load_busybox();
    let id = a.docker(&["info", "--format", "{{.ID}}"]).ok();
    for name in [a.user.uid.to_string(), a.user.name.clone()] {
        let path = format!("/run/berth/users/{name}/docker.sock");
        assert_eq!(a.sh(&format!("DOCKER_HOST=unix://{path} docker info --format '{{{{.ID}}}}'")).ok(), id, "{path}");
        // As testcontainers does: the socket's path, mounted into a container.
        assert_eq!(a.docker_run(&["-v", &format!("{path}:/s")], "[ -S /s ] && echo socket").stdout, "socket\n", "{path}");
    }
}

#[test]
fn x05_logs_and_events_are_passed_on_as_they_come() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.load_busybox();
    let mut events = a.docker(&["events", "--format", "{{.Action}}"]).spawn();
    a.docker(&["run", "-d", "-i", "--name", "teller", BUSYBOX, "sh", "-c", "while read l; do echo told $l; done"]).ok();
    events.line_with("start", SOON);
    let mut logs = a.docker(&["logs", "-f", "teller"]).spawn();
    let mut input = a.docker(&["attach", "teller"]).spawn();
    // The next word is said only when the one before has come out at the other end.
    for number in 0..5 {
        input.send(format!("{number}\n"));
        assert_eq!(logs.line(SOON).unwrap(), format!("told {number}"));
    }
    a.docker(&["rm", "-f", "teller"]).ok();
    assert_eq!(logs.line(SOON), None, "the end of the container is the end of its log");
    events.line_with("destroy", SOON);
}

#[test]
fn no_docker_of_the_host_runs_and_none_of_its_container_runtimes_is_used() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.load_busybox();
    a.docker(&["run", "-d", "--name", "sleeper", "-p", "8080:80", BUSYBOX, "sleep", "300"]).ok();
    for socket in ["/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock"] {
        assert!(std::os::unix::net::UnixStream::connect(socket).is_err(), "something listens at {socket} of the host");
    }
    let host_programs = fs::metadata("/usr/bin/env").unwrap().dev();
    let mut seen = Vec::new();
    for pid in a.group_pids("payload") {
        let Ok(name) = fs::read_to_string(format!("/proc/{pid}/comm")) else { continue };
        // Through the link, so that it is the file that runs and not a name.
        let Ok(program) = fs::metadata(format!("/proc/{pid}/exe")) else { continue };
        assert_ne!(program.dev(), host_programs, "{name} is a program of the host");
        seen.push(name.trim().to_owned());
    }
    for name in ["dockerd", "containerd", "containerd-shim"] {
        assert!(seen.iter().any(|s| s.starts_with(name)), "{name} runs inside: {seen:?}");
    }
    let every = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| fs::read_to_string(e.path().join("status")).ok());
    for status in every {
        let field = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default().trim().to_owned();
        let runtime = ["dockerd", "containerd", "containerd-shim", "runc", "lxc-start"].iter().any(|name| field("Name:").starts_with(name));
        let uid: u32 = field("Uid:").split_whitespace().next().and_then(|u| u.parse().ok()).unwrap_or(0);
        assert!(!runtime || uid > 1_000_000, "{} runs as uid {uid} of the host", field("Name:"));
    }
    assert!(Path::new(&format!("/proc/{}", a.pid())).exists());
}
