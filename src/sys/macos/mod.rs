//! macOS: sysctl(3) for who is there, `proc_pidinfo` for who is who, kqueue(2) for who has ended.
//!
//! Nothing pins a PID here. So each answer is checked to be of the process that was asked about, by the number that XNU
//! gives to it alone (or by its start time, in microseconds, where that number is refused); only a signal is sent between
//! one look and nothing.
//!
//! What decides anything stands above [`kernel::Kernel`], and is tested on every system with a scripted one.

mod abi;
mod connector;
mod handle;
mod kernel;
mod poller;
mod queue;
mod step;
mod table;

#[cfg(target_os = "macos")]
mod absent;
#[cfg(target_os = "macos")]
mod capabilities;
#[cfg(target_os = "macos")]
mod darwin;
#[cfg(target_os = "macos")]
mod here;
#[cfg(target_os = "macos")]
mod peer;
#[cfg(target_os = "macos")]
mod selector;
#[cfg(target_os = "macos")]
mod world;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

#[cfg(target_os = "macos")]
pub(crate) use self::{
    absent::{
        Cgroup, Forks, Helper, adopts_orphans, children_are_here, entries, fork_count, forks,
        go_before_others,
    },
    capabilities::capabilities,
    here::{
        Connector, Handle, Poller, Step, Thread, children_of, listing, parent_of, process_of_thread, scan,
    },
    peer::process_of_peer,
    poller::Registration,
    selector::{Flag, Selector},
    step::Since,
    world::{TICK, age, ticks_at, world},
};
