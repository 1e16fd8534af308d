//! One request to the inner Docker, which is the tenant's and may answer anything, slowly, for ever: every length is bounded, and whoever
//! calls bounds the time.

use std::{io, os::fd::OwnedFd};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::task::consume_budget;

use crate::shim::{copy::Stream, scratch};

/// Longest head of an answer in bytes.
const MOST_HEAD: usize = 16 * 1024;
/// Most header fields.
const MOST_FIELDS: usize = 64;
/// Longest line that frames a chunk, extensions included, and longest trailer line.
const MOST_FRAME: usize = 256;
/// Bytes taken from the socket at a time.
const READ: usize = 16 * 1024;

/// Why an answer is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Bad {
    #[error("the inner Docker's connection broke")]
    Io(#[from] io::Error),
    #[error("the inner Docker answered with {0}, which is not HTTP")]
    NotHttp(&'static str),
    #[error("the inner Docker answered with status {0}")]
    Status(u16),
    #[error("the inner Docker's answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("the inner Docker's answer ended early")]
    Cut,
}

/// How the rest of the body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// So many bytes are to come.
    Length(u64),
    /// Inside a chunk, so many bytes before its end.
    Chunk(u64),
    /// Before the line with a chunk's size; true behind a chunk, whose own end of line comes first.
    Size(bool),
    UntilClosed,
    End,
}

/// An answer with status 200, its head read.
#[derive(Debug)]
pub(super) struct Answer {
    stream: Stream,
    /// Read and not yet handed out.
    buffer: Vec<u8>,
    framing: Framing,
}

/// Asks for `path` and reads the head of the answer.
pub(super) async fn get(stream: Stream, path: &str) -> Result<Answer, Bad> {
    ask(stream, "GET", path, "").await
}

/// The same with a POST that has no body.
pub(super) async fn post(stream: Stream, path: &str) -> Result<Answer, Bad> {
    ask(stream, "POST", path, "Content-Length: 0\r\n").await
}

async fn ask(stream: Stream, method: &str, path: &str, fields: &str) -> Result<Answer, Bad> {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: docker\r\nUser-Agent: berth\r\nConnection: close\r\n{fields}\r\n");
    write(&stream, request.as_bytes()).await?;
    let mut buffer = Vec::new();
    loop {
        if let Some((status, framing, length)) = head(&buffer)? {
            if length > MOST_HEAD {
                return Err(Bad::TooLong(MOST_HEAD));
            }
            buffer.drain(..length);
            match status {
                200 => return Ok(Answer { stream, buffer, framing }),
                // The final answer follows.
                100..=199 if status != 101 => continue,
                other => return Err(Bad::Status(other)),
            }
        }
        if buffer.len() > MOST_HEAD {
            return Err(Bad::TooLong(MOST_HEAD));
        }
        if read_more(&stream, &mut buffer).await? == 0 {
            return Err(Bad::Cut);
        }
    }
}

/// Status, framing of the body and length of a whole head; `None` while more is to come.
fn head(bytes: &[u8]) -> Result<Option<(u16, Framing, usize)>, Bad> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes).map_err(|_| Bad::NotHttp("a malformed head"))? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let mut framing = Framing::UntilClosed;
    for field in response.headers.iter() {
        let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            match value.eq_ignore_ascii_case("chunked") {
                true => framing = Framing::Size(false),
                false => return Err(Bad::NotHttp("an unknown transfer encoding")),
            }
        } else if field.name.eq_ignore_ascii_case("content-length") && framing == Framing::UntilClosed {
            framing = Framing::Length(value.parse().map_err(|_| Bad::NotHttp("a malformed length"))?);
        }
    }
    Ok(Some((response.code.unwrap_or_default(), framing, length)))
}

impl Answer {
    /// The whole body, if it has at most `most` bytes.
    pub(super) async fn body(mut self, most: usize) -> Result<Vec<u8>, Bad> {
        let mut body = Vec::new();
        while self.part(|bytes| body.extend_from_slice(bytes)).await? {
            if body.len() > most {
                return Err(Bad::TooLong(most));
            }
        }
        Ok(body)
    }

    /// Waits for more of an endless body; how many lines ended in it. `None`: it ended after all.
    pub(super) async fn lines(&mut self) -> Result<Option<usize>, Bad> {
        let mut lines = 0;
        let more = self.part(|bytes| lines = bytes.iter().filter(|b| **b == b'\n').count()).await?;
        Ok(more.then_some(lines))
    }

    /// Hands out the next bytes of the body, at least one; false at its end. Nothing is lost when the wait is given up.
    async fn part(&mut self, take: impl FnOnce(&[u8])) -> Result<bool, Bad> {
        loop {
            consume_budget().await;
            match self.framing {
                Framing::End | Framing::Length(0) => return Ok(false),
                Framing::Size(behind_chunk) => {
                    if let Some((size, length)) = chunk_size(&self.buffer, behind_chunk)? {
                        self.buffer.drain(..length);
                        // What trails the last chunk is of no use here: the connection is not used again.
                        self.framing = if size == 0 { Framing::End } else { Framing::Chunk(size) };
                        continue;
                    }
                }
                Framing::Length(left) | Framing::Chunk(left) if !self.buffer.is_empty() => {
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
                    take(&self.buffer[..length]);
                    self.buffer.drain(..length);
                    self.framing = match (self.framing, left - length as u64) {
                        (Framing::Chunk(_), 0) => Framing::Size(true),
                        (Framing::Chunk(_), left) => Framing::Chunk(left),
                        (_, left) => Framing::Length(left),
                    };
                    return Ok(true);
                }
                Framing::UntilClosed if !self.buffer.is_empty() => {
                    take(&std::mem::take(&mut self.buffer));
                    return Ok(true);
                }
                _ => {}
            }
            if read_more(&self.stream, &mut self.buffer).await? == 0 {
                return if self.framing == Framing::UntilClosed { Ok(false) } else { Err(Bad::Cut) };
            }
        }
    }
}

/// Size of the chunk that begins in `bytes`, and the bytes before its data; `None` while its line is not complete.
fn chunk_size(bytes: &[u8], behind_chunk: bool) -> Result<Option<(u64, usize)>, Bad> {
    let skip = if behind_chunk { 2 } else { 0 };
    if bytes.len() < skip {
        return Ok(None);
    }
    if !b"\r\n".starts_with(&bytes[..skip]) {
        return Err(Bad::NotHttp("a chunk without an end"));
    }
    let line = &bytes[skip..];
    let Some(end) = line.iter().take(MOST_FRAME).position(|b| *b == b'\n') else {
        return if line.len() < MOST_FRAME { Ok(None) } else { Err(Bad::NotHttp("an endless chunk size")) };
    };
    let text = std::str::from_utf8(&line[..end]).unwrap_or_default();
    let digits = text.split(';').next().unwrap_or_default().trim();
    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
    let size = u64::from_str_radix(digits, 16).ok().filter(|_| plain).ok_or(Bad::NotHttp("a malformed chunk size"))?;
    Ok(Some((size, skip + end + 1)))
}

async fn write(stream: &Stream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        let mut ready = stream.writable().await?;
        if let Ok(sent) = ready.try_io(|stream: &tokio::io::unix::AsyncFd<OwnedFd>| Ok(send(stream.get_ref(), rest, SendFlags::NOSIGNAL)?))
        {
            rest = &rest[sent?..];
        }
    }
    Ok(())
}

/// Appends what has come, waiting for it; 0 at the end.
async fn read_more(stream: &Stream, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        let mut ready = stream.readable().await?;
        let received = ready.try_io(|stream| {
            scratch::with(|space| {
                let (_, length) = recv(stream.get_ref(), &mut space[..READ], RecvFlags::empty())?;
                buffer.extend_from_slice(&space[..length]);
                Ok(length)
            })
        });
        match received {
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(done) => return done,
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::net::UnixStream, thread, time::Duration};

    use tokio::time::timeout;

    use super::*;
    use crate::descriptor::watch_socket;

    /// A peer that says `parts`, each by itself, and closes.
    fn peer(parts: Vec<Vec<u8>>) -> Stream {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            for part in parts {
                let _ = theirs.write_all(&part);
                thread::yield_now();
            }
            // Our request is read last, or its being unread would reset the connection.
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = io::copy(&mut theirs, &mut io::sink());
        });
        watch_socket(ours.into()).unwrap()
    }

    async fn body(text: &str, most: usize) -> Result<String, Bad> {
        let whole = text.as_bytes().to_vec();
        let bytes: Vec<Vec<u8>> = whole.iter().map(|b| vec![*b]).collect();
        let mut results = Vec::new();
        for parts in [vec![whole], bytes] {
            let asked = async { get(peer(parts), "/x").await?.body(most).await };
            let result = timeout(Duration::from_secs(20), asked).await.expect("an end in time");
            results.push(result.map(|b| String::from_utf8(b).unwrap()));
        }
        let second = results.pop().unwrap();
        assert_eq!(format!("{:?}", results[0]), format!("{second:?}"), "cut at each byte, the same");
        second
    }

    #[tokio::test]
    async fn bodies_of_every_framing_are_read_whole() {
        for (text, wanted) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more", "hello"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", "hello!"),
            ("HTTP/1.1 200 OK\r\n\r\nuntil closed", "until closed"),
            ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
        ] {
            assert_eq!(body(text, 100).await.unwrap(), wanted, "{text:?}");
        }
    }

    #[tokio::test]
    async fn what_a_hostile_docker_answers_is_an_error_and_bounded() {
        let long_head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(MOST_HEAD));
        let long_size = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", "0".repeat(MOST_FRAME));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(MOST_FIELDS + 1));
        let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(101));
        for (text, wanted) in [
            ("garbage\r\n\r\n", "a malformed head"),
            (&long_head, "longer than"),
            (&many, "a malformed head"),
            ("HTTP/1.1 500 No\r\n\r\n", "status 500"),
            ("HTTP/1.1 101 Switching\r\n\r\n", "status 101"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "a malformed length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "ended early"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "an unknown transfer encoding"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello", "a malformed chunk size"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", "a malformed chunk size"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", "a chunk without an end"),
            (&long_size, "an endless chunk size"),
            (&endless, "longer than 100"),
            ("", "ended early"),
        ] {
            let error = body(text, 100).await.unwrap_err().to_string();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
    }

    #[tokio::test]
    async fn lines_of_an_endless_answer_are_counted_and_not_kept() {
        let flood = format!("{}\n", "x".repeat(99_999));
        let mut parts = vec![b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()];
        for _ in 0..50 {
            parts.push(format!("{:x}\r\n{flood}\r\n", flood.len()).into_bytes());
        }
        parts.push(b"0\r\n\r\n".to_vec());
        let mut answer = get(peer(parts), "/events").await.unwrap();
        let mut seen = 0;
        while let Some(lines) = timeout(Duration::from_secs(20), answer.lines()).await.unwrap().unwrap() {
            seen += lines;
            assert!(answer.buffer.capacity() <= 4 * READ, "{}", answer.buffer.capacity());
        }
        assert_eq!(seen, 50);
    }
}
