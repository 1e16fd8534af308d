//! Which service is meant: the socket of this host, or one that is reached over TCP with a token.

use std::{fs, path::PathBuf};

use berth_api::{
    Secret,
    client::{Client, Remote, RemoteError, Trust},
};
use clap::Args;

use crate::failure::{Failure, chain};

#[derive(Debug, Args)]
pub(crate) struct RemoteArguments {
    /// A service that is reached over TCP: https://HOST:PORT
    #[arg(long, global = true, env = "BERTH_URL", hide_env_values = true, value_name = "URL", help_heading = "Other hosts")]
    pub url: Option<String>,
    /// File that holds an API token, for --url
    #[arg(long, global = true, env = "BERTH_TOKEN_FILE", hide_env_values = true, value_name = "FILE", help_heading = "Other hosts")]
    pub token_file: Option<PathBuf>,
    /// Certificates in PEM that --url is to have, instead of those that this host trusts
    #[arg(long, global = true, env = "BERTH_CA_FILE", hide_env_values = true, value_name = "FILE", help_heading = "Other hosts")]
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the certificate that --url is to have
    #[arg(
        long,
        global = true,
        env = "BERTH_FINGERPRINT",
        hide_env_values = true,
        value_name = "SHA256",
        conflicts_with = "ca_file",
        help_heading = "Other hosts"
    )]
    pub fingerprint: Option<String>,
}

impl RemoteArguments {
    /// The service over TCP, if one is meant.
    pub(super) fn client(&self) -> Result<Option<Client>, Failure> {
        let Some(url) = self.url.as_ref().filter(|url| !url.is_empty()) else { return Ok(None) };
        let Some(file) = &self.token_file else {
            return Err(Failure::usage("--url needs a token", "--token-file FILE, with what berth token create printed on the other host"));
        };
        let text = fs::read_to_string(file).map_err(|error| Failure::io(&format!("cannot read {}", file.display()), &error))?;
        let trust = match (&self.fingerprint, &self.ca_file) {
            (Some(fingerprint), _) => Trust::Fingerprint(fingerprint.clone()),
            (None, Some(path)) => Trust::File(path.clone()),
            (None, None) => Trust::System,
        };
        let remote = Remote::new(url, Secret(text.trim().to_owned()), &trust).map_err(|error| failure(&error, file))?;
        Ok(Some(Client::remote(remote)))
    }
}

fn failure(error: &RemoteError, file: &std::path::Path) -> Failure {
    match error {
        RemoteError::Token => Failure::usage(format!("{} holds no token", file.display()), "one line, beginning with berth_"),
        error => Failure::usage(chain(error), "see berth --help"),
    }
}
