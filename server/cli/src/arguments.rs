//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    dates::{End, OrNever},
    limits::{ChangeArguments, LimitArguments},
    units::{Ports, Span, parse_user},
};

const EXIT_CODES: &str = "\
Exit codes:
  0 done   1 failed   2 wrong usage   3 not found   4 not permitted   5 conflict, or refused by a limit
  6 service not reachable   7 timed out
  exec and shell: the command's own; 126 or 127 if it cannot be run, 125 if berth itself failed";

/// A Docker of his own for every user of a shared host.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES, propagate_version = true, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// Socket of the service
    #[arg(
        long,
        global = true,
        env = "BERTH_SOCKET",
        default_value = "/run/berth/api.sock",
        hide_default_value = true,
        hide_env_values = true,
        value_name = "PATH"
    )]
    pub socket: PathBuf,
    #[command(flatten)]
    pub remote: crate::commands::RemoteArguments,
    /// Answer with one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// How the berths of a profile join the host.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PolicyArguments {
    /// The user's home inside: read and write, read only, or not at all
    #[arg(long, value_enum, value_name = "rw|ro|none", hide_possible_values = true)]
    pub home: Option<Home>,
    /// A further directory of the host, at the same path inside; may be given several times, and replaces those that were
    #[arg(long = "path", value_name = "DIR[:ro]", conflicts_with = "no_paths")]
    pub paths: Vec<String>,
    /// No further directories
    #[arg(long)]
    pub no_paths: bool,
    /// Container ports that appear at 127.0.0.1 of the host, or none
    #[arg(long, value_name = "FIRST-LAST")]
    pub ports: Option<Ports>,
    /// Who on the host reaches them: the user and root, or every account
    #[arg(long, value_enum, value_name = "user|host", hide_possible_values = true)]
    pub ports_open_to: Option<Reach>,
    /// Freeze a berth that is not used and runs no container, for instance after 15m, or never
    #[arg(long, value_name = "TIME")]
    pub freeze_after: Option<Span>,
    /// Likewise, stop it
    #[arg(long, value_name = "TIME")]
    pub stop_after: Option<Span>,
    /// Start a berth again that ended unasked, or leave it to the next connection
    #[arg(long, value_enum, value_name = "on-failure|never", hide_possible_values = true)]
    pub restart: Option<Again>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Home {
    Rw,
    Ro,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Again {
    OnFailure,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reach {
    User,
    Host,
}

/// One berth or all of them.
#[derive(Clone, Debug, Args)]
pub(crate) struct Whom {
    /// Name of the host account
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub user: Option<String>,
    /// Every berth of this host
    #[arg(long)]
    pub all: bool,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Give a host user a berth
    Assign {
        /// Name of the host account
        #[arg(required_unless_present = "from")]
        user: Option<String>,
        /// Many at once: a CSV table with a heading; columns user, profile, image, cpus, memory, swap, pids, disk, until. "-" reads standard input
        #[arg(long, value_name = "FILE", conflicts_with = "user")]
        from: Option<PathBuf>,
        /// When the assignment ends and the berth is suspended: 2027-03-31, friday, 90d, …
        #[arg(long, value_name = "WHEN")]
        until: Option<End>,
        /// Quota set to start from [default: by the rules of the host, else default]
        #[arg(long, value_name = "NAME")]
        profile: Option<String>,
        /// Image, by name or digest [default: the default image]
        #[arg(long, value_name = "IMAGE")]
        image: Option<String>,
        #[command(flatten)]
        limits: LimitArguments,
        /// Accept a system account
        #[arg(long)]
        allow_system: bool,
        /// Leave it stopped; it starts on the first connection. So do those of a table, unless --start is given
        #[arg(long)]
        no_start: bool,
        /// Of a table: start them at once
        #[arg(long, requires = "from", conflicts_with = "no_start")]
        start: bool,
        #[command(flatten)]
        many: crate::commands::ManyArguments,
    },
    /// List berths
    #[command(visible_alias = "ls")]
    List(crate::commands::ListArguments),
    /// Show a berth; your own unless you name a user
    Show {
        /// Name of the host account [default: yours]
        user: Option<String>,
    },
    /// Change the limits of a berth; a running one takes them on at once. What the host refuses leaves all of them as they were
    Set {
        /// Names of host accounts
        #[arg(required_unless_present = "all_of_profile", value_name = "USER")]
        users: Vec<String>,
        /// All berths of this profile
        #[arg(long, value_name = "NAME", conflicts_with = "users")]
        all_of_profile: Option<String>,
        /// Another quota set
        #[arg(long, value_name = "NAME")]
        profile: Option<String>,
        /// When the assignment ends and the berth is suspended: 2027-03-31, friday, 90d, …, or never
        #[arg(long, value_name = "WHEN|never")]
        until: Option<OrNever>,
        #[command(flatten)]
        limits: ChangeArguments,
        #[command(flatten)]
        many: crate::commands::ManyArguments,
    },
    /// Show what running berths use of what they may use
    Top(crate::commands::TopArguments),
    /// Start a berth
    Start {
        /// Name of the host account [default: yours]
        user: Option<String>,
        /// Do not wait until it is done
        #[arg(long)]
        no_wait: bool,
    },
    /// Stop a berth; it starts again on its user's next connection
    Stop {
        /// Name of the host account [default: yours]
        user: Option<String>,
        /// Do not wait until it is done
        #[arg(long)]
        no_wait: bool,
    },
    /// Stop a berth and start it again
    Restart {
        /// Name of the host account [default: yours]
        user: Option<String>,
        /// Do not wait until it is done
        #[arg(long)]
        no_wait: bool,
    },
    /// Give a berth a fresh root file system, and start it; images, containers and volumes stay unless wiped
    Rebuild {
        /// Name of the host account [default: yours]
        user: Option<String>,
        /// Images, containers and volumes go too
        #[arg(long)]
        wipe: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        /// Do not wait until it is done
        #[arg(long)]
        no_wait: bool,
    },
    /// Bar a berth: what runs in it is frozen, its socket refuses, and only an administrator lets it go
    Suspend {
        #[command(flatten)]
        whom: Whom,
        /// What its user is told, in one line
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Do not wait until it is done
        #[arg(long)]
        no_wait: bool,
    },
    /// Let a suspended berth go; it is again as it was
    Resume {
        #[command(flatten)]
        whom: Whom,
        /// Do not wait until it is done
        #[arg(long)]
        no_wait: bool,
    },
    /// Delete a berth with everything in it
    #[command(visible_alias = "rm")]
    Delete {
        /// Name of the host account
        user: String,
        /// Write an archive first [NAME.berth; default: USER-DATE-TIME.berth]; if it cannot be written, nothing is deleted
        #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
        archive: Option<String>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        /// Do not wait until it is done
        #[arg(long)]
        no_wait: bool,
    },
    /// Archive and delete berths of users who left: those named, long not used, or whose accounts are gone
    Offboard(crate::commands::OffboardArguments),
    /// Make a berth from an archive
    Restore(crate::commands::RestoreArguments),
    /// What is kept of deleted berths
    #[command(subcommand)]
    Archive(crate::commands::ArchiveCommand),
    /// Run a command inside a berth
    Exec {
        /// Name of the host account
        user: String,
        /// Pass standard input on
        #[arg(short, long)]
        interactive: bool,
        /// Give the command a terminal
        #[arg(short, long)]
        tty: bool,
        /// Run as this uid inside, or UID:GID
        #[arg(short = 'u', long = "user", value_name = "UID", value_parser = parse_user, id = "uid")]
        uid: Option<(u32, u32)>,
        /// Set a variable
        #[arg(short = 'e', long, value_name = "NAME=VALUE")]
        env: Vec<String>,
        /// Start in this directory
        #[arg(short = 'w', long, value_name = "DIR")]
        workdir: Option<String>,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
        argv: Vec<String>,
    },
    /// Open a shell in a berth; your own unless you name a user
    Shell {
        /// Name of the host account [default: yours]
        user: Option<String>,
    },
    /// Show what a berth's first process and Docker daemon say
    Logs {
        /// Name of the host account [default: yours]
        user: Option<String>,
        /// Go on with what comes
        #[arg(short, long)]
        follow: bool,
        /// Only the last lines
        #[arg(short = 'n', long, value_name = "N")]
        tail: Option<u32>,
    },
    /// What berths are made from
    #[command(subcommand)]
    Image(ImageCommand),
    /// Named quota sets, and how their berths join the host
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Long-running requests
    #[command(subcommand)]
    Operations(crate::commands::OperationsCommand),
    /// Which profile the members of a host group get, and whether a first use gives them a berth
    #[command(subcommand)]
    Rule(crate::commands::RuleCommand),
    /// Ask for more for a while, for instance: berth request --disk +20g --until friday --reason "the thesis"
    Request(crate::commands::RequestArguments),
    /// What users have asked for
    #[command(subcommand)]
    Requests(crate::commands::RequestsCommand),
    /// Take a berth for yourself, if the host gives you one on first use
    Claim(crate::commands::ClaimArguments),
    /// Show how your own berth is
    Status,
    /// Print what makes a Docker client use the berth: eval "$(berth env)"
    Env {
        /// Name of the host account [default: yours]
        user: Option<String>,
        /// Syntax of the answer
        #[arg(long, value_enum, default_value_t = Shell::Sh)]
        shell: Shell,
    },
    /// Make a Docker context for your berth: what sessions without DOCKER_HOST use (ssh commands, cron, editors)
    Context(ContextArguments),
    /// Show what was asked of Berth, and the calls of users' Dockers; your own unless you may see all
    Audit(crate::commands::AuditArguments),
    /// Accounts with a password, for the dashboard and for other hosts
    #[command(subcommand)]
    Admin(crate::commands::AdminCommand),
    /// Secrets for programs
    #[command(subcommand)]
    Token(crate::commands::TokenCommand),
    /// Browsers that are signed in
    #[command(subcommand)]
    Session(crate::commands::SessionCommand),
    /// Print a link that opens the dashboard as you, once and for a minute
    Webui,
    /// Save what Berth on this host is made of, and bring it back
    #[command(subcommand)]
    Backup(crate::commands::BackupCommand),
    /// Check the host and the service; name a fix for what is not well
    Doctor {
        /// Run a container in a throw-away berth of the default image too (root and administrators)
        #[arg(long)]
        deep: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ContextArguments {
    /// Name of the context
    #[arg(long, default_value = "berth", value_name = "NAME")]
    pub name: String,
    /// Make it the current one: docker uses it unless told otherwise
    #[arg(long = "use", conflicts_with = "remove")]
    pub make_current: bool,
    /// Remove it
    #[arg(long)]
    pub remove: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Sh,
    Fish,
    Csh,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Build an image with Docker inside from Debian packages
    Build {
        /// Name of the image
        #[arg(long, default_value = "default")]
        name: String,
        /// Debian release
        #[arg(long, default_value = "trixie", value_parser = ["bookworm", "trixie", "sid"])]
        suite: String,
        /// Do not wait until it is done
        #[arg(long)]
        no_wait: bool,
    },
    /// Take an image from a root tar or an OCI layout
    Import {
        /// The tar; "-" reads standard input
        file: PathBuf,
        /// Name of the image [default: the file's]
        #[arg(long)]
        name: Option<String>,
        /// Do not wait until it is unpacked
        #[arg(long)]
        no_wait: bool,
    },
    /// Pull an image from a registry
    Pull(crate::commands::PullArguments),
    /// List images
    #[command(visible_alias = "ls")]
    List,
    /// Remove an image that no berth stands on
    #[command(visible_alias = "remove")]
    Rm {
        /// Name or digest
        image: String,
    },
    /// Choose the image of berths that name none
    Default {
        /// Name or digest
        image: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// List profiles
    #[command(visible_alias = "ls")]
    List,
    /// Show a profile
    Show { name: String },
    /// Make a profile; what is left out is as in the profile default
    Create {
        name: String,
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        #[command(flatten)]
        limits: LimitArguments,
        #[command(flatten)]
        policy: PolicyArguments,
    },
    /// Change a profile, and with it every berth that uses it
    Set {
        name: String,
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        #[command(flatten)]
        limits: LimitArguments,
        #[command(flatten)]
        policy: PolicyArguments,
    },
    /// Delete a profile that no berth uses
    #[command(visible_alias = "remove")]
    Rm { name: String },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::units::{Cpus, Size};

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_command_keeps_its_own_options() {
        for line in [
            &["berth", "exec", "alice", "-it", "-u", "1000", "ls", "-l", "--json"][..],
            &["berth", "exec", "-i", "-t", "-u", "1000:1000", "alice", "--", "ls", "-l", "--json"],
        ] {
            let Command::Exec { user, interactive, tty, uid, argv, .. } = Arguments::parse_from(line).command else { panic!() };
            assert_eq!((user.as_str(), interactive, tty, uid), ("alice", true, true, Some((1000, uid.unwrap().1))));
            assert_eq!(argv, ["ls", "-l", "--json"]);
        }
    }

    #[test]
    fn dockers_words_for_limits_work() {
        let line = ["berth", "assign", "a", "--cpus", "1.5", "--memory", "4g", "--pids-limit", "512", "--disk", "20g"];
        let Command::Assign { limits, .. } = Arguments::parse_from(line).command else { panic!() };
        assert_eq!(limits.cpus, Some(Cpus(1500)));
        assert_eq!(limits.memory, Some(Size(4 << 30)));
        assert_eq!((limits.pids_limit, limits.disk), (Some(512), Some(Size(20 << 30))));
    }
}
