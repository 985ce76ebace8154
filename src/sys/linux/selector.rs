//! What the one thread behind all trees sleeps on.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::error::{Error, Result};
use crate::sys::backend::handle::milliseconds;
use crate::sys::notice::Interest;

/// Several descriptors to wait for at once, and a way to be woken by another thread.
#[derive(Debug)]
pub(crate) struct Selector {
    epoll: Epoll,
    waker: Flag,
}

/// A descriptor that is readable while it is raised.
#[derive(Debug)]
pub(crate) struct Flag(EventFd);

const WAKER: u64 = u64::MAX;
const TRIED: &str = "follow a process tree";

impl Selector {
    pub(crate) fn new() -> Result<Selector> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        let selector = Selector { epoll, waker: Flag::new()? };
        selector.add(selector.waker.as_fd(), WAKER, Interest::Readable)?;
        Ok(selector)
    }

    /// Keys are the caller's, below `u64::MAX`.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, key: u64, interest: Interest) -> Result<()> {
        let flags = match interest {
            Interest::Readable => EpollFlags::EPOLLIN,
            // kernfs reports a change once to each open file, until that is read again.
            Interest::Changed => EpollFlags::EPOLLPRI,
        };
        self.epoll.add(fd, EpollEvent::new(flags, key)).map_err(failed)
    }

    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        // It is gone from there if it was the last descriptor of its file and has been closed.
        let _ = self.epoll.delete(fd);
    }

    /// Replaces `keys` by those whose descriptors are ready; none if the time was up, a signal came, or `wake` was called.
    pub(crate) fn wait(&self, keys: &mut Vec<u64>, timeout: Option<Duration>) -> Result<()> {
        keys.clear();
        let timeout = timeout.map_or(EpollTimeout::NONE, |timeout| {
            EpollTimeout::try_from(milliseconds(timeout)).unwrap_or(EpollTimeout::MAX)
        });
        let mut events = [EpollEvent::empty(); 64];
        match self.epoll.wait(&mut events, timeout) {
            Ok(count) => keys.extend(events[..count].iter().map(EpollEvent::data)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
        if keys.contains(&WAKER) {
            self.waker.lower();
            keys.retain(|&key| key != WAKER);
        }
        Ok(())
    }

    /// Lets `wait` return.
    pub(crate) fn wake(&self) {
        self.waker.raise();
    }
}

impl Flag {
    pub(crate) fn new() -> Result<Flag> {
        EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map(Flag).map_err(failed)
    }

    pub(crate) fn raise(&self) {
        // It cannot fail but by being at its limit, raised.
        let _ = self.0.write(1);
    }

    pub(crate) fn lower(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Flag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn failed(errno: Errno) -> Error {
    Error::os(None, TRIED, errno.into())
}
