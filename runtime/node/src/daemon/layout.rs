//! Every path that the node makes or reads.

use std::path::{Path, PathBuf};

use berth_protocol::BerthId;

use super::config::Config;

#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) run: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) programs: PathBuf,
    pub(crate) recipe: PathBuf,
    /// Archives of berths.
    pub(crate) archives: PathBuf,
}

impl Layout {
    pub(crate) fn new(config: &Config) -> std::io::Result<Self> {
        let programs = match &config.programs_dir {
            Some(dir) => dir.clone(),
            None => std::env::current_exe()?.parent().unwrap_or(Path::new("/")).to_path_buf(),
        };
        Ok(Self {
            run: config.run_dir.clone(),
            state: config.state_dir.clone(),
            log: config.log_dir.clone(),
            programs,
            recipe: config.recipe_dir.clone(),
            archives: config.archive_dir.clone().unwrap_or_else(|| config.state_dir.join("archives")),
        })
    }

    pub(crate) fn node_socket(&self) -> PathBuf {
        self.run.join("node.sock")
    }

    /// Belongs to the server, which makes its own socket there.
    pub(crate) fn server_dir(&self) -> PathBuf {
        self.run.join("server")
    }

    pub(crate) fn api_link(&self) -> PathBuf {
        self.run.join("api.sock")
    }

    pub(crate) fn users(&self) -> PathBuf {
        self.run.join("users")
    }

    pub(crate) fn user_dir(&self, uid: u32) -> PathBuf {
        self.users().join(uid.to_string())
    }

    pub(crate) fn user_socket(&self, uid: u32) -> PathBuf {
        self.user_dir(uid).join("docker.sock")
    }

    /// The symbolic link that carries the user's name; none where the name reads as a uid.
    pub(crate) fn user_link(&self, name: &str) -> Option<PathBuf> {
        name.parse::<u32>().is_err().then(|| self.users().join(name))
    }

    pub(crate) fn shims(&self) -> PathBuf {
        self.run.join("shims")
    }

    pub(crate) fn shim_dir(&self, id: BerthId) -> PathBuf {
        self.shims().join(id.to_string())
    }

    pub(crate) fn control_socket(&self, id: BerthId) -> PathBuf {
        self.shim_dir(id).join("control.sock")
    }

    pub(crate) fn exit_record(&self, id: BerthId) -> PathBuf {
        self.shim_dir(id).join("exit.json")
    }

    /// There while grace periods of the host are expedited by this node.
    pub(crate) fn expedited(&self) -> PathBuf {
        self.run.join("expedited")
    }

    pub(crate) fn node_dir(&self) -> PathBuf {
        self.state.join("node")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.node_dir().join("lock")
    }

    pub(crate) fn records(&self) -> PathBuf {
        self.node_dir().join("berths")
    }

    pub(crate) fn ranges(&self) -> PathBuf {
        self.node_dir().join("ids.json")
    }

    pub(crate) fn pool(&self) -> PathBuf {
        self.node_dir().join("pool")
    }

    /// Who had which source ports, one line for each change.
    pub(crate) fn port_holders(&self) -> PathBuf {
        self.node_dir().join("source-ports.jsonl")
    }

    /// Where an earlier version noted that it had switched forwarding on.
    pub(crate) fn forwarding(&self) -> PathBuf {
        self.node_dir().join("forwarding")
    }

    pub(crate) fn berths(&self) -> PathBuf {
        self.state.join("berths")
    }

    pub(crate) fn berth_dir(&self, id: BerthId) -> PathBuf {
        self.berths().join(id.to_string())
    }

    /// The image, where the berth has one.
    pub(crate) fn disk(&self, id: BerthId) -> PathBuf {
        self.berth_dir(id).join("disk.img")
    }

    /// The directory, where the berth has that.
    pub(crate) fn disk_dir(&self, id: BerthId) -> PathBuf {
        self.berth_dir(id).join("disk")
    }

    /// Spools of Docker API calls; they outlive their berths until they were fetched.
    pub(crate) fn spools(&self) -> PathBuf {
        self.node_dir().join("calls")
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    pub(crate) fn berth_logs(&self) -> PathBuf {
        self.log.join("berths")
    }

    pub(crate) fn log_dir(&self, id: BerthId) -> PathBuf {
        self.berth_logs().join(id.to_string())
    }

    pub(crate) fn console(&self, id: BerthId) -> PathBuf {
        self.log_dir(id).join("console.log")
    }

    pub(crate) fn older_console(&self, id: BerthId) -> PathBuf {
        self.log_dir(id).join("console.1.log")
    }

    pub(crate) fn shim_program(&self) -> PathBuf {
        self.programs.join("berth-shim")
    }

    /// Program inside of which every berth sees a clone as its `runc`.
    pub(crate) fn wrapper_program(&self) -> PathBuf {
        self.programs.join("berth-runc")
    }

    /// Mount point of the file system that holds it, see `container::install_wrapper`.
    pub(crate) fn inner(&self) -> PathBuf {
        self.run.join("inner")
    }

    pub(crate) fn init_program(&self) -> PathBuf {
        self.programs.join("berth-init")
    }
}
