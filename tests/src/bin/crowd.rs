//! Opens many connections to a Unix socket at once, sends the same bytes on each, and keeps them all until standard input ends. Prints one
//! line of JSON when each of them was answered or cut: `held` by status 200, `refused` by another one, `cut` without an answer, and the
//! first refusal as text.
#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    process::ExitCode,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let (Some(socket), Some(count), Some(request)) = (words.first(), words.get(1).and_then(|n| n.parse::<usize>().ok()), words.get(2))
    else {
        eprintln!("usage: berth-tests-crowd SOCKET COUNT REQUEST   (\\r and \\n in REQUEST as in C)");
        return ExitCode::from(2);
    };
    match crowd(socket, count, &request.replace("\\r", "\r").replace("\\n", "\n")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn crowd(socket: &str, count: usize, request: &str) -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let began = Instant::now();
    // connect(2) waits for room in the queue.
    let streams: Vec<UnixStream> = (0..count)
        .map(|_| {
            let mut stream = UnixStream::connect(socket)?;
            // One that was refused already may be closed.
            let _ = stream.write_all(request.as_bytes());
            stream.set_nonblocking(true)?;
            Ok(stream)
        })
        .collect::<io::Result<_>>()?;
    let connected = began.elapsed();
    let mut silent: Vec<usize> = (0..count).collect();
    let (mut held, mut refused, mut cut, mut first) = (0, 0, 0, None);
    while !silent.is_empty() && began.elapsed() < PATIENCE {
        let mut fds: Vec<_> = silent.iter().map(|&at| PollFd::new(&streams[at], PollFlags::IN)).collect();
        poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }))?;
        let told: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut told = told.into_iter();
        silent.retain(|&at| {
            if told.next() != Some(true) {
                return true;
            }
            let mut text = vec![0; 4096];
            match (&streams[at]).read(&mut text) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Ok(0) | Err(_) => cut += 1,
                Ok(length) if text[..length].starts_with(b"HTTP/1.1 200") => held += 1,
                Ok(length) => {
                    refused += 1;
                    first.get_or_insert_with(|| String::from_utf8_lossy(&text[..length]).into_owned());
                }
            }
            false
        });
    }
    let silent = silent.len();
    println!(
        "{}",
        json!({
            "connected": count, "held": held, "refused": refused, "cut": cut, "silent": silent, "first": first,
            "connect_seconds": connected.as_secs_f64(), "seconds": began.elapsed().as_secs_f64(),
        })
    );
    io::stdout().flush()?;
    let _ = io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}
