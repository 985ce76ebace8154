//! What backends and the trees above them say to each other, alike on every system.

use crate::pid::Pid;
use crate::state::ExitStatus;

/// What a connector tells. `at` is CLOCK_MONOTONIC, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    Forked {
        parent: Pid,
        child: Pid,
        at: u64,
    },
    Executed {
        pid: Pid,
        at: u64,
    },
    /// All its threads have ended. The status is `Unknown` where several threads ended in several ways, and where nobody
    /// tells.
    Ended {
        pid: Pid,
        status: ExitStatus,
        at: u64,
    },
    /// Here, notices were lost. What the census then says is true, and notices go on from there; some that it has taken
    /// into account already may come after it. Where there is no census, nobody is tracked any more: track anew whom
    /// a proven scan shows.
    Lost,
}

/// What a helper tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The root, or an orphan, has ended and been reaped. An orphan's end can come before that of its parent, which has a
    /// parent to reap it.
    Ended { pid: Pid, status: ExitStatus, at: u64 },
    /// So many ends of orphans were left out, since we did not read.
    Dropped(u64),
    /// Nobody is left. The last word.
    Empty { at: u64 },
    /// The helper has ended without having said so: nothing is proven. The last word.
    Lost,
}

/// What a helper does when nobody holds our end any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDeath {
    Kill,
    Leave,
}

/// What to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Readable,
    /// A file of the kernel that changed, such as cgroup.events.
    Changed,
}
