//! What can be had here, in words.

use super::darwin::Darwin;
use super::{kernel, world};
use crate::capabilities::{Capabilities, Capability, Grade};
use crate::error::Result;
use crate::pid::Pid;

pub(crate) fn capabilities() -> Result<Capabilities> {
    use Grade::{BestEffort, Proven};
    let numbered = kernel::unique_of(&Darwin, Pid::current()).is_some();
    let identity = match (numbered, world::boot()) {
        (true, Some(_)) => {
            (Proven, "XNU gives every process of this boot a number of its own (proc_pidinfo)")
        }
        (false, Some(_)) => (
            BestEffort,
            "proc_pidinfo is refused here: PID and start time, in microseconds of the wall clock; another one could share them only if that was set back",
        ),
        (_, None) => (BestEffort, "kern.bootsessionuuid is refused here: proven only while this boot lasts"),
    };
    let all = [
        ("identity", identity),
        (
            "parent",
            (
                Proven,
                "kern.proc.pid, with who has the PID checked before and after; the true parent of a traced process",
            ),
        ),
        ("ancestry", (Proven, "every link is verified; an orphan is seen only through its session")),
        (
            "exit",
            (
                Proven,
                "EVFILT_PROC tells the end of any process; of one that is being debugged, found by looking every 100 ms",
            ),
        ),
        (
            "exit-status",
            (
                BestEffort,
                "of our own children, and of processes that we may signal and watched; else unknown",
            ),
        ),
        (
            "signal",
            (
                BestEffort,
                "kill(2), right after a look at who has the PID: in the microseconds between it can be reused, if all others were meanwhile",
            ),
        ),
        ("thread", (BestEffort, "threads have no PIDs here: a number is taken for that of their process")),
        (
            "peer",
            (
                BestEffort,
                "LOCAL_PEERPID remembers a number; whoever has it now must run the same executable (LOCAL_PEERUUID), or it is unsupported",
            ),
        ),
        ("children", (Proven, "kern.proc.all: costs a scan of the whole table")),
        ("snapshot", (BestEffort, "one call; never proven, because nobody counts forks")),
    ];
    Ok(Capabilities {
        backend: "sysctl, proc_pidinfo and kqueue",
        all: all.map(|(question, (grade, reason))| Capability { question, grade, reason }).into(),
    })
}
