//! Real processes on command, for the tests and benchmarks of `pidigree`.
//!
//! This crate is the oracle's side: it knows nothing of `pidigree`, and says what is true because it arranged it.
//!
//! - [`Family`] runs a *script* in the binary `pidigree-testkit`: a process that forks, orphans, daemonises, starts
//!   threads, executes or dies as told, and every member of which ends when the test drops the guard.
//! - [`stage`] runs a test's body in another world: a PID namespace, a hidden `/proc`, another user, under seccomp.
//! - [`fork_with_pid`] forces a PID to be reused; [`idle_children`] and [`chain`] make many processes cheaply.
//! - [`early`] has scripts whose end others announce too early.
//! - [`require!`] skips a test with a reason, or fails where nothing may be skipped (`PIDIGREE_NO_SKIP=1`).
//!
//! # The script
//!
#![doc = concat!("```text\n", include_str!("help.txt"), "```")]

mod binary;
pub mod early;
mod family;
mod help;
mod idle;
mod launcher;
mod ops;
mod pids;
mod script;
mod skip;
mod stage;
mod sys;
mod wait;

pub use binary::binary;
pub use family::{Fact, Family, FamilyBuilder, alone};
pub use help::main;
pub use idle::{Chain, IdleChildren, chain, idle_children};
pub use launcher::{deny_from_now, handed_on};
pub use pids::{ForcedChild, fork_with_pid};
pub use script::Script;
pub use skip::{Probe, skip};
pub use stage::stage;
pub use sys::default_signals;
pub use wait::{DEADLINE, eventually, is_root, rounds};
