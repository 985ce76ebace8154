//! Ends of many processes as one readable descriptor.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use super::abi::NOTE_EXIT;
use super::handle::Handle;
use super::kernel::Kernel;
use super::queue::{Attached, Queue, Told};
use crate::error::{Error, Result};
use crate::pid::Pid;
use crate::state::{ExitStatus, State};

/// Whatever key the caller names a handle by comes back once that handle's process has ended.
#[derive(Debug)]
pub(crate) struct Poller<K: Kernel> {
    queue: Queue<K>,
    watching: Mutex<Watching<K>>,
}

/// What keeps a handle registered: its key is enough.
#[derive(Debug)]
pub(crate) struct Registration(());

#[derive(Debug)]
struct Watching<K> {
    /// One knote for each PID, however often its process is watched.
    attached: HashMap<Pid, Knote<K>>,
    /// Ends that are known, and not taken yet.
    ended: Vec<u64>,
    last: usize,
}

#[derive(Debug)]
struct Knote<K> {
    /// Tells its events from those of an earlier one.
    key: usize,
    watches: Vec<(u64, Arc<Handle<K>>)>,
    /// Its end is told to its debugger alone, for as long as that likes (trap 32).
    is_traced: bool,
}

const WATCH: &str = "watch process";

impl<K: Kernel> Poller<K> {
    pub(super) fn new_in(kernel: K) -> Result<Poller<K>> {
        let failed = |errno: Errno| Error::os(None, "create a process watcher", errno.into());
        let queue = Queue::new(kernel).map_err(failed)?;
        let watching = Watching { attached: HashMap::new(), ended: Vec::new(), last: 0 };
        Ok(Poller { queue, watching: Mutex::new(watching) })
    }

    #[cfg(target_os = "macos")]
    pub(super) fn queue(&self) -> &K::Queue {
        self.queue.descriptor()
    }

    /// Reports `key` once when the process has ended, at once if it has.
    pub(crate) fn add(&self, handle: &Arc<Handle<K>>, key: u64) -> Result<Registration> {
        let pid = handle.pid();
        let failed = |errno: Errno| Error::os(pid, WATCH, errno.into());
        let mut watching = self.lock();
        if let Some(knote) = watching.attached.get_mut(&pid) {
            let is_same = knote.watches.first().is_some_and(|(_, known)| known.is_same(handle));
            if is_same {
                knote.watches.push((key, Arc::clone(handle)));
                return Ok(Registration(()));
            }
            // Another one had the PID. If it is this one that is newer, that one has ended, and its event is on its way.
            if handle.state()? == State::Gone {
                return self.has_ended(watching, key).map_err(failed);
            }
            if let Some(knote) = watching.attached.remove(&pid) {
                watching.ended.extend(knote.watches.iter().map(|(key, _)| *key));
                self.queue.ring().map_err(failed)?;
            }
        }
        watching.last += 1;
        let knote = watching.last;
        if self.queue.attach(pid, 0, knote).map_err(failed)? == Attached::Ended {
            return self.has_ended(watching, key).map_err(failed);
        }
        // By PID: it is ours that was attached to if it has the PID after that.
        let seen = match handle.look(WATCH) {
            Ok(seen) => seen,
            Err(error) => {
                self.queue.detach(pid);
                if error.is_gone() {
                    return self.has_ended(watching, key).map_err(failed);
                }
                return Err(error);
            }
        };
        let is_traced = seen.info.is_traced();
        let watches = vec![(key, Arc::clone(handle))];
        watching.attached.insert(pid, Knote { key: knote, watches, is_traced });
        if is_traced {
            self.queue.set_timer().map_err(failed)?;
        }
        Ok(Registration(()))
    }

    /// Takes back what `add` gave.
    pub(crate) fn remove(&self, handle: &Handle<K>, _registration: Registration, key: u64) {
        let mut watching = self.lock();
        let Some(knote) = watching.attached.get_mut(&handle.pid()) else { return };
        knote.watches.retain(|(watch, _)| *watch != key);
        if knote.watches.is_empty() {
            watching.attached.remove(&handle.pid());
            self.queue.detach(handle.pid());
        }
    }

    /// Appends the keys of those that ended, at most `most`; none if the time was up or a signal came. Returns whether
    /// there may be more.
    pub(crate) fn wait(&self, keys: &mut Vec<u64>, most: usize, timeout: Option<Duration>) -> Result<bool> {
        let failed = |errno: Errno| Error::os(None, "wait for the end of processes", errno.into());
        // Not under the lock: others may watch more meanwhile.
        let mut told = Vec::new();
        let timeout = if self.lock().ended.is_empty() { timeout } else { Some(Duration::ZERO) };
        let more = self.queue.read(&mut told, timeout).map_err(failed)?;
        let mut watching = self.lock();
        for told in told {
            match told {
                Told::Process { pid, key, notes, status } if notes & NOTE_EXIT != 0 => {
                    watching.end(pid, key, status);
                }
                Told::Process { .. } | Told::Rung => {}
                Told::Timer => self.look_at_traced(&mut watching)?,
            }
        }
        let most = most.min(watching.ended.len());
        keys.extend(watching.ended.drain(..most));
        if watching.ended.is_empty() {
            return Ok(more);
        }
        self.queue.ring().map_err(failed)?;
        Ok(true)
    }

    fn look_at_traced(&self, watching: &mut Watching<K>) -> Result<()> {
        let mut ended = Vec::new();
        let mut left = false;
        for (pid, knote) in watching.attached.iter().filter(|(_, knote)| knote.is_traced) {
            // What cannot be asked any more is not thereby at an end.
            match knote.watches.first().map(|(_, handle)| handle.state()) {
                Some(Ok(State::Zombie | State::Gone)) => ended.push((*pid, knote.key)),
                _ => left = true,
            }
        }
        for (pid, key) in ended {
            self.queue.detach(pid);
            watching.end(pid, key, ExitStatus::Unknown);
        }
        if left {
            self.queue.set_timer().map_err(|errno| Error::os(None, WATCH, errno.into()))?;
        }
        Ok(())
    }

    fn has_ended(&self, mut watching: MutexGuard<'_, Watching<K>>, key: u64) -> Result<Registration, Errno> {
        watching.ended.push(key);
        self.queue.ring().map(|()| Registration(()))
    }

    fn lock(&self) -> MutexGuard<'_, Watching<K>> {
        self.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Kernel> Watching<K> {
    /// The knote with this key has told the end of its process.
    fn end(&mut self, pid: Pid, key: usize, status: ExitStatus) {
        if self.attached.get(&pid).is_none_or(|knote| knote.key != key) {
            // Of an earlier bearer, whose end is known already.
            return;
        }
        if let Some(knote) = self.attached.remove(&pid) {
            for (key, handle) in knote.watches {
                handle.set_status(status);
                self.ended.push(key);
            }
        }
    }
}
