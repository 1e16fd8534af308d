//! Archives, between the node's wire types and the domain.

use std::time::Duration;

use berth_protocol as wire;
use futures_util::{StreamExt, stream::BoxStream};
use hyper::Method;

use super::{ASK, Error, NodeClient, berth_path, convert, json, lines, segment};
use crate::domain::{Archive, ArchiveNotes, ArchiveProgress, BerthId, Ensure, UserName};

/// For a list of thousands of files.
const LIST: Duration = Duration::from_secs(60);

/// Ends with `Done` or `Failed`; dropped, the work is given up.
pub type ArchiveStream = BoxStream<'static, Result<ArchiveProgress, Error>>;

impl NodeClient {
    /// Newest first.
    pub async fn archives(&self) -> Result<Vec<Archive>, Error> {
        let all: Vec<wire::Archive> = self.send("list of archives", Method::GET, "/v1/archives", None::<&()>, LIST).await?;
        Ok(all.into_iter().map(Archive::from).collect())
    }

    pub async fn archive(&self, name: &str) -> Result<Archive, Error> {
        let archive: wire::Archive = self.ask("look at the archive", &format!("/v1/archives/{}", segment(name))).await?;
        Ok(archive.into())
    }

    /// Also succeeds when there is none.
    pub async fn remove_archive(&self, name: &str) -> Result<(), Error> {
        let path = format!("/v1/archives/{}", segment(name));
        self.collect("removal of the archive", Method::DELETE, &path, None::<&()>, ASK).await.map(drop)
    }

    pub async fn write_archive(&self, user: &UserName, id: BerthId, name: &str, notes: &ArchiveNotes) -> Result<ArchiveStream, Error> {
        let notes = serde_json::to_value(notes).unwrap_or_default();
        let body = json(&wire::ArchiveRequest { id: wire::BerthId(id.0), archive: name.to_owned(), notes });
        self.follow("archive of the berth", &berth_path(user, "/archive"), body).await
    }

    pub async fn restore_archive(&self, user: &UserName, name: &str, ensure: &Ensure) -> Result<ArchiveStream, Error> {
        let body = json(&wire::RestoreRequest { archive: name.to_owned(), ensure: ensure.into() });
        self.follow("restore of the berth", &berth_path(user, "/restore"), body).await
    }

    async fn follow(&self, what: &'static str, path: &str, body: (&'static str, super::transport::Body)) -> Result<ArchiveStream, Error> {
        let response = self.within(what, ASK, self.open(what, Method::POST, path, Some(body), false)).await?;
        let lines = lines::decode::<wire::ArchiveProgress>(what, response.into_body());
        Ok(lines.map(|line| line.map(ArchiveProgress::from)).boxed())
    }
}

impl From<wire::Archive> for Archive {
    fn from(archive: wire::Archive) -> Self {
        Self {
            name: archive.name,
            size_bytes: archive.size_bytes,
            user: archive.user,
            created_at: archive.created_at,
            image: archive.image,
            disk_bytes: archive.disk_bytes,
            docker_images: archive.docker_images,
            notes: serde_json::from_value(archive.notes).ok(),
        }
    }
}

impl From<wire::ArchiveProgress> for ArchiveProgress {
    fn from(progress: wire::ArchiveProgress) -> Self {
        match progress {
            wire::ArchiveProgress::Bytes { done, of } => Self::Bytes { done, of },
            wire::ArchiveProgress::Done { archive } => Self::Done(Box::new(archive.into())),
            wire::ArchiveProgress::Failed { problem } => {
                // The line has no status; these pass by themselves.
                let status = match problem.code.as_str() {
                    "node_stopping" | "berth_busy" | "directory_unavailable" => 503,
                    "host_disk_full" | "archive_disk_full" | "archive_does_not_fit" | "archive_damaged" | "ids_exhausted" => 507,
                    "archive_not_found" | "image_not_found" | "user_not_found" | "berth_not_found" => 404,
                    code if code.ends_with("_exists") || code.ends_with("_in_use") => 409,
                    _ => 500,
                };
                Self::Failed(convert::problem(status, problem))
            }
        }
    }
}
