//! The files of a Docker client: `config.json` and the contexts beside it, written as docker itself writes them.
//!
//! Nothing of Docker is needed. What is not ours stays as it is, byte for byte; each file is replaced as a whole. Only ever called as the
//! user whose files they are.

use std::{
    env, fmt, fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::unistd::{User, getuid};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_json::{
    json,
    ser::PrettyFormatter,
    value::{RawValue, to_raw_value},
};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

/// By this a context is known as ours: nothing else is overwritten or removed.
const DESCRIPTION: &str = "the Docker of your berth";
const CURRENT: &str = "currentContext";

/// `$DOCKER_CONFIG`, or `.docker` in the home.
pub(crate) struct DockerConfig(PathBuf);

/// What is found under the name of a context.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Ours,
    /// Somebody else's, with the address of its Docker where it has one.
    Foreign(Option<String>),
}

impl DockerConfig {
    /// As docker finds it. None for a user without any home.
    pub(crate) fn find() -> Option<Self> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        if let Some(dir) = set("DOCKER_CONFIG") {
            return Some(Self(dir.into()));
        }
        let home = set("HOME").map(PathBuf::from).or_else(|| User::from_uid(getuid()).ok().flatten().map(|user| user.dir))?;
        Some(Self(home.join(".docker")))
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("config.json")
    }

    /// The file that describes a context.
    pub(crate) fn context_file(&self, name: &str) -> PathBuf {
        self.0.join("contexts/meta").join(digest(name)).join("meta.json")
    }

    pub(crate) fn context(&self, name: &str) -> io::Result<Found> {
        let text = match fs::read(self.context_file(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            text => text?,
        };
        let Ok(meta) = serde_json::from_slice::<serde_json::Value>(&text) else { return Ok(Found::Foreign(None)) };
        Ok(match meta["Metadata"]["Description"] == DESCRIPTION {
            true => Found::Ours,
            false => Found::Foreign(meta["Endpoints"]["docker"]["Host"].as_str().map(str::to_owned)),
        })
    }

    pub(crate) fn write_context(&self, name: &str, docker_host: &str) -> io::Result<()> {
        let file = self.context_file(name);
        let meta = json!({
            "Name": name,
            "Metadata": { "Description": DESCRIPTION },
            "Endpoints": { "docker": { "Host": docker_host, "SkipTLSVerify": false } },
        });
        make_dir(&self.0, 0o700)?;
        if let Some(dir) = file.parent() {
            make_dir(dir, 0o755)?;
        }
        replace(&file, meta.to_string().as_bytes(), 0o644)
    }

    /// Removes a context and what docker may keep with it.
    pub(crate) fn remove_context(&self, name: &str) -> io::Result<()> {
        for kind in ["meta", "tls"] {
            match fs::remove_dir_all(self.0.join("contexts").join(kind).join(digest(name))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The context that docker uses when told of none.
    pub(crate) fn current(&self) -> io::Result<Option<String>> {
        Ok(self.read()?.get(CURRENT).filter(|name| !name.is_empty() && name != "default"))
    }

    /// Makes a context the current one, or none. Everything else in the file stays.
    pub(crate) fn set_current(&self, name: Option<&str>) -> io::Result<()> {
        let mut document = self.read()?;
        if document.get(CURRENT).as_deref() == name {
            return Ok(());
        }
        document.set(CURRENT, name)?;
        let mut text = Vec::new();
        document.serialize(&mut serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"\t")))?;
        // A link (to a file among somebody's dotfiles) stays one, as with docker.
        let file = fs::canonicalize(self.file()).unwrap_or_else(|_| self.file());
        let mode = fs::metadata(&file).map_or(0o600, |meta| meta.permissions().mode() & 0o777);
        make_dir(&self.0, 0o700)?;
        replace(&file, &text, mode)
    }

    fn read(&self) -> io::Result<Document> {
        let text = match fs::read(self.file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Document::default()),
            text => text?,
        };
        if text.trim_ascii().is_empty() {
            return Ok(Document::default());
        }
        serde_json::from_slice(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("it is no JSON object: {error}")))
    }
}

/// Docker's rule for the name of a context; `default` is its own.
pub(crate) fn is_context_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    first && name.len() >= 2 && name != "default" && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.+-".contains(&b))
}

fn digest(name: &str) -> String {
    Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn make_dir(dir: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(dir)
}

/// A reader sees the old file or the new one.
fn replace(file: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let dir = file.parent().unwrap_or(Path::new("."));
    let mut new = NamedTempFile::new_in(dir)?;
    new.write_all(text)?;
    new.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    new.as_file().sync_all()?;
    new.persist(file).map_err(|error| error.error)?;
    fs::File::open(dir)?.sync_all()
}

/// A JSON object whose order and values are kept as they were written.
#[derive(Debug, Default)]
struct Document(Vec<(String, Box<RawValue>)>);

impl Document {
    fn get(&self, key: &str) -> Option<String> {
        let (_, value) = self.0.iter().rev().find(|(name, _)| name == key)?;
        serde_json::from_str(value.get()).ok()
    }

    fn set(&mut self, key: &str, value: Option<&str>) -> io::Result<()> {
        self.0.retain(|(name, _)| name != key);
        if let Some(value) = value {
            self.0.push((key.to_owned(), to_raw_value(value)?));
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Document;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
                let mut document = Document::default();
                while let Some(entry) = map.next_entry()? {
                    document.0.push(entry);
                }
                Ok(document)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> (tempfile::TempDir, DockerConfig) {
        let dir = tempfile::tempdir().unwrap();
        let config = DockerConfig(dir.path().join("none-yet/.docker"));
        (dir, config)
    }

    #[test]
    fn a_context_is_written_found_and_removed() {
        let (_dir, config) = config();
        assert_eq!(config.context("berth").unwrap(), Found::Nothing);
        config.write_context("berth", "unix:///s").unwrap();
        assert_eq!(config.context("berth").unwrap(), Found::Ours);
        // The directory's name is what docker computes.
        let file = config.0.join("contexts/meta/5c2f64c7f21efd5fb5e3d6a499abe5eacb248ae6f6f0085387c9a056d10ef5fd/meta.json");
        assert_eq!(config.context_file("berth"), file);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&config.0), mode(&config.context_file("berth"))), (0o700, 0o644));
        config.write_context("berth", "unix:///t").unwrap();
        config.remove_context("berth").unwrap();
        config.remove_context("berth").unwrap();
        assert_eq!(config.context("berth").unwrap(), Found::Nothing);
    }

    #[test]
    fn a_context_of_somebody_else_is_told_with_its_address() {
        let (_dir, config) = config();
        config.write_context("berth", "unix:///s").unwrap();
        let foreign = r#"{"Name":"berth","Metadata":{},"Endpoints":{"docker":{"Host":"ssh://there"}}}"#;
        fs::write(config.context_file("berth"), foreign).unwrap();
        assert_eq!(config.context("berth").unwrap(), Found::Foreign(Some("ssh://there".into())));
        fs::write(config.context_file("berth"), "garbage").unwrap();
        assert_eq!(config.context("berth").unwrap(), Found::Foreign(None));
    }

    #[test]
    fn everything_else_in_the_file_stays_as_it_is() {
        let (_dir, config) = config();
        config.set_current(Some("berth")).unwrap();
        assert_eq!(config.current().unwrap().as_deref(), Some("berth"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&config.file()), 0o600);

        let text =
            r#"{ "z": {"b":1.50, "a":[ 1,2 ]}, "currentContext":"old", "auths": {"r":{"auth":"\u0041=="}}, "n": 12345678901234567890123 }"#;
        fs::write(config.file(), text).unwrap();
        fs::set_permissions(config.file(), fs::Permissions::from_mode(0o640)).unwrap();
        config.set_current(Some("berth")).unwrap();
        let written = fs::read_to_string(config.file()).unwrap();
        let expected = "{\n\t\"z\": {\"b\":1.50, \"a\":[ 1,2 ]},\n\t\"auths\": {\"r\":{\"auth\":\"\\u0041==\"}},\n\t\
                        \"n\": 12345678901234567890123,\n\t\"currentContext\": \"berth\"\n}";
        assert_eq!((written.as_str(), mode(&config.file())), (expected, 0o640));
        config.set_current(None).unwrap();
        assert_eq!(config.current().unwrap(), None);
        assert!(!fs::read_to_string(config.file()).unwrap().contains(CURRENT));

        // A link among dotfiles stays a link.
        let elsewhere = config.0.join("dotfile");
        fs::rename(config.file(), &elsewhere).unwrap();
        std::os::unix::fs::symlink("dotfile", config.file()).unwrap();
        config.set_current(Some("berth")).unwrap();
        assert!(fs::symlink_metadata(config.file()).unwrap().is_symlink());
        assert!(fs::read_to_string(elsewhere).unwrap().contains("berth"));
    }

    #[test]
    fn what_is_no_object_is_refused_and_stays() {
        let (_dir, config) = config();
        make_dir(&config.0, 0o700).unwrap();
        for bad in ["{", "[]", "null", "{} x"] {
            fs::write(config.file(), bad).unwrap();
            assert!(config.set_current(Some("berth")).is_err(), "{bad}");
            assert_eq!(fs::read_to_string(config.file()).unwrap(), bad);
        }
        fs::write(config.file(), " \n").unwrap();
        config.set_current(Some("berth")).unwrap();
    }

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["berth", "b2", "my.berth_1+x-y"] {
            assert!(is_context_name(good), "{good}");
        }
        for bad in ["", "b", "default", "-b", ".b", "a/b", "a b", "..", "ä1"] {
            assert!(!is_context_name(bad), "{bad}");
        }
    }
}
