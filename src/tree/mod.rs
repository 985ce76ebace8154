//! A root, everything it started, until empty.

pub(crate) mod ask;
mod begin;
mod builder;
mod child;
mod coverage;
mod engine;
mod event;
mod evidence;
mod follow;
mod follower;
mod hear;
pub(crate) mod heed;
mod kill;
mod left;
pub(crate) mod lineage;
mod look;
mod marks;
mod queue;
mod scan;
mod state;
mod walk;

use std::os::fd::BorrowedFd;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::identity::Identity;
use crate::pid::Pid;
use crate::process::Process;
use crate::signal::Signal;

pub use builder::{Backend, Evidence, OnTrackerDeath, TreeBuilder};
pub use child::TreeChild;
pub use event::{Coverage, Emptied, Promise, TreeEvent};
pub use state::TreeState;

/// A process and everything that it started, daemons and orphans included, until all of it has ended.
///
/// Once a member, a process stays one until its own end, whoever its parent becomes. A zombie has ended. *Empty* is said
/// exactly once, when the last member has ended; never from a scan that may have missed one, and never because
/// something could not be read. What can be promised depends on the machine: [`coverage`](Tree::coverage) says it.
///
/// `Send` and `Sync`, and cheap to clone: clones are the same tree. All trees of a process share one thread, which
/// sleeps in the kernel while nothing happens, goes before others (nice -4, on Linux, if it may) when something does, and
/// ends with the last tree. When all clones are dropped, the tree is no
/// longer followed; nothing happens to its members (except as [`OnTrackerDeath`] says). A child of fork(2) must
/// not use its parent's trees.
///
/// # Example: wait for a command and for all that it leaves behind
///
/// ```
/// use std::process::Command;
/// use pidigree::Tree;
///
/// // The shell ends at once; what it started does not.
/// let (tree, mut child) = Tree::spawn(Command::new("sh").args(["-c", "sleep 0.1 & exit 3"]))?;
/// let emptied = tree.wait_empty(None)?.expect("no timeout was set");
/// assert_eq!(emptied.status, pidigree::ExitStatus::Code(3));
/// assert_eq!(child.wait()?, emptied.status);
/// # Ok::<(), pidigree::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tree {
    follower: Arc<follower::Follower>,
}

impl Tree {
    /// Spawns a command as the root of a new tree, and follows it from its first instruction.
    ///
    /// The command keeps an inert hook (as of `CommandExt::pre_exec`) and can be spawned again. With
    /// [`Backend::Subreaper`] its parent is a helper process, and no longer the caller.
    ///
    /// # Errors
    ///
    /// Those of spawning: the program is not found, say. [`is_unsupported`](crate::Error::is_unsupported) if no backend
    /// works here. Nothing is left running after an error.
    pub fn spawn(command: &mut Command) -> Result<(Tree, TreeChild)> {
        Tree::builder().spawn(command)
    }

    /// Follows a process that runs already, and all that descends from it now or will.
    ///
    /// # Races
    ///
    /// What the root started and what was orphaned *before* this call cannot be linked to it any more, unless it is in the
    /// session that the root leads, or carries other [`Evidence`]. Nor can what is orphaned *during* the call, before it was
    /// seen: all who are linked to the root at one moment within the call are members, and all that they start from then
    /// on. With events, that is closed by scanning after subscribing to them, until a scan finds nothing new.
    ///
    /// While others fork all the time no scan can be proven. Then every member is followed before its children are
    /// listed, until nobody new is found: who is a member is exact from then on as well; only emptiness waits for a scan
    /// that is proven, to be made in a moment without forks. Where that cannot exclude that somebody was overlooked,
    /// and when polling, orphans that were started between the call and that scan hold it back until they have
    /// ended, whosever they are.
    ///
    /// The caller can be an ancestor of the root that is given its orphans (PR_SET_CHILD_SUBREAPER), and can become one later:
    /// that is asked at each scan. But it must not cease to be one while it may have been given somebody whom no scan has
    /// shown, nor become one when another process goes on with the tree ([`adopt`](Self::adopt)): what it was given is
    /// taken for its own then.
    ///
    /// # Errors
    ///
    /// [`is_gone`](crate::Error::is_gone) if the root has ended; [`is_unsupported`](crate::Error::is_unsupported) if no
    /// backend works here.
    pub fn attach(root: &Process) -> Result<Tree> {
        Tree::builder().attach(root)
    }

    /// Begins to configure a tree otherwise than by default.
    pub fn builder() -> TreeBuilder {
        TreeBuilder::default()
    }

    /// Returns by what means it is followed; never [`Backend::Auto`].
    pub fn backend(&self) -> Backend {
        self.follower.backend()
    }

    /// Returns what can be promised about this tree, and why. When events are lost that is less than it was.
    pub fn coverage(&self) -> Coverage {
        self.follower.coverage()
    }

    /// Returns the root.
    pub fn root(&self) -> Identity {
        self.follower.root()
    }

    /// Returns the members that have not ended, in no particular order.
    ///
    /// # Cost
    ///
    /// Takes in what the kernel has told meanwhile. Where it tells nothing of members
    /// ([`Coverage::members`] is `BestEffort`), one look at each list of processes.
    pub fn members(&self) -> Vec<Identity> {
        self.follower.members()
    }

    /// Returns whether the process that has this PID now is a member. One that was forked before the call counts.
    ///
    /// # Errors
    ///
    /// Those of looking at a process; one that is not there is no member. [`is_unstable`](crate::Error::is_unstable) if it may
    /// be a member and nothing proves it: where the kernel tells nothing of members, or events were lost, a possible orphan
    /// of the tree, until its end; and for a while anybody new, where others fork all the time.
    ///
    /// # Cost
    ///
    /// That of looking at the process; where the kernel tells nothing of members, the process table is scanned, and its ancestors
    /// are looked at.
    pub fn contains(&self, pid: Pid) -> Result<bool> {
        ask::contains(self, pid)
    }

    /// Returns whether all members have ended.
    pub fn is_empty(&self) -> bool {
        self.follower.emptied().is_some()
    }

    /// Waits for the next event and takes it; `None` if the time was up before. `timeout`: `None` waits for ever, zero
    /// only looks. After [`Empty`](TreeEvent::Empty) has been taken there are none: then it returns `None` at once.
    ///
    /// Events wait to be taken, 65,536 of them if nobody takes any; beyond that the oldest are dropped and
    /// [`Skipped`](TreeEvent::Skipped) says how many.
    ///
    /// # Errors
    ///
    /// Trouble in following the tree is reported once, by whoever waits; the tree goes on being followed as far as that
    /// is possible, and is not empty because of it. [`is_unsupported`](crate::Error::is_unsupported) if it cannot be followed any more, as when
    /// somebody killed the helper of [`Backend::Subreaper`].
    pub fn next_event(&self, timeout: Option<Duration>) -> Result<Option<TreeEvent>> {
        self.follower.next_event(timeout)
    }

    /// Returns a descriptor that is readable while there are events to take, or trouble to be told: for epoll, mio,
    /// tokio, and loops that wait for signals as well. Only to be waited on.
    ///
    /// # Errors
    ///
    /// [`is_limit`](crate::Error::is_limit) if no descriptor was free. The first call makes it.
    pub fn event_fd(&self) -> Result<BorrowedFd<'_>> {
        self.follower.event_fd()
    }

    /// Waits until every member has ended; `None` if the time was up before. `timeout`: `None` waits for ever, zero only
    /// looks. Takes no events.
    ///
    /// # Errors
    ///
    /// As [`next_event`](Tree::next_event). An error never means that the tree is empty.
    pub fn wait_empty(&self, timeout: Option<Duration>) -> Result<Option<Emptied>> {
        self.follower.wait_empty(timeout)
    }

    /// Sends a signal to every member, to those as well that are forked meanwhile, and to nobody else; returns to how
    /// many. It comes back when no member is left that has not been sent it.
    ///
    /// SIGKILL is sent to a stopped tree, or to its cgroup as a whole, so that a tree that forks as fast as it can does
    /// not outrun it.
    ///
    /// # Errors
    ///
    /// [`is_denied`](crate::Error::is_denied) if a member may not be signalled by this user; all others have been.
    /// [`is_unstable`](crate::Error::is_unstable) if, with another signal than SIGKILL, there was no end of new members.
    pub fn kill(&self, signal: Signal) -> Result<usize> {
        kill::kill(&self.follower, signal)
    }

    /// Returns what a successor needs to go on following the tree after this process has ended, however it ends: save it
    /// soon and keep it in a file. It stays valid for as long as the tree lives; members that joined after it was
    /// saved are found again as [`adopt`](Tree::adopt) says.
    pub fn save(&self) -> TreeState {
        self.follower.save()
    }

    /// Goes on following a tree that another process, or an earlier one, followed.
    ///
    /// On `Cgroup` and `Subreaper` nothing is lost meanwhile but the events. On `ProcConnector` and `Poll`, the events between
    /// the moment when it was saved and the start of the successor are missing: it is resynchronised from a proven scan, and
    /// orphans that were forked meanwhile hold back emptiness without being members ([`TreeEvent::Resynced`]).
    ///
    /// # Errors
    ///
    /// [`is_foreign`](crate::Error::is_foreign) for a state of another PID namespace or boot.
    pub fn adopt(state: &TreeState) -> Result<Tree> {
        Tree::builder().adopt(state)
    }
}
