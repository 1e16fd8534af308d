use std::{
    fmt::Display,
    io::{self, Read, Write},
    str::FromStr,
};

use nix::errno::Errno;
use serde_json::{Map, Value, json};

/// Why there is no answer.
pub(crate) enum Failure {
    Usage,
    /// The probe could not do its own part.
    Broken(String),
}

pub(crate) type Done = Result<(), Failure>;

/// Prints one object on one line, at once.
pub(crate) fn say(value: &Value) -> Done {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}").and_then(|()| out.flush()).map_err(|e| Failure::Broken(format!("standard output: {e}")))
}

/// The kernel's answer to an attempt, with `more` beside it.
pub(crate) fn outcome<T, E: Into<io::Error>>(attempt: Result<T, E>, more: Value) -> Done {
    let mut object = answer(attempt);
    if let Value::Object(more) = more {
        object.extend(more);
    }
    say(&Value::Object(object))
}

/// `ok`, and `errno` by name when it is not.
pub(crate) fn answer<T, E: Into<io::Error>>(attempt: Result<T, E>) -> Map<String, Value> {
    let mut object = Map::new();
    match attempt {
        Ok(_) => drop(object.insert("ok".into(), json!(true))),
        Err(error) => {
            object.insert("ok".into(), json!(false));
            object.insert("errno".into(), json!(name(&error.into())));
        }
    }
    object
}

/// `EPERM` and so on; the text of an error that is not the kernel's.
pub(crate) fn name(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |number| format!("{:?}", Errno::from_raw(number)))
}

/// A word of the command line as what it should be.
pub(crate) fn parse<T: FromStr>(word: &str) -> Result<T, Failure> {
    word.parse().map_err(|_| Failure::Usage)
}

/// For what the probe itself needs.
pub(crate) fn need<T, E: Display>(what: &str, attempt: Result<T, E>) -> Result<T, Failure> {
    attempt.map_err(|error| Failure::Broken(format!("{what}: {error}")))
}

/// Waits until standard input ends.
pub(crate) fn hold() {
    let _ = io::copy(&mut io::stdin().lock().by_ref(), &mut io::sink());
}
