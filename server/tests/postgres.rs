//! The suites of the API and of the store once more, on PostgreSQL. One that is no module here runs on SQLite alone.

#![forbid(unsafe_code)]
#![allow(clippy::duplicate_mod, reason = "each suite brings its support along, as it does where it runs alone")]

mod support;

#[path = "abuse.rs"]
mod abuse;
#[path = "accounts.rs"]
mod accounts;
#[path = "archives.rs"]
mod archives;
#[path = "audit.rs"]
mod audit;
#[path = "backup.rs"]
mod backup;
#[path = "berths.rs"]
mod berths;
#[path = "cli.rs"]
mod cli;
#[path = "cli_lists.rs"]
mod cli_lists;
#[path = "cli_people.rs"]
mod cli_people;
#[path = "cli_quota.rs"]
mod cli_quota;
#[path = "events.rs"]
mod events;
#[path = "failures.rs"]
mod failures;
#[path = "images.rs"]
mod images;
#[path = "jumps.rs"]
mod jumps;
#[path = "keyed.rs"]
mod keyed;
#[path = "lists.rs"]
mod lists;
#[path = "many.rs"]
mod many;
#[path = "policy.rs"]
mod policy;
#[path = "pulls.rs"]
mod pulls;
#[path = "quota.rs"]
mod quota;
#[path = "rebuild.rs"]
mod rebuild;
#[path = "remote.rs"]
mod remote;
#[path = "requests.rs"]
mod requests;
#[path = "rules.rs"]
mod rules;
#[path = "security.rs"]
mod security;
#[path = "sign_in.rs"]
mod sign_in;
#[path = "store.rs"]
mod store;
#[path = "suspension.rs"]
mod suspension;

/// Suites that touch no database, those that name the one they are about, and those that are long and about what no database decides:
/// documents, and who may do what.
const ELSEWHERE: &[&str] = &["document", "matrix", "postgres", "schemathesis", "sqlite"];

use serde_json::json;
use support::{
    Database, ROOT, Server,
    postgres::{Durability, Own},
};

/// That of the server which carries intents out.
const LOCK: i64 = 422_608_794_729;

#[tokio::test]
async fn a_server_of_postgresql_that_goes_and_comes_back_is_told_and_taken_up_again() {
    let own = Own::start(Durability::Kept);
    let server = Server::on(Database::Postgres(own.database())).await;
    server.assign("alice").await;
    own.kill();
    let mut lease = server.store.lease();
    lease.wait_for(|held| !held).await.unwrap();
    for (method, path, body) in [("GET", "/api/v1/berths", None), ("POST", "/api/v1/profiles", Some(json!({ "name": "lab" })))] {
        let (status, answer) = server.send(ROOT, method, path, body).await;
        assert_eq!((status, answer["code"].as_str()), (503, Some("database_unavailable")), "{path}: {answer}");
        assert!(answer["hint"].is_string(), "{answer}");
    }
    assert_eq!(server.send(ROOT, "GET", "/readyz", None).await.0, 503);
    own.again();
    lease.wait_for(|held| *held).await.unwrap();
    assert_eq!(server.get("/api/v1/berths/alice").await["user"], "alice", "what was acknowledged is there");
    // The reconciler works again.
    server.assign("bob").await;
}

#[tokio::test]
async fn a_lock_that_another_server_has_taken_stops_this_ones_reconciler_and_nothing_else() {
    let server = Server::start().await;
    let Database::Postgres(database) = &server.database else { panic!("this is PostgreSQL's program") };
    let mut lease = server.store.lease();
    // Whoever is quick has it: another session waits for it already.
    let mut other = database.hold_lock(LOCK, 6);
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(database.cut_lock(LOCK), "1");
    lease.wait_for(|held| !held).await.unwrap();
    let (status, body) = server.send(ROOT, "GET", "/readyz", None).await;
    assert_eq!(status, 503, "{body}");
    // It stores and shows.
    let (status, accepted) = server.send(ROOT, "POST", "/api/v1/berths", Some(json!({ "user": "alice" }))).await;
    assert_eq!(status, 202, "{accepted}");
    let id = accepted["operation"]["id"].as_str().unwrap();
    assert_eq!(server.get(&format!("/api/v1/operations/{id}")).await["state"], "pending");
    server.until("/api/v1/doctor", |doctor| doctor.to_string().contains("the lock on the database is lost")).await;
    assert!(tokio::task::spawn_blocking(move || other.wait()).await.unwrap().unwrap().success());
    lease.wait_for(|held| *held).await.unwrap();
    server.until(&format!("/api/v1/operations/{id}"), |operation| operation["state"] == "succeeded").await;
}

#[test]
fn every_suite_runs_on_both_databases() {
    let own = include_str!("postgres.rs");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_some_and(|extension| extension == "rs") && !ELSEWHERE.contains(&name.as_str()) {
            assert!(own.contains(&format!("\nmod {name};\n")), "add `#[path = \"{name}.rs\"] mod {name};` to server/tests/postgres.rs");
        }
    }
}
