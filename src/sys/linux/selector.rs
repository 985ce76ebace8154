//! What the one thread behind all trees sleeps on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

use crate::error::{Error, Result};
use crate::sys::backend::handle::milliseconds;

/// Several descriptors to wait for at once, and a way to be woken by another thread.
#[derive(Debug)]
pub(crate) struct Selector {
    epoll: Epoll,
    waker: Flag,
}

/// What to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Readable,
    /// A file of the kernel that changed, such as cgroup.events.
    Changed,
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

/// Starts a thread that takes no signals: they are for the threads of the program that uses us.
pub(crate) fn spawn_quiet(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), Some(&mut before))?;
    // It inherits the mask.
    let thread = Builder::new().name(name.to_owned()).stack_size(256 * 1024).spawn(body);
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    thread
}

fn failed(errno: Errno) -> Error {
    Error::os(None, TRIED, errno.into())
}
