//! `berth backup`, as root runs it, from one root directory to another: everything comes back, and what is damaged changes nothing.

#![forbid(unsafe_code)]

mod support;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use berth_server::{
    config::Location,
    store::{Store, settings},
};
use support::{Database, program::program};

/// `nobody`, who is the server's account here.
const ACCOUNT: u32 = 65_534;

struct Root {
    directory: tempfile::TempDir,
    location: Location,
}

impl Root {
    /// With the directory of the server's account, and nothing else.
    fn bare(database: &Database) -> Self {
        let directory = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o755)).tempdir().unwrap();
        let state = directory.path().join("var/lib/berth/server");
        fs::create_dir_all(&state).unwrap();
        assert!(nix::unistd::geteuid().is_root(), "a backup is root's: run this test as root");
        chown(&state, Some(ACCOUNT), Some(ACCOUNT)).unwrap();
        let location = match database.location() {
            Location::Sqlite(_) => Location::Sqlite(state.join("berth.db")),
            postgres => postgres,
        };
        Self { directory, location }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn give(&self, name: &str) {
        chown(self.path(name), Some(ACCOUNT), Some(ACCOUNT)).unwrap();
    }

    fn berth(&self, words: &[&str]) -> Output {
        // Cargo builds it beside this program's own berth-server.
        Command::new(program()).arg("backup").args(words).arg("--root").arg(self.directory.path()).output().unwrap()
    }

    async fn rows(&self) -> Vec<String> {
        let mut lines = Vec::new();
        Store::export(&self.location, &mut lines).await.unwrap();
        let mut lines: Vec<String> = String::from_utf8(lines).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn installed(database: &Database) -> Root {
    let root = Root::bare(database);
    fs::create_dir_all(root.path("etc/berth")).unwrap();
    fs::create_dir_all(root.path("var/lib/berth/node/berths")).unwrap();
    fs::create_dir_all(root.path("var/lib/berth/node/calls")).unwrap();
    let mut text = "state_dir = \"/var/lib/berth/server\"\n".to_owned();
    if let Location::Postgres { url, password_file } = &root.location {
        fs::copy(password_file.as_ref().unwrap(), root.path("etc/berth/password")).unwrap();
        root.give("etc/berth/password");
        text += &format!("[database]\nurl = {url:?}\npassword_file = \"/etc/berth/password\"\n");
    }
    fs::write(root.path("etc/berth/server.toml"), text).unwrap();
    fs::write(root.path("var/lib/berth/node/berths/7.json"), "{\"version\":1}").unwrap();
    fs::write(root.path("var/lib/berth/node/calls/7"), "on its way").unwrap();
    std::os::unix::fs::symlink("/etc/shadow", root.path("var/lib/berth/node/link")).unwrap();
    let store = Store::open(&root.location).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    settings::set(&mut tx, "default_image", "lab", 1).await.unwrap();
    store.commit(tx).await.unwrap();
    store.close().await;
    for entry in fs::read_dir(root.path("var/lib/berth/server")).unwrap() {
        chown(entry.unwrap().path(), Some(ACCOUNT), Some(ACCOUNT)).unwrap();
    }
    root
}

#[tokio::test]
async fn a_backup_brings_another_root_directory_to_the_same_state_and_refuses_what_is_not_whole() {
    let (database, other) = (Database::fresh(), Database::fresh());
    let from = installed(&database).await;
    let archive = from.path("backup.tar.zst");
    let name = archive.to_str().unwrap();
    let made = from.berth(&["create", name]);
    assert!(made.status.success(), "{}", said(&made));
    assert_eq!(fs::metadata(&archive).unwrap().mode() & 0o777, 0o600, "it holds passwords and everybody's records");
    assert_eq!(from.berth(&["create", name]).status.code(), Some(5), "a backup is never overwritten");

    let to = Root::bare(&other);
    let target = match &to.location {
        Location::Sqlite(_) => Vec::new(),
        Location::Postgres { url, password_file } => {
            let copy = to.path("password");
            fs::copy(password_file.as_ref().unwrap(), &copy).unwrap();
            to.give("password");
            vec!["--database".to_owned(), url.clone(), "--password-file".to_owned(), copy.to_str().unwrap().to_owned()]
        }
    };
    let restore = |archive: &Path| {
        let mut words = vec!["restore", archive.to_str().unwrap()];
        words.extend(target.iter().map(String::as_str));
        to.berth(&words)
    };
    // One byte, the end, and something else altogether.
    let whole = fs::read(&archive).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x20;
    for (what, damaged) in [("flipped", flipped), ("cut", whole[..whole.len() - 40].to_vec()), ("strange", b"PK\x03\x04".to_vec())] {
        let path = from.path(what);
        fs::write(&path, damaged).unwrap();
        let refused = restore(&path);
        assert!(!refused.status.success() && said(&refused).contains("is no whole backup"), "{what}: {}", said(&refused));
        assert!(!to.path("etc/berth").exists() && !to.path("var/lib/berth/node").exists(), "{what} changed something");
    }
    // A server that runs.
    let lock = fs::File::create(to.path("var/lib/berth/server/server.lock")).unwrap();
    lock.lock().unwrap();
    let refused = restore(&archive);
    assert!(refused.status.code() == Some(5) && said(&refused).contains("berth-server runs"), "{}", said(&refused));
    lock.unlock().unwrap();

    for round in 1..=2 {
        let done = restore(&archive);
        assert!(done.status.success(), "{round}: {}", said(&done));
        assert_eq!(to.rows().await, from.rows().await);
        assert_eq!(fs::read(to.path("etc/berth/server.toml")).unwrap(), fs::read(from.path("etc/berth/server.toml")).unwrap());
        assert_eq!(fs::read_to_string(to.path("var/lib/berth/node/berths/7.json")).unwrap(), "{\"version\":1}");
        assert!(!to.path("var/lib/berth/node/calls").exists() && !to.path("var/lib/berth/node/link").exists());
    }
    assert!(to.path("var/lib/berth/node.before-restore/berths/7.json").exists(), "what was there is kept");
    if to.path("etc/berth/password").exists() {
        let password = fs::metadata(to.path("etc/berth/password")).unwrap();
        assert_eq!((password.uid(), password.mode() & 0o077), (ACCOUNT, 0));
    }
    drop(other);
}
