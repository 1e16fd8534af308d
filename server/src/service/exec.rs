//! What streams through: commands in a berth, and its console.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use hyper::upgrade::Upgraded;

use super::{Error, Service, berths::visible, suspension::check_not_suspended};
use crate::{
    authz::Operation as Op,
    domain::{AuditEntry, Caller, ExecCommand, Problem, Refusal, State, Subject, Wanted},
    node_client, store,
};

/// Bounds of one command; the kernel's own are far higher.
const MAX_ARGUMENTS: usize = 1_000;
const MAX_TAIL: u32 = 100_000;

const SHELL: &str = "if command -v bash >/dev/null 2>&1; then exec bash -l; else exec sh -l; fi";

impl Service {
    /// Starts a command; the stream carries the protocol's frames.
    pub async fn exec(&self, caller: &Caller, user: &str, command: &ExecCommand) -> Result<Upgraded, Error> {
        self.start_command(caller, Op::ExecBerth, user, command).await
    }

    /// Refuses as [`Self::terminal`] would, and starts nothing.
    pub async fn may_open_terminal(&self, caller: &Caller, user: &str) -> Result<(), Error> {
        let mut reader = self.store.reader().await?;
        visible(&mut reader, caller, Op::OpenTerminal, user).await.map(drop)
    }

    /// Starts a shell on a terminal of this size (columns, rows); likewise.
    pub async fn terminal(&self, caller: &Caller, user: &str, size: (u16, u16)) -> Result<Upgraded, Error> {
        let command = ExecCommand {
            argv: ["/bin/sh", "-c", SHELL].map(str::to_owned).to_vec(),
            env: ["HOME=/root", "TERM=xterm-256color"].map(str::to_owned).to_vec(),
            cwd: Some("/root".to_owned()),
            uid: 0,
            gid: 0,
            tty: true,
            size: Some(size),
        };
        self.start_command(caller, Op::OpenTerminal, user, &command).await
    }

    async fn start_command(&self, caller: &Caller, operation: Op, user: &str, command: &ExecCommand) -> Result<Upgraded, Error> {
        check(command)?;
        let mut tx = self.store.begin().await?;
        let berth = visible(&mut tx, caller, operation, user).await?;
        check_not_suspended(caller, &berth)?;
        let up = berth.status.as_ref().is_some_and(|status| matches!(status.state, State::Running | State::Frozen));
        if !up || berth.wanted == Wanted::Deleted {
            let state = berth.status.as_ref().map_or("stopped", |status| status.state.as_str());
            return Err(Problem::new(Refusal::Conflict, "berth_not_running", format!("the berth of {user} is {state}"))
                .hint(format!("berth start {user}"))
                .into());
        }
        // Arguments may hold secrets: the program's name is enough to know what was done.
        let details = serde_json::json!({ "program": command.argv.first(), "uid": command.uid, "tty": command.tty });
        let entry = AuditEntry { action: operation.id(), subject: Subject::Berth(berth.user.as_str()), details, operation: None };
        store::audit::insert(&mut tx, &self.clock, Some(caller), entry).await?;
        self.store.commit(tx).await?;
        Ok(self.node.exec(&berth.user, command).await?)
    }

    /// The berth's console from `tail` lines back; with `follow` it goes on.
    pub async fn logs(
        &self,
        caller: &Caller,
        user: &str,
        tail: Option<u32>,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<Bytes, node_client::Error>>, Error> {
        let mut reader = self.store.reader().await?;
        let berth = visible(&mut reader, caller, Op::ReadLogs, user).await?;
        drop(reader);
        Ok(self.node.logs(&berth.user, tail.map(|lines| lines.min(MAX_TAIL)), follow).await?)
    }
}

fn check(command: &ExecCommand) -> Result<(), Error> {
    let refuse = |detail: &str| Err(Problem::new(Refusal::Invalid, "invalid_command", detail).into());
    if command.argv.first().is_none_or(String::is_empty) {
        return refuse("argv must name a program");
    }
    if command.argv.len() + command.env.len() > MAX_ARGUMENTS {
        return refuse(&format!("more than {MAX_ARGUMENTS} arguments and variables"));
    }
    if command.argv.iter().chain(&command.env).chain(&command.cwd).any(|text| text.contains('\0')) {
        return refuse("a NUL character cannot be passed to a program");
    }
    if command.env.iter().any(|variable| variable.split_once('=').is_none_or(|(name, _)| name.is_empty())) {
        return refuse("every variable must be NAME=value");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_no_kernel_would_take_are_refused() {
        let command = |argv: &[&str], env: &[&str]| ExecCommand {
            argv: argv.iter().map(ToString::to_string).collect(),
            env: env.iter().map(ToString::to_string).collect(),
            cwd: None,
            uid: 0,
            gid: 0,
            tty: false,
            size: None,
        };
        assert!(check(&command(&["ls", "-l"], &["A=b=c"])).is_ok());
        for bad in [command(&[], &[]), command(&[""], &[]), command(&["a\0"], &[]), command(&["a"], &["x"]), command(&["a"], &["=x"])] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
        assert!(check(&command(&["x"; 2_000], &[])).is_err());
    }
}
