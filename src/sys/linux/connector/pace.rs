//! How often the connector wakes its reader: at once, but no more than once in half a millisecond in the long run. In a
//! storm, most of what a message costs is the waking: 28 µs a fork without this, where the fork itself takes 180.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// Readable when the socket is to be read.
#[derive(Debug)]
pub(super) struct Pace {
    epoll: Epoll,
    timer: TimerFd,
    last_read: u64,
    /// How long it has not been read, less a rest for each time it was. In nanoseconds.
    credit: u64,
    /// Until then, only the timer wakes, and what is wrong with the socket.
    rest: Option<u64>,
}

const REST: Duration = Duration::from_micros(500);
const REST_NANOSECONDS: u64 = REST.as_nanos() as u64;
/// A burst of sixteen is told without delay.
const MOST_CREDIT: u64 = 16 * REST_NANOSECONDS;

impl Pace {
    pub(super) fn new(socket: BorrowedFd<'_>) -> Result<Pace, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Pace { epoll, timer, last_read: 0, credit: 0, rest: None })
    }

    /// The socket was read to its end, and so many messages were there.
    pub(super) fn was_read(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: usize,
        now: u64,
    ) -> Result<(), Errno> {
        let rested = self.rest.is_some_and(|until| now >= until);
        if messages == 0 {
            return if rested { self.wake_at_once(socket) } else { Ok(()) };
        }
        self.credit = (self.credit + now.saturating_sub(self.last_read)).min(MOST_CREDIT);
        self.last_read = now;
        if self.rest.is_none() {
            if self.credit >= REST_NANOSECONDS {
                self.credit -= REST_NANOSECONDS;
                return Ok(());
            }
            self.epoll.modify(socket, &mut EpollEvent::new(EpollFlags::empty(), 0))?;
        } else if !rested {
            return Ok(());
        }
        self.rest = Some(now + REST_NANOSECONDS);
        // It is not readable any more before that.
        self.timer.set(Expiration::OneShot(TimeSpec::from_duration(REST)), TimerSetTimeFlags::empty())
    }

    fn wake_at_once(&mut self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        self.timer.unset()?;
        self.epoll.modify(socket, &mut EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        self.rest = None;
        Ok(())
    }
}

impl AsFd for Pace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}
