//! Ends of many processes as one readable descriptor: epoll over pidfds, and a timer over those that have none.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::error::{Error, Result};
use crate::state::State;
use crate::sys::backend::handle::{Handle, Kind, milliseconds};

/// Whatever `K` the caller names a handle by comes back once that handle's process has ended.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: Epoll,
    looked_at: Mutex<LookedAt>,
    /// From this descriptor number on, room is made for more.
    crowded: AtomicU64,
}

/// What keeps a handle registered.
#[derive(Debug)]
pub(crate) struct Registration {
    /// Of the handle, or a copy of it when the handle's own is registered already.
    copy: Option<OwnedFd>,
}

/// Processes whose end is no event: they are looked at when a timer fires.
#[derive(Debug, Default)]
struct LookedAt {
    handles: HashMap<u64, Arc<Handle>>,
    timer: Option<TimerFd>,
}

const TIMER: u64 = u64::MAX;
const WATCH: &str = "watch process";

impl Poller {
    pub(crate) fn new() -> Result<Poller> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|errno| Error::os(None, "create a process watcher", errno.into()))?;
        Ok(Poller { epoll, looked_at: Mutex::default(), crowded: AtomicU64::new(0) })
    }

    /// Reports `key` once when the process has ended, at once if it has. Keys are the caller's, below `u64::MAX`.
    pub(crate) fn add(&self, handle: &Arc<Handle>, key: u64) -> Result<Registration> {
        self.make_room(handle);
        if handle.kind() == Kind::Directory {
            let mut looked_at = self.lock();
            if looked_at.timer.is_none() {
                looked_at.timer = Some(self.start_timer().map_err(|errno| failed(handle, errno))?);
            }
            looked_at.handles.insert(key, Arc::clone(handle));
            // It may have ended already: fire at once.
            looked_at.fire_in(Duration::ZERO).map_err(|errno| failed(handle, errno))?;
            return Ok(Registration { copy: None });
        }
        // One-shot: a pidfd stays readable for ever (trap 8).
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, key);
        match self.epoll.add(handle.as_fd(), event) {
            Ok(()) => Ok(Registration { copy: None }),
            Err(Errno::EEXIST) => {
                let copy = handle
                    .as_fd()
                    .try_clone_to_owned()
                    .map_err(|error| Error::os(handle.pid(), WATCH, error))?;
                self.epoll.add(&copy, event).map_err(|errno| failed(handle, errno))?;
                Ok(Registration { copy: Some(copy) })
            }
            Err(errno) => Err(failed(handle, errno)),
        }
    }

    /// Takes back what `add` gave. Must be called before the handle is dropped by its last owner, unless it has been
    /// reported.
    pub(crate) fn remove(&self, handle: &Handle, registration: Registration, key: u64) {
        match (handle.kind(), registration.copy) {
            (Kind::Directory, _) => {
                self.lock().handles.remove(&key);
            }
            (Kind::Pidfd, Some(copy)) => drop(self.epoll.delete(copy)),
            (Kind::Pidfd, None) => drop(self.epoll.delete(handle.as_fd())),
        }
    }

    /// Appends the keys of those that ended, at most `most`; none if the time was up or a signal came. Returns whether
    /// there may be more.
    pub(crate) fn wait(&self, keys: &mut Vec<u64>, most: usize, timeout: Option<Duration>) -> Result<bool> {
        let mut events = [EpollEvent::empty(); 256];
        let most = most.clamp(1, events.len());
        let count = match self.epoll.wait(&mut events[..most], epoll_timeout(timeout)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(Error::os(None, "wait for the end of processes", errno.into())),
        };
        let mut more = count == most;
        for event in &events[..count] {
            if event.data() == TIMER {
                // It stays readable until a look finds nothing more.
                more = true;
                self.lock().look(keys, most)?;
            } else {
                keys.push(event.data());
            }
        }
        Ok(more)
    }

    fn lock(&self) -> MutexGuard<'_, LookedAt> {
        self.looked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_timer(&self) -> Result<TimerFd, Errno> {
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        self.epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        Ok(timer)
    }

    /// Raises the soft limit of open files to the hard one when three quarters of it are used (trap 20). The number of
    /// a new descriptor is the lowest that was free, so it says how many are open.
    fn make_room(&self, handle: &Handle) {
        let number = handle.as_fd().as_raw_fd() as u64;
        if number < self.crowded.load(Ordering::Relaxed) {
            return;
        }
        let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
            return;
        };
        let crowded = soft / 4 * 3;
        if number >= crowded && soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
            crate::debug!(from = soft, to = hard, "raised the soft limit of open files");
            self.crowded.store(hard / 4 * 3, Ordering::Relaxed);
        } else {
            self.crowded.store(if number >= crowded { u64::MAX } else { crowded }, Ordering::Relaxed);
        }
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl LookedAt {
    /// Looks at each once. The timer stays expired, and so the descriptor readable, until a look finds nothing more.
    fn look(&mut self, keys: &mut Vec<u64>, most: usize) -> Result<()> {
        let started = Instant::now();
        let mut ended = Vec::new();
        for (&key, handle) in &self.handles {
            if ended.len() == most {
                break;
            }
            // What cannot be asked any more is not thereby at an end.
            if matches!(handle.state(), Ok(State::Zombie | State::Gone)) {
                ended.push(key);
            }
        }
        for key in &ended {
            self.handles.remove(key);
        }
        if ended.is_empty() {
            // At most a twentieth of one processor.
            let pause = (started.elapsed() * 20).max(Duration::from_millis(10));
            let result = if self.handles.is_empty() { self.stop() } else { self.fire_in(pause) };
            result.map_err(|errno| Error::os(None, "set a timer", errno.into()))?;
        }
        keys.append(&mut ended);
        Ok(())
    }

    fn fire_in(&self, pause: Duration) -> Result<(), Errno> {
        let Some(timer) = &self.timer else { return Ok(()) };
        let pause = pause.max(Duration::from_nanos(1));
        timer.set(Expiration::OneShot(TimeSpec::from_duration(pause)), TimerSetTimeFlags::empty())
    }

    fn stop(&self) -> Result<(), Errno> {
        self.timer.as_ref().map_or(Ok(()), TimerFd::unset)
    }
}

fn failed(handle: &Handle, errno: Errno) -> Error {
    Error::os(handle.pid(), WATCH, errno.into())
}

/// For epoll_wait(2).
fn epoll_timeout(left: Option<Duration>) -> EpollTimeout {
    left.map_or(EpollTimeout::NONE, |left| {
        EpollTimeout::try_from(milliseconds(left)).unwrap_or(EpollTimeout::MAX)
    })
}
