//! The kernel: the only home of `unsafe`, `libc` and `cfg(target_os)` in this crate.
//!
//! What every Unix has stands here. One backend is compiled in, which has the same face everywhere; what its system does not
//! have is an error that says so.

#[cfg(target_os = "linux")]
#[path = "linux/mod.rs"]
mod backend;

#[cfg(target_os = "macos")]
#[path = "macos/mod.rs"]
mod backend;

use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal};
use nix::sys::socket::{setsockopt, sockopt};

pub(crate) use libc::{EAGAIN, ENOSYS, EPERM, SIGCONT, SIGKILL, SIGSTOP, SIGUSR1};

pub(crate) use backend::{
    Pinned, become_subreaper, become_undumpable, become_user, clone_parent, deny, enter_pid_namespace,
    executable, fork_held, hear, in_namespaces, looks_ended, name_thread, own_tid, pin_speaker, pipe,
    spawn_chain, spawn_idle, spawn_idle_as, take, tell, thread_exit, unshare_mount, wait_zombie,
};

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fork {
    Child,
    Parent(i32),
}

/// Forks. The child of a process with threads may go on as usual only because glibc makes malloc safe in it: for the
/// scripted child, not for test processes.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: the scripted child holds no lock of its own over a fork, and the C library's survive it
    let forked = unsafe { nix::unistd::fork() }?;
    Ok(match forked {
        nix::unistd::ForkResult::Child => Fork::Child,
        nix::unistd::ForkResult::Parent { child } => Fork::Parent(child.as_raw()),
    })
}

/// Ends the process, all its threads, at once: no destructors, no flushing.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no precondition
    unsafe { libc::_exit(code) }
}

pub(crate) fn own_pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

pub(crate) fn parent_pid() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// Waits until `child` has ended (-1: any child) and reaps it.
pub(crate) fn reap(child: i32) -> io::Result<(i32, ExitStatus)> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a live i32
        let reaped = unsafe { libc::waitpid(child, &raw mut status, 0) };
        match Errno::result(reaped) {
            Ok(pid) => return Ok((pid, ExitStatus::from_raw(status))),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends a signal by bare PID: only for children that the caller has not reaped, and for itself.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill touches no memory
    Errno::result(unsafe { libc::kill(pid, signal) })?;
    Ok(())
}

/// Lets children that start from now on die of the signals of a terminal.
///
/// A test run in the background of a shell, or under nohup, inherits that they are ignored.
pub fn default_signals() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        let _ = default_disposition(signal);
    }
}

/// Makes a channel of facts, which are lines: the hearer's end and the speakers' end. When every copy of the latter is closed,
/// hearing ends.
pub(crate) fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let (hear, tell) = UnixStream::pair()?;
    // Hundreds of facts may wait until the test asks for them; as much as the kernel grants
    let _ = setsockopt(&tell, sockopt::SndBuf, &(1 << 20));
    Ok((hear.into(), tell.into()))
}

/// Blocks SIGUSR1 in the calling thread, and in all that it starts.
pub(crate) fn block_pokes() -> io::Result<()> {
    block(SIGUSR1)
}

/// Blocks a signal in the calling thread, and in all that it starts.
pub(crate) fn block(signal: i32) -> io::Result<()> {
    Ok(set_of(signal)?.thread_block()?)
}

/// Waits until this process has received SIGUSR1, or standard input has reached its end (then false).
pub(crate) fn wait_poke() -> io::Result<bool> {
    take(SIGUSR1)
}

fn set_of(signal: i32) -> io::Result<SigSet> {
    Ok(SigSet::from_iter([Signal::try_from(signal)?]))
}

/// Whether a sandbox may have said this instead of the kernel.
pub(crate) fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EPERM | ENOSYS))
}

/// Gives `signal` its default disposition.
pub(crate) fn default_disposition(signal: i32) -> io::Result<()> {
    // SAFETY: installs no handler
    let before = unsafe { libc::signal(signal, libc::SIG_DFL) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Unblocks `signal` in this thread; realtime signals too, which nix cannot name.
pub(crate) fn unblock(signal: i32) -> io::Result<()> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set it is given
    Errno::result(unsafe { libc::sigemptyset(set.as_mut_ptr()) })?;
    // SAFETY: the set is initialised
    Errno::result(unsafe { libc::sigaddset(set.as_mut_ptr(), signal) })?;
    // SAFETY: the set is initialised, and the old one is not asked for
    let outcome = unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut()) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(outcome)) }
}

/// What a command that we execute expects: nothing blocked, SIGPIPE fatal (Rust's runtime ignores it).
pub(crate) fn tidy_signals() -> io::Result<()> {
    SigSet::empty().thread_set_mask()?;
    let fatal = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: installs no handler
    unsafe { nix::sys::signal::sigaction(Signal::SIGPIPE, &fatal) }?;
    Ok(())
}

/// Replaces the image of this process; returns only the error.
pub(crate) fn exec(program: &str, words: &[&str]) -> io::Error {
    let c_string = |word: &&str| CString::new(*word).map_err(io::Error::other);
    let words: Result<Vec<CString>, _> = words.iter().map(c_string).collect();
    match (c_string(&program), words) {
        (Ok(program), Ok(words)) => match nix::unistd::execvp(&program, &words) {
            Ok(never) => match never {},
            Err(error) => error.into(),
        },
        (Err(error), _) | (_, Err(error)) => error,
    }
}

/// Waits until one of `fds` is ready for reading, has hung up or is broken; false when `timeout` passed before that.
pub(crate) fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<bool> {
    wait_for(fds, PollFlags::POLLIN, timeout)
}

fn wait_for(fds: &[BorrowedFd<'_>], what: PollFlags, timeout: Option<Duration>) -> io::Result<bool> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut fds: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, what)).collect();
    loop {
        let left = match deadline {
            None => PollTimeout::NONE,
            Some(deadline) => {
                // Rounded up: a poll that comes back a little early would spin
                let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
                PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX)
            }
        };
        match nix::poll::poll(&mut fds, left) {
            Ok(0) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Standard output, to be duplicated.
pub(crate) fn standard_output() -> BorrowedFd<'static> {
    standard(libc::STDOUT_FILENO)
}

/// Standard input or output, without the standard library's handle: that one is made under a lock, and a fork by one
/// thread while another makes it leaves the child a lock that nobody opens.
pub(crate) fn standard(fd: std::os::fd::RawFd) -> BorrowedFd<'static> {
    // SAFETY: nothing in this binary closes them
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Whether standard input has reached its end; waits for that, or for `other` to be readable, for `timeout`.
pub(crate) fn lifeline_ended(other: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> io::Result<bool> {
    let lifeline = standard(libc::STDIN_FILENO);
    let mut fds = vec![lifeline];
    fds.extend(other);
    loop {
        if !wait_readable(&fds, timeout)? {
            return Ok(false);
        }
        if wait_readable(&[lifeline], Some(Duration::ZERO))? {
            match nix::unistd::read(lifeline, &mut [0; 64]) {
                Ok(0) => return Ok(true),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
        }
        return Ok(false);
    }
}
