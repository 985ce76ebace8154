//! macOS. What a forked copy of a test process may run, in which other threads held locks when it was copied, stands in
//! `copy`.

mod copy;
mod facts;

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Fork, lifeline_ended, set_of, wait_readable};

pub(crate) use copy::{spawn_chain, spawn_idle, spawn_idle_as};
pub(crate) use facts::{hear, pin_speaker, tell};

/// A process, told from others by its number, and a kqueue that is readable once it has ended. Nothing here outlives a
/// reuse of the number; but PIDs are given all round, so that takes as many forks as there are PIDs.
#[derive(Debug)]
pub(crate) struct Pinned {
    pid: i32,
    end: Arc<OwnedFd>,
}

impl Pinned {
    /// Of a process that has ended, or of nobody, the kqueue is readable at once.
    pub(crate) fn open(pid: u32) -> io::Result<Pinned> {
        let queue = match Kqueue::new() {
            Err(Errno::EMFILE) => {
                raise_limit()?;
                Kqueue::new()
            }
            made => made,
        }?;
        let event = |ident, filter, flags, what| KEvent::new(ident, filter, flags, what, 0, 0);
        let end = event(pid as usize, EventFilter::EVFILT_PROC, EvFlags::EV_ADD, FilterFlag::NOTE_EXIT);
        match queue.kevent(&[end], &mut [], None) {
            // Zombies cannot be watched
            Err(Errno::ESRCH) => {
                let added = event(0, EventFilter::EVFILT_USER, EvFlags::EV_ADD, FilterFlag::empty());
                let told = event(0, EventFilter::EVFILT_USER, EvFlags::empty(), FilterFlag::NOTE_TRIGGER);
                queue.kevent(&[added, told], &mut [], None)?;
            }
            watched => {
                watched?;
            }
        }
        Ok(Pinned { pid: pid as i32, end: Arc::new(queue.into()) })
    }

    pub(crate) fn try_clone(&self) -> io::Result<Pinned> {
        Ok(Pinned { pid: self.pid, end: Arc::clone(&self.end) })
    }

    /// Between the look and the signal it may be reaped, and its number given to another; see above.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        let ended = self.wait_ended(Duration::ZERO)?;
        super::kill(self.pid, if ended { 0 } else { signal })
    }

    /// Waits until the process has ended (a zombie has); false when `timeout` passed before that.
    pub(crate) fn wait_ended(&self, timeout: Duration) -> io::Result<bool> {
        wait_readable(&[self.end.as_fd()], Some(timeout))
    }

    /// Waits until the process has been reaped; false when `timeout` passed before that.
    pub(crate) fn wait_reaped(&self, timeout: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + timeout;
        // No event tells of it; kill(2) finds zombies, and who is about to be one
        while !super::kill(self.pid, 0).is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH)) {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(true)
    }

    /// Reaps the process, which has ended, if it is a child of ours. The event comes before it is a zombie.
    pub(crate) fn try_reap(&self) -> bool {
        super::reap(self.pid).is_ok()
    }
}

impl AsFd for Pinned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

/// 256 descriptors are what a process may have unless it asks for more, up to this (`OPEN_MAX` of `sys/syslimits.h`).
fn raise_limit() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(10_240)), hard)?)
}

pub(crate) fn looks_ended(pid: u32) -> bool {
    Pinned::open(pid).is_ok_and(|process| process.wait_ended(Duration::ZERO).unwrap_or(false))
}

/// A pipe that no command inherits, unless another thread starts one between the two calls: see
/// [`alone`](crate::alone).
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe()?;
    for end in [&read, &write] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok((read, write))
}

/// The number of the calling thread; that of the process in its main thread.
pub(crate) fn own_tid() -> i32 {
    // SAFETY: no precondition
    if unsafe { libc::pthread_main_np() } != 0 {
        return super::own_pid();
    }
    let mut number = 0;
    // SAFETY: 0 is the calling thread, and `number` is a live u64
    unsafe { libc::pthread_threadid_np(0, &raw mut number) };
    (number & i32::MAX as u64) as i32
}

fn fork() -> io::Result<Fork> {
    // SAFETY: the callers make nothing but system calls in the child
    let pid = Errno::result(unsafe { libc::fork() })?;
    Ok(if pid == 0 { Fork::Child } else { Fork::Parent(pid) })
}

/// Waits until `child` has ended, and leaves it a zombie.
pub(crate) fn wait_zombie(child: i32) -> io::Result<()> {
    let mut told = MaybeUninit::<libc::siginfo_t>::uninit();
    let how = libc::WEXITED | libc::WNOWAIT;
    loop {
        // SAFETY: `told` has room for what the kernel writes, and is not read
        let ended = unsafe { libc::waitid(libc::P_PID, child.unsigned_abs(), told.as_mut_ptr(), how) };
        match Errno::result(ended) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Becomes user and group `id`, with no other groups.
pub(crate) fn become_user(id: u32) -> io::Result<()> {
    // SAFETY: one group, at the address of a live gid_t
    Errno::result(unsafe { libc::setgroups(1, &raw const id) })?;
    nix::unistd::setgid(id.into())?;
    Ok(nix::unistd::setuid(id.into())?)
}

/// Sets the name of the calling thread.
pub(crate) fn name_thread(name: &[u8]) -> io::Result<()> {
    let name = CString::new(name).map_err(io::Error::other)?;
    // SAFETY: a C string, which is copied
    match unsafe { libc::pthread_setname_np(name.as_ptr()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Waits until this process has received a signal that is blocked, or standard input has reached its end (then false).
pub(crate) fn take(signal: i32) -> io::Result<bool> {
    let wanted = set_of(signal)?;
    let (taken, tell) = pipe()?;
    // sigwait(2) waits for nothing else, so a thread does that. It writes because closing says nothing where a child that was
    // forked meanwhile has a copy.
    std::thread::Builder::new().spawn(move || {
        if wanted.wait().is_ok() {
            let _ = nix::unistd::write(&tell, b"!");
        }
    })?;
    Ok(!lifeline_ended(Some(taken.as_fd()), None)?)
}

/// Ends the calling thread; the process goes on while it has others, without its main thread too.
pub(crate) fn thread_exit() -> ! {
    // SAFETY: macOS unwinds nothing here, and nothing of the thread is joined
    unsafe { libc::pthread_exit(std::ptr::null_mut()) }
}

/// Paths under which this binary can be executed again.
pub(crate) fn executable() -> Vec<String> {
    let path = std::env::current_exe().ok();
    path.and_then(|path| path.into_os_string().into_string().ok()).into_iter().collect()
}

/// What only Linux has.
fn none<T>(what: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, format!("macOS has no {what}")))
}

pub(crate) fn clone_parent() -> io::Result<Fork> {
    none("call that starts a sibling")
}

pub(crate) fn fork_held(_announce: impl FnOnce() + Send + 'static) -> io::Result<Fork> {
    none("userfaultfd")
}

pub(crate) fn become_subreaper() -> io::Result<()> {
    none("child subreapers")
}

pub(crate) fn become_undumpable() -> io::Result<()> {
    none("dumpable flag")
}

pub(crate) fn enter_pid_namespace(_of: u32) -> io::Result<()> {
    none("PID namespaces")
}

pub(crate) fn unshare_mount() -> io::Result<()> {
    none("mount namespaces")
}

pub(crate) fn in_namespaces(
    _flags: &str,
    _options: &[String],
    _then: impl FnOnce() -> ExitCode,
) -> Result<ExitCode, String> {
    none::<Infallible>("namespaces").map_err(|error| error.to_string()).map(|never| match never {})
}

pub(crate) fn deny(_errno: &str, _calls: &str, _in_every_thread: bool) -> Result<(), String> {
    none("seccomp").map_err(|error| error.to_string())
}
