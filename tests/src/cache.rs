//! What all tests share and none changes: the default image, unpacked once by the product itself, and the Docker client out of it.

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    host::{Host, Options},
    programs,
    run::Run,
};

/// Name under which the image is imported.
pub const IMAGE: &str = "trixie";

/// A directory that holds `images/` (as below a node's state directory) and `client/`.
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Finds the cache, or makes it: some ten seconds, once for each image.
    #[track_caller]
    pub fn open() -> Self {
        let root = programs::root().join("cache");
        fs::create_dir_all(&root).expect("make the cache directory");
        let lock = File::create(root.join("lock")).expect("make the cache's lock");
        lock.lock().expect("lock the cache");
        let tar = default_image();
        let meta = fs::metadata(&tar).unwrap_or_else(|e| panic!("{}: {e}", tar.display()));
        let dir = root.join(format!("{}-{}", meta.size(), meta.mtime()));
        if !dir.is_dir() {
            let work = root.join("new");
            let _ = fs::remove_dir_all(&work);
            fs::create_dir(&work).expect("make the cache");
            let host = Host::with(Options { images: false, ..Options::default() });
            host.berth(["image", "import"]).arg(&tar).args(["--name", IMAGE]).limit(Duration::from_secs(300)).ok();
            Run::new("cp").arg("-a").arg(host.state_dir.join("images")).arg(work.join("images")).ok();
            drop(host);
            client(&work);
            fs::rename(&work, &dir).expect("name the cache");
        }
        Self { dir }
    }

    /// Gives an instance the images, by hard links: what it removes stays here.
    #[track_caller]
    pub fn give_images(&self, state_dir: &Path) {
        Run::new("cp").arg("-al").arg(self.dir.join("images")).arg(state_dir.join("images")).ok();
    }

    /// Holds `docker`, and `cli-plugins/` with buildx and compose; `BERTH_TEST_CLIENT` names another than the image's own.
    pub fn client(&self) -> PathBuf {
        std::env::var_os("BERTH_TEST_CLIENT").map_or_else(|| self.dir.join("client"), PathBuf::from)
    }

    /// A root file system with nothing but busybox in it, as a tar for `docker import`.
    #[track_caller]
    pub fn busybox(&self) -> PathBuf {
        let tar = self.dir.join("busybox.tar");
        if !tar.is_file() {
            let busybox = Path::new("/bin/busybox");
            assert!(busybox.is_file(), "/bin/busybox is missing: apt-get install busybox-static");
            let work = self.dir.join(format!("busybox-{}", std::process::id()));
            fs::create_dir_all(work.join("root/bin")).expect("make directory");
            for dir in ["tmp", "etc", "proc", "sys", "dev", "root/root"] {
                fs::create_dir_all(work.join("root").join(dir)).expect("make directory");
            }
            fs::copy(busybox, work.join("root/bin/busybox")).expect("copy busybox");
            for applet in Run::new(busybox).arg("--list").ok().lines() {
                // "busybox" is in the list too.
                let _ = symlink("busybox", work.join("root/bin").join(applet));
            }
            Run::new("tar")
                .arg("-C")
                .arg(work.join("root"))
                .args(["--numeric-owner", "--owner=0", "--group=0", "-cf"])
                .arg(work.join("t.tar"))
                .arg(".")
                .ok();
            fs::rename(work.join("t.tar"), &tar).expect("name the tar");
            let _ = fs::remove_dir_all(work);
        }
        tar
    }
}

/// The root tar that the image is imported from: that of `BERTH_TEST_IMAGE_TAR`, or built once.
#[track_caller]
pub fn default_image() -> PathBuf {
    if let Some(tar) = std::env::var_os("BERTH_TEST_IMAGE_TAR") {
        return tar.into();
    }
    let tar = programs::root().join("cache/trixie.tar");
    if !tar.is_file() {
        Run::new(programs::repository().join("deploy/image/build")).arg("trixie").arg(&tar).limit(Duration::from_secs(600)).ok();
    }
    tar
}

/// The image's own client: Debian's programs need nothing but a C library that is as old as the host's.
fn client(work: &Path) {
    if std::env::var_os("BERTH_TEST_CLIENT").is_some() {
        return fs::set_permissions(work, fs::Permissions::from_mode(0o755)).expect("open the cache");
    }
    let entry = fs::read_dir(work.join("images")).expect("list images").flatten().find(|e| e.path().join("rootfs").is_dir());
    let rootfs = entry.expect("an imported image").path().join("rootfs");
    let client = work.join("client");
    fs::create_dir_all(client.join("cli-plugins")).expect("make directory");
    fs::copy(rootfs.join("usr/bin/docker"), client.join("docker")).expect("copy the client");
    for plugin in ["docker-buildx", "docker-compose"] {
        fs::copy(rootfs.join("usr/libexec/docker/cli-plugins").join(plugin), client.join("cli-plugins").join(plugin))
            .expect("copy plug-in");
    }
    fs::set_permissions(work, fs::Permissions::from_mode(0o755)).expect("open the cache");
}
