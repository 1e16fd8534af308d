//! A peer that does what the client's first bytes say, in place of Docker: the client alone decides what has to come back, byte for byte.
//!
//! A connection begins with anything but an empty line, then `=`, a program, `;` and the rest of the client's bytes; to one without a
//! program it says something that is no HTTP. Numbers have eight hexadecimal digits.
//! The position in what came begins at 0, before whatever stands in front of the program.
//!
//! | operation | does |
//! |---|---|
//! | `C<n>` | reads and writes at most n bytes at once from now on |
//! | `E<n>` | sends back the next n bytes |
//! | `T<n>` | takes the next n bytes |
//! | `S<n><2n digits>` | says n bytes |
//! | `F` | sends back everything until the client's end, then closes |
//! | `D` | takes everything until the client's end, then closes |
//! | `W` | ends its own output |
//! | `P<n>` | does nothing for n milliseconds |
//! | `R` | closes at once, whatever was not read |
//! | `I<n>` | keeps a report of this connection under n |
//! | `Q<n>` | waits for that report and sends it: bytes that were read, their checksum (FNV-1a), `end` or `cut` |
//!
//! The end of the program closes.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    process,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use serde_json::json;

use crate::report::{Done, hold, need, outcome};

/// Most bytes in front of the end of a program.
const MOST_HEAD: usize = 256 << 10;
const STACK: usize = 256 << 10;
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes that were read, their checksum, whether the client's end was seen.
type Report = (u64, u64, bool);

#[derive(Default)]
struct Reports {
    kept: Mutex<HashMap<u64, Report>>,
    come: Condvar,
}

/// Serves a socket that takes the place of whatever is at `path`, until standard input ends.
pub(crate) fn serve(path: &str) -> Done {
    thread::spawn(|| {
        hold();
        process::exit(0);
    });
    let fresh = format!("{path}.echo");
    let listener = need("listen", UnixListener::bind(&fresh).and_then(|listener| fs::rename(&fresh, path).map(|()| listener)))?;
    outcome(Ok::<_, io::Error>(()), json!({}))?;
    let reports = Arc::new(Reports::default());
    loop {
        let Ok((stream, _)) = listener.accept() else { continue };
        let reports = Arc::clone(&reports);
        // One that gets no thread is closed, which its client sees.
        let _ = thread::Builder::new().stack_size(STACK).spawn(move || {
            let mut peer = Peer { stream, held: Vec::new(), at: 0, most: 64 << 10, count: 0, sum: FNV, ended: false, name: None };
            let _ = peer.play(&reports);
            let Peer { stream, count, sum, ended, name, .. } = peer;
            drop(stream);
            if let Some(name) = name {
                lock(&reports.kept).insert(name, (count, sum, ended));
                reports.come.notify_all();
            }
        });
    }
}

const FNV: u64 = 0xcbf2_9ce4_8422_2325;

struct Peer {
    stream: UnixStream,
    /// Read, and from `at` on not used yet.
    held: Vec<u8>,
    at: usize,
    most: usize,
    count: u64,
    sum: u64,
    ended: bool,
    name: Option<u64>,
}

impl Peer {
    fn play(&mut self, reports: &Reports) -> io::Result<()> {
        let program = self.program()?;
        let mut words = &program[..];
        while let Some((operation, rest)) = words.split_first() {
            words = rest;
            match operation {
                b'C' => self.most = number(&mut words)?.clamp(1, 1 << 20),
                b'E' => self.carry(Some(number(&mut words)?), true)?,
                b'T' => self.carry(Some(number(&mut words)?), false)?,
                b'F' => return self.carry(None, true),
                b'D' => return self.carry(None, false),
                b'S' => {
                    let length = number(&mut words)?;
                    let bytes = (0..length).map(|_| digits(&mut words, 2)).collect::<io::Result<Vec<_>>>()?;
                    for part in bytes.chunks(self.most) {
                        self.stream.write_all(&part.iter().map(|&byte| byte as u8).collect::<Vec<_>>())?;
                    }
                }
                b'W' => self.stream.shutdown(Shutdown::Write)?,
                b'P' => thread::sleep(Duration::from_millis(number(&mut words)? as u64)),
                b'R' => return Ok(()),
                b'I' => self.name = Some(number(&mut words)? as u64),
                b'Q' => {
                    let name = number(&mut words)? as u64;
                    let kept = lock(&reports.kept);
                    let (mut kept, _) = reports
                        .come
                        .wait_timeout_while(kept, PATIENCE, |kept| !kept.contains_key(&name))
                        .unwrap_or_else(PoisonError::into_inner);
                    if let Some((count, sum, ended)) = kept.remove(&name) {
                        drop(kept);
                        writeln!(self.stream, "{count} {sum:016x} {}", if ended { "end" } else { "cut" })?;
                    }
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(())
    }

    /// Reads until the program is there whole.
    fn program(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.held.iter().position(|&byte| byte == b';') {
                let begin = self.held[..end].iter().position(|&byte| byte == b'=').ok_or(io::ErrorKind::InvalidData)?;
                return Ok(self.held[begin + 1..end].to_vec());
            }
            if self.held.windows(4).any(|part| part == b"\r\n\r\n") {
                self.stream.write_all(b"\0no HTTP\n")?;
                return Err(io::ErrorKind::InvalidData.into());
            }
            if self.held.len() > MOST_HEAD || !self.read()? {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    /// Reads something more; false at the client's end.
    fn read(&mut self) -> io::Result<bool> {
        let begun = self.held.len();
        self.held.resize(begun + self.most, 0);
        let read = self.stream.read(&mut self.held[begun..]);
        self.held.truncate(begun + *read.as_ref().unwrap_or(&0));
        for &byte in &self.held[begun..] {
            self.sum = (self.sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let length = read?;
        self.count += length as u64;
        self.ended |= length == 0;
        Ok(length > 0)
    }

    /// Uses so many bytes, or all until the client's end.
    fn carry(&mut self, length: Option<usize>, back: bool) -> io::Result<()> {
        let mut left = length.unwrap_or(usize::MAX);
        while left > 0 {
            if self.at == self.held.len() {
                self.held.clear();
                self.at = 0;
                if !self.read()? {
                    return if length.is_none() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
                }
            }
            let part = left.min(self.held.len() - self.at).min(self.most);
            if back {
                self.stream.write_all(&self.held[self.at..self.at + part])?;
            }
            self.at += part;
            left -= part;
        }
        Ok(())
    }
}

fn number(words: &mut &[u8]) -> io::Result<usize> {
    digits(words, 8)
}

fn digits(words: &mut &[u8], count: usize) -> io::Result<usize> {
    let (digits, rest) = words.split_at_checked(count).ok_or(io::ErrorKind::InvalidData)?;
    *words = rest;
    let text = std::str::from_utf8(digits).map_err(|_| io::ErrorKind::InvalidData)?;
    usize::from_str_radix(text, 16).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
