//! Who is tracked, where the kernel cannot keep count for us: the same rules as in `filter.rs`, one line for one line.

use std::collections::HashMap;

use crate::parse::cn_proc::{Event, What};
use crate::pid::Pid;
use crate::sys::backend::connector::Change;

/// The filter judges a message when it is sent, and this when it is read. So it goes by the time of the message, which may
/// have waited while somebody was tracked or forgotten.
#[derive(Debug, Default)]
pub(super) struct Members(HashMap<Pid, Member>);

#[derive(Clone, Copy, Debug)]
struct Member {
    threads: Threads,
    /// In nanoseconds of CLOCK_MONOTONIC.
    since: u64,
    until: Option<u64>,
}

/// As the filter keeps it, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Threads {
    /// That live; from [`UNCOUNTED`] up or down, if nobody knows how many there were at first.
    pub(super) live: u32,
    /// The statuses of those that ended since the last exec, laid over each other.
    pub(super) statuses: u32,
}

/// A process that was found running starts here. Below it, more threads have ended than have been started since.
pub(super) const UNCOUNTED: u32 = 1 << 31;
/// No process has as many threads (PID_MAX_LIMIT is 1 << 22): from here on, nobody has counted.
pub(super) const COUNTED_BELOW: u32 = 1 << 30;

impl Threads {
    pub(super) fn new(live: u32) -> Threads {
        Threads { live, statuses: 0 }
    }
}

impl Members {
    /// Returns whether it was not there.
    pub(super) fn find(&mut self, pid: Pid, now: u64) -> bool {
        if self.0.get(&pid).is_some_and(|member| member.until.is_none()) {
            return false;
        }
        self.put(pid, Threads::new(UNCOUNTED), now);
        true
    }

    pub(super) fn put(&mut self, pid: Pid, threads: Threads, now: u64) {
        self.0.insert(pid, Member { threads, since: now, until: None });
    }

    pub(super) fn forget(&mut self, pid: Pid, now: u64) {
        if let Some(member) = self.0.get_mut(&pid) {
            member.until.get_or_insert(now);
        }
    }

    /// All messages that were sent before this time have been read.
    pub(super) fn read_up_to(&mut self, now: u64) {
        self.0.retain(|_, member| member.until.is_none_or(|until| until >= now));
    }

    /// Leaves it if it has been counted from the start: another process has the PID by now.
    pub(super) fn remove_uncounted(&mut self, pid: Pid) {
        if self.0.get(&pid).is_some_and(|member| member.threads.live >= COUNTED_BELOW) {
            self.0.remove(&pid);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Keeps count, and says what the filter would let pass.
    pub(super) fn pass(&mut self, Event { what, at, .. }: Event) -> Option<Change> {
        match what {
            What::Forked { parent, thread, child } if thread == child => {
                self.at(parent?, at)?;
                let member = self.0.entry(child?).or_insert(Member::BORN);
                if at < member.since {
                    return None;
                }
                if member.threads.live >= COUNTED_BELOW || member.until.is_some() {
                    *member = Member::BORN;
                }
                // Not 0 if the PID was reused before the end of its last bearer was said.
                member.threads.live += 1;
                Some(Change::Forked(parent?, child?))
            }
            // `parent` is that of the process then, and not who started the thread.
            What::Forked { child, .. } => {
                self.at(child?, at)?.live += 1;
                None
            }
            What::Executed { pid } => {
                self.at(pid?, at)?.statuses = 0;
                Some(Change::Executed(pid?))
            }
            What::Ended { pid, status } => {
                let threads = self.at(pid?, at)?;
                threads.statuses |= status;
                threads.live = threads.live.wrapping_sub(1);
                match threads.live {
                    UNCOUNTED.. => None,
                    COUNTED_BELOW.. => Some(Change::PerhapsEnded(pid?)),
                    0 => {
                        let status = Some(status).filter(|&status| status == threads.statuses);
                        self.0.remove(&pid?);
                        Some(Change::Ended(pid?, status))
                    }
                    _ => None,
                }
            }
            What::Answer { .. } | What::Changed => None,
        }
    }

    /// If it was tracked at that time.
    fn at(&mut self, pid: Pid, at: u64) -> Option<&mut Threads> {
        let member = self.0.get_mut(&pid)?;
        let was = at >= member.since && member.until.is_none_or(|until| at <= until);
        was.then_some(&mut member.threads)
    }
}

impl Member {
    const BORN: Member = Member { threads: Threads { live: 0, statuses: 0 }, since: 0, until: None };
}
