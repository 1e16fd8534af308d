//! Answers in dockerd's own form, for requests that never reach it: `docker` shows the message to its user.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use serde_json::json;
use tokio::time::timeout;

use super::{copy::Stream, scratch};

/// Most bytes of a request that are read before it is answered all the same.
const MOST_HEAD: usize = 64 * 1024;
/// And that are kept, for whoever writes it down.
const MOST_KEPT: usize = 8 * 1024;
/// How long a client may take for its request head.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long, and how much of, a body is read away after the answer, so that a client which writes first and reads later sees it.
const BODY_TIME: Duration = Duration::from_secs(2);
const MOST_BODY: usize = 16 * 1024 * 1024;

/// An HTTP status and the message that goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) message: String,
}

impl Answer {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// Reads the request's head (bounded, with a deadline), answers, and ends the connection. Returns what was read of the head.
    pub(crate) async fn send(&self, client: &Stream) -> Vec<u8> {
        let mut head = Vec::new();
        let _ = timeout(HEAD_TIME, read_head(client, &mut head)).await;
        self.finish(client, head.starts_with(b"HEAD ")).await;
        head
    }

    /// Answers a request that was read already, and ends the connection.
    pub(crate) async fn finish(&self, client: &Stream, head_only: bool) {
        self.write(client, head_only);
        let _ = timeout(BODY_TIME, discard(client)).await;
    }

    /// Answers at once, whatever the request is going to be: for when there are too many of them.
    pub(crate) fn send_now(&self, client: &OwnedFd) {
        self.write_to(client, false);
    }

    fn write(&self, client: &Stream, head_only: bool) {
        self.write_to(client.get_ref(), head_only);
    }

    fn write_to(&self, client: &OwnedFd, head_only: bool) {
        let text = self.text(head_only);
        // Less than a fresh socket's buffer: it is taken whole, or the client is not there any more.
        let _ = send(client, text.as_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        let _ = shutdown(client, Shutdown::Write);
    }

    /// The response as it goes over the wire; the answer to a HEAD request has no body.
    fn text(&self, head_only: bool) -> String {
        let body = format!("{}\n", json!({ "message": self.message }));
        let reason = match self.status {
            400 => "Bad Request",
            403 => "Forbidden",
            429 => "Too Many Requests",
            502 => "Bad Gateway",
            _ => "Service Unavailable",
        };
        let head = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: application/json\r\nServer: berth\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.status,
            body.len()
        );
        if head_only { head } else { head + &body }
    }
}

/// Reads until the empty line, and keeps the beginning of it.
async fn read_head(client: &Stream, head: &mut Vec<u8>) -> io::Result<()> {
    let mut seen = 0;
    let mut tail = [0; 4];
    loop {
        let mut ready = client.readable().await?;
        let step = ready.try_io(|client| {
            scratch::with(|buffer| {
                let (_, length) = recv(client.get_ref(), &mut *buffer, RecvFlags::empty())?;
                let end = buffer[..length].iter().position(|&byte| {
                    tail.rotate_left(1);
                    tail[3] = byte;
                    &tail == b"\r\n\r\n"
                });
                seen += length;
                let kept = end.map_or(length, |end| end + 1).min(MOST_KEPT - head.len());
                head.extend_from_slice(&buffer[..kept]);
                Ok(end.is_some() || length == 0 || seen >= MOST_HEAD)
            })
        });
        match step {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) | Err(_) => {}
            Ok(Err(error)) => return Err(error),
        }
    }
}

async fn discard(client: &Stream) -> io::Result<()> {
    let mut seen = 0;
    while seen < MOST_BODY {
        let mut ready = client.readable().await?;
        let step = ready.try_io(|client| {
            scratch::with(|buffer| {
                let (_, length) = recv(client.get_ref(), &mut *buffer, RecvFlags::empty())?;
                Ok(length)
            })
        });
        match step {
            Ok(Ok(0)) => break,
            Ok(Ok(length)) => seen += length,
            Ok(Err(error)) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_dockerd_would_say() {
        let answer = Answer::new(403, "this socket belongs to \"alice\"");
        let text = answer.text(false);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())));
        assert_eq!(body, "{\"message\":\"this socket belongs to \\\"alice\\\"\"}\n");
        assert_eq!(answer.text(true), format!("{head}\r\n\r\n"));
    }
}
