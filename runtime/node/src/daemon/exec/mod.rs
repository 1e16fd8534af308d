//! A command inside a running berth, for a client that is upgraded to frames ([`berth_protocol::frame`]).
//!
//! `berth-shim enter` joins the berth and executes the command; the node keeps the other ends of its pipes, or the master of its
//! terminal, and carries bytes both ways, each side only as fast as the other reads. When the client goes, the command is hung up on,
//! then killed: it dies with the process that serves it.

mod child;
mod session;

use std::sync::Arc;

use axum::http::StatusCode;
use berth_protocol::{ExecRequest, State};
use berth_runtime::container::Enter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use child::Child;
pub(crate) use session::{abandon, serve};

use super::{
    apparmor,
    berth::{Berth, Command, Unmet},
    node::Node,
    refusal::Refusal,
};

/// Commands that may run at once through this node.
pub(crate) const AT_ONCE: usize = 512;
/// Commands that may run at once in one berth: its user cannot use up what others need.
pub(crate) const AT_ONCE_INSIDE: usize = 64;
/// A terminal whose client did not say how large it is.
const SIZE: (u16, u16) = (80, 24);
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts the command; it runs when this returns, or ends with status 125 and the reason on its standard error. It is a use of the berth
/// until the second value is dropped.
pub(crate) async fn start(node: &Node, berth: &Berth, request: ExecRequest) -> Result<(Child, Command), Refusal> {
    validate(&request)?;
    let status = berth.status.borrow().clone();
    let (State::Running | State::Frozen | State::Suspended, Some(pid)) = (status.state, status.pid) else {
        let detail = format!("the berth of {} does not run", status.user);
        return Err(Refusal::conflict("berth_not_running", detail).hint(format!("berth start {}", status.user)));
    };
    let command = berth.enter().await.map_err(|unmet| match unmet {
        Unmet::Refused(refusal) => refusal,
        Unmet::Gone => Refusal::no_berth(&status.user),
    })?;
    let enter = Enter {
        pid,
        cgroup: berth.group.clone(),
        env: environment(&request),
        cwd: request.cwd.clone().unwrap_or_else(|| "/".into()),
        uid: request.uid,
        gid: request.gid,
        tty: request.tty.then(|| request.size.unwrap_or(SIZE)),
        apparmor: apparmor::profile(&node.host.config),
        argv: request.argv,
    };
    let program = node.host.layout.shim_program();
    Child::spawn(&program, &enter)
        .await
        .map(|child| (child, command))
        .map_err(|e| Refusal::failed("exec_failed", format!("cannot execute {} in the berth of {}", program.display(), status.user), &e))
}

fn validate(request: &ExecRequest) -> Result<(), Refusal> {
    let words = request.argv.iter().chain(&request.env).chain(&request.cwd);
    let problem = match () {
        () if request.argv.first().is_none_or(|name| name.is_empty()) => "argv names no command",
        () if words.clone().any(|w| w.contains('\0')) => "argv, env and cwd may not hold NUL",
        () if request.env.iter().any(|e| e.split_once('=').is_none_or(|(name, _)| name.is_empty())) => "env holds NAME=value",
        () if request.cwd.as_ref().is_some_and(|c| !c.starts_with('/')) => "cwd must be absolute",
        () if request.uid >= berth_runtime::idmap::COUNT || request.gid >= berth_runtime::idmap::COUNT => {
            "uid and gid inside are below 65536"
        }
        () => return Ok(()),
    };
    Err(Refusal::bad_request(problem))
}

/// The small default, with what the client adds or puts in its place. `DOCKER_HOST` stays unset: inside, the usual socket is the right one.
fn environment(request: &ExecRequest) -> Vec<String> {
    let home = if request.uid == 0 { "HOME=/root" } else { "HOME=/" };
    let mut env = vec![PATH.to_owned(), home.into(), "LANG=C.UTF-8".into()];
    if request.tty {
        env.push("TERM=xterm".into());
    }
    let name = |e: &str| e.split('=').next().unwrap_or_default().to_owned();
    env.retain(|default| !request.env.iter().any(|e| name(e) == name(default)));
    env.extend(request.env.iter().cloned());
    env
}

/// A place among the commands of the berth and of the node, until dropped.
pub(crate) struct Slot {
    _inside: OwnedSemaphorePermit,
    _here: OwnedSemaphorePermit,
}

/// Refuses more than [`AT_ONCE_INSIDE`] commands in one berth, and more than [`AT_ONCE`] in all.
pub(crate) fn slot(node: &Node, berth: &Berth) -> Result<Slot, Refusal> {
    let take = |of: &Arc<Semaphore>, detail: String| {
        Arc::clone(of)
            .try_acquire_owned()
            .map_err(|_| Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many_commands", detail).hint("end some, or ask again later"))
    };
    let user = &berth.status.borrow().user;
    let inside = take(&berth.slots, format!("{AT_ONCE_INSIDE} commands run in the berth of {user} already"))?;
    let here = take(&node.commands, format!("{AT_ONCE} commands run through this node already"))?;
    Ok(Slot { _inside: inside, _here: here })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(argv: &[&str], env: &[&str]) -> ExecRequest {
        let own = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect();
        ExecRequest { argv: own(argv), env: own(env), cwd: None, uid: 0, gid: 0, tty: true, size: None }
    }

    #[test]
    fn a_client_replaces_defaults_by_name() {
        let env = environment(&request(&["sh"], &["TERM=vt100", "X=1"]));
        assert_eq!(env, [PATH, "HOME=/root", "LANG=C.UTF-8", "TERM=vt100", "X=1"]);
    }

    #[test]
    fn what_no_command_can_be_is_refused() {
        assert!(validate(&request(&["sh"], &["A=b"])).is_ok());
        assert!(validate(&request(&[], &[])).is_err());
        assert!(validate(&request(&["a\0b"], &[])).is_err());
        assert!(validate(&request(&["sh"], &["=x"])).is_err());
        assert!(validate(&ExecRequest { cwd: Some("etc".into()), ..request(&["sh"], &[]) }).is_err());
        assert!(validate(&ExecRequest { uid: 65536, ..request(&["sh"], &[]) }).is_err());
    }
}
