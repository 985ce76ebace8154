//! Waits until everything that a runtime started has ended, then cleans it up, once.
//!
//! One monitor for each runtime: it attaches to the tree of the runtime's root ([`pidigree::Tree`]), detaches, and sleeps in the
//! kernel until the tree is empty. What it needs to be replaced at any moment, by SIGKILL too, stands in the runtime file, a
//! [`Record`]; whoever holds that file's lock is its monitor.
//!
//! # Example: what a runtime file says
//!
//! ```no_run
//! use spfs_monitor::{Phase, Record};
//!
//! let record = Record::read("/run/spfs/build-7".as_ref())?;
//! println!("{} watches the tree of {}", record.owner, record.root);
//! assert_ne!(record.phase, Phase::Failed, "{:?}", record.failure);
//! # Ok::<(), std::io::Error>(())
//! ```
#![deny(unsafe_code)]

mod args;
mod cleanup;
mod failure;
mod help;
mod neighbours;
mod pulse;
mod record;
mod root;
mod start;
mod store;
#[expect(unsafe_code, reason = "the kernel is behind it; see the module")]
mod sys;
mod text;
mod watch;

pub use record::{Heartbeat, Phase, Record};
pub use start::main;
