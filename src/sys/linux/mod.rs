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
mod step;
mod subreaper;
mod syscall;
mod table;
mod thread;
mod world;

pub(crate) use about::adopts_orphans;
pub(crate) use capabilities::capabilities;
pub(crate) use cgroup::Cgroup;
pub(crate) use connector::Connector;
pub(crate) use handle::Handle;
pub(crate) use poller::{Poller, Registration};
pub(crate) use selector::{Flag, Selector};
pub(crate) use step::{Since, Step};
pub(crate) use subreaper::Helper;
pub(crate) use syscall::go_before_others;
pub(crate) use table::{Forks, children_of, entries, fork_count, forks, listing, parent_of, scan};
pub(crate) use thread::{Thread, process_of_peer, process_of_thread};
pub(crate) use world::{TICK, age, children_are_here, ticks_at, world};
