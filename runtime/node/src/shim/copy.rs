//! Bytes both ways between two stream sockets, untouched.
//!
//! Each direction ends by itself: an end of input becomes a half-close on the other side (X03), a receiver that closed makes the
//! sender's next write fail, and a reset ends both. There is no idle timeout (X05). A direction reads only when what it read before is
//! written, so memory stays flat (X06); while it carries little it costs no buffer at all, and when it carries much it goes through a
//! pipe by splice(2), of which there are few ([`pipe::Pool`]).

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{SendFlags, Shutdown, send, shutdown},
    pipe::{SpliceFlags, splice},
};
use tokio::{io::unix::AsyncFd, task::yield_now, time::timeout};

use super::{
    pipe::{Lease, Pool},
    scratch,
};

/// A connected, non-blocking stream socket.
pub(crate) type Stream = AsyncFd<OwnedFd>;

/// Reads of at least this many bytes count towards splicing.
const LARGE: usize = 16 * 1024;
/// Large reads in a row after which a direction asks for a pipe.
const STREAK: u32 = 8;
/// How long a direction that has nothing to carry keeps its pipe.
const LINGER: Duration = Duration::from_millis(500);
/// Rounds without a wait after which others get their turn.
const TURN: u32 = 16;

/// Carries both directions until both have ended; returns the bytes that went from `a` to `b` and from `b` to `a`.
///
/// An error means that one side is gone, not just done: the caller drops both sockets, which tells the other as a direct connection would.
pub(crate) async fn relay(a: &Stream, b: &Stream, pipes: &Pool) -> io::Result<(u64, u64)> {
    tokio::try_join!(one_way(a, b, pipes), one_way(b, a, pipes))
}

/// What one attempt to carry something came to.
enum Step {
    /// So many bytes were read and written.
    Carried(usize),
    /// So many bytes were read; these of them wait for the receiver.
    Pending(usize, Vec<u8>),
    /// The sender will send no more.
    End,
    /// The receiver takes no more.
    Closed,
}

async fn one_way(from: &Stream, to: &Stream, pipes: &Pool) -> io::Result<u64> {
    let mut total = 0;
    let mut streak = 0;
    let mut turn = 0;
    let end = loop {
        if streak >= STREAK {
            streak = 0;
            if let Some(mut pipe) = pipes.lend()
                && let Some(end) = spliced(from, to, &mut pipe, &mut total).await?
            {
                break end;
            }
        }
        turn += 1;
        if turn % TURN == 0 {
            yield_now().await;
        }
        let mut ready = from.readable().await?;
        let Ok(step) = ready.try_io(|from| carry(from.get_ref(), to.get_ref())) else { continue };
        let length = match step? {
            Step::Carried(length) => length,
            Step::Pending(length, rest) => match write_all(to, &rest).await? {
                Step::Closed => break Step::Closed,
                _ => length,
            },
            end => break end,
        };
        total += length as u64;
        streak = if length >= LARGE { streak + 1 } else { 0 };
    };
    if matches!(end, Step::End) && hung_up(from.get_ref()) {
        // Not a half-close: nobody is there to read what the other side may still say.
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    // Both fail only on a socket that is closed already.
    let _ = match end {
        Step::Closed => shutdown(from.get_ref(), Shutdown::Read),
        _ => shutdown(to.get_ref(), Shutdown::Write),
    };
    Ok(total)
}

/// One read and one write through the scratch buffer.
fn carry(from: &OwnedFd, to: &OwnedFd) -> io::Result<Step> {
    scratch::with(|buffer| {
        let length = again(|| rustix::io::read(from, &mut *buffer))?;
        if length == 0 {
            return Ok(Step::End);
        }
        match again(|| send(to, &buffer[..length], SendFlags::NOSIGNAL)) {
            Ok(written) if written == length => Ok(Step::Carried(length)),
            Ok(written) => Ok(Step::Pending(length, buffer[written..length].to_vec())),
            Err(Errno::AGAIN) => Ok(Step::Pending(length, buffer[..length].to_vec())),
            Err(error) if closed(error) => Ok(Step::Closed),
            Err(error) => Err(error.into()),
        }
    })
}

async fn write_all(to: &Stream, mut rest: &[u8]) -> io::Result<Step> {
    let length = rest.len();
    while !rest.is_empty() {
        let mut ready = to.writable().await?;
        match ready.try_io(|to| Ok(again(|| send(to.get_ref(), rest, SendFlags::NOSIGNAL))?)) {
            Ok(Ok(written)) => rest = &rest[written..],
            Ok(Err(error)) if is_closed(&error) => return Ok(Step::Closed),
            Ok(Err(error)) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(Step::Carried(length))
}

/// Carries by splice until an end (`Some`), or until nothing came for a while (`None`: the pipe goes back).
async fn spliced(from: &Stream, to: &Stream, pipe: &mut Lease<'_>, total: &mut u64) -> io::Result<Option<Step>> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    let mut turn = 0;
    loop {
        turn += 1;
        if turn % TURN == 0 {
            yield_now().await;
        }
        let Ok(ready) = timeout(LINGER, from.readable()).await else { return Ok(None) };
        // The pipe is empty here, so "would block" can only mean the socket.
        let filled = ready?.try_io(|from| Ok(again(|| splice(from.get_ref(), None, pipe.input(), None, pipe.capacity(), flags))?));
        match filled {
            Ok(Ok(0)) => return Ok(Some(Step::End)),
            Ok(Ok(length)) => pipe.held = length,
            Ok(Err(error)) => return Err(error),
            Err(_) => continue,
        }
        let length = pipe.held;
        while pipe.held > 0 {
            let mut ready = to.writable().await?;
            match ready.try_io(|to| Ok(again(|| splice(pipe.output(), None, to.get_ref(), None, pipe.held, flags))?)) {
                Ok(Ok(written)) => pipe.held -= written,
                Ok(Err(error)) if is_closed(&error) => return Ok(Some(Step::Closed)),
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
        }
        *total += length as u64;
    }
}

/// True when the other end has closed both ways, or is gone.
pub(crate) fn hung_up(socket: &OwnedFd) -> bool {
    let mut socket = [PollFd::new(socket, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut socket, Some(&now)).is_ok() && socket[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

fn is_closed(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| closed(Errno::from_raw_os_error(code)))
}

fn closed(error: Errno) -> bool {
    matches!(error, Errno::PIPE | Errno::CONNRESET)
}

fn again<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}
