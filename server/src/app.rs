//! Puts the rooms together and starts them.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::PathBuf,
    sync::Arc,
};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    domain::Clock,
    http::{self, Api, Certificate, Front},
    lifecycle::Lifecycle,
    node_client::{NodeClient, Uploads},
    reconcile::Reconciler,
    service::{self, Authentication, Keys, Listening, Service},
    store::{self, Store},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make the directory {}", path.display())]
    StateDir { path: PathBuf, source: io::Error },
    #[error("cannot lock {}", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("another berth-server works on {}", path.display())]
    Second { path: PathBuf },
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("cannot listen at {}", path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("cannot listen at {address} for metrics")]
    ListenMetrics { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Keys(#[from] service::Error),
    #[error("the listener cannot have its certificate")]
    Certificate(#[from] http::TlsError),
}

/// A running server.
pub struct App {
    store: Arc<Store>,
    /// Held as long as this server works on the database.
    _lock: fs::File,
}

impl App {
    /// Opens the database, binds the socket and starts the tasks; ready when it returns.
    pub async fn start(config: &Config, life: &Lifecycle) -> Result<Self, Error> {
        let path = &config.state_dir;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| Error::StateDir { path: path.clone(), source })?;
        let lock = lock(path.join("server.lock"))?;
        let store = Arc::new(Store::open(&config.location()).await?);
        let clock = Clock::SYSTEM;
        let node = Arc::new(NodeClient::new(config.node_socket.clone(), clock));
        let uploads = Arc::new(Uploads::default());
        let reconciler = Arc::new(Reconciler::new(
            Arc::clone(&store),
            Arc::clone(&node),
            Arc::clone(&uploads),
            config.audit,
            config.accounts.clone(),
            clock,
        ));
        let listening = Arc::new(Listening::default());
        let keys = Keys::open(Some(path.join("access-keys.json")), clock)?;
        let authentication = Authentication::new(keys, Arc::clone(&listening));
        let service = Service::new(Arc::clone(&store), node, uploads, config.policy.clone(), clock, reconciler.report(), authentication);
        let service = Arc::new(service.living_at(&config.state_dir, &config.api_socket));
        life.tasks.spawn(Arc::clone(&service).feed_events(life.soft.clone()));
        let api = Api::new(service, life.tasks.clone(), life.soft.clone(), life.hard.clone()).listening(&config.listen);
        let certificate = Certificate::open(&config.listen, &path.join("tls"), &clock)?;
        let listener = http::listen(&config.api_socket).map_err(|source| Error::Listen { path: config.api_socket.clone(), source })?;
        if let Some(address) = config.metrics.listen {
            let listener = TcpListener::bind(address).await.map_err(|source| Error::ListenMetrics { address, source })?;
            let serving = axum::serve(listener, http::open_metrics(api.clone()));
            let serving = serving.with_graceful_shutdown(life.soft.clone().cancelled_owned());
            let hard = life.hard.clone();
            life.tasks.spawn(async move { drop(hard.run_until_cancelled(serving.into_future()).await) });
            tracing::info!(%address, "metrics");
        }
        let router = http::router(api);
        life.tasks.spawn(reconciler.run(life.tasks.clone(), life.soft.clone(), life.hard.clone()));
        if let Some(address) = config.listen.socket_address() {
            let front =
                Front { address, listen: config.listen.clone(), certificate: certificate.clone(), listening: Arc::clone(&listening) };
            life.tasks.spawn(http::serve_tcp(front, router.clone(), life.tasks.clone(), life.soft.clone(), life.hard.clone()));
        }
        life.tasks.spawn(renew(certificate, listening, life.soft.clone()));
        life.tasks.spawn(http::serve(listener, router, life.tasks.clone(), life.soft.clone(), life.hard.clone()));
        tracing::info!(socket = %config.api_socket.display(), "ready");
        Ok(Self { store, _lock: lock })
    }

    /// Closes the database; all tasks must have ended.
    pub async fn close(self) {
        self.store.close().await;
    }
}

/// Takes up another certificate, and says so to the doctor.
async fn renew(certificate: Option<Arc<Certificate>>, listening: Arc<Listening>, soft: CancellationToken) {
    let renewed = |fingerprint| {
        if let Some(url) = listening.url() {
            listening.at(url, Some(fingerprint));
        }
    };
    if let Err(error) = http::watch(certificate, renewed, soft).await {
        tracing::error!(%error, "cannot wait for SIGHUP");
    }
}

fn lock(path: PathBuf) -> Result<fs::File, Error> {
    let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let file = file.map_err(|source| Error::Lock { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Second { path }),
        Err(fs::TryLockError::Error(source)) => Err(Error::Lock { path, source }),
    }
}
