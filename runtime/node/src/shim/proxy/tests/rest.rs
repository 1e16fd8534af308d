//! Connections that are open while the berth sleeps or is suspended, and while memory is short.

use berth_protocol::Idle;

use super::*;
use crate::shim::{sleep::Rest, state::Containers};

/// Nothing arrives within a moment.
async fn nothing(stream: &mut UnixStream) {
    let came = timeout(Duration::from_millis(100), stream.read_u8()).await;
    assert!(came.is_err(), "{came:?} passed");
}

pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

async fn connected(rig: &Rig, inner: &UnixListener) -> (UnixStream, UnixStream) {
    let client = rig.client().await;
    let (docker, _) = inner.accept().await.unwrap();
    (client, docker)
}

#[tokio::test]
async fn a_byte_on_an_open_connection_wakes_a_berth_that_sleeps_and_arrives() {
    let rig = Rig::new(|_| {});
    let inner = rig.inner();
    let (mut client, mut docker) = connected(&rig, &inner).await;
    exchange(&mut client, &mut docker, PING, PONG).await;
    rig.state.set_engine(Engine::Ready);
    rig.state.containers.send_replace(Containers { running: Some(0), ..Containers::default() });
    rig.proxy.sleeper.set_idle(Idle { freeze_after: Some(0), stop_after: None });
    let sleeper = Arc::clone(&rig.proxy.sleeper);
    let clock = tokio::spawn(async move { sleeper.watch_over().await });
    until("asleep", || rig.proxy.sleeper.asleep()).await;
    clock.abort();
    assert!(matches!(rig.proxy.sleeper.rest(), Rest::Asleep(_)));
    // What Docker still says needs nobody awake.
    docker.write_all(b"late").await.unwrap();
    client.read_exact(&mut [0; 4]).await.unwrap();
    assert!(rig.proxy.sleeper.asleep());
    exchange(&mut client, &mut docker, PING, PONG).await;
    assert_eq!(rig.proxy.sleeper.rest(), Rest::Awake);
}

#[tokio::test]
async fn a_call_keeps_the_berth_awake_from_its_first_byte_to_its_last() {
    let rig = Rig::new(|_| {});
    let inner = rig.inner();
    let (mut client, mut docker) = connected(&rig, &inner).await;
    rig.state.set_engine(Engine::Ready);
    rig.state.containers.send_replace(Containers { running: Some(0), ..Containers::default() });
    rig.proxy.sleeper.set_idle(Idle { freeze_after: Some(0), stop_after: None });
    let sleeper = Arc::clone(&rig.proxy.sleeper);
    let clock = tokio::spawn(async move { sleeper.watch_over().await });
    for _ in 0..20 {
        until("asleep", || rig.proxy.sleeper.asleep()).await;
        // A look, byte by byte, and its answer; nothing of it is written down at once.
        for byte in PING {
            client.write_all(&[*byte]).await.unwrap();
            docker.read_exact(&mut [0]).await.unwrap();
            assert!(!rig.proxy.sleeper.asleep());
        }
        sleep(Duration::from_millis(30)).await;
        assert!(!rig.proxy.sleeper.asleep());
        docker.write_all(PONG).await.unwrap();
        client.read_exact(&mut vec![0; PONG.len()]).await.unwrap();
    }
    assert_eq!(rig.calls(20).await.len(), 20);
    clock.abort();
}

#[tokio::test]
async fn l07_a_byte_on_an_open_connection_waits_until_the_berth_is_resumed() {
    let rig = Rig::new(|_| {});
    let inner = rig.inner();
    let (mut client, mut docker) = connected(&rig, &inner).await;
    exchange(&mut client, &mut docker, PING, PONG).await;
    rig.proxy.sleeper.suspend("maintenance".into()).await.unwrap();
    client.write_all(PING).await.unwrap();
    client.shutdown().await.unwrap();
    nothing(&mut docker).await;
    // A half-close is no hang-up, and nobody new is let in.
    assert_eq!(rig.proxy.open(), 1);
    assert!(rig.ask("GET /info HTTP/1.1\r\n\r\n").await.contains("maintenance"));
    rig.proxy.sleeper.resume().unwrap();
    assert_eq!(read_all(&mut docker).await, PING);
    docker.write_all(PONG).await.unwrap();
    drop(docker);
    assert_eq!(read_all(client).await, PONG);
}

#[tokio::test]
async fn x10_who_hangs_up_while_the_berth_is_suspended_frees_his_place() {
    let rig = Rig::new(|_| {});
    let inner = rig.inner();
    for half_close in [false, true] {
        let (mut client, mut docker) = connected(&rig, &inner).await;
        rig.proxy.sleeper.suspend("maintenance".into()).await.unwrap();
        client.write_all(PING).await.unwrap();
        if half_close {
            client.shutdown().await.unwrap();
        }
        nothing(&mut docker).await;
        assert_eq!(rig.proxy.open(), 1);
        drop(client);
        until("his place is free", || rig.proxy.open() == 0).await;
        assert!(rig.proxy.sleeper.asleep());
        assert!(read_all(docker).await.is_empty(), "nothing passed");
        rig.proxy.sleeper.resume().unwrap();
    }
}

#[tokio::test]
async fn x10_a_stop_ends_a_connection_that_waits_for_a_resume() {
    let rig = Rig::new(|_| {});
    let inner = rig.inner();
    let (mut client, mut docker) = connected(&rig, &inner).await;
    rig.proxy.sleeper.suspend("maintenance".into()).await.unwrap();
    client.write_all(PING).await.unwrap();
    nothing(&mut docker).await;
    rig.proxy.cut.cancel();
    assert!(read_all(client).await.is_empty());
    assert_eq!(rig.proxy.open(), 0);
}

#[tokio::test]
async fn x06_while_memory_is_short_nothing_more_is_held_and_bytes_are_exact() {
    let rig = Rig::new(|_| {});
    let inner = rig.inner();
    let mut most = rig.proxy.budget.store(usize::MAX);
    most.hold(&vec![0; (1 << 20) + 1]);
    assert!(rig.proxy.budget.tight());
    // One that never reads: what it does not take stays with the sender.
    let (_client, mut docker) = connected(&rig, &inner).await;
    while timeout(Duration::from_millis(200), docker.write(&[0; 65536])).await.is_ok() {}
    assert_eq!(rig.proxy.budget.used(), most.bytes().len());
    for case in 0..60 {
        let mut dice = Dice(case * 2 + 1);
        let length = [1, 3_000, 300_000, 2 << 20][case as usize % 4];
        let script = |dice: &mut Dice| Script { seed: case as usize, length: dice.below(length + 1), reset: false };
        let (up, down) = (script(&mut dice), script(&mut dice));
        let (client, docker) = connected(&rig, &inner).await;
        let both = async { tokio::join!(play(client, up, down, case), play(docker, down, up, case ^ 0xffff)) };
        let (got_down, got_up) = timeout(SOON, both).await.unwrap_or_else(|_| panic!("case {case} hangs"));
        assert_eq!((got_up, got_down), (up.length, down.length), "case {case}");
        assert!(rig.proxy.budget.tight());
    }
}
