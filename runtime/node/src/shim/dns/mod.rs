//! DNS for the berth: queries to the address inside go to the host's resolvers, and to nothing else.
//!
//! The shim itself stays in the host's network namespace, so resolvers on its loopback work (N03); only the two sockets it answers on
//! are inside. Each query has an upstream socket, and so a port, of its own; what comes back must answer that question. Nothing is kept:
//! a forged answer could only reach the berth whose query was guessed.

mod message;
mod upstreams;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::consume_budget,
    time::{sleep, timeout},
};

use self::message::{Code, Query};
pub(crate) use self::upstreams::Upstreams;
use super::{copy::relay, pipe::Pool, scratch};

/// Queries under way at once; more are answered SERVFAIL.
const MOST_QUERIES: usize = 256;
/// Connections at once; more wait in the queue.
const MOST_CONNECTIONS: usize = 32;
/// Longest query over UDP in bytes; a longer one is no query.
const LONGEST_QUERY: usize = 4096;
/// How long the last resolver may take, and any other before the next is asked too.
const LAST: Duration = Duration::from_secs(5);
const EACH: Duration = Duration::from_secs(2);
/// Longest life of a TCP connection.
const CONNECTION: Duration = Duration::from_secs(60);

/// The host's own list of resolvers.
pub(crate) fn host_file() -> PathBuf {
    PathBuf::from("/etc/resolv.conf")
}

/// Answers over UDP for ever.
pub(crate) async fn serve_udp(socket: StdUdpSocket, upstreams: Arc<Upstreams>) {
    let Ok(socket) = socket.set_nonblocking(true).and_then(|()| UdpSocket::from_std(socket)).map(Arc::new) else {
        return tracing::error!("no DNS over UDP inside: the socket is of no use");
    };
    let places = Arc::new(Semaphore::new(MOST_QUERIES));
    loop {
        // A flood must not keep the other tasks from their turn.
        consume_budget().await;
        let (query, client) = match receive(&socket).await {
            Ok(received) => received,
            // An ICMP error of an earlier answer, or a passing shortage.
            Err(_) => {
                sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let code = match message::judge(&query) {
            Query::Ignore => continue,
            Query::Refuse(code) => code,
            Query::Forward => match Arc::clone(&places).try_acquire_owned() {
                Err(_) => Code::ServFail,
                Ok(place) => {
                    let (socket, upstreams) = (Arc::clone(&socket), Arc::clone(&upstreams));
                    tokio::spawn(async move {
                        let answer = ask(&query, &upstreams).await.unwrap_or_else(|| message::refusal(&query, Code::ServFail));
                        let _ = socket.try_send_to(&answer, client);
                        drop(place);
                    });
                    continue;
                }
            },
        };
        let _ = socket.try_send_to(&message::refusal(&query, code), client);
    }
}

async fn receive(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
    loop {
        socket.readable().await?;
        let received = scratch::with(|buffer| {
            socket.try_recv_from(buffer).map(|(length, client)| (length <= LONGEST_QUERY).then(|| (buffer[..length].to_vec(), client)))
        });
        match received {
            Ok(Some(received)) => return Ok(received),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The first good answer; a refusing one when no resolver has better; nothing when none answers.
async fn ask(query: &[u8], upstreams: &Upstreams) -> Option<Vec<u8>> {
    let list = upstreams.list();
    let mut refused = None;
    for (n, &upstream) in list.iter().enumerate() {
        let time = if n + 1 == list.len() { LAST } else { EACH };
        match timeout(time, ask_one(query, upstream)).await {
            // SERVFAIL and REFUSED are about the resolver, not about the name.
            Ok(Ok(answer)) if [2, 5].contains(&message::code(&answer)) => refused = Some(answer),
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(_)) | Err(_) if n == 0 => upstreams.turn_away(),
            Ok(Err(_)) | Err(_) => {}
        }
    }
    refused
}

async fn ask_one(query: &[u8], upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if upstream.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    // Connected: the kernel lets nothing else in, and tells when the port is closed.
    socket.connect(upstream).await?;
    socket.send(query).await?;
    loop {
        socket.readable().await?;
        let answer = scratch::with(|buffer| {
            let length = socket.try_recv(buffer)?;
            Ok(message::answers(query, &buffer[..length]).then(|| buffer[..length].to_vec()))
        });
        match answer {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(error) if io::Error::kind(&error) == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Passes TCP connections on for ever.
pub(crate) async fn serve_tcp(listener: StdTcpListener, upstreams: Arc<Upstreams>) {
    let Ok(listener) = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener)) else {
        return tracing::error!("no DNS over TCP inside: the socket is of no use");
    };
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let upstreams = Arc::clone(&upstreams);
                tokio::spawn(async move {
                    let _ = timeout(CONNECTION, pass(client, &upstreams)).await;
                    drop(place);
                });
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn pass(client: TcpStream, upstreams: &Upstreams) -> io::Result<()> {
    for (n, upstream) in upstreams.list().into_iter().enumerate() {
        match timeout(EACH, TcpStream::connect(upstream)).await {
            Ok(Ok(resolver)) => {
                relay(descriptor(client)?, descriptor(resolver)?, &Pool::default()).await?;
                return Ok(());
            }
            _ if n == 0 => upstreams.turn_away(),
            _ => {}
        }
    }
    Ok(())
}

fn descriptor(socket: TcpStream) -> io::Result<OwnedFd> {
    Ok(socket.into_std()?.into())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpStream as StdTcpStream, UdpSocket as Std},
        thread,
    };

    use super::{message::tests::query, *};

    const HERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

    /// A resolver on loopback that answers each query by `answer`.
    fn resolver(answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
        let socket = Std::bind(HERE).unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                for response in answer(&buffer[..length]) {
                    let _ = socket.send_to(&response, client);
                }
            }
        });
        address
    }

    fn response(query: &[u8], mark: u8) -> Vec<u8> {
        let mut response = query.to_vec();
        response[2] |= 0x80;
        response.push(mark);
        response
    }

    /// Asks a forwarder with these upstreams once.
    async fn forwarded(upstreams: Vec<SocketAddr>, asked: Vec<u8>) -> Vec<u8> {
        let socket = Std::bind(HERE).unwrap();
        let address = socket.local_addr().unwrap();
        let serving = tokio::spawn(serve_udp(socket, Arc::new(Upstreams::new(upstreams, "/nonexistent".into()))));
        let client = UdpSocket::bind(HERE).await.unwrap();
        client.send_to(&asked, address).await.unwrap();
        let mut buffer = vec![0; 4096];
        let length = timeout(Duration::from_secs(20), client.recv(&mut buffer)).await.expect("an answer in time").unwrap();
        serving.abort();
        buffer.truncate(length);
        buffer
    }

    #[tokio::test]
    async fn n03_a_query_goes_out_and_only_its_own_answer_comes_back() {
        let upstream = resolver(|asked| vec![response(&query(1, "evil.example"), 1), asked.to_vec(), vec![0; 3], response(asked, 2)]);
        let asked = query(77, "deb.debian.org");
        assert_eq!(forwarded(vec![upstream], asked.clone()).await, response(&asked, 2));
    }

    #[tokio::test]
    async fn n03_the_next_resolver_is_asked_when_one_is_closed_silent_or_broken() {
        let closed = Std::bind(HERE).unwrap().local_addr().unwrap();
        let silent = resolver(|_| Vec::new());
        let broken = resolver(|asked| vec![message::refusal(asked, Code::ServFail)]);
        let good = resolver(|asked| vec![response(asked, 9)]);
        let asked = query(5, "a.b");
        for bad in [closed, silent, broken] {
            assert_eq!(forwarded(vec![bad, good], asked.clone()).await, response(&asked, 9));
        }
    }

    #[tokio::test]
    async fn n03_no_resolver_at_all_is_servfail_and_an_odd_query_is_answered_here() {
        let asked = query(5, "a.b");
        assert_eq!(forwarded(Vec::new(), asked.clone()).await, message::refusal(&asked, Code::ServFail));
        let mut update = asked.clone();
        update[2] = 0x28;
        assert_eq!(forwarded(Vec::new(), update.clone()).await, message::refusal(&update, Code::NotImp));
    }

    #[tokio::test]
    async fn n03_queries_over_tcp_are_passed_on_to_the_resolver() {
        let upstream = StdTcpListener::bind(HERE).unwrap();
        let resolver = upstream.local_addr().unwrap();
        thread::spawn(move || {
            let (mut client, _) = upstream.accept().unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            client.write_all(text.to_uppercase().as_bytes()).unwrap();
        });
        let listener = StdTcpListener::bind(HERE).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve_tcp(listener, Arc::new(Upstreams::new(vec![resolver], "/nonexistent".into()))));
        let answered = thread::spawn(move || {
            let mut client = StdTcpStream::connect(address).unwrap();
            client.write_all(b"query").unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            text
        });
        while !answered.is_finished() {
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(answered.join().unwrap(), "QUERY");
    }
}
