//! One process of a walk up the ancestry.

use super::handle::Handle;
use super::kernel::{Kernel, Seen};
use crate::error::Result;
use crate::pid::Pid;

const TRIED: &str = "read the ancestry of process";

/// A process, what it said last, and what it takes to prove that another one is its parent.
#[derive(Debug)]
pub(crate) struct Step<K> {
    handle: Handle<K>,
    seen: Seen,
}

/// When a walk began: of no use here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since(());

impl Since {
    pub(crate) fn now() -> Result<Since> {
        Ok(Since(()))
    }
}

impl<K: Kernel> Step<K> {
    pub(super) fn pin_in(kernel: K, pid: Pid) -> Result<Step<K>> {
        let handle = Handle::open_in(kernel, pid, TRIED)?;
        let seen = handle.look(TRIED)?;
        Ok(Step { handle, seen })
    }

    #[cfg(test)]
    pub(super) fn unique(&self) -> Option<u64> {
        self.handle.identity(false).unique
    }

    pub(crate) fn pid(&self) -> Pid {
        self.handle.pid()
    }

    /// The parent's PID, as it was at some moment after the step was pinned or last asked.
    pub(crate) fn ppid(&self) -> Result<Option<Pid>> {
        Ok(self.seen.parent())
    }

    /// Lets `ppid` have news.
    pub(crate) fn refresh(&mut self) -> Result<()> {
        self.seen = self.handle.look(TRIED)?;
        Ok(())
    }

    /// Whether `parent`, opened after `self.ppid()` named its PID, is the parent itself and no later bearer of that PID:
    /// whoever has it now and was opened before is, because a process that is not an ancestor cannot become one. If not,
    /// `ppid` has news.
    pub(crate) fn is_child_of(&mut self, parent: &Step<K>, _since: Since) -> Result<bool> {
        self.refresh()?;
        if self.ppid()? != Some(parent.pid()) {
            return Ok(false);
        }
        // Nothing pins its PID, so it has to be there still.
        match parent.handle.look(TRIED) {
            Ok(_) => Ok(true),
            Err(error) if error.is_gone() => self.refresh().map(|()| false),
            Err(error) => Err(error),
        }
    }
}
