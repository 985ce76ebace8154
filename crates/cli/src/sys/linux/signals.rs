//! Signals as something to read: signalfd(2). No handler runs, and nothing is interrupted.
#![expect(
    unsafe_code,
    reason = "std's only way to give a command its signal mask back runs between fork and exec"
)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc::SI_KERNEL;
use nix::sys::signal::{self, SigSet, SigmaskHow};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use pidigree::{Pid, Signal};

use crate::sys::{Caught, Sender};

/// What is read instead of acting: whatever people and service managers send to end a command, or to tell it something.
const READ: [signal::Signal; 6] = [
    signal::Signal::SIGHUP,
    signal::Signal::SIGINT,
    signal::Signal::SIGQUIT,
    signal::Signal::SIGTERM,
    signal::Signal::SIGUSR1,
    signal::Signal::SIGUSR2,
];

/// While this lives, those signals are read and do nothing else, and writing to a terminal from the background does not
/// stop us.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: SignalFd,
    before: SigSet,
}

impl Signals {
    /// To be called while there is one thread: those that are started later inherit that these signals are blocked.
    pub(crate) fn catch() -> io::Result<Signals> {
        let read: SigSet = READ.into_iter().collect();
        let mut blocked = read;
        blocked.add(signal::Signal::SIGTTOU);
        let fd = SignalFd::with_flags(&read, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Signals { fd, before })
    }

    /// What a command must be given, so that it does not inherit that they are blocked.
    pub(crate) fn unblock_in(&self, command: &mut Command) {
        let before = self.before;
        // SAFETY: the hook calls pthread_sigmask(3) and nothing else, which is async-signal-safe and allocates nothing.
        unsafe { command.pre_exec(move || Ok(before.thread_set_mask()?)) };
    }

    /// Takes the next one, if there is one.
    pub(crate) fn next(&self) -> io::Result<Option<Caught>> {
        let Some(read) = self.fd.read_signal()? else {
            return Ok(None);
        };
        let signal = i32::try_from(read.ssi_signo).ok().and_then(Signal::new);
        let sender = if read.ssi_code == SI_KERNEL {
            Sender::Terminal
        } else {
            Sender::Process(Pid::new(read.ssi_pid))
        };
        Ok(signal.map(|signal| Caught { signal, sender }))
    }

    /// Ends this process as the signal does when nobody catches it.
    pub(crate) fn die_of(self, signal: Signal) -> io::Result<()> {
        let number = signal::Signal::try_from(signal.number())?;
        self.before.thread_set_mask()?;
        Ok(signal::raise(number)?)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
