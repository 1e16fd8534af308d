//! Many bytes over one connection, framed as Docker frames them. Both ends use the same code, so that every way carries the same.

use std::{
    fmt,
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    str::FromStr,
};

/// What Go's `io.Copy` moves at a time, at both ends of Docker.
const BLOCK: usize = 32 * 1024;
/// Go's `net/http` writes through a buffer of this size: the head of a chunk leaves together with the chunk's first bytes.
const GO_BUFFER: usize = 4096;

/// The buffered side of a connection that is read.
pub(super) type Reader<'a> = BufReader<&'a UnixStream>;

pub(super) fn reader(stream: &UnixStream) -> Reader<'_> {
    BufReader::with_capacity(BLOCK, stream)
}

/// How a receiver knows where the bytes end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length,
    Chunked,
    /// Behind a 101: no framing at all.
    Upgraded,
}

impl Framing {
    pub(super) const ALL: [Self; 3] = [Self::Length, Self::Chunked, Self::Upgraded];
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "length",
            Self::Chunked => "chunked",
            Self::Upgraded => "upgraded",
        })
    }
}

impl FromStr for Framing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|framing| framing.to_string() == text).ok_or_else(|| format!("no framing {text:?}"))
    }
}

/// Writes `bytes` bytes.
pub(super) fn send(mut stream: &UnixStream, framing: Framing, bytes: u64) -> io::Result<()> {
    let block = vec![0x5A; BLOCK];
    let mut left = bytes;
    // What waits for the first bytes of the next chunk.
    let mut held = Vec::with_capacity(GO_BUFFER);
    while left > 0 {
        let part = &block[..BLOCK.min(usize::try_from(left).unwrap_or(BLOCK))];
        left -= part.len() as u64;
        if framing != Framing::Chunked {
            stream.write_all(part)?;
            continue;
        }
        write!(held, "{:x}\r\n", part.len())?;
        let first = part.len().min(GO_BUFFER - held.len());
        held.extend_from_slice(&part[..first]);
        stream.write_all(&held)?;
        stream.write_all(&part[first..])?;
        held.clear();
        held.extend_from_slice(b"\r\n");
    }
    if framing == Framing::Chunked {
        held.extend_from_slice(b"0\r\n\r\n");
        stream.write_all(&held)?;
    }
    Ok(())
}

/// Reads to the end that the framing tells; the bytes that came, framing left out. `length` is what a head announced.
pub(super) fn receive(reader: &mut impl BufRead, framing: Framing, length: u64) -> io::Result<u64> {
    let mut buffer = vec![0; BLOCK];
    if framing != Framing::Chunked {
        return read_through(reader, length, &mut buffer, |_| ());
    }
    chunks(reader, &mut buffer, |_| ())
}

/// A head of HTTP/1.1: its first line and the lower-case fields that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) first: String,
    pub(super) length: u64,
    pub(super) chunked: bool,
}

/// `None` at the end of the connection.
pub(super) fn head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut head = Head::default();
    if reader.read_line(&mut head.first)? == 0 {
        return Ok(None);
    }
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(broken("the connection ended in a head"));
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            return Ok(Some(head));
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            head.length = value.trim().parse().map_err(|_| broken("a length that is no number"))?;
        }
        head.chunked |= line.strip_prefix("transfer-encoding:").is_some_and(|value| value.trim() == "chunked");
    }
}

/// The body behind a head, kept.
pub(super) fn body(reader: &mut impl BufRead, head: &Head) -> io::Result<Vec<u8>> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; BLOCK]);
    let keep = |part: &[u8]| all.extend_from_slice(part);
    if head.chunked {
        chunks(reader, &mut buffer, keep)?
    } else {
        read_through(reader, head.length, &mut buffer, keep)?
    };
    Ok(all)
}

fn chunks(reader: &mut impl BufRead, buffer: &mut [u8], mut each: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut total = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim_end(), 16).map_err(|_| broken("a chunk without its length"))?;
        total += read_through(reader, length, buffer, &mut each)?;
        line.clear();
        reader.read_line(&mut line)?;
        if line != "\r\n" {
            return Err(broken("a chunk without its end"));
        }
        if length == 0 {
            return Ok(total);
        }
    }
}

fn read_through(reader: &mut impl BufRead, length: u64, buffer: &mut [u8], mut each: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut limited = reader.take(length);
    loop {
        match limited.read(buffer)? {
            0 if limited.limit() > 0 => return Err(broken("the connection ended in a body")),
            0 => return Ok(length),
            count => each(&buffer[..count]),
        }
    }
}

pub(super) fn broken(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_is_sent_in_any_framing_is_what_is_received() {
        for framing in Framing::ALL {
            for bytes in [0, 1, 4089, 32 * 1024, 100_000] {
                let (near, far) = UnixStream::pair().unwrap();
                let sender = thread::spawn(move || send(&far, framing, bytes));
                assert_eq!(receive(&mut reader(&near), framing, bytes).unwrap(), bytes, "{framing}");
                sender.join().unwrap().unwrap();
            }
        }
    }

    #[test]
    fn a_cut_body_is_an_error_and_not_a_short_one() {
        assert!(receive(&mut &b"abc"[..], Framing::Length, 4).is_err());
        assert!(receive(&mut &b"4\r\nabc"[..], Framing::Chunked, 0).is_err());
        assert!(receive(&mut &b"3\r\nabcd\r\n0\r\n\r\n"[..], Framing::Chunked, 0).is_err());
    }

    #[test]
    fn heads_and_bodies_are_read() {
        let mut text =
            &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOKHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"[..];
        for expected in ["OK", "abc"] {
            let head = head(&mut text).unwrap().unwrap();
            assert_eq!(head.first, "HTTP/1.1 200 OK\r\n");
            assert_eq!(body(&mut text, &head).unwrap(), expected.as_bytes());
        }
        assert_eq!(head(&mut text).unwrap(), None);
    }
}
