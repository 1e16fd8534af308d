//! Which of runc's commands this is, and the file that it is about. Pure.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// A command that may be changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// `create` or `run`, with the bundle's directory.
    Create { bundle: PathBuf },
    /// `exec` with its process file.
    Exec { process: PathBuf },
}

/// Global options of runc that take a value, runc(8). As with all options a value may also follow `=`.
const WITH_VALUE: [&str; 4] = ["log", "log-format", "root", "criu"];
/// The same of `create`, `run` and `exec`: only those before the file that is looked for matter.
const OF_COMMAND: [&str; 14] = [
    "console-socket",
    "pid-file",
    "preserve-fds",
    "cwd",
    "env",
    "e",
    "user",
    "u",
    "additional-gids",
    "g",
    "process-label",
    "apparmor",
    "cap",
    "c",
];

/// `None` for everything that is to pass unchanged.
pub(crate) fn parse(arguments: &[OsString]) -> Option<Asked> {
    let mut words = arguments.iter();
    let command = loop {
        let word = words.next()?;
        match option(word) {
            None => break word,
            Some((name, None)) if WITH_VALUE.contains(&name) => drop(words.next()?),
            Some(_) => {}
        }
    };
    let (file, default): (&[&str], Option<&str>) = match command.to_str()? {
        "create" | "run" => (&["bundle", "b"], Some(".")),
        "exec" => (&["process", "p"], None),
        _ => return None,
    };
    let mut found = default.map(PathBuf::from);
    while let Some(word) = words.next() {
        match option(word) {
            // The container's name; what follows is its own affair.
            None => break,
            Some((name, value)) if file.contains(&name) => {
                found = Some(
                    Path::new(match value {
                        Some(value) => value,
                        None => words.next()?.as_os_str(),
                    })
                    .to_owned(),
                );
            }
            Some((name, None)) if OF_COMMAND.contains(&name) => drop(words.next()?),
            Some(_) => {}
        }
    }
    let found = found?;
    Some(if file[0] == "bundle" { Asked::Create { bundle: found } } else { Asked::Exec { process: found } })
}

/// Name and value of an option; `None` for what is none.
fn option(word: &OsStr) -> Option<(&str, Option<&OsStr>)> {
    let bytes = word.as_bytes().strip_prefix(b"-")?;
    let bytes = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let (name, value) = match bytes.iter().position(|b| *b == b'=') {
        Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]))),
        None => (bytes, None),
    };
    std::str::from_utf8(name).ok().filter(|n| !n.is_empty()).map(|name| (name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Option<Asked> {
        parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_bundle_is_found_as_containerd_and_buildkit_name_it() {
        let bundle = |path: &str| Some(Asked::Create { bundle: path.into() });
        let containerd = "--root /run/docker/runtime-runc/moby --log /b/log.json --log-format json --systemd-cgroup create --bundle /b --pid-file /b/init.pid abc";
        assert_eq!(parsed(containerd), bundle("/b"));
        assert_eq!(parsed("--log=/x run -b /c --keep id"), bundle("/c"));
        assert_eq!(parsed("run --bundle=/c --console-socket --bundle id"), bundle("/c"));
        assert_eq!(parsed("create id --bundle /not"), bundle("."));
    }

    #[test]
    fn an_exec_names_its_process_and_everything_else_passes() {
        let line = "--root /r exec --process /tmp/p.json --detach --pid-file /x id";
        assert_eq!(parsed(line), Some(Asked::Exec { process: "/tmp/p.json".into() }));
        for line in ["exec id sh", "state id", "--version", "--root", "--log /create delete --force id", "create --bundle"] {
            assert_eq!(parsed(line), None, "{line}");
        }
    }
}
