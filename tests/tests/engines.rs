//! Docker engines of other Debian releases than that of the default image, built by the recipe and used from a berth; and images in the
//! manner of docker:dind, as a berth's root and as a privileged container.
#![forbid(unsafe_code)]

use std::time::Duration;

use berth_tests::{Host, berth::BUSYBOX, dind, image, until};

/// The recipe fetches some hundred packages.
const BUILD: Duration = Duration::from_secs(280);

/// Suite, and how its engine's version begins. The unstable one, which changes from day to day, is tried with `--long`.
const ENGINES: [(&str, &str); 2] = [("bookworm", "20.10."), ("sid", "28.")];

#[test]
fn d07_engines_of_other_debian_releases_run_build_connect_and_come_back() {
    let host = Host::start();
    let number = if std::env::var_os("BERTH_TEST_LONG").is_some() { 2 } else { 1 };
    for (suite, version) in &ENGINES[..number] {
        host.berth(["image", "build", "--suite", suite, "--name", suite]).limit(BUILD).ok();
        let a = host.assign(&host.user(suite), &["--image", suite]);
        a.await_docker();
        let engine = a.docker(&["version", "--format", "{{.Server.Version}}"]).ok();
        assert!(engine.starts_with(version), "{suite}: {engine}");
        let driver = a.docker(&["info", "--format", "{{.Driver}}"]).ok();
        assert!(driver.starts_with("overlay"), "{suite}: {driver}");
        a.load_busybox();
        let words =
            ["run", "--rm", "--init", "-m", "64m", "--cpus", ".5", "-v", "data:/d", BUSYBOX, "sh", "-c", "echo $$ > /d/f; cat /d/f"];
        assert_ne!(a.docker(&words).ok().trim(), "1", "{suite}: --init is the first process");
        let recipe = format!("FROM {BUSYBOX}\nRUN echo built > /built\nCMD [\"cat\", \"/built\"]\n");
        // BuildKit of 20.10 remounts layers without the flags that are locked on them, and fails (README, known differences).
        let kit = if *suite == "bookworm" { "0" } else { "1" };
        a.docker(&["build", "-t", "mine", "-"]).env("DOCKER_BUILDKIT", kit).input(recipe).limit(BUILD).ok();
        assert_eq!(a.docker(&["run", "--rm", "mine"]).ok(), "built", "{suite}");
        a.docker(&["network", "create", "net"]).ok();
        let serve = "mkdir /w && echo served > /w/index.html && exec httpd -f -p 80 -h /w";
        a.docker(&["run", "-d", "--name", "web", "--network", "net", "--restart", "always", BUSYBOX, "sh", "-c", serve]).ok();
        let fetch = "for i in 1 2 3 4 5 6 7 8 9; do wget -qO- http://web/ && exit; sleep 1; done; exit 1";
        assert_eq!(a.docker(&["run", "--rm", "--network", "net", BUSYBOX, "sh", "-c", fetch]).ok(), "served", "{suite}");
        assert_eq!(a.docker(&["run", "--rm", "--privileged", "-v", "/:/h", BUSYBOX, "cat", "/h/proc/1/comm"]).output().status, 0);
        a.restart().ok();
        a.await_docker();
        assert_eq!(a.docker(&["inspect", "--format", "{{.State.Running}}", "web"]).ok().trim(), "true", "{suite}: it is back");
        a.delete().ok();
    }
}

/// For what is started and answers in seconds on a quiet host.
const ANSWER: Duration = Duration::from_secs(60);

#[test]
fn an_image_in_the_manner_of_dind_is_the_root_of_a_berth() {
    let host = Host::start();
    image::import(&host, "dind", &dind::root(&host), &dind::says());
    let a = host.assign(&host.user("a"), &["--image", "dind"]);
    until("its Docker answers at the user's socket", ANSWER, || a.docker(&["info"]).output().success().then_some(()));
    assert_eq!(a.exec(&["cat", "/proc/1/comm"]).ok(), "docker-init");
    assert_eq!(a.docker(&["info", "--format", "{{.Driver}}"]).ok(), "overlay2");
    a.load_busybox();
    let serve = "mkdir /w && echo served > /w/index.html && exec httpd -f -p 80 -h /w";
    a.docker(&["run", "-d", "--name", "web", "--restart", "always", "-m", "64m", "-p", "8080:80", BUSYBOX, "sh", "-c", serve]).ok();
    until("the published port answers", ANSWER, || {
        let get = "exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3";
        a.exec(&["timeout", "5", "bash", "-c", get]).output().stdout.contains("served").then_some(())
    });
    // As its clients in other containers do: by TLS, with the certificates that it made.
    let secure = "DOCKER_HOST=tcp://127.0.0.1:2376 DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=/certs/client docker ps --format '{{.Names}}'";
    assert_eq!(a.sh(secure).ok(), "web");
    assert!(!a.sh("DOCKER_HOST=tcp://127.0.0.1:2376 docker ps").output().success(), "nobody without a certificate");
    a.restart().ok();
    until("its container is back", ANSWER, || {
        (a.docker(&["inspect", "--format", "{{.State.Running}}", "web"]).output().stdout.trim() == "true").then_some(())
    });
    a.delete().ok();
}

#[test]
fn dind_runs_privileged_in_a_berth_and_containers_run_in_it() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.await_docker();
    let mut import = a.docker(&["import"]);
    let says = dind::says();
    for change in [r#"ENTRYPOINT ["dockerd-entrypoint.sh"]"#.to_owned(), "VOLUME /var/lib/docker".into(), "EXPOSE 2376".into()]
        .into_iter()
        .chain(says["Env"].as_array().unwrap().iter().map(|env| format!("ENV {}", env.as_str().unwrap())))
    {
        import = import.args(["--change", &change]);
    }
    let root = dind::root(&host);
    import.args(["-", "docker:dind"]).input(std::fs::read(root).unwrap()).limit(ANSWER).ok();
    a.docker(&["network", "create", "ci"]).ok();
    let words = ["run", "-d", "--privileged", "--name", "dind", "--network", "ci", "--network-alias", "docker", "-v", "certs:/certs"];
    a.docker(&words).arg("docker:dind").ok();
    // A job beside it, as CI runners make one.
    let job = |words: &[&str]| {
        let service = ["run", "--rm", "-i", "--network", "ci", "-v", "certs:/certs:ro", "-e", "DOCKER_HOST=tcp://docker:2376"];
        let secure = ["-e", "DOCKER_TLS_VERIFY=1", "-e", "DOCKER_CERT_PATH=/certs/client", "--entrypoint", "docker", "docker:dind"];
        a.docker(&service).args(secure).args(words)
    };
    until("dind answers a job by TLS", ANSWER, || job(&["info"]).output().success().then_some(()));
    assert_eq!(job(&["info", "--format", "{{.Driver}}"]).ok(), "overlay2");
    let busybox = std::fs::read(host.cache.as_ref().unwrap().busybox()).unwrap();
    job(&["import", "-", BUSYBOX]).input(busybox).ok();
    assert_eq!(job(&["run", "--rm", "-m", "32m", BUSYBOX, "echo", "three deep"]).ok(), "three deep");
    assert_eq!(job(&["run", "--rm", "--privileged", "-v", "v:/v", BUSYBOX, "sh", "-c", "mount -t tmpfs t /tmp && echo in"]).ok(), "in");
    job(&["build", "-t", "mine", "-"]).input(format!("FROM {BUSYBOX}\nRUN echo built > /built\nCMD [\"cat\", \"/built\"]\n")).ok();
    assert_eq!(job(&["run", "--rm", "mine"]).ok(), "built");
    a.docker(&["restart", "-t", "20", "dind"]).limit(ANSWER).ok();
    until("its images are back", ANSWER, || job(&["images", "-q", "mine"]).output().stdout.lines().next().map(drop));
    a.docker(&["rm", "-fv", "dind"]).ok();
}
