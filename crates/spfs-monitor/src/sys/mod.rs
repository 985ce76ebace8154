//! The kernel, where no crate wraps it safely: leaving the caller, signals, and the moment between fork and exec of the cleanup
//! command. The only home of `unsafe` and of `cfg(target_os)` in this program; it asks nothing about other processes, which is
//! pidigree's part.
//!
//! Signals come through a pipe that a handler writes to, on every system alike: nothing has to be blocked, so nothing blocked is
//! left to the cleanup command, and what runs on macOS is what is tested on Linux.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as backend;

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
use macos as backend;

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal};
use nix::unistd::ForkResult;
use pidigree::Pid;

/// Who a process is after [`detach`].
#[derive(Debug)]
pub(crate) enum Side {
    /// The one that was started, and waits for the other's word.
    Launcher(UnixStream),
    /// The one that stays.
    Monitor(UnixStream),
}

/// Forks the monitor off, in a session of its own. For a process with one thread.
///
/// Once, not twice: the launcher waits for the monitor's word and ends, which leaves the monitor to nobody as a second fork would.
/// But until then the monitor is somebody's child, and can be linked to its caller by other monitors that look at the processes
/// meanwhile. What a second fork is for besides, that no terminal becomes the session's, is had by opening none.
pub(crate) fn detach() -> io::Result<Side> {
    let (hear, tell) = UnixStream::pair()?;
    match fork()? {
        ForkResult::Parent { .. } => Ok(Side::Launcher(hear)),
        ForkResult::Child => {
            drop(hear);
            nix::unistd::setsid()?;
            Ok(Side::Monitor(tell))
        }
    }
}

fn fork() -> io::Result<ForkResult> {
    // SAFETY: this process has one thread, so that no lock is held by another that the child would not have.
    let forked = unsafe { nix::unistd::fork() };
    forked.map_err(io::Error::from)
}

/// Closes what the caller has left open beside the standard streams: a pipe that somebody reads to its end, say, would be open
/// for as long as the runtime lives. Before anything is opened here.
pub(crate) fn close_inherited() {
    if backend::close_from_3() {
        return;
    }
    // SAFETY: sysconf touches no memory of ours.
    let limit = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) };
    let limit = RawFd::try_from(limit).unwrap_or(1 << 16).clamp(256, 1 << 16);
    for number in 3..limit {
        // SAFETY: nothing in this process owns a descriptor yet but the standard streams.
        let _ = unsafe { libc::close(number) };
    }
}

/// Standard streams that lead nowhere.
pub(crate) fn silence(null: impl AsFd) -> io::Result<()> {
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

/// Where the handler writes to.
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// SIGTERM, SIGINT and SIGHUP, as something to wait for.
#[derive(Debug)]
pub(crate) struct Signals {
    hear: UnixStream,
    /// Kept open for the handler.
    _tell: UnixStream,
}

impl Signals {
    /// Catches them from now on. SIGHUP stays ignored if it is, as nohup(1) arranges; the others may be so by mistake: shells
    /// ignore SIGINT for what they start in the background.
    pub(crate) fn catch() -> io::Result<Signals> {
        let (hear, tell) = UnixStream::pair()?;
        hear.set_nonblocking(true)?;
        tell.set_nonblocking(true)?;
        WAKE.store(tell.as_raw_fd(), Ordering::SeqCst);
        let handler = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
        let mut caught = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            // SAFETY: the handler does nothing but what is async-signal-safe.
            let before = unsafe { nix::sys::signal::sigaction(signal, &handler) }?;
            if signal == Signal::SIGHUP && matches!(before.handler(), SigHandler::SigIgn) {
                // SAFETY: it is what the kernel has just named.
                unsafe { nix::sys::signal::sigaction(signal, &before) }?;
            }
            caught.add(signal);
        }
        nix::sys::signal::sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&caught), None)?;
        Ok(Signals { hear, _tell: tell })
    }

    /// Takes one that has come.
    pub(crate) fn take(&self) -> Option<i32> {
        let mut signal = [0];
        match (&self.hear).read(&mut signal) {
            Ok(1) => Some(i32::from(signal[0])),
            _ => None,
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.hear.as_fd()
    }
}

extern "C" fn note(signal: c_int) {
    let errno = Errno::last_raw();
    let number = WAKE.load(Ordering::SeqCst);
    let byte = signal as u8;
    // SAFETY: one byte is read of a live variable; the descriptor is open as long as the handler is installed.
    unsafe { libc::write(number, (&raw const byte).cast(), 1) };
    Errno::set_raw(errno);
}

/// Sleeps until one of them is readable, or for `timeout`.
pub(crate) fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let mut fds: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    // Rounded up: a poll that comes back a little early would be made again and again.
    let milliseconds = timeout.map(|timeout| (timeout + Duration::from_micros(999)).as_millis());
    let timeout = match milliseconds {
        None => PollTimeout::NONE,
        Some(milliseconds) => PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX),
    };
    match nix::poll::poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Where in the runtime file the child says that it goes on to its program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PhaseSlot<'a> {
    pub(crate) file: BorrowedFd<'a>,
    pub(crate) at: u64,
    pub(crate) word: [u8; 8],
}

/// Spawns a child that calls `known` here with its PID, while it waits, and that then, as the last thing before its program, writes
/// to the slot. If this process ends before it was told to go on, so does the child, without having written.
///
/// The program finds every signal as a login shell does: none ignored, none blocked.
pub(crate) fn spawn_announced(
    command: &mut Command,
    slot: PhaseSlot<'_>,
    known: impl FnOnce(Pid) + Send,
) -> io::Result<Child> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let (our_number, their_number) = (ours.as_raw_fd(), theirs.as_raw_fd());
    let (file, at, word) = (slot.file.as_raw_fd(), slot.at as libc::off_t, slot.word);
    let act = move || {
        default_signals();
        // The child's copy of our end would keep it waiting after our death.
        let _ = nix::unistd::close(our_number);
        ask_and_wait(their_number)?;
        // SAFETY: eight bytes are read of an array that lives in this closure; the file is open until the exec.
        let written = unsafe { libc::pwrite(file, word.as_ptr().cast(), word.len(), at) };
        match Errno::result(written) {
            Ok(8) => Ok(()),
            Ok(_) => Err(Errno::EIO.into()),
            Err(errno) => Err(errno.into()),
        }
    };
    // SAFETY: `act` makes system calls and touches its own memory, nothing else.
    unsafe { command.pre_exec(act) };
    std::thread::scope(|scope| {
        let announce = move || {
            let mut pid = [0; 4];
            // Without it, it was not forked, and spawn says why.
            if ours.read_exact(&mut pid).is_ok() {
                if let Some(pid) = Pid::new(u32::from_ne_bytes(pid)) {
                    known(pid);
                    let _ = ours.write_all(&[1]);
                }
            }
        };
        let announcing = std::thread::Builder::new().spawn_scoped(scope, announce)?;
        let spawned = command.spawn();
        // Whoever waits for a child that was not forked sees the end of the stream now.
        drop(theirs);
        announcing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        spawned
    })
}

/// In the child: std empties the mask and lets SIGPIPE kill; what is ignored stays so over an exec, and shells ignore SIGINT and SIGQUIT
/// for what they start in the background.
fn default_signals() {
    // Every number there can be; those that have no disposition are refused.
    for signal in 1..=64 {
        // SAFETY: installs no handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// In the child: says its PID, and waits for the word to go on.
fn ask_and_wait(socket: RawFd) -> Result<(), Errno> {
    let pid = std::process::id().to_ne_bytes();
    // SAFETY: the descriptor is open until this child executes its program.
    let socket = unsafe { BorrowedFd::borrow_raw(socket) };
    nix::unistd::write(socket, &pid)?;
    let mut word = [0; 1];
    loop {
        match nix::unistd::read(socket, &mut word) {
            Ok(0) => return Err(Errno::ECANCELED),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
