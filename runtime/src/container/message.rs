//! What passes between [`start`](super::start()) and its two children, over one `SOCK_SEQPACKET` pair: a JSON value a packet, descriptors beside.

use serde::{Deserialize, Serialize};

use super::Bundle;
pub(super) use crate::packet::{receive, send};

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToChild {
    /// With descriptors: sealed init program, console (write end), channel (berth-init's end), then the mounts of the shares.
    Bundle(Box<Bundle>),
    Go,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromChild {
    /// All namespaces are there; time offsets and the link are to be set.
    NeedHost,
    /// PID 1 was made: its pid in the host's pid namespace. With a descriptor, where there is one: the device of the emulated files.
    Cloned {
        pid: u32,
    },
    /// PID 1 stands before exec. With descriptors: root (`O_PATH`), disk.
    Ready,
    /// Next PID 1 executes. With a descriptor: the listener of its system calls.
    Heard,
    Failed {
        detail: String,
    },
}

/// Between the stage and the child that makes the root; [`Go`](FromMaker::Go) is the stage's.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromMaker {
    /// The user namespace is there; its maps are to be written.
    NeedMaps,
    Go,
    /// With a descriptor: the root, a detached tree of mounts.
    Made,
    Failed {
        detail: String,
    },
}
