//! The clients that people use, as they use them: in a session of an installation, with nothing set by hand.
#![forbid(unsafe_code)]

use std::{fs, path::Path, thread, time::Duration};

use berth_tests::{Berth, Host, Run, berth::BUSYBOX, python::python, session::Sessions, tree, until};

const SOON: Duration = Duration::from_secs(30);
const BUILD: Duration = Duration::from_secs(150);

/// A berth with the test image.
fn ready<'h>(host: &'h Host, name: &str) -> Berth<'h> {
    let berth = host.new_berth(name);
    berth.load_busybox();
    berth
}

/// A login shell of the berth's user.
fn login(sessions: &Sessions<'_>, berth: &Berth<'_>, script: &str) -> Run {
    sessions.run(&berth.user, &["bash", "-lc", script]).limit(BUILD)
}

/// A file of the user's.
fn write(berth: &Berth<'_>, name: &str, text: &str) -> String {
    let path = berth.user.home.join(name);
    berth.user.run("sh").args(["-c", "mkdir -p \"$(dirname \"$0\")\" && cat > \"$0\""]).arg(&path).input(text).ok();
    path.to_string_lossy().into_owned()
}

#[test]
fn x04_four_builds_at_once_have_their_secrets_and_the_agents_key() {
    let host = Host::start();
    let a = host.new_berth("a");
    let tar = tree::tar(&host, "tools", &[(Path::new("/usr/bin/ssh-add"), "/bin/ssh-add")], &[]);
    a.import(&tar, "tools");
    let key = a.user.home.join("key");
    a.user.run("ssh-keygen").args(["-q", "-t", "ed25519", "-C", "of-the-agent", "-N", "", "-f"]).arg(&key).ok();
    let agent_socket = a.user.home.join("agent.sock");
    let _agent = a.user.run("ssh-agent").args(["-D", "-a"]).arg(&agent_socket).spawn();
    until("the agent listens", SOON, || agent_socket.exists().then_some(()));
    a.user.run("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &agent_socket).ok();
    let public = fs::read_to_string(key.with_extension("pub")).expect("the public key");

    let dockerfile = "FROM tools\nARG N\n\
        RUN --mount=type=secret,id=word,required=true wc -c < /run/secrets/word > /size && md5sum < /run/secrets/word > /sum\n\
        RUN --mount=type=ssh,required=true ssh-add -L > /keys\n\
        RUN [ ! -e /run/secrets/word ] && [ -z \"$SSH_AUTH_SOCK\" ]\n";
    write(&a, "kit/Dockerfile", dockerfile);
    let context = a.user.home.join("kit");
    thread::scope(|scope| {
        for number in 0..4 {
            let (a, context, agent_socket, public) = (&a, &context, &agent_socket, &public);
            scope.spawn(move || {
                // The largest that BuildKit takes is 500 KiB.
                let secret = format!("secret {number} ").repeat(40_000);
                let file = write(a, &format!("secret-{number}"), &secret);
                let tag = format!("kit:{number}");
                let program: &[&str] = if number % 2 == 0 { &["build"] } else { &["buildx", "build", "--load"] };
                let build = a.docker(program).args([
                    "--no-cache",
                    "--progress",
                    "plain",
                    "--ssh",
                    "default",
                    "--build-arg",
                    &format!("N={number}"),
                ]);
                let build = build.args(["--secret", &format!("id=word,src={file}"), "-t", &tag]).arg(context);
                build.env("DOCKER_BUILDKIT", "1").env("SSH_AUTH_SOCK", agent_socket).limit(BUILD).ok();
                let got = a.docker(&["run", "--rm", &tag, "cat", "/size", "/keys", "/sum"]).ok();
                let sum = Run::new("md5sum").input(secret.clone()).ok();
                assert_eq!(got, format!("{}\n{public}{sum}", secret.len()), "build {number}");
                let history = a.docker(&["history", "--no-trunc", &tag]).ok();
                assert!(!history.contains("secret 0"), "{history}");
            });
        }
    });
    // Without them the build says so.
    let without = a.docker(&["build", "--no-cache"]).arg(&context).env("DOCKER_BUILDKIT", "1").limit(BUILD).fails();
    assert!(without.stderr.contains("word"), "{without:?}");
    // The old builder, with the same client.
    let legacy = a
        .docker(&["build", "-t", "legacy", "-"])
        .env("DOCKER_BUILDKIT", "0")
        .input("FROM tools\nRUN echo old > /f\n")
        .limit(BUILD)
        .output();
    assert!(legacy.success() && legacy.stdout.contains("Step 2/2"), "{legacy:?}");
}

const COMPOSE: &str = "
services:
  store:
    image: busybox
    command: sh -c 'mkdir -p /www && cp /data/word /www/word 2>/dev/null || echo first > /www/word; cp /www/word /data/word; exec httpd -f -p 80 -h /www'
    volumes: [ data:/data ]
    healthcheck: { test: wget -qO- http://127.0.0.1/word, interval: 300ms, retries: 60 }
  middle:
    image: busybox
    command: sh -c 'mkdir -p /www && wget -qO /www/got http://store/word && exec httpd -f -p 80 -h /www'
    depends_on: { store: { condition: service_healthy } }
    healthcheck: { test: wget -qO- http://127.0.0.1/got, interval: 300ms, retries: 60 }
    ports: [ '{MIDDLE}:80' ]
    networks: [ default, side ]
  front:
    image: busybox
    command: sh -c 'mkdir -p /www && wget -qO /www/index.html http://middle/got && echo front >> /www/index.html && exec httpd -f -p 80 -h /www'
    depends_on: { middle: { condition: service_healthy } }
    healthcheck: { test: wget -qO- http://127.0.0.1/, interval: 300ms, retries: 60 }
    ports: [ '{FRONT}:80' ]
    networks: [ side ]
volumes: { data: {} }
networks: { side: {} }
";

/// `GET path` as the user; nothing until it answers.
fn fetch(berth: &Berth<'_>, address: &str, port: u16, path: &str) -> Option<String> {
    let script = format!("exec 3<>/dev/tcp/{address}/{port}; printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
    let output = berth.user.run("timeout").args(["3", "bash", "-c", &script]).output();
    let (head, body) = output.stdout.split_once("\r\n\r\n")?;
    (output.success() && head.starts_with("HTTP/1.1 200")).then(|| body.to_owned())
}

#[test]
fn d02_compose_brings_three_services_up_reached_at_their_published_ports_and_down_again() {
    let host = Host::start();
    let a = ready(&host, "a");
    let sessions = Sessions::of(&host, false);
    // Of this slot alone: the host's loopback is everybody's.
    let port = 43_000 + u16::try_from(host.slot.number).expect("a small number") * 2;
    let text = COMPOSE.replace("{MIDDLE}", &port.to_string()).replace("{FRONT}", &(port + 1).to_string());
    write(&a, "app/compose.yaml", &text);
    // Links the plug-ins into the home.
    a.docker(&["compose", "version"]).ok();
    let app = a.user.home.join("app");
    let compose = |args: &str| login(&sessions, &a, &format!("cd {} && docker compose --progress plain {args}", app.display()));
    let address = a.address();
    for round in 0..2 {
        compose("up -d --wait").ok();
        for at in [address.as_str(), "127.0.0.1"] {
            let front = until(&format!("round {round}: the front answers at {at}"), SOON, || fetch(&a, at, port + 1, "/"));
            assert_eq!(front, "first\nfront\n");
            assert_eq!(until("the middle answers", SOON, || fetch(&a, at, port, "/got")), "first\n");
        }
        let states = compose("ps --format '{{.Service}} {{.Health}}' | sort").ok();
        assert_eq!(states, "front healthy\nmiddle healthy\nstore healthy");
        assert_eq!(compose("exec -T store cat /data/word").ok(), "first");
        assert!(compose("logs front").output().success());
        compose("restart front").ok();
        until("it answers again", SOON, || fetch(&a, &address, port + 1, "/"));
        if round == 0 {
            compose("down").ok();
            assert!(a.docker(&["volume", "ls", "-q"]).ok().contains("app_data"), "down alone keeps the volume");
        }
    }
    compose("down -v").ok();
    let left = ["ps -aq", "volume ls -q", "network ls -q --filter type=custom"].map(|what| {
        let words: Vec<&str> = what.split(' ').collect();
        a.docker(&words).ok()
    });
    assert_eq!(left, ["", "", ""]);
    for at in [address.as_str(), "127.0.0.1"] {
        until(&format!("nothing listens at {at} any more"), SOON, || {
            let probe = a.user.run("timeout").args(["3", "bash", "-c", &format!("exec 3<>/dev/tcp/{at}/{port}")]).output();
            (!probe.success()).then_some(())
        });
    }
}

#[test]
fn x02_docker_py_and_the_ways_of_editors_work() {
    let host = Host::start();
    let a = ready(&host, "a");
    let sessions = Sessions::of(&host, false);
    let script = include_str!("clients/docker_py.py");
    let done = login(&sessions, &a, &format!("exec {} -", python().display())).input(script).output();
    assert!(done.success() && done.stdout.starts_with("done"), "{done:?}");
    assert_eq!(a.docker(&["ps", "-aq", "--filter", "name=box"]).ok(), "");
}

#[test]
fn x12_testcontainers_work_with_their_reaper() {
    let host = Host::start();
    let a = ready(&host, "a");
    let sessions = Sessions::of(&host, false);
    // No registry is reached from here: what stands in for the reaper says what it says, and looks at the socket that it is given.
    let dockerfile = "FROM busybox\nCMD [ -S /var/run/docker.sock ] && echo ' Started!' && exec httpd -f -p 8080\n";
    a.docker(&["build", "-q", "-t", "testcontainers/ryuk:0.8.1", "-"]).env("DOCKER_BUILDKIT", "0").input(dockerfile).limit(BUILD).ok();
    let script = include_str!("clients/containers_for_tests.py");
    let run = login(&sessions, &a, &format!("exec {} -", python().display())).input(script);
    // A build machine made from a container image has /.dockerenv, by which the library would think that it runs inside a container.
    let done = run.env("TESTCONTAINERS_CONNECTION_MODE", "docker_host").output();
    assert!(done.success() && done.stdout.contains("done"), "{done:?}");
    until("the reaper is gone too", SOON, || a.docker(&["ps", "-aq"]).ok().is_empty().then_some(()));
}

#[test]
fn x02_an_editors_server_lives_in_one_exec_while_the_editor_polls() {
    let host = Host::start();
    let a = ready(&host, "a");
    a.docker(&["run", "-d", "--name", "dev", "-e", "WORD=set", BUSYBOX, "sleep", "1000"]).ok();
    let mut events = a.docker(&["events", "--since", "5m", "--filter", "container=dev", "--format", "{{.Action}}"]).spawn();
    let mut server = a.docker(&["exec", "-i", "-u", "0", "-w", "/tmp", "-e", "VSCODE=1", "dev", "/bin/sh"]).spawn();
    events.line_with("exec_start", SOON);
    for number in 0..40 {
        // A sentinel after each command tells the end of its answer.
        server.send(format!("echo \"$WORD $VSCODE $PWD {number}\"; echo sentinel-{number} $?\n"));
        assert_eq!(server.line(SOON).as_deref(), Some(&*format!("set 1 /tmp {number}")));
        assert_eq!(server.line(SOON).as_deref(), Some(&*format!("sentinel-{number} 0")));
        if number % 8 == 0 {
            let state = a.docker(&["inspect", "--type", "container", "--format", "{{.State.Status}}", "dev"]).ok();
            assert_eq!(state, "running");
            a.docker(&["ps", "-q", "-a", "--filter", "label=devcontainer.local_folder=/x"]).ok();
            a.docker(&["version", "--format", "{{json .}}"]).ok();
        }
    }
    // The editor's way to put its server there.
    server.send("tar -xC /tmp && echo unpacked\n");
    server.close_input();
    let server = server.finish(SOON);
    assert!(!server.stdout.contains("unpacked"), "an empty input is no archive: {server:?}");
    a.docker(&["rm", "-f", "dev"]).ok();
    events.line_with("destroy", SOON);
}

#[test]
fn d02_images_are_pushed_to_a_registry_and_pulled_again() {
    let host = Host::start();
    let a = ready(&host, "a");
    let config = "version: 0.1\nstorage: { filesystem: { rootdirectory: /data } }\nhttp: { addr: ':5000' }\n";
    let tar = tree::tar(&host, "registry", &[(Path::new("/usr/bin/docker-registry"), "/bin/registry")], &[("/config.yml", config)]);
    a.import(&tar, "registry");
    a.docker(&["run", "-d", "--name", "registry", "-p", "5000:5000", "registry", "/bin/registry", "serve", "/config.yml"]).ok();
    let build = "FROM busybox\nRUN head -c 30000000 /dev/urandom > /r && md5sum < /r > /sum\n";
    a.docker(&["build", "-q", "-t", "localhost:5000/team/app:1", "-"]).env("DOCKER_BUILDKIT", "0").input(build).limit(BUILD).ok();
    let sum = a.docker(&["run", "--rm", "localhost:5000/team/app:1", "cat", "/sum"]).ok();
    until("the registry takes a push", SOON, || {
        a.docker(&["push", "-q", "localhost:5000/team/app:1"]).limit(BUILD).output().success().then_some(())
    });
    a.docker(&["rmi", "localhost:5000/team/app:1"]).ok();
    a.docker(&["run", "--rm", "--pull", "never", "localhost:5000/team/app:1", "true"]).fails();
    assert_eq!(a.docker(&["run", "--rm", "localhost:5000/team/app:1", "sh", "-c", "md5sum < /r"]).limit(BUILD).ok(), sum, "pulled by run");
    let digest = a.docker(&["image", "inspect", "--format", "{{index .RepoDigests 0}}", "localhost:5000/team/app:1"]).ok();
    assert!(digest.starts_with("localhost:5000/team/app@sha256:"), "{digest}");
    // BuildKit pulls its base from there and pushes what it made.
    let kit = a.docker(&["buildx", "build", "--push", "-t", "localhost:5000/team/kit:2", "-"]);
    kit.input("FROM localhost:5000/team/app:1\nRUN md5sum < /r > /again\n").limit(BUILD).ok();
    assert_eq!(a.docker(&["run", "--rm", "--pull", "always", "-q", "localhost:5000/team/kit:2", "cat", "/again"]).limit(BUILD).ok(), sum);
    let missing = a.docker(&["pull", "localhost:5000/team/none"]).limit(BUILD).fails();
    assert!(missing.stderr.contains("not found") || missing.stderr.contains("manifest unknown"), "{missing:?}");
}

#[test]
fn x12_two_jobs_of_a_runner_check_out_build_run_and_remove_at_once() {
    let host = Host::start();
    let a = ready(&host, "a");
    let sessions = Sessions::of(&host, false);
    // The runner's image: git, and Docker's client with its plug-in for builds.
    let client = host.cache.as_ref().expect("images").client();
    let (docker, buildx) = (client.join("docker"), client.join("cli-plugins/docker-buildx"));
    let plugin = "/usr/libexec/docker/cli-plugins/docker-buildx";
    let files = [
        (docker.as_path(), "/bin/docker"),
        (&buildx, plugin),
        (Path::new("/usr/bin/git"), "/bin/git"),
        (Path::new("/usr/bin/git"), "/bin/git-upload-pack"),
    ];
    let tar = tree::tar(&host, "runner", &files, &[]);
    a.import(&tar, "runner");
    // The project, as a bare repository in a volume.
    let repository = a.user.home.join("project.git");
    let make = "set -e; git init -q work; cd work; printf 'FROM busybox\\nCOPY word /word\\nCMD [\"cat\", \"/word\"]\\n' > Dockerfile; echo checked-out > word; \
                git add .; git -c user.name=a -c user.email=a@example commit -qm one; git clone -q --bare . \"$0\"; cd ..; tar -c project.git";
    let bare = a.user.run("sh").args(["-c", make]).arg(&repository).output();
    assert!(bare.success(), "{:?}", bare.stderr);
    let copy = format!("tar -C {} -c project.git | docker run --rm -i -v repository:/r busybox tar -xC /r", a.user.home.display());
    login(&sessions, &a, &copy).ok();

    let job = "set -e; n=$0; git config --global --add safe.directory '*'; git clone -q /r/project.git /w; cd /w; \
               docker build -q -t app:$n . >/dev/null; docker run --rm --name app-$n app:$n; docker run --rm -v /w:/none app:$n ls -A /none; \
               docker rmi -f app:$n >/dev/null; docker ps -q --filter name=app-$n; echo finished $n";
    write(&a, "job.sh", job);
    thread::scope(|scope| {
        for number in 0..2 {
            let (a, sessions) = (&a, &sessions);
            scope.spawn(move || {
                for round in 0..2 {
                    // As a runner does: the path of DOCKER_HOST, with nothing known of Berth.
                    let script = format!(
                        "docker run --rm --name job-{number} -v \"${{DOCKER_HOST#unix://}}:/var/run/docker.sock\" -v repository:/r:ro runner \
                         sh -c \"$(cat job.sh)\" {number}-{round}"
                    );
                    let script = format!("cd {} && {script}", a.user.home.display());
                    let ran = login(sessions, a, &script).output();
                    assert!(ran.success(), "{ran:?}");
                    // What a job binds is a path of the berth, where its own checkout is not: an empty directory, as on any host.
                    assert_eq!(ran.stdout, format!("checked-out\nfinished {number}-{round}\n"), "{ran:?}");
                }
            });
        }
    });
    assert_eq!(a.docker(&["ps", "-aq"]).ok(), "");
    assert_eq!(a.docker(&["images", "-q", "app"]).ok(), "");
    // The same path works inside the job too.
    let same = "docker run --rm -v \"${DOCKER_HOST#unix://}:${DOCKER_HOST#unix://}\" -e DOCKER_HOST runner docker info --format '{{.ID}}'";
    assert_eq!(login(&sessions, &a, same).ok(), a.docker(&["info", "--format", "{{.ID}}"]).ok());
}

/// The image's own client, and the programs that `BERTH_TEST_CLIENTS` names, with colons between them.
#[test]
fn d02_the_docker_client_does_a_days_work_whatever_its_release() {
    let host = Host::start();
    let a = ready(&host, "a");
    let sessions = Sessions::of(&host, false);
    let mut clients = vec![host.cache.as_ref().expect("images").client().join("docker")];
    clients.extend(std::env::var_os("BERTH_TEST_CLIENTS").iter().flat_map(std::env::split_paths));
    for client in clients {
        let script = format!(
            "set -e; docker() {{ {0} \"$@\"; }}; say() {{ echo \"== $*\" >&2; }}
            cd $HOME; rm -rf day; mkdir day; cd day
            say version; docker version --format '{{{{.Client.Version}}}} {{{{.Client.APIVersion}}}} {{{{.Server.Version}}}}'; docker info >/dev/null
            say run; [ \"$(echo in | docker run --rm -i busybox cat)\" = in ]
            say terminal; script -qec '{0} run --rm -t busybox tty' /dev/null | grep -q /dev/pts/0
            say detached; docker run -d --name day --health-cmd true busybox sh -c 'echo one; read x < /dev/null; sleep 1000'
            say exec; [ \"$(echo word | docker exec -i day cat)\" = word ]
            say logs; until docker logs day | grep -q one; do sleep 0.1; done; timeout 10 {0} logs -f day | grep -qm1 one
            say attach; timeout -s KILL 5 {0} attach --no-stdin --sig-proxy=false day || true
            say cp; echo file > f; docker cp f day:/f; docker cp day:/f g; cmp f g
            say build; printf 'FROM busybox\\nCOPY f /f\\nRUN cat /f > /g\\n' > Dockerfile; DOCKER_BUILDKIT=0 docker build -q -t day:1 . >/dev/null
            say kit; DOCKER_BUILDKIT=1 docker build -q --no-cache -t day:2 . >/dev/null; [ \"$(docker run --rm day:2 cat /g)\" = file ]
            say save; docker save day:1 | docker load >/dev/null
            say events; docker events --since 1m --until 0s --filter event=start --format '{{{{.Action}}}}' | grep -q start
            say stats; docker stats --no-stream day >/dev/null; docker top day >/dev/null; docker system df >/dev/null
            say commit; docker commit day day:3 >/dev/null; docker volume create day >/dev/null; docker network create day >/dev/null
            say remove; docker rm -f day >/dev/null; docker rmi -f day:1 day:2 day:3 >/dev/null; docker volume rm day >/dev/null; docker network rm day >/dev/null
            say end",
            client.display()
        );
        let done = login(&sessions, &a, &script).output();
        assert!(done.success() && done.stderr.contains("== end"), "{}: {done:?}", client.display());
        eprintln!("{}: {}", client.display(), done.stdout.lines().next().unwrap_or_default());
    }
}
