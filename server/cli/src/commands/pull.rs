//! Images of registries.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use berth_api::{PullImage, RegistryLogin, Secret};
use clap::Args;

use super::{Context, images};
use crate::{Outcome, failure::Failure};

/// As much of a password as the service takes, and of certificates.
const MOST_PASSWORD: u64 = 16 << 10;
const MOST_CERTIFICATES: u64 = 128 << 10;

#[derive(Clone, Debug, Args)]
pub(crate) struct PullArguments {
    /// [REGISTRY[:PORT]/]NAME[:TAG][@DIGEST]; Docker Hub and latest where they are left out
    pub reference: String,
    /// Name of the image [default: the last part of the reference, with its tag]
    #[arg(long)]
    pub name: Option<String>,
    /// Log in to the registry; the password is kept nowhere
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    pub username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
    /// Certificate authorities of the registry in PEM, besides those that the host trusts
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Without TLS; loopback addresses only
    #[arg(long, conflicts_with = "ca")]
    pub plain_http: bool,
    /// Do not wait until it is there
    #[arg(long)]
    pub no_wait: bool,
}

pub(super) async fn run(context: &Context, arguments: PullArguments) -> Outcome {
    let name = match arguments.name.or_else(|| name_of(&arguments.reference)) {
        Some(name) => name,
        None => return Err(Failure::usage("the image needs a name", "pass --name")),
    };
    let login = match arguments.username {
        Some(username) => Some(RegistryLogin { username, password: Secret(password()?) }),
        None => None,
    };
    let certificates = arguments.ca.as_deref().map(certificates).transpose()?;
    let pull = PullImage { reference: arguments.reference, login, certificates, plain_http: arguments.plain_http };
    let accepted = context.client.pull_image(&name, &pull).await?;
    images::made(context, accepted, &name, !arguments.no_wait).await
}

/// `team/app:1` is `app:1`.
fn name_of(reference: &str) -> Option<String> {
    let name = reference.split('@').next()?.rsplit('/').next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Standard input without the end of its line.
fn password() -> Result<String, Failure> {
    let mut text = String::new();
    let read = io::stdin().lock().take(MOST_PASSWORD + 2).read_to_string(&mut text);
    read.map_err(|error| Failure::io("cannot read the password", &error))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match text.len() as u64 {
        0 => Err(Failure::usage("there is no password on standard input", "pass it with --password-stdin")),
        1..=MOST_PASSWORD => Ok(text.to_owned()),
        _ => Err(Failure::usage(format!("a password has {MOST_PASSWORD} bytes at most"), "pass it with --password-stdin")),
    }
}

fn certificates(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MOST_CERTIFICATES + 1).read_to_string(&mut text));
    read.map_err(|error| Failure::io(&format!("cannot read {}", path.display()), &error))?;
    if text.len() as u64 > MOST_CERTIFICATES {
        let detail = format!("{} has more than {MOST_CERTIFICATES} bytes", path.display());
        return Err(Failure::usage(detail, "pass only the certificates of the registry's authority"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_gives_its_image_a_name() {
        for (reference, name) in [
            ("debian", Some("debian")),
            ("localhost:5000/team/app:1", Some("app:1")),
            ("r.example.org/app@sha256:00", Some("app")),
            ("r.example.org/app:2@sha256:00", Some("app:2")),
            ("r.example.org/", None),
            ("", None),
        ] {
            assert_eq!(name_of(reference).as_deref(), name, "{reference}");
        }
    }
}
