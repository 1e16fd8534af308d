//! The house rules that a machine can check: which room may know which (ARCHITECTURE.md, "Edges allowed"), where `unsafe` and SQL may
//! stand, how long a file may be, what lies at the top. Reads manifests and sources; needs no rights.
#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use berth_tests::programs;

/// Crates that a crate may depend on. The tests stand outside: they may know what they test.
const CRATES: &[(&str, &[&str])] = &[
    ("berth-cli", &["berth-api"]),
    ("berth-server", &["berth-api", "berth-protocol"]),
    // The frames of an exec go through the server untouched, so both ends name them once.
    ("berth-api", &["berth-protocol"]),
    ("berth-node", &["berth-runtime", "berth-protocol"]),
    ("berth-init", &["berth-sys"]),
    ("berth-runtime", &["berth-sys"]),
    ("berth-sys", &[]),
    ("berth-protocol", &[]),
    ("berth-tests", &["berth-api", "berth-protocol", "berth-runtime"]),
];

/// What the rooms of one crate may know of each other, and which crates of ours each of them may name.
struct Rooms {
    source: &'static str,
    allowed: &'static [(&'static str, &'static [&'static str])],
    /// Rooms that everyone may know and that know nobody but each other.
    leaves: &'static [&'static str],
    /// Files that put the rooms together, and may know all.
    wiring: &'static [&'static str],
}

const SERVER: Rooms = Rooms {
    source: "server/src",
    allowed: &[
        ("http", &["service", "berth_api"]),
        // Reads (accounts, images, console, doctor) and the passing on of exec streams: nothing that the reconciler would have to know of.
        ("service", &["authz", "store", "node_client", "config"]),
        // The server has no privilege to lose: it is who talks to registries, and what comes from there is checked again by the node.
        ("reconcile", &["store", "node_client", "registry"]),
        ("registry", &[]),
        ("node_client", &["berth_protocol"]),
        ("authz", &[]),
        ("store", &[]),
    ],
    // Rows, wire types and requests are converted at their own edge (STYLE.md 2): each of them has to name the domain's types.
    leaves: &["domain", "config"],
    wiring: &["main", "lib", "app", "lifecycle"],
};

const RUNTIME: Rooms = Rooms {
    source: "runtime/src",
    allowed: &[
        ("container", &["spec", "undo", "disk", "rootfs", "idmap", "cgroup", "net", "seccomp", "berth_sys"]),
        ("spec", &["berth_sys"]),
        ("tuning", &[]),
        ("haste", &[]),
        ("undo", &["berth_sys"]),
        ("disk", &["berth_sys"]),
        ("rootfs", &["berth_sys"]),
        ("idmap", &["berth_sys"]),
        ("cgroup", &["berth_sys"]),
        ("net", &["berth_sys"]),
        ("seccomp", &["berth_sys"]),
        ("image", &["berth_sys"]),
        // Directories of the host are opened and id-mapped before a container is there; it gets them as mounts.
        ("share", &["idmap", "berth_sys"]),
        ("procfs", &["cgroup"]),
        ("account", &["berth_sys"]),
        ("archive", &["disk", "berth_sys"]),
    ],
    // Errors, injected failures, the one way to replace a file, and messages with descriptors: what every step of the others needs.
    leaves: &["error", "fault", "durable", "packet"],
    wiring: &["lib"],
};

/// The daemon and the shim are two programs: what one says to the other is in `link`.
const NODE: Rooms = Rooms {
    source: "runtime/node/src",
    allowed: &[
        // Where no shim serves a user's socket the node answers there, in the shim's words and with its lines.
        ("daemon", &["shim", "berth_runtime", "berth_protocol"]),
        ("shim", &["berth_runtime", "berth_protocol"]),
        // What profiles say of sleep and ports goes to the shim as it is, and comes back as it is shown.
        ("link", &["berth_runtime", "berth_protocol"]),
    ],
    leaves: &["link", "descriptor"],
    wiring: &["main", "lib", "bin"],
};

const TOP: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "server",
    "runtime",
    "migrations",
    "web",
    "deploy",
    "tests",
    // What tools look for at the top and nowhere else.
    ".ci",
    ".config",
    ".gitignore",
    ".gitattributes",
    ".rustfmt.toml",
    ".git",
    "target",
];

const LONGEST: usize = 600;

/// Every file below `dir` whose name ends in one of `endings`, build products left out.
fn files(dir: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let entry = entry.unwrap();
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            match entry.file_type().unwrap() {
                kind if kind.is_dir() && !["target", "node_modules", "dist", ".git"].contains(&name.as_str()) => open.push(path),
                kind if kind.is_file() && endings.iter().any(|ending| name.ends_with(ending)) => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<PathBuf> {
    let root = programs::repository();
    ["server", "runtime", "tests"].iter().flat_map(|dir| files(&root.join(dir), &[".rs"])).collect()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(programs::repository()).unwrap_or(path).display().to_string()
}

/// Rust text without comments; with `strings` false, literals are emptied as well.
fn code(text: &str, strings: bool) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = literal(rest) {
            out.push_str(if strings { &rest[..length] } else { "\"\"" });
            length
        } else {
            out.push(first);
            first.len_utf8()
        };
        rest = &rest[skipped..];
    }
    out
}

/// Length of the string or character literal that `text` begins with.
fn literal(text: &str) -> Option<usize> {
    if let Some(raw) = text.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        return raw[hashes..].strip_prefix('"').and_then(|body| body.find(&end).map(|at| 1 + hashes + 1 + at + end.len()));
    }
    if text.starts_with('\'') {
        // A lifetime has no closing quote right behind.
        return ["'\"'", "'\\''", "'\\\"'", "'\\\\'"].iter().find(|quoted| text.starts_with(**quoted)).map(|quoted| quoted.len());
    }
    let mut escaped = false;
    for (at, c) in text.strip_prefix('"')?.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return Some(at + 2),
            _ => escaped = false,
        }
    }
    None
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// First names after `crate::` (and `super::…` that leads there), groups opened up, of a file whose module is `module`.
fn mentions(text: &str, module: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (start, depth) in paths(text, "crate::").map(|at| (at, 0)).chain(paths(text, "super::").map(|at| (at, 1))) {
        let mut rest = &text[start..];
        let mut up = depth;
        while let Some(next) = rest.strip_prefix("super::") {
            (rest, up) = (next, up + 1);
        }
        if depth > 0 && up != module.len() {
            continue;
        }
        found.extend(heads(rest));
    }
    found
}

/// Offsets behind each `prefix` that begins a path.
fn paths<'t>(text: &'t str, prefix: &'t str) -> impl Iterator<Item = usize> + 't {
    text.match_indices(prefix).filter_map(move |(at, _)| {
        let before = text[..at].chars().next_back().unwrap_or(' ');
        let begins = !(before.is_alphanumeric() || before == '_' || before == ':' || before == '$');
        begins.then_some(at + prefix.len())
    })
}

/// `a::b` has the head a; `{a::{b, c}, d}` has a and d.
fn heads(text: &str) -> Vec<String> {
    let Some(group) = text.strip_prefix('{') else { return words(text).next().map(str::to_owned).into_iter().collect() };
    let (mut depth, mut heads, mut fresh) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && (c.is_alphanumeric() || c == '_') => {
                heads.extend(words(&group[at..]).next().map(str::to_owned));
                fresh = false;
            }
            _ => {}
        }
    }
    heads
}

/// Module path of a file below `source`: `store/berths.rs` is store, berths; `store/mod.rs` is store.
fn module(path: &Path, source: &Path) -> Vec<String> {
    let relative = path.strip_prefix(source).unwrap().with_extension("");
    let mut names: Vec<String> = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if names.last().is_some_and(|last| last == "mod") {
        names.pop();
    }
    names
}

fn wrong_edges(rooms: &Rooms) -> Vec<String> {
    let source = programs::repository().join(rooms.source);
    let files = files(&source, &[".rs"]);
    assert!(!files.is_empty(), "{} has no sources", rooms.source);
    let names: BTreeSet<String> = files.iter().map(|file| module(file, &source)[0].clone()).collect();
    let allowed: BTreeMap<&str, &[&str]> = rooms.allowed.iter().copied().collect();
    let mut wrong = Vec::new();
    for file in &files {
        let module = module(file, &source);
        let room = module[0].as_str();
        if rooms.wiring.contains(&room) {
            continue;
        }
        let known = allowed.get(room).copied();
        if known.is_none() && !rooms.leaves.contains(&room) {
            wrong.push(format!("{}: the room {room} is not in ARCHITECTURE.md", shown(file)));
            continue;
        }
        let text = code(&fs::read_to_string(file).unwrap(), false);
        let rooms_named = mentions(&text, &module).into_iter().filter(|name| names.contains(name));
        let crates_named = words(&text).filter(|word| CRATES.iter().any(|(name, _)| name.replace('-', "_") == **word)).map(str::to_owned);
        for to in rooms_named.chain(crates_named).collect::<BTreeSet<_>>() {
            let good = to == room || rooms.leaves.contains(&to.as_str()) || known.is_some_and(|known| known.contains(&to.as_str()));
            if !good {
                wrong.push(format!("{}: {room} -> {to}", shown(file)));
            }
        }
    }
    wrong
}

#[test]
fn crates_depend_only_where_the_architecture_allows() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for manifest in files(programs::repository(), &["Cargo.toml"]) {
        let table: toml::Table = fs::read_to_string(&manifest).unwrap().parse().unwrap();
        let Some(name) = table.get("package").and_then(|p| p.get("name")).and_then(toml::Value::as_str) else { continue };
        let Some((_, allowed)) = CRATES.iter().find(|(known, _)| *known == name) else {
            wrong.push(format!("{}: the crate {name} is not in ARCHITECTURE.md", shown(&manifest)));
            continue;
        };
        seen.insert(name.to_owned());
        for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
            let Some(dependencies) = table.get(section).and_then(toml::Value::as_table) else { continue };
            for dependency in dependencies.keys().filter(|key| key.starts_with("berth-")) {
                if !allowed.contains(&dependency.as_str()) {
                    wrong.push(format!("{}: {name} -> {dependency} ({section})", shown(&manifest)));
                }
            }
        }
    }
    assert_eq!(seen.len(), CRATES.len(), "manifests found: {seen:?}");
    assert!(wrong.is_empty(), "edges that are not allowed:\n{}", wrong.join("\n"));
}

#[test]
fn modules_of_the_server_know_only_what_the_architecture_allows() {
    let wrong = wrong_edges(&SERVER);
    assert!(wrong.is_empty(), "edges that are not allowed:\n{}", wrong.join("\n"));
}

#[test]
fn modules_of_the_runtime_and_the_node_know_only_what_the_architecture_allows() {
    let wrong = [wrong_edges(&RUNTIME), wrong_edges(&NODE)].concat();
    assert!(wrong.is_empty(), "edges that are not allowed:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_stands_in_sys_alone_and_every_other_crate_forbids_it() {
    let mut wrong = Vec::new();
    for file in sources() {
        let name = shown(&file);
        if name.starts_with("runtime/sys/") {
            continue;
        }
        let text = code(&fs::read_to_string(&file).unwrap(), false);
        if words(&text).any(|word| word == "unsafe") {
            wrong.push(format!("{name}: unsafe outside runtime/sys"));
        }
        let parent = file.parent().unwrap();
        let is_root = (file.ends_with("src/lib.rs") || file.ends_with("src/main.rs"))
            || (file.ends_with("build.rs") && parent.join("Cargo.toml").exists())
            || parent.ends_with("src/bin")
            || parent.ends_with("tests/tests");
        if is_root && !text.contains("#![forbid(unsafe_code)]") {
            wrong.push(format!("{name}: no #![forbid(unsafe_code)]"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn sql_stands_in_the_store_alone() {
    const SIGNS: [&str; 9] =
        ["\"SELECT ", "\"INSERT ", "\"UPDATE ", "\"DELETE FROM ", "\"CREATE ", "\"ALTER TABLE ", "\"DROP ", "\"PRAGMA ", "\"BEGIN"];
    let mut wrong = Vec::new();
    for file in sources() {
        let name = shown(&file);
        if name.starts_with("server/src/store") || name.starts_with("tests/") {
            continue;
        }
        let text = code(&fs::read_to_string(&file).unwrap(), true);
        wrong.extend(SIGNS.iter().filter(|sign| text.contains(**sign)).map(|sign| format!("{name}: {sign}")));
        if words(&code(&text, false)).any(|word| word == "sqlx") {
            wrong.push(format!("{name}: sqlx"));
        }
    }
    assert!(wrong.is_empty(), "SQL outside server/src/store:\n{}", wrong.join("\n"));
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let without: Vec<String> = files(programs::repository(), &["Cargo.toml"])
        .into_iter()
        .filter(|manifest| {
            let table: toml::Table = fs::read_to_string(manifest).unwrap().parse().unwrap();
            table.contains_key("package") && table.get("lints").and_then(|l| l.get("workspace")) != Some(&toml::Value::Boolean(true))
        })
        .map(|manifest| shown(&manifest))
        .collect();
    assert!(without.is_empty(), "no [lints] workspace = true: {without:?}");
}

#[test]
fn no_file_is_longer_than_six_hundred_lines() {
    let root = programs::repository();
    let mut long = Vec::new();
    for dir in ["server", "runtime", "tests", "deploy", "migrations", "web", ".ci"] {
        if !root.join(dir).exists() {
            continue;
        }
        for file in files(&root.join(dir), &["", ".rs", ".ts", ".svelte", ".sh", ".sql", ".css"]) {
            // What is no text has no lines.
            let Ok(text) = fs::read_to_string(&file) else { continue };
            let lines = text.lines().count();
            let generated = file.file_name().is_some_and(|name| name == "package-lock.json" || name == "schema.d.ts");
            if lines > LONGEST && !generated {
                long.push(format!("{}: {lines} lines", shown(&file)));
            }
        }
    }
    assert!(long.is_empty(), "files past {LONGEST} lines; split them by subject:\n{}", long.join("\n"));
}

#[test]
fn the_top_holds_only_the_rooms_of_the_architecture() {
    let strange: Vec<String> = fs::read_dir(programs::repository())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !TOP.contains(&name.as_str()))
        .collect();
    assert!(strange.is_empty(), "not in ARCHITECTURE.md: {strange:?}");
}

#[test]
fn no_module_is_called_after_nothing() {
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|file| shown(file).split(['/', '.']).any(|part| ["utils", "util", "helpers", "helper", "misc", "common"].contains(&part)))
        .map(|file| shown(file))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The reader of sources itself: what it overlooks, no other test here would find.
#[test]
fn the_reader_sees_paths_groups_and_literals() {
    let text = "use crate::{\n    a::{b, c},\n    d,\n};\nfn f() { crate::e::g(); \"crate::no\"; /* crate::no */ }\n// crate::no\nuse super::h::i;\nuse super::super::k;";
    let module: Vec<String> = vec!["m".into(), "n".into()];
    let names: Vec<String> = mentions(&code(text, false), &module).into_iter().collect();
    assert_eq!(names, ["a", "d", "e", "k"]);
    assert_eq!(mentions("use super::h::i;", &module[..1]).into_iter().collect::<Vec<_>>(), ["h"]);
    let literals = r##"let a = "x\"unsafe"; let b = r#"unsafe "q" "#; let c = '"'; real();"##;
    let plain = code(literals, false);
    assert!(!plain.contains("unsafe") && plain.contains("real()"), "{plain}");
    assert!(words("#![forbid(unsafe_code)]").all(|word| word != "unsafe"));
}
