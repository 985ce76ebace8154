//! Linux. Two full sets of means below one face: *pidfd* (pidfd_open, PIDFD_GET_INFO, pidfs, SO_PEERPIDFD, epoll) and
//! *procfs* (a descriptor of /proc/PID kept open). Each call is probed once and replaced by itself, never by version;
//! `--cfg pidigree_force_procfs` takes the first set away.

mod about;
mod bpf;
mod capabilities;
mod cgroup;
mod connector;
mod exit;
mod handle;
mod poller;
mod procfs;
mod selector;
mod spawn;
mod step;
mod subreaper;
mod syscall;
mod table;
mod thread;
mod world;

pub(crate) use about::adopts_orphans;
pub(crate) use capabilities::capabilities;
pub(crate) use cgroup::Cgroup;
pub(crate) use connector::{Connector, Notice};
pub(crate) use handle::Handle;
pub(crate) use poller::{Poller, Registration};
pub(crate) use selector::{Flag, Interest, Selector, spawn_quiet};
pub(crate) use spawn::spawn_held;
pub(crate) use step::{Since, Step, session_of};
pub(crate) use subreaper::{Helper, OnDeath, Report};
pub(crate) use syscall::is_fd_limit;
pub(crate) use table::{Forks, children_of, fork_count, forks, listing, parent_of, scan};
pub(crate) use thread::{process_of_peer, process_of_thread};
pub(crate) use world::{TICK, age, monotonic, ticks_at, world};

/// The number of a signal of signal(7), named without `SIG`.
pub(crate) fn signal_number(name: &str) -> Option<i32> {
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

/// Its name, with `SIG`.
pub(crate) fn signal_name(number: i32) -> Option<&'static str> {
    nix::sys::signal::Signal::try_from(number).ok().map(nix::sys::signal::Signal::as_str)
}
