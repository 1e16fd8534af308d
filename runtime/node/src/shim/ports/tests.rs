use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    thread,
};

use berth_protocol::Idle;
use tempfile::TempDir;
use tokio::{sync::broadcast, time::timeout};

use super::*;
use crate::{link::Guarded, shim::sleep::tests::fake_freezer};

const SOON: Duration = Duration::from_secs(20);
/// Any loopback address but 127.0.0.1 stands for the berth's own.
const BERTH: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 9);

struct Fixture {
    state: Arc<State>,
    sleeper: Arc<Sleeper>,
    published: watch::Sender<Vec<Published>>,
    events: broadcast::Receiver<Event>,
    _freezer: TempDir,
    _serving: AbortOnDropHandle<()>,
}

fn fixture(rules: Rules) -> Fixture {
    let state = Arc::new(State::new());
    let (freezer, files) = fake_freezer();
    let sleeper = Arc::new(Sleeper::new(Arc::clone(&state), "alice", freezer, Idle::default()));
    let (published, looks) = watch::channel(Vec::new());
    let dialer = Dialer { address: BERTH, link: String::new(), inside: inside::tests::inside() };
    state.ports.set_rules(rules);
    let events = state.listen();
    // The shim's uid is one that holds nothing here.
    let ports = Ports::new(Arc::clone(&state), Arc::clone(&sleeper), dialer, 4711, 2_000_224_256, looks);
    let serving = AbortOnDropHandle::new(tokio::spawn(ports.serve()));
    Fixture { state, sleeper, published, events, _freezer: files, _serving: serving }
}

impl Fixture {
    fn publish(&self, ports: &[(Protocol, u16)]) {
        let publish = |&(protocol, port): &(Protocol, u16)| Published {
            protocol,
            port,
            reach: Reach::Berth,
            container: "web".into(),
            container_port: 80,
        };
        self.published.send_replace(ports.iter().map(publish).collect());
    }

    async fn until(&self, wanted: impl Fn(&[HostPort]) -> bool) {
        let mut containers = self.state.containers.subscribe();
        let level = containers.wait_for(|c| wanted(&c.ports.iter().map(|p| p.host.clone()).collect::<Vec<_>>()));
        let reached = timeout(SOON, level).await.is_ok();
        assert!(reached, "{:?}", self.state.containers.borrow().ports);
    }

    /// What the node does.
    fn guard(&self, protocol: Protocol, port: u16) {
        let port = Guarded { protocol: protocol.name().into(), port };
        assert!(self.state.ports.show(&port).is_some());
        self.state.ports.set_guarded(&[port]);
    }
}

/// A service of the berth at a port that is free on 127.0.0.1 too.
fn service() -> u16 {
    let listener = TcpListener::bind((BERTH, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let datagrams = UdpSocket::bind((BERTH, port)).unwrap();
    thread::spawn(move || {
        for mut peer in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut said = String::new();
                let _ = peer.read_to_string(&mut said);
                let _ = peer.write_all(format!("heard {said}").as_bytes());
            });
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, peer)) = datagrams.recv_from(&mut buffer) {
            let _ = datagrams.send_to(&buffer[..length], peer);
        }
    });
    port
}

fn say(port: u16, text: &str) -> std::io::Result<String> {
    let mut peer = TcpStream::connect(("127.0.0.1", port))?;
    peer.set_read_timeout(Some(SOON))?;
    peer.write_all(text.as_bytes())?;
    peer.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    peer.read_to_string(&mut answer)?;
    Ok(answer)
}

async fn said(port: u16, text: &'static str) -> std::io::Result<String> {
    tokio::task::spawn_blocking(move || say(port, text)).await.unwrap()
}

#[tokio::test]
async fn h03_a_port_waits_for_its_guard_opens_and_closes_with_the_container() {
    let mut fixture = fixture(Rules::default());
    let port = service();
    fixture.publish(&[(Protocol::Tcp, port)]);
    fixture.until(|ports| ports == [HostPort::Pending]).await;
    assert!(said(port, "x").await.is_err(), "pending, it refuses");
    // A word about a socket that nobody looked at opens nothing.
    fixture.state.ports.set_guarded(&[Guarded { protocol: "tcp".into(), port }]);
    assert!(said(port, "x").await.is_err());
    fixture.guard(Protocol::Tcp, port);
    fixture.until(|ports| ports == [HostPort::Open]).await;
    assert_eq!(said(port, "hello").await.unwrap(), "heard hello", "half-close goes through");
    assert!(fixture.state.usage.last() > 0);
    fixture.publish(&[]);
    fixture.until(|ports| ports.is_empty()).await;
    assert!(said(port, "x").await.is_err());
    let told: Vec<usize> = std::iter::from_fn(|| match fixture.events.try_recv().ok()? {
        Event::Ports { ports } => Some(ports.len()),
        _ => Some(99),
    })
    .collect();
    assert_eq!(told, [1, 1, 0]);
}

#[tokio::test]
async fn h03_datagrams_go_both_ways_for_several_clients() {
    let fixture = fixture(Rules { open_to: OpenTo::Host, ..Rules::default() });
    let port = service();
    fixture.publish(&[(Protocol::Udp, port)]);
    fixture.until(|ports| ports == [HostPort::Open]).await;
    let asked = tokio::task::spawn_blocking(move || {
        let clients = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        for round in 0..3 {
            for (number, client) in clients.iter().enumerate() {
                client.set_read_timeout(Some(SOON)).unwrap();
                client.send_to(format!("{round} {number}").as_bytes(), ("127.0.0.1", port)).unwrap();
                let mut buffer = [0; 64];
                let (length, from) = client.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..length], from.port()), (format!("{round} {number}").as_bytes(), port));
            }
        }
    });
    asked.await.unwrap();
}

#[tokio::test]
async fn h03_more_udp_clients_of_the_loopback_inside_than_there_are_sockets_are_answered_all() {
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = echo.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, peer)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(&buffer[..length], peer);
        }
    });
    let state = Arc::new(State::new());
    let (freezer, _files) = fake_freezer();
    let sleeper = Arc::new(Sleeper::new(Arc::clone(&state), "alice", freezer, Idle::default()));
    let dialer = Dialer { address: BERTH, link: String::new(), inside: inside::tests::inside() };
    let ports = Ports::new(state, sleeper, dialer, 4711, 2_000_224_256, watch::channel(Vec::new()).1);
    // In one network both cannot have one port: here another one stands for the host's.
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let there = socket.local_addr().unwrap();
    let _serving = AbortOnDropHandle::new(tokio::spawn(udp::serve(socket, Arc::clone(&ports.shared), port, Reach::Loopback)));
    let asked = tokio::task::spawn_blocking(move || {
        let clients = [(); berth_runtime::net::DATAGRAMS * 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        // In the second round each of them has been forgotten meanwhile.
        for (number, client) in clients.iter().enumerate().cycle().take(clients.len() * 2) {
            client.set_read_timeout(Some(SOON)).unwrap();
            client.send_to(number.to_string().as_bytes(), there).unwrap();
            let mut buffer = [0; 64];
            let length = client.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..length], *number.to_string().as_bytes());
        }
    });
    asked.await.unwrap();
}

#[tokio::test]
async fn h03_a_taken_port_is_named_and_had_when_it_is_free() {
    let fixture = fixture(Rules { open_to: OpenTo::Host, ..Rules::default() });
    let port = service();
    let other = TcpListener::bind(("127.0.0.1", port)).unwrap();
    fixture.publish(&[(Protocol::Tcp, port)]);
    fixture
        .until(|ports| matches!(ports, [HostPort::Taken { detail }] if detail.contains("has it; the container is reachable at 127.77.0.9")))
        .await;
    drop(other);
    // The next look, whatever it shows.
    fixture.publish(&[(Protocol::Tcp, port)]);
    fixture.until(|ports| ports == [HostPort::Open]).await;
    assert_eq!(said(port, "x").await.unwrap(), "heard x");
}

#[tokio::test]
async fn h03_the_profile_decides_what_appears() {
    let fixture = fixture(Rules { range: Some((8000, 9000)), ..Rules::default() });
    fixture.publish(&[(Protocol::Tcp, 80), (Protocol::Tcp, 9001)]);
    let refused = |ports: &[HostPort]| ports.iter().all(|p| matches!(p, HostPort::NotAllowed { detail } if detail.contains("8000-9000")));
    fixture.until(|ports| ports.len() == 2 && refused(ports)).await;
    fixture.state.ports.set_rules(Rules { range: Some((1, 65535)), open_to: OpenTo::Host });
    fixture.until(|ports| matches!(ports, [HostPort::NotAllowed { detail }, HostPort::Open] if detail.contains("root's"))).await;
    fixture.state.ports.set_rules(Rules { range: None, ..Rules::default() });
    fixture.until(|ports| matches!(ports, [HostPort::NotAllowed { detail }, _] if detail.contains("off the host"))).await;
}

#[tokio::test]
async fn l07_a_suspended_berth_has_no_ports_and_gets_them_back() {
    let fixture = fixture(Rules { open_to: OpenTo::Host, ..Rules::default() });
    let port = service();
    fixture.publish(&[(Protocol::Tcp, port)]);
    fixture.until(|ports| ports == [HostPort::Open]).await;
    let mut open = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // Somebody took it on: only then is it a connection that the suspension ends.
    timeout(SOON, async {
        while !fixture.state.usage.under_way() {
            tokio::task::yield_now().await
        }
    })
    .await
    .unwrap();
    fixture.sleeper.suspend("x".into()).await.unwrap();
    fixture.until(|ports| matches!(ports, [HostPort::NotAllowed { .. }])).await;
    assert!(said(port, "x").await.is_err());
    let ended = tokio::task::spawn_blocking(move || {
        open.set_read_timeout(Some(SOON)).unwrap();
        open.read(&mut [0; 8])
    });
    assert!(!matches!(ended.await.unwrap(), Ok(1..)));
    fixture.sleeper.resume().unwrap();
    fixture.until(|ports| ports == [HostPort::Open]).await;
    assert_eq!(said(port, "x").await.unwrap(), "heard x");
}

#[tokio::test]
async fn more_ports_than_are_looked_after_do_no_harm() {
    let fixture = fixture(Rules { range: None, ..Rules::default() });
    let many: Vec<_> = (1024..3024).map(|port| (Protocol::Tcp, port)).collect();
    fixture.publish(&many);
    fixture.until(|ports| ports.len() == MOST).await;
    let told = serde_json::to_vec(&fixture.state.containers.borrow().ports).unwrap().len();
    assert!(told < crate::link::MAX_MESSAGE, "{told}");
}
