//! The process connector: the kernel says who forked, executed and ended (traps 18, 22 and 23).
//!
//! With CAP_BPF, a filter in the kernel keeps count and lets pass what concerns us (`filter.rs`); else every message comes
//! here and we keep count by the same rules (`members.rs`).

mod filter;
mod members;
mod pace;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, NetlinkAddr, bind, getsockopt, send, setsockopt, sockopt};

use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::parse::cn_proc::{self, Event, What};
use crate::pid::Pid;
use crate::state::{ExitStatus, State};
use crate::sys::backend::handle::Handle;
use crate::sys::backend::syscall::{self, Datagrams};
use crate::sys::backend::world::world;
use crate::sys::notice::Notice;
use crate::sys::posix::{from_wait, monotonic};

use filter::Filter;
use members::{Members, Threads};
use pace::Pace;

/// One netlink socket. Readable when there are notices, and now and then when there are none. It serves the process that
/// opened it, and no child of that.
#[derive(Debug)]
pub(crate) struct Connector {
    socket: OwnedFd,
    pace: Pace,
    keeper: Keeper,
    /// Those that were found running, pinned: nobody knows how many threads they had, so each is asked whether it has
    /// ended when one of its threads has.
    found: HashMap<Pid, Handle>,
    /// Those of them that were said to have ended, and until when messages of theirs may have been sent.
    finished: HashMap<Pid, u64>,
    /// For each processor, without the filter, the number of the next message.
    sequences: Vec<Option<u32>>,
    /// The count went wrong, and nobody has been tracked since.
    started_over: bool,
    /// More messages than the buffer holds.
    most_at_once: usize,
    datagrams: Datagrams,
    events: Vec<Event>,
    owner: Pid,
}

#[derive(Debug)]
enum Keeper {
    Kernel(Filter),
    Ours(Members),
}

/// What a message means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Forked(Pid, Pid),
    Executed(Pid),
    /// The last of its threads has ended; with the status where that is the process's.
    Ended(Pid, Option<u32>),
    /// Of one whose threads were not counted, a thread has ended.
    PerhapsEnded(Pid),
}

/// What went wrong while reading, from bad to worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Loss {
    None,
    /// The buffer was full. Whatever is in it is older than the loss: the kernel puts nothing new in before it is empty.
    Overrun,
    /// The kernel had no memory for a message, or no room for a member. What follows is of no use.
    Missed,
}

const LISTEN: &str = "listen to the process connector";
const READ: &str = "read from the process connector";
const TRACK: &str = "track process";

/// What the kernel numbers the initial PID namespace (linux/nsfs.h).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
/// PROC_CN_MCAST_LISTEN and PROC_CN_MCAST_IGNORE, linux/cn_proc.h.
const START: u32 = 1;
const STOP: u32 = 2;
/// How often it is asked to start, where its answers are lost.
const TIMES_ASKED: usize = 16;
/// No message takes less of the buffer.
const LEAST_MESSAGE: usize = 512;
/// More processors than any kernel is built for.
const MOST_PROCESSORS: usize = 1 << 16;

impl Connector {
    pub(crate) const IS_KQUEUE: bool = false;

    /// # Errors
    ///
    /// [`is_unsupported`](Error::is_unsupported) outside the initial PID, user and network namespaces, and where the kernel
    /// was built without; [`is_denied`](Error::is_denied) before Linux 6.6 without CAP_NET_ADMIN.
    pub(crate) fn open(receive_buffer: Option<usize>) -> Result<Connector> {
        Connector::open_with(receive_buffer, Filter::attach)
    }

    fn open_with(
        receive_buffer: Option<usize>,
        attach: impl FnOnce(BorrowedFd<'_>) -> Result<Filter, Errno>,
    ) -> Result<Connector> {
        if world()?.pid_namespace.is_some_and(|namespace| namespace != INITIAL_PID_NAMESPACE) {
            let reason = "it names processes as the initial PID namespace does, and this is another one";
            return Err(Error::unsupported(None, LISTEN, reason));
        }
        let socket = syscall::connector_socket().map_err(refused)?;
        let size = receive_buffer.unwrap_or(8 << 20);
        setsockopt(&socket, sockopt::RcvBufForce, &size)
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &size))
            .map_err(refused)?;
        let keeper = match attach(socket.as_fd()) {
            Ok(filter) => Keeper::Kernel(filter),
            Err(_errno) => {
                crate::debug!(errno = %_errno, "no filter for the process connector: every fork of the machine wakes us");
                Keeper::Ours(Members::default())
            }
        };
        // The kernel chooses a port that nobody has.
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, cn_proc::ID[0])).map_err(refused)?;
        let pace = Pace::new(socket.as_fd()).map_err(refused)?;
        let mut connector = Connector {
            pace,
            keeper,
            found: HashMap::new(),
            finished: HashMap::new(),
            sequences: Vec::new(),
            started_over: false,
            most_at_once: getsockopt(&socket, sockopt::RcvBuf).map_err(refused)? / LEAST_MESSAGE
                + Datagrams::MOST,
            socket,
            datagrams: Datagrams::new(),
            events: Vec::new(),
            owner: Pid::current(),
        };
        connector.start()?;
        Ok(connector)
    }

    /// From now on, notices of this process and of everything that it starts come. `threads` is how many it has, which only
    /// whoever holds it can know; `None` for one that was found running. Returns whether it is tracked: one that
    /// has ended before is not, and of that no notice comes.
    ///
    /// Whom it started before is not tracked, but is in the process table by now.
    pub(crate) fn track(&mut self, pid: Pid, threads: Option<u32>) -> Result<bool> {
        let failed = |errno: Errno| Error::os(pid, TRACK, errno.into());
        self.started_over = false;
        if let Some(threads) = threads {
            match &mut self.keeper {
                Keeper::Kernel(filter) => filter.put(pid, Threads::new(threads)).map_err(failed)?,
                Keeper::Ours(members) => members.put(pid, Threads::new(threads), monotonic()),
            }
            return Ok(true);
        }
        let handle = match Handle::open(pid) {
            Err(error) if error.is_gone() || error.is_thread() => {
                self.forget(pid);
                return Ok(false);
            }
            opened => opened?,
        };
        let is_new = match &mut self.keeper {
            Keeper::Kernel(filter) => filter.find(pid).map_err(failed)?,
            Keeper::Ours(members) => members.find(pid, monotonic()),
        };
        if !is_new {
            return Ok(true);
        }
        let ended = has_ended(&handle);
        self.found.insert(pid, handle);
        if !matches!(ended, Ok(false)) {
            self.forget(pid);
        }
        ended.map(|ended| !ended)
    }

    /// Nobody tells whom it has started.
    pub(crate) fn track_ended(&mut self, _ended: &Identity, _status: ExitStatus) -> bool {
        false
    }

    /// Marks a process that is about to be tracked, or is: whoever it starts from then on is marked alike, and its own
    /// children in turn. The census says who is.
    pub(crate) fn mark(&mut self, pid: Pid, mark: u64) -> Result<()> {
        match &self.keeper {
            Keeper::Kernel(filter) => {
                filter.mark(pid, mark).map_err(|errno| Error::os(pid, TRACK, errno.into()))
            }
            Keeper::Ours(_) => Ok(()),
        }
    }

    /// 0 for one without.
    pub(crate) fn mark_of(&self, pid: Pid) -> Result<u64> {
        match &self.keeper {
            Keeper::Kernel(filter) => filter
                .mark_of(pid)
                .map_err(|errno| Error::os(pid, TRACK, errno.into()))
                .map(Option::unwrap_or_default),
            Keeper::Ours(_) => Ok(0),
        }
    }

    /// No more notices of it. What it has started stays tracked.
    pub(crate) fn forget(&mut self, pid: Pid) {
        self.found.remove(&pid);
        match &mut self.keeper {
            Keeper::Kernel(filter) => drop(filter.remove(pid)),
            Keeper::Ours(members) => members.forget(pid, monotonic()),
        }
    }

    /// Takes all notices that there are by now, without blocking. More can have come meanwhile.
    pub(crate) fn read(&mut self, into: &mut Vec<Notice>) -> Result<()> {
        let failed = |errno: Errno| Error::os(None, READ, errno.into());
        let started = monotonic();
        let mut loss = Loss::None;
        let mut taken = 0;
        loop {
            match self.datagrams.receive(self.socket.as_fd()) {
                Ok(count) => {
                    self.take(count, &mut loss, into).map_err(failed)?;
                    taken += count;
                    // A storm must not keep us here for ever. That there were fewer than there was room for does not mean
                    // that those were all: a loss is said in between.
                    if loss == Loss::None && taken >= self.most_at_once {
                        return Ok(());
                    }
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                // Said before what was in the buffer by then.
                Err(Errno::ENOBUFS) => self.lose(Loss::Overrun, &mut loss).map_err(failed)?,
                Err(errno) => return Err(failed(errno)),
            }
        }
        self.pace.was_read(self.socket.as_fd(), taken, started).map_err(failed)?;
        self.finished.retain(|_, until| *until >= started);
        if let Keeper::Ours(members) = &mut self.keeper {
            members.read_up_to(started);
        }
        match loss {
            Loss::None => Ok(()),
            loss => self.go_on(loss, into).map_err(failed),
        }
    }

    /// Who is tracked and alive, by PID, and its mark or 0; after a loss too. `None` where the kernel does not count for us,
    /// and after it could not.
    ///
    /// Whoever ends during the census may be in it; the notice of that is still to come. So are notices of those that ended
    /// just before, of whom nothing else was heard: what they started, if it is alive, is in the census.
    pub(crate) fn census(&self) -> Option<Result<Vec<(Pid, u64)>>> {
        let Keeper::Kernel(filter) = &self.keeper else { return None };
        if self.started_over {
            return None;
        }
        let census = filter.census().and_then(|members| Ok((members, filter.has_missed()?)));
        match census {
            // To be said by `read`, too.
            Ok((_, true)) => None,
            Ok((mut members, false)) => {
                members.retain(|(pid, _)| {
                    self.found.get(pid).is_none_or(|handle| !matches!(has_ended(handle), Ok(true)))
                });
                Some(Ok(members))
            }
            Err(errno) => Some(Err(Error::os(None, "count who is tracked", errno.into()))),
        }
    }

    /// Whether only what is tracked makes it readable.
    pub(crate) fn is_filtered(&self) -> bool {
        matches!(self.keeper, Keeper::Kernel(_))
    }

    /// In bytes, as the kernel counts them: about 830 for a notice.
    #[cfg(test)]
    pub(crate) fn receive_buffer(&self) -> usize {
        getsockopt(&self.socket, sockopt::RcvBuf).unwrap_or(0)
    }

    /// The kernel answers before `send` returns, to everybody who listens; or not at all, if it shows us nothing.
    ///
    /// The request of Linux 6.6 that names the kinds of events would do without those that nobody needs. But then the kernel
    /// neither answers, nor do its numbers show a gap.
    fn start(&mut self) -> Result<()> {
        for _ in 0..TIMES_ASKED {
            if self.is_answered()? {
                return Ok(());
            }
            // On older kernels it counts how often it was asked.
            self.ask(STOP).map_err(refused)?;
        }
        let reason = "others fork faster than this buffer holds, so that the kernel's answer is lost; enlarge it (event_buffer)";
        Err(Error::unsupported(None, LISTEN, reason))
    }

    /// Asks once. Returns false if the answer may have been lost, because the buffer was full.
    fn is_answered(&mut self) -> Result<bool> {
        let number = self.ask(START).map_err(refused)?;
        let mut is_lost = false;
        loop {
            let count = match self.datagrams.receive(self.socket.as_fd()) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(Errno::ENOBUFS) => {
                    is_lost = true;
                    continue;
                }
                Err(Errno::EAGAIN) if is_lost => return Ok(false),
                Err(Errno::EAGAIN) => {
                    let reason =
                        "the kernel does not answer: it does only in the initial PID and user namespaces";
                    return Err(Error::unsupported(None, LISTEN, reason));
                }
                Err(errno) => return Err(refused(errno)),
            };
            let mut answer = None;
            for index in 0..count {
                let datagram = self.datagrams.get(index).unwrap_or_default();
                let _ = cn_proc::events(datagram, |event| match event.what {
                    What::Answer { to, errno } if to == number.wrapping_add(1) => answer = Some(errno),
                    _ => {}
                });
            }
            match answer {
                Some(0) => return Ok(true),
                Some(errno) => return Err(refused(Errno::from_raw(errno as i32))),
                None => {}
            }
        }
    }

    /// Returns the number that the answer is told by.
    fn ask(&self, operation: u32) -> Result<u32, Errno> {
        let number = monotonic() as u32 ^ self.owner.get() << 8;
        if let Keeper::Kernel(filter) = &self.keeper {
            filter.expect_answer(number.wrapping_add(1))?;
        }
        send(self.socket.as_raw_fd(), &cn_proc::request(operation, number), MsgFlags::empty())?;
        Ok(number)
    }

    fn take(&mut self, count: usize, loss: &mut Loss, into: &mut Vec<Notice>) -> Result<(), Errno> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let mut whole = true;
        for index in 0..count {
            let datagram = self.datagrams.get(index);
            whole &=
                datagram.and_then(|datagram| cn_proc::events(datagram, |event| events.push(event))).is_some();
        }
        if let Keeper::Kernel(filter) = &mut self.keeper {
            whole &= !filter.look()?;
        }
        if !whole {
            self.lose(Loss::Missed, loss)?;
        }
        for &event in &events {
            if matches!(self.keeper, Keeper::Ours(_)) && !in_sequence(&mut self.sequences, &event) {
                self.lose(Loss::Missed, loss)?;
            }
            if *loss == Loss::Missed {
                break;
            }
            if let Some(change) = self.change(event) {
                into.extend(self.notice(change, event.at));
            }
        }
        self.events = events;
        Ok(())
    }

    fn change(&mut self, event: Event) -> Option<Change> {
        let filter = match &mut self.keeper {
            Keeper::Kernel(filter) => filter,
            Keeper::Ours(members) => return members.pass(event),
        };
        match event.what {
            What::Forked { parent, child, .. } => {
                self.finished.remove(&child?);
                Some(Change::Forked(parent?, child?))
            }
            What::Executed { pid } => Some(Change::Executed(pid?)),
            What::Ended { pid, .. } if self.found.contains_key(&pid?) => Some(Change::PerhapsEnded(pid?)),
            What::Ended { pid, .. } if self.finished.get(&pid?).is_some_and(|&until| event.at <= until) => {
                None
            }
            What::Ended { pid, .. } if filter.is_unsure(pid?, event.at) => Some(Change::Ended(pid?, None)),
            What::Ended { pid, status } => Some(Change::Ended(pid?, Some(status))),
            What::Answer { .. } | What::Changed => None,
        }
    }

    fn notice(&mut self, change: Change, at: u64) -> Option<Notice> {
        match change {
            Change::Forked(parent, child) => Some(Notice::Forked { parent, child, at }),
            Change::Executed(pid) => Some(Notice::Executed { pid, at }),
            Change::Ended(pid, status) => {
                let status = status.map_or(ExitStatus::Unknown, |status| from_wait(status as i32));
                Some(Notice::Ended { pid, status, at })
            }
            // What cannot be asked any more is not thereby at an end.
            Change::PerhapsEnded(pid) => match self.found.get(&pid).map(has_ended) {
                Some(Ok(true)) => self.end_found(pid, at),
                _ => None,
            },
        }
    }

    fn end_found(&mut self, pid: Pid, at: u64) -> Option<Notice> {
        let handle = self.found.remove(&pid)?;
        match &mut self.keeper {
            Keeper::Kernel(filter) => {
                let _ = filter.remove_uncounted(pid);
                self.finished.insert(pid, monotonic());
            }
            Keeper::Ours(members) => members.remove_uncounted(pid),
        }
        Some(Notice::Ended { pid, status: handle.exit_status(), at })
    }

    /// Nothing more arrives until `go_on`, so that what is read until then is older than the loss.
    fn lose(&mut self, worse: Loss, loss: &mut Loss) -> Result<(), Errno> {
        if *loss == Loss::None {
            self.hold(true)?;
            // Some may still deliver what passed before. Where the call is denied, that is the least of our troubles.
            let _ = syscall::wait_for_running_filters();
        }
        *loss = worse.max(*loss);
        Ok(())
    }

    fn go_on(&mut self, loss: Loss, into: &mut Vec<Notice>) -> Result<(), Errno> {
        into.push(Notice::Lost);
        let is_right = match &mut self.keeper {
            Keeper::Kernel(filter) => {
                filter.forget_unsure()?;
                loss == Loss::Overrun && !filter.has_missed()?
            }
            Keeper::Ours(_) => false,
        };
        crate::debug!(?loss, is_right, "lost notices of the process connector");
        if is_right {
            self.hold(false)?;
            let now = monotonic();
            let ended = self.found.iter().filter(|(_, handle)| matches!(has_ended(handle), Ok(true)));
            let ended: Vec<Pid> = ended.map(|(pid, _)| *pid).collect();
            into.extend(ended.into_iter().filter_map(|pid| self.end_found(pid, now)));
            return Ok(());
        }
        self.found.clear();
        self.finished.clear();
        self.sequences.clear();
        self.started_over = true;
        match &mut self.keeper {
            Keeper::Kernel(filter) => filter.clear()?,
            Keeper::Ours(members) => members.clear(),
        }
        self.hold(false)
    }

    fn hold(&self, on: bool) -> Result<(), Errno> {
        match &self.keeper {
            Keeper::Kernel(filter) => filter.hold(on),
            Keeper::Ours(_) => syscall::mute(self.socket.as_fd(), on),
        }
    }
}

impl AsFd for Connector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pace.as_fd()
    }
}

impl Drop for Connector {
    /// The kernel goes on making messages for a listener that has only closed its socket. That is one with the parent's in a
    /// child of fork, which must not speak for it.
    fn drop(&mut self) {
        if self.owner == Pid::current() {
            let _ = self.ask(STOP);
        }
    }
}

/// Whether no message of this processor came before it that we have not seen.
fn in_sequence(sequences: &mut Vec<Option<u32>>, event: &Event) -> bool {
    let cpu = event.cpu as usize;
    if cpu >= MOST_PROCESSORS {
        return true;
    }
    if sequences.len() <= cpu {
        sequences.resize(cpu + 1, None);
    }
    let expected = sequences[cpu].replace(event.sequence.wrapping_add(1));
    expected.is_none_or(|expected| expected == event.sequence)
}

fn has_ended(handle: &Handle) -> Result<bool> {
    handle.state().map(|state| matches!(state, State::Zombie | State::Gone))
}

fn refused(errno: Errno) -> Error {
    let reason = match errno {
        Errno::EPERM | Errno::EACCES => {
            return Error::denied(
                None,
                LISTEN,
                "before Linux 6.6 it takes CAP_NET_ADMIN; or a sandbox denies netlink",
            );
        }
        Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT => {
            "this kernel was built without it, or a sandbox denies netlink"
        }
        Errno::ECONNREFUSED => {
            "only the initial network namespace has it, and this is another one; or the kernel was built without"
        }
        errno => return Error::os(None, LISTEN, errno.into()),
    };
    Error::unsupported(None, LISTEN, reason)
}
