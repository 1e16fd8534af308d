//! Large and long streams through the user's socket: whole, in order, at once, and at no cost of memory.
#![forbid(unsafe_code)]

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use berth_tests::{Berth, Host, Run, berth::BUSYBOX, until};

const SOON: Duration = Duration::from_secs(20);
const LARGE: Duration = Duration::from_secs(200);
const MIB: usize = 1 << 20;
/// What a shim may need at most, whatever passes through it.
const SHIM_MEMORY: u64 = 8 << 20;

/// The memory of a berth's shim from here on.
struct ShimMemory {
    pid: u32,
    /// Its control group's own account, kernel memory for sockets and pipes included, where the kernel keeps a peak.
    peak: Option<PathBuf>,
}

impl ShimMemory {
    #[track_caller]
    fn watch(berth: &Berth<'_>) -> Self {
        let (pid, id) = (berth.shim_pid(), berth.id());
        // proc(5): the peak begins anew.
        fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("reset the peak");
        let groups = berth.host.slot.groups().into_iter().flat_map(|g| [g.join(&id), g.join(format!("berth-{id}.scope"))]);
        let files = groups.flat_map(|g| ["memory.max_usage_in_bytes", "memory.peak"].map(|file| g.join("shim").join(file)));
        // Version 2 keeps one peak of all time, which says more than is needed here; it may be read only on newer kernels.
        let peak = files.into_iter().find(|file| file.exists());
        if let Some(peak) = &peak {
            let _ = fs::write(peak, "0");
        }
        Self { pid, peak }
    }

    fn field(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("the shim lives");
        let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("a field of proc(5)");
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().expect("a number") << 10
    }

    /// What was its own at most. Pages of the program are not counted: they are the file's, shared by all shims, and ten times as
    /// many without optimisation.
    #[track_caller]
    fn was_small(&self) {
        let (peak, file) = (self.field("VmHWM:"), self.field("RssFile:"));
        let own = peak.saturating_sub(file);
        let group =
            self.peak.as_ref().map(|file| fs::read_to_string(file).expect("read the peak").trim().parse::<u64>().expect("a number"));
        eprintln!("shim: own {} KiB, program {} KiB, control group {:?} KiB", own >> 10, file >> 10, group.map(|g| g >> 10));
        assert!(own < SHIM_MEMORY, "the shim took {} KiB", own >> 10);
        assert!(group.is_none_or(|group| group < SHIM_MEMORY), "its control group took {group:?} bytes");
    }
}

/// Bytes that differ from block to block: a lost, doubled or exchanged one changes every sum.
struct Pattern {
    block: Vec<u8>,
    next: u64,
}

impl Pattern {
    fn new() -> Self {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let words = std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        Self { block: words.take(MIB / 8).flatten().collect(), next: 0 }
    }

    /// The next MiB; each page of it has a number of its own.
    fn block(&mut self) -> &[u8] {
        for page in self.block.chunks_mut(4096) {
            page[..8].copy_from_slice(&self.next.to_le_bytes());
            self.next += 1;
        }
        &self.block
    }
}

/// A sparse file of the user's with a stamp in every 16 MiB.
fn stamped_file(path: &Path, size: u64) {
    let file = fs::File::create(path).expect("make file");
    file.set_len(size).expect("set length");
    let mut pattern = Pattern::new();
    for at in (0..size).step_by(16 * MIB) {
        file.write_all_at(&pattern.block()[..64 * 1024], at).expect("write stamp");
    }
}

fn md5(path: &Path) -> String {
    first_word(&Run::new("md5sum").arg(path).limit(LARGE).ok())
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

fn ready<'h>(host: &'h Host, name: &str) -> Berth<'h> {
    let berth = host.assign(&host.user(name), &["--disk", "12g"]);
    berth.load_busybox();
    berth
}

fn docker(berth: &Berth<'_>) -> String {
    berth.host.cache.as_ref().expect("images").client().join("docker").display().to_string()
}

#[test]
fn x03_a_gibibyte_of_input_arrives_whole_and_its_size_costs_the_shim_nothing() {
    let host = Host::start();
    let a = ready(&host, "a");
    let mut pattern = Pattern::new();
    let mut inside = a.docker(&["run", "--rm", "-i", BUSYBOX, "md5sum"]).spawn();
    inside.send(pattern.block());
    let memory = ShimMemory::watch(&a);
    let mut outside = Run::new("md5sum").spawn();
    outside.send(&pattern.block);
    for _ in 1..1024 {
        inside.send(pattern.block());
        outside.send(&pattern.block);
    }
    outside.close_input();
    inside.close_input();
    let (inside, outside) = (inside.line(LARGE), outside.line(LARGE));
    assert!(inside.is_some() && inside == outside, "sum inside {inside:?}, outside {outside:?}");
    memory.was_small();
}

#[test]
fn x06_a_large_image_is_saved_and_loaded_while_the_shims_memory_stays_flat() {
    let host = Host::start();
    let a = ready(&host, "a");
    let tree = a.user.home.join("tree");
    fs::create_dir_all(&tree).expect("make directory");
    stamped_file(&tree.join("big"), 1 << 30);
    let sum = md5(&tree.join("big"));
    let memory = ShimMemory::watch(&a);
    let import = format!("tar -C {} -c . | {} import - big", tree.display(), docker(&a));
    let host_variable = format!("unix://{}", a.socket().display());
    a.user.run("sh").args(["-c", &import]).env("DOCKER_HOST", &host_variable).limit(LARGE).ok();
    let id = a.docker(&["image", "inspect", "--format", "{{.Id}}", "big"]).ok();
    let tar = a.user.home.join("big.tar");
    a.docker(&["save", "-o"]).arg(&tar).arg("big").limit(LARGE).ok();
    fs::remove_dir_all(&tree).expect("remove");
    a.docker(&["rmi", "big"]).ok();
    a.docker(&["load", "-i"]).arg(&tar).limit(LARGE).ok();
    memory.was_small();
    assert!(fs::metadata(&tar).expect("the tar").len() > 1 << 30);
    fs::remove_file(&tar).expect("remove");
    assert_eq!(a.docker(&["image", "inspect", "--format", "{{.Id}}", "big"]).ok(), id);
    // The image has nothing but the file in it; it is read through another container's hands.
    a.docker(&["create", "--name", "holder", "big", "none"]).ok();
    let read = format!("{} cp holder:/big - | tar -xO | md5sum", docker(&a));
    let back = a.user.run("sh").args(["-c", &read]).env("DOCKER_HOST", &host_variable).limit(LARGE).ok();
    assert_eq!(first_word(&back), sum);
    memory.was_small();
}

#[test]
fn x06_a_build_context_of_two_gibibytes_passes_while_the_shims_memory_stays_flat() {
    let host = Host::start();
    let a = ready(&host, "a");
    let context = a.user.home.join("context");
    fs::create_dir_all(&context).expect("make directory");
    stamped_file(&context.join("big"), 2 << 30);
    let sum = md5(&context.join("big"));
    let dockerfile = format!("FROM {BUSYBOX}\nRUN --mount=type=bind,target=/c md5sum /c/big > /sum\n");
    fs::write(context.join("Dockerfile"), dockerfile).expect("write");
    let memory = ShimMemory::watch(&a);
    a.docker(&["build", "-t", "summed"]).arg(&context).env("DOCKER_BUILDKIT", "1").limit(LARGE).ok();
    memory.was_small();
    assert_eq!(first_word(&a.docker(&["run", "--rm", "summed", "cat", "/sum"]).ok()), sum);
}

#[test]
fn x06_who_does_not_read_holds_up_who_writes_in_both_directions() {
    let host = Host::start();
    let a = ready(&host, "a");
    let memory = ShimMemory::watch(&a);
    // In: the container does not read its input yet.
    a.docker(&["run", "-d", "--name", "box", BUSYBOX, "sleep", "1000"]).ok();
    let mut reader = a.docker(&["exec", "-i", "box", "sh", "-c", "until [ -e /go ]; do sleep 0.1; done; md5sum"]).spawn();
    let sent = AtomicU64::new(0);
    let mut outside = Run::new("md5sum").spawn();
    const ALL: u64 = 256;
    thread::scope(|scope| {
        let (reader, sent) = (&mut reader, &sent);
        scope.spawn(move || {
            let mut pattern = Pattern::new();
            for _ in 0..ALL {
                reader.send(pattern.block());
                outside.send(&pattern.block);
                sent.fetch_add(1, Ordering::SeqCst);
            }
            outside.close_input();
            reader.close_input();
            let (inside, outside) = (reader.line(LARGE), outside.line(LARGE));
            assert!(inside.is_some() && inside == outside, "sum inside {inside:?}, outside {outside:?}");
        });
        // It comes to rest: no more is taken for two seconds.
        let mut before = (u64::MAX, Instant::now());
        let held = until("the writer is held up", SOON, || {
            let now = sent.load(Ordering::SeqCst);
            if now != before.0 {
                before = (now, Instant::now());
            }
            (before.1.elapsed() > Duration::from_secs(2)).then_some(now)
        });
        a.docker(&["exec", "box", "touch", "/go"]).ok();
        assert!(held < 64, "{held} MiB went somewhere though nobody read them");
    });
    memory.was_small();

    // Out: the client does not read yet.
    a.docker(&[
        "exec",
        "box",
        "sh",
        "-c",
        "i=0; while [ $i -lt 16 ]; do echo stamp $i; head -c 33554432 /dev/zero; i=$((i+1)); done > /big",
    ])
    .limit(LARGE)
    .ok();
    let sum = first_word(&a.docker(&["exec", "box", "md5sum", "/big"]).limit(LARGE).ok());
    let go = a.user.home.join("go");
    let read = format!("{} cp box:/big - | {{ until [ -e {} ]; do sleep 0.1; done; tar -xO | md5sum; }}", docker(&a), go.display());
    let host_variable = format!("unix://{}", a.socket().display());
    let mut waiting = a.user.run("sh").args(["-c", &read]).env("DOCKER_HOST", &host_variable).spawn();
    // Meanwhile the same user's other calls are answered.
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        a.docker(&["ps", "-q"]).limit(SOON).ok();
    }
    assert!(waiting.alive());
    memory.was_small();
    a.user.run("touch").arg(&go).ok();
    assert_eq!(first_word(&waiting.line(LARGE).expect("a sum")), sum);
    memory.was_small();
}

#[test]
fn x05_what_is_silent_for_long_is_not_cut_and_what_comes_then_is_passed_at_once() {
    let silence = Duration::from_secs(if std::env::var_os("BERTH_TEST_LONG").is_some() { 600 } else { 60 });
    let host = Host::start();
    let a = ready(&host, "a");
    // Open for both, so that a writer who goes is no end.
    let script = "mkfifo /f; exec 3<>/f; read word <&3; echo told $word; read word <&3; exit 5";
    a.docker(&["run", "-d", "--name", "teller", BUSYBOX, "sh", "-c", script]).ok();
    a.docker(&["run", "-d", "-i", "--name", "listener", BUSYBOX, "cat"]).ok();
    let mut logs = a.docker(&["logs", "-f", "teller"]).spawn();
    let mut events = a.docker(&["events", "--filter", "event=die", "--format", "{{.Action}}"]).spawn();
    let mut wait = a.docker(&["wait", "teller"]).spawn();
    let mut attached = a.docker(&["attach", "listener"]).spawn();
    let mut exec = a.docker(&["exec", "-i", "listener", "cat"]).spawn();
    let mut stats = a.docker(&["stats", "--format", "{{.Name}}", "listener"]).spawn();
    attached.send("first\n");
    assert_eq!(attached.line(SOON).as_deref(), Some("first"));
    exec.send("first\n");
    assert_eq!(exec.line(SOON).as_deref(), Some("first"));
    // The silence itself is what is tested.
    thread::sleep(silence);
    for (name, stream) in [
        ("logs", &mut logs),
        ("events", &mut events),
        ("wait", &mut wait),
        ("attach", &mut attached),
        ("exec", &mut exec),
        ("stats", &mut stats),
    ] {
        assert!(stream.alive(), "{name} ended in {silence:?} of silence");
    }
    // Detached: the container ends with the last word, and takes along whoever has just said it.
    let tell = |word: &str| a.docker(&["exec", "-d", "teller", "sh", "-c", &format!("echo {word} > /f")]).ok();
    tell("one");
    let told = Instant::now();
    assert_eq!(logs.line(SOON).as_deref(), Some("told one"));
    assert!(told.elapsed() < Duration::from_secs(2), "the line took {:?}", told.elapsed());
    for stream in [&mut attached, &mut exec] {
        stream.send("after\n");
        assert_eq!(stream.line(SOON).as_deref(), Some("after"));
    }
    assert!(stats.line_with("listener", SOON).contains("listener"));
    tell("two");
    assert_eq!(wait.line(SOON).as_deref(), Some("5"));
    assert_eq!(events.line(SOON).as_deref(), Some("die"));
    assert_eq!(logs.line(SOON), None, "the log ends with the container");
}

/// A copy of the stream program that every user may execute.
fn stream_program(host: &Host) -> PathBuf {
    let program = host.slot.dir.join("stream");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_berth-tests-stream"), &program).unwrap();
    }
    program
}

/// Without the line that tells the time.
fn timeless(answer: &str) -> String {
    answer.split_inclusive('\n').filter(|line| !line.starts_with("Date: ")).collect()
}

#[test]
fn x07_unusual_requests_get_the_answer_that_the_inner_docker_itself_gives() {
    let host = Host::start();
    let a = ready(&host, "a");
    let last = "GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n";
    let padded = |length: usize| {
        let head = "GET /_ping HTTP/1.1\r\nHost: docker\r\nX-Pad: ";
        format!("{head}{}\r\n\r\n{last}", "x".repeat(length - head.len() - 4))
    };
    let get = |path: &str, host: &str| format!("GET {path} HTTP/1.1\r\n{host}\r\n\r\n{last}");
    let requests = [
        ("pipelined", format!("{}{last}", "GET /_ping HTTP/1.1\r\nHost: a\r\n\r\nHEAD /_ping HTTP/1.1\r\nHost: b\r\n\r\n".repeat(20))),
        ("a head of 64 KiB", padded(64 << 10)),
        ("a head of 60 KiB", padded(60 << 10)),
        ("an empty host", get("/_ping", "Host: ")),
        ("a host as buildx sends it", get("/_ping", "Host: api.moby.localhost")),
        ("a host that is a path", get("/_ping", "Host: %2Frun%2Fdocker.sock")),
        ("a host with a port", get("/_ping", "Host: [::1]:2375")),
        ("no host", get("/_ping", "X-No: host")),
        ("a host that is none", get("/_ping", "Host: a b")),
        ("an absolute target", get("http://elsewhere.example/_ping", "Host: docker")),
        ("an escaped slash", get("/v1.41/images/localhost%3A5000%2Fa%2Fb/json", "Host: docker")),
        ("an escaped slash, unversioned", get("/images/a%2fb/json?x=%2F%3F", "Host: docker")),
        ("a version that is too new", get("/v9.99/info", "Host: docker")),
        ("two slashes", get("//v1.41//_ping", "Host: docker")),
        ("a path with dots", get("/v1.41/../_ping", "Host: docker")),
        ("an unknown path", get("/v1.41/none", "Host: docker")),
        ("odd spelling of names", get("/_ping", "hOsT: docker\r\naccept:*/*\r\nX_Y: 1\r\nX-Empty:")),
        ("HTTP/1.0", "GET /_ping HTTP/1.0\r\n\r\n".to_owned()),
        ("OPTIONS", format!("OPTIONS /containers/json HTTP/1.1\r\nHost: docker\r\n\r\n{last}")),
        (
            "a body in chunks",
            format!("POST /v1.41/containers/create HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n11;ext=1\r\n\"Image\":\"a/b:none\r\n2\r\n\"}}\r\n0\r\nX-Trailer: t\r\n\r\n{last}"),
        ),
        (
            "a body announced",
            format!("POST /v1.41/containers/create HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 20\r\n\r\n{{\"Image\":\"none:none\"}}{last}").replace("none:none", "none:non"),
        ),
        ("bare line feeds", format!("GET /_ping HTTP/1.1\nHost: docker\n\n{last}")),
        ("no HTTP", "hello there\r\n\r\n".to_owned()),
        ("a head without an end that is a body", "POST /auth HTTP/1.1\r\nHost: docker\r\nContent-Length: -1\r\n\r\n".to_owned()),
        ("both lengths", "POST /auth HTTP/1.1\r\nHost: docker\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n".to_owned()),
    ];
    let direct = "use IO::Socket::UNIX; local $/; my $in = <STDIN>; my $s = IO::Socket::UNIX->new(Peer => '/run/docker.sock') or die; \
                  print $s $in; $s->flush; print while sysread($s, $_, 65536);";
    let program = stream_program(&host);
    for (what, request) in requests {
        let inner = a.exec_input(&["perl", "-e", direct], request.clone()).output();
        assert!(inner.success(), "{what}: {inner:?}");
        let through = a.user.run(program.to_str().unwrap()).arg(a.socket()).arg("open").input(request).limit(SOON).output();
        assert!(inner.stdout.starts_with("HTTP/1."), "{what}: {inner:?}");
        assert_eq!(timeless(&through.stdout), timeless(&inner.stdout), "{what}");
    }
}
