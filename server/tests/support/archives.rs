//! Archives of the stand-in for the node.

use axum::{
    Json,
    body::Body,
    extract::{Path as Segment, State},
    http::StatusCode,
};
use berth_protocol::{Archive, ArchiveProgress, ArchiveRequest, BerthStatus, RestoreRequest};
use futures_util::{StreamExt, stream};

use super::node::{FakeNode, line, missing, problem};

pub async fn list(State(node): State<FakeNode>) -> Json<Vec<Archive>> {
    Json(node.inner.lock().unwrap().archives.values().cloned().collect())
}

pub async fn show(State(node): State<FakeNode>, Segment(name): Segment<String>) -> Result<Json<Archive>, axum::response::Response> {
    node.inner.lock().unwrap().archives.get(&name).cloned().map(Json).ok_or_else(|| missing("archive_not_found"))
}

pub async fn remove(State(node): State<FakeNode>, Segment(name): Segment<String>) -> StatusCode {
    node.inner.lock().unwrap().archives.remove(&name);
    StatusCode::NO_CONTENT
}

pub async fn write(State(node): State<FakeNode>, Segment(user): Segment<String>, Json(request): Json<ArchiveRequest>) -> Body {
    let mut inner = node.inner.lock().unwrap();
    inner.calls.push(format!("archive {user} {}", request.archive));
    if let Some((_, problem)) = inner.refusals.pop_front() {
        return lines(vec![ArchiveProgress::Failed { problem }]);
    }
    let archive = Archive {
        name: request.archive.clone(),
        size_bytes: 1000,
        user: user.clone(),
        created_at: 1,
        image: inner.berths[&user].image.clone(),
        disk_bytes: 4096,
        docker_images: vec!["busybox:latest".to_owned()],
        notes: request.notes,
    };
    inner.archives.insert(request.archive, archive.clone());
    lines(vec![ArchiveProgress::Bytes { done: 1 << 20, of: 4 << 20 }, ArchiveProgress::Done { archive }])
}

pub async fn restore(State(node): State<FakeNode>, Segment(user): Segment<String>, Json(request): Json<RestoreRequest>) -> Body {
    let mut inner = node.inner.lock().unwrap();
    inner.calls.push(format!("restore {user} {}", request.archive));
    if let Some((_, problem)) = inner.refusals.pop_front() {
        return lines(vec![ArchiveProgress::Failed { problem }]);
    }
    let Some(archive) = inner.archives.get(&request.archive).cloned() else {
        return lines(vec![ArchiveProgress::Failed { problem: problem("archive_not_found", "there is none") }]);
    };
    let status: BerthStatus = super::node::resting(&user, &request.ensure);
    inner.berths.insert(user, status);
    lines(vec![ArchiveProgress::Done { archive }])
}

fn lines(all: Vec<ArchiveProgress>) -> Body {
    Body::from_stream(stream::iter(all).map(|progress| Ok::<_, std::io::Error>(line(&progress))))
}
