//! What is only shown, never decided on: the system's own words about a process and about itself; and signals as they
//! arrive. The only home of `cfg(target_os)` and of unsafe code in this program.
//!
//! A backend provides `details`, `command`, `namespace` and `Signals`.

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod backend;

#[cfg(not(target_os = "linux"))]
#[path = "other.rs"]
mod backend;

pub(crate) use backend::{Signals, command, details, namespace};

use pidigree::{Pid, Signal};

/// What the system shows of whatever process has a PID; whose that is, is for the caller to make sure of.
#[derive(Debug, Default)]
pub(crate) struct Details {
    /// The effective user.
    pub(crate) uid: Option<u32>,
    /// The arguments, separated by spaces; `None` for zombies and kernel threads, which have none.
    pub(crate) arguments: Option<String>,
    /// The short name.
    pub(crate) name: Option<String>,
    /// It is a kernel thread.
    pub(crate) kernel: bool,
}

/// A signal that reached this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caught {
    pub(crate) signal: Signal,
    pub(crate) sender: Sender,
}

/// Where a signal came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// The kernel: of those that are caught here, the terminal's, for all of its foreground group.
    Terminal,
    /// A process; `None` for one that this PID namespace does not see.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "nothing is caught there yet"))]
    Process(Option<Pid>),
}
