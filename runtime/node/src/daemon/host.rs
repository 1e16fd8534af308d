//! What the node makes on the host for a berth, and how it is taken away again. Blocking; called from the owner tasks' blocking calls.
//!
//! There is one way to take a berth away, [`Host::dismantle`]: a failed create, a delete, and the repair of what a killed daemon left all
//! go through it. It is idempotent, and the record goes last, so it can be repeated after dying at any instruction.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use berth_protocol::{BerthId, IoLimits, Limits};
use berth_runtime::{
    Error,
    cgroup::{self, Group, Hierarchy, Part},
    container,
    disk::{Backend, Disk, quota_enforced},
    error::{Result, Step, chain},
    fault,
    haste::Haste,
    idmap::{Allocator, share::GiveBack},
    image, net,
    net::{nft, source_ports::Block},
};

use super::{
    calls::Calls,
    config::{self, Config, Reclaim},
    disks::{self, Disks},
    guards::Guards,
    layout::Layout,
    listener::{self, Listener, gone, make_dir},
    network::{egress, entry},
    record::{Phase, Record, Records},
    source_ports::What,
};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

pub(crate) struct Host {
    pub(crate) config: Config,
    pub(crate) layout: Layout,
    pub(crate) hierarchy: Hierarchy,
    /// systemd makes the berths' groups, as scopes.
    pub(crate) systemd: bool,
    pub(crate) table: nft::Table,
    pub(super) guards: Guards,
    /// Held for reading from a change of the table to its record: whoever makes the table anew from the records finds both as one.
    pub(super) told: RwLock<()>,
    pub(crate) records: Records,
    pub(crate) images: image::Store,
    pub(crate) calls: Arc<Calls>,
    pub(crate) disks: Arc<Disks>,
    pub(super) haste: Arc<Haste>,
    ranges: Mutex<Allocator>,
}

/// What is known of a berth that is to be taken away; of a corrupt record not everything is.
pub(crate) struct Remains {
    pub(crate) id: BerthId,
    pub(crate) user: Option<String>,
    pub(crate) uid: Option<u32>,
    pub(crate) link: Option<(String, Ipv4Addr)>,
    /// What the firewall was told of it.
    pub(crate) egress: nft::Egress,
    pub(crate) source_ports: Option<Block>,
    /// Nothing ever ran with its ids.
    pub(crate) unused: bool,
    pub(crate) give_back: Option<GiveBack>,
}

impl Remains {
    pub(crate) fn of(record: &Record) -> Self {
        Self {
            id: record.id,
            user: Some(record.user.clone()),
            uid: Some(record.uid),
            link: Some((record.link.clone(), record.address)),
            egress: egress(&record.policy.egress),
            source_ports: record.block(),
            // Of a throw-away berth nothing on the host could be written to, and nothing of it runs.
            unused: record.phase == Phase::Creating || record.throw_away(),
            give_back: (!record.writable.is_empty()).then(|| GiveBack {
                uid: record.uid,
                gid: record.gid,
                id_base: record.id_base,
                directories: record.writable.clone(),
            }),
        }
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// The limits that control groups carry.
pub(crate) fn group_limits(limits: &Limits) -> cgroup::Limits {
    let IoLimits { read_bps, write_bps, read_iops, write_iops } = limits.io;
    cgroup::Limits {
        cpu_millis: limits.cpu_millis,
        cpu_weight: limits.cpu_weight,
        memory_bytes: limits.memory_bytes,
        memory_high_bytes: limits.memory_high_bytes,
        swap_bytes: limits.swap_bytes,
        pids: limits.pids,
        io: cgroup::Io { read_bps, write_bps, read_iops, write_iops },
    }
}

impl Host {
    /// Opens the node's state: directories, pool, ids. The caller holds the lock.
    pub(crate) fn open(config: Config, layout: Layout) -> Result<Self> {
        for dir in [&layout.state, &layout.log, &layout.run] {
            fs::create_dir_all(dir).step("make", dir.display())?;
        }
        for (dir, mode) in [
            (layout.node_dir(), 0o700),
            (layout.records(), 0o700),
            (layout.spools(), 0o700),
            (layout.berths(), 0o700),
            (layout.images(), 0o700),
            (layout.berth_logs(), 0o700),
            (layout.shims(), 0o700),
            (layout.users(), 0o711),
        ] {
            make_dir(&dir, mode)?;
        }
        let hierarchy = Hierarchy::detect()?;
        let systemd = !hierarchy.hybrid() && Path::new("/run/systemd/system").is_dir();
        let records = Records::new(layout.records());
        records.keep_reserve();
        let pool = pool(&config, &layout)?;
        let table = nft::Table {
            name: format!("berth{}", config.instance),
            link_prefix: config.link_prefix.clone(),
            pool,
            forwarding_is_ours: false,
        };
        let ranges = Mutex::new(Allocator::open(&layout.ranges(), config.ids.first, config.ids.last)?);
        let images = image::Store::open(&layout.images()).map_err(|e| Error::Invalid(chain(&e)))?;
        images.sweep().map_err(|e| Error::Invalid(chain(&e)))?;
        let calls = Arc::new(Calls::open(layout.spools()).step("read", layout.spools().display())?);
        let guards = Guards::default();
        let disks = Arc::new(Disks::new(layout.berths(), config.disk.low_water.0));
        let (haste, told) = (Haste::new(layout.expedited()), RwLock::default());
        let host = Self { config, layout, hierarchy, systemd, table, guards, told, records, images, calls, disks, haste, ranges };
        host.make_group_parent()?;
        Ok(host)
    }

    /// Name and address of the `index`-th link.
    pub(crate) fn link(&self, index: u32) -> Result<(String, Ipv4Addr)> {
        Ok((format!("{}{index}", self.config.link_prefix), net::address(&self.table.pool, index)?))
    }

    /// Directory of all berths' control groups, relative to each hierarchy.
    pub(crate) fn group_parent(&self) -> PathBuf {
        match self.systemd {
            true => PathBuf::from(self.slice()),
            false => PathBuf::from(format!("berth{}", self.config.instance)),
        }
    }

    /// Made once and kept: a berth that goes must not take away what another one is just being made in. A slice is systemd's own affair.
    fn make_group_parent(&self) -> Result<()> {
        if self.systemd {
            return Ok(());
        }
        for mount in self.hierarchy.v1.iter().map(|h| &h.mount).chain([&self.hierarchy.unified]) {
            let dir = mount.join(self.group_parent());
            fs::create_dir_all(&dir).step("make", dir.display())?;
        }
        Ok(())
    }

    /// A dash in a slice's name would mean nesting; an instance has none.
    pub(crate) fn slice(&self) -> String {
        format!("berth{}.slice", self.config.instance)
    }

    pub(crate) fn group_name(&self, id: BerthId) -> String {
        if self.systemd { format!("berth-{id}.scope") } else { id.to_string() }
    }

    pub(crate) fn group(&self, id: BerthId) -> Group {
        Group { hierarchy: self.hierarchy.clone(), path: self.group_parent().join(self.group_name(id)) }
    }

    /// Whether memory of sleeping berths is to be taken back.
    pub(crate) fn reclaims(&self) -> bool {
        match self.config.sleep.reclaim {
            Reclaim::Auto => cgroup::swap_exists(),
            Reclaim::Never => false,
            Reclaim::Always => true,
        }
    }

    pub(crate) fn ranges(&self) -> MutexGuard<'_, Allocator> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn to_give_back(&self) -> Vec<GiveBack> {
        self.ranges().to_give_back()
    }

    pub(crate) fn given_back(&self, done: &GiveBack) -> Result<()> {
        self.ranges().given_back(done)
    }

    /// The inner OCI-runtime wrapper, where every berth can be given a clone of it.
    pub(crate) fn install_wrapper(&self) -> Result<()> {
        container::install_wrapper(&self.layout.inner(), &self.layout.wrapper_program()).map(drop)
    }

    /// Makes everything of a new berth but its running. On failure nothing is left, unless the error says what; then the record is left
    /// too, and the next start of the node goes on undoing.
    pub(crate) fn create(&self, record: &mut Record) -> Result<Listener> {
        self.create_filled(record, |_| Ok(()))
    }

    /// The same, with something on its disk.
    pub(crate) fn create_filled(&self, record: &mut Record, fill: impl FnOnce(&Record) -> Result<()>) -> Result<Listener> {
        let made = self.make(record, fill);
        made.map_err(|cause| match self.dismantle(&Remains { unused: true, ..Remains::of(record) }) {
            Ok(()) => cause,
            Err(error) => Error::Undone { cause: Box::new(cause), leftovers: vec![chain(&error)] },
        })
    }

    fn make(&self, record: &mut Record, fill: impl FnOnce(&Record) -> Result<()>) -> Result<Listener> {
        self.records.save(record)?;
        record.id_base = self.ranges().allocate(&record.id.to_string(), now_ms())?;
        let dir = self.layout.berth_dir(record.id);
        fault::point("make berth directory")?;
        make_dir(&dir, 0o700)?;
        record.disk_backend = self.new_backend(record.id_base);
        fault::point("make disk")?;
        let disk = self.disk(record);
        disk.create(disks::limit(&record.limits))?;
        self.disks.know(record.id, disk, disks::limit(&record.limits));
        fill(record)?;
        self.disks.rest(record.id);
        fault::point("make log directory")?;
        make_dir(&self.layout.log_dir(record.id), 0o700)?;
        fault::point("add to nft table")?;
        if let Some(block) = record.block() {
            self.note_ports(record.id, &record.user, record.uid, block, What::Given)?;
        }
        let _told = self.telling();
        self.table.add(&entry(record))?;
        let listener = Listener::bind(&self.layout, record, &self.calls)?;
        record.phase = Phase::Present;
        let saved = self.records.save(record);
        // The record counts from its rename on: what follows must see one truth.
        saved.inspect_err(|_| record.phase = Phase::Creating)?;
        Ok(listener)
    }

    /// Where the bytes of a berth are.
    pub(crate) fn disk(&self, record: &Record) -> Disk {
        let path = match record.disk_backend {
            Backend::Loop => self.layout.disk(record.id),
            Backend::Directory { .. } => self.layout.disk_dir(record.id),
        };
        Disk { backend: record.disk_backend, path }
    }

    /// How the disk of a new berth is kept. Its project has the number of its first id, which is nobody else's for as long.
    fn new_backend(&self, id_base: u32) -> Backend {
        let config::Disk { backend, without_quota, .. } = self.config.disk;
        match backend {
            config::Backend::Loop => Backend::Loop,
            config::Backend::Directory if without_quota => Backend::Directory { project: None },
            config::Backend::Directory => Backend::Directory { project: Some(id_base) },
            config::Backend::Auto if quota_enforced(&self.layout.berths()) => Backend::Directory { project: Some(id_base) },
            config::Backend::Auto => Backend::Loop,
        }
    }

    /// Whatever the record says, which may be unreadable: a directory first, by what can remove any.
    fn remove_disk(&self, id: BerthId) -> Result<()> {
        self.disks.forget(id);
        let path = self.layout.disk_dir(id);
        if path.exists() {
            let project = self.id_base(id).filter(|_| quota_enforced(&self.layout.berths()));
            Disk { backend: Backend::Directory { project }, path }.remove()?;
        }
        remove_dir(&self.layout.berth_dir(id))
    }

    /// The range of a berth, whatever its record says.
    pub(super) fn id_base(&self, id: BerthId) -> Option<u32> {
        let owner = id.to_string();
        self.ranges().ranges().find(|r| r.owner == owner && r.quarantined_until.is_none()).map(|r| r.base)
    }

    /// Ends and removes what runs of a berth that no shim stands by.
    pub(crate) fn sweep(&self, id: BerthId, link: &str) -> Result<()> {
        fault::point("sweep")?;
        container::sweep(&self.group(id), link)
    }

    /// The same after a run, with what the host holds for it.
    pub(crate) fn sweep_run(&self, id: BerthId, link: &str, shim: u32) -> Result<()> {
        let swept = self.sweep(id, link);
        self.disks.rest(id);
        swept.and_then(|()| self.guard(shim, &[]))
    }

    /// Takes a berth away, record last. Gone already is success, at each step.
    pub(crate) fn dismantle(&self, remains: &Remains) -> Result<()> {
        let Remains { id, user, uid, link, egress, source_ports, unused, give_back } = remains;
        let layout = &self.layout;
        match link {
            Some((link, _)) => self.sweep(*id, link)?,
            None => end_group(&self.group(*id))?,
        }
        if let Some(shim) = self.id_base(*id) {
            self.guard(shim, &[])?;
        }
        if let (Some((link, address)), Some(uid)) = (link, uid) {
            fault::point("remove from nft table")?;
            let shim = self.id_base(*id);
            let (link, egress, source_ports) = (link.clone(), egress.clone(), *source_ports);
            let _told = self.telling();
            self.table.remove(&nft::Entry { link, address: *address, owner: *uid, shim, open: true, egress, source_ports })?;
        }
        if let Some(uid) = uid {
            listener::remove(layout, *uid, user.as_deref())?;
        }
        fault::point("remove shim directory")?;
        remove_dir(&layout.shim_dir(*id))?;
        fault::point("remove disk")?;
        self.remove_disk(*id)?;
        fault::point("remove log directory")?;
        remove_dir(&layout.log_dir(*id))?;
        self.calls.orphan(*id);
        // On a full disk too: whoever has them next is in the list anyway.
        if let (Some(block), Some(uid)) = (source_ports, uid)
            && let Err(error) = self.note_ports(*id, user.as_deref().unwrap_or_default(), *uid, *block, What::TakenBack)
        {
            tracing::error!(%id, error = chain(&error), "not in the list of source ports");
        }
        let quarantine = if *unused { 0 } else { i64::from(self.config.ids.quarantine_days) * DAY_MS };
        self.ranges().release(&id.to_string(), now_ms(), quarantine, give_back.clone())?;
        self.records.remove(*id)?;
        self.records.keep_reserve();
        Ok(())
    }
}

fn remove_dir(dir: &Path) -> Result<()> {
    gone(fs::remove_dir_all(dir)).step("remove", dir.display())
}

/// Kills what is in a group and removes it; nothing there is success.
pub(crate) fn end_group(group: &Group) -> Result<()> {
    for part in [Part::Shim, Part::Payload] {
        group.kill(part)?;
        group.wait_empty(part, Duration::from_secs(15))?;
    }
    group.remove()
}

/// The pool is kept: berths that run have their addresses from it.
fn pool(config: &Config, layout: &Layout) -> Result<String> {
    let file = layout.pool();
    let kept = fs::read_to_string(&file).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let wanted = Some(config.network.pool.clone()).filter(|p| !p.is_empty());
    let in_use = fs::read_dir(layout.records()).is_ok_and(|mut entries| entries.next().is_some());
    match (kept, wanted) {
        (Some(kept), None) => Ok(kept),
        (Some(kept), Some(wanted)) if kept == wanted => Ok(kept),
        (Some(kept), Some(wanted)) if in_use => Err(Error::Invalid(format!(
            "network.pool is {wanted}, but the berths of this node have addresses of {kept}: set it back, or delete the berths first"
        ))),
        (_, wanted) => {
            let chosen = wanted.map_or_else(net::choose_pool, Ok)?;
            fs::write(&file, format!("{chosen}\n")).and_then(|()| fs::File::open(&file)?.sync_all()).step("write", file.display())?;
            Ok(chosen)
        }
    }
}
