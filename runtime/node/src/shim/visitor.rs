//! Who is answered by Berth in Docker's stead, and the line that tells of it; also for the node, while no shim serves the socket.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use berth_protocol::CallRecord;

use super::{
    calls::{self, Caller},
    http::{self, Now},
    proxy, tap,
};
use crate::link::Owner;

/// A client of the user's socket, as he was when he connected.
#[derive(Debug)]
pub(crate) struct Visitor {
    caller: Caller,
    began: Now,
}

impl Visitor {
    pub(crate) fn new(client: &OwnedFd) -> io::Result<Self> {
        let began = tap::now();
        let (uid, pid) = proxy::peer(client.as_fd())?;
        Ok(Self { caller: Caller { uid, pid, command: tap::command(client, pid) }, began })
    }

    /// The line about the call of which `head` is what came.
    pub(crate) fn refused(&self, owner: &Owner, head: &[u8], status: u16) -> CallRecord {
        calls::line(owner, &self.caller, http::refused(head, status, self.began, tap::now()))
    }
}
