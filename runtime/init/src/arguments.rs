use std::{
    ffi::OsString,
    os::fd::RawFd,
    path::{Path, PathBuf},
};

/// What the runtime asks of berth-init.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) channel: RawFd,
    /// The path of the user's socket on the host, which exists inside too.
    pub(crate) docker_socket: PathBuf,
    pub(crate) user_name: String,
    /// Defaults for dockerd as `--flag=value`; left out where the image's daemon.json has that key.
    pub(crate) dockerd_arguments: Vec<String>,
    /// The image's own init and its arguments; empty for an engine of ours.
    pub(crate) entry: Vec<OsString>,
}

impl Arguments {
    pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut arguments = arguments;
        let (mut channel, mut docker_socket, mut user_name) = (None, None, None);
        let mut dockerd_arguments = Vec::new();
        let mut entry = Vec::new();
        while let Some(name) = arguments.next() {
            let name = name.into_string().map_err(|name| format!("argument {name:?} is not UTF-8"))?;
            if name == "--" {
                entry = arguments.by_ref().collect();
                break;
            }
            let value = arguments.next().ok_or_else(|| format!("{name} lacks its value"))?;
            let text = || value.to_str().map(str::to_owned).ok_or_else(|| format!("the value of {name} is not UTF-8"));
            match name.as_str() {
                "--channel" => channel = Some(text()?.parse().map_err(|_| format!("--channel {value:?} is no descriptor number"))?),
                "--docker-socket" => docker_socket = Some(PathBuf::from(&value)),
                "--user-name" => user_name = Some(text()?),
                "--dockerd-arg" => dockerd_arguments.push(text()?),
                _ => return Err(format!("unknown argument {name}")),
            }
        }
        let docker_socket = docker_socket.filter(|p| p.is_absolute()).ok_or("--docker-socket must be an absolute path")?;
        Ok(Self {
            channel: channel.ok_or("--channel is missing")?,
            docker_socket,
            user_name: user_name.ok_or("--user-name is missing")?,
            dockerd_arguments,
            entry,
        })
    }

    /// The folder named by the user's uid.
    pub(crate) fn socket_dir(&self) -> &Path {
        self.docker_socket.parent().unwrap_or(Path::new("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, String> {
        Arguments::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn everything_after_two_dashes_is_the_entry() {
        let base = ["--channel", "3", "--docker-socket", "/run/berth/users/7/docker.sock", "--user-name", "a"];
        let found = parse(&[&base[..], &["--dockerd-arg", "--bip=10.1.0.1/24", "--", "/sbin/init", "--channel", "9"]].concat()).unwrap();
        assert_eq!(found.channel, 3);
        assert_eq!(found.socket_dir(), Path::new("/run/berth/users/7"));
        assert_eq!(found.dockerd_arguments, ["--bip=10.1.0.1/24"]);
        assert_eq!(found.entry, ["/sbin/init", "--channel", "9"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(parse(&["--channel", "3", "--user-name", "a"]).unwrap_err().contains("--docker-socket"));
        assert!(parse(&["--channel"]).unwrap_err().contains("--channel"));
        assert!(parse(&["--channel", "x", "--docker-socket", "/s"]).unwrap_err().contains("descriptor"));
        assert!(parse(&["--what", "3"]).unwrap_err().contains("--what"));
    }
}
