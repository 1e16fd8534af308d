//! What the host says of accounts: its name service (NSS), its shadow entries, and PAM's account stage.
//!
//! Runs as `berth-shim accounts`, a freshly executed single-threaded root process: modules of NSS and PAM are code of the host's
//! administrator that may hang or crash, and whoever waits for the answers ends the process then. One answer a line, each as soon as it is
//! known. Nothing here decides: an answer that is none says so ([`State::Unknown`]), and is never "not found".

use std::{
    ffi::CString,
    fs,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use berth_sys::{
    pam,
    process::exit_now,
    shadow::{self, Shadow},
};
use nix::{
    errno::Errno,
    sys::{prctl, signal::Signal},
    unistd::{Uid, User},
};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Step, chain};

const DAY: u64 = 86_400;

/// The request: one JSON text on standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Questions {
    /// The service's file, `/etc/pam.d/berth`; none: PAM is not asked.
    pub pam: Option<PathBuf>,
    pub accounts: Vec<Question>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    pub name: String,
    /// What it was; none for an account of which only its being there is asked.
    pub uid: Option<u32>,
}

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub name: String,
    pub state: State,
    /// A sentence.
    pub detail: String,
    /// `/etc/passwd` has the name.
    pub local: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Present,
    /// All sources answered, and none knows the name or the uid.
    Vanished,
    Locked,
    Expired,
    /// The uid has another name, or the name another uid.
    Renamed,
    /// A source did not answer.
    Unknown,
}

/// Entry of `berth-shim accounts`. Does not return.
pub fn answer() -> ! {
    let status = match serve() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("berth-shim accounts: {}", chain(&error));
            1
        }
    };
    exit_now(status)
}

fn serve() -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).step("follow", "the node's death")?;
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).step("read", "the questions")?;
    let questions: Questions = serde_json::from_str(&text).map_err(|e| Error::Invalid(format!("the questions are not understood: {e}")))?;
    let passwd = fs::read("/etc/passwd").step("read", "/etc/passwd")?;
    let local: std::collections::HashSet<&[u8]> =
        passwd.split(|b| *b == b'\n').filter_map(|line| line.split(|b| *b == b':').next()).collect();
    let today = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / DAY).try_into().unwrap_or(i64::MAX);
    let mut out = io::stdout().lock();
    for question in &questions.accounts {
        let (state, detail) = look(question, questions.pam.as_deref(), today);
        let answer = Answer { name: question.name.clone(), state, detail, local: local.contains(question.name.as_bytes()) };
        let mut line = serde_json::to_vec(&answer).map_err(|e| Error::Invalid(e.to_string()))?;
        line.push(b'\n');
        out.write_all(&line).and_then(|()| out.flush()).step("answer", &question.name)?;
    }
    Ok(())
}

/// What a look-up gave.
type Found<T> = std::result::Result<Option<T>, String>;

fn look(question: &Question, file: Option<&Path>, today: i64) -> (State, String) {
    let name = &question.name;
    // A directory that ignores case must not take one account for another.
    let by_name = answered(User::from_name(name)).map(|found| found.filter(|user| user.name == *name).map(|user| user.uid.as_raw()));
    let by_uid: Found<String> = match (question.uid, &by_name) {
        // Needed only to tell what became of a name that is gone.
        (Some(uid), Ok(None)) => answered(User::from_uid(Uid::from_raw(uid))).map(|found| found.map(|user| user.name)),
        _ => Ok(None),
    };
    match identity(question, &by_name, &by_uid) {
        Some(told) => told,
        None => standing(name, file, today),
    }
}

/// Some sources say "not found" by an error, getpwnam(3); one that is out of reach may do so too, and then finds nobody else either.
fn answered(found: nix::Result<Option<User>>) -> Found<User> {
    match found {
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
        other => other.map_err(|e| e.to_string()),
    }
}

/// What the name service says; none when the account is there and is who it was.
fn identity(question: &Question, by_name: &Found<u32>, by_uid: &Found<String>) -> Option<(State, String)> {
    let Question { name, uid } = question;
    Some(match (by_name, by_uid, uid) {
        (Err(why), ..) => (State::Unknown, format!("the name service does not tell who {name} is: {why}")),
        (Ok(Some(now)), _, Some(uid)) if now != uid => (State::Renamed, format!("{name} has uid {now} now, and had {uid}")),
        (Ok(Some(_)), ..) => return None,
        (Ok(None), Err(why), Some(uid)) => (State::Unknown, format!("the name service does not tell who has uid {uid}: {why}")),
        (Ok(None), Ok(Some(other)), Some(uid)) => (State::Renamed, format!("uid {uid} is {other} now, and was {name}")),
        (Ok(None), ..) => (State::Vanished, format!("the host has no account {name} any more")),
    })
}

/// Whether an account that is there may be used.
fn standing(name: &str, file: Option<&Path>, today: i64) -> (State, String) {
    let Ok(c_name) = CString::new(name) else { return (State::Unknown, format!("{name:?} cannot be asked for")) };
    if let Some(file) = file
        && let Some(told) = by_pam(name, &c_name, file)
    {
        return told;
    }
    match shadow::find(&c_name) {
        Err(error) => (State::Unknown, format!("the shadow entry of {name} cannot be read: {error}")),
        Ok(entry) => by_shadow(name, entry, today),
    }
}

fn by_shadow(name: &str, entry: Option<Shadow>, today: i64) -> (State, String) {
    match entry {
        Some(Shadow { expires: Some(day), .. }) if day <= today => (State::Expired, format!("the account {name} has expired")),
        Some(Shadow { locked: true, .. }) => (State::Locked, format!("the password of {name} is locked")),
        _ => (State::Present, String::new()),
    }
}

/// None when PAM lets him in; whether his password is locked it does not say.
fn by_pam(name: &str, c_name: &CString, file: &Path) -> Option<(State, String)> {
    let (Some(service), Some(directory)) = (file.file_name(), file.parent()) else {
        return Some((State::Unknown, format!("{} is no file of a PAM service", file.display())));
    };
    let text = |part: &std::ffi::OsStr| CString::new(part.as_bytes()).unwrap_or_default();
    match pam::account(&text(service), &text(directory.as_os_str()), c_name) {
        Ok((code, words)) => verdict(name, code, &words),
        Err(error) => Some((State::Unknown, format!("PAM cannot be asked of {name}: {error}"))),
    }
}

fn verdict(name: &str, code: i32, words: &str) -> Option<(State, String)> {
    match code {
        // A password that is to be changed at the next login keeps nobody out.
        pam::SUCCESS | pam::NEW_AUTHTOK_REQD => None,
        pam::ACCT_EXPIRED | pam::AUTHTOK_EXPIRED => Some((State::Expired, format!("the account {name} has expired (PAM: {words})"))),
        pam::PERM_DENIED | pam::AUTH_ERR => Some((State::Locked, format!("PAM does not admit {name}: {words}"))),
        // The name service has just found him.
        _ => Some((State::Unknown, format!("PAM does not tell of {name}: {words}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> Question {
        Question { name: "alice".into(), uid: Some(1000) }
    }

    fn state(by_name: Found<u32>, by_uid: Found<String>) -> Option<State> {
        identity(&alice(), &by_name, &by_uid).map(|(state, _)| state)
    }

    #[test]
    fn l05_what_does_not_answer_is_never_gone() {
        let dead = || Err("timed out".to_owned());
        assert_eq!(state(Err("timed out".into()), Ok(None)), Some(State::Unknown));
        assert_eq!(state(Ok(None), dead()), Some(State::Unknown));
        assert_eq!(state(Ok(None), Ok(None)), Some(State::Vanished));
        assert_eq!(state(Ok(Some(1000)), Ok(None)), None);
    }

    #[test]
    fn l05_a_uid_under_a_new_name_and_a_name_under_a_new_uid_are_told() {
        let (renamed, detail) = identity(&alice(), &Ok(None), &Ok(Some("bob".into()))).unwrap();
        assert!(renamed == State::Renamed && detail.contains("bob"), "{detail}");
        let (renamed, detail) = identity(&alice(), &Ok(Some(2000)), &Ok(None)).unwrap();
        assert!(renamed == State::Renamed && detail.contains("2000"), "{detail}");
    }

    #[test]
    fn l05_expiry_and_a_locked_password_are_told_apart() {
        let told = |locked, expires| by_shadow("alice", Some(Shadow { locked, expires }), 20_000).0;
        assert_eq!(told(false, None), State::Present);
        assert_eq!(told(false, Some(20_001)), State::Present);
        assert_eq!(told(true, None), State::Locked);
        assert_eq!(told(true, Some(1)), State::Expired);
        assert_eq!(by_shadow("alice", None, 20_000).0, State::Present);
        assert_eq!(verdict("alice", pam::SUCCESS, ""), None);
        assert_eq!(verdict("alice", pam::ACCT_EXPIRED, "").map(|v| v.0), Some(State::Expired));
        assert_eq!(verdict("alice", pam::PERM_DENIED, "").map(|v| v.0), Some(State::Locked));
        assert_eq!(verdict("alice", 9, "").map(|v| v.0), Some(State::Unknown));
    }

    #[test]
    fn root_is_there_whoever_asks() {
        let root = Question { name: "root".into(), uid: Some(0) };
        let by_name = User::from_name("root").map(|user| user.map(|user| user.uid.as_raw())).map_err(|e| e.to_string());
        assert_eq!(identity(&root, &by_name, &Ok(None)), None);
        let nobody = Question { name: "berth-no-such-account".into(), uid: Some(3_999_999_999) };
        assert_eq!(look(&nobody, None, 0).0, State::Vanished);
    }
}
