//! What runs in the helper: a copy of one thread of a process that may have had many.
//!
//! Only async-signal-safe calls (signal-safety(7)): another thread may have held any lock at the fork. Nothing allocates. A
//! panic aborts, as std sees to between fork and exec; that is a death by a signal, and proves nothing.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, sigaction,
};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, dup2_stdin, getpgrp, getpid, getppid, getsid, setpgid, setsid};

use super::close::close_from;
use super::kill::kill_children;
use super::record::{Outbox, Record};
use crate::sys::backend::syscall;
use crate::sys::notice::OnDeath;
use crate::sys::posix::monotonic;

/// Between fork and exec of std's child: returns in the root, which is forked here, and never in the helper.
pub(super) fn fork_root(socket: RawFd, on_death: OnDeath) -> Result<(), Errno> {
    if let Err(errno) = prctl::set_child_subreaper(true) {
        refuse(socket, errno);
        return Err(errno);
    }
    // What a terminal or the caller sends to the group is not for the helper, which stays in it, and blocks all for good.
    let mut mask = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), Some(&mut mask))?;
    // Where SIGCHLD is ignored, nobody's end is told (wait(2), NOTES).
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::SA_NOCLDSTOP, SigSet::empty());
    // SAFETY: this installs no handler.
    let handled = unsafe { sigaction(Signal::SIGCHLD, &default) }?;
    match syscall::fork(NOT_EXECUTED as i32)? {
        Some(root) => Reaper::begin(root, socket, on_death).run(),
        None => {
            lead_in_its_place();
            // SAFETY: so it was, up to here; a handler of the caller's is gone with the exec.
            unsafe { sigaction(Signal::SIGCHLD, &handled) }?;
            pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)
        }
    }
}

/// Lets the caller know that it is not the program that cannot be executed.
fn refuse(socket: RawFd, errno: Errno) {
    let mut outbox = Outbox::new();
    outbox.push(Record::Refused { errno: errno as i32 });
    // SAFETY: between fork and exec nobody closes it.
    let _ = outbox.flush(unsafe { BorrowedFd::borrow_raw(socket) });
}

/// What a root sends that ends before it executes its program; exec makes it SIGCHLD (execve(2)). The two are told apart
/// by it: the one is a "clone child" to wait(2), the other is not.
const NOT_EXECUTED: Signal = Signal::SIGUSR1;

/// In the root: leads the group or session that its helper leads by the command's settings or hooks.
fn lead_in_its_place() {
    let helper = getppid();
    let terminal = open(c"/dev/tty", OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC, Mode::empty());
    if getsid(None) == Ok(helper) {
        // A terminal stays with the session that has it.
        if matches!(terminal, Err(Errno::ENXIO)) {
            let _ = setsid();
        }
    } else if getpgrp() == helper {
        let in_front = terminal.is_ok_and(|terminal| syscall::foreground(terminal.as_fd()) == Ok(helper));
        if !in_front {
            let itself = nix::unistd::Pid::from_raw(0);
            let _ = setpgid(itself, itself);
        }
    }
}

struct Reaper {
    root: i32,
    /// As waitpid(2) gives it.
    root_status: Option<i32>,
    on_death: OnDeath,
    /// `None` when there is no caller any more.
    socket: Option<OwnedFd>,
    signals: SignalFd,
    outbox: Outbox,
    /// Nobody minds the root's PID, which reaping makes free.
    going: bool,
    killing: bool,
}

impl Reaper {
    fn begin(root: i32, socket: RawFd, on_death: OnDeath) -> Reaper {
        let _ = prctl::set_name(c"pidigree-helper");
        // Trap 21; and this process is to outlive the caller.
        let _ = prctl::set_pdeathsig(None);
        // Else it would keep a file system busy.
        let _ = chdir(c"/");
        // SAFETY: in this process nobody closes it before `close_from`.
        let inherited = unsafe { BorrowedFd::borrow_raw(socket) };
        let mut outbox = Outbox::new();
        outbox.push(Record::Root { root, helper: getpid().as_raw() });
        // Before this process's copy of std's pipe is closed, which lets the caller read.
        let said = outbox.flush(inherited);
        if said.is_err() || dup2_stdin(inherited).is_err() {
            syscall::die();
        }
        // The root's pipes, std's, and whatever the caller has open.
        close_from(1);
        // SAFETY: the socket was duplicated to this number, by which nobody else in this process knows anything.
        let socket = unsafe { OwnedFd::from_raw_fd(0) };
        let mut wakers = SigSet::empty();
        wakers.add(Signal::SIGCHLD);
        wakers.add(NOT_EXECUTED);
        // A signal that came before this is kept for it.
        match SignalFd::with_flags(&wakers, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK) {
            Err(_) => syscall::die(),
            Ok(signals) => Reaper {
                root,
                root_status: None,
                on_death,
                socket: Some(socket),
                signals,
                outbox,
                going: false,
                killing: false,
            },
        }
    }

    fn run(mut self) -> ! {
        while self.reap() {
            // This can find that the caller has gone.
            self.flush();
            if self.killing {
                kill_children(|pid, status| self.ended(pid, status));
            }
            self.sleep();
        }
        let Some(status) = self.root_status else { syscall::die() };
        self.outbox.push_kept(Record::Empty { at: monotonic() });
        self.flush();
        while !self.outbox.is_empty() && self.socket.is_some() {
            self.sleep();
            self.flush();
        }
        syscall::exit(match libc::WIFSIGNALED(status) {
            true => 128 + libc::WTERMSIG(status),
            false => libc::WEXITSTATUS(status),
        })
    }

    /// Reaps whoever has ended. False when nobody is left.
    fn reap(&mut self) -> bool {
        if !self.going {
            match syscall::reap(self.root, libc::__WCLONE) {
                // The caller has an error to return, which it does when this process has ended.
                Ok(Some((pid, status))) => self.ended(pid, status),
                Ok(None) | Err(Errno::ECHILD) => return true,
                Err(_) => syscall::die(),
            }
            self.going = true;
        }
        loop {
            match syscall::reap(-1, libc::__WALL) {
                Ok(Some((pid, status))) => self.ended(pid, status),
                Ok(None) => return true,
                Err(Errno::ECHILD) => return false,
                Err(_) => syscall::die(),
            }
        }
    }

    fn ended(&mut self, pid: i32, status: i32) {
        let record = Record::Ended { pid, status, at: monotonic() };
        // An orphan can have its PID later.
        if pid == self.root && self.root_status.is_none() {
            self.root_status = Some(status);
            self.outbox.push_kept(record);
            return;
        }
        if self.outbox.is_crowded() {
            self.flush();
        }
        self.outbox.push(record);
    }

    fn flush(&mut self) {
        if let Some(socket) = &self.socket {
            if self.outbox.flush(socket.as_fd()).is_err() {
                self.left_alone();
            }
        }
    }

    /// Until somebody ends, the caller says or reads something, or there is no caller any more.
    fn sleep(&mut self) {
        let wanted = match self.outbox.is_empty() {
            true => PollFlags::POLLIN,
            false => PollFlags::POLLIN | PollFlags::POLLOUT,
        };
        let signals = PollFd::new(self.signals.as_fd(), PollFlags::POLLIN);
        let slept = match &self.socket {
            Some(socket) => poll(&mut [signals, PollFd::new(socket.as_fd(), wanted)], PollTimeout::NONE),
            None => poll(&mut [signals], PollTimeout::NONE),
        };
        if !matches!(slept, Ok(_) | Err(Errno::EINTR)) {
            syscall::die();
        }
        // Before the next look at children: whoever ends after that wakes this process again.
        while let Ok(Some(_)) = self.signals.read_signal() {}
        self.listen();
    }

    fn listen(&mut self) {
        let Some(socket) = &self.socket else { return };
        let mut word = [0; 1];
        match recv(socket.as_raw_fd(), &mut word, MsgFlags::MSG_DONTWAIT) {
            Ok(length) if length > 0 => self.going = true,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Ok(_) | Err(_) => self.left_alone(),
        }
    }

    fn left_alone(&mut self) {
        self.socket = None;
        self.going = true;
        self.killing = self.on_death == OnDeath::Kill;
    }
}
