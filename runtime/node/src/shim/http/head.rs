//! Heads of requests and responses: gathered as they come, read by httparse, and what they say about the body.
//!
//! Whatever dockerd and this reader could understand differently is refused here, so that no call hides behind another one.

use httparse::{EMPTY_HEADER, Error, Header, Status};

use super::{
    body::{Body, Chunked},
    store::{Budget, Store},
};

/// Longest head that is followed.
pub(crate) const MOST_HEAD: usize = 64 * 1024;
/// Headers of an ordinary head, and the most.
const HEADERS: usize = 48;
const MOST_HEADERS: usize = 2048;

/// A head that is not there in whole yet.
#[derive(Debug)]
pub(super) struct Gathering {
    kept: Store,
    /// Bytes of the head so far, empty lines in front of it included.
    length: u64,
    /// Of the line that has begun, and whether that is a carriage return alone.
    line: usize,
    return_only: bool,
    started: bool,
}

/// What came of more bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Gathered<T> {
    Partial,
    /// So many of the bytes belonged to the head, which was so long in all.
    Whole {
        used: usize,
        length: u64,
        read: T,
    },
    TooLong,
}

impl Gathering {
    pub(super) fn new(budget: &Budget) -> Self {
        Self { kept: budget.store(MOST_HEAD), length: 0, line: 0, return_only: false, started: false }
    }

    /// Bytes of a head that has begun.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Takes bytes until the empty line, then lets `read` see the head.
    pub(super) fn take<T>(&mut self, bytes: &[u8], read: impl FnOnce(&[u8]) -> T) -> Gathered<T> {
        let (mut at, mut begin) = (0, 0);
        while let Some(length) = bytes[at..].iter().position(|&b| b == b'\n') {
            let end = at + length + 1;
            let empty = self.line_grows(&bytes[at..end - 1]);
            (self.line, self.return_only) = (0, false);
            at = end;
            if !empty {
                self.started = true;
            } else if self.started {
                let total = self.length + end as u64;
                if total > MOST_HEAD as u64 {
                    return Gathered::TooLong;
                }
                let read = if self.kept.bytes().is_empty() {
                    read(&bytes[begin..end])
                } else if self.kept.keep(&bytes[..end]) {
                    read(self.kept.bytes())
                } else {
                    return Gathered::TooLong;
                };
                self.kept.clear();
                (self.length, self.started) = (0, false);
                return Gathered::Whole { used: end, length: total, read };
            } else {
                begin = end;
            }
        }
        self.line_grows(&bytes[at..]);
        self.length += bytes.len() as u64;
        if self.length > MOST_HEAD as u64 || !self.kept.keep(&bytes[begin..]) { Gathered::TooLong } else { Gathered::Partial }
    }

    /// True when the line is empty so far.
    fn line_grows(&mut self, more: &[u8]) -> bool {
        if self.line == 0 {
            self.return_only = more == b"\r";
        } else if !more.is_empty() {
            self.return_only = false;
        }
        self.line += more.len();
        self.line == 0 || self.return_only
    }
}

/// What a request's head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequestHead<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) body: Body,
    /// It asks to become a stream.
    pub(super) upgrade: bool,
}

/// What a response's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResponseHead {
    pub(super) status: u16,
    /// The body, if one can follow this status.
    pub(super) body: Body,
    /// Neither a length nor chunks.
    pub(super) unframed: bool,
    /// No further answer follows on this connection.
    pub(super) closes: bool,
}

/// Lets `look` see a request's head; `None` when that is nothing a request begins with, or can be understood in two ways.
pub(super) fn request<T>(head: &[u8], look: impl FnOnce(RequestHead<'_>) -> T) -> Option<T> {
    let mut few = [EMPTY_HEADER; HEADERS];
    let mut many;
    let mut request = httparse::Request::new(&mut few);
    let mut parsed = request.parse(head);
    if parsed == Err(Error::TooManyHeaders) {
        many = vec![EMPTY_HEADER; MOST_HEADERS];
        request = httparse::Request::new(&mut many);
        parsed = request.parse(head);
    }
    let Ok(Status::Complete(_)) = parsed else { return None };
    let framing = Framing::of(request.headers)?;
    let body = match (framing.chunked, framing.length) {
        // HTTP/1.0 knows no chunks.
        (true, None) if request.version == Some(1) => Body::Chunked(Chunked::START),
        (false, length) => Body::Length(length.unwrap_or(0)),
        _ => return None,
    };
    Some(look(RequestHead { method: request.method?, target: request.path?, body, upgrade: framing.upgrade }))
}

/// Reads a response's head; `None` as for [`request`].
pub(super) fn response(head: &[u8]) -> Option<ResponseHead> {
    let mut few = [EMPTY_HEADER; HEADERS];
    let mut many;
    let mut response = httparse::Response::new(&mut few);
    let mut parsed = response.parse(head);
    if parsed == Err(Error::TooManyHeaders) {
        many = vec![EMPTY_HEADER; MOST_HEADERS];
        response = httparse::Response::new(&mut many);
        parsed = response.parse(head);
    }
    let Ok(Status::Complete(_)) = parsed else { return None };
    let (status, framing) = (response.code?, Framing::of(response.headers)?);
    let body = match (framing.chunked, framing.length) {
        (true, None) if response.version == Some(1) => Body::Chunked(Chunked::START),
        (false, Some(length)) => Body::Length(length),
        (false, None) => Body::UntilEnd,
        _ => return None,
    };
    let unframed = body == Body::UntilEnd;
    Some(ResponseHead { status, body, unframed, closes: framing.closes || response.version != Some(1) })
}

/// What the headers say about the body.
#[derive(Debug, Default)]
struct Framing {
    chunked: bool,
    length: Option<u64>,
    upgrade: bool,
    closes: bool,
}

impl Framing {
    /// `None` when they contradict each other or name a coding other than chunked.
    fn of(headers: &[Header<'_>]) -> Option<Self> {
        let mut framing = Self::default();
        for header in headers {
            let value = header.value.trim_ascii();
            if header.name.eq_ignore_ascii_case("content-length") {
                let length = std::str::from_utf8(value).ok().filter(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()))?;
                let length = length.parse().ok()?;
                if framing.length.replace(length).is_some_and(|other| other != length) {
                    return None;
                }
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                if framing.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return None;
                }
                framing.chunked = true;
            } else if header.name.eq_ignore_ascii_case("upgrade") {
                framing.upgrade = true;
            } else if header.name.eq_ignore_ascii_case("connection") {
                framing.closes |= value.split(|b| *b == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"));
            }
        }
        Some(framing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(text: &[u8], piece: usize) -> (Option<Vec<u8>>, usize) {
        let budget = Budget::default();
        let mut gathering = Gathering::new(&budget);
        let mut seen = 0;
        for part in text.chunks(piece) {
            match gathering.take(part, <[u8]>::to_vec) {
                Gathered::Partial => seen += part.len(),
                Gathered::Whole { used, length, read } => {
                    assert_eq!((length, budget.used()), ((seen + used) as u64, 0));
                    return (Some(read), seen + used);
                }
                Gathered::TooLong => return (None, seen),
            }
        }
        (None, seen)
    }

    #[test]
    fn x07_a_head_is_found_however_it_is_cut() {
        for text in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\nrest"[..], b"\r\n\r\nGET / HTTP/1.1\r\n\r\nrest", b"GET / HTTP/1.1\nA: b\n\nrest"]
        {
            for piece in 1..text.len() {
                let (head, used) = gather(text, piece);
                assert_eq!(&text[used..], b"rest", "pieces of {piece}");
                assert_eq!(String::from_utf8(head.unwrap()).unwrap().trim_start(), String::from_utf8_lossy(&text[..used]).trim_start());
            }
        }
    }

    #[test]
    fn x07_heads_up_to_64_kib_are_followed_and_longer_ones_are_not() {
        let head = |length: usize| {
            let begin = "GET /info HTTP/1.1\r\nX: ";
            format!("{begin}{}\r\n\r\n", "y".repeat(length - begin.len() - 4)).into_bytes()
        };
        for piece in [1, 1000, 100_000] {
            assert_eq!(gather(&head(MOST_HEAD), piece).0.map(|h| h.len()), Some(MOST_HEAD));
            assert_eq!(gather(&head(MOST_HEAD + 1), piece).0, None);
        }
        let many: String = (0..1000).map(|n| format!("X-{n}: {n}\r\n")).collect();
        assert!(request(format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes(), |_| ()).is_some());
    }

    #[test]
    fn the_body_of_a_request_is_what_dockerd_takes_for_it_or_nothing_is_said() {
        let body = |headers: &str| request(format!("POST /x HTTP/1.1\r\n{headers}\r\n").as_bytes(), |head| head.body);
        assert_eq!(body("Host: x\r\n"), Some(Body::Length(0)));
        assert_eq!(body("content-LENGTH:  12 \r\nContent-Length: 12\r\n"), Some(Body::Length(12)));
        assert_eq!(body("Transfer-Encoding: Chunked\r\n"), Some(Body::Chunked(Chunked::START)));
        for ambiguous in [
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding:\r\n chunked\r\n",
        ] {
            assert_eq!(body(ambiguous), None, "{ambiguous}");
        }
        assert!(request(b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", |_| ()).is_none());
        assert!(request(b"PRI * HTTP/2.0\r\n\r\n", |_| ()).is_none());
    }

    #[test]
    fn a_response_without_length_and_chunks_lasts_until_the_end() {
        let read = |text: &str| response(text.as_bytes());
        let head = read("HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n").unwrap();
        assert_eq!((head.status, head.body, head.unframed), (200, Body::UntilEnd, true));
        assert_eq!(read("HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n").unwrap().status, 101);
        assert_eq!(read("HTTP/1.0 200\r\nContent-Length: 4\r\n\r\n").unwrap().body, Body::Length(4));
        assert_eq!(read("HTTX/1.1 200 OK\r\n\r\n"), None);
    }
}
