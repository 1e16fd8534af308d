//! `berth image pull` from a real registry: with TLS by an authority of its own, a login, and an index of two platforms.
#![forbid(unsafe_code)]

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use berth_tests::{Host, Options, Output, Run, Running, tree, until};
use serde_json::{Value, json};

const USER: &str = "alice";
const WORD: &str = "a word for the harbour";
/// Of the two, for htpasswd.
const HASH: &str = "alice:$2y$05$abcdefghijklmnopqrstuugtXwPS3CPhtGCL08CAhJ05.D8H0YjtC\n";
const LIMIT: Duration = Duration::from_secs(120);

/// Debian's registry on the loopback; dropped, it is gone.
struct Registry {
    dir: PathBuf,
    port: u16,
    _running: Running,
}

impl Registry {
    fn start(host: &Host) -> Self {
        let dir = host.slot.dir.join("registry");
        fs::create_dir(&dir).expect("make directory");
        let openssl = |line: &str| Run::new("openssl").args(line.split(' ')).current_dir(&dir).ok();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!("req -x509 {key} -days 2 -subj /CN=Harbour -keyout ca.key -out ca.pem"));
        openssl(&format!("req {key} -subj /CN=localhost -keyout key.pem -out asked.pem"));
        fs::write(dir.join("names"), "subjectAltName=DNS:localhost\n").expect("write");
        openssl("x509 -req -in asked.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out certificate.pem");
        fs::write(dir.join("users"), HASH).expect("write");
        let free = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = free.local_addr().expect("address").port();
        drop(free);
        let config = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {dir}/data }} }}\nauth: {{ htpasswd: {{ realm: harbour, path: {dir}/users }} }}\n\
             http: {{ addr: '127.0.0.1:{port}', secret: x, tls: {{ certificate: {dir}/certificate.pem, key: {dir}/key.pem }} }}\n",
            dir = dir.display()
        );
        fs::write(dir.join("config.yml"), config).expect("write");
        let running = Run::new("docker-registry").args(["serve", "config.yml"]).current_dir(&dir).spawn();
        let registry = Self { dir, port, _running: running };
        until("the registry answers", Duration::from_secs(20), || registry.curl(&[], "/v2/").output().success().then_some(()));
        registry
    }

    fn curl(&self, args: &[&str], path: &str) -> Run {
        let url = if path.starts_with("https://") { path.to_owned() } else { format!("https://localhost:{}{path}", self.port) };
        let login = format!("{USER}:{WORD}");
        Run::new("curl")
            .args(["-sSf", "--connect-timeout", "5", "--cacert", "ca.pem", "-u", &login])
            .args(args)
            .arg(url)
            .current_dir(&self.dir)
            .limit(LIMIT)
    }

    /// Uploads a file as a blob; its digest and size.
    fn blob(&self, file: &Path) -> (String, u64) {
        let sum = Run::new("sha256sum").arg(file).ok();
        let digest = format!("sha256:{}", &sum[..64]);
        let begun = self.curl(&["-X", "POST", "-D", "-", "-o", "/dev/null"], "/v2/team/base/blobs/uploads/").ok();
        let place = begun.lines().find_map(|line| line.to_lowercase().starts_with("location: ").then(|| line[10..].trim().to_owned()));
        let place = place.unwrap_or_else(|| panic!("no place for the blob: {begun}"));
        let file_name = file.to_str().expect("a name");
        self.curl(&["-X", "PUT", "-H", "content-type: application/octet-stream", "-T", file_name], &format!("{place}&digest={digest}"))
            .ok();
        (digest, fs::metadata(file).expect("file").len())
    }

    fn document(&self, name: &str, value: &Value) -> (String, u64) {
        let path = self.dir.join(name);
        fs::write(&path, value.to_string()).expect("write");
        self.blob(&path)
    }

    /// Its digest and size.
    fn manifest(&self, tag: &str, value: &Value) -> (String, u64) {
        let path = self.dir.join(format!("manifest-{tag}"));
        fs::write(&path, value.to_string()).expect("write");
        let kind = format!("content-type: {}", value["mediaType"].as_str().expect("a kind"));
        let data = format!("@{}", path.display());
        self.curl(&["-X", "PUT", "-H", &kind, "--data-binary", &data], &format!("/v2/team/base/manifests/{tag}")).ok();
        (format!("sha256:{}", &Run::new("sha256sum").arg(&path).ok()[..64]), value.to_string().len() as u64)
    }

    fn pull(&self, host: &Host, tag: &str, args: &[&str], password: &str) -> Output {
        let pull = host.berth(["image", "pull", &format!("localhost:{}/team/base{tag}", self.port)]);
        pull.args(args).input(format!("{password}\n")).current_dir(&self.dir).limit(LIMIT).output()
    }
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// An image of two layers, the second of which hides a file of the first; in Docker's format or in OCI's.
fn image(host: &Host, registry: &Registry) -> (String, u64) {
    let base = tree::tar(host, "base", &[], &[("/etc/motd", "of the first\n"), ("/etc/gone", "hidden\n")]);
    let upper = host.slot.dir.join("upper");
    fs::create_dir_all(upper.join("etc")).expect("make directory");
    fs::write(upper.join("etc/.wh.gone"), "").expect("write");
    fs::write(upper.join("etc/motd"), "of the second\n").expect("write");
    let second = host.slot.dir.join("second.tar");
    Run::new("tar").arg("-C").arg(&upper).args(["--numeric-owner", "--owner=0", "--group=0", "-cf"]).arg(&second).arg(".").ok();
    let mut ids = Vec::new();
    let mut layers = Vec::new();
    for tar in [base, second] {
        ids.push(format!("sha256:{}", &Run::new("sha256sum").arg(&tar).ok()[..64]));
        Run::new("gzip").arg("-k").arg(&tar).ok();
        let (digest, size) = registry.blob(&tar.with_extension("tar.gz"));
        layers.push(json!({ "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": digest, "size": size }));
    }
    let config = json!({
        "os": "linux", "architecture": architecture(), "config": { "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": ids }, "history": [],
    });
    let (digest, size) = registry.document("config", &config);
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let config = json!({ "mediaType": "application/vnd.docker.container.image.v1+json", "digest": digest, "size": size });
    registry.manifest("1", &json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers }))
}

#[test]
fn d04_an_image_is_pulled_over_tls_with_a_login_and_berths_stand_on_it() {
    let host = Host::with(Options { images: false, ..Options::default() });
    let registry = Registry::start(&host);
    let (digest, size) = image(&host, &registry);
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let entry = json!({ "mediaType": kind, "digest": digest, "size": size, "platform": { "os": "linux", "architecture": architecture() } });
    let list = "application/vnd.docker.distribution.manifest.list.v2+json";
    registry.manifest("many", &json!({ "schemaVersion": 2, "mediaType": list, "manifests": [entry] }));

    let full = ["--ca", "ca.pem", "--username", USER, "--password-stdin"];
    let untrusted = registry.pull(&host, ":1", &full[2..], WORD);
    assert!(
        untrusted.status == 1 && untrusted.stderr.contains("is not trusted") && untrusted.stderr.contains("--ca FILE"),
        "{untrusted:?}"
    );
    let nobody = registry.pull(&host, ":1", &full[..2], "");
    assert!(nobody.status == 4 && nobody.stderr.contains("wants a login for team/base"), "{nobody:?}");
    let wrong = registry.pull(&host, ":1", &full, "another word");
    assert!(wrong.status == 4 && wrong.stderr.contains("does not take this login"), "{wrong:?}");
    let none = registry.pull(&host, ":2", &full, WORD);
    assert!(none.status == 3 && none.stderr.contains("there is no image team/base:2"), "{none:?}");
    assert_eq!(host.berth(["image", "list", "--json"]).json()["items"], json!([]));

    let pulled = registry.pull(&host, ":many", &[&full[..], &["--json"]].concat(), WORD);
    assert!(pulled.success(), "{pulled:?}");
    let operation: Value = serde_json::from_str::<Value>(&pulled.stdout).expect("JSON")["operation"].clone();
    assert_eq!((&operation["result"], &operation["subject"]), (&json!(digest), &json!("base:many")), "{operation}");
    let again = registry.pull(&host, &format!("@{digest}"), &[&full[..], &["--name", "base"]].concat(), WORD);
    assert!(again.success() && again.stdout.contains(&digest), "{again:?}");

    let user = host.user("a");
    host.assign_command(&user, &["--image", "base", "--disk", "1g"]).output();
    let berth = host.berth_of(&user);
    assert_eq!(berth.exec(&["/bin/cat", "/etc/motd"]).ok(), "of the second");
    assert!(!berth.exec(&["/bin/ls", "/etc/gone"]).output().success(), "a whiteout hides it");
    berth.delete().ok();

    // Neither the name nor the password is anywhere: not in what is shown, not in the database, not in a log.
    for text in
        [host.berth(["audit", "--json"]).ok(), host.berth(["operations", "--json"]).output().text(), host.log("server"), host.log("node")]
    {
        assert!(!text.contains(WORD) && !text.contains("another word"), "{text}");
    }
    for file in Run::new("find").arg(&host.state_dir).args(["-type", "f", "-size", "-64M"]).ok().lines() {
        let bytes = fs::read(file).unwrap_or_default();
        assert!(!bytes.windows(WORD.len()).any(|part| part == WORD.as_bytes()), "{file}");
    }
    let left =
        fs::read_dir(host.state_dir.join("images")).expect("list").flatten().filter(|e| e.file_name().to_string_lossy().starts_with('.'));
    assert_eq!(left.count(), 0, "what refused pulls left");
}

#[test]
fn d04_what_a_registry_got_wrong_on_its_disk_is_never_unpacked() {
    let host = Host::with(Options { images: false, ..Options::default() });
    let registry = Registry::start(&host);
    image(&host, &registry);
    let full = ["--ca", "ca.pem", "--username", USER, "--password-stdin"];
    // A bit of a layer turns over where it is stored.
    let files = Run::new("find").arg(registry.dir.join("data")).args(["-name", "data", "-size", "+300k"]).ok();
    let layer = files.lines().next().unwrap_or_else(|| panic!("no layer is stored"));
    let mut bytes = fs::read(layer).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(layer, bytes).expect("write");
    let told = registry.pull(&host, ":1", &full, WORD);
    assert!(told.status == 1 && told.stderr.contains("is not what it should be: expected sha256:"), "{told:?}");
    assert_eq!(host.berth(["image", "list", "--json"]).json()["items"], json!([]));
    let left = fs::read_dir(host.state_dir.join("images")).expect("list").flatten();
    assert_eq!(left.map(|e| e.file_name()).collect::<Vec<_>>(), Vec::<std::ffi::OsString>::new());
}
