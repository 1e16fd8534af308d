//! The store as its callers use it, with archives good and hostile. Entries belong to whoever runs the tests, so that they run with
//! and without rights.

mod build;
mod hostile;
mod layers;
mod pack;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use pack::{Pack, gzip};

use super::*;

/// A store of its own and a place beside it that nothing may reach.
struct Bench {
    dir: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("images")).unwrap();
        Self { dir, store }
    }

    fn import(&self, bytes: &[u8]) -> Result<Image> {
        self.store.import("test", bytes, 1000, &mut |_| {})
    }

    /// Imports and gives the root.
    fn root(&self, bytes: &[u8]) -> PathBuf {
        let image = self.import(bytes).unwrap();
        self.store.rootfs(&image.digest).unwrap()
    }

    /// The error of an import that must leave nothing.
    fn refused(&self, bytes: &[u8]) -> String {
        let before = self.names();
        let error = self.import(bytes).unwrap_err();
        assert!(error.is_input(), "{error:?}");
        assert_eq!(self.names(), before, "something is left after: {error}");
        match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }

    fn names(&self) -> BTreeSet<String> {
        fs::read_dir(&self.store.root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_root_file_system_becomes_an_image_and_goes_again() {
    let bench = Bench::new();
    let tar = Pack::root().file("etc/motd", b"hello").done();
    let image = bench.import(&tar).unwrap();
    assert_eq!(image.digest, Digest::of(&tar).to_string());
    assert_eq!(
        (image.name.as_str(), image.created_ms, image.size_bytes, &image.config),
        ("test", 1000, 5 + pack::SHELL.len() as u64, &None)
    );
    assert_eq!(fs::read(bench.store.rootfs(&image.digest).unwrap().join("etc/motd")).unwrap(), b"hello");
    assert_eq!(mode(&bench.store.root), 0o700);
    assert_eq!(bench.names().len(), 1, "only the image is left");
    assert_eq!(bench.store.list().unwrap(), std::slice::from_ref(&image));
    assert_eq!(bench.store.get(&image.digest).unwrap(), Some(image.clone()));

    for _ in 0..2 {
        bench.store.remove(&image.digest).unwrap();
        assert_eq!(bench.store.get(&image.digest).unwrap(), None);
    }
    assert!(bench.names().is_empty());
    assert!(bench.store.get("../../etc").is_err() && bench.store.remove("..").is_err());
}

#[test]
fn the_same_content_again_keeps_the_image_and_takes_the_new_name() {
    let bench = Bench::new();
    let tar = Pack::root().done();
    let first = bench.import(&tar).unwrap();
    let rootfs = bench.store.rootfs(&first.digest).unwrap();
    let before = fs::metadata(&rootfs).unwrap().ino();
    let again = bench.store.import("other:2", &tar[..], 2000, &mut |_| {}).unwrap();
    assert_eq!(again, Image { name: "other:2".into(), ..first });
    assert_eq!(bench.store.list().unwrap(), [again]);
    assert_eq!(fs::metadata(&rootfs).unwrap().ino(), before);
    assert_eq!(bench.names().len(), 1);
    for bad in ["", "-x", "a b", "a\n", "ä", &"x".repeat(129)] {
        assert!(matches!(bench.store.import(bad, &tar[..], 0, &mut |_| {}), Err(Error::Name { .. })), "{bad:?}");
    }
}

#[test]
fn compression_is_found_by_content() {
    let bench = Bench::new();
    let tar = Pack::root().file("etc/motd", b"hello").done();
    for packed in [gzip(&tar), zstd::encode_all(&tar[..], 1).unwrap()] {
        assert_eq!(fs::read(bench.root(&packed).join("etc/motd")).unwrap(), b"hello");
    }
}

#[test]
fn an_interrupted_import_is_swept_and_images_stay() {
    let bench = Bench::new();
    let image = bench.import(&Pack::root().done()).unwrap();
    let work = bench.store.work().unwrap();
    fs::create_dir_all(work.join("image/rootfs/bin")).unwrap();
    std::mem::forget(work);
    fs::create_dir_all(bench.store.unused(OLD).join("rootfs")).unwrap();
    assert_eq!(bench.names().len(), 3);
    bench.store.sweep().unwrap();
    assert_eq!(bench.store.list().unwrap(), [image]);
    assert_eq!(bench.names().len(), 1);
}

#[test]
fn an_unreadable_record_hides_its_image_and_no_other() {
    let bench = Bench::new();
    let good = bench.import(&Pack::root().done()).unwrap();
    let bad = bench.import(&Pack::root().file("x", b"x").done()).unwrap();
    fs::write(bench.store.dir(&Digest::parse(&bad.digest).unwrap()).join(RECORD), "{").unwrap();
    assert_eq!(bench.store.list().unwrap(), [good]);
    assert!(matches!(bench.store.get(&bad.digest), Err(Error::Record { .. })));
    bench.store.remove(&bad.digest).unwrap();
}

#[test]
fn modes_times_links_and_attributes_are_kept() {
    let bench = Bench::new();
    let attributes: &[(&str, &[u8])] =
        &[("user.note", b"kept"), ("user.overlay.opaque", b"y"), ("trusted.overlay.redirect", b"/x"), ("security.selinux", b"x")];
    let tar = Pack::root()
        .mode(0o4755)
        .xattrs(attributes)
        .file("bin/su", b"su")
        .mode(0o1777)
        .dir("var/tmp")
        .hard_link("bin/su2", "./bin/su")
        .symlink("bin/link", "/bin/su")
        .fifo("var/tmp/fifo")
        .file("var/tmp/after", b"changes the time of its folder")
        .done();
    let root = bench.root(&tar);
    assert_eq!((mode(&root.join("bin/su")), mode(&root.join("var/tmp"))), (0o4755, 0o1777));
    assert_eq!(fs::metadata(root.join("bin/su")).unwrap().nlink(), 2);
    assert_eq!(fs::read_link(root.join("bin/link")).unwrap(), Path::new("/bin/su"));
    assert!(fs::symlink_metadata(root.join("var/tmp/fifo")).unwrap().file_type().is_fifo());
    for path in ["bin/su", "var/tmp", "bin/link"] {
        assert_eq!(fs::symlink_metadata(root.join(path)).unwrap().mtime(), pack::TIME, "{path}");
    }
    let mut names = vec![0; 1000];
    let count = rustix::fs::listxattr(root.join("bin/su"), &mut names[..]).unwrap();
    assert_eq!(&names[..count], b"user.note\0");
}

#[test]
fn file_capabilities_without_a_namespace_are_kept_and_others_are_not() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: setting file capabilities needs root");
        return;
    }
    let bench = Bench::new();
    let capability = |revision: u32, length: usize| {
        let mut value = revision.to_le_bytes().to_vec();
        value.resize(length, 0);
        value[5] = 4;
        value
    };
    let (version2, version3) = (capability(0x0200_0001, 20), capability(0x0300_0001, 24));
    let root = bench.root(
        &Pack::root()
            .xattrs(&[("security.capability", &version2)])
            .file("bin/two", b"")
            .xattrs(&[("security.capability", &version3)])
            .file("bin/three", b"")
            .done(),
    );
    let mut value = [0; 64];
    assert_eq!(rustix::fs::getxattr(root.join("bin/two"), "security.capability", &mut value[..]), Ok(20));
    assert_eq!(value[..20], version2);
    assert!(rustix::fs::getxattr(root.join("bin/three"), "security.capability", &mut value[..]).is_err());
}

#[test]
fn what_a_berth_mounts_over_is_there_whatever_the_image_has() {
    let bench = Bench::new();
    let outside = bench.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let away = outside.to_str().unwrap();
    let poor = bench.root(&Pack::root().done());
    let odd = bench.root(
        &Pack::root()
            .symlink("proc", away)
            .symlink("dev", "../../../../../dev")
            .file("run", b"")
            .symlink("etc/resolv.conf", "/run/systemd/resolve/stub-resolv.conf")
            .dir("etc/hosts")
            .symlink("var/lib", away)
            .symlink("tmp", "var/tmp")
            .done(),
    );
    let linked = bench.root(&Pack::root().symlink("var", "/opt/elsewhere/../../data").symlink("etc", &format!("{away}/../outside")).done());
    for root in [&poor, &odd, &linked] {
        for dir in ["proc", "sys", "dev", "run"] {
            assert!(fs::symlink_metadata(root.join(dir)).unwrap().is_dir(), "{dir} of {}", root.display());
        }
    }
    assert_eq!((mode(&poor.join("tmp")), mode(&poor.join("proc"))), (0o1777, 0o755));
    for dir in ["var/lib/docker", "var/lib/containerd"] {
        assert!(poor.join(dir).is_dir());
    }
    for root in [&poor, &odd] {
        for file in ["resolv.conf", "hostname", "hosts"] {
            assert!(fs::symlink_metadata(root.join("etc").join(file)).unwrap().is_file(), "{file}");
        }
    }
    assert!(odd.join("var/tmp").is_dir());
    let inside = |root: &Path| root.join(away.trim_start_matches('/'));
    assert!(inside(&odd).join("docker").is_dir());
    assert!(linked.join("data/lib/docker").is_dir() && inside(&linked).join("hosts").is_file());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing was made outside");
    assert!(bench.refused(&Pack::root().file("etc", b"").done()).contains("/etc is no directory"));
}
