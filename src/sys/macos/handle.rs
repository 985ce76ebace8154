//! A process, told from others by its unique id, or its start time where that is refused. Nothing pins a PID on macOS: each
//! answer is checked to be of this process.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::kernel::{self, Kernel, Seen};
use super::poller::Poller;
use crate::error::{Error, Result};
use crate::identity::{Identity, StartTime};
use crate::parse::kinfo_proc;
use crate::pid::Pid;
use crate::state::{ExitStatus, State};

/// One process, and never another.
#[derive(Debug)]
pub(crate) struct Handle<K> {
    kernel: K,
    pid: Pid,
    unique: Option<u64>,
    start: StartTime,
    /// From the event of its end.
    status: OnceLock<ExitStatus>,
}

/// There are no PID namespaces, so PIDs of one boot mean the same everywhere.
pub(super) const PID_NAMESPACE: u64 = 0;

impl<K: Kernel> Handle<K> {
    pub(super) fn open_in(kernel: K, pid: Pid, tried: &'static str) -> Result<Handle<K>> {
        let seen = kernel::look(&kernel, pid, tried)?;
        Ok(Handle {
            kernel,
            pid,
            unique: seen.unique.map(|info| info.unique),
            start: seen.start(),
            status: OnceLock::new(),
        })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    pub(super) fn kernel(&self) -> &K {
        &self.kernel
    }

    /// Which process it is. All of it is known from the start.
    pub(crate) fn identity(&self, _start: bool) -> Identity {
        Identity {
            pid: self.pid,
            unique: self.unique,
            start: Some(self.start),
            // No two forks are within one microsecond and get one PID.
            settled: true,
            pid_namespace: Some(PID_NAMESPACE),
            boot: self.kernel.boot(),
        }
    }

    /// Whether this is what was seen.
    pub(super) fn is(&self, seen: &Seen) -> bool {
        match (self.unique, seen.unique) {
            (Some(ours), Some(info)) => ours == info.unique,
            // Equal, never older or younger: the wall clock can be set (trap 33).
            _ => self.start == seen.start(),
        }
    }

    /// Whether both are one process, or were.
    pub(super) fn is_same(&self, other: &Handle<K>) -> bool {
        match (self.unique, other.unique) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => self.pid == other.pid && self.start == other.start,
        }
    }

    pub(super) fn look(&self, tried: &'static str) -> Result<Seen> {
        let seen = kernel::look(&self.kernel, self.pid, tried)?;
        if self.is(&seen) { Ok(seen) } else { Err(Error::gone(self.pid, tried)) }
    }

    /// The PID of the parent at this moment, the true one if a debugger has it; `None` at the top.
    pub(crate) fn ppid(&self) -> Result<Option<Pid>> {
        self.look("read the parent of process").map(|seen| seen.parent())
    }

    /// The first 16 bytes of the name of what it executes.
    pub(crate) fn name(&self) -> Result<String> {
        const TRIED: &str = "read the name of process";
        let entry = kernel::entry_of(&self.kernel, self.pid, TRIED)?;
        // Its own, if it has the PID after that.
        self.look(TRIED)?;
        let name = entry.as_ref().and_then(|entry| kinfo_proc::name(entry)).unwrap_or_default();
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    /// The kernel's threads have no PIDs; its task, which is process 0, no `Pid`.
    pub(crate) fn is_kernel_thread(&self) -> Result<bool> {
        self.look("look at process").map(|_| false)
    }

    pub(crate) fn state(&self) -> Result<State> {
        match self.look("look at process") {
            Ok(seen) if seen.info.has_ended() => Ok(State::Zombie),
            Ok(_) => Ok(State::Running),
            Err(error) if error.is_gone() => Ok(State::Gone),
            Err(error) => Err(error),
        }
    }

    /// Whether nothing of the process is left.
    pub(crate) fn is_reaped(&self) -> Result<bool> {
        Ok(self.state()? == State::Gone)
    }

    /// Waits for its end; `false` if the time was up before.
    pub(crate) fn wait(self: &Arc<Self>, timeout: Option<Duration>) -> Result<bool> {
        if self.state()? != State::Running {
            return Ok(true);
        }
        if timeout == Some(Duration::ZERO) {
            return Ok(false);
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let poller = Poller::new_in(self.kernel.clone())?;
        poller.add(self, 0)?;
        let mut ended = Vec::new();
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            poller.wait(&mut ended, 1, left)?;
            if !ended.is_empty() {
                return Ok(true);
            }
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
        }
    }

    /// How it ended: told by its parent's kernel while it is a zombie, or by the event of its end. Reaps nothing.
    pub(crate) fn exit_status(&self) -> ExitStatus {
        if let Some(status) = self.status.get() {
            return *status;
        }
        match self.kernel.child_status(self.pid.raw()) {
            // By PID: its own if it is still there after the asking.
            Some(status) if self.state().is_ok_and(|state| state == State::Zombie) => status,
            _ => ExitStatus::Unknown,
        }
    }

    pub(super) fn set_status(&self, status: ExitStatus) {
        if status != ExitStatus::Unknown {
            let _ = self.status.set(status);
        }
    }

    /// Looks who has the PID, and sends. In between, a few microseconds, it can end, be reaped, and its PID be another's: of
    /// 99,999 PIDs the one given next would have to be this.
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        const TRIED: &str = "signal process";
        self.look(TRIED)?;
        match self.kernel.kill(self.pid.raw(), signal) {
            Ok(()) => Ok(()),
            Err(Errno::ESRCH) => Err(Error::gone(self.pid, TRIED)),
            Err(errno) => Err(Error::os(self.pid, TRIED, errno.into())),
        }
    }
}
