//! A descriptor on the tokio reactor. Alike on every system.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// tokio asks for raw descriptors.
#[derive(Debug)]
pub(crate) struct Raw<T>(pub(crate) T);

impl<T: AsFd> AsRawFd for Raw<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Registers the one descriptor that `inner` owns for as long as it lives, whose readability is waited for.
pub(crate) fn register<T: AsFd>(inner: T) -> io::Result<AsyncFd<Raw<T>>> {
    // SAFETY: `inner` (a process watcher, the only caller's) owns one descriptor, never replaces or closes it while it
    // lives, and `AsyncFd` deregisters before it drops `inner`.
    let registered = unsafe { AsyncFd::register_with_interest(Raw(inner), Interest::READABLE) };
    Ok(registered?)
}
