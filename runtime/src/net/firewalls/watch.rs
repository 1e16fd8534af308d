use std::{future::poll_fn, io};

use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};

/// linux/netfilter/nfnetlink.h and nf_tables.h.
const NETLINK_NETFILTER: isize = 12;
const GROUP_NFTABLES: u32 = 7;
const SUBSYSTEM_NFTABLES: u8 = 10;
/// New and deleted tables, chains and rules. Elements of sets come and go with every berth, and decide nothing here.
const KINDS: [u8; 6] = [0, 2, 3, 5, 6, 8];
/// Length of a message, then its type: the kind and the subsystem.
const HEAD: usize = 16;

/// The kernel's word that somebody changed the nft rule set. Needs a tokio runtime.
pub struct Watch(TokioSocket);

impl Watch {
    /// Of the caller's network namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        socket.socket_mut().add_membership(GROUP_NFTABLES)?;
        Ok(Self(socket))
    }

    /// Returns when tables, chains or rules changed, ours included.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            match poll_fn(|context| self.0.poll_recv_from_full(context)).await {
                Ok((messages, _)) if concerns(&messages) => return Ok(()),
                Ok(_) => {}
                // More changed than the socket holds.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

fn concerns(mut messages: &[u8]) -> bool {
    while let Some(head) = messages.get(..HEAD) {
        let (length, kind, subsystem) = (u32::from_ne_bytes([head[0], head[1], head[2], head[3]]), head[4], head[5]);
        let (kind, subsystem) = if cfg!(target_endian = "big") { (subsystem, kind) } else { (kind, subsystem) };
        if subsystem == SUBSYSTEM_NFTABLES && KINDS.contains(&kind) {
            return true;
        }
        let next = usize::try_from(length).unwrap_or(usize::MAX).max(HEAD).next_multiple_of(4);
        messages = messages.get(next..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16) -> Vec<u8> {
        let mut bytes = 21_u32.to_ne_bytes().to_vec();
        bytes.extend((u16::from(SUBSYSTEM_NFTABLES) << 8 | kind).to_ne_bytes());
        bytes.resize(24, 0);
        bytes
    }

    #[test]
    fn n04_a_changed_rule_counts_and_a_changed_element_does_not() {
        const NEW_RULE: u16 = 6;
        const NEW_ELEMENT: u16 = 12;
        assert!(concerns(&message(NEW_RULE)));
        assert!(!concerns(&message(NEW_ELEMENT)));
        assert!(concerns(&[message(NEW_ELEMENT), message(NEW_RULE)].concat()));
        assert!(!concerns(&message(NEW_RULE)[..10]));
    }
}
