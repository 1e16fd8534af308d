//! What `berth-server` asks of `berth-node`, as types.
//!
//! The node trusts nothing of this: it validates every value anew and looks up uid, groups and home by the user's name itself.
//! Transport: HTTP/1.1 with JSON over `/run/berth/node.sock` (peer uid checked). Routes, all below `/v1`:
//!
//! | request | answer |
//! |---|---|
//! | `GET /node` | [`NodeInfo`] |
//! | `GET /users/{name}` | [`HostUser`], 404 `user_not_found` |
//! | `GET /accounts?known=NAME,…` | `Vec<`[`Account`]`>`: that of every berth, and those named; asks NSS and PAM now |
//! | `POST /users` with [`Asked`] | `Vec<`[`Member`]`>`, in the order asked; 503 `directory_unavailable` |
//! | `GET /berths` | `Vec<`[`BerthStatus`]`>` |
//! | `GET /berths/{user}` | [`BerthStatus`], 404 `berth_not_found` |
//! | `PUT /berths/{user}` with [`Ensure`] | [`BerthStatus`] once the wanted state is reached; asking twice is harmless |
//! | `POST /berths/{user}/preview` with [`Ensure`] | `Vec<`[`Waits`]`>`: what of it would wait for a restart; refused as the `PUT` would be. Changes nothing |
//! | `POST /berths/{user}/stop` | [`BerthStatus`] |
//! | `DELETE /berths/{user}?id=ID` | 204; also when there is none. The id finds a berth whose record does not tell its user any more |
//! | `POST /berths/{user}/exec` with [`ExecRequest`] | 101, `Upgrade: berth-exec`, then [`frame`]s |
//! | `GET /berths/{user}/logs?tail=N&follow=BOOL` | `text/plain`, chunked |
//! | `GET /calls/watch` | `application/x-ndjson` of [`CallsAt`]: every spool that holds something, then each growth; also of deleted berths |
//! | `GET /calls/{id}?after=POSITION` | [`CallPage`] |
//! | `POST /calls/{id}/taken` with [`CallsTaken`] | 204; the spool of a deleted berth goes with its last line |
//! | `GET /watch` | `application/x-ndjson`: every [`BerthStatus`] once, then each change |
//! | `GET /usage?user=NAME` | `Vec<`[`BerthUsage`]`>` of the berths that are up, or of that one, read now |
//! | `GET /images` | `Vec<`[`ImageInfo`]`>` |
//! | `POST /images/build` with [`BuildRequest`] | `application/x-ndjson` of [`ImageProgress`] |
//! | `POST /images/import?name=NAME`, body a tar | `application/x-ndjson` of [`ImageProgress`] |
//! | `DELETE /images/{digest}` | 204, 409 `image_in_use` |
//! | `POST /berths/{user}/archive` with [`ArchiveRequest`] | `application/x-ndjson` of [`ArchiveProgress`] |
//! | `POST /berths/{user}/restore` with [`RestoreRequest`] | the same |
//! | `GET /archives` | `Vec<`[`Archive`]`>`, newest first |
//! | `GET /archives/{name}` | [`Archive`], 404 `archive_not_found` |
//! | `DELETE /archives/{name}` | 204; also when there is none |
//! | `GET /doctor` | `Vec<`[`Check`]`>` |
//! | `POST /doctor` with [`DeepCheck`] | `Vec<`[`Check`]`>`: a container in a throw-away berth, which is gone when this answers |
//!
//! Errors are [`Problem`] with a 4xx or 5xx status.

#![forbid(unsafe_code)]

mod accounts;
mod archives;
mod calls;
pub mod frame;
mod inside;
mod limits;
mod policy;
mod types;

pub use accounts::{Account, AccountState};
pub use archives::{Archive, ArchiveProgress, ArchiveRequest, RestoreRequest, valid_archive_name};
pub use calls::{Call, CallPage, CallRecord, CallsAt, CallsTaken, Outcome};
pub use inside::{Inside, InsideContainer, InsideDisk, InsideImage, InsideVolume, Prune, PruneRequest, Pruned, Taken};
pub use limits::{InvalidLimits, IoLimits, Limits, NetworkLimits};
pub use policy::{
    Cidr, Egress, HomeAccess, HostPort, Idle, InvalidEgress, OpenTo, Policy, Ports, PublishedPort, Restart, SharedPath, Sleep,
};
pub use types::{
    Asked, BerthId, BerthStatus, BerthUsage, BuildRequest, Check, CheckLevel, Condition, DeepCheck, DiskUsage, Ensure, ExecRequest,
    HostUser, ImageInfo, ImageProgress, IoUsage, Member, NetworkUsage, NodeInfo, Pressure, Problem, Rebuild, Stall, State, Usage, Waits,
    Wanted,
};

/// Version of this protocol; the node reports it in [`NodeInfo`].
pub const VERSION: u32 = 1;
