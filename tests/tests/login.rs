//! How sessions of every kind find the user's own Docker: login shells, `berth env`, `berth context`, ssh, users of a name service.
#![forbid(unsafe_code)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    time::Duration,
};

use berth_tests::{Berth, Host, Options, Run, User, programs, session::Sessions};

const SOON: Duration = Duration::from_secs(20);
const SAY: &str = "echo \"[${DOCKER_HOST-unset}]\"";

/// What a login shell has after all its files, and nothing else was said.
#[track_caller]
fn says(run: Run) -> String {
    let output = run.limit(SOON).output();
    assert!(output.success() && output.stderr.is_empty(), "{output:?}");
    output.stdout.trim().to_owned()
}

/// `~/.docker/config.json` of the user, written by himself.
fn write_config(user: &User, text: &str) {
    let dir = user.home.join(".docker");
    fs::create_dir_all(&dir).expect("make directory");
    fs::write(dir.join("config.json"), text).expect("write config.json");
    for path in [dir.clone(), dir.join("config.json")] {
        chown(&path, Some(user.uid), Some(user.gid)).expect("give away");
    }
}

fn socket(user: &User) -> String {
    format!("unix:///run/berth/users/{}/docker.sock", user.uid)
}

#[test]
fn x01_login_shells_set_docker_host_for_who_has_a_berth_and_chose_nothing_himself() {
    let host = Host::start();
    let (a, b) = (host.assign(&host.user("a"), &["--no-start"]), host.user("b"));
    let sessions = Sessions::of(&host, false);
    let expected = format!("[{}]", socket(&a.user));
    let zsh = ["zsh", "-l", "-c", "emulate sh -c '. /etc/profile.d/berth.sh'; echo \"[${DOCKER_HOST-unset}]\""];
    let fish = ["fish", "-l", "-c", "set -q DOCKER_HOST; and echo \"[$DOCKER_HOST]\"; or echo '[unset]'"];
    let shells: [&[&str]; 5] = [&["dash", "-l", "-c", SAY], &["bash", "-l", "-c", SAY], &["busybox", "sh", "-l", "-c", SAY], &zsh, &fish];
    for shell in shells {
        assert_eq!(says(sessions.run(&a.user, shell)), expected, "{shell:?}");
        assert_eq!(says(sessions.run(&b, shell)), "[unset]", "{shell:?}: no berth");
        let chosen = sessions.run(&a.user, shell).env("DOCKER_HOST", "tcp://elsewhere:2375");
        assert_eq!(says(chosen), "[tcp://elsewhere:2375]", "{shell:?}: he chose another");
        assert_eq!(says(sessions.run(&a.user, shell).env("DOCKER_CONTEXT", "other")), "[unset]", "{shell:?}: he chose a context");
        for (config, expected) in [
            ("{\n\t\"auths\": {},\n\t\"currentContext\": \"other\"\n}", "[unset]"),
            ("{\"currentContext\":\"other\",\"auths\":{}}", "[unset]"),
            ("{\"auths\":{},\"currentContext\" : \"default\"}", expected.as_str()),
            ("{\"auths\":{}}\n", expected.as_str()),
            ("", expected.as_str()),
        ] {
            write_config(&a.user, config);
            assert_eq!(says(sessions.run(&a.user, shell)), expected, "{shell:?}: {config}");
        }
        fs::remove_dir_all(a.user.home.join(".docker")).expect("remove");
        // Where docker itself looks for it.
        let aside = a.user.home.join("aside");
        fs::create_dir_all(&aside).expect("make directory");
        fs::write(aside.join("config.json"), "{\"currentContext\":\"other\"}").expect("write");
        assert_eq!(says(sessions.run(&a.user, shell).env("DOCKER_CONFIG", &aside)), "[unset]", "{shell:?}");
    }

    // In a script that heeds every error and unset name, without a home, with an invented uid; and it leaves nothing behind.
    for shell in ["dash", "bash"] {
        let strict = format!("set -eu; unset HOME; . /etc/profile.d/berth.sh; set | grep -c '^berth_' || true; {SAY}");
        assert_eq!(says(sessions.run(&a.user, &[shell, "-c", &strict])), format!("0\n{expected}"), "{shell}");
        assert_eq!(says(sessions.run(&b, &[shell, "-c", &strict])), "0\n[unset]", "{shell}");
    }
    let invented = sessions.run(&b, &["dash", "-l", "-c", SAY]).env("UID", a.user.uid.to_string());
    assert_eq!(says(invented), "[unset]", "another user's socket is not taken, whatever the environment says");
    // And the first docker of the session wakes the berth.
    let ps = says(sessions.run(&a.user, &["bash", "-l", "-c", "docker ps -q && docker version --format '{{.Server.Os}}'"]));
    assert_eq!(ps, "linux");
}

#[test]
fn x01_berth_env_speaks_the_syntax_of_every_shell_also_while_the_service_is_away() {
    let host = Host::start();
    let (a, b) = (host.assign(&host.user("a"), &["--no-start"]), host.user("b"));
    let expected = format!("unix://{}", a.socket().display());
    let berth = programs::find("berth");
    let berth = berth.to_str().expect("a plain path");
    let shells = [
        ["sh", "sh", "eval \"$(BERTH env)\"; echo $DOCKER_HOST"],
        ["fish", "fish", "BERTH env --shell fish | source; echo $DOCKER_HOST"],
        ["csh", "tcsh", "eval `BERTH env --shell csh`; echo $DOCKER_HOST"],
        ["zsh", "zsh", "eval \"$(BERTH env)\"; echo $DOCKER_HOST"],
    ];
    let all = || {
        for [name, program, script] in shells {
            let run = a.user.run(program).args(["-c", &script.replace("BERTH", berth)]).env("BERTH_SOCKET", host.api_socket());
            assert_eq!(says(run), expected, "{name}");
        }
    };
    all();
    let other = host.berth(["env", a.name()]).ok();
    assert_eq!(other, format!("export DOCKER_HOST={expected}"), "root asks for a user's");
    assert_eq!(host.berth_as(&b, ["env"]).output().status, 3, "no berth");
    assert_eq!(host.berth_as(&b, ["env", a.name()]).output().status, 3, "another's does not exist for him");
    host.stop_server();
    all();
    assert_eq!(host.berth_as(&b, ["env"]).output().status, 6, "the service would know");
}

/// `docker` of the user without DOCKER_HOST.
fn plain_docker(berth: &Berth<'_>, args: &[&str]) -> Run {
    berth.docker(args).env("DOCKER_HOST", "")
}

#[test]
fn x01_a_docker_context_serves_sessions_without_a_variable() {
    let host = Host::start();
    let a = host.new_berth("a");
    let id = a.docker(&["info", "--format", "{{.ID}}"]).ok();
    let config = "{\n\t\"auths\": { \"r.example\": {\"auth\": \"dTpzZWNyZXQ=\"} },\n\t\"psFormat\": \"{{.ID}}\"\n}";
    write_config(&a.user, config);
    let file = a.user.home.join(".docker/config.json");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set mode");
    let berth = |args: &[&str]| host.berth_as(&a.user, ["context"].iter().chain(args));

    assert!(!plain_docker(&a, &["info", "--format", "{{.ID}}"]).output().stdout.contains(&id), "nothing is set yet");
    let said = berth(&[]).ok();
    assert!(said.contains("docker context use berth"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), config, "without --use the file stays");
    assert_eq!(plain_docker(&a, &["--context", "berth", "info", "--format", "{{.ID}}"]).ok(), id);
    assert_eq!(plain_docker(&a, &["context", "ls", "--format", "{{.Name}} {{.Current}}"]).ok(), "berth false\ndefault true");

    let told = berth(&["--use", "--json"]).json();
    assert_eq!((told["current"].as_bool(), told["docker_host"].as_str()), (Some(true), Some(&*format!("unix://{}", a.socket().display()))));
    assert_eq!(plain_docker(&a, &["info", "--format", "{{.ID}}"]).ok(), id, "docker needs nothing now");
    let kept = fs::read_to_string(&file).unwrap();
    assert!(kept.contains("{ \"r.example\": {\"auth\": \"dTpzZWNyZXQ=\"} }") && kept.contains("psFormat"), "{kept}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let inspected = plain_docker(&a, &["context", "inspect", "berth"]).json();
    assert_eq!(inspected[0]["Endpoints"]["docker"]["Host"], format!("unix://{}", a.socket().display()));
    // Docker writes the file anew and finds all of it; again by us.
    plain_docker(&a, &["context", "use", "default"]).ok();
    assert_eq!(plain_docker(&a, &["context", "show"]).ok(), "default");
    plain_docker(&a, &["context", "use", "berth"]).ok();
    berth(&["--use"]).ok();
    assert_eq!(plain_docker(&a, &["context", "show"]).ok(), "berth");
    assert!(fs::read_to_string(&file).unwrap().contains("dTpzZWNyZXQ="));

    // A context of his own is not touched.
    plain_docker(&a, &["context", "create", "mine", "--docker", "host=unix:///elsewhere"]).ok();
    for extra in [&["--name", "mine", "--use"][..], &["--name", "mine", "--remove"]] {
        let refused = berth(extra).output();
        assert!(refused.status == 5 && refused.stderr.contains("unix:///elsewhere"), "{refused:?}");
    }
    for bad in ["default", "x", "../../x", "a b"] {
        assert_eq!(berth(&["--name", bad]).output().status, 2, "{bad}");
    }
    for as_root in [host.berth(["context"]), host.berth(["context"]).env("HOME", &a.user.home)] {
        let refused = as_root.output();
        assert!(refused.status == 2 && refused.stderr.contains("himself"), "{refused:?}");
    }
    // The file of contexts of a user without a berth is not made up.
    let b = host.user("b");
    assert_eq!(host.berth_as(&b, ["context", "--use"]).output().status, 3);
    assert!(!b.home.join(".docker").exists());

    berth(&["--remove"]).ok();
    berth(&["--remove"]).ok();
    assert_eq!(plain_docker(&a, &["context", "ls", "--format", "{{.Name}} {{.Current}}"]).ok(), "default true\nmine false");
    assert!(fs::read_to_string(&file).unwrap().contains("dTpzZWNyZXQ="));
    // What is no JSON is left to its owner.
    fs::write(&file, "{ \"auths\": ").expect("write");
    let refused = berth(&["--use"]).output();
    assert!(refused.status == 1 && refused.stderr.contains("config.json"), "{refused:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "{ \"auths\": ");
}

#[test]
fn x01_docker_over_ssh_uses_the_context_or_what_pam_set() {
    let host = Host::start();
    let a = host.new_berth("a");
    let from = host.user("from");
    let id = a.docker(&["info", "--format", "{{.ID}}"]).ok();
    let docker = host.cache.as_ref().unwrap().client().join("docker");
    let over = |port: u16, user: &User| {
        let address = format!("ssh://{}@127.0.0.1:{port}", user.name);
        from.run(docker.to_str().unwrap()).args(["-H", &address, "info", "--format", "{{.ID}}"]).limit(SOON)
    };
    let command = |port: u16, user: &User, command: &str| {
        from.run("ssh").args(["-p", &port.to_string(), &format!("{}@127.0.0.1", user.name), command]).limit(SOON)
    };
    {
        let sessions = Sessions::of(&host, false);
        let sshd = sessions.sshd();
        sshd.admit(&from, &a.user);
        assert_eq!(command(sshd.port, &a.user, "id -u").ok(), a.user.uid.to_string());
        // A command is no login: nothing is set.
        assert_eq!(command(sshd.port, &a.user, SAY).ok(), "[unset]");
        assert!(!over(sshd.port, &a.user).output().stdout.contains(&id), "docker asked the host's, which is not there");
        // A login shell has it.
        assert_eq!(command(sshd.port, &a.user, &format!("bash -lc '{SAY}'")).ok(), format!("[{}]", socket(&a.user)));
        let berth = programs::find("berth");
        command(sshd.port, &a.user, &format!("BERTH_SOCKET=/run/berth/api.sock {} context --use", berth.display())).ok();
        assert_eq!(over(sshd.port, &a.user).ok(), id);
        assert_eq!(command(sshd.port, &a.user, "docker info --format '{{.ID}}'").ok(), id);
    }
    fs::remove_dir_all(a.user.home.join(".docker")).expect("remove the context");
    let sessions = Sessions::of(&host, true);
    let sshd = sessions.sshd();
    sshd.admit(&from, &a.user);
    let by_name = format!("[unix:///run/berth/users/{}/docker.sock]", a.name());
    assert_eq!(command(sshd.port, &a.user, SAY).ok(), by_name);
    assert_eq!(over(sshd.port, &a.user).ok(), id);
    // Who has no berth has no variable either.
    let b = host.user("b");
    sshd.admit(&from, &b);
    assert_eq!(command(sshd.port, &b, SAY).ok(), "[unset]");
}

#[test]
fn x01_a_user_whom_only_the_name_service_knows_has_a_berth_like_any_other() {
    let host = Host::with(Options { nss_users: vec!["remote@uni.example"], ..Options::default() });
    let service = host.name_service.clone().expect("users of a name service");
    let user = &service.users[0];
    assert!(!fs::read_to_string("/etc/passwd").unwrap().contains(&user.name), "no file of the host has him");
    assert!(!Run::new("getent").args(["passwd", &user.name]).output().success());
    let knows = |mut run: Run| {
        for (name, value) in &service.env {
            run = run.env(name, value);
        }
        run
    };
    let a = host.assign(user, &["--no-start"]);
    assert_eq!(a.show()["uid"], user.uid);
    let id = a.docker(&["info", "--format", "{{.ID}}"]).ok();
    // His login needs no name service at all.
    let sessions = Sessions::of(&host, true);
    let shell = sessions.run(user, &["bash", "-l", "-c", "docker info --format '{{.ID}}'"]);
    assert_eq!(says(shell), id);
    assert!(knows(host.berth_as(user, ["status"])).ok().contains("running"));
    let env = knows(host.berth_as(user, ["env"])).ok();
    assert_eq!(env, format!("export DOCKER_HOST=unix://{}", a.socket().display()));
    // By his uid alone, too.
    assert_eq!(host.berth_as(user, ["env"]).ok(), env);
    knows(host.berth_as(user, ["context", "--use"])).ok();
    assert_eq!(plain_docker(&a, &["info", "--format", "{{.ID}}"]).ok(), id);
    let by_name = host.run_dir.join("users").join(&user.name).join("docker.sock");
    assert_eq!(a.docker(&["info", "--format", "{{.ID}}"]).env("DOCKER_HOST", format!("unix://{}", by_name.display())).ok(), id);
    a.stop().ok();
    a.await_state("stopped");
    assert_eq!(a.docker(&["info", "--format", "{{.ID}}"]).ok(), id, "and wakes");
    a.delete().ok();
}
