//! Commands inside a berth, and its console.

use std::io::{self, IsTerminal, Write};

use berth_api::{
    ExecBerth,
    client::{Exec, ExecFrame, ExecWriter},
};
use futures_util::StreamExt;
use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
};

use super::Context;
use crate::{
    Outcome,
    failure::{Failure, chain},
    progress::{self, Show},
    terminal::{self, Raw},
};

pub(super) struct Call {
    pub argv: Vec<String>,
    pub env: Vec<String>,
    pub cwd: Option<String>,
    pub uid: u32,
    pub gid: u32,
    pub interactive: bool,
    pub tty: bool,
}

const SHELL: &str = "if command -v bash >/dev/null 2>&1; then exec bash -l; else exec sh -l; fi";

pub(super) async fn exec(context: &Context, user: &str, mut call: Call) -> Outcome {
    if call.tty && !io::stdin().is_terminal() {
        return Err(Failure::usage("standard input is no terminal", "leave out -t"));
    }
    if call.tty && !call.env.iter().any(|variable| variable.starts_with("TERM=")) {
        call.env.push(format!("TERM={}", std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned())));
    }
    let size = if call.tty { terminal::size() } else { None };
    let request = ExecBerth {
        argv: call.argv,
        env: call.env,
        cwd: call.cwd,
        uid: call.uid,
        gid: call.gid,
        tty: call.tty,
        columns: size.map(|(columns, _)| columns),
        rows: size.map(|(_, rows)| rows),
    };
    let exec = open(context, user, &request).await?;
    let raw = match call.tty {
        true => Some(Raw::enter().map_err(|error| Failure::io("cannot use the terminal", &error))?),
        false => None,
    };
    let result = talk(exec, call.interactive || call.tty, call.tty).await;
    drop(raw);
    result
}

pub(super) async fn shell(context: &Context, user: &str) -> Outcome {
    let tty = io::stdin().is_terminal();
    let argv = ["/bin/sh", "-c", SHELL].map(str::to_owned).to_vec();
    let home = vec!["HOME=/root".to_owned()];
    exec(context, user, Call { argv, env: home, cwd: Some("/root".to_owned()), uid: 0, gid: 0, interactive: true, tty }).await
}

/// Starts the command; a berth that is stopped is started first, as it would be by a connection.
async fn open(context: &Context, user: &str, request: &ExecBerth) -> Result<Exec, Failure> {
    let failure = match context.client.exec(user, request).await.map_err(Failure::from) {
        Err(failure) if failure.is("berth_not_running") => failure,
        other => return other,
    };
    let accepted = context.client.start(user).await.map_err(|_| failure)?;
    let show = if context.json { Show::Nothing } else { Show::Steps };
    progress::follow(&context.client, accepted, show).await?;
    Ok(context.client.exec(user, request).await?)
}

/// Carries input, output, size and signals until the command has ended.
async fn talk(exec: Exec, interactive: bool, tty: bool) -> Outcome {
    let (mut reader, writer) = exec.split();
    let input = tokio::spawn(feed(writer, interactive, tty));
    let code = loop {
        match reader.next().await {
            Ok(ExecFrame::Stdout(bytes)) => put(io::stdout().lock(), &bytes)?,
            Ok(ExecFrame::Stderr(bytes)) => put(io::stderr().lock(), &bytes)?,
            Ok(ExecFrame::Exit(code)) => break code,
            Err(error) => {
                input.abort();
                return Err(Failure::own(125, "exec_failed", chain(&error), None));
            }
        }
    };
    input.abort();
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

fn put(mut to: impl Write, bytes: &[u8]) -> Result<(), Failure> {
    to.write_all(bytes).and_then(|()| to.flush()).map_err(|error| Failure::io("cannot write the command's output", &error))
}

/// Input, window size and signals towards the command; ends with the connection.
async fn feed(mut writer: ExecWriter, interactive: bool, tty: bool) -> io::Result<()> {
    let mut window = signal(SignalKind::window_change())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; 64 * 1024];
    let mut open = interactive;
    if !open {
        writer.stdin(&[]).await?;
    }
    loop {
        tokio::select! {
            count = stdin.read(&mut buffer), if open => {
                // An empty frame is the end of input.
                let count = count?;
                writer.stdin(&buffer[..count]).await?;
                open = count > 0;
            }
            Some(()) = window.recv(), if tty => {
                if let Some((columns, rows)) = terminal::size() {
                    writer.resize(columns, rows).await?;
                }
            }
            Some(()) = interrupt.recv() => writer.signal(2).await?,
            Some(()) = terminate.recv() => writer.signal(15).await?,
            Some(()) = hangup.recv() => writer.signal(1).await?,
        }
    }
}

pub(super) async fn logs(context: &Context, user: &str, tail: Option<u32>, follow: bool) -> Outcome {
    let mut stream = std::pin::pin!(context.client.logs(user, tail, follow).await?);
    let defuse = io::stdout().is_terminal();
    while let Some(part) = stream.next().await {
        let part = part?;
        let bytes = if defuse { harmless(&part) } else { part.to_vec() };
        match io::stdout().write_all(&bytes).and_then(|()| io::stdout().flush()) {
            // Like any filter, we end quietly when nobody reads on.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(0),
            Err(error) => return Err(Failure::io("cannot write the log", &error)),
            Ok(()) => {}
        }
    }
    Ok(0)
}

/// A tenant writes this log: nothing in it may act on the terminal of who reads it.
fn harmless(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| if matches!(byte, 0..=8 | 11..=31 | 127) && *byte != b'\r' { b'?' } else { *byte }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_cannot_act_on_the_readers_terminal() {
        assert_eq!(harmless(b"a\tb\r\nc\x1b]0;x\x07"), b"a\tb\r\nc?]0;x?");
    }
}
