//! What is only shown, never decided on: the system's own words about a process and about itself. The only home of
//! `cfg(target_os)` in this program.
//!
//! A backend provides `details`, `backend` and `namespace`.

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod backend;

#[cfg(not(target_os = "linux"))]
#[path = "other.rs"]
mod backend;

pub(crate) use backend::{details, namespace};

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
