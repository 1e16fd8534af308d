//! What can be set, what it means, what is in force and where that comes from. The words are those of the comments in `config.rs`.

use std::{collections::BTreeMap, fmt::Write, fs, io, path::Path};

use serde::Serialize;

use super::{Config, Error, without_password};

/// The sources themselves: a key is documented where it is defined, and nowhere else.
const SOURCES: [&str; 2] = [include_str!("../config.rs"), include_str!("listen.rs")];

/// A key of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    /// With its section: `audit.keep_days`.
    pub key: String,
    pub meaning: String,
    /// As TOML; nothing: not set, and there is no default.
    pub default: Option<String>,
    /// What is in force.
    pub value: Option<String>,
    /// True when the file sets it.
    pub set: bool,
}

/// All keys, in the order of their definition, sections last.
pub fn explain(path: &Path) -> Result<Vec<Key>, Error> {
    let config = Config::load(path)?;
    let set = toml::from_str::<toml::Table>(&text(path)?).unwrap_or_default();
    let (defaults, values) = (table(&Config::default()), table(&config));
    let keys = documented().into_iter().map(|(key, meaning)| {
        let shown = |table: &toml::Table| look(table, &key).map(|value| without_password(&value.to_string()));
        Key { meaning, default: shown(&defaults), value: shown(&values), set: look(&set, &key).is_some(), key }
    });
    Ok(keys.collect())
}

/// Everything that is wrong with the file, one line each; keys that there are not, all at once.
pub fn check(path: &Path) -> Result<Vec<String>, Error> {
    let known: Vec<String> = documented().into_iter().map(|(key, _)| key).collect();
    let text = text(path)?;
    let mut problems = Vec::new();
    if let Ok(table) = toml::from_str::<toml::Table>(&text) {
        let unknown = leaves(&table, "").into_iter().filter(|key| !known.contains(key));
        problems.extend(unknown.map(|key| format!("there is no key {key}")));
    }
    match Config::load(path) {
        Err(Error::Invalid { problems: more, .. }) => problems.extend(more),
        // Of unknown keys all have been told.
        Err(Error::Parse { source, .. }) if problems.is_empty() => problems.push(source.to_string().trim_end().to_owned()),
        Err(error @ Error::Read { .. }) => return Err(error),
        _ => {}
    }
    Ok(problems)
}

/// A file that says the same, with comments.
pub fn as_file(keys: &[Key]) -> String {
    let mut out = String::new();
    let mut section = "";
    for key in keys {
        let (of, name) = key.key.rsplit_once('.').unwrap_or(("", &key.key));
        if of != section {
            let _ = writeln!(out, "\n[{of}]");
            section = of;
        }
        let _ = writeln!(out, "# {}", key.meaning);
        let _ = match (&key.value, key.set) {
            (Some(value), true) => writeln!(out, "{name} = {value}  # set; default: {}", key.default.as_deref().unwrap_or("none")),
            (Some(value), false) => writeln!(out, "{name} = {value}  # default"),
            (None, _) => writeln!(out, "# {name} is not set"),
        };
    }
    out
}

fn text(path: &Path) -> Result<String, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

fn table(config: &Config) -> toml::Table {
    toml::Table::try_from(config).unwrap_or_default()
}

fn look<'t>(table: &'t toml::Table, key: &str) -> Option<&'t toml::Value> {
    match key.split_once('.') {
        Some((section, rest)) => table.get(section)?.as_table().and_then(|table| look(table, rest)),
        None => table.get(key),
    }
}

fn leaves(table: &toml::Table, before: &str) -> Vec<String> {
    let under = |(name, value): (&String, &toml::Value)| match value {
        toml::Value::Table(inner) => leaves(inner, &format!("{before}{name}.")),
        _ => vec![format!("{before}{name}")],
    };
    table.iter().flat_map(under).collect()
}

/// Keys with their comments, from the source: fields of `Config`, and for a field whose type is a struct of the same file that struct's.
fn documented() -> Vec<(String, String)> {
    let structs = structs();
    let mut plain = Vec::new();
    let mut sections = Vec::new();
    for (name, kind, meaning) in structs.get("Config").into_iter().flatten() {
        match structs.get(kind.as_str()) {
            Some(fields) => sections.extend(fields.iter().map(|(field, _, meaning)| (format!("{name}.{field}"), meaning.clone()))),
            None => plain.push((name.clone(), meaning.clone())),
        }
    }
    plain.extend(sections);
    plain
}

/// Name, type and comment of the fields of each struct.
fn structs() -> BTreeMap<&'static str, Vec<(String, String, String)>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let (mut open, mut comment) = (None, String::new());
    let of = |source: &'static str| source.lines().map_while(|line| (!line.starts_with("#[cfg(test)]")).then(|| line.trim()));
    for line in SOURCES.into_iter().flat_map(of) {
        if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {")) {
            open = Some(name);
            comment.clear();
        } else if line == "}" {
            open = None;
        } else if let Some(words) = line.strip_prefix("/// ") {
            comment = format!("{comment} {words}").trim().to_owned();
        } else if let (Some(name), Some((field, kind))) = (open, line.strip_prefix("pub ").and_then(|rest| rest.split_once(": "))) {
            all.entry(name).or_default().push((field.to_owned(), kind.trim_end_matches(',').to_owned(), std::mem::take(&mut comment)));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.toml");
        fs::write(&path, text).unwrap();
        (directory, path)
    }

    #[test]
    fn every_key_is_documented_and_nothing_else_is() {
        let keys: Vec<String> = documented().into_iter().map(|(key, _)| key).collect();
        for key in leaves(&table(&Config::default()), "") {
            assert!(keys.contains(&key), "{key} is not found in the source: {keys:?}");
        }
        for (key, meaning) in documented() {
            assert!(!meaning.is_empty(), "{key} has no comment");
        }
        assert!(keys.iter().any(|key| key == "metrics.listen"), "{keys:?}");
    }

    #[test]
    fn what_is_explained_is_a_configuration_that_means_the_same() {
        let (_directory, path) = file("[audit]\nkeep_days = 7\n");
        let keys = explain(&path).unwrap();
        let days = keys.iter().find(|key| key.key == "audit.keep_days").unwrap();
        assert_eq!((days.value.as_deref(), days.default.as_deref(), days.set), (Some("7"), Some("90"), true));
        assert!(!keys.iter().any(|key| key.set && key.key != "audit.keep_days"));
        let (_other, again) = file(&as_file(&keys));
        assert_eq!(Config::load(&again).unwrap(), Config::load(&path).unwrap());
    }

    #[test]
    fn all_unknown_keys_are_told_at_once() {
        let (_directory, path) = file("x = 1\n[audit]\nkeep = 5\nkeep_days = 7\n[nowhere]\na = 1\n");
        let problems = check(&path).unwrap();
        for key in ["x", "audit.keep", "nowhere.a"] {
            assert!(problems.contains(&format!("there is no key {key}")), "{problems:?}");
        }
        let (_directory, path) = file("[audit]\nkeep_days = 0\nkeep_bytes = 1\n");
        assert_eq!(check(&path).unwrap().len(), 2);
        let (_directory, path) = file("[audit]\nkeep_days = \"x\"\n");
        assert_eq!(check(&path).unwrap().len(), 1);
        assert!(check(Path::new("/nonexistent/server.toml")).unwrap().is_empty());
    }
}
