//! Pipes for splice(2), made when needed and few: the kernel counts them against the berth's base id, which container root shares.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

/// Most pipes in use at once; a direction that gets none copies.
const MOST: usize = 16;
/// Most pipes kept while nobody uses them.
const KEPT: usize = 2;
/// Wanted size in bytes.
const SIZE: usize = 256 * 1024;
/// Below this a pipe is slower than a copy: the kernel shrinks the pipes of a user who has too many.
const USEFUL: usize = 64 * 1024;

#[derive(Debug)]
struct Pipe {
    input: OwnedFd,
    output: OwnedFd,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Stock {
    free: Vec<Pipe>,
    lent: usize,
}

/// The pipes of one shim.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Stock>);

/// A borrowed, empty pipe. It goes back on drop, unless something is left in it.
#[derive(Debug)]
pub(crate) struct Lease<'a> {
    pool: &'a Pool,
    pipe: Option<Pipe>,
    /// Bytes in the pipe.
    pub(crate) held: usize,
}

impl Pool {
    /// True when some pipe was made and is kept.
    #[cfg(test)]
    pub(crate) fn keeps_some(&self) -> bool {
        !self.0.lock().unwrap().free.is_empty()
    }

    /// An empty pipe, or none when too many are in use or the kernel grants none of a useful size.
    pub(crate) fn lend(&self) -> Option<Lease<'_>> {
        let mut stock = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if stock.lent >= MOST {
            return None;
        }
        let pipe = stock.free.pop().or_else(make)?;
        stock.lent += 1;
        Some(Lease { pool: self, pipe: Some(pipe), held: 0 })
    }
}

fn make() -> Option<Pipe> {
    let (output, input) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
    let _ = fcntl_setpipe_size(&input, SIZE);
    let capacity = fcntl_getpipe_size(&input).ok()?;
    (capacity >= USEFUL).then_some(Pipe { input, output, capacity })
}

impl Lease<'_> {
    pub(crate) fn input(&self) -> BorrowedFd<'_> {
        self.pipe().input.as_fd()
    }

    pub(crate) fn output(&self) -> BorrowedFd<'_> {
        self.pipe().output.as_fd()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.pipe().capacity
    }

    fn pipe(&self) -> &Pipe {
        self.pipe.as_ref().expect("taken by drop only")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut stock = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        stock.lent -= 1;
        if self.held == 0 && stock.free.len() < KEPT {
            stock.free.extend(self.pipe.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_bounded_and_one_with_bytes_in_it_is_never_lent_again() {
        let pool = Pool::default();
        let mut leases: Vec<_> = std::iter::from_fn(|| pool.lend()).collect();
        assert_eq!(leases.len(), MOST);
        for lease in &mut leases {
            lease.held = 1;
        }
        drop(leases);
        assert!(pool.0.lock().unwrap().free.is_empty());
        drop(pool.lend().unwrap());
        assert_eq!(pool.0.lock().unwrap().free.len(), 1);
    }
}
