use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    process, thread,
    time::Duration,
};

use rustix::net::{AddressFamily, SocketType, sockopt};
use serde_json::json;

use crate::{
    Failure,
    report::{Done, outcome, parse, say},
};

const PATIENCE: Duration = Duration::from_secs(2);
const MOST: usize = 64 << 10;

/// Answers whoever comes until standard input ends.
pub(crate) fn listen(kind: &str, address: &str, text: &str) -> Done {
    thread::spawn(|| {
        crate::report::hold();
        process::exit(0);
    });
    let mut buffer = vec![0; MOST];
    match kind {
        "tcp" => {
            let listener = match TcpListener::bind(address) {
                Ok(listener) => listener,
                refused => return outcome(refused, json!({})),
            };
            outcome(Ok::<_, io::Error>(()), json!({ "address": listener.local_addr().ok().map(|a| a.to_string()) }))?;
            for peer in listener.incoming().flatten() {
                say(&json!({ "peer": peer.peer_addr().ok().map(|a| a.to_string()) }))?;
                let _ = (&peer).write_all(text.as_bytes());
            }
            Ok(())
        }
        "udp" => {
            let socket = match UdpSocket::bind(address) {
                Ok(socket) => socket,
                refused => return outcome(refused, json!({})),
            };
            outcome(Ok::<_, io::Error>(()), json!({ "address": socket.local_addr().ok().map(|a| a.to_string()) }))?;
            while let Ok((count, peer)) = socket.recv_from(&mut buffer) {
                say(&json!({ "peer": peer.to_string(), "text": String::from_utf8_lossy(&buffer[..count]) }))?;
                let _ = socket.send_to(text.as_bytes(), peer);
            }
            Ok(())
        }
        _ => Err(Failure::Usage),
    }
}

/// Connects, says something, and waits a moment for an answer.
pub(crate) fn connect(kind: &str, address: &str, text: &str) -> Done {
    let mut answer = Vec::new();
    let attempt = match kind {
        "tcp" => {
            let address: SocketAddr = parse(address)?;
            TcpStream::connect_timeout(&address, PATIENCE).and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                talk(stream, text, &mut answer)
            })
        }
        "unix" => UnixStream::connect(address).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            talk(stream, text, &mut answer)
        }),
        "udp" => {
            let address: SocketAddr = parse(address)?;
            let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
            UdpSocket::bind(any).and_then(|socket| {
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.connect(address)?;
                socket.send(text.as_bytes())?;
                let mut buffer = vec![0; MOST];
                let count = socket.recv(&mut buffer)?;
                answer.extend_from_slice(&buffer[..count]);
                Ok(())
            })
        }
        _ => return Err(Failure::Usage),
    };
    outcome(attempt, json!({ "answer": String::from_utf8_lossy(&answer) }))
}

/// What a privileged program may do inside: choose where a connection comes from.
pub(crate) fn connect_from(kind: &str, port: &str, address: &str, text: &str) -> Done {
    let (port, address): (u16, SocketAddr) = (parse(port)?, parse(address)?);
    let kind = match kind {
        "tcp" => SocketType::STREAM,
        "udp" => SocketType::DGRAM,
        _ => return Err(Failure::Usage),
    };
    let mut answer = Vec::new();
    let attempt = (|| {
        let socket = rustix::net::socket(AddressFamily::INET, kind, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
        rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        rustix::net::connect(&socket, &address)?;
        match kind {
            SocketType::STREAM => {
                let stream = TcpStream::from(socket);
                stream.set_read_timeout(Some(PATIENCE))?;
                talk(stream, text, &mut answer)
            }
            _ => UdpSocket::from(socket).send(text.as_bytes()).map(drop),
        }
    })();
    outcome(attempt, json!({ "answer": String::from_utf8_lossy(&answer) }))
}

/// As fast as it goes. A socket holds little that waits for a neighbour, so there are many.
pub(crate) fn flood(first: &str, addresses: &str, ports: &str) -> Done {
    let (first, addresses, ports): (Ipv4Addr, u32, u16) = (parse(first)?, parse(addresses)?, parse(ports)?);
    let (mut sockets, mut sent, mut refused) = (Vec::new(), 0_u32, 0_u32);
    for number in 0..addresses {
        let address = Ipv4Addr::from(u32::from(first) + number);
        if number % 128 == 0 {
            let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) else { break };
            crate::report::need("set up a socket", socket.set_nonblocking(true))?;
            sockets.push(socket);
        }
        for port in 1..=ports {
            match sockets.last().map(|socket| socket.send_to(b"berth-probe", (address, port))) {
                Some(Ok(_)) => sent += 1,
                _ => refused += 1,
            }
        }
    }
    say(&json!({ "sent": sent, "refused": refused }))?;
    crate::report::hold();
    Ok(())
}

/// A peer that says nothing has accepted all the same: only the connection decides.
fn talk(mut stream: impl Read + Write, text: &str, answer: &mut Vec<u8>) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    let _ = stream.take(MOST as u64).read_to_end(answer);
    Ok(())
}
