use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::identity::Identity;
use crate::process::Process;
use crate::state::ExitStatus;
use crate::sys;

/// Reports the ends of many processes, from one descriptor.
///
/// Each watched process is reported exactly once: when it has ended, or at once if it had before it was watched. A
/// zombie has ended. Nothing is reaped, and no other process's end is ever reported for it, whoever gets its PID.
///
/// The watcher holds a watched process's descriptor until its end is reported, so one for each (the `Process` itself can
/// be dropped). When three quarters of the soft limit of open files are used, [`watch`](ProcessWatcher::watch) raises it
/// to the hard limit, for the whole program and those that it starts later; programs that use select(2) must not let it
/// come to that.
///
/// `Send` and `Sync`: threads may watch, unwatch and wait at the same time. A child of fork(2) must not use its parent's
/// watcher: the kernel's side of it is shared, and each end would go to one of the two.
///
/// # In an event loop
///
/// The descriptor ([`AsFd`]) becomes readable when there are ends to report and stays so until they have been taken:
/// register it in epoll, mio or tokio and call [`drain`](ProcessWatcher::drain). With feature `tokio`,
/// [`into_stream`](ProcessWatcher::into_stream) does that.
///
/// # Example: the first of two to end
///
/// ```
/// use std::process::Command;
/// use pidigree::{ExitStatus, Process, ProcessWatcher};
///
/// let mut quick = Command::new("true").spawn().unwrap();
/// let mut slow = Command::new("sleep").arg("60").spawn().unwrap();
///
/// let watcher = ProcessWatcher::new()?;
/// let key = watcher.watch(&Process::from_child(&quick)?)?;
/// watcher.watch(&Process::from_child(&slow)?)?;
///
/// let first = watcher.wait(None)?.expect("no timeout was set");
/// assert_eq!((first.key, first.status), (key, ExitStatus::Code(0)));
/// # slow.kill().unwrap();
/// # quick.wait().unwrap();
/// # slow.wait().unwrap();
/// # Ok::<(), pidigree::Error>(())
/// ```
#[derive(Debug)]
pub struct ProcessWatcher {
    // Before `watched`, so that it is closed first: nothing is left registered that could be reported.
    poller: sys::Poller,
    watched: Mutex<Watches>,
    next_key: AtomicU64,
}

#[derive(Debug)]
struct Watched {
    handle: Arc<sys::Handle>,
    /// If it was known when the watch began.
    identity: Option<Identity>,
    registration: Option<sys::Registration>,
}

type Watches = HashMap<u64, Watched, BuildHasherDefault<KeyHasher>>;

/// Keys count up and nobody else chooses them: there is nothing to defend against. An odd factor keeps the lower bits of
/// neighbours apart, which choose the bucket, and fills the upper ones, which are compared first.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    fn write_u64(&mut self, key: u64) {
        // 2^64 divided by the golden ratio.
        self.0 = (self.0 ^ key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Names one watch of one [`ProcessWatcher`]; never used again by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchKey(u64);

/// The end of a watched process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exited {
    /// The watch that this ends.
    pub key: WatchKey,
    /// Which process ended.
    pub identity: Identity,
    /// How, where the kernel told.
    pub status: ExitStatus,
}

impl ProcessWatcher {
    /// Creates a watcher of nothing.
    ///
    /// # Errors
    ///
    /// [`is_limit`](crate::Error::is_limit) if no descriptor is free.
    pub fn new() -> Result<ProcessWatcher> {
        Ok(ProcessWatcher {
            poller: sys::Poller::new()?,
            watched: Mutex::default(),
            next_key: AtomicU64::new(0),
        })
    }

    /// Watches a process until its end; one that has ended is reported at once. A process may be watched more than once
    /// and is then reported under each key.
    ///
    /// # Errors
    ///
    /// [`is_limit`](crate::Error::is_limit) if this user's epoll watches or the kernel's memory are used up.
    /// Descriptors run out earlier, in [`Process::open`].
    ///
    /// # Cost
    ///
    /// One epoll_ctl(2). Where there are no pidfds, a share of a timer that looks at all watched processes and takes at
    /// most a twentieth of one processor.
    pub fn watch(&self, process: &Process) -> Result<WatchKey> {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        // Under the lock, so that an end cannot be taken before its watch is entered.
        let mut watched = self.lock();
        let registration = self.poller.add(&process.handle, key)?;
        let watch = Watched {
            handle: Arc::clone(&process.handle),
            identity: process.identity.get().copied(),
            registration: Some(registration),
        };
        watched.insert(key, watch);
        Ok(WatchKey(key))
    }

    /// Ends a watch. Returns whether it stood: `false` if the end has been reported, or the key is not of this watcher.
    pub fn unwatch(&self, key: WatchKey) -> bool {
        let Some(mut watch) = self.lock().remove(&key.0) else {
            return false;
        };
        if let Some(registration) = watch.registration.take() {
            self.poller.remove(&watch.handle, registration, key.0);
        }
        true
    }

    /// Waits for the next end; `None` if the time was up before. `timeout`: `None` waits for ever (also where nothing is
    /// watched: another thread may begin to), zero only looks.
    ///
    /// # Cost
    ///
    /// Two or three system calls for each end, however many are watched.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<Exited>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut keys = Vec::with_capacity(1);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            self.poller.wait(&mut keys, 1, left)?;
            // One that was unwatched meanwhile is not there any more.
            if let Some(exited) = keys.pop().and_then(|key| self.take(key)) {
                return Ok(Some(exited));
            }
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
        }
    }

    /// Takes all ends that there are, without blocking, and appends them. Returns how many.
    ///
    /// # Errors
    ///
    /// What was taken before an error is in `into`.
    pub fn drain(&self, into: &mut Vec<Exited>) -> Result<usize> {
        let before = into.len();
        let mut keys = Vec::new();
        loop {
            let more = self.poller.wait(&mut keys, usize::MAX, Some(Duration::ZERO))?;
            into.extend(keys.drain(..).filter_map(|key| self.take(key)));
            if !more {
                return Ok(into.len() - before);
            }
        }
    }

    /// Returns how many processes are watched whose end has not been taken yet.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Returns whether none is.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// What became of the process that this key watches, which has ended; `None` if it is watched no longer.
    fn take(&self, key: u64) -> Option<Exited> {
        let mut watch = self.lock().remove(&key)?;
        let status = watch.handle.exit_status();
        let identity = watch.identity.unwrap_or_else(|| watch.handle.identity(false));
        // Closing the last descriptor deregisters it; where a child of fork has a copy, one-shot keeps it quiet.
        if Arc::strong_count(&watch.handle) > 1 {
            if let Some(registration) = watch.registration.take() {
                self.poller.remove(&watch.handle, registration, key);
            }
        }
        Some(Exited { key: WatchKey(key), identity, status })
    }

    fn lock(&self) -> MutexGuard<'_, Watches> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for ProcessWatcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }
}

#[cfg(feature = "tokio")]
mod stream {
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};
    use std::time::Duration;

    use tokio::io::unix::AsyncFd;

    use super::{Exited, ProcessWatcher};
    use crate::error::{Error, Result};
    use crate::sys::reactor::{self, Raw};

    /// The ends of watched processes as they come; see [`ProcessWatcher::into_stream`]. It never ends by itself.
    #[derive(Debug)]
    pub struct Exits {
        watcher: AsyncFd<Raw<ProcessWatcher>>,
    }

    impl ProcessWatcher {
        /// Turns it into a stream on the tokio reactor of the current runtime. Watch more through
        /// [`Exits::watcher`].
        ///
        /// # Errors
        ///
        /// Those of epoll_ctl(2).
        ///
        /// # Panics
        ///
        /// Outside a tokio runtime with IO enabled, as tokio's `AsyncFd`.
        pub fn into_stream(self) -> Result<Exits> {
            let watcher = reactor::register(self)
                .map_err(|error| Error::os(None, "register a process watcher with tokio", error))?;
            Ok(Exits { watcher })
        }
    }

    impl Exits {
        /// Returns the watcher, to watch and unwatch with.
        pub fn watcher(&self) -> &ProcessWatcher {
            &self.watcher.get_ref().0
        }
    }

    impl futures_core::Stream for Exits {
        type Item = Result<Exited>;

        fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Exited>>> {
            loop {
                let mut ready = ready!(self.watcher.poll_read_ready(context))
                    .map_err(|error| Error::os(None, "wait for the end of processes", error))?;
                match self.watcher().wait(Some(Duration::ZERO)).transpose() {
                    Some(exited) => return Poll::Ready(Some(exited)),
                    None => ready.clear_ready(),
                }
            }
        }
    }
}

#[cfg(feature = "tokio")]
pub use stream::Exits;
