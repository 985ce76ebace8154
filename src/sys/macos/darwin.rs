//! XNU itself.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};

use super::abi::{EVFILT_PROC, EVFILT_TIMER, EVFILT_USER, PROC_PIDUNIQIDENTIFIERINFO};
use super::kernel::{Event, Kernel};
use super::queue::MOST;
use super::world;
use crate::identity::BootId;
use crate::state::ExitStatus;

/// The kernel that this runs on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Darwin;

/// A kqueue of ours.
#[derive(Debug)]
pub(crate) struct Descriptor(Kqueue);

impl Descriptor {
    pub(super) fn new() -> Result<Descriptor, Errno> {
        let queue = Kqueue::new()?;
        // No kqueue is inherited by fork, but by exec it is.
        fcntl(&queue, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        Ok(Descriptor(queue))
    }

    /// `None` waits for ever.
    pub(super) fn kevent(
        &self,
        changes: &[KEvent],
        events: &mut [KEvent],
        timeout: Option<Duration>,
    ) -> Result<usize, Errno> {
        let timeout = timeout.map(|timeout| libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        self.0.kevent(changes, events, timeout)
    }
}

/// To be overwritten.
pub(super) fn none() -> KEvent {
    KEvent::new(0, EventFilter::EVFILT_USER, EvFlags::empty(), FilterFlag::empty(), 0, 0)
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Kernel for Darwin {
    type Queue = Descriptor;

    fn sysctl(&self, name: &[i32], buffer: Option<&mut [u8]>) -> Result<usize, Errno> {
        let mut name = name.to_vec();
        let (place, mut length) = match buffer {
            Some(buffer) => (buffer.as_mut_ptr().cast(), buffer.len()),
            None => (std::ptr::null_mut(), 0),
        };
        // SAFETY: the kernel reads the whole of `name`, and writes at most `length` bytes to `place`, where there is room for
        // them, or none if it is null; and how much that is to `length`.
        let result = unsafe {
            libc::sysctl(
                name.as_mut_ptr(),
                name.len() as libc::c_uint,
                place,
                &raw mut length,
                std::ptr::null_mut(),
                0,
            )
        };
        Errno::result(result).map(|_| length)
    }

    fn unique_info(&self, pid: i32, buffer: &mut [u8]) -> Result<usize, Errno> {
        // To be asked of zombies, too.
        const ZOMBIES: u64 = 1;
        // SAFETY: the kernel writes at most as many bytes as there is room for.
        let filled = unsafe {
            libc::proc_pidinfo(
                pid,
                PROC_PIDUNIQIDENTIFIERINFO,
                ZOMBIES,
                buffer.as_mut_ptr().cast(),
                buffer.len() as libc::c_int,
            )
        };
        // Of an error it returns 0, too.
        if filled > 0 { Ok(filled as usize) } else { Err(Errno::last()) }
    }

    fn queue(&self) -> Result<Descriptor, Errno> {
        Descriptor::new()
    }

    fn kevent(
        &self,
        queue: &Descriptor,
        changes: &[Event],
        events: &mut Vec<Event>,
        timeout: Option<Duration>,
    ) -> Result<(), Errno> {
        let changes: Vec<KEvent> = changes.iter().map(to_kernel).collect();
        let mut told = vec![none(); if changes.is_empty() { MOST } else { changes.len() }];
        let count = queue.kevent(&changes, &mut told, timeout)?;
        events.clear();
        events.extend(told[..count].iter().map(from_kernel));
        Ok(())
    }

    fn kill(&self, pid: i32, signal: i32) -> Result<(), Errno> {
        // SAFETY: kill(2) touches no memory of ours.
        Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
    }

    fn child_status(&self, pid: i32) -> Option<ExitStatus> {
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let mut told = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: the kernel writes one siginfo_t to `told`, which has room for it.
        let result = unsafe { libc::waitid(libc::P_PID, pid as libc::id_t, told.as_mut_ptr(), flags) };
        Errno::result(result).ok()?;
        // SAFETY: of zeroes, which are a value of it, or what the kernel wrote.
        let told = unsafe { told.assume_init() };
        match told.si_code {
            // XNU gives the status of an exit whole, with all its 32 bits.
            libc::CLD_EXITED => Some(ExitStatus::Code(told.si_status & 0xFF)),
            libc::CLD_KILLED | libc::CLD_DUMPED => Some(ExitStatus::Signal(told.si_status)),
            // It runs: nothing was written.
            _ => None,
        }
    }

    fn boot(&self) -> Option<BootId> {
        world::boot()
    }
}

fn to_kernel(event: &Event) -> KEvent {
    let filter = match event.filter {
        EVFILT_PROC => EventFilter::EVFILT_PROC,
        EVFILT_TIMER => EventFilter::EVFILT_TIMER,
        _ => EventFilter::EVFILT_USER,
    };
    let flags = EvFlags::from_bits_retain(event.flags);
    let notes = FilterFlag::from_bits_retain(event.notes);
    KEvent::new(event.ident, filter, flags, notes, event.data as isize, event.key as isize)
}

fn from_kernel(event: &KEvent) -> Event {
    Event {
        ident: event.ident(),
        filter: match event.filter() {
            Ok(EventFilter::EVFILT_PROC) => EVFILT_PROC,
            Ok(EventFilter::EVFILT_TIMER) => EVFILT_TIMER,
            Ok(EventFilter::EVFILT_USER) => EVFILT_USER,
            _ => 0,
        },
        flags: event.flags().bits(),
        notes: event.fflags().bits(),
        data: event.data() as i64,
        key: event.udata() as usize,
    }
}
