//! What POSIX has, alike on every system.

use std::io;
use std::thread::{Builder, JoinHandle};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::time::{ClockId, clock_gettime};

use crate::pid::Pid;
use crate::state::ExitStatus;

/// The number of a signal of signal(7), named without `SIG`.
pub(crate) fn signal_number(name: &str) -> Option<i32> {
    format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32)
}

/// Its name, with `SIG`.
pub(crate) fn signal_name(number: i32) -> Option<&'static str> {
    Signal::try_from(number).ok().map(Signal::as_str)
}

/// The session that a process is in, by the PID of its leader; `None` if it is not there, or its session began outside
/// our PID namespace, or we may not know.
///
/// # References
///
/// getsid(2)
#[inline]
pub(crate) fn session_of(pid: Pid) -> Option<Pid> {
    nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid.raw())))
        .ok()
        .and_then(|sid| Pid::from_raw(sid.as_raw()))
}

/// How many descriptors this process may have open.
pub(crate) fn open_files_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(256, |(soft, _)| soft)
}

/// Takes apart what waitpid(2) would have given.
pub(crate) fn from_wait(status: i32) -> ExitStatus {
    if libc::WIFEXITED(status) {
        ExitStatus::Code(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        ExitStatus::Signal(libc::WTERMSIG(status))
    } else {
        ExitStatus::Unknown
    }
}

/// Whether this is what a process gets that may open no more files.
pub(crate) fn is_fd_limit(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// CLOCK_MONOTONIC, in nanoseconds: the clock of the connector's notices.
pub(crate) fn monotonic() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

/// What a clock shows, in nanoseconds.
pub(super) fn nanoseconds(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// Starts a thread that takes no signals: they are for the threads of the program that uses us.
pub(crate) fn spawn_quiet(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), Some(&mut before))?;
    // It inherits the mask.
    let thread = Builder::new().name(name.to_owned()).stack_size(256 * 1024).spawn(body);
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    thread
}
