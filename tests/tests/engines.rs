//! Docker engines of other Debian releases than that of the default image: built by the recipe, used from a berth.
#![forbid(unsafe_code)]

use std::time::Duration;

use berth_tests::{Host, berth::BUSYBOX};

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
