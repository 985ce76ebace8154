#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

#[cfg(feature = "tracing")]
macro_rules! debug {
    ($($event:tt)*) => { tracing::debug!($($event)*) };
}
#[cfg(not(feature = "tracing"))]
macro_rules! debug {
    ($($event:tt)*) => {};
}
pub(crate) use debug;

mod ancestry;
mod capabilities;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod identity;
#[cfg_attr(
    not(any(test, fuzzing)),
    expect(dead_code, reason = "what the kernels of other systems say is parsed, too")
)]
mod parse;
mod pid;
mod process;
mod router;
mod signal;
mod snapshot;
mod state;
#[expect(unsafe_code, reason = "the kernel is behind it; see the module")]
mod sys;
mod tree;
mod watch;

pub use ancestry::{ancestors_of, is_descendant, parent_of};
pub use capabilities::{Capabilities, Capability, Grade, capabilities};
pub use error::{Error, Result};
pub use identity::{BootId, Identity, Sameness, StartTime};
pub use pid::Pid;
pub use process::{Ancestors, Process};
pub use router::{Caller, Route, Router, Routes};
pub use signal::Signal;
pub use snapshot::{Entry, Snapshot};
pub use state::{ExitStatus, State};
pub use tree::{
    Backend, Coverage, Emptied, Evidence, OnTrackerDeath, Promise, Tree, TreeBuilder, TreeChild, TreeEvent,
    TreeState,
};
#[cfg(feature = "tokio")]
pub use watch::Exits;
pub use watch::{Exited, ProcessWatcher, WatchKey};
