//! Images pulled from registries: honest ones, and those that lie, over a stand-in for the node.

#![forbid(unsafe_code)]

mod support;

use std::{pin::pin, time::Duration};

use berth_server::{
    domain::{Login, Problem, RegistryAccess},
    registry::{self, Patience},
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use support::{
    ROOT, Server,
    registry::{Lie, Registry, USER, WORD, digest},
};

const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(5), silence: Duration::from_millis(400), tries: 3, pause: Duration::from_millis(10) };

/// Everything that the registry has of the image.
async fn pull(registry: &Registry, access: RegistryAccess) -> Result<Vec<u8>, Problem> {
    let found = registry::find(&registry.reference(), access, PATIENCE).await.map_err(|error| error.problem())?;
    let total = found.total();
    let mut stream = pin!(found.stream());
    let mut all = Vec::new();
    while let Some(part) = stream.next().await {
        all.extend_from_slice(&part.map_err(|error| error.problem())?);
    }
    assert_eq!(all.len() as u64, total);
    Ok(all)
}

fn login(password: &str) -> Option<Login> {
    Some(Login { username: USER.to_owned(), password: password.to_owned() })
}

#[tokio::test]
async fn each_lie_of_a_registry_has_a_clear_end() {
    for (lie, code, reason) in [
        (Lie::Schema1, "image_refused", "schema 1"),
        (Lie::Foreign, "image_refused", "linux/s390x"),
        (Lie::Layer, "registry_mismatch", "expected sha256:"),
        (Lie::Manifest, "registry_mismatch", "the manifest"),
        (Lie::Length, "registry_mismatch", "expected 400000, found 399999"),
        (Lie::Short, "registry_mismatch", "expected 400000, found 4"),
        (Lie::Endless, "registry_mismatch", "expected 400000, found more"),
        (Lie::Huge, "image_too_large", "the most is 34359738368"),
        (Lie::EndlessManifest, "image_too_large", "the manifest"),
        (Lie::Stall, "registry_silent", "150000 of 400000 bytes"),
        (Lie::Mute, "registry_silent", "has said nothing"),
        (Lie::Circle, "registry_failed", "5 are followed"),
        (Lie::Broken, "registry_failed", "503"),
        (Lie::Basic, "registry_login", "wants a login for team/base"),
        (Lie::Token, "registry_login", "wants a login for team/base"),
    ] {
        let registry = Registry::start(lie).await;
        let problem = tokio::time::timeout(Duration::from_secs(20), pull(&registry, registry.plain())).await;
        let problem = problem.unwrap_or_else(|_| panic!("{lie:?} goes on for ever")).expect_err(&format!("{lie:?}"));
        assert!(problem.code == code && problem.detail.contains(reason) && problem.hint.is_some(), "{lie:?}: {problem:?}");
        if lie == Lie::Huge {
            assert_eq!(registry.asked(&digest(&registry.layer)), 0, "what is too large is not begun");
        }
    }
    let registry = Registry::start(Lie::Away).await;
    let problem = pull(&registry, registry.plain()).await.unwrap_err();
    assert!(problem.code == "registry_unreachable" && problem.detail.contains("192.0.2.1"), "{problem:?}");
}

#[tokio::test]
async fn a_layer_that_breaks_off_is_taken_up_where_it_was() {
    for (lie, reads) in [(Lie::None, 1), (Lie::Index, 1), (Lie::Once, 2), (Lie::OnceWithoutRanges, 2)] {
        let registry = Registry::start(lie).await;
        let all = pull(&registry, registry.plain()).await.unwrap_or_else(|problem| panic!("{lie:?}: {problem:?}"));
        assert!(all.windows(registry.layer.len()).step_by(512).any(|part| part == *registry.layer), "{lie:?}: the layer is not in it");
        assert_eq!(registry.asked(&digest(&registry.layer)), reads, "{lie:?}");
        assert_eq!(registry.asked("range: bytes=150000-"), reads - 1, "{lie:?}");
    }
}

#[tokio::test]
async fn a_login_goes_to_the_registry_and_nowhere_else() {
    let storage = Registry::start(Lie::None).await;
    for lie in [Lie::Basic, Lie::Token] {
        let registry = Registry::with(lie, Some(storage.address.clone())).await;
        pull(&registry, RegistryAccess { login: login(WORD), ..registry.plain() }).await.unwrap();
        assert!(registry.asked("authorization: ") > 0);
        let refused = pull(&registry, RegistryAccess { login: login("wrong"), ..registry.plain() }).await.unwrap_err();
        assert!(refused.code == "registry_login" && refused.detail.contains("does not take this login"), "{refused:?}");
    }
    assert!(storage.asked("/blobs/") >= 2 && storage.asked("authorization: ") == 0, "{:?}", storage.seen);
}

async fn ask(server: &Server, body: Value) -> (u16, Value) {
    server.send(ROOT, "POST", "/api/v1/images/base/pull", Some(body)).await
}

#[tokio::test]
async fn a_pull_is_an_operation_that_shows_no_login() {
    let server = Server::start().await;
    let registry = Registry::start(Lie::Basic).await;
    let reference = registry.reference().to_string();
    let wanted =
        |password: &str| json!({ "reference": reference, "plain_http": true, "login": { "username": USER, "password": password } });
    let operation = server.end_of(ask(&server, wanted(WORD)).await).await;
    assert_eq!((operation["state"].as_str(), operation["kind"].as_str()), (Some("succeeded"), Some("image_pull")), "{operation}");
    assert_eq!(operation["progress"]["done"], operation["progress"]["total"], "{operation}");
    assert_eq!(operation["progress"]["total"].as_u64(), Some(server.node.inner.lock().unwrap().imported as u64));
    let failed = server.end_of(ask(&server, wanted("hemp rope 32")).await).await;
    assert_eq!((failed["state"].as_str(), failed["problem"]["code"].as_str()), (Some("failed"), Some("registry_login")), "{failed}");
    let audit = server.get("/api/v1/audit").await;
    assert_eq!(audit["items"][0]["details"]["reference"], reference, "{audit}");
    for text in [audit.to_string(), server.get("/api/v1/operations").await.to_string()] {
        assert!(!text.contains("hemp") && !text.contains(USER), "{text}");
    }
}

#[tokio::test]
async fn a_lie_reaches_nobodys_disk() {
    let server = Server::start().await;
    let registry = Registry::start(Lie::Layer).await;
    let body = json!({ "reference": registry.reference().to_string(), "plain_http": true });
    let operation = server.end_of(ask(&server, body).await).await;
    assert_eq!(operation["problem"]["code"], "registry_mismatch", "{operation}");
    assert_eq!(server.node.inner.lock().unwrap().imported, 0, "the node saw it break off");
}

#[tokio::test]
async fn a_pull_is_cancelled_while_the_registry_says_nothing() {
    let server = Server::start().await;
    let registry = Registry::start(Lie::Stall).await;
    let (status, accepted) = ask(&server, json!({ "reference": registry.reference().to_string(), "plain_http": true })).await;
    assert_eq!(status, 202, "{accepted}");
    let path = format!("/api/v1/operations/{}", accepted["operation"]["id"].as_str().unwrap());
    server.until(&path, |operation| operation["progress"]["done"].as_u64().is_some_and(|done| done > 150_000)).await;
    assert_eq!(server.get(&path).await["step"], "receiving");
    let (status, cancelled) = server.send(ROOT, "POST", &format!("{path}/cancel"), None).await;
    assert_eq!((status, cancelled["state"].as_str()), (200, Some("cancelled")), "{cancelled}");
    registry.tell(Lie::None);
    let body = json!({ "reference": registry.reference().to_string(), "plain_http": true });
    assert_eq!(server.end_of(ask(&server, body).await).await["state"], "succeeded", "the next one is not held up");
}

#[tokio::test]
async fn a_restart_begins_a_pull_anew_unless_it_had_a_login() {
    let server = Server::start().await;
    let registry = Registry::start(Lie::Stall).await;
    let public = json!({ "reference": registry.reference().to_string(), "plain_http": true });
    let mut private = public.clone();
    private["login"] = json!({ "username": USER, "password": WORD });
    let mut paths = Vec::new();
    for body in [public, private] {
        let (status, accepted) = ask(&server, body).await;
        assert_eq!(status, 202, "{accepted}");
        let path = format!("/api/v1/operations/{}", accepted["operation"]["id"].as_str().unwrap());
        server.until(&path, |operation| operation["step"] == "receiving").await;
        paths.push(path);
    }
    let server = server.again().await;
    registry.tell(Lie::None);
    let private = server.until(&paths[1], |operation| operation["finished_at"].is_i64()).await;
    assert_eq!(private["problem"]["code"], "pull_interrupted", "{private}");
    let public = server.end_of((202, json!({ "operation": { "id": paths[0].rsplit('/').next() } }))).await;
    assert_eq!(public["state"], "succeeded", "{public}");
}

#[tokio::test]
async fn what_cannot_be_pulled_is_refused_at_once() {
    let server = Server::start().await;
    for (body, code) in [
        (json!({ "reference": "https://r.example.org/x" }), "invalid_reference"),
        (json!({ "reference": "alice:secret@r.example.org/x" }), "invalid_reference"),
        (json!({ "reference": "r.example.org/x", "plain_http": true }), "plain_http_refused"),
        (json!({ "reference": "r.example.org/x", "certificates": "none" }), "invalid_certificates"),
        (json!({ "reference": "r.example.org/x", "login": { "username": "", "password": "x" } }), "invalid_login"),
        (json!({ "reference": "r.example.org/x", "password": "x" }), "invalid_body"),
    ] {
        let (status, refused) = ask(&server, body).await;
        assert_eq!((status, refused["code"].as_str()), (400, Some(code)), "{refused}");
        assert!(!refused.to_string().contains("secret"), "{refused}");
    }
    assert_eq!(server.get("/api/v1/operations").await["items"], json!([]));
}
