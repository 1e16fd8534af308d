//! The one buffer of the shim: 64 KiB, used between two system calls and never across a wait, so that a connection costs no buffer.

use std::cell::RefCell;

/// Size in bytes.
pub(crate) const SIZE: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SIZE]);
}

/// Lends the buffer; its contents are whatever the last user left. Not to be nested.
pub(crate) fn with<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| use_it(buffer))
}
