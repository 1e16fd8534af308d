use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use berth_sys::descriptor;
use rustix::{
    io::Errno,
    net::{SendFlags, send},
};

use crate::console;

/// Lines that wait for a shim which does not read; what is more is dropped.
const MOST_PENDING: usize = 16 << 10;

/// The one-way stream of lines to the shim. Never blocks; once the shim is gone it takes everything and does nothing.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: Option<OwnedFd>,
    pending: Vec<u8>,
}

impl Channel {
    /// Takes the descriptor the program was started with, and keeps it from every child.
    pub(crate) fn inherited(number: RawFd) -> Self {
        let stream = descriptor::inherited(number)
            .inspect_err(|error| console::say(&format!("channel {number}: {error}; the shim will not hear of this berth")))
            .ok();
        Self { stream, pending: Vec::new() }
    }

    /// Sends one line.
    pub(crate) fn tell(&mut self, line: &str) {
        if self.stream.is_none() || self.pending.len() + line.len() + 1 > MOST_PENDING {
            return;
        }
        self.pending.extend(line.bytes().map(|b| if b == b'\n' { b' ' } else { b }));
        self.pending.push(b'\n');
        self.flush();
    }

    /// What to poll for writability: only while something waits.
    pub(crate) fn waiting(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().filter(|_| !self.pending.is_empty()).map(AsFd::as_fd)
    }

    pub(crate) fn flush(&mut self) {
        while let Some(stream) = self.stream.as_ref().filter(|_| !self.pending.is_empty()) {
            match send(stream, &self.pending, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.pending.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.stream = None;
                    self.pending.clear();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        os::unix::net::UnixStream,
        time::{Duration, Instant},
    };

    use super::*;

    fn channel() -> (Channel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Channel { stream: Some(ours.into()), pending: Vec::new() }, theirs)
    }

    #[test]
    fn a_line_is_one_line() {
        let (mut channel, mut shim) = channel();
        channel.tell("failed a\nb");
        drop(channel);
        let mut text = String::new();
        shim.read_to_string(&mut text).unwrap();
        assert_eq!(text, "failed a b\n");
    }

    #[test]
    fn a_shim_that_does_not_read_never_blocks_nor_grows() {
        let (mut channel, _shim) = channel();
        let start = Instant::now();
        for _ in 0..100_000 {
            channel.tell("down dockerd exit 1");
        }
        assert!(start.elapsed() < Duration::from_secs(10));
        assert!(channel.waiting().is_some() && channel.pending.len() <= MOST_PENDING);
    }

    #[test]
    fn a_shim_that_is_gone_is_let_go() {
        let (mut channel, shim) = channel();
        drop(shim);
        channel.tell("ready");
        channel.tell("ready");
        assert!(channel.waiting().is_none() && channel.stream.is_none());
    }
}
