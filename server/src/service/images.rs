//! Images: list, build, import, pull, remove, the default one.

use super::{Error, Service, authorise, berths::pending, name};
use crate::{
    authz::Operation as Op,
    domain::{
        AuditEntry, Caller, Image, ImageName, ImageRef, InvalidReference, Kind, Operation, OperationId, Parameters, Problem, Reference,
        Refusal, RegistryAccess, Subject,
    },
    node_client::Upload,
    store,
};

/// Debian releases that the recipe knows.
const SUITES: [&str; 3] = ["bookworm", "trixie", "sid"];
/// Builds, imports, pulls and removals at a time.
const MOST: u32 = 8;

/// An image, and whether berths that name none get it.
#[derive(Clone, Debug)]
pub struct ImageState {
    pub image: Image,
    pub default: bool,
}

impl Service {
    /// All images, newest first.
    pub async fn images(&self, caller: &Caller) -> Result<Vec<ImageState>, Error> {
        authorise(caller, Op::ListImages)?;
        let mut reader = self.store.reader().await?;
        let default = store::settings::get(&mut reader, store::settings::DEFAULT_IMAGE).await?;
        drop(reader);
        let mut images = self.node.images().await?;
        images.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.digest.cmp(&b.digest)));
        let digest = resolve(&images, None, default).ok().map(|image| image.digest.clone());
        Ok(images.into_iter().map(|image| ImageState { default: Some(&image.digest) == digest.as_ref(), image }).collect())
    }

    pub async fn build_image(&self, caller: &Caller, image: &str, suite: &str) -> Result<Operation, Error> {
        authorise(caller, Op::BuildImage)?;
        let image: ImageName = name("image", image)?;
        if !SUITES.contains(&suite) {
            return Err(Problem::new(Refusal::Invalid, "unknown_suite", format!("there is no recipe for {:?}", super::shorten(suite)))
                .hint(format!("one of {}", SUITES.join(", ")))
                .into());
        }
        let parameters = Parameters::Build { suite: suite.to_owned() };
        let operation = pending(&self.clock, caller, Kind::ImageBuild, image.as_str(), parameters);
        self.accept_image(caller, Op::BuildImage, &operation, serde_json::json!({ "suite": suite }), || ()).await?;
        Ok(operation)
    }

    /// Takes a root tar or an OCI layout; returns once all of it has been passed on, or the node has refused it.
    pub async fn import_image(&self, caller: &Caller, image: &str, body: Upload, total: Option<u64>) -> Result<Operation, Error> {
        authorise(caller, Op::ImportImage)?;
        let image: ImageName = name("image", image)?;
        let operation = pending(&self.clock, caller, Kind::ImageImport, image.as_str(), Parameters::None);
        let sent = self
            .accept_image(caller, Op::ImportImage, &operation, serde_json::json!({}), || self.uploads.leave(operation.id, body, total))
            .await
            .inspect_err(|_| drop(self.uploads.take(operation.id)))?;
        // An error only says that the node wanted no more of it; the operation tells why.
        let _ = sent.await;
        self.operation_now(operation.id).await
    }

    /// Fetches an image from a registry. What it takes to get there stays in memory: no row, audit record or log line ever holds it.
    pub async fn pull_image(&self, caller: &Caller, image: &str, reference: &str, access: RegistryAccess) -> Result<Operation, Error> {
        authorise(caller, Op::PullImage)?;
        let image: ImageName = name("image", image)?;
        let reference: Reference = reference.parse().map_err(|error: InvalidReference| {
            Problem::new(Refusal::Invalid, "invalid_reference", error.to_string()).hint("write [REGISTRY[:PORT]/]NAME[:TAG][@DIGEST]")
        })?;
        access.check(&reference)?;
        let parameters = Parameters::Pull { reference: reference.to_string(), plain: access.plain, private: access.is_private() };
        let operation = pending(&self.clock, caller, Kind::ImagePull, image.as_str(), parameters);
        let details = serde_json::json!({ "reference": reference.to_string() });
        self.accept_image(caller, Op::PullImage, &operation, details, || self.uploads.leave_access(operation.id, access))
            .await
            .inspect_err(|_| self.uploads.forget(operation.id))?;
        Ok(operation)
    }

    pub async fn remove_image(&self, caller: &Caller, image: &str) -> Result<Operation, Error> {
        authorise(caller, Op::RemoveImage)?;
        let wanted: ImageRef = name("image", image)?;
        let image = resolve(&self.node.images().await?, Some(wanted), None)?;
        let mut reader = self.store.reader().await?;
        let users = store::berths::users_of_image(&mut reader, &image.digest).await?;
        drop(reader);
        if !users.is_empty() {
            let detail = format!("{} is used by the berths of {}", image.name, listed(&users));
            return Err(Problem::new(Refusal::Conflict, "image_in_use", detail).hint("delete these berths first").into());
        }
        let parameters = Parameters::Remove { digest: image.digest.clone() };
        let operation = pending(&self.clock, caller, Kind::ImageRemove, &image.name, parameters);
        self.accept_image(caller, Op::RemoveImage, &operation, serde_json::json!({ "digest": image.digest }), || ()).await?;
        Ok(operation)
    }

    /// Names the image of berths that name none. A name follows the newest image of that name.
    pub async fn set_default_image(&self, caller: &Caller, image: &str) -> Result<ImageState, Error> {
        authorise(caller, Op::SetDefaultImage)?;
        let wanted: ImageRef = name("image", image)?;
        let image = resolve(&self.node.images().await?, Some(wanted.clone()), None)?;
        let value = if wanted.as_str() == image.name { &image.name } else { &image.digest };
        let mut tx = self.store.begin().await?;
        store::settings::set(&mut tx, store::settings::DEFAULT_IMAGE, value, self.clock.now()).await?;
        let details = serde_json::json!({ "digest": image.digest });
        let entry = AuditEntry { action: Op::SetDefaultImage.id(), subject: Subject::Image(&image.name), details, operation: None };
        store::audit::insert(&mut tx, &self.clock, Some(caller), entry).await?;
        self.store.commit(tx).await?;
        Ok(ImageState { image, default: true })
    }

    /// Stores the operation and the audit row, then runs `stored` and wakes the reconciler.
    async fn accept_image<T>(
        &self,
        caller: &Caller,
        action: Op,
        operation: &Operation,
        details: serde_json::Value,
        stored: impl FnOnce() -> T,
    ) -> Result<T, Error> {
        let mut tx = self.store.begin().await?;
        if store::operations::count_unfinished_images(&mut tx).await? >= MOST {
            return Err(Problem::new(Refusal::Conflict, "too_many_image_operations", format!("{MOST} image operations are under way"))
                .hint("wait until one of them has ended")
                .into());
        }
        store::operations::insert(&mut tx, operation).await?;
        let entry = AuditEntry { action: action.id(), subject: Subject::Image(&operation.subject), details, operation: Some(operation.id) };
        store::audit::insert(&mut tx, &self.clock, Some(caller), entry).await?;
        // Before the commit: the reconciler may see the operation at once, and then looks for the body.
        let left = stored();
        self.store.commit(tx).await?;
        self.store.announce();
        Ok(left)
    }

    pub(super) async fn operation_now(&self, id: OperationId) -> Result<Operation, Error> {
        let mut reader = self.store.reader().await?;
        store::operations::by_id(&mut reader, id).await?.ok_or_else(|| super::not_found("operation", &id.to_string()))
    }
}

/// The image that is meant: the newest that matches `wanted`, else `default`, else the only one there is.
pub(super) fn resolve(images: &[Image], wanted: Option<ImageRef>, default: Option<String>) -> Result<Image, Error> {
    let newest = |reference: &ImageRef| {
        images.iter().filter(|image| reference.matches(&image.name, &image.digest)).max_by_key(|image| image.created_at).cloned()
    };
    if let Some(wanted) = wanted {
        return newest(&wanted).ok_or_else(|| {
            Problem::new(Refusal::NotFound, "image_not_found", format!("there is no image {wanted}")).hint("berth image list").into()
        });
    }
    match (default.and_then(|text| text.parse().ok()), images) {
        (Some(default), _) if newest(&default).is_some() => newest(&default),
        (Some(default), [_, ..]) => {
            let detail = format!("the default image {default} is gone");
            return Err(Problem::new(Refusal::Conflict, "default_image_gone", detail).hint("berth image default NAME").into());
        }
        (None, [only]) => Some(only.clone()),
        _ => None,
    }
    .ok_or_else(|| match images.is_empty() {
        true => Problem::new(Refusal::Conflict, "no_image", "there is no image yet").hint("berth image build").into(),
        false => Problem::new(Refusal::Conflict, "no_default_image", "no image is the default one").hint("berth image default NAME").into(),
    })
}

fn listed(users: &[String]) -> String {
    const SHOWN: usize = 5;
    match users.len() {
        0..=SHOWN => users.join(", "),
        more => format!("{} and {} more", users[..SHOWN].join(", "), more - SHOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, digits: &str, created_at: i64) -> Image {
        Image { digest: format!("sha256:{digits}"), name: name.to_owned(), created_at, size_bytes: 1, used_by: Vec::new() }
    }

    #[test]
    fn a_name_follows_the_newest_image_and_a_digest_stays() {
        let images = [image("default", "aaaaaaaa", 1), image("default", "bbbbbbbb", 2), image("other", "cccccccc", 3)];
        let pick = |wanted: Option<&str>, default: Option<&str>| {
            resolve(&images, wanted.map(|text| text.parse().unwrap()), default.map(str::to_owned)).map(|image| image.digest)
        };
        assert_eq!(pick(Some("default"), None).unwrap(), "sha256:bbbbbbbb");
        assert_eq!(pick(Some("aaaaaaaa"), None).unwrap(), "sha256:aaaaaaaa");
        assert_eq!(pick(None, Some("other")).unwrap(), "sha256:cccccccc");
        assert_eq!(pick(None, Some("gone")).unwrap_err().to_string(), "the default image gone is gone");
        assert_eq!(pick(None, None).unwrap_err().to_string(), "no image is the default one");
        assert_eq!(resolve(&images[..1], None, None).unwrap().digest, "sha256:aaaaaaaa");
        assert_eq!(resolve(&[], None, Some("default".to_owned())).unwrap_err().to_string(), "there is no image yet");
    }
}
