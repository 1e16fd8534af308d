//! The emulated files of `/proc` and `/sys`: a FUSE session of the berth's own; and the answers to sysinfo(2). Both served from threads of
//! their own.
//!
//! The file system was mounted inside the berth's user namespace, so only its processes reach it: the host's never wait for what is
//! served here, and neither do those of other berths. What a request needs is read from `/proc` and control groups of the host, which may
//! take a moment on a busy one; so relaying does not wait for it either. The kernel asks only what it was mounted for: whatever else
//! arrives is answered by an error.
//!
//! A session that ends, because the tenant aborted it (`umount -f`) or by a fault, is not resumed: its files then say ENOTCONN inside, and
//! nothing else changes. Whoever reads waits at most for the one before him; there is no work without a reader.

mod texts;
mod tree;

use std::{io, os::fd::OwnedFd, sync::Arc, thread};

use berth_runtime::{
    procfs::{Source, Words},
    seccomp::Listener,
};
use fuser::{Config, Session, SessionACL};

use tree::Tree;

/// Serves both, as far as they are there, until the berth has ended.
pub(crate) fn start(device: Option<OwnedFd>, listener: Option<Listener>, source: Source) {
    let source = Arc::new(source);
    if let Some(device) = device {
        let source = Arc::clone(&source);
        // It reads the device blocking, in a further thread; this one waits for its end.
        in_thread("emulate", move || {
            // The mount lets in whoever is of the berth's user namespace, and the kernel has seen to that.
            Session::from_fd(Tree::new(source), device, SessionACL::All, Config::default()).and_then(Session::run)
        });
    }
    if let Some(listener) = listener {
        in_thread("sysinfo", move || answer(&listener, &source));
    }
}

fn in_thread(name: &'static str, serve: impl FnOnce() -> io::Result<()> + Send + 'static) {
    let not_served = move |error: &io::Error| tracing::warn!(%error, "{name}: the host's figures, or none, are seen inside from now on");
    let serve = move || drop(serve().inspect_err(not_served));
    if let Err(error) = thread::Builder::new().name(name.into()).spawn(serve) {
        not_served(&error);
    }
}

/// Answers calls of sysinfo(2). A place that the tenant makes slow to write to (a file system of his own) keeps his own callers waiting.
fn answer(listener: &Listener, source: &Source) -> io::Result<()> {
    loop {
        let call = listener.next()?;
        let words = if call.narrow { Words::Bits32 } else { Words::Bits64 };
        match source.sysinfo(&source.place(call.pid), words) {
            Ok(bytes) => call.answer(&bytes),
            Err(_) => call.pass(),
        }
    }
}
