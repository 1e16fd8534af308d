//! Images: build, import, pull, list, remove, the default one.

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use berth_api::{Accepted, BuildImage};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Context;
use crate::{
    Outcome,
    arguments::ImageCommand,
    failure::Failure,
    output::{self, Rows},
    progress::{self, Show},
    units,
};

pub(super) async fn run(context: &Context, command: ImageCommand) -> Outcome {
    match command {
        ImageCommand::Build { name, suite, no_wait } => {
            let accepted = context.client.build_image(&BuildImage { name: name.clone(), suite }).await?;
            made(context, accepted, &name, !no_wait).await
        }
        ImageCommand::Import { file, name, no_wait } => import(context, &file, name, !no_wait).await,
        ImageCommand::Pull(arguments) => super::pull::run(context, arguments).await,
        ImageCommand::List => list(context).await,
        ImageCommand::Rm { image } => {
            let accepted = context.client.remove_image(&image).await?;
            super::berths::finish(context, accepted, true, &format!("The image {image} is removed.")).await
        }
        ImageCommand::Default { image } => {
            let image = context.client.set_default_image(&image).await?;
            match context.json {
                true => output::json(&image)?,
                false => output::line(&format!("New berths stand on {} ({}).", image.name, image.digest))?,
            }
            Ok(0)
        }
    }
}

async fn list(context: &Context) -> Outcome {
    let images = context.client.images().await?;
    if context.json {
        output::json(&images)?;
        return Ok(0);
    }
    if images.items.is_empty() {
        output::line("There are no images. To make one: berth image build")?;
        return Ok(0);
    }
    let mut rows = Rows::new(&["NAME", "DIGEST", "SIZE", "AGE", "DEFAULT", "BERTHS"]);
    for image in images.items {
        let digits = image.digest.strip_prefix("sha256:").unwrap_or(&image.digest);
        rows.push([
            image.name,
            digits.chars().take(12).collect(),
            units::bytes(image.size_bytes),
            units::age(image.created_at, units::now()),
            if image.default { "yes" } else { "" }.to_owned(),
            image.used_by.len().to_string(),
        ]);
    }
    rows.show()?;
    Ok(0)
}

async fn import(context: &Context, file: &Path, name: Option<String>, wait: bool) -> Outcome {
    let from_stdin = file.as_os_str() == "-";
    let name = match name.or_else(|| if from_stdin { None } else { name_of(file) }) {
        Some(name) => name,
        None => return Err(Failure::usage("the image needs a name", "pass --name")),
    };
    let input: Pin<Box<dyn AsyncRead + Send>> = if from_stdin {
        Box::pin(tokio::io::stdin())
    } else {
        let opened = tokio::fs::File::open(file).await;
        Box::pin(opened.map_err(|error| Failure::io(&format!("cannot read {}", file.display()), &error))?)
    };
    let sent = Arc::new(AtomicU64::new(0));
    let bar = progress::bar(if context.json { Show::Nothing } else { Show::Steps });
    let upload = context.client.import_image(&name, parts(input, Arc::clone(&sent)));
    let mut upload = std::pin::pin!(upload);
    let accepted = loop {
        tokio::select! {
            result = upload.as_mut() => break result,
            () = tokio::time::sleep(Duration::from_millis(200)) => {
                bar.set_message(format!("{name}: sending, {} so far", units::bytes(sent.load(Ordering::Relaxed))));
            }
        }
    };
    bar.finish_and_clear();
    made(context, accepted?, &name, wait).await
}

pub(super) async fn made(context: &Context, accepted: Accepted, name: &str, wait: bool) -> Outcome {
    if !wait {
        return super::berths::finish(context, accepted, false, "").await;
    }
    let warnings = accepted.warnings.clone();
    let show = if context.json { Show::Nothing } else { Show::Output };
    let operation = progress::follow(&context.client, accepted, show).await?;
    match (context.json, &operation.result) {
        (true, _) => output::json(&Accepted { operation, warnings })?,
        (false, Some(digest)) => output::line(&format!("The image {name} is there ({digest})."))?,
        (false, None) => output::line(&format!("The image {name} is there."))?,
    }
    Ok(0)
}

/// The file's name without its endings.
fn name_of(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let name = [".gz", ".zst", ".xz"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let name = [".tar", ".tgz", ".oci"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    (!name.is_empty()).then(|| name.to_owned())
}

fn parts(input: Pin<Box<dyn AsyncRead + Send>>, sent: Arc<AtomicU64>) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send {
    const PART: usize = 256 * 1024;
    stream::try_unfold((input, sent), |(mut input, sent)| async move {
        let mut part = BytesMut::with_capacity(PART);
        let count = input.read_buf(&mut part).await?;
        sent.fetch_add(count as u64, Ordering::Relaxed);
        Ok((count > 0).then(|| (part.freeze(), (input, sent))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_its_image_a_name() {
        for (file, name) in
            [("/x/alpine.tar.gz", Some("alpine")), ("web.tar", Some("web")), ("a.tgz", Some("a")), ("plain", Some("plain")), (".tar", None)]
        {
            assert_eq!(name_of(Path::new(file)).as_deref(), name, "{file}");
        }
    }
}
