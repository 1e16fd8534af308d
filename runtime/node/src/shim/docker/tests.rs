use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    sync::{Mutex, mpsc},
    thread,
};

use berth_protocol::Idle;
use tempfile::TempDir;

use super::*;
use crate::shim::sleep::tests::fake_freezer;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 9);

fn parse(text: &str) -> Vec<Published> {
    published(&serde_json::from_str::<Vec<Listed>>(text).unwrap(), ADDRESS)
}

#[test]
fn h03_ports_are_taken_from_the_list_and_only_those_of_ipv4() {
    let all = parse(
        r#"[{"Id":"x","Names":["/db/alias","/web"],"State":"running","Ports":[
            {"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},
            {"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},
            {"IP":"127.0.0.1","PrivatePort":81,"PublicPort":8081,"Type":"tcp"},
            {"IP":"10.213.0.9","PrivatePort":53,"PublicPort":8053,"Type":"udp"},
            {"IP":"172.17.0.1","PrivatePort":1,"PublicPort":9001,"Type":"tcp"},
            {"PrivatePort":443,"Type":"tcp"}]},
           {"Names":null,"Ports":null}]"#,
    );
    let brief: Vec<_> = all.iter().map(|p| (p.protocol, p.port, p.reach, p.container.as_str(), p.container_port)).collect();
    assert_eq!(
        brief,
        [
            (Protocol::Tcp, 8080, Reach::Berth, "web", 80),
            (Protocol::Tcp, 8081, Reach::Loopback, "web", 81),
            (Protocol::Udp, 8053, Reach::Berth, "web", 53),
        ]
    );
}

#[test]
fn what_the_tenant_names_is_bounded_and_printable() {
    let name = format!("/{}\u{1b}[31m", "é".repeat(500));
    let text = serde_json::json!([{ "Names": [name], "Ports": [{ "IP": "0.0.0.0", "PrivatePort": 1, "PublicPort": 2, "Type": "tcp" },
        { "IP": "0.0.0.0", "PrivatePort": 1, "PublicPort": 0, "Type": "tcp" }, { "IP": "0.0.0.0", "PrivatePort": 1, "PublicPort": 3, "Type": "sctp" }] }]);
    let all = parse(&text.to_string());
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].container, "?".repeat(MOST_NAME));
    // The same port at both places is the berth's.
    let both = parse(
        r#"[{"Ports":[{"IP":"127.0.0.1","PrivatePort":1,"PublicPort":2,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":3,"PublicPort":2,"Type":"tcp"}]}]"#,
    );
    assert_eq!((both.len(), both[0].reach), (1, Reach::Berth));
}

/// A Docker that answers looks with what it is given, and passes events on.
struct Fake {
    list: Arc<Mutex<String>>,
    events: mpsc::Sender<&'static str>,
    _dir: TempDir,
    _freezer: TempDir,
    state: Arc<State>,
    published: watch::Receiver<Vec<Published>>,
}

fn fake() -> (Fake, Follower) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("run")).unwrap();
    let listener = UnixListener::bind(dir.path().join("run/docker.sock")).unwrap();
    let list = Arc::new(Mutex::new("[]".to_owned()));
    let (events, receiver) = mpsc::channel();
    let (shown, receiver) = (Arc::clone(&list), Arc::new(Mutex::new(receiver)));
    thread::spawn(move || {
        for docker in listener.incoming().flatten() {
            let (shown, receiver) = (Arc::clone(&shown), Arc::clone(&receiver));
            thread::spawn(move || answer(docker, &shown, &receiver));
        }
    });
    let state = Arc::new(State::new());
    let (freezer, files) = fake_freezer();
    let sleeper = Arc::new(Sleeper::new(Arc::clone(&state), "alice", freezer, Idle::default()));
    let inner = Arc::new(Inner { root: File::open(dir.path()).unwrap().into(), ids: 0..=u32::MAX });
    let (sender, published) = watch::channel(Vec::new());
    state.set_engine(Engine::Ready);
    let follower = Follower { inner, state: Arc::clone(&state), sleeper, address: ADDRESS, published: sender };
    (Fake { list, events, _dir: dir, _freezer: files, state, published }, follower)
}

fn answer(mut docker: UnixStream, list: &Mutex<String>, events: &Mutex<mpsc::Receiver<&'static str>>) {
    let mut lines = BufReader::new(docker.try_clone().unwrap()).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    while lines.next().is_some_and(|line| !line.is_empty()) {}
    if first.starts_with("GET /containers/json") {
        let body = list.lock().unwrap().clone();
        let _ = write!(docker, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        return;
    }
    let _ = docker.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    // An empty event: this Docker goes away.
    while let Ok(event) = events.lock().unwrap().recv()
        && !event.is_empty()
    {
        let _ = write!(docker, "{:x}\r\n{event}\n\r\n", event.len() + 1);
    }
}

async fn running(state: &State, wanted: Option<u32>) {
    let mut containers = state.containers.subscribe();
    timeout(Duration::from_secs(20), containers.wait_for(|c| c.running == wanted)).await.expect("in time").unwrap();
}

#[tokio::test]
async fn a_look_follows_each_event_and_each_new_connection() {
    let (fake, follower) = fake();
    let Fake { list, events, state, mut published, .. } = fake;
    let mut told = state.listen();
    let following = tokio::spawn(follower.follow());
    running(&state, Some(0)).await;
    let web = r#"{"Names":["/web"],"Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"}]}"#;
    *list.lock().unwrap() = format!("[{web}]");
    events.send("{\"status\":\"start\"}").unwrap();
    running(&state, Some(1)).await;
    timeout(Duration::from_secs(20), published.wait_for(|p| p.len() == 1)).await.unwrap().unwrap();
    // Docker starts anew, and nobody says what happened meanwhile.
    *list.lock().unwrap() = format!("[{web},{web},{web}]");
    events.send("").unwrap();
    running(&state, Some(3)).await;
    *list.lock().unwrap() = "[".to_owned();
    events.send("x").unwrap();
    running(&state, None).await;
    *list.lock().unwrap() = "[]".to_owned();
    running(&state, Some(0)).await;
    following.abort();
    let told: Vec<_> = std::iter::from_fn(|| told.try_recv().ok()).collect();
    let counts = [0, 1, 3, 0].map(|running| crate::link::Event::Containers { running });
    assert_eq!(told, counts);
}

#[tokio::test]
async fn nothing_is_asked_while_the_berth_rests() {
    let (fake, follower) = fake();
    let sleeper = Arc::clone(&follower.sleeper);
    sleeper.suspend("x".into()).await.unwrap();
    let following = tokio::spawn(follower.follow());
    assert!(timeout(Duration::from_millis(300), fake.state.containers.subscribe().changed()).await.is_err());
    sleeper.resume().unwrap();
    running(&fake.state, Some(0)).await;
    following.abort();
}
