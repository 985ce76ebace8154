//! The kernel: the only home of `unsafe`, `libc` and `cfg(target_os)`.
//!
//! One backend is compiled in, as [`backend`]. Each provides the same few items, without a trait between them:
//!
//! | item | promise |
//! | --- | --- |
//! | `Handle` | a process pinned to itself: whatever it answers is of that process or [`Error::is_gone`] |
//! | `Step`, `Since` | a process pinned for as long as a walk needs it: its parent's PID, and proof that another `Step` is that parent |
//! | `Poller`, `Registration` | ends of many handles as one descriptor that becomes readable; no end is lost, none reported twice |
//! | `parent_of` | the parent's PID of whatever process has this PID |
//! | `Thread` | a thread id pinned to its thread, and so to the process that owns it |
//! | `process_of_thread`, `process_of_peer` | who owns a thread id, who opened the other end of a socket |
//! | `scan`, `fork_count` | the process table in one pass, and the counter that stands still if nothing was created |
//! | `listing`, `forks`, `children_of` | the PIDs alone, and whether any was given meanwhile; those of one family |
//! | `entries` | the PIDs, and by what to tell that they are still the same processes' |
//! | `world` | what does not change while this process lives: boot, PID namespace |
//! | `age`, `ticks_at`, `TICK` | start times: how long ago, at which moment, how fine |
//! | `Cgroup` | a fresh cgroup for one tree: whoever is forked in it is in it, and it says itself when it is empty |
//! | `Helper` | a process above the root of one tree, which is given all its orphans |
//! | `Connector` | forks, execs and ends of whoever is tracked and of all that they start, as one descriptor; what is lost is said |
//! | `Selector`, `Flag` | what a thread sleeps on |
//! | `adopts_orphans`, `children_are_here` | what this process is to others |
//! | `capabilities` | what the kernel offers, in words |
//!
//! What is not to be had on a system is there all the same, and says [`Error::is_unsupported`] before anything is made. Beside
//! the backend stand what all of them say (`notice`), what POSIX has everywhere (`posix`), and how a child is held between fork
//! and exec (`spawn`).
//!
//! Nothing outside this folder knows whether a handle is a pidfd, a directory of /proc or a kqueue registration.
//!
//! [`Error::is_gone`]: crate::Error::is_gone
//! [`Error::is_unsupported`]: crate::Error::is_unsupported

mod notice;
mod posix;
mod spawn;

#[cfg(target_os = "linux")]
#[path = "linux/mod.rs"]
mod backend;

#[cfg(target_os = "macos")]
#[path = "macos/mod.rs"]
mod backend;

/// Its logic, driven by a scripted kernel.
#[cfg(all(test, not(target_os = "macos")))]
mod macos;

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!("pidigree does not know this operating system yet; PLATFORM.md lists those that it does");

#[cfg(feature = "tokio")]
pub(crate) mod reactor;

pub(crate) use backend::{
    Cgroup, Connector, Flag, Forks, Handle, Helper, Poller, Registration, Selector, Since, Step, TICK,
    Thread, adopts_orphans, age, capabilities, children_of, entries, fork_count, forks, go_before_others,
    listing, parent_of, process_of_peer, process_of_thread, scan, ticks_at, world,
};
pub(crate) use notice::{Interest, Notice, OnDeath, Report};
pub(crate) use posix::{
    is_fd_limit, monotonic, open_files_limit, session_of, signal_name, signal_number, spawn_quiet,
};
pub(crate) use spawn::spawn_held;
