//! Before directories that could not be brought in: a call that would bind one of them is held until its body is there, and refused.
//!
//! Only for berths that have such directories. What passes is not changed; what is none of these calls is held no longer than its head.

use std::path::{Component, Path, PathBuf};

use super::{
    body::Body,
    describe::{clean, describe},
    head::{Gathered, Gathering, request},
    json,
    store::{Budget, Store},
};
use crate::shim::answer::Answer;

/// Longest body that is held, in bytes.
const MOST_BODY: usize = 1 << 20;
/// And with its head and the lines between chunks.
const MOST_HELD: usize = 2 * MOST_BODY;

/// A directory of the host that could not be brought in, and why: a sentence.
pub(crate) type Cover = (String, String);

/// What stands at the beginning of a connection's bytes.
#[derive(Debug)]
pub(crate) struct Gate<'c> {
    covers: &'c [Cover],
    budget: Budget,
    /// Not passed on yet.
    held: Store,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Head(Gathering),
    Body(Body),
    /// Of a call that makes a container.
    Create(Body, Store),
    /// Nothing is held any more.
    Open,
}

impl<'c> Gate<'c> {
    pub(crate) fn new(covers: &'c [Cover], budget: &Budget) -> Self {
        Self { covers, budget: budget.clone(), held: budget.store(MOST_HELD), place: Place::Head(Gathering::new(budget)) }
    }

    /// Takes what the client sent; what may go on is appended to `pass`. After an error nothing more may: it is the answer to the call that
    /// is held.
    pub(crate) fn take(&mut self, mut bytes: &[u8], pass: &mut Vec<u8>) -> Result<(), Answer> {
        while !bytes.is_empty() {
            match &mut self.place {
                Place::Head(gathering) => match gathering.take(bytes, look) {
                    Gathered::Partial if self.held.keep(bytes) => return Ok(()),
                    Gathered::Whole { used, read: Some(about), .. } if self.held.keep(&bytes[..used]) => {
                        bytes = &bytes[used..];
                        self.begin(about, pass)?;
                    }
                    _ => self.open(pass),
                },
                Place::Body(body) => {
                    let Ok(used) = body.follow(bytes, |_| ()) else {
                        self.open(pass);
                        continue;
                    };
                    pass.extend_from_slice(&bytes[..used]);
                    bytes = &bytes[used..];
                    if body.ended() {
                        self.next();
                    }
                }
                Place::Create(body, kept) => {
                    let mut whole = true;
                    match body.follow(bytes, |data| whole &= kept.keep(data)) {
                        Ok(used) if whole && self.held.keep(&bytes[..used]) => {
                            bytes = &bytes[used..];
                            if body.ended() {
                                self.decide(pass)?;
                            }
                        }
                        _ => self.open(pass),
                    }
                }
                Place::Open => {
                    pass.extend_from_slice(bytes);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// What is held: the call that was refused, or the rest before an end.
    pub(crate) fn held(&self) -> &[u8] {
        self.held.bytes()
    }

    /// True when nothing will be held any more.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.place, Place::Open)
    }

    fn begin(&mut self, (body, creates, stream): (Body, bool, bool), pass: &mut Vec<u8>) -> Result<(), Answer> {
        if creates {
            self.place = Place::Create(body, self.budget.store(MOST_BODY));
            return if body.ended() { self.decide(pass) } else { Ok(()) };
        }
        self.release(pass);
        match stream {
            true => self.place = Place::Open,
            false if body.ended() => self.next(),
            false => self.place = Place::Body(body),
        }
        Ok(())
    }

    fn decide(&mut self, pass: &mut Vec<u8>) -> Result<(), Answer> {
        if let Place::Create(_, kept) = &self.place
            && let Some((bind, cover, why)) = self.covered(kept.bytes())
        {
            return Err(Answer::new(
                400,
                format!(
                    "cannot bind {bind}: {cover} of the host is not in this berth ({why}). Bind a directory elsewhere, or bring the files in \
                     with `docker cp`; `berth status` shows what your berth shares with the host"
                ),
            ));
        }
        self.release(pass);
        self.next();
        Ok(())
    }

    fn covered(&self, body: &[u8]) -> Option<(String, &'c str, &'c str)> {
        json::binds(body).into_iter().find_map(|bind| {
            let place = plain(&bind);
            let (cover, why) = self.covers.iter().find(|(cover, _)| place.starts_with(plain(cover)))?;
            Some((clean(&bind, 256), cover.as_str(), why.as_str()))
        })
    }

    fn next(&mut self) {
        self.place = Place::Head(Gathering::new(&self.budget));
    }

    fn release(&mut self, pass: &mut Vec<u8>) {
        pass.extend_from_slice(self.held.bytes());
        self.held.clear();
    }

    fn open(&mut self, pass: &mut Vec<u8>) {
        self.release(pass);
        self.place = Place::Open;
    }
}

/// The body, whether it makes a container, whether it may become a stream.
fn look(head: &[u8]) -> Option<(Body, bool, bool)> {
    request(head, |head| {
        let about = describe(head.method, head.target);
        (head.body, about.creates, head.upgrade || about.hijacks)
    })
}

/// Without `.`, `..` and doubled slashes.
fn plain(path: &str) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => drop(plain.pop()),
            _ => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers() -> Vec<Cover> {
        vec![("/home/a".into(), "it lies on NFS".into())]
    }

    fn create(body: &str, chunked: bool) -> Vec<u8> {
        let head = "POST /v1.41/containers/create?name=x HTTP/1.1\r\nHost: docker\r\n";
        match chunked {
            true => format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes(),
            false => format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes(),
        }
    }

    fn through(bytes: &[u8], piece: usize) -> (Vec<u8>, Option<Answer>) {
        let (covers, budget, mut pass) = (covers(), Budget::default(), Vec::new());
        let mut gate = Gate::new(&covers, &budget);
        for part in bytes.chunks(piece) {
            if let Err(answer) = gate.take(part, &mut pass) {
                return (pass, Some(answer));
            }
        }
        pass.extend_from_slice(gate.held());
        (pass, None)
    }

    #[test]
    fn h02_a_bind_below_a_cover_is_refused_with_the_reason_and_nothing_of_it_passes() {
        let first = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n";
        for (bind, chunked) in [("/home/a", false), ("/home/a/w:/w", true), ("/home//b/../a/./w:/w:ro", false)] {
            let body = format!(r#"{{"Image":"busybox","HostConfig":{{"Binds":["{bind}"]}}}}"#);
            let all = [&first[..], &create(&body, chunked)].concat();
            for piece in [1, 7, 100, 10_000] {
                let (pass, answer) = through(&all, piece);
                assert_eq!(pass, first, "{bind}");
                let answer = answer.unwrap();
                assert_eq!(answer.status, 400);
                assert!(answer.message.contains("/home/a of the host is not in this berth (it lies on NFS)"), "{}", answer.message);
            }
        }
    }

    #[test]
    fn h02_everything_else_passes_untouched() {
        let other = create(r#"{"HostConfig":{"Binds":["/home/ab:/w","/srv:/s"],"Mounts":[{"Type":"volume","Source":"/home/a"}]}}"#, true);
        let upload = b"PUT /containers/x/archive HTTP/1.1\r\nContent-Length: 40\r\n\r\nPOST /containers/create HTTP/1.1\r\n\r\n......";
        let stream = b"POST /exec/x/start HTTP/1.1\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}POST /containers/create HTTP/1.1\r\nContent-Length: 100\r\n\r\n{";
        let huge = create(&format!(r#"{{"Pad":"{}","HostConfig":{{"Binds":["/home/a"]}}}}"#, "x".repeat(MOST_BODY)), false);
        let garbage = b"\x16\x03\x01 not HTTP\r\n\r\nat all";
        for text in [&other[..], upload, stream, &huge, garbage, b"GET /half HTTP/1.1\r\nX"] {
            for piece in [3, 50_000] {
                let (pass, answer) = through(text, piece);
                assert_eq!(answer, None);
                assert!(pass == text);
            }
        }
    }
}
