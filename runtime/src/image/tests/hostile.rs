use tar::EntryType;

use super::*;

#[test]
fn a_path_that_climbs_is_refused_and_an_absolute_one_lies_inside() {
    let bench = Bench::new();
    for path in ["../x", "a/../../x", "/../x", "bin/.."] {
        assert!(bench.refused(&Pack::root().file(path, b"x").done()).contains("climbs"), "{path}");
    }
    let marker = bench.dir.path().join("marker");
    let root = bench.root(&Pack::root().file(marker.to_str().unwrap(), b"x").file("//etc//./x", b"y").done());
    assert!(!marker.exists() && root.join(marker.strip_prefix("/").unwrap()).is_file() && root.join("etc/x").is_file());
}

#[test]
fn symlinks_are_walked_inside_the_image() {
    let bench = Bench::new();
    let outside = bench.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "host").unwrap();
    let away = outside.to_str().unwrap();
    let root = bench.root(
        &Pack::root()
            .symlink("away", away)
            .file("away/new", b"inside")
            .dir("away/sub")
            .symlink("up", "../../../../../../../../..")
            .file("up/top", b"inside")
            .symlink("leaf", &format!("{away}/file"))
            .file("leaf", b"replaces the link")
            .symlink("dir", away)
            .dir("dir")
            .file("dir/file", b"inside")
            .symlink("jump", "/proc/self/root")
            .file("jump/caught", b"inside")
            .done(),
    );
    let names: BTreeSet<_> = fs::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!((names.len(), fs::read_to_string(outside.join("file")).unwrap().as_str()), (1, "host"));
    assert_eq!(fs::read(root.join(away.trim_start_matches('/')).join("new")).unwrap(), b"inside");
    assert_eq!(fs::read(root.join("top")).unwrap(), b"inside");
    assert!(fs::symlink_metadata(root.join("leaf")).unwrap().is_file() && fs::symlink_metadata(root.join("dir")).unwrap().is_dir());
    assert!(!Path::new("/caught").exists());
}

#[test]
fn endless_symlinks_and_endless_depth_are_refused() {
    let bench = Bench::new();
    assert!(bench.refused(&Pack::root().symlink("a", "b").symlink("b", "a").file("a/x", b"").done()).contains("symlinks"));
    let deep = "d/".repeat(limits::DEPTH - 5);
    let chain = Pack::root().dir(&deep).symlink("s", &deep).dir("s/1/2/3").dir("s/1/2/3/4/5/6/7/8");
    assert!(bench.refused(&chain.done()).contains("deeper"));
    assert!(bench.refused(&Pack::root().dir(&"d/".repeat(limits::DEPTH + 1)).done()).contains("deeper"));
    assert!(bench.refused(&Pack::root().file(&"n".repeat(256), b"").done()).contains("longer than 255"));
    assert!(bench.refused(&Pack::root().file(&"d/".repeat(2500), b"").done()).contains("path of 5000 bytes"));
}

#[test]
fn hard_links_reach_only_what_is_in_the_image() {
    let bench = Bench::new();
    assert!(bench.refused(&Pack::root().hard_link("x", "/etc/passwd").done()).contains("no directory etc"));
    assert!(bench.refused(&Pack::root().hard_link("x", "bin/none").done()).contains("not in the image"));
    assert!(bench.refused(&Pack::root().hard_link("x", "../../etc/passwd").done()).contains("climbs"));
    assert!(bench.refused(&Pack::root().hard_link("x", "bin").done()).contains("directory"));
    assert!(bench.refused(&Pack::root().hard_link("x", "/").done()).contains("root directory"));
    let away = bench.dir.path().to_str().unwrap().to_owned();
    fs::write(bench.dir.path().join("secret"), "host").unwrap();
    bench.refused(&Pack::root().symlink("s", &away).hard_link("x", "s/secret").done());
    // A link to a symlink is the symlink, not what it names.
    let root = bench.root(&Pack::root().symlink("s", &format!("{away}/secret")).hard_link("x", "s").hard_link("bin/sh", "bin/sh").done());
    assert!(fs::symlink_metadata(root.join("x")).unwrap().is_symlink() && root.join("bin/sh").is_file());
    assert_eq!(fs::metadata(bench.dir.path().join("secret")).unwrap().nlink(), 1);
}

#[test]
fn device_nodes_are_left_out_and_foreign_ids_refused() {
    let bench = Bench::new();
    let mut said = Vec::new();
    let tar = (0..20).fold(Pack::root(), |pack, n| pack.device(&format!("dev/disk{n}"))).done();
    let image = bench.store.import("test", &tar[..], 0, &mut |line| said.push(line.to_owned())).unwrap();
    let dev = bench.store.rootfs(&image.digest).unwrap().join("dev");
    assert_eq!(fs::read_dir(dev).unwrap().count(), 0);
    assert_eq!(said.iter().filter(|line| line.contains("device node")).count(), 6, "{said:?}");
    assert!(bench.refused(&Pack::root().owner(65536).file("x", b"").done()).contains("ids end at 65535"));
}

#[test]
fn the_root_itself_stays_a_directory() {
    let bench = Bench::new();
    for pack in [Pack::root().symlink("./", "/etc"), Pack::root().file(".", b"x")] {
        // A name that ends in a slash is a directory to every reader of old archives.
        let text = bench.import(&pack.done()).map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        assert!(text.is_empty() || text.contains("root directory"), "{text}");
    }
    assert!(bench.refused(&Pack::root().file("bin/sh/under", b"x").done()).contains("not a directory"));
}

#[test]
fn what_is_no_image_is_named_and_leaves_nothing() {
    let bench = Bench::new();
    assert!(bench.refused(b"").contains("no image"));
    assert!(bench.refused(b"hello, this is text").contains("not a tar archive"));
    assert!(bench.refused(&[0; 4096]).contains("neither"));
    assert!(bench.refused(&Pack::new().file("hello.txt", b"x").done()).contains("no bin or sbin"));
    assert!(bench.refused(&Pack::root().entry(EntryType::GNUSparse, "big", "", b"").done()).contains("sparse"));
    assert!(bench.refused(&Pack::root().entry(EntryType::new(b'Z'), "odd", "", b"").done()).contains("unknown"));
    let tar = Pack::root().file("big", &[1; 100_000]).done();
    assert!(bench.refused(&tar[..50_000]).contains("middle"));
    let packed = gzip(&tar);
    assert!(bench.refused(&packed[..packed.len() / 2]).contains("damaged"));
}

#[test]
fn a_reader_that_fails_leaves_nothing() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(ErrorKind::ConnectionReset.into())
        }
    }
    let bench = Bench::new();
    let tar = Pack::root().done();
    let error = bench.store.import("test", tar.chain(Failing), 0, &mut |_| {}).unwrap_err();
    assert!(!error.is_input() && bench.names().is_empty(), "{error:?}");
}

#[test]
fn an_archive_may_not_expand_without_bound() {
    let bench = Bench::new();
    let bomb = gzip(&Pack::root().file("zeros", &vec![0; 80 << 20]).done());
    assert!(bench.refused(&bomb).contains("expands more than 100 times"));
}

#[test]
fn removing_an_image_never_follows_its_symlinks() {
    let bench = Bench::new();
    let keep = bench.dir.path().join("keep");
    fs::create_dir(&keep).unwrap();
    fs::write(keep.join("file"), "x").unwrap();
    let image = bench.import(&Pack::root().symlink("link", keep.to_str().unwrap()).done()).unwrap();
    symlink(&keep, bench.store.rootfs(&image.digest).unwrap().join("bin/other")).unwrap();
    bench.store.remove(&image.digest).unwrap();
    assert!(keep.join("file").exists());
}
