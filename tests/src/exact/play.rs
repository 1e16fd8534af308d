use std::{
    io::{self, ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{checksum, dice::Dice, make::Case};

/// Nothing may stand still for so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than an answer that the shim gives in Docker's place.
const MOST_EXTRA: usize = 2048;
/// How such an answer begins.
const LOST: &[u8] = b"HTTP/1.1 502 Bad Gateway\r\n";

/// What a case came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Played {
    pub sent: usize,
    pub received: usize,
    /// Everything that the peer said came.
    pub whole: bool,
    /// The shim answered in Docker's place.
    pub spoken_for: bool,
    pub vanished: bool,
}

/// Plays the client of `case` at `socket`; an error says what was not as it should be.
pub fn play(case: &Case, socket: &Path) -> Result<Played, String> {
    let talk = Talk::new(case, socket).map_err(|e| format!("connect: {e}"))?.run()?;
    let played = talk.judge()?;
    drop(talk);
    report(case, socket, played)?;
    Ok(played)
}

struct Talk<'c> {
    case: &'c Case,
    stream: UnixStream,
    dice: Dice,
    sent: usize,
    got: Vec<u8>,
    /// Reading ended with a reset, not with an end.
    reset: bool,
    /// The other side takes no more.
    refused: bool,
    vanished: bool,
}

impl<'c> Talk<'c> {
    fn new(case: &'c Case, socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_nonblocking(true)?;
        let dice = Dice::new(case.seed);
        Ok(Self { case, stream, dice, sent: 0, got: Vec::new(), reset: false, refused: false, vanished: false })
    }

    /// Bytes that may be sent by now.
    fn allowed(&self) -> usize {
        let closed = self.case.gates.iter().find(|(_, needed)| self.got.len() < *needed);
        closed.map_or(self.case.up.len(), |(up, _)| *up)
    }

    fn run(mut self) -> Result<Self, String> {
        let case = self.case;
        let mut buffer = vec![0; case.piece];
        let (mut over, mut closed) = (false, false);
        loop {
            if case.vanishes.is_some_and(|(sent, got)| self.sent >= sent || self.got.len() >= got) {
                self.vanished = true;
                return Ok(self);
            }
            let said_all = self.sent == case.up.len() || self.refused;
            if said_all && case.half_closes && !std::mem::replace(&mut closed, true) {
                let _ = self.stream.shutdown(Shutdown::Write);
            }
            // Behind the peer's end no gate opens any more.
            let allowed = if over { case.up.len() } else { self.allowed() };
            let writes = !said_all && self.sent < allowed;
            if over && !writes {
                return Ok(self);
            }
            let ready = self.wait(writes, !over)?;
            if ready.intersects(PollFlags::OUT | PollFlags::ERR | PollFlags::HUP) && writes {
                let end = allowed.min(self.sent + 1 + self.dice.below(case.piece));
                match self.stream.write(&case.up[self.sent..end]) {
                    Ok(length) => self.sent += length,
                    Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => self.refused = true,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(format!("write: {error}")),
                }
            }
            if ready.intersects(PollFlags::IN | PollFlags::ERR | PollFlags::HUP) && !over {
                match self.stream.read(&mut buffer) {
                    Ok(0) => over = true,
                    Ok(length) => self.got.extend_from_slice(&buffer[..length]),
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => (over, self.reset, self.refused) = (true, true, true),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(format!("read: {error}")),
                }
                if self.got.len() > case.down.len() + MOST_EXTRA {
                    return Err(format!("{} bytes came where there should be {}", self.got.len(), case.down.len()));
                }
            }
        }
    }

    /// Waits until there is something to do.
    fn wait(&self, writes: bool, reads: bool) -> Result<PollFlags, String> {
        let mut wanted = if writes { PollFlags::OUT } else { PollFlags::empty() };
        if reads && !(self.case.lazy && writes) {
            wanted |= PollFlags::IN;
        }
        let mut patience = PATIENCE;
        if self.case.lazy && writes && reads {
            patience = Duration::from_millis(3);
        }
        loop {
            let mut fds = [PollFd::new(&self.stream, wanted)];
            let limit = Timespec::try_from(patience).map_err(|e| e.to_string())?;
            match poll(&mut fds, Some(&limit)) {
                Ok(0) if reads && !wanted.contains(PollFlags::IN) => (wanted, patience) = (wanted | PollFlags::IN, PATIENCE),
                Ok(0) => {
                    let Case { up, down, .. } = self.case;
                    return Err(format!("stands still: sent {} of {}, got {} of {}", self.sent, up.len(), self.got.len(), down.len()));
                }
                Ok(_) => return Ok(fds[0].revents()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("poll: {error}")),
            }
        }
    }

    /// Compares what came with what had to.
    fn judge(&self) -> Result<Played, String> {
        let Self { case, got, .. } = self;
        let mut came = &got[..];
        let mut spoken_for = false;
        if !case.down.starts_with(came)
            && let Some(at) = got.windows(LOST.len()).rposition(|part| part == LOST)
        {
            let text = String::from_utf8_lossy(&got[at..]);
            let ours = text.contains("\r\nServer: berth\r\n")
                && (text.contains("ended before it answered") && text.ends_with("}\n") || text.ends_with("\r\n\r\n"));
            let allowed = !case.ends.is_empty() || case.kind != "noise";
            let place = case.torn || at == 0 || case.ends.contains(&at);
            if !(ours && allowed && place && (case.cut || case.torn)) {
                return Err(format!("an answer in Docker's place at {at} (answers end at {:?}): {text}", case.ends));
            }
            (came, spoken_for) = (&got[..at], true);
        }
        if !case.down.starts_with(came) {
            let at = came.iter().zip(&case.down).take_while(|(a, b)| a == b).count();
            return Err(format!("byte {at} of {} is not the one that was said ({} came)", case.down.len(), got.len()));
        }
        let whole = came.len() == case.down.len();
        let complete = whole && !self.reset && self.sent == case.up.len();
        if !(complete || self.vanished || case.cut) {
            return Err(format!(
                "nobody reset, but sent {} of {}, got {} of {}, reset: {}",
                self.sent,
                case.up.len(),
                came.len(),
                case.down.len(),
                self.reset
            ));
        }
        Ok(Played { sent: self.sent, received: got.len(), whole, spoken_for, vanished: self.vanished })
    }
}

/// Asks the peer what it read, and compares.
fn report(case: &Case, socket: &Path, played: Played) -> Result<(), String> {
    if played.sent < case.head {
        // What vanished before the program was there left no name.
        return Ok(());
    }
    let ask = || -> io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(2 * PATIENCE))?;
        stream.write_all(format!("=Q{:08x};", case.name).as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = ask().map_err(|e| format!("the peer's report: {e}"))?;
    let mut words = text.split_whitespace();
    let count = words.next().and_then(|word| word.parse::<usize>().ok());
    let sum = words.next().and_then(|word| u64::from_str_radix(word, 16).ok());
    let (Some(count), Some(sum), Some(end)) = (count, sum, words.next()) else {
        return Err(format!("no report of the peer: {text:?}"));
    };
    if count > played.sent || checksum(&case.up[..count]) != sum {
        return Err(format!("the peer read {count} bytes that are not the first of the {} that were sent", played.sent));
    }
    let all = !played.vanished && (!case.cut || case.reads_all);
    if all && (count != case.up.len() || case.reads_all && end != "end") {
        return Err(format!("the peer read {count} of {} bytes until the {end}", case.up.len()));
    }
    Ok(())
}
