//! What the one thread behind all trees sleeps on.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent};

use super::darwin::{self, Descriptor};
use crate::error::{Error, Result};
use crate::sys::notice::Interest;

/// Several descriptors to wait for at once, and a way to be woken by another thread.
#[derive(Debug)]
pub(crate) struct Selector(Descriptor);

/// A descriptor that is readable while it is raised.
#[derive(Debug)]
pub(crate) struct Flag {
    seen: UnixStream,
    raised: UnixStream,
}

const WAKER: u64 = u64::MAX;
const TRIED: &str = "follow a process tree";

impl Selector {
    pub(crate) fn new() -> Result<Selector> {
        let selector = Selector(Descriptor::new().map_err(failed)?);
        selector
            .change(0, EventFilter::EVFILT_USER, EvFlags::EV_ADD | EvFlags::EV_CLEAR, WAKER)
            .map_err(failed)?;
        Ok(selector)
    }

    /// Keys are the caller's, below `u64::MAX`.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, key: u64, interest: Interest) -> Result<()> {
        match interest {
            Interest::Readable => {}
            Interest::Changed => {
                return Err(Error::unsupported(
                    None,
                    TRIED,
                    "files that say so when they have changed are Linux's",
                ));
            }
        }
        self.change(fd.as_raw_fd() as usize, EventFilter::EVFILT_READ, EvFlags::EV_ADD, key).map_err(failed)
    }

    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        // It is gone from there if it has been closed.
        let _ = self.change(fd.as_raw_fd() as usize, EventFilter::EVFILT_READ, EvFlags::EV_DELETE, 0);
    }

    /// Replaces `keys` by those whose descriptors are ready; none if the time was up, a signal came, or `wake` was called.
    pub(crate) fn wait(&self, keys: &mut Vec<u64>, timeout: Option<Duration>) -> Result<()> {
        keys.clear();
        let mut events = [darwin::none(); 64];
        match self.0.kevent(&[], &mut events, timeout) {
            Ok(count) => keys.extend(events[..count].iter().map(|event| event.udata() as u64)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
        keys.retain(|&key| key != WAKER);
        Ok(())
    }

    /// Lets `wait` return.
    pub(crate) fn wake(&self) {
        let event = KEvent::new(
            0,
            EventFilter::EVFILT_USER,
            EvFlags::empty(),
            FilterFlag::NOTE_TRIGGER,
            0,
            WAKER as isize,
        );
        // It is there from the start.
        let _ = self.0.kevent(&[event], &mut [], Some(Duration::ZERO));
    }

    fn change(&self, ident: usize, filter: EventFilter, flags: EvFlags, key: u64) -> Result<(), Errno> {
        let event = KEvent::new(ident, filter, flags, FilterFlag::empty(), 0, key as isize);
        self.0.kevent(&[event], &mut [], Some(Duration::ZERO)).map(drop)
    }
}

impl Flag {
    pub(crate) fn new() -> Result<Flag> {
        let failed = |error| Error::os(None, TRIED, error);
        let (seen, raised) = UnixStream::pair().map_err(failed)?;
        seen.set_nonblocking(true).map_err(failed)?;
        raised.set_nonblocking(true).map_err(failed)?;
        Ok(Flag { seen, raised })
    }

    pub(crate) fn raise(&self) {
        // It cannot fail but by being full, raised.
        let _ = (&self.raised).write(&[1]);
    }

    pub(crate) fn lower(&self) {
        while matches!((&self.seen).read(&mut [0; 64]), Ok(count) if count > 0) {}
    }
}

impl AsFd for Flag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.seen.as_fd()
    }
}

fn failed(errno: Errno) -> Error {
    Error::os(None, TRIED, errno.into())
}
