//! What macOS has nothing like: cgroups, subreapers, a counter of forks. None of these is ever made.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Child, Command};

use crate::error::{Error, Result};
use crate::pid::Pid;
use crate::sys::notice::{Notice, OnDeath, Report};

/// And what is never said here: that a number is a thread's, that procfs hides somebody, that events were lost, and what
/// helpers tell.
const _: () = {
    let _ = (Error::thread, |pid: Pid, tried, reason| Error::denied(pid, tried, reason));
    let _ = (Notice::Lost, |pid, status, at| Report::Ended { pid, status, at }, Report::Dropped);
};

#[derive(Debug)]
pub(crate) struct Cgroup(Infallible);

#[derive(Debug)]
pub(crate) struct Helper(Infallible);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Forks(Infallible);

impl Cgroup {
    pub(crate) fn create() -> Result<Cgroup> {
        Err(Error::unsupported(None, "create a cgroup for the tree", "only Linux has cgroups"))
    }

    pub(crate) fn reopen(_path: &Path, _id: u64) -> Result<Option<Cgroup>> {
        Err(Error::unsupported(None, "find the cgroup of the tree again", "only Linux has cgroups"))
    }

    pub(crate) fn names_above(_pid: Pid) -> Option<Vec<u8>> {
        None
    }

    pub(crate) fn path(&self) -> &Path {
        match self.0 {}
    }

    pub(crate) fn id(&self) -> u64 {
        match self.0 {}
    }

    pub(crate) fn add(&self, _pid: Pid) -> Result<()> {
        match self.0 {}
    }

    pub(crate) fn events(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }

    pub(crate) fn is_populated(&self) -> Result<bool> {
        match self.0 {}
    }

    pub(crate) fn members(&self) -> Result<Vec<Pid>> {
        match self.0 {}
    }

    pub(crate) fn contains_self(&self) -> Result<bool> {
        match self.0 {}
    }

    pub(crate) fn leave(&self) -> Result<()> {
        match self.0 {}
    }

    pub(crate) fn kill(&self) -> Result<bool> {
        match self.0 {}
    }
}

impl Helper {
    pub(crate) fn spawn(_command: &mut Command, _on_death: OnDeath) -> Result<(Helper, Child, Pid)> {
        let reason = "macOS gives all orphans to launchd, and to no subreaper";
        Err(Error::unsupported(None, "spawn a helper above the root of a tree", reason))
    }

    pub(crate) fn go_on(&mut self) -> Result<()> {
        match self.0 {}
    }

    pub(crate) fn read(&mut self, _into: &mut Vec<Report>) -> Result<()> {
        match self.0 {}
    }
}

impl AsFd for Helper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}

impl Forks {
    pub(crate) fn none_since(&self, _before: &Forks) -> bool {
        match self.0 {}
    }

    pub(crate) fn none_given_since(&self, _before: &Forks) -> bool {
        match self.0 {}
    }

    pub(crate) fn reuse_none_since(&self, _before: &Forks) -> bool {
        match self.0 {}
    }
}

/// Nobody counts forks.
pub(crate) fn fork_count() -> Result<Option<u64>> {
    Ok(None)
}

/// Asked for by scans alone, which nobody counts forks for.
pub(crate) fn entries() -> Result<Vec<(Pid, u64)>> {
    Err(Error::unsupported(None, "list the processes", "only Linux shows them as files"))
}

pub(crate) fn forks() -> Result<Option<Forks>> {
    Ok(None)
}

/// Orphans are launchd's.
pub(crate) fn adopts_orphans() -> bool {
    Pid::current().get() == 1
}

/// There is but one PID namespace.
pub(crate) fn children_are_here() -> bool {
    true
}

/// Whoever reads late has lost nothing: a kqueue keeps what it has to tell of each process.
pub(crate) fn go_before_others() {}
