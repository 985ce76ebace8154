//! Knotes of processes on one kqueue, and what becomes of them.

use std::time::Duration;

use nix::errno::Errno;

use super::abi::{
    EV_ADD, EV_CLEAR, EV_DELETE, EV_ERROR, EV_ONESHOT, EV_RECEIPT, EVFILT_PROC, EVFILT_TIMER, EVFILT_USER,
    NOTE_EXIT, NOTE_EXITSTATUS, NOTE_TRIGGER,
};
use super::kernel::{Event, Kernel};
use crate::pid::Pid;
use crate::state::ExitStatus;
use crate::sys::posix::from_wait;

/// A kqueue that can also be made readable by us.
#[derive(Debug)]
pub(super) struct Queue<K: Kernel> {
    kernel: K,
    queue: K::Queue,
}

/// Whether a process could be attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    Yes,
    /// It is ending, or has: of that no event comes.
    Ended,
}

/// What a kqueue told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Of the process that was attached to with this key: the notes, and how it ended where that is told.
    Process {
        pid: Pid,
        key: usize,
        notes: u32,
        status: ExitStatus,
    },
    /// Rung by us.
    Rung,
    Timer,
}

/// Identifiers of ours.
const BELL: usize = 1;
const TIMER: usize = 2;
/// In milliseconds.
const WHILE: i64 = 100;
/// At one call.
pub(super) const MOST: usize = 256;

impl<K: Kernel> Queue<K> {
    pub(super) fn new(kernel: K) -> Result<Queue<K>, Errno> {
        let queue = Queue { queue: kernel.queue()?, kernel };
        queue.change(event(BELL, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, 0))?;
        Ok(queue)
    }

    #[cfg(target_os = "macos")]
    pub(super) fn descriptor(&self) -> &K::Queue {
        &self.queue
    }

    /// From now on, its end and these notes are told under this key, and nothing under an earlier one.
    pub(super) fn attach(&self, pid: Pid, notes: u32, key: usize) -> Result<Attached, Errno> {
        let ident = pid.get() as usize;
        // One that stands, with the end of an earlier bearer of the PID perhaps, would not be attached anew (trap 39).
        self.detach(pid);
        let add = |notes| self.change(event(ident, EVFILT_PROC, EV_ADD | EV_CLEAR, notes, 0, key));
        let added = match add(notes | NOTE_EXIT | NOTE_EXITSTATUS) {
            // How it ends is for its parent, its tracer, and whoever may kill it.
            Err(Errno::EACCES) => add(notes | NOTE_EXIT),
            added => added,
        };
        match added {
            Ok(()) => Ok(Attached::Yes),
            Err(Errno::ESRCH) => Ok(Attached::Ended),
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn detach(&self, pid: Pid) {
        // It goes by itself when the process does.
        let _ = self.change(event(pid.get() as usize, EVFILT_PROC, EV_DELETE, 0, 0, 0));
    }

    /// Makes it readable.
    pub(super) fn ring(&self) -> Result<(), Errno> {
        self.change(event(BELL, EVFILT_USER, 0, NOTE_TRIGGER, 0, 0))
    }

    /// Tells [`Told::Timer`] once, in a while: the end of one that is traced is told to the debugger alone (trap 32), and what
    /// failed is tried again.
    pub(super) fn set_timer(&self) -> Result<(), Errno> {
        self.change(event(TIMER, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, WHILE, 0))
    }

    /// Appends what it has to tell. Returns whether there may be more.
    pub(super) fn read(&self, into: &mut Vec<Told>, timeout: Option<Duration>) -> Result<bool, Errno> {
        let mut events = Vec::with_capacity(MOST);
        match self.kernel.kevent(&self.queue, &[], &mut events, timeout) {
            Ok(()) => {}
            Err(Errno::EINTR) => return Ok(false),
            Err(errno) => return Err(errno),
        }
        into.extend(events.iter().filter_map(|event| match event.filter {
            EVFILT_PROC => Some(Told::Process {
                pid: u32::try_from(event.ident).ok().and_then(Pid::new)?,
                key: event.key,
                notes: event.notes,
                status: status_of(event),
            }),
            EVFILT_USER => Some(Told::Rung),
            EVFILT_TIMER => Some(Told::Timer),
            _ => None,
        }));
        Ok(events.len() == MOST)
    }

    /// With room for its receipt: without, the first error of a batch ends it, and events come in its place.
    fn change(&self, mut change: Event) -> Result<(), Errno> {
        change.flags |= EV_RECEIPT;
        let mut receipts = Vec::with_capacity(1);
        self.kernel.kevent(&self.queue, &[change], &mut receipts, Some(Duration::ZERO))?;
        match receipts.first() {
            Some(receipt) if receipt.flags & EV_ERROR != 0 && receipt.data != 0 => {
                Err(Errno::from_raw(i32::try_from(receipt.data).unwrap_or(0)))
            }
            Some(_) => Ok(()),
            None => Err(Errno::EIO),
        }
    }
}

/// The status that waitpid(2) gives, in the data of an end that was asked for with NOTE_EXITSTATUS.
fn status_of(event: &Event) -> ExitStatus {
    if event.notes & NOTE_EXIT == 0 || event.notes & NOTE_EXITSTATUS == 0 {
        return ExitStatus::Unknown;
    }
    from_wait(event.data as i32)
}

fn event(ident: usize, filter: i16, flags: u16, notes: u32, data: i64, key: usize) -> Event {
    Event { ident, filter, flags, notes, data, key }
}
