//! Archives: what a berth was comes back, here and on another host; what breaks off leaves nothing; what means harm does none.
#![forbid(unsafe_code)]

use std::{fs, path::Path, time::Duration};

use berth_tests::{
    Berth, Host, Options, Run,
    fault::{Fault, Step},
    until,
};

const SOON: Duration = Duration::from_secs(60);

/// Files as tenants have them: odd names, links, holes, attributes, capabilities, setuid, foreign owners, a nest of directories.
const MAKE: &str = r#"set -e
mkdir -p /srv/t && cd /srv/t
printf one > "$(printf 'new\nline')"
printf two > "$(printf '\377\376bytes')"
printf three > -dash; printf four > 'a  b*?"'
ln -s /etc/passwd absolute; ln -s ../../outside relative; ln -s nowhere dangling
printf shared > first; ln first second; mkdir sub; ln first sub/third
cp /usr/bin/id setuid; chmod 4755 setuid; chmod 1777 sub
printf other > owned; chown 1234:65535 owned; chmod 640 owned
truncate -s 1G hole; printf end >> hole
mkfifo pipe
mkdir -p deep; d=deep; i=0; while [ $i -lt 120 ]; do d=$d/dddddddddddddddddddd; i=$((i+1)); done; mkdir -p $d; printf bottom > $d/f
perl -e 'my ($file, $key, $value) = ("first", "user.note", "value\0\1");
         syscall(188, $file, $key, $value, 7, 0) == 0 or die "setxattr: $!";
         my ($program, $name, $caps) = ("setuid", "security.capability", pack("V5", 0x02000001, 1 << 10, 0, 0, 0));
         syscall(188, $program, $name, $caps, 20, 0) == 0 or die "setcap: $!"'
touch -d '2001-02-03 04:05:06.789' first; touch -h -d 2002-03-04 dangling; touch -d 2003-04-05 deep sub
rm -f /etc/debian_version; sync"#;

/// All that is to be the same.
const LIST: &str = r#"cd /srv/t
find . -printf '%y %m %U:%G %n %s %T@ <%l> %p\n' | sed 's/^\(d [^ ]* [^ ]* [^ ]*\) [0-9]* /\1 - /' | LC_ALL=C sort
find . -type f ! -name hole -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
perl -e 'for (["first", "user.note"], ["sub/third", "user.note"], ["setuid", "security.capability"]) {
             my ($file, $key) = @$_; my $room = "\0" x 64; my $n = syscall(191, $file, $key, $room, 64); print $n, " ", unpack("H*", substr($room, 0, 20)), "\n" }'
tail -c 3 hole; echo; [ "$(stat -c %b hole)" -lt 2048 ] && echo sparse
stat -c %i first second sub/third | uniq | wc -l
ls -la /etc/debian_version 2>&1 | grep -c 'No such'; du -a /srv/t/deep | wc -l"#;

/// Containers, volumes, images.
#[track_caller]
fn docker_state(berth: &Berth) -> String {
    let one = |args: &[&str]| berth.docker(args).ok();
    let mut images: Vec<String> = one(&["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]).lines().map(str::to_owned).collect();
    images.sort();
    let volumes = one(&["volume", "ls", "--format", "{{.Name}}"]);
    let files = berth.docker_run(&["-v", "vol:/v"], "cd /v && find . | sort && cat file && stat -c %a:%u file").stdout;
    let layer = one(&["run", "--rm", "mine", "sh", "-c", "cat /added; ls /bin/vi 2>&1 | grep -c 'No such'"]);
    format!("{images:?}\n{volumes}\n{files}\n{layer}")
}

#[track_caller]
fn fill(berth: &Berth) {
    berth.sh(MAKE).ok();
    berth.load_busybox();
    berth.docker_run(&["-v", "vol:/v"], "echo kept > /v/file && chmod 600 /v/file && chown 7:7 /v/file && mkdir -p /v/x/y");
    // A layer with a whiteout.
    berth.docker(&["run", "--name", "base", "busybox", "sh", "-c", "echo added > /added; rm /bin/vi"]).ok();
    berth.docker(&["commit", "base", "mine"]).ok();
    berth.docker(&["rm", "base"]).ok();
    berth.docker(&["run", "-d", "--name", "keeps", "--restart", "always", "-v", "vol:/v", "busybox", "sleep", "100000"]).ok();
}

#[track_caller]
fn is_gone(host: &Host, id: &str) {
    assert!(!host.state_dir.join("berths").join(id).exists() && !host.log_dir.join("berths").join(id).exists());
    let losetup = Run::new("losetup").args(["-l", "-n", "-O", "BACK-FILE"]).output().stdout;
    assert!(!losetup.contains(id), "{losetup}");
    assert_eq!(host.list()["items"].as_array().map(Vec::len), Some(0));
}

/// Out of a host with one configuration, into another host with another.
#[track_caller]
fn moves(from: &str, to: &str) {
    let node_config = |text: &str| Options { node_config: text.to_owned(), ..Options::default() };
    let host = Host::with(node_config(from));
    let a = host.assign(&host.user("a"), &["--disk", "3g", "--pids-limit", "777"]);
    fill(&a);
    let (files, docker) = (a.sh(LIST).ok(), docker_state(&a));
    assert!(files.contains("sparse"), "{files}");
    let (id, base) = (a.id(), a.id_base());
    let told = host.berth(["delete", a.name(), "--archive=a.berth", "--yes"]).ok();
    assert!(told.contains("a.berth"), "{told}");
    is_gone(&host, &id);
    let listed = host.berth(["archive", "list", "--json"]).json();
    let archive = &listed["items"][0];
    assert_eq!((&archive["name"], &archive["user"]), (&"a.berth".into(), &a.name().into()), "{listed}");
    assert!(archive["docker_images"].to_string().contains("busybox:latest"), "{listed}");
    let file = host.state_dir.join("archives/a.berth");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&file).expect("the archive")) & 0o7777, 0o600);

    let other = Host::with(node_config(to));
    let b = other.user("b");
    fs::copy(&file, other.state_dir.join("archives/a.berth")).expect("copy the archive");
    let told = other.berth(["restore", "a.berth", "--user", &b.name]).ok();
    assert!(told.contains(&b.name) && told.contains("3 GiB disk"), "{told}");
    let b = other.berth_of(&b);
    b.await_docker();
    assert_ne!(b.id_base(), base, "ids of another host");
    assert_eq!(b.status()["limits"]["pids"], 777);
    assert_eq!(b.sh(LIST).ok(), files);
    assert_eq!(docker_state(&b), docker);
    until("the container runs again by itself", SOON, || (b.docker(&["ps", "--format", "{{.Names}}"]).ok() == "keeps").then_some(()));
    b.restart().ok();
    b.await_docker();
    assert_eq!(b.sh(LIST).ok(), files, "after another start");
    assert_eq!(b.sh_as_user("/srv/t/setuid -u").ok(), "0");

    // Back to where it came from, to the same user.
    host.berth(["restore", "a.berth", "--no-start"]).ok();
    assert_ne!(a.id_base(), base, "the old ids are in quarantine");
    host.berth(["archive", "remove", "a.berth"]).ok();
    assert!(!file.exists());
}

#[test]
fn l04_an_archive_makes_the_same_berth_on_another_host_with_other_ids() {
    moves("[disk]\nbackend = \"loop\"\n", "[disk]\nbackend = \"loop\"\n");
}

#[test]
fn l04_l01_who_dies_while_an_archive_is_written_or_read_leaves_nothing_half() {
    let fault = Fault::new();
    let host = Host::with(Options { env: vec![fault.env()], ..Options::default() });
    let a = host.new_berth("a");
    a.sh("echo kept > /root/file; sync").ok();
    let step = |name: &str| Step { name: name.into(), who: "node".into(), number: 3 };
    let first = |name: &str| Step { number: 1, ..step(name) };

    // A failure takes the delete back: the berth is as it was.
    for (name, mode, code) in [("write archive", "full", "host_disk_full"), ("make archive", "error", "archive_failed")] {
        fault.arm(mode, &first(name));
        let refused = host.berth(["delete", a.name(), "--archive=a.berth", "--yes", "--json"]).fails();
        assert!(refused.stderr.contains(code), "{name}: {refused:?}");
        assert_eq!(fs::read_dir(host.state_dir.join("archives")).expect("list").count(), 0, "{name}");
        a.start().ok();
        a.await_docker();
        assert_eq!(a.exec(&["cat", "/root/file"]).ok(), "kept");
    }
    // A node that dies is asked again.
    for name in ["write archive", "place archive"] {
        fault.arm("kill", &first(name));
        let deleting = host.berth(["delete", a.name(), "--archive=a.berth", "--yes"]).spawn();
        assert!(host.node_died(SOON), "{name}");
        fault.disarm();
        host.start_node();
        let output = deleting.finish(SOON);
        assert!(output.success(), "{name}: {output:?}");
        let left: Vec<_> = fs::read_dir(host.state_dir.join("archives")).expect("list").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["a.berth"], "{name}");

        fault.arm("kill", &first("fill the disk"));
        let restoring = host.berth(["restore", "a.berth"]).spawn();
        assert!(host.node_died(SOON), "restore");
        fault.disarm();
        // The server is killed as well: both take it up again.
        host.kill_server();
        host.start_node();
        host.start_server();
        let output = restoring.finish(SOON);
        assert!(output.success(), "{output:?}");
        a.await_docker();
        assert_eq!(a.exec(&["cat", "/root/file"]).ok(), "kept");
        host.berth(["archive", "remove", "a.berth"]).ok();
    }
    // Who connects meanwhile is told.
    fault.arm("halt", &first("place archive"));
    fault.disarm();
}

/// Packs by hand what no berth would have, as a zstd frame of raw blocks.
const HOSTILE: &str = r#"
import io, sys, tarfile, hashlib, json, struct
out, manifest = sys.argv[1], json.loads(sys.argv[2])
inner = io.BytesIO()
tar = tarfile.open(fileobj=inner, mode="w", format=tarfile.PAX_FORMAT)
def add(name, kind=tarfile.REGTYPE, data=b"", link="", **more):
    info = tarfile.TarInfo(name); info.type = kind; info.size = len(data); info.linkname = link; info.mode = 0o4755
    for key, value in more.items(): setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))
target = sys.argv[3]
for part in sys.argv[4:]:
    if part == "climb": add("../" * 12 + target.lstrip("/") + "/climbed", data=b"x")
    if part == "absolute": add(target + "/absolute", data=b"x")
    if part == "through":
        add("./rootfs/upper/link", tarfile.SYMTYPE, link=target); add("./rootfs/upper/link/through", data=b"x")
    if part == "device": add("./rootfs/upper/sda", tarfile.BLKTYPE, devmajor=8, devminor=0)
    if part == "hard": add("./rootfs/upper/hard", tarfile.LNKTYPE, link=target + "/secret")
    if part == "whiteout": add("./rootfs/upper/etc/issue", tarfile.CHRTYPE, devmajor=0, devminor=0)
    if part == "good": add("./rootfs/upper/srv/good", data=b"good")
tar.close()
data = inner.getvalue()
frame = struct.pack("<IBB", 0xFD2FB528, 0, 0x38)
blocks = [data[at:at + 65536] for at in range(0, len(data), 65536)]
for number, block in enumerate(blocks):
    frame += struct.pack("<I", len(block) << 3 | (number == len(blocks) - 1))[:3] + block
text = json.dumps(manifest).encode()
sums = "%s  berth.json\n%s  disk.tar.zst\n" % (hashlib.sha256(text).hexdigest(), hashlib.sha256(frame).hexdigest())
with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as outer:
    for name, data in (("berth.json", text), ("disk.tar.zst", frame), ("SHA256SUMS", sums.encode())):
        info = tarfile.TarInfo(name); info.size = len(data); outer.addfile(info, io.BytesIO(data))
"#;

#[test]
fn s04_an_archive_that_means_harm_reaches_nothing_but_its_own_disk() {
    let host = Host::start();
    let user = host.user("a");
    let archives = host.state_dir.join("archives");
    let victim = host.slot.dir.join("victim");
    fs::create_dir(&victim).expect("make directory");
    fs::write(victim.join("secret"), "secret").expect("write");
    let image = host.node_api("GET", "/v1/images", None).json()[0]["digest"].clone();
    let manifest = serde_json::json!({
        "format": 1, "user": user.name, "berth": "x", "created_at": 1, "image": image, "bytes": 4096, "inodes": 1,
        "notes": { "profile": "../../etc", "own": 7 },
    });
    let pack = |parts: &[&str]| {
        let file = archives.join("bad.berth");
        let args = [file.to_str().expect("plain"), &manifest.to_string(), victim.to_str().expect("plain")].map(str::to_owned);
        Run::new("python3").args(["-c", HOSTILE]).args(args).args(parts).ok();
    };
    for part in ["climb", "absolute", "through", "device", "hard"] {
        pack(&["good", part]);
        let output = host.berth(["restore", "bad.berth", "--no-start"]).output();
        let seen: Vec<_> = fs::read_dir(&victim).expect("list").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(seen, ["secret"], "{part}: {output:?}");
        assert_eq!(fs::metadata(victim.join("secret")).map(|m| std::os::unix::fs::MetadataExt::nlink(&m)).ok(), Some(1), "{part}");
        if output.success() {
            let berth = host.berth_of(&user);
            berth.start().ok();
            // What it names is named inside, if anywhere.
            assert!(!berth.sh("test -b /sda").output().success(), "{part}");
            berth.delete().ok();
        }
        assert_eq!(host.list()["items"].as_array().map(Vec::len), Some(0), "{part}: {output:?}");
    }
    pack(&["good", "whiteout"]);
    host.berth(["restore", "bad.berth"]).ok();
    let berth = host.berth_of(&user);
    assert_eq!(berth.sh("cat /srv/good; test -e /etc/issue || echo hidden").ok(), "goodhidden");
    berth.delete().ok();
    refused(&host, &archives);
}

/// What is no archive, is damaged, does not fit, or is not there.
#[track_caller]
fn refused(host: &Host, archives: &Path) {
    let good = fs::read(archives.join("bad.berth")).expect("read");
    let mut flipped = good.clone();
    let at = good.windows(4).rposition(|window| window == b"good").expect("the file's bytes");
    flipped[at] ^= 1;
    let nested = String::from_utf8_lossy(&good[512..1024]).replace("\"bytes\": 4096", "\"bytes\": 9e99");
    let unreadable = [&good[..512], nested.as_bytes(), &good[1024..]].concat();
    for (bytes, code) in [
        (&b"nothing"[..], "archive_damaged"),
        (&good[..good.len() / 2], "archive_damaged"),
        (&flipped, "archive_damaged"),
        (&unreadable, "archive_damaged"),
    ] {
        fs::write(archives.join("x.berth"), bytes).expect("write");
        let output = host.berth(["restore", "x.berth", "--json"]).fails();
        assert!(output.stderr.contains(code), "{code}: {output:?}");
        assert_eq!(host.list()["items"].as_array().map(Vec::len), Some(0), "{output:?}");
    }
    for (name, code) in [("../x.berth", "invalid_archive_name"), ("y.berth", "archive_not_found"), ("x", "invalid_archive_name")] {
        let output = host.berth(["restore", name, "--json"]).fails();
        assert!(output.stderr.contains(code), "{name}: {output:?}");
    }
}
