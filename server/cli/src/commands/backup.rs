//! `berth backup`: the database, the configuration and the node's records in one file, for root of the host itself.
//!
//! The file is a tar, compressed with zstd: `manifest.json` first, which names every other member with its size and SHA-256, then
//! `database.jsonl` (the rows, as `berth-server export` writes them under the server's own account: they fit either kind of database),
//! `config/` and `node/`. Disks of berths and images are not in it. A restore unpacks into a directory of its own, believes nothing before
//! all sums are right, and changes nothing while a server or a node runs.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Component, Path, PathBuf},
    process::{Command, Stdio},
};

use clap::{Args, Subcommand};
use nix::unistd::{User, geteuid};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Context;
use crate::{Outcome, failure::Failure, output};

const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const DATABASE: &str = "database.jsonl";
/// A record or a file of configuration is a few KiB.
const MOST_FILE: u64 = 16 << 20;
const MOST_FILES: usize = 200_000;
/// Rows of the trail that are kept, and more.
const MOST_DATABASE: u64 = 64 << 30;
const LEVEL: i32 = 6;

/// Save what a host's Berth is made of, and bring it back
#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Write the database, the configuration and the node's records to one file; also while everything runs
    Create {
        /// Must not exist yet; ends in .tar.zst by custom
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Bring them back; berth-server and berth-node must be stopped. What is there is kept beside it as *.before-restore
    Restore {
        file: PathBuf,
        #[command(flatten)]
        place: Place,
        /// Put the rows into this database instead of the configured one (sqlite:/PATH or postgres://…), also of the other kind
        #[arg(long, value_name = "URL")]
        database: Option<String>,
        /// File with the password of that PostgreSQL
        #[arg(long, value_name = "FILE", requires = "database")]
        password_file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Directory below which the host's files are
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    /// Version of the program that wrote it.
    berth: String,
    created_at: i64,
    members: Vec<Member>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    path: String,
    bytes: u64,
    sha256: String,
    mode: u32,
    /// It belongs to the server's account, as a file with a password does, not to root.
    server: bool,
}

pub(super) fn run(context: &Context, command: BackupCommand) -> Outcome {
    if !geteuid().is_root() {
        return Err(Failure::own(4, "not_permitted", "a backup holds everything: only root may make or restore one", Some("use sudo")));
    }
    match command {
        BackupCommand::Create { file, place } => create(context, &file, &Host::at(&place.root)?),
        BackupCommand::Restore { file, place, database, password_file } => {
            restore(context, &file, &Host::at(&place.root)?, database, password_file)
        }
    }
}

/// Where things are; every path is below the root that was named.
struct Host {
    root: PathBuf,
    config: PathBuf,
    server_state: PathBuf,
    node_state: PathBuf,
    url: String,
    password_file: Option<PathBuf>,
}

impl Host {
    fn at(root: &Path) -> Result<Self, Failure> {
        let root = fs::canonicalize(root).map_err(|error| Failure::io(&root.display().to_string(), &error))?;
        let config = root.join("etc/berth");
        let server = table(&config.join("server.toml"))?;
        let node = table(&config.join("node.toml"))?;
        let text = |table: &toml::Table, key: &str| table.get(key).and_then(|value| value.as_str()).map(str::to_owned);
        let database = server.get("database").and_then(|value| value.as_table()).cloned().unwrap_or_default();
        let below = |path: String| root.join(Path::new(&path).strip_prefix("/").unwrap_or(Path::new(&path)));
        Ok(Self {
            server_state: below(text(&server, "state_dir").unwrap_or_else(|| "/var/lib/berth/server".to_owned())),
            node_state: below(text(&node, "state_dir").unwrap_or_else(|| "/var/lib/berth".to_owned())).join("node"),
            url: text(&database, "url").unwrap_or_default(),
            password_file: text(&database, "password_file").map(below),
            config,
            root,
        })
    }

    /// A configuration for the server's own commands, with all paths below the root.
    fn server_config(&self, database: Option<String>, password_file: Option<PathBuf>) -> Result<tempfile::NamedTempFile, Failure> {
        let mut table = toml::Table::new();
        table.insert("state_dir".to_owned(), self.server_state.display().to_string().into());
        let (url, password_file) = match database {
            Some(url) => (url, password_file),
            None => match self.url.strip_prefix("sqlite:") {
                None => (self.url.clone(), self.password_file.clone()),
                Some(path) => {
                    let path = path.trim_start_matches('/');
                    (format!("sqlite:{}", self.root.join(path).display()), None)
                }
            },
        };
        let mut database = toml::Table::from_iter([("url".to_owned(), toml::Value::from(url))]);
        if let Some(path) = password_file {
            database.insert("password_file".to_owned(), path.display().to_string().into());
        }
        table.insert("database".to_owned(), database.into());
        let failed = |error: &io::Error| Failure::io("cannot write a configuration", error);
        let mut file = tempfile::NamedTempFile::new().map_err(|error| failed(&error))?;
        file.write_all(table.to_string().as_bytes()).map_err(|error| failed(&error))?;
        // The server's account reads it; there is no secret in it.
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(|error| failed(&error))?;
        Ok(file)
    }

    /// Whose the server's files are, or are to be.
    fn account(&self) -> Result<(u32, u32), Failure> {
        if let Ok(found) = fs::metadata(&self.server_state)
            && found.uid() != 0
        {
            return Ok((found.uid(), found.gid()));
        }
        match User::from_name("berth") {
            Ok(Some(user)) => Ok((user.uid.as_raw(), user.gid.as_raw())),
            _ => Err(Failure::own(1, "account", "there is no account berth for the server", Some("install Berth first: deploy/up"))),
        }
    }

    /// A command of berth-server under its own account.
    fn server(&self, config: &Path, word: &str) -> Result<Command, Failure> {
        let (uid, gid) = self.account()?;
        let mut command = Command::new(server_program()?);
        command.uid(uid).gid(gid).arg("--config").arg(config).arg(word).env_clear().env("BERTH_LOG", "error").current_dir("/");
        Ok(command)
    }
}

fn table(path: &Path) -> Result<toml::Table, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => {
            text.parse().map_err(|error: toml::de::Error| Failure::own(1, "configuration", format!("{}: {error}", path.display()), None))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(toml::Table::new()),
        Err(error) => Err(Failure::io(&path.display().to_string(), &error)),
    }
}

/// Beside this program, or where an installation has it.
fn server_program() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().map_err(|error| Failure::io("cannot find this program", &error))?;
    let directory = own.parent().unwrap_or(Path::new("/"));
    let found = [directory.join("berth-server"), directory.join("../lib/berth/berth-server")].into_iter().find(|path| path.is_file());
    found.ok_or_else(|| Failure::own(1, "not_installed", "berth-server is not there", Some("install Berth first: deploy/up")))
}

fn create(context: &Context, file: &Path, host: &Host) -> Outcome {
    let shown = file.display().to_string();
    let io = |error: io::Error| Failure::io(&shown, &error);
    let directory = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    if file.exists() {
        return Err(Failure::own(5, "exists", format!("{shown} exists"), Some("name a file that does not")));
    }
    // The rows first: their size stands before them in the archive.
    let mut rows = tempfile::tempfile_in(directory).map_err(io)?;
    let config = host.server_config(None, None)?;
    let output = Stdio::from(rows.try_clone().map_err(io)?);
    let done = host.server(config.path(), "export")?.stdin(Stdio::null()).stdout(output).stderr(Stdio::piped()).output().map_err(io)?;
    check(&done, "export")?;
    let (uid, _) = host.account()?;
    let mut members = vec![member(DATABASE.to_owned(), uid, &mut rows).map_err(io)?];
    let mut sources = Vec::new();
    for (directory, below) in [(&host.config, "config"), (&host.node_state, "node")] {
        let mut found = Vec::new();
        walk(directory, Path::new(below), &mut found)?;
        for (path, name) in found {
            // A record may go while this runs.
            let Ok(mut opened) = open_plain(&path) else { continue };
            members.push(member(name, uid, &mut opened).map_err(io)?);
            sources.push(opened);
        }
    }
    let created_at = jiff::Timestamp::now().as_millisecond();
    let manifest = Manifest { format: FORMAT, berth: env!("CARGO_PKG_VERSION").to_owned(), created_at, members };
    let target = tempfile::Builder::new().prefix(".berth-backup").tempfile_in(directory).map_err(io)?;
    let mut encoder = zstd::Encoder::new(target.as_file(), LEVEL).map_err(io)?;
    encoder.include_checksum(true).map_err(io)?;
    let mut archive = tar::Builder::new(encoder);
    let text = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
    append(&mut archive, MANIFEST, 0o600, text.len() as u64, &mut text.as_slice()).map_err(io)?;
    for (member, source) in manifest.members.iter().zip(std::iter::once(&mut rows).chain(&mut sources)) {
        io::Seek::rewind(source).map_err(io)?;
        append(&mut archive, &member.path, member.mode, member.bytes, &mut source.take(member.bytes)).map_err(io)?;
    }
    archive.into_inner().and_then(zstd::Encoder::finish).and_then(File::sync_all).map_err(io)?;
    target.persist_noclobber(file).map_err(|error| io(error.error))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)?;
    report(context, "created", file, &manifest)
}

fn append(archive: &mut tar::Builder<impl Write>, path: &str, mode: u32, bytes: u64, from: &mut impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(mode);
    header.set_mtime(0);
    archive.append_data(&mut header, path, from)
}

fn member(path: String, server: u32, from: &mut File) -> io::Result<Member> {
    io::Seek::rewind(from)?;
    let kept = from.metadata()?;
    let (bytes, sha256) = sum(from, &mut io::sink())?;
    Ok(Member { path, bytes, sha256, mode: kept.mode() & 0o777, server: kept.uid() == server })
}

/// Copies, and says how much and what it was.
fn sum(from: &mut impl Read, to: &mut impl Write) -> io::Result<(u64, String)> {
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok((bytes, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()));
        }
        hash.update(&buffer[..length]);
        to.write_all(&buffer[..length])?;
        bytes += length as u64;
    }
}

/// Plain files below a directory, with their names in the archive; nothing else, and nothing through a link.
fn walk(directory: &Path, below: &Path, found: &mut Vec<(PathBuf, String)>) -> Result<(), Failure> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|error| Failure::io(&directory.display().to_string(), &error))?,
    };
    for entry in entries {
        let entry = entry.map_err(|error| Failure::io(&directory.display().to_string(), &error))?;
        let (path, name) = (entry.path(), below.join(entry.file_name()));
        let Ok(kept) = entry.metadata() else { continue };
        // What is on its way from the node to the server is no record.
        if kept.is_dir() && name == Path::new("node/calls") {
            continue;
        }
        if kept.is_dir() {
            walk(&path, &name, found)?;
        } else if kept.is_file() && kept.len() <= MOST_FILE && entry.file_name() != "lock" {
            let name = name.to_str().ok_or_else(|| Failure::own(1, "name", format!("{} is not UTF-8", path.display()), None))?;
            found.push((path, name.to_owned()));
        }
    }
    Ok(())
}

fn open_plain(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(path)
}

fn restore(context: &Context, file: &Path, host: &Host, database: Option<String>, password_file: Option<PathBuf>) -> Outcome {
    let shown = file.display().to_string();
    let io = |error: io::Error| Failure::io(&shown, &error);
    for (what, lock) in [("berth-server", host.server_state.join("server.lock")), ("berth-node", host.node_state.join("lock"))] {
        if OpenOptions::new().write(true).open(&lock).is_ok_and(|lock| matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock))) {
            let hint = format!("stop it first: systemctl stop {what}");
            return Err(Failure::own(5, "service_running", format!("{what} runs (it holds {})", lock.display()), Some(&hint)));
        }
    }
    let parent = host.node_state.parent().unwrap_or(&host.root);
    fs::create_dir_all(parent).map_err(io)?;
    let fresh = tempfile::Builder::new().prefix(".berth-restore").tempdir_in(parent).map_err(io)?;
    let manifest = unpack(file, fresh.path())?;

    let (uid, gid) = host.account()?;
    for member in manifest.members.iter().filter(|member| member.server && member.path != DATABASE) {
        chown(fresh.path().join(&member.path), Some(uid), Some(gid)).map_err(io)?;
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&host.server_state).map_err(io)?;
    chown(&host.server_state, Some(uid), Some(gid)).map_err(io)?;
    // Its own configuration comes first: it says where the database is.
    let target = match fresh.path().join("config/server.toml").exists() && !host.config.join("server.toml").exists() {
        true => Host::at_config(host, &fresh.path().join("config"))?,
        false => Host::at(&host.root)?,
    };
    let config = target.server_config(database, password_file)?;
    let rows = File::open(fresh.path().join(DATABASE)).map_err(io)?;
    let done = target.server(config.path(), "import")?.stdin(rows).stdout(Stdio::null()).stderr(Stdio::piped()).output().map_err(io)?;
    check(&done, "import")?;
    for (from, to) in [("node", &host.node_state), ("config", &host.config)] {
        let from = fresh.path().join(from);
        if !from.exists() {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap_or(&host.root)).map_err(io)?;
        if to.exists() {
            let before = beside(to);
            if before.exists() {
                fs::remove_dir_all(&before).map_err(io)?;
            }
            fs::rename(to, &before).map_err(io)?;
        }
        let mode = if to == &host.config { 0o755 } else { 0o700 };
        fs::set_permissions(&from, fs::Permissions::from_mode(mode)).map_err(io)?;
        move_to(&from, to).map_err(io)?;
    }
    report(context, "restored", file, &manifest)
}

impl Host {
    /// The host as another configuration has it.
    fn at_config(host: &Host, config: &Path) -> Result<Self, Failure> {
        let server = table(&config.join("server.toml"))?;
        let database = server.get("database").and_then(|value| value.as_table()).cloned().unwrap_or_default();
        let text = |table: &toml::Table, key: &str| table.get(key).and_then(|value| value.as_str()).map(str::to_owned);
        let below = |path: &str| host.root.join(path.trim_start_matches('/'));
        Ok(Self {
            root: host.root.clone(),
            config: host.config.clone(),
            server_state: text(&server, "state_dir").map_or_else(|| host.server_state.clone(), |path| below(&path)),
            node_state: host.node_state.clone(),
            url: text(&database, "url").unwrap_or_default(),
            password_file: text(&database, "password_file").map(|path| below(&path)),
        })
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".before-restore");
    name.into()
}

/// Renames, also over file systems.
fn move_to(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            fs::DirBuilder::new().mode(from.metadata()?.mode() & 0o777).create(to)?;
            for entry in fs::read_dir(from)? {
                let entry = entry?;
                match entry.file_type()?.is_dir() {
                    true => move_to(&entry.path(), &to.join(entry.file_name()))?,
                    false => {
                        let (target, kept) = (to.join(entry.file_name()), entry.metadata()?);
                        fs::copy(entry.path(), &target)?;
                        chown(&target, Some(kept.uid()), Some(kept.gid()))?;
                    }
                }
            }
            Ok(())
        }
        done => done,
    }
}

/// Unpacks what the manifest names and nothing else; fails unless everything is there as it was written.
fn unpack(file: &Path, to: &Path) -> Result<Manifest, Failure> {
    let damaged = |why: String| {
        let detail = format!("{} is no whole backup: {why}", file.display());
        Failure::own(1, "backup_damaged", detail, Some("nothing was changed; take another one"))
    };
    let broken = |error: io::Error| damaged(error.to_string());
    let opened = File::open(file).map_err(|error| Failure::io(&file.display().to_string(), &error))?;
    let mut archive = tar::Archive::new(zstd::Decoder::new(opened).map_err(broken)?);
    let mut entries = archive.entries().map_err(broken)?;
    let first = entries.next().ok_or_else(|| damaged("it is empty".to_owned()))?.map_err(broken)?;
    if first.path().map_err(broken)? != Path::new(MANIFEST) || first.size() > MOST_FILE * 4 {
        return Err(damaged("it does not begin with its manifest".to_owned()));
    }
    let manifest: Manifest = serde_json::from_reader(first).map_err(|error| damaged(error.to_string()))?;
    if manifest.format != FORMAT {
        let detail = format!("the backup is of format {}, this program knows {FORMAT}", manifest.format);
        return Err(Failure::own(1, "backup_version", detail, Some("use the program of the version that wrote it")));
    }
    if manifest.members.len() > MOST_FILES || !manifest.members.iter().any(|member| member.path == DATABASE) {
        return Err(damaged("its manifest makes no sense".to_owned()));
    }
    let mut wanted = manifest.members.iter();
    for entry in entries {
        let mut entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?.into_owned();
        let member = wanted.next().filter(|member| Path::new(&member.path) == path && member.bytes == entry.size());
        let member = member.ok_or_else(|| damaged(format!("{} is not as the manifest says", path.display())))?;
        let plain = path.components().all(|part| matches!(part, Component::Normal(_))) && entry.header().entry_type().is_file();
        let known = member.path == DATABASE || path.starts_with("config") || path.starts_with("node");
        let most = if member.path == DATABASE { MOST_DATABASE } else { MOST_FILE };
        if !plain || !known || member.bytes > most {
            return Err(damaged(format!("{} has no place in one", path.display())));
        }
        let target = to.join(&path);
        let made = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(target.parent().unwrap_or(to))?;
            OpenOptions::new().write(true).create_new(true).mode(member.mode & 0o777).open(&target)
        };
        let mut out = made().map_err(|error| Failure::io(&target.display().to_string(), &error))?;
        let (bytes, sha256) = sum(&mut entry, &mut out).map_err(broken)?;
        if (bytes, &sha256) != (member.bytes, &member.sha256) {
            return Err(damaged(format!("{} has another checksum", path.display())));
        }
        out.sync_all().map_err(broken)?;
    }
    // To its very end, where the sum of all of it is.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?;
    match wanted.next() {
        Some(missing) => Err(damaged(format!("{} is missing", missing.path))),
        None => Ok(manifest),
    }
}

/// What the server's command said, where it failed.
fn check(done: &std::process::Output, word: &str) -> Result<(), Failure> {
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let detail = format!("berth-server {word} failed: {}", said.trim());
    Err(Failure::own(1, "database", detail, Some("nothing else was changed; berth-server's own words say what to do")))
}

fn report(context: &Context, what: &str, file: &Path, manifest: &Manifest) -> Outcome {
    let bytes: u64 = manifest.members.iter().map(|member| member.bytes).sum();
    if context.json {
        let file = file.display().to_string();
        output::json(&serde_json::json!({ "file": file, "berth": manifest.berth, "members": manifest.members.len(), "bytes": bytes }))?;
    } else {
        output::line(&format!("{what}: {} ({} files, {bytes} bytes)", file.display(), manifest.members.len()))?;
    }
    Ok(0)
}
