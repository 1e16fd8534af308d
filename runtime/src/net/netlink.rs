//! What every use of route netlink here shares: a connection of the calling thread's network namespace, and errors that name the operation.

use std::{fs, future::Future};

use futures_util::TryStreamExt;
use rtnetlink::{Handle, packet_route::link::LinkAttribute};

use crate::error::{Error, Result, Step};

/// Runs `work` with a netlink connection of the calling thread's network namespace.
pub(super) fn netlink<F, W>(work: W) -> Result<()>
where
    W: FnOnce(Handle) -> F,
    F: Future<Output = Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().step("start", "a netlink executor")?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().step("open", "a netlink socket")?;
        tokio::spawn(connection);
        work(handle).await
    })
}

pub(super) async fn index_of(handle: &Handle, name: &str) -> Result<u32> {
    let found = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    let found = found.map_err(failed(format!("find link {name}")))?;
    let named = |a: &LinkAttribute| matches!(a, LinkAttribute::IfName(n) if n == name);
    match found {
        Some(message) if message.attributes.iter().any(named) => Ok(message.header.index),
        _ => Err(Error::Invalid(format!("there is no link {name}"))),
    }
}

/// Removes a link; gone already is success.
pub(super) async fn remove(handle: &Handle, name: &str) -> Result<()> {
    let Ok(index) = index_of(handle, name).await else { return Ok(()) };
    match handle.link().del(index).execute().await {
        Err(error) if is(&error, nix::libc::ENODEV) => Ok(()),
        done => done.map_err(failed(format!("remove link {name}"))),
    }
}

/// Names of the links in the caller's network namespace. Not from sysfs, which shows those of whoever mounted it.
pub(super) fn names() -> Result<Vec<String>> {
    let file = "/proc/thread-self/net/dev";
    let text = fs::read_to_string(file).step("read", file)?;
    Ok(text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect())
}

/// True when the kernel answered with this error number.
pub(super) fn is(error: &rtnetlink::Error, number: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -number)
}

pub(super) fn failed(operation: String) -> impl FnOnce(rtnetlink::Error) -> Error {
    move |source| Error::Netlink { operation, source: Box::new(source) }
}
