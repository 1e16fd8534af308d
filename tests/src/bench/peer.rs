//! The far end of a measured flow: listens in Docker's place inside the berth, takes what is sent to it and gives what is asked for.

use std::{
    io::{self, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    thread,
};

use super::flow::{self, Framing, broken, head};

/// Listens at `path`, says `ready`, and serves until the input ends.
pub fn listen(path: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    println!("ready");
    thread::spawn(move || serve(&listener));
    io::copy(&mut io::stdin().lock(), &mut io::sink()).map(drop)
}

/// A thread for each connection, as the Docker daemon has a goroutine.
pub fn serve(listener: &UnixListener) {
    for stream in listener.incoming().flatten() {
        // A client that goes away in the middle has its own error.
        thread::spawn(move || requests(&stream));
    }
}

fn requests(mut stream: &UnixStream) -> io::Result<()> {
    let mut reader = flow::reader(stream);
    while let Some(head) = head(&mut reader)? {
        let target = head.first.split(' ').nth(1).unwrap_or_default().to_owned();
        let path = target.split('?').next().unwrap_or_default();
        let asked = |key: &str| target.split(['?', '&']).find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let number = || asked("bytes").and_then(|b| b.parse::<u64>().ok()).ok_or_else(|| broken("how many bytes"));
        if path.ends_with("/_ping") {
            answer(stream, "200 OK", "OK")?;
        } else if path.ends_with("/images/load") {
            let framing = if head.chunked { Framing::Chunked } else { Framing::Length };
            let came = flow::receive(&mut reader, framing, head.length)?;
            answer(stream, "200 OK", &came.to_string())?;
        } else if path.ends_with("/images/get") {
            let bytes = number()?;
            let framing: Framing = asked("framing").unwrap_or_default().parse().map_err(|e: String| broken(&e))?;
            match framing {
                Framing::Chunked => stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?,
                _ => stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").as_bytes())?,
            }
            flow::send(stream, framing, bytes)?;
        } else if path.ends_with("/attach") {
            let bytes = number()?;
            stream.write_all(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")?;
            if asked("stdin").is_some() {
                let came = flow::receive(&mut reader, Framing::Upgraded, bytes)?;
                return stream.write_all(format!("{came}\n").as_bytes());
            }
            return flow::send(stream, Framing::Upgraded, bytes);
        } else {
            answer(stream, "404 Not Found", "{\"message\":\"page not found\"}")?;
        }
    }
    Ok(())
}

fn answer(mut stream: &UnixStream, status: &str, body: &str) -> io::Result<()> {
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes())
}
