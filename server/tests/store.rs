//! What the store promises on either database: the same answers in the same order, one writer, readers that never write, one leader.

#![forbid(unsafe_code)]

mod support;

use std::{sync::Arc, time::Duration};

use berth_server::{
    domain::{
        AuditEntry, BerthId, Call, CallOutcome, CallRecord, Clock, Kind, Operation, OperationFilter, OperationId, OperationState, Own,
        OwnLimits, Parameters, ProfileName, Subject, Suspension, TrailFilter, UserId, UserName, Wanted, Whose,
    },
    store::{Error, Store, audit, berths, calls, operations, profiles, settings, users},
};
use support::Database;
use uuid::Uuid;

const NOW: i64 = 1_795_000_000_000;

async fn scratch() -> (Database, Store) {
    let database = Database::fresh();
    let store = Store::open(&database.location()).await.unwrap();
    (database, store)
}

fn operation(number: u128, berth: Option<BerthId>) -> Operation {
    Operation {
        id: OperationId(Uuid::from_u128(number)),
        kind: if berth.is_some() { Kind::BerthStart } else { Kind::ImageBuild },
        subject: "default".to_owned(),
        berth_id: berth,
        generation: berth.map(|_| 1),
        parameters: Parameters::None,
        state: OperationState::Pending,
        step: String::new(),
        log: Vec::new(),
        log_lines: 0,
        progress: None,
        result: None,
        problem: None,
        revision: 0,
        actor: "root".to_owned(),
        created_at: 1_000,
        updated_at: 1_000,
        finished_at: None,
    }
}

async fn assign(store: &Store, name: &str, own: &Own) -> BerthId {
    let mut tx = store.begin().await.unwrap();
    let profile = profiles::by_name(&mut tx, &"student".parse::<ProfileName>().unwrap()).await.unwrap().unwrap();
    let (user, id) = (UserId(Uuid::now_v7()), BerthId(Uuid::now_v7()));
    users::insert(&mut tx, user, &name.parse::<UserName>().unwrap(), 1000, NOW).await.unwrap();
    let image = "sha256:00";
    let (wanted, allow_system) = (Wanted::Present, true);
    let berth = berths::NewBerth { id, user, profile: profile.id, image, image_name: "default", own, allow_system, wanted, now: NOW };
    berths::insert(&mut tx, &berth).await.unwrap();
    store.commit(tx).await.unwrap();
    id
}

#[tokio::test]
async fn opening_twice_changes_nothing_and_readers_cannot_write() {
    let (database, store) = scratch().await;
    store.ping(true).await.unwrap();
    assert_eq!(store.check().await.unwrap(), "ok");
    assert!(!store.migrated().steps.is_empty());
    let mut reader = store.reader().await.unwrap();
    let written = settings::set(&mut reader, "x", "y", NOW).await.unwrap_err();
    assert!(written.is_passing(), "{written:?}");
    drop(reader);
    let mut reader = store.snapshot().await.unwrap();
    settings::set(&mut reader, "x", "y", NOW).await.unwrap_err();
    drop(reader);
    store.close().await;
    let again = Store::open(&database.location()).await.unwrap();
    assert!(again.migrated().steps.is_empty());
    assert!(Store::plan(&database.location()).await.unwrap().steps.is_empty());
    let mut reader = again.reader().await.unwrap();
    assert_eq!(profiles::page(&mut reader, "", 10).await.unwrap().len(), 3);
}

#[tokio::test]
async fn what_is_not_committed_is_not_there_and_a_snapshot_stays_as_it_was() {
    let (_database, store) = scratch().await;
    let mut tx = store.begin().await.unwrap();
    settings::set(&mut tx, "a", "1", NOW).await.unwrap();
    drop(tx);
    let mut snapshot = store.snapshot().await.unwrap();
    assert_eq!(settings::get(&mut snapshot, "a").await.unwrap(), None);
    let mut tx = store.begin().await.unwrap();
    settings::set(&mut tx, "a", "2", NOW).await.unwrap();
    store.commit(tx).await.unwrap();
    assert_eq!(settings::get(&mut snapshot, "a").await.unwrap(), None);
    assert_eq!(settings::get(&mut store.reader().await.unwrap(), "a").await.unwrap().as_deref(), Some("2"));
}

#[tokio::test]
async fn writers_come_one_after_the_other() {
    let (_database, store) = scratch().await;
    let store = Arc::new(store);
    let add = |store: Arc<Store>| async move {
        let mut tx = store.begin().await.unwrap();
        let sum: i64 = settings::get(&mut tx, "sum").await.unwrap().map_or(0, |text| text.parse().unwrap());
        tokio::time::sleep(Duration::from_millis(2)).await;
        settings::set(&mut tx, "sum", &(sum + 1).to_string(), NOW).await.unwrap();
        store.commit(tx).await.unwrap();
    };
    let all: Vec<_> = (0..20).map(|_| tokio::spawn(add(Arc::clone(&store)))).collect();
    for one in all {
        one.await.unwrap();
    }
    assert_eq!(settings::get(&mut store.reader().await.unwrap(), "sum").await.unwrap().as_deref(), Some("20"));
}

#[tokio::test]
async fn names_sort_by_their_bytes_and_pages_join() {
    let (_database, store) = scratch().await;
    let names = ["a-b", "a.b", "a_b", "ab", "b", "zz", "zaz"];
    for name in names {
        assign(&store, name, &Own::default()).await;
    }
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    let (mut found, mut after) = (Vec::new(), String::new());
    let mut reader = store.reader().await.unwrap();
    loop {
        let page = berths::page(&mut reader, &after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.user.to_string();
        found.extend(page.into_iter().map(|berth| berth.user.to_string()));
    }
    assert_eq!(found, sorted);
}

#[tokio::test]
async fn a_berth_comes_back_as_it_was_stored_and_sums_count_it() {
    let (_database, store) = scratch().await;
    let limits = OwnLimits { cpu_millis: Some(1500), memory_bytes: Some(1 << 40), inodes: Some(0), ..OwnLimits::default() };
    let own = Own { limits, egress: None };
    let id = assign(&store, "alice", &own).await;
    let mut reader = store.reader().await.unwrap();
    let berth = berths::by_id(&mut reader, id).await.unwrap().unwrap();
    assert_eq!((&berth.own, berth.uid, berth.allow_system, berth.generation, berth.applied), (&own, 1000, true, 1, 0));
    assert_eq!(berths::due(&mut reader).await.unwrap(), [berths::Due { id, generation: 1, urgent: false }]);
    let sums = berths::sums(&mut reader).await.unwrap();
    assert_eq!((sums.cpu_millis, sums.memory_bytes, sums.disk_bytes, sums.berths), (1500, 1 << 40, 5 << 30, 1));
    drop(reader);

    let mut tx = store.begin().await.unwrap();
    let suspension = Suspension { reason: "mining".to_owned(), by: "root".to_owned(), since: NOW };
    assert_eq!(berths::suspend(&mut tx, id, Some(&suspension), NOW).await.unwrap(), 2);
    let [due] = berths::due(&mut tx).await.unwrap()[..] else { panic!("one is due") };
    assert!(due.urgent);
    berths::applied(&mut tx, id, 2, None, NOW).await.unwrap();
    assert_eq!(berths::by_id(&mut tx, id).await.unwrap().unwrap().suspension, Some(suspension));
    assert_eq!(berths::suspend(&mut tx, id, None, NOW).await.unwrap(), 3);
    assert_eq!(berths::want(&mut tx, id, Wanted::Deleted, None, NOW).await.unwrap(), 4);
    assert_eq!(berths::sums(&mut tx).await.unwrap(), berths::Sums::default());
    berths::remove(&mut tx, id, NOW).await.unwrap();
    assert!(berths::by_id(&mut tx, id).await.unwrap().is_none());
    let gone = berths::applied(&mut tx, id, 4, None, NOW).await.unwrap_err();
    assert!(matches!(gone, Error::Gone { .. }), "{gone:?}");
}

#[tokio::test]
async fn a_name_is_given_once_and_what_is_in_use_stays() {
    let (_database, store) = scratch().await;
    assign(&store, "alice", &Own::default()).await;
    let mut tx = store.begin().await.unwrap();
    let name: UserName = "alice".parse().unwrap();
    let taken = users::insert(&mut tx, UserId(Uuid::now_v7()), &name, 1000, NOW).await.unwrap_err();
    assert!(matches!(taken, Error::Exists { .. }), "{taken:?}");
    drop(tx);
    let mut tx = store.begin().await.unwrap();
    let berth = berths::by_user(&mut tx, &name).await.unwrap().unwrap();
    users::remove(&mut tx, berth.user_id).await.unwrap_err();
    drop(tx);
    let mut tx = store.begin().await.unwrap();
    let nul = settings::set(&mut tx, "x", "a\0b", NOW).await.unwrap_err();
    assert!(matches!(nul, Error::Text { .. }), "{nul:?}");
}

#[tokio::test]
async fn old_rows_go_and_what_is_unfinished_stays() {
    let (_database, store) = scratch().await;
    let clock = Clock { now: || 1_000, id: Uuid::now_v7 };
    let mut tx = store.begin().await.unwrap();
    for number in [1, 2] {
        operations::insert(&mut tx, &operation(number, None)).await.unwrap();
    }
    let (first, second) = (OperationId(Uuid::from_u128(1)), OperationId(Uuid::from_u128(2)));
    assert!(operations::set_step(&mut tx, first, "pulling", 1_000).await.unwrap());
    assert!(!operations::set_step(&mut tx, first, "pulling", 1_000).await.unwrap());
    operations::set_log(&mut tx, first, &["ä".to_owned()], 7, 1_000).await.unwrap();
    operations::finish(&mut tx, first, OperationState::Succeeded, Some("sha256:00"), None, 1_000).await.unwrap();
    // What has ended stays ended.
    operations::finish(&mut tx, first, OperationState::Failed, None, None, 2_000).await.unwrap();
    let kept = operations::by_id(&mut tx, first).await.unwrap().unwrap();
    assert_eq!((kept.state, kept.log, kept.log_lines), (OperationState::Succeeded, vec!["ä".to_owned()], 7));
    let page = operations::page(&mut tx, Whose::Everybodys, OperationFilter::default(), None, 10).await.unwrap();
    assert_eq!(page.iter().map(|operation| operation.id).collect::<Vec<_>>(), [second, first]);
    assert_eq!(operations::page(&mut tx, Whose::Named("default"), OperationFilter::default(), Some(second), 10).await.unwrap().len(), 1);
    assert_eq!(operations::page(&mut tx, Whose::OfBerth("default"), OperationFilter::default(), None, 10).await.unwrap().len(), 0);

    let entry = AuditEntry { action: "build_image", subject: Subject::Image("default"), details: serde_json::json!({}), operation: None };
    audit::insert(&mut tx, &clock, None, entry).await.unwrap();
    assert_eq!((operations::prune(&mut tx, 1_000).await.unwrap(), audit::prune(&mut tx, 1_000, 10).await.unwrap()), (0, 0));
    assert_eq!((operations::prune(&mut tx, 1_001).await.unwrap(), audit::prune(&mut tx, 1_001, 10).await.unwrap()), (1, 1));
    assert_eq!(operations::unfinished_images(&mut tx).await.unwrap().len(), 1);
    assert_eq!(operations::count_unfinished_images(&mut tx).await.unwrap(), 1);
}

fn call(seq: i64, berth: BerthId) -> CallRecord {
    let at = NOW + seq;
    let call = Call {
        at,
        user: if seq % 2 == 0 { "alice" } else { "bob" }.to_owned(),
        uid: 1000,
        pid: 42,
        command: "docker".to_owned(),
        method: "GET".to_owned(),
        version: (seq % 3 == 0).then(|| "1.45".to_owned()),
        path: format!("/containers/{seq}/json\0"),
        image: None,
        container: Some("c".to_owned()),
        status: (seq % 5 != 0).then_some(200),
        request_bytes: 1,
        response_bytes: 1 << 40,
        duration_ms: 3,
        outcome: CallOutcome::Answered,
        lost: 0,
    };
    CallRecord { id: calls::call_id(at, seq, berth), seq, berth_id: berth, user_uid: 1000, call }
}

#[tokio::test]
async fn calls_are_found_by_every_filter_and_the_oldest_go() {
    let (_database, store) = scratch().await;
    let berth = BerthId(Uuid::from_u128(7));
    // More than one statement takes, and a rest.
    let all: Vec<_> = (1..=120).map(|seq| call(seq, berth)).collect();
    let mut tx = store.begin().await.unwrap();
    assert_eq!(calls::head(&mut tx).await.unwrap(), 0);
    let total = calls::insert(&mut tx, &all).await.unwrap();
    assert_eq!((calls::head(&mut tx).await.unwrap(), calls::total(&mut tx).await.unwrap()), (120, total));
    let position = calls::Position { position: 9, owner: Some(("alice".to_owned(), 1000)) };
    for _ in 0..2 {
        calls::keep_position(&mut tx, berth, &position, NOW).await.unwrap();
    }
    assert_eq!(calls::position(&mut tx, berth).await.unwrap(), position);
    store.commit(tx).await.unwrap();

    let mut reader = store.snapshot().await.unwrap();
    let none = TrailFilter::default;
    let filters = [
        (none(), 120),
        (TrailFilter { user: Some("alice".to_owned()), ..none() }, 60),
        (TrailFilter { status: Some(200), ..none() }, 96),
        (TrailFilter { path: Some("/containers/11".to_owned()), ..none() }, 11),
        (TrailFilter { since: Some(NOW + 11), until: Some(NOW + 21), ..none() }, 10),
        (TrailFilter { uid: Some(1001), ..none() }, 0),
    ];
    for (filter, wanted) in filters {
        let page = calls::page(&mut reader, &filter, None, 1000).await.unwrap();
        assert!(page.is_sorted_by(|a, b| a.id > b.id));
        assert_eq!(page.len(), wanted, "{filter:?}");
        assert_eq!(calls::stored_between(&mut reader, &filter, 0, 120, 1000).await.unwrap().len(), wanted, "{filter:?}");
    }
    let page = calls::page(&mut reader, &none(), None, 1).await.unwrap();
    let newest = &page[0];
    assert_eq!((newest.seq, newest.call.path.as_str(), newest.call.response_bytes), (120, "/containers/120/json\u{fffd}", 1 << 40));
    drop(reader);

    let mut tx = store.begin().await.unwrap();
    assert_eq!(calls::prune(&mut tx, Some(NOW + 21), 1000).await.unwrap().0, 20);
    assert_eq!(calls::prune(&mut tx, None, 99).await.unwrap().0, 99);
    assert_eq!(calls::prune(&mut tx, None, 99).await.unwrap(), (1, 0));
    calls::prune_positions(&mut tx, NOW + 1).await.unwrap();
    assert_eq!(calls::position(&mut tx, berth).await.unwrap(), calls::Position::default());
}

#[tokio::test]
async fn the_trail_is_read_backwards_and_followed_forwards() {
    let (_database, store) = scratch().await;
    let clock = Clock::SYSTEM;
    let mut tx = store.begin().await.unwrap();
    for number in 0..30 {
        let subject = if number % 3 == 0 { Subject::Image("alice") } else { Subject::Berth("alice") };
        let entry = AuditEntry { action: "start_berth", subject, details: serde_json::json!({ "n": number }), operation: None };
        audit::insert(&mut tx, &clock, None, entry).await.unwrap();
    }
    store.commit(tx).await.unwrap();
    let mut reader = store.snapshot().await.unwrap();
    let head = audit::head(&mut reader).await.unwrap();
    let his = TrailFilter { user: Some("alice".to_owned()), ..TrailFilter::default() };
    let page = audit::page(&mut reader, &his, None, 100).await.unwrap();
    assert_eq!(page.len(), 20, "an image of his name is not his");
    let older = audit::page(&mut reader, &his, Some(page[4].id), 100).await.unwrap();
    assert_eq!(older, page[5..]);
    let mut forwards = audit::between(&mut reader, &his, older[14].id, head, 100).await.unwrap();
    forwards.reverse();
    assert_eq!(forwards, page[..19]);
}

#[tokio::test]
async fn a_second_server_is_refused_and_the_next_one_is_not() {
    let (database, store) = scratch().await;
    let Err(refused) = Store::open(&database.location()).await else { panic!("two at a time") };
    assert!(matches!(refused, Error::Second { .. }), "{refused:?}");
    store.lead().unwrap();
    store.close().await;
    drop(store);
    Store::open(&database.location()).await.unwrap().lead().unwrap();
}

/// Lines in an order of their own, with SQLite's way of writing a boolean.
fn plain(lines: &[u8]) -> Vec<String> {
    let plain = |value: serde_json::Value| match value.as_bool() {
        Some(value) => i64::from(value).into(),
        None => value,
    };
    let lines = std::str::from_utf8(lines).unwrap().lines().map(|line| match serde_json::from_str(line).unwrap() {
        serde_json::Value::Array(row) => serde_json::Value::Array(row.into_iter().map(plain).collect()).to_string(),
        other => other.to_string(),
    });
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn an_export_brings_everything_to_another_database_of_either_kind() {
    let (database, store) = scratch().await;
    let limits = OwnLimits { cpu_millis: Some(1500), memory_bytes: Some(1 << 53), ..OwnLimits::default() };
    let id = assign(&store, "alice", &Own { limits, egress: None }).await;
    let mut tx = store.begin().await.unwrap();
    operations::insert(&mut tx, &operation(1, Some(id))).await.unwrap();
    calls::insert(&mut tx, &(1..=450).map(|seq| call(seq, id)).collect::<Vec<_>>()).await.unwrap();
    settings::set(&mut tx, "odd", "\"quoted\"\n\\ \u{1f6a2} [", NOW).await.unwrap();
    store.commit(tx).await.unwrap();
    let mut lines = Vec::new();
    let rows = Store::export(&database.location(), &mut lines).await.unwrap();
    assert!(rows > 456, "{rows}");

    // The other kind where that runs here, and the same kind.
    let mut others = vec![Database::fresh(), Database::Sqlite(tempfile::tempdir().unwrap())];
    if !support::database::POSTGRES {
        others.push(Database::Postgres(support::postgres::database()));
    }
    for other in others {
        let target = Store::open(&other.location()).await.unwrap();
        assign(&target, "bob", &Own::default()).await;
        assert_eq!(target.import(&mut lines.as_slice()).await.unwrap(), rows);
        let mut again = Vec::new();
        Store::export(&other.location(), &mut again).await.unwrap();
        assert_eq!(plain(&again), plain(&lines));
        let mut reader = target.reader().await.unwrap();
        assert_eq!(berths::by_id(&mut reader, id).await.unwrap(), berths::by_id(&mut store.reader().await.unwrap(), id).await.unwrap());
        assert!(berths::by_user(&mut reader, &"bob".parse().unwrap()).await.unwrap().is_none());
        drop(reader);

        // Damage is seen, and what was there stays.
        let text = String::from_utf8(lines.clone()).unwrap();
        let cut: String = text.lines().take(40).map(|line| format!("{line}\n")).collect();
        let newer = text.replacen("\"migrations\":[1,", "\"migrations\":[0,1,", 1);
        let strange = text.replacen("\"table\":\"calls\"", "\"table\":\"sqlite_master\"", 1);
        let odd = text.replacen("\"user_name\"", "\"user_name\\\" = 1; --\"", 1);
        for (what, damaged) in
            [("cut", &cut), ("newer", &newer), ("strange", &strange), ("odd", &odd), ("half", &text[..text.len() / 2].to_owned())]
        {
            target.import(&mut damaged.as_bytes()).await.expect_err(what);
        }
        let mut reader = target.reader().await.unwrap();
        assert_eq!(settings::get(&mut reader, "odd").await.unwrap().as_deref(), Some("\"quoted\"\n\\ \u{1f6a2} ["));
    }
}
