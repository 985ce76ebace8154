//! All of it, on the kernel that this runs on.

use std::os::fd::{AsFd, BorrowedFd};

use super::darwin::Darwin;
use super::{connector, handle, poller, step, table};
use crate::error::{Error, Result};
use crate::pid::Pid;
use crate::state::State;

pub(crate) type Handle = handle::Handle<Darwin>;
pub(crate) type Step = step::Step<Darwin>;
pub(crate) type Poller = poller::Poller<Darwin>;
pub(crate) type Connector = connector::Connector<Darwin>;

pub(crate) use table::children_of;

impl Handle {
    pub(crate) fn open(pid: Pid) -> Result<Handle> {
        Handle::open_in(Darwin, pid, "open process")
    }

    pub(crate) fn mount_namespace(&self) -> Result<u64> {
        Err(Error::unsupported(
            self.pid(),
            "read the mount namespace of process",
            "only Linux has mount namespaces",
        ))
    }

    pub(crate) fn environment(&self) -> Result<Vec<u8>> {
        let reason = "macOS shows the environment of few processes, so it proves nothing of the others";
        Err(Error::unsupported(self.pid(), "read the environment of process", reason))
    }
}

impl Step {
    pub(crate) fn pin(pid: Pid) -> Result<Step> {
        Step::pin_in(Darwin, pid)
    }
}

impl Poller {
    pub(crate) fn new() -> Result<Poller> {
        Poller::new_in(Darwin)
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue().as_fd()
    }
}

impl Connector {
    pub(crate) const IS_KQUEUE: bool = true;

    /// A kqueue has no buffer: what it tells is kept with the process that it is about.
    pub(crate) fn open(_receive_buffer: Option<usize>) -> Result<Connector> {
        Connector::open_in(Darwin)
    }

    /// Nobody counts here, so nothing is marked.
    pub(crate) fn mark(&mut self, _pid: Pid, _mark: u64) -> Result<()> {
        Ok(())
    }

    pub(crate) fn mark_of(&self, _pid: Pid) -> Result<u64> {
        Ok(0)
    }

    /// Nothing that a kqueue tells is ever lost, so nobody has to be counted.
    pub(crate) fn census(&self) -> Option<Result<Vec<(Pid, u64)>>> {
        None
    }

    pub(crate) fn is_filtered(&self) -> bool {
        true
    }
}

impl AsFd for Connector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue().as_fd()
    }
}

/// The parent's PID of whatever process has this PID now.
pub(crate) fn parent_of(pid: Pid) -> Result<Option<Pid>> {
    table::parent_of(&Darwin, pid)
}

/// Visits every process with its parent, in ascending order. Returns how many were hidden.
pub(crate) fn scan(each: impl FnMut(Pid, Option<Pid>)) -> Result<usize> {
    table::scan(&Darwin, each)
}

/// The PIDs of all processes, at one moment or another of the reading.
pub(crate) fn listing() -> Result<Vec<Pid>> {
    let mut pids = Vec::with_capacity(512);
    scan(|pid, _| pids.push(pid))?;
    Ok(pids)
}

/// Threads have no PIDs here, so the number that names a thread elsewhere (to a file system, say) names its process.
pub(crate) fn process_of_thread(tid: Pid) -> Result<Handle> {
    Handle::open_in(Darwin, tid, "find the process of thread")
}

/// A thread's number here: its process.
#[derive(Debug)]
pub(crate) struct Thread(Handle);

impl Thread {
    pub(crate) fn open(tid: Pid) -> Result<Thread> {
        process_of_thread(tid).map(Thread)
    }

    pub(crate) fn owner(&self) -> Pid {
        self.0.pid()
    }

    pub(crate) fn is_alive(&self) -> Result<bool> {
        Ok(self.0.state()? == State::Running)
    }
}
