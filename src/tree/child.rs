//! The root of a spawned tree, as a child to talk to and to wait for.

use std::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Result;
use crate::pid::Pid;
use crate::process::Process;
use crate::signal::Signal;
use crate::state::ExitStatus;

/// The root of a spawned tree: as `std::process::Child`, on every backend alike, also where a helper stands between.
///
/// It is reaped by [`wait`](TreeChild::wait), or when both this and the tree have been dropped or have come to their
/// end: no zombie is left.
#[derive(Debug)]
pub struct TreeChild {
    /// Where its standard input is written, if the command asked for a pipe.
    pub stdin: Option<ChildStdin>,
    /// Where its standard output is read, if the command asked for a pipe.
    pub stdout: Option<ChildStdout>,
    /// Where its standard error is read, if the command asked for a pipe.
    pub stderr: Option<ChildStderr>,
    process: Process,
    spawned: Arc<Spawned>,
}

/// What std spawned: the root, or the helper above it.
#[derive(Debug)]
pub(super) struct Spawned {
    child: Mutex<Child>,
    /// The root's, where the helper has told it.
    told: Mutex<Option<ExitStatus>>,
    news: Condvar,
    is_helper: bool,
}

impl TreeChild {
    pub(super) fn new(mut child: Child, root: Process, is_helper: bool) -> (TreeChild, Arc<Spawned>) {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let spawned = Arc::new(Spawned {
            child: Mutex::new(child),
            told: Mutex::default(),
            news: Condvar::new(),
            is_helper,
        });
        let child = TreeChild { stdin, stdout, stderr, process: root, spawned: Arc::clone(&spawned) };
        (child, spawned)
    }

    /// Returns its PID.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Returns it as a pinned process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Closes its standard input, waits until it has ended, and returns how. What it started may run on: that is what
    /// [`Tree::wait_empty`](crate::Tree::wait_empty) is for.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        drop(self.stdin.take());
        self.process.wait(None)?;
        self.spawned.status(&self.process)
    }

    /// Returns how it ended, or `None` if it runs.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        match self.process.wait(Some(Duration::ZERO))? {
            Some(_) => self.spawned.status(&self.process).map(Some),
            None => Ok(None),
        }
    }

    /// Sends it a signal; never to another process.
    ///
    /// # Errors
    ///
    /// As [`Process::signal`].
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }
}

impl Spawned {
    /// How the root ended, which it has; reaps it if it is our child.
    fn status(&self, root: &Process) -> Result<ExitStatus> {
        if !self.is_helper {
            return match lock(&self.child).wait() {
                Ok(status) => Ok(from_std(status)),
                Err(error) => Err(crate::Error::os(root.pid(), "wait for the root of a tree", error)),
            };
        }
        let seen = root.handle.exit_status();
        if seen != ExitStatus::Unknown {
            return Ok(seen);
        }
        let mut told = lock(&self.told);
        loop {
            if let Some(status) = *told {
                return Ok(status);
            }
            told = self.news.wait(told).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How the root ended, if it is a child of ours, and has.
    pub(super) fn seen(&self) -> Option<ExitStatus> {
        if self.is_helper {
            return None;
        }
        // std keeps the status for whoever waits later.
        lock(&self.child).try_wait().ok().flatten().map(from_std)
    }

    /// What the helper said of the root, or that it cannot say anything any more.
    pub(super) fn tell(&self, status: ExitStatus) {
        lock(&self.told).get_or_insert(status);
        self.news.notify_all();
    }

    /// Reaps a helper that has said its last word.
    pub(super) fn reap_helper(&self) {
        if self.is_helper {
            let _ = lock(&self.child).wait();
        }
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        // As with std: one that runs still is left to itself.
        let _ = child.try_wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn from_std(status: std::process::ExitStatus) -> ExitStatus {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(signal)) => ExitStatus::Signal(signal),
        (None, None) => ExitStatus::Unknown,
    }
}
