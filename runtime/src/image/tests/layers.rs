use super::{
    pack::{Oci, list},
    *,
};

fn base() -> Vec<u8> {
    Pack::root().file("etc/a", b"1").file("etc/b", b"1").file("opt/one", b"1").file("opt/two", b"1").dir("srv").done()
}

#[test]
fn layers_are_laid_on_each_other_with_their_removals() {
    let upper = Pack::new()
        .file("etc/a", b"2")
        .file("etc/.wh.b", b"")
        // Before the removal of its own folder's lower content, and kept: a layer never removes what is its own.
        .file("opt/new", b"2")
        .file("opt/.wh..wh..opq", b"")
        .file("srv/.wh..wh.plnk", b"")
        .file(".wh.never-was", b"")
        .done();
    let empty = vec![0; 1024];
    let oci = || Oci::new(&[base(), empty.clone(), upper.clone()]);
    let mut digests = BTreeSet::new();
    for bytes in [oci().done(), oci().compress(gzip).done(), gzip(&oci().compress(|l| zstd::encode_all(l, 1).unwrap()).done())] {
        let bench = Bench::new();
        let root = bench.root(&bytes);
        assert_eq!(fs::read(root.join("etc/a")).unwrap(), b"2");
        assert!(!root.join("etc/b").exists() && !root.join("opt/one").exists());
        assert_eq!(fs::read(root.join("opt/new")).unwrap(), b"2");
        let marks = ["etc/.wh.b", "opt/.wh..wh..opq", "srv/.wh..wh.plnk", ".wh.never-was"];
        assert!(marks.iter().all(|mark| fs::symlink_metadata(root.join(mark)).is_err()));
        digests.extend(bench.store.list().unwrap().into_iter().map(|image| image.digest));
    }
    assert_eq!(digests.len(), 3, "an image is its manifest, which names the layers as they are packed");
}

#[test]
fn an_image_that_is_there_is_not_unpacked_again_however_it_is_packed() {
    let bench = Bench::new();
    let bytes = Oci { config: r#"{"Entrypoint":["/sbin/init"],"Cmd":null,"Env":["A=b"],"User":"root"}"#, ..Oci::new(&[base()]) }.done();
    let first = bench.import(&bytes).unwrap();
    let config = first.config.clone().unwrap();
    assert_eq!(
        (config.entrypoint, config.cmd, config.env, config.user),
        (vec!["/sbin/init".to_owned()], vec![], vec!["A=b".to_owned()], "root".to_owned())
    );
    assert_eq!(bench.import(&gzip(&bytes)).unwrap(), first);
    assert_eq!(bench.names().len(), 1);
}

#[test]
fn removals_reach_neither_the_root_nor_beyond() {
    let bench = Bench::new();
    let keep = bench.dir.path().join("keep");
    fs::create_dir(&keep).unwrap();
    fs::write(keep.join("file"), "x").unwrap();
    for name in [".wh.", ".wh..", ".wh...", "etc/.wh..."] {
        assert!(bench.refused(&Oci::new(&[base(), Pack::new().file(name, b"").done()]).done()).contains("removes no name"), "{name}");
    }
    assert!(bench.refused(&Oci::new(&[base(), Pack::new().file("../.wh.x", b"").done()]).done()).contains("climbs"));
    let lower = Pack::root().symlink("away", keep.to_str().unwrap()).symlink("gone", keep.to_str().unwrap()).done();
    let upper = Pack::new().file("away/.wh.file", b"").file("away/.wh..wh..opq", b"").file(".wh.gone", b"").file(".wh.none", b"").done();
    let root = bench.root(&Oci::new(&[lower, upper]).done());
    assert!(keep.join("file").exists() && fs::symlink_metadata(root.join("gone")).is_err());
    let all = bench.root(&Oci::new(&[base(), Pack::new().file(".wh..wh..opq", b"").dir("bin").done()]).done());
    assert!(!all.join("bin/sh").exists() && !all.join("srv").exists() && all.join("bin").is_dir());
}

#[test]
fn every_digest_is_checked() {
    let bench = Bench::new();
    let other = Digest::of(b"other").to_string();
    let mut wrong_blob = Oci::new(&[base()]);
    wrong_blob.digests = vec![other.clone()];
    assert!(bench.refused(&wrong_blob.done()).contains("a layer is not what its digest says"));
    let mut wrong_content = Oci::new(&[base()]).compress(gzip);
    wrong_content.diff_ids = vec![other];
    assert!(bench.refused(&wrong_content.done()).contains("decompressed"));
    let good = Oci::new(&[base()]).done();
    // One byte of a document: the configuration's `layers` becomes `lAyers`.
    let at = good.windows(8).position(|w| w == b"\"layers\"").unwrap();
    let mut changed = good;
    changed[at + 2] = b'A';
    assert!(bench.refused(&changed).contains("digest"));
}

#[test]
fn odd_layouts_are_refused_by_name() {
    let bench = Bench::new();
    let many: Vec<Vec<u8>> = (0..limits::LAYERS + 1).map(|n| Pack::new().file(&n.to_string(), b"").done()).collect();
    assert!(bench.refused(&Oci::new(&many).done()).contains("129 layers"));
    let mut missing = Oci::new(&[base(), base()]);
    missing.layers.pop();
    assert!(bench.refused(&missing.done()).contains("the configuration 2"));
    let elsewhere = Oci { platform: r#","platform":{"os":"linux","architecture":"s390x"}"#, ..Oci::new(&[base()]) };
    assert!(bench.refused(&elsewhere.done()).contains("names no image for linux/"));
    let no_digest = Oci { digests: vec!["sha256:../../../etc/passwd".into()], ..Oci::new(&[base()]) };
    bench.refused(&no_digest.done());
    for index in ["", "[]", "{\"manifests\":3}", "{}"] {
        bench.refused(&Pack::new().file("index.json", index.as_bytes()).done());
    }
    assert!(bench.refused(&Pack::new().file("index.json", &vec![b' '; 5 << 20]).done()).contains("document index.json"));
    assert!(bench.refused(&Pack::new().file("oci-layout", b"{}").done()).contains("neither"));
    let thousands = (0..5000).fold(Pack::new(), |pack, n| pack.file(&format!("blobs/sha256/{n:064x}"), b""));
    assert!(bench.refused(&thousands.done()).contains("members"));
}

#[test]
fn a_layer_may_not_expand_without_bound() {
    let bench = Bench::new();
    let zeros = Pack::root().file("zeros", &vec![0; 80 << 20]).done();
    assert!(bench.refused(&Oci::new(&[zeros]).compress(gzip).done()).contains("expands more than 100 times"));
}

#[test]
fn an_archive_of_old_docker_save_is_taken() {
    let bench = Bench::new();
    let (lower, upper) = (base(), Pack::new().file("etc/.wh.a", b"").done());
    let ids: Vec<String> = [&lower, &upper, &upper].map(|layer| Digest::of(layer).to_string()).to_vec();
    let config = format!(r#"{{"config":{{"Cmd":["sh"]}},"rootfs":{{"type":"layers","diff_ids":{}}}}}"#, list(&ids));
    let config_name = format!("{}.json", Digest::of(config.as_bytes()).hex());
    let dirs: Vec<String> = (1..=3).map(|n| format!("{n:064x}")).collect();
    let manifest = |config: &str| {
        let layers = list(&dirs.iter().map(|dir| format!("{dir}/layer.tar")).collect::<Vec<_>>());
        format!(r#"[{{"Config":"{config}","RepoTags":["x:latest"],"Layers":{layers}}}]"#)
    };
    let pack = |manifest: &str| {
        Pack::new()
            .dir(&format!("{}/", dirs[0]))
            .file(&format!("{}/VERSION", dirs[0]), b"1.0")
            .file(&format!("{}/layer.tar", dirs[0]), &lower)
            .file(&format!("{}/layer.tar", dirs[1]), &upper)
            .symlink(&format!("{}/layer.tar", dirs[2]), &format!("../{}/layer.tar", dirs[1]))
            .file(&config_name, config.as_bytes())
            .file("manifest.json", manifest.as_bytes())
            .file("repositories", b"{}")
            .done()
    };
    let image = bench.import(&pack(&manifest(&config_name))).unwrap();
    assert_eq!(image.digest, Digest::of(config.as_bytes()).to_string());
    assert_eq!(image.config.as_ref().unwrap().cmd, ["sh"]);
    let root = bench.store.rootfs(&image.digest).unwrap();
    assert!(!root.join("etc/a").exists() && root.join("etc/b").exists());
    assert!(bench.refused(&pack(&manifest("../../etc/passwd"))).contains("missing"));
    let one = manifest(&config_name);
    let two = format!("[{0},{0}]", &one[1..one.len() - 1]);
    assert!(bench.refused(&pack(&two)).contains("2 images"));
}
