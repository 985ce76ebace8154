//! A process of its own for the service.
#![expect(unsafe_code, reason = "fork and sigaction")]

use std::io;
use std::os::fd::RawFd;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use nix::unistd::{ForkResult, Pid};

/// As fork(2) returns: twice.
#[derive(Clone, Copy, Debug)]
pub(in crate::service) enum Fork {
    /// In the process that called it; this is its child, to be reaped by whoever got this.
    Parent(Pid),
    /// In the new one.
    Child,
}

/// Forks. The caller has no other threads: it is the command line's, which has started none.
pub(in crate::service) fn fork() -> io::Result<Fork> {
    // SAFETY: this process has one thread, so that no lock is held by another
    let forked = unsafe { nix::unistd::fork() }?;
    Ok(match forked {
        ForkResult::Parent { child } => Fork::Parent(child),
        ForkResult::Child => Fork::Child,
    })
}

/// Closes everything but the three standard descriptors: whoever waits for one of the others to be closed would wait for the
/// end of the service.
pub(in crate::service) fn close_inherited() {
    // There is no telling which are open but by trying; the hard limit can be a billion
    let highest = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft.min(1 << 16));
    for fd in 3..highest as RawFd {
        // Nothing in this process owns a descriptor yet, beyond the standard ones
        let _ = nix::unistd::close(fd);
    }
}

/// Ends this process by a signal, as if it had never been handled: whoever waits for it is told which one it was.
pub(in crate::service) fn die_of(signal: i32) -> io::Result<()> {
    let signal = Signal::try_from(signal)?;
    let fatal = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: installs no handler
    unsafe { sigaction(signal, &fatal) }?;
    raise(signal)?;
    Ok(())
}
