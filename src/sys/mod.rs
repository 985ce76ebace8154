//! The kernel: the only home of `unsafe`, `libc` and `cfg(target_os)`.
//!
//! One backend is compiled in, as [`backend`]. Each provides the same few items, without a trait between them:
//!
//! | item | promise |
//! | --- | --- |
//! | `Handle` | a process pinned to itself: whatever it answers is of that process or [`Error::is_gone`] |
//! | `Step`, `Since` | a process pinned for as long as a walk needs it: its parent's PID, and proof that another `Step` is that parent |
//! | `session_of` | evidence of descent: the leader of the session of whatever process has this PID |
//! | `Poller`, `Registration` | ends of many handles as one descriptor that becomes readable; no end is lost, none reported twice |
//! | `parent_of` | the parent's PID of whatever process has this PID |
//! | `process_of_thread`, `process_of_peer` | who owns a thread id, who opened the other end of a socket |
//! | `scan`, `fork_count` | the process table in one pass, and the counter that stands still if nothing was created |
//! | `listing`, `forks` | the PIDs alone, and whether any was given meanwhile |
//! | `world` | what does not change while this process lives: boot, PID namespace, what the kernel offers |
//! | `age` | how long ago a start time was |
//! | `Cgroup` | a fresh cgroup for one tree: whoever is forked in it is in it, and it says itself when it is empty |
//! | `Connector`, `Notice` | forks, execs and ends of whoever is tracked and of all that they start, as one descriptor; what is lost is said |
//! | `signal_number`, `signal_name` | signals as this system numbers them |
//! | `capabilities` | what the kernel offers, in words |
//!
//! Nothing outside this folder knows whether a handle is a pidfd, a directory of /proc or a kqueue registration.
//!
//! [`Error::is_gone`]: crate::Error::is_gone

#[cfg(target_os = "linux")]
#[path = "linux/mod.rs"]
mod backend;

#[cfg(not(target_os = "linux"))]
compile_error!("pidigree does not know this operating system yet; PLATFORM.md lists those that it does");

#[cfg(feature = "tokio")]
pub(crate) mod reactor;

/// What XNU says is read by `parse` on every system, for the tests and the fuzzer; but only one backend has a use for it.
#[cfg(not(target_os = "macos"))]
const _: () = {
    use crate::parse::{kinfo_proc, kinfo_proc::KinfoProc, unique_info, unique_info::UniqueInfo, uuid};
    let _ = (KinfoProc::parse, KinfoProc::has_ended, KinfoProc::parent, kinfo_proc::all, kinfo_proc::name);
    let _ = (UniqueInfo::parse, unique_info::FLAVOR, uuid::boot_session);
};

pub(crate) use backend::{
    Cgroup, Connector, Flag, Forks, Handle, Helper, Interest, Notice, OnDeath, Poller, Registration, Report,
    Selector, Since, Step, TICK, adopts_orphans, age, capabilities, children_of, fork_count, forks,
    is_fd_limit, listing, monotonic, parent_of, process_of_peer, process_of_thread, scan, session_of,
    signal_name, signal_number, spawn_held, spawn_quiet, ticks_at, world,
};
