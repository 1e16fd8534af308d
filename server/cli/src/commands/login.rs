//! What makes a Docker client use the berth: a variable for a shell (`env`), a Docker context for everything else (`context`).
//!
//! For the caller's own berth the socket itself is asked, not the service: a session must begin also while that is away.

use std::{
    env, fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use nix::unistd::geteuid;
use serde_json::json;

use super::{Context, user_or_self};
use crate::{
    Outcome,
    arguments::{ContextArguments, Shell},
    docker_config::{DockerConfig, Found, is_context_name},
    failure::Failure,
    output,
};

pub(super) async fn env(context: &Context, user: Option<String>, shell: Shell) -> Outcome {
    let host = docker_host(context, user).await?;
    if context.json {
        output::json(&json!({ "DOCKER_HOST": host }))?;
        return Ok(0);
    }
    let value = quoted(shell, &host);
    output::line(&match shell {
        Shell::Sh => format!("export DOCKER_HOST={value}"),
        Shell::Fish => format!("set -gx DOCKER_HOST {value}"),
        Shell::Csh => format!("setenv DOCKER_HOST {value}"),
    })?;
    Ok(0)
}

pub(super) async fn context(context: &Context, arguments: ContextArguments) -> Outcome {
    let ContextArguments { name, make_current, remove } = arguments;
    if geteuid().is_root() {
        let hint = "run it as the user whose berth it is: runuser -u USER -- berth context";
        return Err(Failure::usage("root has no berth, and a user's files are written by himself only", hint));
    }
    if !is_context_name(&name) {
        let hint = "two or more of A-Z a-z 0-9 _ . + -, the first a letter or digit, and not \"default\"";
        return Err(Failure::usage(format!("Docker takes no context of the name '{name}'"), hint));
    }
    let config = DockerConfig::find().ok_or_else(|| Failure::usage("there is no home directory", "set HOME or DOCKER_CONFIG"))?;
    let at = |path: &Path| format!("cannot change {}", path.display());
    let in_config = |error| Failure::io(&at(&config.file()), &error);
    let in_context = |error| Failure::io(&at(&config.context_file(&name)), &error);
    let found = config.context(&name).map_err(in_context)?;
    if let Found::Foreign(address) = &found {
        let address = address.as_deref().map_or_else(String::new, |address| format!(" for {address}"));
        let hint = "choose another name with --name, or remove it: docker context rm";
        return Err(Failure::own(
            5,
            "context_exists",
            format!("there is a context '{name}'{address} that is not of berth's making"),
            Some(hint),
        ));
    }

    if remove {
        // The file that names it first: docker fails at a current context that is not there.
        if config.current().map_err(in_config)?.as_deref() == Some(&name) {
            config.set_current(None).map_err(in_config)?;
        }
        config.remove_context(&name).map_err(in_context)?;
        return said(context, &name, None, false, &format!("The Docker context '{name}' is gone."));
    }
    let host = docker_host(context, None).await?;
    config.write_context(&name, &host).map_err(in_context)?;
    if make_current {
        config.set_current(Some(&name)).map_err(in_config)?;
    }
    let current = config.current().map_err(in_config)?.as_deref() == Some(&name);
    let text = match current {
        true => format!("Docker uses the context '{name}' now: {host}."),
        false => format!(
            "There is a Docker context '{name}' for {host}.\nTo use it: docker --context {name} ps, or always: docker context use {name}"
        ),
    };
    let other = env::var("DOCKER_HOST").is_ok_and(|set| !set.is_empty() && set != host);
    if current && other {
        eprintln!("warning: DOCKER_HOST is set to something else here and wins; unset it");
    }
    said(context, &name, Some(&host), current, &text)
}

fn said(context: &Context, name: &str, host: Option<&str>, current: bool, text: &str) -> Outcome {
    match context.json {
        true => output::json(&json!({ "name": name, "docker_host": host, "current": current }))?,
        false => output::line(text)?,
    }
    Ok(0)
}

/// Where Docker of the named user's berth is, or the caller's.
async fn docker_host(context: &Context, user: Option<String>) -> Result<String, Failure> {
    if user.is_none()
        && let Some(host) = own_socket(&context.socket)
    {
        return Ok(host);
    }
    let user = user_or_self(user)?;
    let berth = context.client.berth(&user).await?;
    let socket = berth.socket.ok_or_else(|| {
        Failure::own(6, "berth_not_ready", format!("the berth of {user} is not set up yet"), Some("try again in a moment: berth status"))
    })?;
    Ok(format!("unix://{socket}"))
}

/// The caller's socket beside the service's, if there is one that is his.
pub(super) fn own_socket(service: &Path) -> Option<String> {
    let uid = geteuid().as_raw();
    let socket = service.parent()?.join(format!("users/{uid}/docker.sock"));
    let meta = fs::symlink_metadata(&socket).ok()?;
    let his = uid != 0 && meta.uid() == uid && meta.file_type().is_socket();
    his.then(|| socket.to_str().map(|path| format!("unix://{path}"))).flatten()
}

/// A word that the shell reads as it is.
fn quoted(shell: Shell, text: &str) -> String {
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/:._-".contains(&b)) {
        return text.to_owned();
    }
    let inner = match shell {
        Shell::Sh => text.replace('\'', r"'\''"),
        Shell::Fish => text.replace('\\', r"\\").replace('\'', r"\'"),
        // History is replaced within quotes too.
        Shell::Csh => text.replace('\'', r"'\''").replace('!', r"\!"),
    };
    format!("'{inner}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_path_needs_no_quotes_and_no_other_escapes() {
        for shell in [Shell::Sh, Shell::Fish, Shell::Csh] {
            assert_eq!(quoted(shell, "unix:///run/berth/users/1000/docker.sock"), "unix:///run/berth/users/1000/docker.sock");
        }
        assert_eq!(quoted(Shell::Sh, "a b;'$x"), r"'a b;'\''$x'");
        assert_eq!(quoted(Shell::Fish, r"a\'b"), r"'a\\\'b'");
        assert_eq!(quoted(Shell::Csh, "a!'b"), r"'a\!'\''b'");
    }

    #[test]
    fn only_a_socket_of_the_callers_own_counts() {
        let dir = tempfile::tempdir().unwrap();
        let uid = geteuid().as_raw();
        let users = dir.path().join(format!("users/{uid}"));
        fs::create_dir_all(&users).unwrap();
        let service = dir.path().join("api.sock");
        assert_eq!(own_socket(&service), None);
        fs::write(users.join("docker.sock"), "").unwrap();
        assert_eq!(own_socket(&service), None, "a file is no socket");
        fs::remove_file(users.join("docker.sock")).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(users.join("docker.sock")).unwrap();
        let expected = (uid != 0).then(|| format!("unix://{}/docker.sock", users.display()));
        assert_eq!(own_socket(&service), expected, "root has no berth");
    }
}
