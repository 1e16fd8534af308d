//! The user's home and further directories of the host inside his berth.
#![forbid(unsafe_code)]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use berth_tests::{Berth, Host, Output, Run, Running, berth::BUSYBOX, programs, until};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

/// `docker run --rm ARGS -v DIR:/w busybox sh -c SCRIPT` as the user.
#[track_caller]
fn run_with(berth: &Berth<'_>, args: &[&str], dir: &Path, script: &str) -> Output {
    let bind = format!("{}:/w", dir.display());
    berth.docker_run(&[args, &["-v", &bind]].concat(), script)
}

fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let path = path.as_ref();
    let meta = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (meta.uid(), meta.gid())
}

/// The condition of this kind, waited for.
#[track_caller]
fn condition(berth: &Berth<'_>, kind: &str) -> String {
    until(&format!("{kind} of {}", berth.name()), SOON, || {
        let status = berth.status();
        let found = status["conditions"].as_array()?.iter().find(|c| c["type"] == kind || c["kind"] == kind)?.clone();
        found["message"].as_str().map(str::to_owned)
    })
}

/// Starts the berth anew with another policy. The server is stopped meanwhile: it would set its own again, for the next start.
#[track_caller]
fn restart_with(berth: &Berth<'_>, policy: Value) {
    let host = berth.host;
    host.stop_server();
    let status = berth.status();
    let mut ensure = json!({
        "id": status["id"], "image": status["image"], "limits": status["limits"], "wanted": "stopped", "allow_system": false, "policy": policy,
    });
    for wanted in ["stopped", "running"] {
        ensure["wanted"] = json!(wanted);
        let answer = host.node_api("PUT", &format!("/v1/berths/{}", berth.name()), Some(&ensure.to_string()));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    berth.await_docker();
    host.start_server();
}

#[test]
fn h01_the_home_works_at_its_own_path_as_root_and_as_the_user() {
    let host = Host::start();
    let (user, other) = (host.user("a"), host.user("b"));
    let group = Run::new("id").args(["-gn", &other.name]).ok();
    Run::new("usermod").args(["-aG", &group, &user.name]).ok();
    let work = user.home.join("work");
    user.run("mkdir").arg(&work).ok();
    // The user's own file in his group, and a directory of somebody else's that the group may enter and read.
    fs::write(work.join("of-group"), "one\n").unwrap();
    chown(work.join("of-group"), Some(user.uid), Some(other.gid)).unwrap();
    fs::set_permissions(work.join("of-group"), fs::Permissions::from_mode(0o660)).unwrap();
    let shared = work.join("team");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("y"), "of the team").unwrap();
    for path in [&shared, &shared.join("y")] {
        chown(path, Some(other.uid), Some(other.gid)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o2770)).unwrap();
    }
    let private = work.join("private-of-b");
    fs::write(&private, "secret").unwrap();
    chown(&private, Some(other.uid), Some(other.gid)).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();

    let a = host.assign(&user, &[]);
    a.load_busybox();
    let told = run_with(&a, &[], &work, "touch /w/x && echo two >> /w/of-group && cat /w/team/y && mkdir /w/d && chown 999 /w/d");
    assert!(told.success() && told.stdout == "of the team", "{told:?}");
    assert_eq!(owner(work.join("x")), (user.uid, user.gid));
    assert_eq!(owner(work.join("d")), (a.id_base() + 999, user.gid));
    assert_eq!(fs::read_to_string(work.join("of-group")).unwrap(), "one\ntwo\n");
    let told =
        run_with(&a, &[], &work, "cat /w/private-of-b; chown 0 /w/private-of-b; rm -f /w/team/../private-of-b && touch /w/private-of-b");
    assert!(!told.stdout.contains("secret"), "{told:?}");

    let ids = format!("{}:{}", user.uid, user.gid);
    for (name, user_option) in [("own", ids.clone()), ("own-uid", user.uid.to_string())] {
        let told =
            run_with(&a, &["--user", &user_option], &work, &format!("id -u && cat /w/x && echo three >> /w/of-group && touch /w/{name}"));
        assert!(told.success() && told.stdout.starts_with(&user.uid.to_string()), "{told:?}");
        assert_eq!(owner(work.join(name)), (user.uid, user.gid), "{name}");
    }
    // An exec in such a container has the same files; a container of another number has what others have.
    let bind = format!("{}:/w", work.display());
    a.docker(&["run", "-d", "--name", "box", "--user", &ids, "-v", &bind, BUSYBOX, "sleep", "1000"]).ok();
    a.docker(&["exec", "box", "touch", "/w/by-exec"]).ok();
    assert_eq!(owner(work.join("by-exec")), (user.uid, user.gid));
    let told = run_with(&a, &["--user", "33:33"], &work, "touch /w/by-33");
    assert!(!told.success(), "{told:?}");
    // What is mounted twice inside shows no path of the host beyond the directory's own, and the wrapper none at all.
    let table = a.exec(&["cat", "/proc/self/mountinfo"]).ok();
    let line = table.lines().find(|l| l.split(' ').nth(4) == Some("/usr/local/sbin/runc")).unwrap_or_else(|| panic!("no wrapper: {table}"));
    assert!(line.split(' ').nth(3) == Some("/runc") && line.contains(" ro,nosuid,nodev") && !line.contains("berth"), "{line}");
    assert_eq!(a.exec(&["stat", "-c", "%u:%g", "/usr/local/sbin/runc"]).ok(), "0:0");
    // A build runs through the wrapper as well.
    a.docker(&["build", "-q", "-"]).input(format!("FROM {BUSYBOX}\nRUN id > /id\n")).ok();
}

#[test]
fn h01_a_user_whose_number_does_not_fit_a_berth_keeps_it_on_the_host() {
    let host = Host::start();
    let mut user = host.user("a");
    let number = 1_200_000 + host.slot.number;
    Run::new("groupmod").args(["-g", &number.to_string(), &user.name]).ok();
    Run::new("usermod").args(["-u", &number.to_string(), "-g", &number.to_string(), &user.name]).ok();
    (user.uid, user.gid) = (number, number);
    Run::new("chown").args(["-R", &format!("{number}:{number}")]).arg(&user.home).ok();
    let a = host.assign(&user, &[]);
    a.load_busybox();
    let ids = format!("{number}:{number}");
    let told = run_with(&a, &["--user", &ids], &user.home, "id -u; touch /w/x && stat -c %u:%g /w/x");
    assert!(told.success() && told.stdout == "65469\n65469:65469\n", "{told:?}");
    assert_eq!(owner(user.home.join("x")), (number, number));
    let bind = format!("{}:/w", user.home.display());
    a.docker(&["run", "-d", "--name", "box", "--user", &ids, "-v", &bind, BUSYBOX, "sleep", "1000"]).ok();
    a.docker(&["exec", "box", "touch", "/w/by-exec"]).ok();
    assert_eq!(owner(user.home.join("by-exec")), (number, number));
}

#[test]
fn h02_nothing_of_other_users_or_of_the_host_is_reached_through_a_home() {
    let host = Host::start();
    let (user, other) = (host.user("a"), host.user("b"));
    fs::write(other.home.join("secret"), "of b").unwrap();
    fs::set_permissions(other.home.join("secret"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&other.home, fs::Permissions::from_mode(0o755)).unwrap();
    let marker = host.slot.dir.join("marker");
    fs::write(&marker, "of the host").unwrap();
    for (name, target) in [("to-etc", Path::new("/etc")), ("to-b", &other.home), ("to-marker", &marker), ("up", Path::new("../../.."))] {
        user.run("ln").arg("-s").arg(target).arg(user.home.join(name)).ok();
    }
    let a = host.assign(&user, &[]);
    a.load_busybox();
    let home = user.home.display();
    let secret = other.home.join("secret");
    let look = format!(
        "cat {home}/to-b/secret {secret} {home}/to-marker {home}/up/marker {marker}; cat {home}/to-etc/shadow /etc/shadow /root/*; ls -a {home}/.. {home}/../..",
        secret = secret.display(),
        marker = marker.display(),
    );
    let told = a.sh(&look).output();
    for foreign in ["of b", "of the host", &other.name, "node.toml"] {
        assert!(!told.stdout.contains(foreign), "{foreign}: {told:?}");
    }
    // A container that mounts the links gets what they lead to inside.
    let told = run_with(&a, &[], &user.home.join("to-b"), "ls -a /w");
    assert!(!told.stdout.contains("secret"), "{told:?}");

    // What is mounted on the host below the home meanwhile, or was before, is not there.
    let below = user.home.join("disk");
    user.run("mkdir").arg(&below).ok();
    Run::new("mount").args(["-t", "tmpfs", "none"]).arg(&below).ok();
    fs::write(below.join("mounted-later"), "mounted").unwrap();
    let seen = a.sh(&format!("ls -a {home}/disk; mount")).output();
    Run::new("umount").arg(&below).ok();
    assert!(seen.success() && !seen.stdout.contains("mounted-later"), "{seen:?}");

    // A renamed home stays the same one, and nothing beside it comes into view.
    let renamed = user.home.with_file_name("renamed");
    let mut shell = a.docker(&["run", "--rm", "-i", "-v", &format!("{home}:/w"), "-w", "/w/disk", BUSYBOX, "sh"]).spawn();
    shell.send("echo ready\n");
    shell.line_with("ready", SOON);
    fs::rename(&user.home, &renamed).unwrap();
    fs::rename(renamed.join("disk"), host.slot.dir.join("home/moved")).unwrap();
    shell.send("touch /w/after; ls -a . .. ../.. ../../..; echo done\n");
    let mut listed = String::new();
    while let Some(line) = shell.line(SOON).filter(|line| line != "done") {
        listed += &line;
        listed.push('\n');
    }
    fs::rename(host.slot.dir.join("home/moved"), renamed.join("disk")).unwrap();
    fs::rename(&renamed, &user.home).unwrap();
    drop(shell);
    assert!(!listed.contains("renamed") && !listed.contains(&other.name), "{listed}");
    assert_eq!(owner(user.home.join("after")), (user.uid, user.gid));
}

#[test]
fn m02_the_flags_of_a_home_stay_and_below_it_lies_nothing_of_the_host() {
    let host = Host::start();
    let user = host.user("a");
    let a = host.assign(&user, &[]);
    a.load_busybox();
    let home = user.home.display();
    let line = a.sh(&format!("grep ' {home} ' /proc/self/mountinfo")).ok();
    assert!(line.contains("rw,nosuid,nodev"), "{line}");
    for how in [
        format!("mount -o remount,bind,suid {home}"),
        format!("mount -o remount,bind,dev {home}"),
        format!("mkdir -p /mnt/c && mount --bind {home} /mnt/c && mount -o remount,bind,suid,dev /mnt/c"),
        format!("unshare -m mount -o remount,bind,suid {home}"),
        format!("mknod {home}/node b 7 0"),
        format!("touch {home}/f && chown 4000000000 {home}/f"),
    ] {
        let told = a.sh(&how).output();
        assert!(!told.success(), "{how}: {told:?}");
    }
    // A setuid program is none inside, and on the host at most the user's own or one of his range.
    // Debian 13 makes homes that only their user enters.
    a.sh(&format!("umount /mnt/c; chmod go+x {home}; cp /usr/bin/id {home}/suid && chmod 4755 {home}/suid && cp /usr/bin/id {home}/other && chown 5 {home}/other && chmod 4755 {home}/other")).ok();
    assert_eq!(a.host.berth(["exec", "-u", "1000:1000", a.name(), "--", &format!("{home}/suid"), "-u"]).ok(), "1000");
    assert_eq!(owner(user.home.join("suid")).0, user.uid);
    assert_eq!(owner(user.home.join("other")).0, a.id_base() + 5);
    // Nor is it taken off, however it is tried: what is below, a directory of the image, stays hidden.
    for how in ["umount", "umount -l", "unshare -m umount -l", "unshare -Urm umount -l", "mount --move"] {
        let target = if how == "mount --move" { " /mnt" } else { "" };
        let told = a.sh(&format!("{how} {home}{target}")).output();
        assert!(!told.success(), "{how}: {told:?}");
    }
    assert!(a.sh(&format!("test -f {home}/suid")).output().success());
}

#[test]
fn h02_profiles_make_a_home_read_only_or_absent_and_add_directories() {
    let host = Host::start();
    let user = host.user("a");
    let a = host.assign(&user, &[]);
    a.load_busybox();
    let data = host.slot.dir.join("data");
    let linked = host.slot.dir.join("linked");
    for dir in [&data, &host.slot.dir.join("read")] {
        fs::create_dir(dir).unwrap();
        chown(dir, Some(user.uid), Some(user.gid)).unwrap();
    }
    symlink(&data, &linked).unwrap();
    fs::write(user.home.join("f"), "mine").unwrap();
    let path = |path: &Path, read_only: bool| json!({"path": path, "read_only": read_only});
    restart_with(
        &a,
        json!({"home": "ro", "paths": [path(&data, false), path(&host.slot.dir.join("read"), true), path(&linked, false), path(Path::new("/etc"), true)]}),
    );
    let told = run_with(&a, &[], &user.home, "cat /w/f && touch /w/x");
    assert!(told.stdout == "mine" && told.stderr.contains("Read-only"), "{told:?}");
    for how in ["remount,bind,rw", "remount,rw"] {
        a.sh(&format!("mount -o {how} {}", user.home.display())).fails();
    }
    assert!(run_with(&a, &[], &data, "touch /w/x").success());
    assert_eq!(owner(data.join("x")), (user.uid, user.gid));
    assert!(!run_with(&a, &[], &host.slot.dir.join("read"), "touch /w/x").success());
    let why = condition(&a, "PathNotMapped");
    assert!(why.contains("symbolic link") && why.contains("/etc: a berth has /etc of its own"), "{why}");
    let table = a.exec(&["cat", "/proc/self/mountinfo"]).ok();
    assert!(table.lines().all(|line| line.split(' ').nth(4) != Some("/etc")), "{table}");

    restart_with(&a, json!({"home": "none", "paths": []}));
    let told = a.sh(&format!("cat {0}/f; touch {0}/x", user.home.display())).output();
    assert!(!told.success() && !told.stdout.contains("mine") && told.stderr.contains("Read-only"), "{told:?}");
    let told = run_with(&a, &[], &user.home.join("sub"), "true");
    assert!(!told.success(), "{told:?}");
    let status = a.status();
    assert_eq!(status["conditions"], json!([]), "{status}");
}

/// The user's home on a file system of its own; unmounted when dropped.
struct Mounted<'p>(&'p Path, Option<Running>);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        Run::new("umount").arg("-l").arg(self.0).output();
    }
}

#[test]
fn h02_a_home_that_cannot_be_id_mapped_is_covered_and_its_reason_is_told() {
    let host = Host::start();
    let user = host.user("a");
    let behind = host.slot.dir.join("behind");
    fs::create_dir(&behind).unwrap();
    chown(&behind, Some(user.uid), Some(user.gid)).unwrap();
    Run::new("find").arg(&user.home).args(["-mindepth", "1", "-delete"]).ok();
    Run::new("bindfs").args(["-o", "allow_other"]).arg(&behind).arg(&user.home).ok();
    let mounted = Mounted(&user.home, None);
    let a = host.assign(&user, &[]);
    let why = condition(&a, "HomeNotMapped");
    assert!(why.contains("fuse") && why.contains("id-mapped"), "{why}");
    a.load_busybox();
    let begun = Instant::now();
    for dir in [user.home.clone(), user.home.join("sub/dir")] {
        let told = run_with(&a, &[], &dir, "touch /w/x");
        assert!(!told.success() && begun.elapsed() < SOON, "{told:?}");
    }
    let told = run_with(&a, &[], &user.home.join("sub"), "touch /w/x");
    assert!(told.stderr.contains("id-mapped"), "the reason: {told:?}");
    // Nowhere a directory: not in the home, not below the cover, which cannot be taken off.
    let inside = a.sh(&format!("ls -A {0}; ! umount -l {0} 2> /dev/null && ls -A {0}", user.home.display())).ok();
    assert_eq!(inside, "");
    let names: Vec<_> = fs::read_dir(&behind).unwrap().flatten().map(|e| e.file_name()).filter(|n| n != ".docker").collect();
    assert!(names.is_empty(), "{names:?}");
    // The node forgets nothing of it.
    host.stop_node();
    host.start_node();
    assert_eq!(condition(&a, "HomeNotMapped"), why);
    // What was changed counts from the next start on.
    drop(mounted);
    a.restart().ok();
    a.await_docker();
    assert!(!a.status().to_string().contains("HomeNotMapped"));
    assert!(run_with(&a, &[], &user.home, "touch /w/x").success());
}

#[test]
fn h02_a_home_whose_server_does_not_answer_delays_a_start_and_no_more() {
    let host = Host::start();
    let user = host.user("a");
    // A file system that takes every question and answers none.
    let script = format!(
        "exec 3<>/dev/fuse; mount -i -t fuse -o fd=3,rootmode=40000,user_id={},group_id={},allow_other stuck {} && echo ready; exec sleep 600",
        user.uid,
        user.gid,
        user.home.display()
    );
    let mut server = Run::new("sh").args(["-c", &script]).spawn();
    server.line_with("ready", SOON);
    let mounted = Mounted(&user.home, Some(server));
    let begun = Instant::now();
    host.assign_command(&user, &[]).ok();
    let a = host.berth_of(&user);
    a.await_docker();
    let took = begun.elapsed();
    let why = condition(&a, "HomeNotMapped");
    assert!(why.contains("did not open") || why.contains("not open in time"), "{why}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    // Its end frees whatever hangs.
    let Mounted(_, server) = &mounted;
    server.as_ref().expect("it runs").signal(nix::sys::signal::Signal::SIGKILL);
    drop(mounted);
    a.delete().ok();
}

/// What is noted to be given back, in the node's file of ranges.
fn ranges(host: &Host) -> (PathBuf, Value) {
    let file = host.state_dir.join("node/ids.json");
    let text = fs::read_to_string(&file).expect("ids.json");
    (file, serde_json::from_str(&text).expect("JSON"))
}

#[test]
fn h01_after_a_delete_the_user_has_back_what_containers_left_and_a_crash_only_delays_it() {
    let host = Host::start();
    let user = host.user("a");
    let a = host.assign(&user, &[]);
    a.load_busybox();
    let base = a.id_base();
    let script = "mkdir -p /w/db/deep && touch /w/db/deep/f && chown -R 999:998 /w/db && ln -s /etc/passwd /w/db/l && chown -h 7 /w/db/l && \
                  cp /bin/busybox /w/suid && chown 1000 /w/suid && chmod 6755 /w/suid && touch /w/group && chgrp 50 /w/group";
    let told = run_with(&a, &[], &user.home, script);
    assert!(told.success(), "{told:?}");
    let home = &user.home;
    assert_eq!(owner(home.join("db/deep/f")), (base + 999, base + 998));
    // Somebody else's file in the home, and one of the range beyond the home, stay as they are.
    let beyond = host.slot.dir.join("beyond");
    for (path, id) in [(home.join("foreign"), 4321), (beyond.clone(), base + 9)] {
        fs::write(&path, "x").unwrap();
        chown(&path, Some(id), Some(id)).unwrap();
    }
    symlink(&beyond, home.join("leads-out")).unwrap();
    lchown(home.join("leads-out"), Some(base + 3), Some(user.gid)).unwrap();
    a.delete().ok();
    let given = || owner(home.join("db/deep/f")) == (user.uid, user.gid) && !ranges(&host).1.to_string().contains("give_back");
    until("files are given back", SOON, || given().then_some(()));
    for name in ["db", "db/deep", "db/l", "suid", "group", "leads-out"] {
        assert_eq!(owner(home.join(name)), (user.uid, user.gid), "{name}");
    }
    assert_eq!(fs::metadata(home.join("suid")).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!((owner(home.join("foreign")).0, owner(&beyond).0), (4321, base + 9));

    // The same when the node died before: what is noted is done at its next start.
    host.kill_node();
    chown(home.join("suid"), Some(base + 1), Some(base + 1)).unwrap();
    let (file, mut all) = ranges(&host);
    let range = all.as_array_mut().unwrap().iter_mut().find(|r| r["base"] == base).expect("the range in quarantine");
    range["give_back"] = json!({"uid": user.uid, "gid": user.gid, "id_base": base, "directories": [[home, true]]});
    fs::write(&file, all.to_string()).unwrap();
    host.start_node();
    until("files are given back after a crash", SOON, || {
        (owner(home.join("suid")) == (user.uid, user.gid) && !ranges(&host).1.to_string().contains("give_back")).then_some(())
    });
}

/// Directly: the program that gives back changes ids of the range, to the user's, and nothing else.
#[test]
fn i07_giving_back_touches_ids_of_the_range_only() {
    let host = Host::with(berth_tests::Options { images: false, ..Default::default() });
    let user = host.user("a");
    let (base, _) = host.slot.ids();
    let file = |name: &str, uid: u32, gid: u32, mode: u32| {
        let path = user.home.join(name);
        fs::write(&path, "x").unwrap();
        chown(&path, Some(uid), Some(gid)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let mine = file("mine", base + 999, base + 999, 0o6755);
    let below = file("below", base + 65_536, base - 1, 0o4755);
    let group = file("group", 4321, base + 65_535, 0o664);
    let request = json!({"uid": user.uid, "gid": user.gid, "id_base": base, "directories": [[user.home, true], ["/nonexistent/x", false]]});
    let run = || -> Value { Run::new(programs::find("berth-shim")).arg("give-back").input(request.to_string()).json() };
    assert_eq!(run(), json!({"changed": 2, "left": []}));
    assert_eq!((owner(&mine), owner(&below), owner(&group)), ((user.uid, user.gid), (base + 65_536, base - 1), (4321, user.gid)));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&mine), mode(&below), mode(&group)), (0o755, 0o4755, 0o664));
    assert_eq!(run(), json!({"changed": 0, "left": []}));
}

#[test]
fn h01_a_runc_of_the_tenants_own_stays_and_the_images_own_can_be_replaced() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.load_busybox();
    a.sh("cp /usr/sbin/runc /root/kept 2>/dev/null || cp /usr/bin/runc /root/kept; r=$(PATH=/usr/sbin:/usr/bin command -v runc); cp /root/kept $r.new && mv $r.new $r").ok();
    assert!(a.docker_run(&[], "true").success());
    // The wrapper itself is locked; what it becomes is the tenant's to choose.
    a.sh("umount /usr/local/sbin/runc").fails();
    a.sh("r=$(PATH=/usr/sbin:/usr/bin command -v runc); printf '#!/bin/sh\\necho \"$@\" >> /root/runs\\nexec /root/kept \"$@\"\\n' > $r && chmod 0755 $r").ok();
    a.restart().ok();
    a.await_docker();
    assert!(a.docker_run(&[], "true").success());
    assert!(a.exec(&["cat", "/root/runs"]).ok().contains("create"));
}
