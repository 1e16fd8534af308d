//! Docker in a berth: all of it works, and all of it sees the berth's world only.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use berth_tests::{Berth, Host, User, berth::BUSYBOX, until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
const BUILD: Duration = Duration::from_secs(120);

#[test]
fn d01_dockerd_runs_with_overlay2_and_without_warnings_about_limits() {
    let host = Host::start();
    let a = host.new_berth("a");
    let info = a.docker(&["info", "--format", "{{json .}}"]).json();
    assert_eq!(info["Driver"], "overlay2", "{info}");
    let backing = info["DriverStatus"].to_string();
    assert!(backing.contains("[\"Backing Filesystem\",\"extfs\"]") && backing.contains("[\"userxattr\",\"true\"]"), "{backing}");
    let warnings: Vec<&str> = info["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let serious: Vec<&&str> = warnings.iter().filter(|w| !w.contains("bridge-nf-call")).collect();
    // The build machine's kernel has no swap accounting to limit; where it is there, it must be used.
    assert!(serious.is_empty(), "{serious:?}");
    for limit in ["MemoryLimit", "CpuCfsQuota", "CPUShares", "PidsLimit"] {
        assert_eq!(info[limit], true, "{limit}");
    }
    // An inner container has one layer on another, on the berth's own disk.
    a.load_busybox();
    let ran = a.docker_run(&["-m", "64m", "--cpus", "0.5", "--pids-limit", "20"], "grep ' / ' /proc/mounts");
    assert!(ran.stdout.starts_with("overlay") && ran.stderr.is_empty(), "{ran:?}");
}

/// A file of the user's, on the host.
fn write(user: &User, name: &str, text: &str) -> String {
    let path = user.home.join(name);
    user.run("sh").args(["-c", "mkdir -p \"$(dirname \"$0\")\" && cat > \"$0\""]).arg(&path).input(text).ok();
    path.to_string_lossy().into_owned()
}

/// A berth with the test image.
fn ready<'h>(host: &'h Host, name: &str) -> Berth<'h> {
    let berth = host.new_berth(name);
    berth.load_busybox();
    berth
}

#[test]
fn d02_run_exec_cp_commit_save_and_load_work() {
    let host = Host::start();
    let a = ready(&host, "a");
    assert_eq!(a.docker_run(&["-e", "WHO=tenant"], "echo $WHO; exit 3").status, 3);
    let input = a.docker(&["run", "--rm", "-i", BUSYBOX, "wc", "-c"]).input(vec![b'x'; 100_000]).ok();
    assert_eq!(input.trim(), "100000");

    a.docker(&["run", "-d", "--name", "box", BUSYBOX, "sleep", "1000"]).ok();
    assert_eq!(a.docker(&["exec", "box", "sh", "-c", "hostname; exit 4"]).output().status, 4);
    assert_eq!(a.docker(&["exec", "-i", "box", "cat"]).input("through exec").ok(), "through exec");
    assert_eq!(a.docker(&["exec", "-u", "1000:1000", "box", "id", "-u"]).ok(), "1000");

    let file = write(&a.user, "cp/file", "from the host");
    a.docker(&["cp", &file, "box:/tmp/in"]).ok();
    assert_eq!(a.docker(&["exec", "box", "cat", "/tmp/in"]).ok(), "from the host");
    let back = a.user.home.join("cp/back");
    a.docker(&["cp", "box:/tmp/in", &back.to_string_lossy()]).ok();
    assert_eq!(fs::read_to_string(&back).expect("copied back"), "from the host");

    a.docker(&["commit", "-m", "as it is", "box", "committed:1"]).ok();
    assert_eq!(a.docker(&["run", "--rm", "committed:1", "cat", "/tmp/in"]).ok(), "from the host");
    let tar = a.user.home.join("image.tar");
    a.docker(&["save", "-o", &tar.to_string_lossy(), "committed:1"]).ok();
    a.docker(&["rmi", "committed:1"]).ok();
    a.docker(&["run", "--rm", "--pull", "never", "committed:1", "true"]).fails();
    a.docker(&["load", "-i", &tar.to_string_lossy()]).ok();
    assert_eq!(a.docker(&["run", "--rm", "committed:1", "cat", "/tmp/in"]).ok(), "from the host");

    let logs = a.docker(&["run", "-d", BUSYBOX, "sh", "-c", "echo one; echo two >&2"]).ok();
    a.docker(&["wait", &logs]).ok();
    let said = a.docker(&["logs", &logs]).output();
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("one\n", "two\n"));
    let top = a.docker(&["top", "box"]).ok();
    assert!(top.contains("sleep 1000"), "{top}");
    let stats = a.docker(&["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "box"]).ok();
    assert!(!stats.starts_with("0B"), "{stats}");
}

#[test]
fn d02_builds_work_with_buildkit_buildx_and_the_legacy_builder() {
    let host = Host::start();
    let a = ready(&host, "a");
    write(&a.user, "context/file", "of the context");
    let dockerfile =
        "FROM busybox\nARG WHO=nobody\nCOPY file /file\nRUN echo built for $WHO > /who && cat /file >> /who\nCMD [\"cat\", \"/who\"]\n";
    write(&a.user, "context/Dockerfile", dockerfile);
    let context = a.user.home.join("context").to_string_lossy().into_owned();
    let build = |tag: &str, kit: &str| {
        let run = a.docker(&["build", "--build-arg", &format!("WHO={tag}"), "-t", tag, &context]).env("DOCKER_BUILDKIT", kit).limit(BUILD);
        let output = run.output();
        assert!(output.success(), "{output:?}");
        assert_eq!(a.docker(&["run", "--rm", tag]).ok(), format!("built for {tag}\nof the context"));
        output.text()
    };
    let legacy = build("legacy", "0");
    assert!(legacy.contains("Step 1/5"), "the legacy builder was used: {legacy}");
    let kit = build("kit", "1");
    assert!(kit.contains("#1 "), "BuildKit was used: {kit}");

    a.docker(&["buildx", "build", "--load", "--progress", "plain", "--build-arg", "WHO=buildx", "-t", "buildx", &context])
        .limit(BUILD)
        .ok();
    assert_eq!(a.docker(&["run", "--rm", "buildx"]).ok(), "built for buildx\nof the context");
    let list = a.docker(&["buildx", "ls"]).ok();
    assert!(list.contains("docker") && list.contains("running"), "{list}");
    // Mounts and several stages, which only BuildKit has.
    let stages = "FROM busybox AS one\nRUN --mount=type=cache,target=/c echo cached > /c/f && cp /c/f /f\nFROM busybox\nCOPY --from=one /f /f\n\
                  RUN --mount=type=tmpfs,target=/t grep -q '/t tmpfs' /proc/mounts\n";
    a.docker(&["build", "-t", "stages", "-"]).env("DOCKER_BUILDKIT", "1").input(stages).limit(BUILD).ok();
    assert_eq!(a.docker(&["run", "--rm", "stages", "cat", "/f"]).ok(), "cached");
}

#[test]
fn d02_volumes_and_networks_with_name_resolution_work() {
    let host = Host::start();
    let a = ready(&host, "a");
    a.docker(&["volume", "create", "data"]).ok();
    a.docker_run(&["-v", "data:/d"], "echo kept > /d/f");
    assert_eq!(a.docker_run(&["-v", "data:/d:ro"], "cat /d/f; echo x > /d/g").stdout, "kept\n");
    assert_eq!(a.docker_run(&["-v", "data:/d"], "ls /d").stdout, "f\n", "read-only held");
    let tmpfs = a.docker_run(&["--tmpfs", "/t:size=1m", "--read-only"], "echo x > /t/f && cat /t/f; echo y > /f");
    assert_eq!((tmpfs.stdout.as_str(), tmpfs.status), ("x\n", 1), "{tmpfs:?}");

    a.docker(&["network", "create", "net"]).ok();
    let serve = "mkdir /www && echo hello from web > /www/index.html && exec httpd -f -p 80 -h /www";
    a.docker(&["run", "-d", "--name", "web", "--network", "net", "--network-alias", "alias", BUSYBOX, "sh", "-c", serve]).ok();
    for name in ["web", "alias"] {
        until(&format!("{name} answers by its name"), SOON, || {
            let ran = a.docker_run(&["--network", "net"], &format!("wget -qO- http://{name}/"));
            (ran.stdout == "hello from web\n").then_some(())
        });
    }
    assert!(!a.docker_run(&[], "wget -T 2 -qO- http://web/").success(), "the default network does not know the name");
    // A published port is at the berth's own address, for its user and inside.
    a.docker(&["run", "-d", "-p", "8080:80", "--name", "published", BUSYBOX, "sh", "-c", serve]).ok();
    let fetch = |address: &str| format!("exec 3<>/dev/tcp/{address}/8080; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
    let address = a.address();
    for at in [address.as_str(), "127.0.0.1"] {
        let inside = until("the published port answers inside", SOON, || {
            let output = a.exec(&["timeout", "3", "bash", "-c", &fetch(at)]).output();
            output.success().then_some(output.stdout)
        });
        assert!(inside.contains("hello from web"), "{inside}");
    }
    let user = a.user.run("timeout").args(["3", "bash", "-c", &fetch(&address)]).ok();
    assert!(user.contains("hello from web"), "{user}");
    let stranger = host.user("stranger").run("timeout").args(["3", "bash", "-c", &fetch(&address)]).output();
    assert!(!stranger.success(), "another user of the host reached A's port: {stranger:?}");
}

#[test]
fn d02_health_checks_restart_policies_and_init_work() {
    let host = Host::start();
    let a = ready(&host, "a");
    let inspect = |name: &str, what: &str| a.docker(&["inspect", "--format", what, name]).ok();

    a.docker(&[
        "run",
        "-d",
        "--name",
        "ill",
        "--health-cmd",
        "test -f /ok",
        "--health-interval",
        "500ms",
        "--health-retries",
        "2",
        BUSYBOX,
        "sleep",
        "1000",
    ])
    .ok();
    let health = |state: &str| {
        until(&format!("the container is {state}"), SOON, || (inspect("ill", "{{.State.Health.Status}}") == state).then_some(()));
    };
    health("unhealthy");
    a.docker(&["exec", "ill", "touch", "/ok"]).ok();
    health("healthy");

    a.docker(&["run", "-d", "--name", "again", "--restart", "always", BUSYBOX, "sh", "-c", "echo up; sleep 0.2"]).ok();
    until("it was started again and again", SOON, || {
        (inspect("again", "{{.RestartCount}}").parse::<u32>().expect("a number") >= 2).then_some(())
    });
    a.docker(&["run", "-d", "--name", "twice", "--restart", "on-failure:2", BUSYBOX, "sh", "-c", "echo try; exit 1"]).ok();
    until("it gave up after two more tries", SOON, || {
        (inspect("twice", "{{.State.Status}} {{.RestartCount}}") == "exited 2").then_some(())
    });
    assert_eq!(a.docker(&["logs", "twice"]).ok(), "try\ntry\ntry");
    a.docker(&["rm", "-f", "again"]).ok();

    let init = a.docker_run(&["--init"], "cat /proc/1/comm");
    assert!(["docker-init", "tini"].contains(&init.stdout.trim()), "{init:?}");
    assert_eq!(a.docker_run(&[], "cat /proc/1/comm; true").stdout.trim(), "sh");
}

#[test]
fn d02_privileged_containers_and_host_namespaces_see_only_the_berths_world() {
    let host = Host::start();
    let a = ready(&host, "a");
    let b = host.new_berth("b");
    a.sh("echo inside > /root/marker").ok();
    let outside = host.slot.dir.join("marker");
    fs::write(&outside, "outside").expect("write marker");

    let privileged =
        a.docker_run(&["--privileged"], "mount -t tmpfs none /tmp && echo mounted; ls /dev; cat /proc/self/uid_map; date -s @1 2>&1");
    assert!(privileged.stdout.starts_with("mounted\n"), "{privileged:?}");
    for device in ["vda", "loop", "sda", "mem", "kmsg", "dm-", "zram"] {
        assert!(!privileged.stdout.lines().any(|l| l.starts_with(device)), "{device} in a privileged container: {privileged:?}");
    }
    assert!(privileged.stdout.contains(&a.id_base().to_string()) && privileged.stdout.contains("can't set date"), "{privileged:?}");

    let net = a.docker_run(&["--net=host"], "ip -4 -o addr show").stdout;
    assert!(net.contains(&a.address()) && !net.contains(&b.address()), "{net}");
    let links = a.docker_run(&["--net=host"], "ls /sys/class/net").stdout;
    let of_host: Vec<String> =
        fs::read_dir("/sys/class/net").expect("links").flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    for link in of_host.iter().filter(|l| !["lo", "eth0", "docker0"].contains(&l.as_str())) {
        assert!(!links.lines().any(|l| l == link), "{link} of the host in --net=host: {links}");
    }
    assert_eq!(a.docker_run(&["--net=host", "--uts=host"], "hostname").stdout.trim(), a.exec(&["hostname"]).ok());

    let processes = a.docker_run(&["--pid=host"], "ps -o pid,args").stdout;
    let first = processes.lines().map(str::trim).find(|l| l.starts_with("1 ")).unwrap_or_default().to_owned();
    assert!(first.contains("berth-init") && processes.contains("dockerd"), "{processes}");
    for foreign in ["berth-node", "berth-shim", "berth-server", "nextest"] {
        assert!(!processes.contains(foreign), "{foreign} in --pid=host: {processes}");
    }

    let root = a.docker_run(
        &["-v", "/:/h"],
        &format!("cat /h/root/marker; cat /h{} 2>&1; ls /h/home /h/root; echo written > /h/root/by-container", outside.display()),
    );
    assert!(root.stdout.starts_with("inside\n") && !root.stdout.contains("outside"), "{root:?}");
    assert_eq!(a.exec(&["cat", "/root/by-container"]).ok(), "written");
    assert!(!Path::new("/root/by-container").exists());
    // Everything at once, the classic way out of a shared daemon.
    let out = a.docker_run(
        &["--privileged", "--pid=host", "--net=host", "--ipc=host", "--uts=host", "--cgroupns=host", "-v", "/:/h"],
        "chroot /h sh -c 'cat /root/marker; nsenter -t 1 -m -u -i -n -p cat /root/marker; readlink /proc/1/exe; cat /proc/1/environ | tr \"\\0\" \"\\n\"'",
    );
    assert!(out.stdout.starts_with("inside\ninside\n") && !out.stdout.contains("outside"), "{out:?}");
}

const COMPOSE: &str = "
services:
  web:
    image: busybox
    command: sh -c 'mkdir /www && echo composed > /www/index.html && exec httpd -f -p 80 -h /www'
    healthcheck: { test: wget -qO- http://127.0.0.1/, interval: 500ms, retries: 20 }
  client:
    image: busybox
    command: sh -c 'wget -qO- http://web/ > /data/got && sleep 1000'
    volumes: [ data:/data ]
    depends_on: { web: { condition: service_healthy } }
volumes: { data: {} }
";

#[test]
fn d02_compose_works_from_inside_and_from_the_host() {
    let host = Host::start();
    let a = ready(&host, "a");
    a.exec_input(&["sh", "-c", "mkdir -p /srv/app && cat > /srv/app/compose.yaml"], COMPOSE).ok();
    let composed = |up: &dyn Fn(&[&str]) -> berth_tests::Run| {
        up(&["up", "-d", "--wait"]).limit(BUILD).ok();
        until("the client has what the server gave it", SOON, || {
            let output = up(&["exec", "-T", "client", "cat", "/data/got"]).output();
            (output.stdout == "composed\n").then_some(())
        });
        up(&["down", "-v"]).limit(BUILD).ok();
    };
    composed(&|args| a.exec(&["docker", "compose", "-f", "/srv/app/compose.yaml"]).args(args));
    let shell = host
        .berth_as(&a.user, ["shell"])
        .input("cd /srv/app && docker compose up -d --wait && docker compose ps --format '{{.Service}}' && docker compose down -v; exit\n")
        .limit(BUILD)
        .ok();
    assert!(shell.contains("web") && shell.contains("client"), "{shell}");
    let file = write(&a.user, "app/compose.yaml", COMPOSE);
    composed(&|args| a.docker(&["compose", "-f", &file]).args(args));
    assert_eq!(a.docker(&["ps", "-aq"]).ok(), "");
}

#[test]
fn d05_names_ports_networks_and_images_of_two_berths_never_collide() {
    let host = Host::start();
    let berths = [ready(&host, "a"), ready(&host, "b")];
    for berth in &berths {
        let who = berth.name();
        let dockerfile = format!("FROM busybox\nRUN mkdir /www && echo {who} > /www/index.html\n");
        // The builder that every engine has (README, known differences).
        berth.docker(&["build", "-t", "app:latest", "-"]).env("DOCKER_BUILDKIT", "0").input(dockerfile).limit(BUILD).ok();
        berth.docker(&["network", "create", "--subnet", "10.200.7.0/24", "net"]).ok();
        berth.docker(&["volume", "create", "data"]).ok();
        let server = [
            "run",
            "-d",
            "--name",
            "web",
            "--network",
            "net",
            "--ip",
            "10.200.7.9",
            "-p",
            "8080:80",
            "-v",
            "data:/data",
            "--hostname",
            "web",
        ];
        berth.docker(&server).args(["app:latest", "httpd", "-f", "-p", "80", "-h", "/www"]).ok();
        berth.docker(&["exec", "web", "sh", "-c", &format!("echo {who} > /data/f")]).ok();
    }
    for berth in &berths {
        let get = format!("exec 3<>/dev/tcp/{}/8080; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3", berth.address());
        let page = until("the published port answers", SOON, || {
            let output = berth.user.run("timeout").args(["3", "bash", "-c", &get]).output();
            output.success().then_some(output.stdout)
        });
        assert!(page.ends_with(&format!("{}\n", berth.name())), "{page}");
        assert_eq!(berth.docker(&["exec", "web", "cat", "/data/f"]).ok(), berth.name());
        assert_eq!(berth.docker_run(&["--network", "net"], "wget -qO- http://10.200.7.9/").stdout.trim(), berth.name());
        assert_eq!(berth.docker(&["ps", "--format", "{{.Names}}"]).ok(), "web");
        assert_eq!(berth.docker(&["network", "ls", "-q", "--filter", "name=net"]).ok().lines().count(), 1);
    }
    let id = |berth: &Berth| berth.docker(&["inspect", "--format", "{{.Id}}", "web"]).ok();
    assert_ne!(id(&berths[0]), id(&berths[1]));
    // What one removes stays with the other.
    berths[0].docker(&["rm", "-f", "web"]).ok();
    berths[0].docker(&["rmi", "-f", "app:latest"]).ok();
    assert_eq!(berths[1].docker(&["exec", "web", "cat", "/www/index.html"]).ok(), berths[1].name());
}

/// From the order to the answer of Docker.
fn start_time(berth: &Berth) -> Duration {
    let start = Instant::now();
    berth.start().ok();
    berth.await_docker();
    start.elapsed()
}

#[test]
fn d06_images_volumes_and_containers_are_back_after_a_stop_and_the_start_does_not_grow_with_the_data() {
    let host = Host::start();
    let a = ready(&host, "a");
    a.stop().ok();
    a.await_state("stopped");
    let times: Vec<Duration> = (0..3)
        .map(|_| {
            let time = start_time(&a);
            a.stop().ok();
            a.await_state("stopped");
            time
        })
        .collect();
    let empty = times.into_iter().min().expect("three times");
    a.start().ok();
    a.await_docker();

    a.docker(&["volume", "create", "data"]).ok();
    a.docker(&[
        "run",
        "-d",
        "--name",
        "always",
        "--restart",
        "always",
        "-v",
        "data:/d",
        BUSYBOX,
        "sh",
        "-c",
        "date >> /d/starts; exec sleep 1000",
    ])
    .ok();
    a.docker(&["run", "-d", "--name", "never", BUSYBOX, "sh", "-c", "exec sleep 1000"]).ok();
    a.docker(&["run", "-d", "--name", "stopped", "--restart", "unless-stopped", BUSYBOX, "sleep", "1000"]).ok();
    a.docker(&["stop", "-t", "0", "stopped"]).ok();
    a.sh("echo mine > /root/file").ok();
    // 1 GiB on the root file system and in a volume, and a few images.
    a.docker_run(&["-v", "big:/b"], "i=0; while [ $i -lt 250 ]; do head -c 2000000 /dev/urandom > /b/$i; i=$((i+1)); done");
    a.sh("mkdir /srv/b; for i in $(seq 250); do head -c 2000000 /dev/urandom > /srv/b/$i; done; sync").limit(BUILD).ok();
    let layers: String = (0..5).map(|n| format!("RUN echo {n} > /layer-{n}\n")).collect();
    a.docker(&["build", "-t", "layers", "-"]).env("DOCKER_BUILDKIT", "0").input(format!("FROM busybox\n{layers}")).limit(BUILD).ok();
    let images = a.docker(&["images", "-q"]).ok();

    a.stop().ok();
    a.await_state("stopped");
    let full = start_time(&a);
    assert_eq!(a.docker(&["images", "-q"]).ok(), images);
    assert_eq!(a.exec(&["cat", "/root/file"]).ok(), "mine");
    let state = |name: &str| a.docker(&["inspect", "--format", "{{.State.Status}}", name]).ok();
    until("the container with a restart policy is back", SOON, || (state("always") == "running").then_some(()));
    assert_eq!((state("never").as_str(), state("stopped").as_str()), ("exited", "exited"));
    until("it ran twice on the same volume", SOON, || {
        (a.docker_run(&["-v", "data:/d"], "wc -l < /d/starts").stdout.trim() == "2").then_some(())
    });
    assert_eq!(a.docker_run(&["-v", "big:/b"], "ls /b | wc -l").stdout.trim(), "250");
    // One container and its network are started, and that is no matter of the data.
    assert!(full < empty * 2 + Duration::from_millis(1500), "start of an empty berth {empty:?}, of a full one {full:?}");
}
