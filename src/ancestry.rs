//! Questions about bare PIDs. A PID says nothing about when it was valid, so the *question* is racy here; the *answer*
//! is not: every link of a walk is verified while its processes are pinned.

use crate::error::{Error, Result};
use crate::pid::Pid;
use crate::sys::{self, Since, Step};

/// How often one link, and one walk, is tried again when processes end under it.
pub(crate) const RETRIES: usize = 16;

/// More links than Linux can number processes (PID_MAX_LIMIT). A verified walk only ever meets older processes.
const DEEPEST: usize = 1 << 22;

/// Returns the PID of the parent of the process that has this PID now; `None` at the top of what can be seen from here
/// (PID 1, the first kernel thread, and the first process of a PID namespace).
///
/// # Errors
///
/// [`is_gone`](Error::is_gone) if no process has the PID, [`is_thread`](Error::is_thread) if a thread has it,
/// [`is_denied`](Error::is_denied) where hidepid hides it (Linux before 6.13).
///
/// # Races
///
/// Both ends are bare PIDs: either process may have ended, and its PID been reused, when this returns.
/// [`Process::parent`](crate::Process::parent) returns a parent that is pinned.
///
/// # Cost
///
/// Three short system calls (pidfd_open, one ioctl, close), or open, read and close of `/proc/PID/stat`. No allocation.
///
/// # References
///
/// pidfd_open(2), PIDFD_GET_INFO in `include/uapi/linux/pidfd.h`, proc_pid_stat(5)
#[inline]
pub fn parent_of(pid: Pid) -> Result<Option<Pid>> {
    sys::parent_of(pid)
}

/// Returns the PIDs of all ancestors, nearest first, up to the top of what can be seen from here.
///
/// # Errors
///
/// As [`parent_of`]; [`is_unstable`](Error::is_unstable) if ancestors ended, one after the other, during every one of
/// 16 attempts.
///
/// # Races
///
/// Each link was true when it was read: no process is named that was never an ancestor, whatever PIDs were reused
/// meanwhile. When this returns they may have ended; [`Process::ancestors`](crate::Process::ancestors) pins them.
///
/// # Cost
///
/// For each ancestor one pidfd_open, two ioctls and one close; or open, read and close of `/proc/PID/stat`.
pub fn ancestors_of(pid: Pid) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for _ in 0..RETRIES {
        found.clear();
        let mut walk = Walk::from(pid)?;
        for _ in 0..DEEPEST {
            match walk.up(None)? {
                Up::Parent(parent) => found.push(parent),
                Up::Top => return Ok(found),
                Up::Lost => break,
            }
        }
    }
    Err(Error::unstable(pid, TRIED))
}

/// Returns whether the process with this PID descends from the one with the PID `root`. A process does not descend from
/// itself.
///
/// True if `root` is among the verified ancestors, or if session membership proves it: whoever is in the session that
/// `root` began with setsid(2) was forked below `root`, even if a parent between them has ended since. False if neither
/// holds: an orphan of a root that leads no session is nobody's descendant but its adopter's. To follow orphans, use a
/// tree that watches from the start.
///
/// # Errors
///
/// As [`ancestors_of`], about either PID.
///
/// # Races
///
/// Never true for a process that did not descend from a bearer of `root` at that moment. To be sure *which* bearer, use
/// [`Process::is_descendant_of`](crate::Process::is_descendant_of).
///
/// # Cost
///
/// For each ancestor below `root` one pidfd_open, two ioctls and one close; one getsid(2) more if `root` is no session
/// leader, and hardly anything if it is and shares its session. No allocation.
pub fn is_descendant(pid: Pid, root: Pid) -> Result<bool> {
    let root_leads = sys::session_of(root) == Some(root);
    for _ in 0..RETRIES {
        let mut walk = Walk::from(pid)?;
        if pid == root {
            return Ok(false);
        }
        for _ in 0..DEEPEST {
            if root_leads && in_session_of(walk.step.pid(), root) && walk.is_pinned()? {
                return Ok(true);
            }
            match walk.up(Some(root))? {
                Up::Parent(parent) if parent == root => return Ok(true),
                Up::Parent(_) => {}
                // Only now is it of interest whether there is such a root at all.
                Up::Top => return sys::parent_of(root).map(|_| false),
                Up::Lost => break,
            }
        }
    }
    Err(Error::unstable(pid, TRIED))
}

const TRIED: &str = "walk the ancestry of process";

/// Whether the process is in the session that `root` leads. A session keeps its number from being reused while anyone is
/// in it, and nobody who left it comes back: in it before and after, all the time between.
fn in_session_of(pid: Pid, root: Pid) -> bool {
    sys::session_of(pid) == Some(root)
        && sys::session_of(root) == Some(root)
        && sys::session_of(pid) == Some(root)
}

/// A walk from a process to the top, one verified link after the other.
struct Walk {
    start: Pid,
    since: Since,
    step: Step,
}

enum Up {
    Parent(Pid),
    Top,
    /// An ancestor ended under the walk, and whoever adopted its children is known only below it.
    Lost,
}

impl Walk {
    #[inline]
    fn from(pid: Pid) -> Result<Walk> {
        let since = Since::now()?;
        Ok(Walk { start: pid, since, step: Step::pin(pid)? })
    }

    /// Goes to the parent; but only names it, without pinning it, if it is `stop`.
    #[inline]
    fn up(&mut self, stop: Option<Pid>) -> Result<Up> {
        self.link(stop).or_else(|error| {
            // It is the start that ended, or something above it.
            if error.is_gone() && self.step.pid() != self.start { Ok(Up::Lost) } else { Err(error) }
        })
    }

    /// Whether the step has not been reaped, so that what was asked by its PID was asked of it.
    #[cold]
    fn is_pinned(&mut self) -> Result<bool> {
        match self.step.refresh().and_then(|()| self.step.ppid()) {
            Ok(_) => Ok(true),
            // Who adopted its children is found by walking on.
            Err(error) if error.is_gone() && self.step.pid() != self.start => Ok(false),
            Err(error) => Err(error),
        }
    }

    #[inline]
    fn link(&mut self, stop: Option<Pid>) -> Result<Up> {
        for _ in 0..RETRIES {
            let Some(ppid) = self.step.ppid()? else {
                return Ok(Up::Top);
            };
            if stop == Some(ppid) {
                return Ok(Up::Parent(ppid));
            }
            let parent = match Step::pin(ppid) {
                Ok(parent) => parent,
                // It ended after it was named; the child has been given to another by now.
                Err(error) if error.is_gone() || error.is_thread() => {
                    self.step.refresh()?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if self.step.is_child_of(&parent, self.since)? {
                self.step = parent;
                return Ok(Up::Parent(ppid));
            }
        }
        Err(Error::unstable(self.step.pid(), TRIED))
    }
}
