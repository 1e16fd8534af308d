//! Calls a Docker socket without pause, over connections that are kept and over new ones, until its standard input ends; prints the path of
//! each call that was answered in whole, as soon as it was. No path comes twice.
#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{self, ExitCode},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

const THREADS: usize = 4;

fn main() -> ExitCode {
    let Some(socket) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: berth-tests-calls SOCKET");
        return ExitCode::from(2);
    };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (socket, over) = (&socket, &over);
            scope.spawn(move || {
                let mut connection = None;
                for number in 0.. {
                    if over.load(Relaxed) {
                        return;
                    }
                    let path = format!("/containers/call-{}-{thread}-{number}/json", process::id());
                    match call(socket, &mut connection, &path) {
                        Ok(()) => println!("{path}"),
                        Err(error) => eprintln!("{path}: {error}"),
                    }
                    if thread % 2 == 1 {
                        connection = None;
                    }
                }
            });
        }
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        over.store(true, Relaxed);
    });
    ExitCode::SUCCESS
}

fn call(socket: &PathBuf, connection: &mut Option<BufReader<UnixStream>>, path: &str) -> io::Result<()> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            BufReader::new(stream)
        }
    };
    stream.get_mut().write_all(format!("GET /v1.41{path} HTTP/1.1\r\nHost: docker\r\n\r\n").as_bytes())?;
    let mut length = None;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let header = line.trim_end().to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
        if header.is_empty() {
            break;
        }
    }
    let length: usize = length.ok_or_else(|| io::Error::other("an answer without a length"))?;
    stream.read_exact(&mut vec![0; length])?;
    *connection = Some(stream);
    Ok(())
}
