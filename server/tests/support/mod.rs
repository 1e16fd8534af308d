//! A whole server in this process, over a stand-in for the node.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test program uses a part of it")]

pub mod archives;
pub mod browser;
pub mod daemon;
pub mod database;
pub mod node;
#[path = "../../../tests/src/postgres.rs"]
pub mod postgres;
pub mod program;
pub mod registry;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Extension, Router,
    body::Body,
    http::{Request, header},
    response::Response,
};
use berth_server::{
    config::{Accounts, Audit, Policy},
    domain::Clock,
    http::{Api, PeerUid, router},
    lifecycle::Lifecycle,
    node_client::{NodeClient, Uploads},
    reconcile::Reconciler,
    service::{Authentication, Keys, Listening, Service},
    store::Store,
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinHandle,
};
use tower::ServiceExt;

pub use database::Database;
pub use node::{FakeNode, problem};

pub const ROOT: u32 = 0;
/// The account `daemon` of every Debian host, who has no role.
pub const DAEMON: u32 = 1;
pub const BIN: u32 = 2;
/// The account `nobody`, whom the stand-in for the node takes for an ordinary user.
pub const NOBODY: u32 = 65_534;
/// The account `games`, likewise.
pub const GAMES: u32 = 5;

pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

pub struct Server {
    pub directory: TempDir,
    pub node: FakeNode,
    node_task: Option<JoinHandle<()>>,
    pub store: Arc<Store>,
    /// Where the one-time links lead; nothing until a test says so.
    pub listening: Arc<Listening>,
    router: Router,
    pub api: Api,
    life: Lifecycle,
    audit: Audit,
    accounts: Accounts,
    policy: Policy,
    pub database: Database,
}

impl Server {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = FakeNode::new(directory.path());
        let node_task = Some(node.start());
        Self::over(Database::fresh(), directory, node, node_task, Audit::default(), Accounts::default(), Policy::default()).await
    }

    /// With another policy of what may be promised.
    pub async fn promising(policy: Policy) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = FakeNode::new(directory.path());
        let node_task = Some(node.start());
        Self::over(Database::fresh(), directory, node, node_task, Audit::default(), Accounts::default(), policy).await
    }

    /// With another retention of calls.
    pub async fn keeping(audit: Audit) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = FakeNode::new(directory.path());
        let node_task = Some(node.start());
        Self::over(Database::fresh(), directory, node, node_task, audit, Accounts::default(), Policy::default()).await
    }

    /// With other rules for accounts.
    pub async fn watching(accounts: Accounts) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = FakeNode::new(directory.path());
        let node_task = Some(node.start());
        Self::over(Database::fresh(), directory, node, node_task, Audit::default(), accounts, Policy::default()).await
    }

    pub async fn without_node() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = FakeNode::new(directory.path());
        Self::over(Database::fresh(), directory, node, None, Audit::default(), Accounts::default(), Policy::default()).await
    }

    /// On a database of the test's own.
    pub async fn on(database: Database) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = FakeNode::new(directory.path());
        let node_task = Some(node.start());
        Self::over(database, directory, node, node_task, Audit::default(), Accounts::default(), Policy::default()).await
    }

    #[allow(clippy::too_many_arguments, reason = "all that a test may want to be different")]
    async fn over(
        database: Database,
        directory: TempDir,
        node: FakeNode,
        node_task: Option<JoinHandle<()>>,
        audit: Audit,
        accounts: Accounts,
        policy: Policy,
    ) -> Self {
        let life = Lifecycle::default();
        let store = Arc::new(Store::open(&database.location()).await.unwrap());
        let client = Arc::new(NodeClient::new(node.socket().to_owned(), Clock::SYSTEM));
        let uploads = Arc::new(Uploads::default());
        let reconciler = Arc::new(Reconciler::new(
            Arc::clone(&store),
            Arc::clone(&client),
            Arc::clone(&uploads),
            audit,
            accounts.clone(),
            Clock::SYSTEM,
        ));
        let clock = browser::CLOCK;
        let listening = Arc::new(Listening::default());
        let authentication = Authentication::new(Keys::open(None, clock).unwrap(), Arc::clone(&listening));
        let service = Service::new(Arc::clone(&store), client, uploads, policy.clone(), clock, reconciler.report(), authentication);
        let service = Arc::new(service);
        life.tasks.spawn(Arc::clone(&service).feed_events(life.soft.clone()));
        let api = Api::new(service, life.tasks.clone(), life.soft.clone(), life.hard.clone());
        let router = router(api.clone());
        life.tasks.spawn(reconciler.run(life.tasks.clone(), life.soft.clone(), life.hard.clone()));
        Self { directory, node, node_task, store, listening, router, api, life, audit, accounts, policy, database }
    }

    /// As a signal would: nothing new, what streams ends.
    pub fn drain(&self) {
        self.life.soft.cancel();
    }

    pub async fn stop_node(&mut self) {
        let task = self.node_task.take().unwrap();
        task.abort();
        let _ = task.await;
        self.node.hang_up();
        std::fs::remove_file(self.node.socket()).unwrap();
    }

    pub fn start_node(&mut self) {
        self.node_task = Some(self.node.start());
    }

    /// The same database and node, a new server: what was in memory is lost, as after a kill.
    pub async fn again(self) -> Self {
        self.life.hard.cancel();
        self.life.end(std::future::ready(())).await;
        self.store.close().await;
        Self::over(self.database, self.directory, self.node, self.node_task, self.audit, self.accounts, self.policy).await
    }

    /// A socket on which everybody is `uid`.
    pub fn listen_as(&self, uid: u32) -> PathBuf {
        let path = self.directory.path().join(format!("api-{uid}.sock"));
        let listener = UnixListener::bind(&path).unwrap();
        let router = self.router.clone().layer(Extension(PeerUid(uid)));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        path
    }

    /// The socket as the program serves it: the kernel says who is there.
    pub fn listen_really(&self) -> PathBuf {
        let path = self.directory.path().join("api.sock");
        let listener = berth_server::http::listen(&path).unwrap();
        let life = Lifecycle::default();
        tokio::spawn(berth_server::http::serve(listener, self.router.clone(), life.tasks, life.soft, life.hard));
        path
    }

    /// A port of the loopback on which everybody is `uid`.
    pub async fn listen_tcp(&self, uid: u32) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = self.router.clone().layer(Extension(PeerUid(uid)));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    }

    /// One request; the status and the JSON of the answer.
    pub async fn send(&self, uid: u32, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).extension(PeerUid(uid));
        let request = match body {
            Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        self.raw(request.unwrap()).await
    }

    pub async fn response(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn raw(&self, request: Request<Body>) -> (u16, Value) {
        let response = self.response(request).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes))))
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send(ROOT, "GET", path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Waits until an accepted operation has ended.
    pub async fn end_of(&self, (status, accepted): (u16, Value)) -> Value {
        assert_eq!(status, 202, "{accepted}");
        let id = accepted["operation"]["id"].as_str().unwrap();
        let operation = self.get(&format!("/api/v1/operations/{id}/wait?timeout=20")).await;
        assert!(operation["finished_at"].is_i64(), "it did not end: {operation}");
        operation
    }

    pub async fn assign(&self, user: &str) -> Value {
        let accepted = self.send(ROOT, "POST", "/api/v1/berths", Some(json!({ "user": user }))).await;
        let operation = self.end_of(accepted).await;
        assert_eq!(operation["state"], "succeeded", "{operation}");
        self.get(&format!("/api/v1/berths/{user}")).await
    }

    /// Asks until the answer is as wanted; the last answer is in the panic.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
        loop {
            let (_, body) = self.send(ROOT, "GET", path, None).await;
            if wanted(&body) {
                return body;
            }
            assert!(tokio::time::Instant::now() < deadline, "{path} stayed {body}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
