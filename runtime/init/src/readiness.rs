use std::{
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    fs::inotify,
    io::{Errno, read},
    net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with},
};

const FIRST_RETRY: Duration = Duration::from_millis(20);
const LONGEST_RETRY: Duration = Duration::from_secs(1);
/// A dockerd that is loading thousands of containers answers late, not never.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// `/_ping` answers before some engines have finished starting; a list of containers does not. `/info` would not either, but runs three
/// programs for their versions, just when whoever woke the berth waits for the same.
const QUESTIONS: [&str; 2] = ["/_ping", "/containers/json?limit=1"];

/// Finds out when a starting dockerd answers: inotify on the socket's folder, then both questions over the socket. Never blocks.
#[derive(Debug)]
pub(crate) struct Readiness {
    socket: SocketAddrUnix,
    /// None where the berth has no inotify instance left: then the timer alone drives.
    watch: Option<OwnedFd>,
    asking: Option<Asking>,
    /// Connections are taken, or their rights changed: whoever may connect now waits in dockerd's own queue.
    news: bool,
    /// When to try again without being told.
    retry_at: Option<Instant>,
    retry: Duration,
}

#[derive(Debug)]
struct Asking {
    stream: OwnedFd,
    question: usize,
    answer: Vec<u8>,
    until: Instant,
}

enum Answer {
    Partial,
    Good,
    Bad,
}

impl Readiness {
    /// `socket` is the path dockerd will bind.
    pub(crate) fn watch(socket: &Path, now: Instant) -> Result<Self, Errno> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let folder = socket.parent().unwrap_or(Path::new("/"));
        let events = inotify::WatchFlags::CREATE | inotify::WatchFlags::ATTRIB | inotify::WatchFlags::MOVED_TO;
        let watch = inotify::init(flags).and_then(|fd| inotify::add_watch(&fd, folder, events).map(|_| fd)).ok();
        let retry_at = watch.is_none().then(|| now + FIRST_RETRY);
        Ok(Self { socket: SocketAddrUnix::new(socket)?, watch, asking: None, news: false, retry_at, retry: FIRST_RETRY })
    }

    /// Descriptors to poll for reading.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.watch.iter().map(AsFd::as_fd).chain(self.asking.iter().map(|a| a.stream.as_fd()))
    }

    /// When [`Readiness::advance`] must be called even if nothing became readable.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.asking.as_ref().map(|a| a.until).or(self.retry_at)
    }

    /// True once after each change that may have opened the socket to others; dockerd sets its rights after it is bound.
    pub(crate) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Takes what became readable or due; true once dockerd has answered everything.
    pub(crate) fn advance(&mut self, now: Instant) -> bool {
        let stirred = self.drain_watch();
        self.news |= stirred && self.asking.is_some();
        if self.asking.is_none() && (stirred || self.retry_at.is_some_and(|at| now >= at)) {
            self.ask(0, now);
        }
        while let Some(asking) = &mut self.asking {
            match asking.read(now) {
                Answer::Partial => return false,
                Answer::Good if asking.question + 1 == QUESTIONS.len() => return true,
                Answer::Good => {
                    let next = asking.question + 1;
                    self.ask(next, now);
                }
                Answer::Bad => self.retry_later(now),
            }
        }
        false
    }

    fn ask(&mut self, question: usize, now: Instant) {
        match Asking::begin(&self.socket, question, now) {
            Ok(asking) => {
                self.asking = Some(asking);
                self.news = true;
                self.retry_at = None;
            }
            // Not bound yet: inotify will tell.
            Err(Errno::NOENT) if self.watch.is_some() => {
                self.asking = None;
                self.retry_at = None;
            }
            // Bound but not listening yet.
            Err(_) => self.retry_later(now),
        }
    }

    fn retry_later(&mut self, now: Instant) {
        self.asking = None;
        self.retry_at = Some(now + self.retry);
        self.retry = (self.retry * 2).min(LONGEST_RETRY);
    }

    fn drain_watch(&mut self) -> bool {
        let mut stirred = false;
        if let Some(watch) = &self.watch {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut events = inotify::Reader::new(watch, &mut buffer);
            while events.next().is_ok() {
                stirred = true;
            }
        }
        stirred
    }
}

impl Asking {
    fn begin(socket: &SocketAddrUnix, question: usize, now: Instant) -> Result<Self, Errno> {
        let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        connect(&stream, socket)?;
        let request = format!("GET {} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n", QUESTIONS[question]);
        send(&stream, request.as_bytes(), SendFlags::NOSIGNAL)?;
        Ok(Self { stream, question, answer: Vec::new(), until: now + ANSWER_DEADLINE })
    }

    fn read(&mut self, now: Instant) -> Answer {
        let mut buffer = [0; 256];
        loop {
            match read(&self.stream, &mut buffer) {
                Ok(0) => return Answer::Bad,
                Ok(count) => self.answer.extend_from_slice(&buffer[..count]),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) if now < self.until => return Answer::Partial,
                Err(_) => return Answer::Bad,
            }
            match status(&self.answer) {
                Some(200) => return Answer::Good,
                Some(_) => return Answer::Bad,
                None if self.answer.len() > 1024 => return Answer::Bad,
                None => {}
            }
        }
    }
}

/// The status of an HTTP answer, once its first line has come far enough.
fn status(answer: &[u8]) -> Option<u16> {
    if answer.len() < 12 {
        return None;
    }
    let status = answer.strip_prefix(b"HTTP/1.").and_then(|rest| std::str::from_utf8(rest.get(2..5)?).ok());
    Some(status.and_then(|s| s.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        os::unix::net::UnixListener,
        thread,
    };

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn a_status_is_known_after_twelve_bytes() {
        assert_eq!(status(b"HTTP/1.1 20"), None);
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503 S"), Some(503));
        assert_eq!(status(b"SSH-2.0-OpenSSH"), Some(0));
    }

    #[test]
    fn a_daemon_is_ready_when_both_answers_are_good_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let mut readiness = Readiness::watch(&socket, Instant::now()).unwrap();
        assert!(!readiness.advance(Instant::now()));
        let answers = ["200 OK", "503 Service Unavailable", "200 OK", "200 OK"];
        let server = thread::spawn(move || {
            let listener = UnixListener::bind(&socket).unwrap();
            answers.map(|answer| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                // In one piece: the reader leaves as soon as it has the status line.
                stream.write_all(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
                line.split(' ').nth(1).unwrap().to_owned()
            })
        });
        let end = Instant::now() + Duration::from_secs(10);
        while !readiness.advance(Instant::now()) {
            assert!(Instant::now() < end);
            let wait = readiness.deadline().map_or(Duration::from_secs(1), |at| at.saturating_duration_since(Instant::now()));
            let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
            let mut fds: Vec<PollFd<'_>> = readiness.descriptors().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            poll(&mut fds, Some(&timeout)).unwrap();
        }
        assert_eq!(server.join().unwrap(), [QUESTIONS[0], QUESTIONS[1], QUESTIONS[0], QUESTIONS[1]]);
    }
}
