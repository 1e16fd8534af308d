//! Calls of users' Dockers on their way from the node's spools to whoever reads the audit trail.

#![forbid(unsafe_code)]

mod support;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use axum::{body::Body, http::Request};
use berth_protocol::{BerthId, Call, CallRecord, Outcome};
use berth_server::config::Audit;
use serde_json::Value;
use support::{BIN, DAEMON, ROOT, Server, now};

/// Told apart by its container.
fn call(number: usize) -> CallRecord {
    CallRecord::Call(Call {
        at: now(),
        user: "somebody".to_owned(),
        uid: 4711,
        pid: 42,
        command: "docker".to_owned(),
        method: "GET".to_owned(),
        path: format!("/v1.45/containers/{number}/json?size=1"),
        image: None,
        container: Some(number.to_string()),
        status: Some(if number % 10 == 3 { 404 } else { 200 }),
        request_bytes: 100,
        response_bytes: 2000,
        duration_ms: 3,
        outcome: Outcome::Answered,
    })
}

fn calls(range: std::ops::Range<usize>) -> impl Iterator<Item = CallRecord> {
    range.map(call)
}

fn id(berth: &Value) -> BerthId {
    serde_json::from_value(berth["id"].clone()).unwrap()
}

/// All calls of the trail, page by page.
async fn numbers(server: &Server) -> Vec<usize> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/api/v1/audit?kind=call&limit=500{cursor}")).await;
        all.extend(page["items"].as_array().unwrap().iter().map(|row| row["container"].as_str().unwrap().parse::<usize>().unwrap()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

async fn stored(server: &Server, count: usize) -> Vec<usize> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let numbers = numbers(server).await;
        if numbers.len() >= count || Instant::now() > deadline {
            return numbers;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn uid_of(server: &Server, uid: u32, path: &str) -> Value {
    let (status, body) = server.send(uid, "GET", path, None).await;
    assert_eq!(status, 200, "{body}");
    body
}

#[tokio::test]
async fn x11_a_call_is_shown_with_all_that_is_known_of_it_as_the_berths_own_user() {
    let server = Server::start().await;
    let berth = server.assign("alice").await;
    server.node.append(id(&berth), [call(3)]);
    server.until("/api/v1/audit?kind=call", |page| page["items"].as_array().unwrap().len() == 1).await;
    let page = server.get("/api/v1/audit").await;
    let (row, action) = (&page["items"][0], &page["items"][1]);
    // A shim that claims another user is not believed.
    assert_eq!((row["user"].as_str(), row["uid"].as_u64()), (Some("alice"), Some(1005)));
    assert_eq!((row["kind"].as_str(), row["berth_id"].as_str()), (Some("call"), berth["id"].as_str()));
    assert_eq!((row["pid"].as_u64(), row["command"].as_str(), row["method"].as_str()), (Some(42), Some("docker"), Some("GET")));
    assert_eq!((row["version"].as_str(), row["path"].as_str()), (Some("1.45"), Some("/containers/3/json?size=1")));
    assert_eq!((row["status"].as_u64(), row["duration_ms"].as_u64(), row["outcome"].as_str()), (Some(404), Some(3), Some("answered")));
    assert_eq!((row["request_bytes"].as_u64(), row["response_bytes"].as_u64()), (Some(100), Some(2000)));
    assert_eq!((action["kind"].as_str(), action["action"].as_str()), (Some("action"), Some("create_berth")));
}

#[tokio::test]
async fn x11_each_call_is_stored_once_whatever_is_killed_and_whatever_confirmation_is_lost() {
    const COUNT: usize = 6000;
    let mut server = Server::start().await;
    let (alice, bob) = (server.assign("alice").await, server.assign("bob").await);
    server.node.inner.lock().unwrap().deaf = true;
    for part in 0..6 {
        let from = part * COUNT / 6;
        server.node.append(id(&alice), calls(from..from + COUNT / 12));
        server.node.append(id(&bob), calls(from + COUNT / 12..from + COUNT / 6));
        // Somewhere in the middle of it.
        stored(&server, from + 1).await;
        match part {
            1 | 4 => server = server.again().await,
            2 => {
                server.stop_node().await;
                server.start_node();
            }
            3 => server.node.inner.lock().unwrap().deaf = false,
            _ => {}
        }
    }
    let found = stored(&server, COUNT).await;
    assert_eq!((found.len(), found.iter().collect::<BTreeSet<_>>().len()), (COUNT, COUNT));
    server = server.again().await;
    server.node.append(id(&alice), calls(COUNT..COUNT + 1));
    assert_eq!(stored(&server, COUNT + 1).await.len(), COUNT + 1);
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.node.inner.lock().unwrap().spools.values().any(|spool| spool.taken < 10 * spool.records.len() as u64) {
        assert!(Instant::now() < deadline, "not all of it was confirmed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn filters_narrow_and_a_user_sees_his_own_only() {
    let server = Server::start().await;
    let bin = serde_json::json!({ "user": "bin", "allow_system": true });
    let accepted = server.send(ROOT, "POST", "/api/v1/berths", Some(bin)).await;
    server.end_of(accepted).await;
    let (bin, alice) = (server.get("/api/v1/berths/bin").await, server.assign("alice").await);
    server.node.append(id(&bin), calls(0..20));
    server.node.append(id(&alice), calls(20..40));
    stored(&server, 40).await;
    let count = async |uid: u32, query: &str| {
        let page = uid_of(&server, uid, &format!("/api/v1/audit?{query}")).await;
        page["items"].as_array().unwrap().len()
    };
    for (query, found) in [
        ("user=alice", 21),
        ("user=alice&kind=call", 20),
        ("user=alice&kind=action", 1),
        ("path=/containers", 40),
        ("path=/containers/2", 11),
        ("path=/v1.45", 0),
        ("path=/images", 0),
        ("status=400", 4),
        ("status=400&user=bin", 2),
        ("status=405", 0),
        ("kind=action&status=400", 0),
        ("subject=default", 0),
        ("limit=7", 7),
        ("kind=call&since=0", 40),
        ("kind=call&until=1000", 0),
        ("kind=call&since=99999999999999", 0),
    ] {
        assert_eq!(count(ROOT, query).await, found, "{query}");
    }
    let (before, after) = (now() - 60_000, now() + 60_000);
    assert_eq!(count(ROOT, &format!("kind=call&since={before}&until={after}")).await, 40);
    assert_eq!((count(BIN, "kind=call").await, count(BIN, "").await, count(BIN, "user=alice").await), (20, 21, 0));
    assert_eq!((count(DAEMON, "").await, count(BIN, "user=bin&status=400").await), (0, 2));
    for query in ["path=containers", "since=x", "kind=both", "status=x", "after=x", "after=1.x", "limit=0", "what=1"] {
        let (status, body) = server.send(ROOT, "GET", &format!("/api/v1/audit?{query}"), None).await;
        assert_eq!(status, 400, "{query}: {body}");
    }
}

#[tokio::test]
async fn a_follower_gets_everything_that_is_stored_once_and_nothing_of_others() {
    let server = Server::start().await;
    let (alice, bob) = (server.assign("alice").await, server.assign("bob").await);
    let mut follow = server.get("/api/v1/audit").await["follow"].as_str().unwrap().to_owned();
    // The call began long before the one that was stored first: it is new all the same.
    let CallRecord::Call(old) = call(1) else { unreachable!() };
    server.node.append(id(&alice), [call(0), CallRecord::Call(Call { at: now() - 86_400_000, ..old })]);
    server.node.append(id(&bob), calls(2..3));
    let (mut seen, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(20));
    let adding = server.node.clone();
    let id = id(&alice);
    let task = tokio::spawn(async move {
        for number in 3..1500 {
            adding.append(id, [call(number)]);
            if number % 100 == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    while seen.len() < 1499 {
        assert!(Instant::now() < deadline, "{} came", seen.len());
        let page = server.get(&format!("/api/v1/audit?user=alice&limit=100&wait=5&after={follow}")).await;
        seen.extend(page["items"].as_array().unwrap().iter().map(|row| row["container"].as_str().unwrap().parse::<usize>().unwrap()));
        follow = page["follow"].as_str().unwrap().to_owned();
    }
    task.await.unwrap();
    assert_eq!(seen, [0, 1].into_iter().chain(3..1500).collect::<Vec<_>>());
    // Nothing comes: the answer does, once the time is up. An action wakes it.
    let start = Instant::now();
    let page = server.get(&format!("/api/v1/audit?wait=1&user=bob&after={follow}")).await;
    assert_eq!((page["items"].as_array().unwrap().len(), start.elapsed() >= Duration::from_secs(1)), (0, true));
    let path = format!("/api/v1/audit?wait=30&after={}", page["follow"].as_str().unwrap());
    let request = Request::builder().uri(path).extension(berth_server::http::PeerUid(ROOT)).body(Body::empty()).unwrap();
    let (page, stopped) = tokio::join!(server.raw(request), server.send(ROOT, "POST", "/api/v1/berths/bob/stop", None));
    assert_eq!((stopped.0, page.1["items"][0]["action"].as_str()), (202, Some("stop_berth")));
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn l04_a_delete_takes_the_last_calls_with_it_and_lost_calls_are_told() {
    let server = Server::start().await;
    let berth = server.assign("alice").await;
    let lost = CallRecord::Lost { at: now() + 5000, user: "alice".to_owned(), uid: 1005, count: 7 };
    // Not announced: only the delete looks.
    let spool = support::node::Spool { records: calls(0..1200).chain([lost]).collect(), taken: 0 };
    server.node.inner.lock().unwrap().spools.insert(id(&berth), spool);
    let accepted = server.send(ROOT, "DELETE", "/api/v1/berths/alice", None).await;
    assert_eq!(server.end_of(accepted).await["state"], "succeeded");
    assert_eq!(server.node.inner.lock().unwrap().spools[&id(&berth)].taken, 12_010);
    let row = &server.get("/api/v1/audit?kind=call&limit=1").await["items"][0];
    assert_eq!((row["outcome"].as_str(), row["lost"].as_u64(), row["user"].as_str()), (Some("lost"), Some(7), Some("alice")));
}

#[tokio::test]
async fn the_oldest_calls_go_once_all_of_them_pass_their_bound() {
    const COUNT: usize = 12_000;
    let server = Server::keeping(Audit { keep_days: 90, keep_bytes: 2 << 20 }).await;
    let berth = server.assign("alice").await;
    server.node.append(id(&berth), calls(0..COUNT));
    let newest = |page: &Value| page["items"][0]["container"] == (COUNT - 1).to_string().as_str();
    server.until("/api/v1/audit?kind=call&limit=1", newest).await;
    let left = numbers(&server).await;
    let oldest = *left.iter().min().unwrap();
    assert!((2_000..8_000).contains(&left.len()) && left.len() == COUNT - oldest, "{} are left, from {oldest} on", left.len());
    assert_eq!(server.get("/api/v1/audit?kind=action").await["items"].as_array().unwrap().len(), 1);
}

/// `BERTH_TEST_LONG=1 cargo test --release … --nocapture` shows what a real disk and processor do.
#[tokio::test]
async fn thousands_of_calls_a_second_are_stored_and_nobody_waits_for_them() {
    let (count, slowest) = if std::env::var_os("BERTH_TEST_LONG").is_some() { (200_000, 50) } else { (5_000, 1_000) };
    let server = Server::start().await;
    let berth = server.assign("alice").await;
    let start = Instant::now();
    server.node.append(id(&berth), calls(0..count));
    let mut longest = Duration::ZERO;
    loop {
        let asked = Instant::now();
        let accepted = server.send(ROOT, "POST", "/api/v1/berths/alice/stop", None).await;
        assert_eq!(accepted.0, 202);
        longest = longest.max(asked.elapsed());
        let page = server.get(&format!("/api/v1/audit?kind=call&limit=1&path=/containers/{}/json", count - 1)).await;
        if !page["items"].as_array().unwrap().is_empty() {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("{:.0} calls a second, longest change meanwhile {longest:?}", count as f64 / start.elapsed().as_secs_f64());
    assert!(longest < Duration::from_millis(slowest), "a change took {longest:?}");
}
