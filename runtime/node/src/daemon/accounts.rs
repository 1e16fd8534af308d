//! What the host says of the accounts that have berths. Asked in a child, since modules of NSS and PAM may hang, crash or start threads;
//! one that hangs costs the answer about that account, and a directory that hangs costs a bounded time.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use berth_protocol::{Account, AccountState};
use berth_runtime::account::{Answer, Question, Questions, State};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::{node::Node, nss::valid_name, refusal::Refusal};

/// For one account.
const DEADLINE: Duration = Duration::from_secs(5);
/// After so many that did not come the directory is out of order, and the rest is not asked for.
const MOST_HANGS: usize = 2;
/// Accounts named beside those of berths.
const MOST_KNOWN: usize = 16;

/// Asks about the account of every berth of this node, and about those of `known`.
pub(crate) async fn ask(node: &Node, known: &[&str]) -> Result<Vec<Account>, Refusal> {
    if known.len() > MOST_KNOWN || !known.iter().all(|name| valid_name(name)) {
        return Err(Refusal::bad_request(format!("known takes up to {MOST_KNOWN} names of host users")));
    }
    let _one = node.asking.lock().await;
    let questions: Vec<Question> = node
        .of_users()
        .iter()
        .map(|berth| Question { name: berth.status.borrow().user.clone(), uid: Some(berth.uid) })
        .chain(known.iter().map(|name| Question { name: (*name).to_owned(), uid: None }))
        .collect();
    let pam = &node.host.config.accounts.pam;
    let program = node.host.layout.shim_program();
    Ok(all(&program, pam.exists().then_some(pam), &questions).await)
}

async fn all(program: &Path, pam: Option<&PathBuf>, questions: &[Question]) -> Vec<Account> {
    let mut accounts = Vec::with_capacity(questions.len());
    let (mut rest, mut hangs) = (questions, 0);
    while !rest.is_empty() {
        let ended = round(program, pam, rest, &mut accounts).await;
        rest = &questions[accounts.len()..];
        let why = match ended {
            Ok(()) if rest.is_empty() => break,
            Ok(()) => "what asks for it ended before it was answered".to_owned(),
            Err(why) => why,
        };
        tracing::warn!(account = rest.first().map(|question| &question.name), why, "no answer about an account");
        let skipped = if hangs < MOST_HANGS { 1 } else { rest.len() };
        hangs += 1;
        accounts.extend(rest.iter().take(skipped).map(|question| unknown(question, &why)));
        rest = &questions[accounts.len().min(questions.len())..];
    }
    accounts
}

/// Takes answers as they come, until all are there or one does not come.
async fn round(program: &Path, pam: Option<&PathBuf>, questions: &[Question], accounts: &mut Vec<Account>) -> Result<(), String> {
    let asked = Questions { pam: pam.cloned(), accounts: questions.to_vec() };
    let (mut child, mut lines) = start(program, &asked).await.map_err(|e| e.to_string())?;
    for question in questions {
        match timeout(DEADLINE, lines.next_line()).await {
            Err(_) => {
                let _ = child.kill().await;
                return Err(format!("the host did not answer within {} s", DEADLINE.as_secs()));
            }
            Ok(Err(error)) => return Err(error.to_string()),
            Ok(Ok(None)) => break,
            Ok(Ok(Some(line))) => match serde_json::from_str::<Answer>(&line) {
                Ok(answer) if answer.name == question.name => accounts.push(account(answer)),
                _ => return Err("the answer is not understood".to_owned()),
            },
        }
    }
    let _ = child.kill().await;
    Ok(())
}

/// With the daemon's own environment: it is what the daemon looks accounts up with, too.
async fn start(program: &Path, questions: &Questions) -> io::Result<(Child, Lines<BufReader<ChildStdout>>)> {
    let mut command = Command::new(program);
    command.arg("accounts").stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/").kill_on_drop(true);
    let mut child = command.spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else { return Err(io::Error::other("no pipe")) };
    stdin.write_all(&serde_json::to_vec(questions)?).await?;
    drop(stdin);
    Ok((child, BufReader::new(stdout).lines()))
}

fn account(answer: Answer) -> Account {
    let state = match answer.state {
        State::Present => AccountState::Present,
        State::Vanished => AccountState::Vanished,
        State::Locked => AccountState::Locked,
        State::Expired => AccountState::Expired,
        State::Renamed => AccountState::Renamed,
        State::Unknown => AccountState::Unknown,
    };
    Account { name: answer.name, state, detail: answer.detail, local: answer.local }
}

fn unknown(question: &Question, why: &str) -> Account {
    let detail = format!("nothing is known of the account {}: {why}", question.name);
    Account { name: question.name.clone(), state: AccountState::Unknown, detail, local: false }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    /// A program in place of the shim; it answers each name but hangs at `stuck` and dies at `dies`.
    fn program(dir: &Path) -> PathBuf {
        let script = r#"#!/usr/bin/python3
import json, sys, time, os
for q in json.load(sys.stdin)["accounts"]:
    if q["name"].startswith("stuck"): time.sleep(600)
    if q["name"] == "dies": os._exit(1)
    print(json.dumps({"name": q["name"], "state": "present", "detail": "", "local": True}), flush=True)
"#;
        let path = dir.join("ask");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn questions(names: &[&str]) -> Vec<Question> {
        names.iter().map(|name| Question { name: (*name).to_owned(), uid: None }).collect()
    }

    #[tokio::test]
    async fn l05_what_hangs_or_dies_costs_its_own_answer_and_a_dead_directory_a_bounded_time() {
        let dir = tempfile::tempdir().unwrap();
        let program = program(dir.path());
        let states = |accounts: Vec<Account>| -> Vec<AccountState> { accounts.into_iter().map(|account| account.state).collect() };
        use AccountState::{Present, Unknown};
        let asked = all(&program, None, &questions(&["a", "dies", "b"])).await;
        assert_eq!(states(asked), [Present, Unknown, Present]);
        let begun = std::time::Instant::now();
        let asked = all(&program, None, &questions(&["stuck1", "a", "stuck2", "stuck3", "b", "c"])).await;
        assert_eq!(states(asked), [Unknown, Present, Unknown, Unknown, Unknown, Unknown]);
        assert!(begun.elapsed() < DEADLINE * 4, "{:?}", begun.elapsed());
    }
}
