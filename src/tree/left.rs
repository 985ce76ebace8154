//! Trees that nobody follows any more, and that are not over: what was made for them is cleared away at their end.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::pid::Pid;
use crate::state::ExitStatus;
use crate::sys::{self, Interest, Report};
use crate::tree::child::Spawned;
use crate::tree::follow::{Follow, Source};

#[derive(Debug)]
pub(super) enum Left {
    Cgroup(sys::Cgroup),
    /// It is our child, and to be reaped; and it alone knows how the root ends.
    Helper {
        helper: sys::Helper,
        root: Pid,
        spawned: Arc<Spawned>,
    },
}

impl Left {
    /// `None` if nothing has to be waited for.
    pub(super) fn of(follow: &mut Follow) -> Option<Left> {
        let spawned = follow.spawned.take();
        match (follow.take_source(), spawned) {
            // An empty one goes with this.
            (Source::Cgroup(cgroup), _) if !matches!(cgroup.is_populated(), Ok(true)) => None,
            (Source::Cgroup(cgroup), _) => Some(Left::Cgroup(cgroup)),
            (Source::Subreaper { helper: Some(helper), .. }, Some(spawned)) => {
                Some(Left::Helper { helper, root: follow.root.pid(), spawned })
            }
            _ => None,
        }
    }

    pub(super) fn source(&self) -> (BorrowedFd<'_>, Interest) {
        match self {
            Left::Cgroup(cgroup) => (cgroup.events(), Interest::Changed),
            Left::Helper { helper, .. } => (helper.as_fd(), Interest::Readable),
        }
    }

    /// Whether it is over by now.
    pub(super) fn is_over(&mut self) -> bool {
        match self {
            Left::Cgroup(cgroup) => !matches!(cgroup.is_populated(), Ok(true)),
            Left::Helper { helper, root, spawned } => {
                let mut reports = Vec::new();
                let mut over = helper.read(&mut reports).is_err();
                for report in reports {
                    match report {
                        Report::Ended { pid, status, .. } if pid == *root => spawned.tell(status),
                        Report::Ended { .. } | Report::Dropped(_) => {}
                        Report::Empty { .. } | Report::Lost => over = true,
                    }
                }
                if over {
                    spawned.tell(ExitStatus::Unknown);
                    spawned.reap_helper();
                }
                over
            }
        }
    }
}
