//! The frames of one command.

use std::{io, sync::Arc, time::Duration};

use berth_protocol::{Problem, frame};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::child::{Child, Stream};

/// Frames on their way to the client; a client that does not read holds the command up, not the node's memory.
const QUEUE: usize = 4;
const PIECE: usize = 32 * 1024;
/// An empty frame this often shows whether the client is still there.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// What is taken of each stream after the command has ended: more than a pipe holds. A heir of it may write for ever.
const LAST: usize = 2 << 20;
/// From the hang-up to the kill.
const GRACE: Duration = Duration::from_secs(2);

type Frame = (u8, Vec<u8>);

/// Carries bytes between the client and the command until the command has ended or the client is gone.
pub(crate) async fn serve<C: AsyncRead + AsyncWrite + Send + 'static>(client: C, mut child: Child) {
    let (from_client, mut to_client) = tokio::io::split(client);
    let (frames, mut queue) = mpsc::channel::<Frame>(QUEUE);
    let over = CancellationToken::new();
    let pumps: Vec<_> = [(frame::STDOUT, child.output.take()), (frame::STDERR, child.errors.take())]
        .into_iter()
        .filter_map(|(kind, stream)| Some(tokio::spawn(pump(kind, stream?, frames.clone(), over.clone()))))
        .collect();
    drop(frames);
    let input = child.input.take();
    let child = Arc::new(child);
    let mut reader = tokio::spawn(read_frames(from_client, input, Arc::clone(&child)));
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let mut status = None;
    let mut streaming = true;
    let mut complaint = None;
    let connected = loop {
        if status.is_some() && !streaming {
            break true;
        }
        tokio::select! {
            frame = queue.recv(), if streaming => match frame {
                Some((kind, payload)) => if write(&mut to_client, kind, &payload).await.is_err() { break false },
                None => streaming = false,
            },
            ended = child.wait(), if status.is_none() => {
                status = Some(ended);
                over.cancel();
            }
            read = &mut reader => {
                match read {
                    Ok(Err(wrong)) => { complaint = Some(wrong); break true }
                    _ => break false,
                }
            }
            _ = heartbeat.tick() => if write(&mut to_client, frame::STDOUT, &[]).await.is_err() { break false },
        }
    };
    if let Some(wrong) = complaint {
        let problem = Problem { code: "invalid_frame".into(), detail: wrong, hint: None };
        let _ = write(&mut to_client, frame::ERROR, &serde_json::to_vec(&problem).unwrap_or_default()).await;
    } else if let (true, Some(status)) = (connected, status) {
        let _ = write(&mut to_client, frame::EXIT, &status.to_be_bytes()).await;
    }
    let _ = timeout(GRACE, to_client.shutdown()).await;
    // Input that is still on its way must find a reader: whoever relays it would take a broken pipe for the end of everything, and lose
    // the status that it has not passed on yet.
    if connected && !reader.is_finished() {
        let _ = timeout(GRACE, &mut reader).await;
    }
    reader.abort();
    if status.is_none() {
        hang_up(&child).await;
    }
    for pump in pumps {
        pump.abort();
    }
}

/// Ends a command that nobody came for.
pub(crate) async fn abandon(child: Child) {
    hang_up(&child).await;
}

/// The client is gone: its terminal hangs up, then the command is killed.
async fn hang_up(child: &Child) {
    child.signal(nix::libc::SIGHUP);
    if timeout(GRACE, child.wait()).await.is_err() {
        child.kill();
        child.wait().await;
    }
}

async fn write(client: &mut (impl AsyncWrite + Unpin), kind: u8, payload: &[u8]) -> io::Result<()> {
    client.write_all(&frame::header(kind, payload.len())).await?;
    client.write_all(payload).await?;
    client.flush().await
}

/// One stream of the command to frames. When the command has ended, what it wrote is still taken; what its children write later is not.
async fn pump(kind: u8, stream: Stream, frames: mpsc::Sender<Frame>, over: CancellationToken) {
    let mut buffer = vec![0; PIECE];
    let mut left = LAST;
    loop {
        let ended = tokio::select! {
            biased;
            () = over.cancelled() => true,
            ready = stream.readable() => match ready {
                Ok(mut ready) => { ready.clear_ready(); false }
                Err(_) => return,
            },
        };
        loop {
            match rustix::io::read(stream.get_ref(), &mut buffer) {
                // A terminal without a process is EIO.
                Ok(0) | Err(rustix::io::Errno::IO) => return,
                Ok(length) => {
                    if frames.send((kind, buffer[..length].to_vec())).await.is_err() {
                        return;
                    }
                    left = left.saturating_sub(if ended { length } else { 0 });
                    if left == 0 {
                        return;
                    }
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
        if ended {
            return;
        }
    }
}

/// Returns when the client is gone; an error is what it sent wrong.
async fn read_frames<C: AsyncRead>(client: tokio::io::ReadHalf<C>, mut input: Option<Stream>, child: Arc<Child>) -> Result<(), String> {
    let mut client = client;
    let mut payload = vec![0; frame::MAX_PAYLOAD];
    loop {
        let mut header = [0; frame::HEADER];
        if client.read_exact(&mut header).await.is_err() {
            return Ok(());
        }
        let (kind, length) = frame::parse(header).map_err(|e| e.to_string())?;
        let payload = &mut payload[..length];
        if client.read_exact(payload).await.is_err() {
            return Ok(());
        }
        match (kind, &*payload) {
            (frame::STDIN, []) if child.terminal.is_none() => input = None,
            (frame::STDIN, bytes) => {
                if let Some(stream) = &input
                    && write_all(stream, bytes).await.is_err()
                {
                    input = None;
                }
            }
            (frame::RESIZE, &[a, b, c, d]) => {
                let size = Winsize { ws_col: u16::from_be_bytes([a, b]), ws_row: u16::from_be_bytes([c, d]), ws_xpixel: 0, ws_ypixel: 0 };
                if let Some(terminal) = &child.terminal {
                    let _ = tcsetwinsize(terminal, size);
                }
            }
            (frame::SIGNAL, &[number]) => child.signal(i32::from(number)),
            (kind, payload) => return Err(format!("a frame of kind {kind} with {} bytes is not for the node", payload.len())),
        }
    }
}

async fn write_all(stream: &Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = stream.writable().await?;
        if let Ok(written) = ready.try_io(|stream| Ok(rustix::io::write(stream, bytes)?)) {
            bytes = &bytes[written?..];
        }
    }
    Ok(())
}
