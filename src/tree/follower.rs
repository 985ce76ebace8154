//! One tree of the engine, as its owners hold it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::identity::{Identity, Sameness};
use crate::process::Process;
use crate::sys::{self, Flag};
use crate::tree::builder::Backend;
use crate::tree::engine::Lease;
use crate::tree::event::{Coverage, Emptied, TreeEvent};
use crate::tree::follow::{Follow, Source};
use crate::tree::queue::{Queue, Told};
use crate::tree::scan::told_until;
use crate::tree::state::TreeState;
use crate::tree::walk::around;

#[derive(Debug)]
pub(super) struct Follower {
    pub(super) engine: Lease,
    pub(super) key: u64,
    flag: OnceLock<Arc<Flag>>,
    pub(super) queue: Arc<Queue>,
}

/// Trees that fork without end have young members for ever.
const SETTLING: usize = 3;

impl Follower {
    /// For a tree that is about to be put in under its key.
    pub(super) fn new(engine: Lease) -> Follower {
        let key = engine.lock().new_key();
        Follower { engine, key, flag: OnceLock::new(), queue: Arc::default() }
    }

    /// A member, pinned; `None` if it has ended and been reaped.
    pub(super) fn open_member(&self, member: &Identity) -> Result<Option<Process>> {
        let mut inner = self.engine.lock();
        let opened = inner.open_member(self.key, member)?;
        let is_same =
            |process: &Process| process.handle.identity(false).same_process(member) == Sameness::Same;
        if opened.as_ref().is_none_or(is_same) {
            return Ok(opened);
        }
        // If it had ended before it was pinned, that is told by now.
        inner.catch_up(self.key);
        let is_member = inner.tree(self.key).lineage.member(member.pid()).is_some();
        Ok(opened.filter(|_| is_member))
    }

    /// Kills the whole cgroup, and returns who was in it; `None` where there is none, or no such means.
    pub(super) fn kill_cgroup(&self) -> Result<Option<Vec<Identity>>> {
        self.with(|follow| match &follow.source {
            Source::Cgroup(cgroup) => {
                let members = follow.members().collect();
                Ok(cgroup.kill()?.then_some(members))
            }
            _ => Ok(None),
        })
    }

    /// Does something to the tree, after everything that the kernel has told of it so far was taken in.
    fn with<R>(&self, act: impl FnOnce(&mut Follow) -> R) -> R {
        let mut inner = self.engine.lock();
        inner.catch_up(self.key);
        act(inner.tree(self.key))
    }

    /// The same, after whoever nobody tells of has been looked for.
    pub(super) fn with_members<R>(&self, act: impl FnOnce(&mut Follow) -> R) -> R {
        let mut inner = self.engine.lock();
        inner.catch_up(self.key);
        if inner.tree(self.key).is_polled() {
            drop(inner);
            self.engine.scan(&[self.key]);
            inner = self.engine.lock();
        }
        act(inner.tree(self.key))
    }

    pub(super) fn backend(&self) -> Backend {
        self.engine.lock().tree(self.key).backend()
    }

    pub(super) fn coverage(&self) -> Coverage {
        self.engine.lock().tree(self.key).coverage.clone()
    }

    pub(super) fn root(&self) -> Identity {
        self.engine.lock().tree(self.key).root
    }

    pub(super) fn members(&self) -> Vec<Identity> {
        self.with_members(|follow| follow.members().collect())
    }

    pub(super) fn emptied(&self) -> Option<Emptied> {
        self.with(|follow| follow.emptied)
    }

    /// Waits up to a clock tick for those of them that only their start tells from others.
    pub(super) fn line(&self) -> Vec<Identity> {
        let line = self.with(|follow| follow.line());
        if line.iter().all(|one| one.unique.is_some() || one.settled) {
            return line;
        }
        std::thread::sleep(sys::TICK);
        self.with(|follow| follow.line())
    }

    /// Waits up to a clock tick for members that only their start tells from others: a successor has no other hold on them.
    pub(super) fn save(&self) -> TreeState {
        for _ in 0..SETTLING {
            let young = self.with_members(Follow::settle);
            if !young {
                break;
            }
            std::thread::sleep(sys::TICK);
        }
        // In this order: who is there, and no member by what is told after that, is none.
        let told = told_until(sys::monotonic());
        let beside = self.with(Follow::adopters).map_or_else(Vec::new, |above| around(&above));
        // Whoever had ended by the time it was looked at again is told by now.
        self.with(|follow| follow.save(told, beside))
    }

    pub(super) fn next_event(&self, timeout: Option<Duration>) -> Result<Option<TreeEvent>> {
        self.wait(timeout, |told| match told.take() {
            Some(event) => Some(Some(event)),
            None if told.emptied.is_some() => Some(None),
            None => None,
        })
        .map(Option::flatten)
    }

    pub(super) fn wait_empty(&self, timeout: Option<Duration>) -> Result<Option<Emptied>> {
        self.wait(timeout, |told| told.emptied)
    }

    pub(super) fn event_fd(&self) -> Result<BorrowedFd<'_>> {
        if self.flag.get().is_none() {
            let flag = Arc::new(Flag::new()?);
            let _ = self.flag.set(flag);
        }
        let flag =
            self.flag.get().ok_or_else(|| Error::malformed(None, "make a descriptor", "it is not there"))?;
        self.queue.lock().show_with(flag);
        Ok(flag.as_fd())
    }

    /// Waits until `take` has something.
    fn wait<R>(
        &self,
        timeout: Option<Duration>,
        mut take: impl FnMut(&mut Told) -> Option<R>,
    ) -> Result<Option<R>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut caught_up = false;
        loop {
            let mut told = self.queue.lock();
            let is_late = loop {
                if let Some(taken) = take(&mut told) {
                    told.lower_if_idle();
                    return Ok(Some(taken));
                }
                let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                if told.trouble || left == Some(Duration::ZERO) {
                    break !told.trouble;
                }
                // The thread takes in what comes.
                told = self.queue.wait(told, left);
            };
            drop(told);
            let mut inner = self.engine.lock();
            if let Some(error) = inner.tree(self.key).take_trouble() {
                return Err(error);
            }
            if is_late {
                if caught_up {
                    return Ok(None);
                }
                caught_up = true;
                inner.catch_up(self.key);
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut inner = self.engine.lock();
        // Whose PIDs are to be forgotten should be as new as can be.
        inner.hear_connector();
        let follow = inner.remove(&self.engine.selector, self.key);
        inner.disconnect_if_unused(&self.engine.selector);
        drop(inner);
        if let Some(remains) = follow.as_ref().and_then(|follow| follow.remains.as_ref()) {
            // Another thread may be about it.
            remains.clear_away();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc;
    use std::time::Duration;

    use crate::tree::Tree;

    /// In a storm that is nearly always held.
    #[test]
    fn what_was_told_is_taken_without_the_lock_of_the_engine() {
        let (tree, mut child) = Tree::spawn(&mut Command::new("true")).unwrap();
        child.wait().unwrap();
        let emptied = tree.wait_empty(None).unwrap();
        let (tell, hear) = mpsc::channel();
        let held = tree.follower.engine.lock();
        let taker = tree.clone();
        let taker = std::thread::spawn(move || {
            tell.send((taker.next_event(None).unwrap().is_some(), taker.wait_empty(None).unwrap())).unwrap();
        });
        let heard = hear.recv_timeout(Duration::from_secs(10));
        drop(held);
        taker.join().unwrap();
        assert_eq!(heard, Ok((true, emptied)));
    }
}
