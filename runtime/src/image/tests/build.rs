use std::{
    io::Write,
    os::{fd::AsFd, unix::net::UnixStream},
    thread,
    time::{Duration, Instant},
};

use super::*;

/// A recipe whose program is `script`; None, said aloud, where namespaces cannot be made.
fn recipe(bench: &Bench, script: &str) -> Option<Recipe> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: running a recipe in a pid namespace needs root");
        return None;
    }
    let dir = bench.dir.path().join("recipe");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("build"), format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(dir.join("build"), Permissions::from_mode(0o755)).unwrap();
    Some(Recipe { dir, suite: "trixie".into() })
}

#[test]
fn a_recipe_makes_an_image_and_its_lines_are_heard() {
    let bench = Bench::new();
    fs::write(bench.dir.path().join("made.tar"), Pack::root().done()).unwrap();
    let made = bench.dir.path().join("made.tar");
    let Some(recipe) = recipe(&bench, &format!("echo \"suite $1 home $HOME pid $$ \"$(env | wc -l) >&2; cp {} \"$2\"", made.display()))
    else {
        return;
    };
    let mut said = Vec::new();
    let (_held, cancel) = UnixStream::pair().unwrap();
    let image = bench.store.build("default", &recipe, 7, cancel.as_fd(), &mut |line| said.push(line.to_owned())).unwrap();
    assert_eq!((image.name.as_str(), image.created_ms), ("default", 7));
    assert!(said[0].starts_with("suite trixie home ") && said[0].contains(bench.store.root.to_str().unwrap()), "{said:?}");
    assert!(said[0].contains("pid 1 "), "in a pid namespace of its own: {said:?}");
    assert_eq!(bench.names().len(), 1);
}

#[test]
fn a_recipe_that_fails_is_quoted_and_leaves_nothing() {
    let bench = Bench::new();
    let Some(recipe) = recipe(&bench, "touch \"$TMPDIR/left\"; echo no such mirror >&2; exit 3") else { return };
    let (_held, cancel) = UnixStream::pair().unwrap();
    let error = bench.store.build("default", &recipe, 7, cancel.as_fd(), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("(exit 3)") && error.contains("no such mirror"), "{error}");
    assert!(bench.names().is_empty());
}

#[test]
fn a_cancelled_build_ends_with_everything_it_started() {
    let bench = Bench::new();
    let pipe = bench.dir.path().join("alive");
    let fifo = rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR, 0);
    fifo.unwrap();
    // Its grandchild leaves the session and holds the fifo open for writing: reading to the end proves that it ended.
    let Some(recipe) = recipe(&bench, &format!("setsid sleep 1000 >{} & printf 'half a line' >&2; sleep 1000", pipe.display())) else {
        return;
    };
    let (mut held, cancel) = UnixStream::pair().unwrap();
    let reader = thread::spawn(move || {
        let mut rest = Vec::new();
        let mut file = fs::File::open(&pipe).unwrap();
        held.write_all(b"x").unwrap();
        file.read_to_end(&mut rest).unwrap();
    });
    let start = Instant::now();
    let error = bench.store.build("default", &recipe, 7, cancel.as_fd(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error:?}");
    reader.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(30) && bench.names().is_empty());
}
