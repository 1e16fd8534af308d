//! A resolver on the host's loopback, like 127.0.0.53: it knows one zone and keeps what it was asked.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{Arc, Mutex},
    thread,
};

/// Names below it are answered with [`ADDRESS`]; all others do not exist.
pub const ZONE: &str = "bq.test";
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);

/// Answers until the test's process ends, over UDP and TCP.
#[derive(Clone)]
pub struct Dns {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Dns {
    #[track_caller]
    pub fn start() -> Self {
        // The same port for both; a port that is free for one may be taken for the other.
        let (udp, tcp) = (0..50)
            .find_map(|_| {
                let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
                let tcp = TcpListener::bind(udp.local_addr().ok()?).ok()?;
                Some((udp, tcp))
            })
            .expect("bind the resolver");
        let dns = Self { address: udp.local_addr().expect("address"), asked: Arc::default() };
        let of_udp = dns.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = udp.recv_from(&mut buffer) {
                if let Some(answer) = of_udp.answer(&buffer[..length]) {
                    let _ = udp.send_to(&answer, client);
                }
            }
        });
        let of_tcp = dns.clone();
        thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let dns = of_tcp.clone();
                thread::spawn(move || {
                    let mut length = [0; 2];
                    while stream.read_exact(&mut length).is_ok() {
                        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                        let Some(answer) = stream.read_exact(&mut query).ok().and_then(|()| dns.answer(&query)) else { return };
                        let mut framed = u16::try_from(answer.len()).unwrap_or(0).to_be_bytes().to_vec();
                        framed.extend(answer);
                        if stream.write_all(&framed).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        dns
    }

    /// The names that were asked for so far, in small letters.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("lock").clone()
    }

    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let (name, end) = question(query)?;
        let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
        self.asked.lock().expect("lock").push(name.clone());
        let known = name == ZONE || name.ends_with(&format!(".{ZONE}"));
        let mut answer = query[..2].to_vec();
        // Response, recursion desired and available; NXDOMAIN for what is not known.
        answer.extend([0x81, if known { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(known && kind == 1), 0, 0, 0, 0]);
        answer.extend(&query[12..end + 4]);
        if known && kind == 1 {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
            answer.extend(ADDRESS.octets());
        }
        Some(answer)
    }
}

/// The name asked for and where its type stands.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        match length {
            0 => break,
            1..64 => labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase()),
            _ => return None,
        }
        at += length;
    }
    (query.len() >= at + 4).then(|| (labels.join("."), at))
}
