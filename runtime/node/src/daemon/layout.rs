//! Every path that the node makes or reads.

use std::path::{Path, PathBuf};

use berth_protocol::BerthId;

use super::config::Config;

#[derive(Clone, Debug)]
pub struct Layout {
    pub run: PathBuf,
    pub state: PathBuf,
    pub log: PathBuf,
    pub programs: PathBuf,
    pub recipe: PathBuf,
}

impl Layout {
    pub fn new(config: &Config) -> std::io::Result<Self> {
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
        })
    }

    pub fn node_socket(&self) -> PathBuf {
        self.run.join("node.sock")
    }

    /// Belongs to the server, which makes its own socket there.
    pub fn server_dir(&self) -> PathBuf {
        self.run.join("server")
    }

    pub fn api_link(&self) -> PathBuf {
        self.run.join("api.sock")
    }

    pub fn users(&self) -> PathBuf {
        self.run.join("users")
    }

    pub fn user_dir(&self, uid: u32) -> PathBuf {
        self.users().join(uid.to_string())
    }

    pub fn user_socket(&self, uid: u32) -> PathBuf {
        self.user_dir(uid).join("docker.sock")
    }

    /// The symbolic link that carries the user's name; none where the name reads as a uid.
    pub fn user_link(&self, name: &str) -> Option<PathBuf> {
        name.parse::<u32>().is_err().then(|| self.users().join(name))
    }

    pub fn shims(&self) -> PathBuf {
        self.run.join("shims")
    }

    pub fn shim_dir(&self, id: BerthId) -> PathBuf {
        self.shims().join(id.to_string())
    }

    pub fn control_socket(&self, id: BerthId) -> PathBuf {
        self.shim_dir(id).join("control.sock")
    }

    pub fn exit_record(&self, id: BerthId) -> PathBuf {
        self.shim_dir(id).join("exit.json")
    }

    pub fn node_dir(&self) -> PathBuf {
        self.state.join("node")
    }

    pub fn lock(&self) -> PathBuf {
        self.node_dir().join("lock")
    }

    pub fn records(&self) -> PathBuf {
        self.node_dir().join("berths")
    }

    pub fn ranges(&self) -> PathBuf {
        self.node_dir().join("ids.json")
    }

    pub fn pool(&self) -> PathBuf {
        self.node_dir().join("pool")
    }

    pub fn forwarding(&self) -> PathBuf {
        self.node_dir().join("forwarding")
    }

    pub fn berths(&self) -> PathBuf {
        self.state.join("berths")
    }

    pub fn berth_dir(&self, id: BerthId) -> PathBuf {
        self.berths().join(id.to_string())
    }

    pub fn disk(&self, id: BerthId) -> PathBuf {
        self.berth_dir(id).join("disk.img")
    }

    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    pub fn berth_logs(&self) -> PathBuf {
        self.log.join("berths")
    }

    pub fn log_dir(&self, id: BerthId) -> PathBuf {
        self.berth_logs().join(id.to_string())
    }

    pub fn console(&self, id: BerthId) -> PathBuf {
        self.log_dir(id).join("console.log")
    }

    pub fn older_console(&self, id: BerthId) -> PathBuf {
        self.log_dir(id).join("console.1.log")
    }

    pub fn shim_program(&self) -> PathBuf {
        self.programs.join("berth-shim")
    }

    pub fn init_program(&self) -> PathBuf {
        self.programs.join("berth-init")
    }
}
