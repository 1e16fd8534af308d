//! One TCP stream to a sink, which says at the end how much it had.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Instant,
};

use super::flow::broken;

const PART: usize = 128 * 1024;

/// Listens at all addresses of the host and takes what comes, until the process ends.
pub(super) fn sink() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A sender that goes away in the middle has its own error.
            thread::spawn(move || take(stream));
        }
    });
    Ok(address)
}

/// Nanoseconds from connect(2) to the sink's word that it has all.
pub(super) fn send(address: &str, bytes: u64) -> io::Result<u64> {
    let part = vec![0; PART];
    let began = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    let mut left = bytes;
    while left > 0 {
        let length = left.min(PART as u64);
        stream.write_all(&part[..length as usize])?;
        left -= length;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let time = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    if answer.trim().parse() == Ok(bytes) { Ok(time) } else { Err(broken(&format!("{bytes} bytes were sent, the sink had {answer:?}"))) }
}

fn take(mut stream: TcpStream) -> io::Result<()> {
    let (mut part, mut came) = (vec![0; PART], 0);
    loop {
        match stream.read(&mut part)? {
            0 => return stream.write_all(format!("{came}\n").as_bytes()),
            length => came += length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sink_says_how_much_it_had() {
        let port = sink().unwrap().port();
        assert!(send(&format!("127.0.0.1:{port}"), 1_000_000).unwrap() > 0);
    }
}
