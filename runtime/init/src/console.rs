use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::write,
    stdio::stderr,
};

/// A pipe that polls as writable takes this much without blocking (`PIPE_BUF`).
const ATOMIC: usize = 4096;

/// One line on the berth's console (standard error). Dropped rather than waited for when nobody reads: PID 1 never blocks on it.
pub(crate) fn say(text: &str) {
    let mut line = format!("berth-init: {text}").replace('\n', " ").into_bytes();
    line.truncate(ATOMIC - 1);
    line.push(b'\n');
    let mut ready = [PollFd::from_borrowed_fd(stderr(), PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut ready, Some(&now)).is_ok() && ready[0].revents().contains(PollFlags::OUT) {
        let _ = write(stderr(), &line);
    }
}
