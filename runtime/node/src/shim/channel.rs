//! What PID 1 tells: lines on a stream of its own, and nobody's word but the tenant's. A berth that lies fools itself.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::{
    task::consume_budget,
    time::{sleep, timeout},
};

use super::{
    copy::Stream,
    inner::Inner,
    scratch,
    state::{Engine, State},
};
use crate::descriptor::watch_socket;

/// Longest line in bytes; the rest of a longer one is dropped.
const MOST_LINE: usize = 512;
/// How long an inner Docker may take to answer `_ping`.
const PING: Duration = Duration::from_secs(5);

/// Follows the channel until its end, then, if the image's own init has taken over, asks instead of listening.
pub(crate) async fn follow(channel: OwnedFd, state: Arc<State>, inner: Arc<Inner>) {
    if let Ok(channel) = watch_socket(channel)
        && let Err(error) = listen(&channel, &state).await
    {
        tracing::warn!(%error, "the channel from PID 1 broke");
    }
    if matches!(state.engine(), Engine::Failed(_)) {
        return;
    }
    state.set_handed_over();
    watch(&state, &inner).await;
}

async fn listen(channel: &Stream, state: &State) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        // A flood must not keep the other tasks from their turn.
        consume_budget().await;
        let mut ready = channel.readable().await?;
        let received = ready.try_io(|channel| {
            scratch::with(|buffer| {
                let length = rustix::io::read(channel.get_ref(), &mut buffer[..4096])?;
                for &byte in &buffer[..length] {
                    match byte {
                        b'\n' => note(state, &printable(&std::mem::take(&mut line))),
                        _ if line.len() < MOST_LINE => line.push(byte),
                        _ => {}
                    }
                }
                Ok(length)
            })
        });
        match received {
            Ok(Ok(0)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(_)) | Err(_) => {}
        }
    }
}

/// One line of berth-init.
fn note(state: &State, line: &str) {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        // Who waits for it need not wait until it has answered: it takes connections before it can.
        "listening" => state.stir_engine(),
        "ready" => state.set_engine(Engine::Ready),
        // dockerd lives through an end of containerd, and nothing reports its return.
        "down" if rest.split(' ').next() == Some("dockerd") => state.set_engine(Engine::Down(format!("{rest}; it is being started again"))),
        "failed" => state.set_engine(Engine::Failed(rest.to_owned())),
        "handover" => state.set_handed_over(),
        _ => {}
    }
}

fn printable(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Asks until the inner Docker answers; afterwards only when a client found nothing there.
async fn watch(state: &State, inner: &Inner) {
    let mut engine = state.watch_engine();
    loop {
        let mut pause = Duration::from_millis(250);
        while !answers(inner).await {
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        state.set_engine(Engine::Ready);
        if engine.wait_for(|engine| *engine != Engine::Ready).await.is_err() {
            return;
        }
    }
}

/// True when something at the inner socket answers `_ping` as dockerd does.
async fn answers(inner: &Inner) -> bool {
    let Ok(docker) = inner.connect().await else { return false };
    let asked = send(docker.get_ref(), b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n", SendFlags::NOSIGNAL);
    asked.is_ok() && timeout(PING, read_ok(&docker)).await.unwrap_or(false)
}

async fn read_ok(docker: &Stream) -> bool {
    loop {
        let Ok(mut ready) = docker.readable().await else { return false };
        let mut start = [0; 12];
        if let Ok(received) = ready.try_io(|docker| Ok(recv(docker.get_ref(), &mut start, RecvFlags::empty())?)) {
            return received.is_ok() && &start[9..] == b"200";
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::{Read, Write},
        os::unix::net::{UnixListener, UnixStream},
        thread,
    };

    use super::*;

    async fn until(state: &State, wanted: impl FnMut(&Engine) -> bool) {
        timeout(Duration::from_secs(10), state.watch_engine().wait_for(wanted)).await.expect("the engine's state in time").unwrap();
    }

    #[tokio::test]
    async fn lines_of_pid_1_become_the_state_and_long_or_wild_ones_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let inner = Arc::new(Inner { root: File::open(dir.path()).unwrap().into(), ids: 0..=u32::MAX });
        let state = Arc::new(State::new());
        let (shim, mut init) = UnixStream::pair().unwrap();
        shim.set_nonblocking(true).unwrap();
        let following = tokio::spawn(follow(shim.into(), Arc::clone(&state), inner));

        init.write_all(b"ready\n").unwrap();
        until(&state, |e| *e == Engine::Ready).await;
        init.write_all(b"down containerd exit 1\ndown dockerd exit\x1b[31m 1\n").unwrap();
        until(&state, |e| *e == Engine::Down("dockerd exit [31m 1; it is being started again".into())).await;
        init.write_all(&[b'x'; 100_000]).unwrap();
        init.write_all(b"\nready\n").unwrap();
        until(&state, |e| *e == Engine::Ready).await;
        init.write_all(b"failed no dockerd in this image\n").unwrap();
        drop(init);
        until(&state, |e| *e == Engine::Failed("no dockerd in this image".into())).await;
        following.await.unwrap();
    }

    #[tokio::test]
    async fn d04_after_a_handover_readiness_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        let inner = Arc::new(Inner { root: File::open(dir.path()).unwrap().into(), ids: 0..=u32::MAX });
        let state = Arc::new(State::new());
        let (shim, mut init) = UnixStream::pair().unwrap();
        shim.set_nonblocking(true).unwrap();
        let following = tokio::spawn(follow(shim.into(), Arc::clone(&state), inner));
        init.write_all(b"handover\n").unwrap();
        drop(init);
        let listener = UnixListener::bind(dir.path().join("run/docker.sock")).unwrap();
        thread::spawn(move || {
            let (mut docker, _) = listener.accept().unwrap();
            let _ = docker.read(&mut [0; 512]);
            docker.write_all(b"HTTP/1.1 200 OK\r\n\r\nOK").unwrap();
        });
        until(&state, |e| *e == Engine::Ready).await;
        assert!(state.handed_over());
        following.abort();
    }
}
