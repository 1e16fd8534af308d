//! All berths of this node: who has which, what is reserved, and the news of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::StatusCode;
use berth_protocol::{BerthId, BerthStatus, Condition, Ensure, HostUser, Limits, State, Waits, Wanted};
use berth_runtime::{
    idmap,
    net::{self, nft},
};
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    berth::{self, Berth, Origin, READY_DEADLINE, Request, Unmet},
    host::{Host, Remains, now_ms},
    nss::Accounts,
    record::{Corrupt, DOCTOR, Intent, Phase, Record, VERSION},
    refusal::Refusal,
};

/// Berths that are started at once; the rest waits for its turn.
const STARTS_AT_ONCE: usize = 4;
/// Changes that a slow watcher may be behind before it is told everything anew.
const NEWS: usize = 256;
/// Sleeping berths whose memory is taken back at once.
const RECLAIMS_AT_ONCE: usize = 2;

pub(crate) struct Node {
    pub(crate) host: Host,
    pub(crate) accounts: Accounts,
    pub(crate) starts: Semaphore,
    pub(crate) reclaims: Semaphore,
    /// Places for berths that are started unasked; held until their Docker answers.
    pub(crate) returns: Arc<Semaphore>,
    pub(crate) commands: Arc<Semaphore>,
    /// Cancelled when the daemon stops; berths go on.
    pub(crate) stop: CancellationToken,
    /// Cancelled when the host goes down; berths stop in order, all at once.
    pub(crate) down: CancellationToken,
    pub(crate) owners: TaskTracker,
    /// Told when there is something to give back.
    pub(crate) give_back: Notify,
    pub(crate) images: super::images::Work,
    /// Places for writing and reading archives.
    pub(crate) archiving: Arc<Semaphore>,
    /// One question about all accounts at a time.
    pub(crate) asking: tokio::sync::Mutex<()>,
    /// One throw-away berth at a time.
    pub(crate) doctor: tokio::sync::Mutex<()>,
    registry: Mutex<Registry>,
    news: broadcast::Sender<BerthStatus>,
}

#[derive(Default)]
struct Registry {
    berths: BTreeMap<String, Arc<Berth>>,
    corrupt: Vec<Corrupt>,
}

impl Node {
    pub(crate) fn new(host: Host, corrupt: Vec<Corrupt>) -> Arc<Self> {
        let accounts = Accounts::new(host.config.ids.clone());
        Arc::new(Self {
            accounts,
            host,
            starts: Semaphore::new(STARTS_AT_ONCE),
            reclaims: Semaphore::new(RECLAIMS_AT_ONCE),
            returns: Arc::new(Semaphore::new(returns_at_once())),
            commands: Arc::new(Semaphore::new(super::exec::AT_ONCE)),
            stop: CancellationToken::new(),
            down: CancellationToken::new(),
            owners: TaskTracker::new(),
            give_back: Notify::new(),
            images: super::images::Work::default(),
            archiving: Arc::new(Semaphore::new(super::archives::AT_ONCE)),
            asking: tokio::sync::Mutex::default(),
            doctor: tokio::sync::Mutex::default(),
            registry: Mutex::new(Registry { berths: BTreeMap::new(), corrupt }),
            news: broadcast::channel(NEWS).0,
        })
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the owner of a berth whose record was found.
    pub(crate) fn take_up(self: &Arc<Self>, record: Record) -> Arc<Berth> {
        let user = record.user.clone();
        let berth = berth::spawn(self, record, Origin::Found);
        self.registry().berths.insert(user, Arc::clone(&berth));
        berth
    }

    pub(crate) fn find(&self, user: &str) -> Option<Arc<Berth>> {
        self.registry().berths.get(user).map(Arc::clone)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Berth>> {
        self.registry().berths.values().map(Arc::clone).collect()
    }

    /// Those that a server knows of: all but the doctor's.
    pub(crate) fn of_users(&self) -> Vec<Arc<Berth>> {
        self.registry().berths.iter().filter(|(user, _)| *user != DOCTOR).map(|(_, berth)| Arc::clone(berth)).collect()
    }

    pub(crate) fn corrupt(&self) -> Vec<Corrupt> {
        self.registry().corrupt.clone()
    }

    /// The owner of `id` has nothing left to own.
    pub(super) fn forget(&self, user: &str, id: BerthId) {
        let mut registry = self.registry();
        if registry.berths.get(user).is_some_and(|b| b.id == id) {
            registry.berths.remove(user);
        }
    }

    pub(super) fn tell(&self, status: BerthStatus) {
        // Nobody watching is no error.
        let _ = self.news.send(status);
    }

    pub(crate) fn news(&self) -> broadcast::Receiver<BerthStatus> {
        self.news.subscribe()
    }

    /// Users whose berths stand on image `digest`.
    pub(crate) fn users_of(&self, digest: &str) -> Vec<String> {
        let registry = self.registry();
        let corrupt = registry.corrupt.iter().filter(|c| c.image.as_deref() == Some(digest));
        let corrupt = corrupt.map(|c| c.user.clone().unwrap_or_else(|| c.file.display().to_string()));
        registry.berths.iter().filter(|(_, b)| b.image == digest).map(|(user, _)| user.clone()).chain(corrupt).collect()
    }

    /// Every berth as it was last told, corrupt ones included.
    pub(crate) fn statuses(&self) -> Vec<BerthStatus> {
        let mut all: Vec<BerthStatus> = self.of_users().iter().map(|b| b.status.borrow().clone()).collect();
        all.extend(self.corrupt().iter().filter_map(|c| self.corrupt_status(c)));
        all
    }

    /// Every berth with its use of the host. Blocking.
    pub(crate) fn statuses_with_usage(&self) -> Vec<BerthStatus> {
        let mut all: Vec<BerthStatus> = self.of_users().iter().map(|b| b.status_with_usage()).collect();
        all.extend(self.corrupt().iter().filter_map(|c| self.corrupt_status(c)));
        all
    }

    pub(crate) fn corrupt_of(&self, user: &str) -> Option<BerthStatus> {
        self.corrupt().iter().find(|c| c.user.as_deref() == Some(user)).and_then(|c| self.corrupt_status(c))
    }

    fn corrupt_status(&self, corrupt: &Corrupt) -> Option<BerthStatus> {
        let (user, id) = (corrupt.user.clone()?, corrupt.id?);
        let address = corrupt.index.and_then(|i| self.host.link(i).ok()).map(|(_, a)| a.to_string()).unwrap_or_default();
        let message = format!("{} is not readable as a record ({})", corrupt.file.display(), corrupt.reason);
        Some(BerthStatus {
            id,
            state: State::Failed,
            docker_ready: false,
            conditions: vec![Condition { kind: "RecordCorrupt".into(), message, since: now_ms() }],
            image: String::new(),
            limits: Limits { cpu_millis: 0, cpu_weight: 0, memory_bytes: 0, pids: 0, disk_bytes: 0, ..Limits::LEAST },
            uid: corrupt.uid.unwrap_or_default(),
            id_base: 0,
            id_count: idmap::COUNT,
            address,
            socket: corrupt.uid.map(|u| self.host.layout.user_socket(u).to_string_lossy().into_owned()).unwrap_or_default(),
            pid: None,
            started_at: None,
            usage: None,
            suspended: None,
            sleep: None,
            last_used_at: None,
            running_containers: None,
            ports: Vec::new(),
            source_ports: corrupt.source_ports.map(|block| (block.0, block.1)),
            user,
        })
    }

    /// Makes it so; answers once the wanted state is reached. Asking twice is harmless.
    pub(crate) async fn ensure(self: &Arc<Self>, user: &str, ensure: Ensure) -> Result<BerthStatus, Refusal> {
        valid(&ensure)?;
        if ensure.suspended.is_some()
            && let Some(berth) = self.find(user)
            && berth.id == ensure.id
        {
            return self.suspend(&berth, ensure).await;
        }
        let account = self.accounts.find(user).await?;
        self.accounts.admit(&account, ensure.allow_system)?;
        loop {
            if self.stop.is_cancelled() {
                return Err(Refusal::stopping());
            }
            let berth = match self.find(user) {
                Some(berth) => berth,
                None => {
                    let _tied = self.images.tying.read().await;
                    self.validate_new(user, &ensure).await?;
                    self.admit_new(&account, &ensure)?
                }
            };
            let request = |reply| Request::Ensure { ensure: Box::new(ensure.clone()), account: Some(account.clone()), bar: None, reply };
            match berth.ask(request).await {
                Ok(status) if ensure.wanted == Wanted::Running && ensure.suspended.is_none() && self.has_engine(&ensure.image).await => {
                    return Ok(until_ready(&berth, status).await);
                }
                Ok(status) => return Ok(status),
                Err(Unmet::Refused(refusal)) => return Err(refusal),
                // It was just taken away; its owner forgets it in a moment.
                Err(Unmet::Gone) => self.forget(user, berth.id),
            }
        }
    }

    /// The owner of a berth that is to be made, or of what is there already under this id, and the account just looked up.
    pub(crate) async fn place(self: &Arc<Self>, user: &str, ensure: &Ensure) -> Result<(Arc<Berth>, HostUser), Refusal> {
        valid(ensure)?;
        let account = self.accounts.find(user).await?;
        self.accounts.admit(&account, ensure.allow_system)?;
        if let Some(berth) = self.find(user) {
            return Ok((berth, account));
        }
        let _tied = self.images.tying.read().await;
        self.validate_new(user, ensure).await?;
        Ok((self.admit_new(&account, ensure)?, account))
    }

    /// The same of the doctor, whom no name service knows.
    pub(crate) async fn place_throw_away(self: &Arc<Self>, account: &HostUser, ensure: &Ensure) -> Result<Arc<Berth>, Refusal> {
        let _tied = self.images.tying.read().await;
        self.validate_new(&account.name, ensure).await?;
        self.admit_new(account, ensure)
    }

    /// Asks nobody but the berth: an account that vanished or a directory that is out keeps nobody from barring it.
    async fn suspend(self: &Arc<Self>, berth: &Berth, ensure: Ensure) -> Result<BerthStatus, Refusal> {
        let bar = berth.bar();
        let request = |reply| Request::Ensure { ensure: Box::new(ensure), account: None, bar: Some(bar), reply };
        match berth.ask(request).await {
            Ok(status) => Ok(status),
            Err(Unmet::Refused(refusal)) => Err(refusal),
            Err(Unmet::Gone) if self.stop.is_cancelled() => Err(Refusal::stopping()),
            Err(Unmet::Gone) => Err(Refusal::no_berth(&berth.status.borrow().user)),
        }
    }

    /// What a new berth needs of the host.
    async fn validate_new(self: &Arc<Self>, user: &str, ensure: &Ensure) -> Result<(), Refusal> {
        if !super::images::valid_digest(&ensure.image) {
            return Err(Refusal::bad_request(format!("{:?} is no image digest", ensure.image)).hint("sha256: and 64 hexadecimal digits"));
        }
        let (node, image, disk_bytes, user) = (Arc::clone(self), ensure.image.clone(), ensure.limits.disk_bytes, user.to_owned());
        let checked = tokio::task::spawn_blocking(move || {
            let found = node.host.images.get(&image).map_err(|e| Refusal::failed("create_failed", format!("image {image}"), &e))?;
            if found.is_none() {
                let missing = format!("this node has no image {image}");
                return Err(Refusal::new(StatusCode::NOT_FOUND, "image_not_found", missing).hint("berth image list"));
            }
            let (size, free) = node.host.disk_space().map_err(|e| Refusal::failed("create_failed", "the file system of the disks", &e))?;
            let detail = match () {
                () if disk_bytes > size => format!("a disk of {disk_bytes} bytes for {user} does not fit a file system of {size}"),
                () if free < LEAST_FREE => format!("{free} bytes are free for the berth of {user}, the least is {LEAST_FREE}"),
                () => return Ok(()),
            };
            let hint = format!("ask for a smaller disk, or free space below {}", node.host.layout.state.display());
            Err(Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "host_disk_full", detail).hint(hint))
        });
        checked.await.unwrap_or_else(|_| Err(Refusal::stopping()))
    }

    /// Reserves user, id, uid and address in one step, and starts the owner of what is not there yet.
    fn admit_new(self: &Arc<Self>, account: &HostUser, ensure: &Ensure) -> Result<Arc<Berth>, Refusal> {
        let mut registry = self.registry();
        if let Some(berth) = registry.berths.get(&account.name) {
            return Ok(Arc::clone(berth));
        }
        if let Some((other, _)) = registry.berths.iter().find(|(_, b)| b.id == ensure.id) {
            return Err(Refusal::conflict("id_in_use", format!("{} is the berth of {other}", ensure.id)));
        }
        if let Some((other, _)) = registry.berths.iter().find(|(_, b)| b.uid == account.uid) {
            let detail = format!("uid {} of {} has a berth under the name {other}", account.uid, account.name);
            return Err(
                Refusal::conflict("uid_in_use", detail).hint(format!("a uid under a new name inherits nothing: berth delete {other}"))
            );
        }
        let same = |c: &&Corrupt| c.user.as_ref() == Some(&account.name) || c.id == Some(ensure.id) || c.uid == Some(account.uid);
        if let Some(corrupt) = registry.corrupt.iter().find(same) {
            let detail = format!("{} belongs to {} and is not readable ({})", corrupt.file.display(), account.name, corrupt.reason);
            let hint = format!("put the file back from a backup and restart the node, or give up its data: berth delete {}", account.name);
            return Err(Refusal::conflict("record_corrupt", detail).hint(hint));
        }
        let taken = registry.berths.values().map(|b| b.index).chain(registry.corrupt.iter().filter_map(|c| c.index)).collect();
        let prefix = &self.host.config.link_prefix;
        let links = net::link::with_prefix(prefix).map_err(|e| Refusal::failed("create_failed", "no list of links", &e))?;
        let index = free_index(&taken, |index| links.contains(&format!("{prefix}{index}")));
        let (link, address) = self.host.link(index).map_err(|e| Refusal::failed("create_failed", "no address", &e))?;
        let held = registry.berths.values().filter_map(|b| b.source_ports).chain(registry.corrupt.iter().filter_map(|c| c.source_ports));
        let ports = self.host.choose_ports(&held.collect::<Vec<_>>());
        let ports = ports.map_err(|e| Refusal::failed("create_failed", "no source ports", &e).hint("see [network] in node.toml"))?;
        let record = Record {
            version: VERSION,
            id: ensure.id,
            user: account.name.clone(),
            uid: account.uid,
            gid: account.gid,
            home: account.home.clone().into(),
            image: ensure.image.clone(),
            limits: ensure.limits,
            disk_bytes: ensure.limits.disk_bytes,
            disk_inodes: ensure.limits.inodes,
            disk_backend: berth_runtime::disk::Backend::Loop,
            id_base: 0,
            index,
            link,
            address,
            source_ports: Some((ports.0, ports.1)),
            allow_system: ensure.allow_system,
            phase: Phase::Creating,
            intent: Intent::Stopped,
            last_exit: None,
            policy: ensure.policy.clone(),
            started: None,
            suspended: None,
            sleep: None,
            not_shared: Vec::new(),
            writable: Vec::new(),
            rebuild: None,
            rebuilt: None,
            created_at: now_ms(),
        };
        let berth = berth::spawn(self, record, Origin::New);
        registry.berths.insert(account.name.clone(), Arc::clone(&berth));
        Ok(berth)
    }

    /// False for an image with an entry point of its own: whether that ever starts a Docker nobody knows, so nobody waits for it.
    async fn has_engine(self: &Arc<Self>, image: &str) -> bool {
        let (node, image) = (Arc::clone(self), image.to_owned());
        let found = tokio::task::spawn_blocking(move || node.host.images.get(&image)).await;
        let config = found.ok().and_then(Result::ok).flatten().and_then(|image| image.config);
        config.is_none_or(|config| berth::entry(&config).is_empty())
    }

    pub(crate) async fn stop_berth(&self, user: &str) -> Result<BerthStatus, Refusal> {
        let berth = self.find(user).ok_or_else(|| self.not_there(user))?;
        match berth.ask(|reply| Request::Stop { reply }).await {
            Ok(status) => Ok(status),
            Err(Unmet::Refused(refusal)) => Err(refusal),
            Err(Unmet::Gone) if self.stop.is_cancelled() => Err(Refusal::stopping()),
            Err(Unmet::Gone) => Err(Refusal::no_berth(user)),
        }
    }

    /// What of a change would wait for a start; refused as the change would be. Changes nothing.
    pub(crate) async fn preview(&self, user: &str, ensure: Ensure) -> Result<Vec<Waits>, Refusal> {
        valid(&ensure)?;
        let berth = self.find(user).ok_or_else(|| self.not_there(user))?;
        match berth.preview(ensure).await {
            Ok(waits) => Ok(waits),
            Err(Unmet::Refused(refusal)) => Err(refusal),
            Err(Unmet::Gone) if self.stop.is_cancelled() => Err(Refusal::stopping()),
            Err(Unmet::Gone) => Err(Refusal::no_berth(user)),
        }
    }

    /// Nothing is left afterwards; nothing there is success. `id` finds a record of which the user cannot be made out any more.
    pub(crate) async fn delete_berth(self: &Arc<Self>, user: &str, id: Option<BerthId>) -> Result<(), Refusal> {
        if let Some(berth) = self.find(user) {
            return match berth.ask(|reply| Request::Delete { reply }).await {
                Err(Unmet::Refused(refusal)) => Err(refusal),
                Err(Unmet::Gone) if self.stop.is_cancelled() => Err(Refusal::stopping()),
                Ok(_) | Err(Unmet::Gone) => {
                    self.forget(user, berth.id);
                    Ok(())
                }
            };
        }
        let known = |c: &Corrupt| c.user.as_deref() == Some(user) || (c.user.is_none() && c.id.is_some() && c.id == id);
        match self.corrupt().into_iter().find(known) {
            Some(corrupt) => self.delete_corrupt(corrupt, user).await,
            None => Ok(()),
        }
    }

    async fn delete_corrupt(self: &Arc<Self>, corrupt: Corrupt, user: &str) -> Result<(), Refusal> {
        let Corrupt { id: Some(id), uid, index, .. } = corrupt.clone() else { return Ok(()) };
        // What the record does not tell, the link with the user's name does: it leads to the uid.
        let linked = || std::fs::read_link(self.host.layout.user_link(user)?).ok()?.to_str()?.parse().ok();
        let (user, uid) = (Some(user.to_owned()), uid.or_else(linked));
        let link = index.and_then(|i| self.host.link(i).ok());
        let (egress, source_ports) = (nft::Egress::None, corrupt.source_ports);
        let remains = Remains { id, user: user.clone(), uid, link, egress, source_ports, unused: false, give_back: None };
        let node = Arc::clone(self);
        let removed = tokio::task::spawn_blocking(move || node.host.dismantle(&remains)).await;
        let what = format!("the berth of {} is not wholly removed", user.unwrap_or_default());
        match removed {
            Ok(done) => done.map_err(|e| Refusal::failed("delete_failed", what, &e))?,
            Err(_) => return Err(Refusal::stopping()),
        }
        self.registry().corrupt.retain(|c| *c != corrupt);
        Ok(())
    }

    pub(crate) fn not_there(&self, user: &str) -> Refusal {
        match self.corrupt_of(user) {
            Some(status) => {
                let detail = status.conditions.first().map(|c| c.message.clone()).unwrap_or_default();
                Refusal::conflict("record_corrupt", detail).hint(format!("berth doctor; give up its data: berth delete {user}"))
            }
            None => Refusal::no_berth(user),
        }
    }
}

/// The owner's own deadline comes first, and leaves the condition.
const GRACE: Duration = Duration::from_secs(2);
/// Below this a new berth's image could not even be formatted and started.
const LEAST_FREE: u64 = 64 << 20;

impl Host {
    /// Size and free bytes of the file system that holds the berths' disks.
    pub(crate) fn disk_space(&self) -> std::io::Result<(u64, u64)> {
        let stat = rustix::fs::statvfs(self.layout.berths())?;
        Ok((stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
    }
}

/// Checks what needs no look at the host.
fn valid(ensure: &Ensure) -> Result<(), Refusal> {
    ensure.limits.validate().map_err(|error| Refusal::invalid_limits(&error))?;
    ensure.policy.validate().map_err(|error| {
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_policy", error.to_string())
            .hint("write all, internet, none, or networks such as 192.0.2.0/24")
    })
}

/// Waits until the inner Docker answers, or it is known that it does not; the berth runs either way.
pub(crate) async fn until_ready(berth: &Berth, status: BerthStatus) -> BerthStatus {
    let mut watch = berth.status.clone();
    let settled = |s: &BerthStatus| {
        s.docker_ready || !matches!(s.state, State::Running | State::Starting) || s.conditions.iter().any(|c| c.kind == "DockerNotReady")
    };
    match tokio::time::timeout(READY_DEADLINE + GRACE, watch.wait_for(settled)).await {
        Ok(Ok(now)) => now.clone(),
        Ok(Err(_)) => status,
        Err(_) => berth.status.borrow().clone(),
    }
}

/// Berths that come back at once after a boot: each keeps about a processor busy until its Docker answers.
fn returns_at_once() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get()).clamp(2, 8)
}

/// The least index that no record has and no link of the host.
fn free_index(taken: &BTreeSet<u32>, link_exists: impl Fn(u32) -> bool) -> u32 {
    (0..=u32::MAX).find(|i| !taken.contains(i) && !link_exists(*i)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_free_when_neither_record_nor_link_has_it() {
        assert_eq!(free_index(&BTreeSet::from([0, 1, 3]), |i| i == 2), 4);
        assert_eq!(free_index(&BTreeSet::new(), |_| false), 0);
    }
}
