use std::borrow::Cow;
use std::fmt;
use std::io;

use crate::pid::Pid;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, about which process, and what to do about it.
///
/// One opaque type. Ask it with the `is_*` predicates; each is a promise that holds in no other situation. The
/// message is one line: what was tried, on which PID, why it failed, and what can be done.
///
/// # Example: ended is not an accident
///
/// ```
/// use pidigree::{Pid, Process};
///
/// match Process::open(Pid::new(2_147_483_647).unwrap()) {
///     Ok(process) => println!("{} runs", process.pid()),
///     Err(error) if error.is_gone() => println!("nothing to do: {error}"),
///     Err(error) => return Err(error),
/// }
/// # Ok::<(), pidigree::Error>(())
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    pid: Option<Pid>,
    /// What was tried: a verb and what it was done to, such as "open process". The PID follows.
    tried: &'static str,
    reason: Cow<'static, str>,
    source: Option<io::Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gone,
    Thread,
    Denied,
    Unsupported,
    Foreign,
    Limit,
    Unstable,
    Invalid,
    Routed,
    Io,
}

impl Error {
    /// Returns the PID that this error is about; `None` only where none was involved (a malformed token, say).
    pub fn pid(&self) -> Option<Pid> {
        self.0.pid
    }

    /// Returns whether the process has ended and been reaped, or its PID names another process now.
    pub fn is_gone(&self) -> bool {
        self.0.kind == Kind::Gone
    }

    /// Returns whether the number is a thread's and not a process's;
    /// [`Process::from_thread`](crate::Process::from_thread) opens the process that owns it.
    pub fn is_thread(&self) -> bool {
        self.0.kind == Kind::Thread
    }

    /// Returns whether the kernel, or a mount option such as hidepid, refuses this caller the answer. The process
    /// may well be alive.
    pub fn is_denied(&self) -> bool {
        self.0.kind == Kind::Denied
    }

    /// Returns whether this kernel or sandbox cannot answer, to anybody. [`capabilities`](crate::capabilities())
    /// says beforehand what it can.
    pub fn is_unsupported(&self) -> bool {
        self.0.kind == Kind::Unsupported
    }

    /// Returns whether the process belongs to another PID namespace or another boot, where its PID means nothing
    /// to us.
    pub fn is_foreign(&self) -> bool {
        self.0.kind == Kind::Foreign
    }

    /// Returns whether file descriptors, processes, epoll watches or kernel memory ran out. Nothing is said about the process.
    pub fn is_limit(&self) -> bool {
        self.0.kind == Kind::Limit
    }

    /// Returns whether the answer changed under every one of a bounded number of verified reads; asking again may
    /// work.
    pub fn is_unstable(&self) -> bool {
        self.0.kind == Kind::Unstable
    }

    /// Returns whether the input was wrong in itself: no PID, token or signal at all, or a `Child` that is no child of the
    /// calling process.
    pub fn is_invalid(&self) -> bool {
        self.0.kind == Kind::Invalid
    }

    /// Returns whether a [`Router`](crate::Router) has a route already for the very process that another one was to begin at.
    pub fn is_already_routed(&self) -> bool {
        self.0.kind == Kind::Routed
    }

    fn new(
        kind: Kind,
        pid: impl Into<Option<Pid>>,
        tried: &'static str,
        reason: impl Into<Cow<'static, str>>,
    ) -> Error {
        Error(Box::new(Inner { kind, pid: pid.into(), tried, reason: reason.into(), source: None }))
    }

    #[cold]
    pub(crate) fn gone(pid: Pid, tried: &'static str) -> Error {
        Error::new(Kind::Gone, pid, tried, "there is no such process (any more)")
    }

    #[cold]
    pub(crate) fn reused(pid: Pid, tried: &'static str) -> Error {
        Error::new(Kind::Gone, pid, tried, "it has ended, and its PID names another process now")
    }

    #[cold]
    pub(crate) fn thread(pid: Pid, tried: &'static str, owner: Option<Pid>) -> Error {
        let reason = match owner {
            Some(owner) => format!("{pid} is a thread of process {owner}; name that one"),
            None => format!("{pid} is a thread, not a process; name the process that owns it"),
        };
        Error::new(Kind::Thread, pid, tried, reason)
    }

    #[cold]
    pub(crate) fn denied(pid: impl Into<Option<Pid>>, tried: &'static str, reason: &'static str) -> Error {
        Error::new(Kind::Denied, pid, tried, reason)
    }

    #[cold]
    pub(crate) fn unsupported(
        pid: impl Into<Option<Pid>>,
        tried: &'static str,
        reason: &'static str,
    ) -> Error {
        Error::new(Kind::Unsupported, pid, tried, reason)
    }

    #[cold]
    pub(crate) fn foreign(pid: impl Into<Option<Pid>>, tried: &'static str, reason: &'static str) -> Error {
        Error::new(Kind::Foreign, pid, tried, reason)
    }

    #[cold]
    pub(crate) fn unstable(pid: Pid, tried: &'static str) -> Error {
        Error::new(
            Kind::Unstable,
            pid,
            tried,
            "the processes above it ended faster than they could be verified; try again",
        )
    }

    #[cold]
    pub(crate) fn already_routed(pid: Pid) -> Error {
        let reason = "this process has a route; remove that one first";
        Error::new(Kind::Routed, pid, "route process", reason)
    }

    /// Nothing proves of which trees a process is a member.
    #[cold]
    pub(crate) fn in_doubt(pid: Pid, tried: &'static str, reason: &'static str) -> Error {
        Error::new(Kind::Unstable, pid, tried, reason)
    }

    #[cold]
    pub(crate) fn not_a_pid(text: &str) -> Error {
        let shown: String = text.chars().take(40).collect();
        Error::invalid(format!("{shown:?} is not a process ID: expected a number from 1 to {}", i32::MAX))
    }

    #[cold]
    pub(crate) fn no_child(pid: Pid) -> Error {
        let reason = "it is no child of this process: the child was waited for and its PID reused, or another process's";
        Error::new(Kind::Invalid, pid, "open child process", reason)
    }

    #[cold]
    pub(crate) fn invalid(reason: String) -> Error {
        Error::new(Kind::Invalid, None, "", reason)
    }

    /// The same error, for another one who waits for it.
    pub(crate) fn again(&self) -> Error {
        let Inner { kind, pid, tried, reason, source } = &*self.0;
        let source = source.as_ref().map(|source| match source.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(source.kind(), source.to_string()),
        });
        Error(Box::new(Inner { kind: *kind, pid: *pid, tried, reason: reason.clone(), source }))
    }

    /// Something that the kernel said and that we cannot make sense of.
    #[cold]
    pub(crate) fn malformed(pid: impl Into<Option<Pid>>, tried: &'static str, what: &'static str) -> Error {
        Error::new(Kind::Io, pid, tried, what)
    }

    /// Sorts what a system call said. ESRCH and ENOENT are the caller's to judge: whether they mean "gone" depends
    /// on the call.
    #[cold]
    pub(crate) fn os(pid: impl Into<Option<Pid>>, tried: &'static str, source: io::Error) -> Error {
        use io::ErrorKind;
        let (kind, reason) = match source.kind() {
            ErrorKind::PermissionDenied => (Kind::Denied, "the kernel denies it to this user"),
            ErrorKind::Unsupported => (Kind::Unsupported, "this kernel or sandbox does not offer the call"),
            ErrorKind::OutOfMemory => (Kind::Limit, "the kernel is out of memory"),
            // fork(2), pthread_create(3), and mkdir(2) of a cgroup (cgroup.max.descendants).
            ErrorKind::WouldBlock => (
                Kind::Limit,
                "no more processes, threads or cgroups are allowed; raise the limit (ulimit -u, pids.max, cgroup.max.*)",
            ),
            ErrorKind::StorageFull => {
                (Kind::Limit, "this user's epoll watches are used up; raise fs.epoll.max_user_watches")
            }
            _ if crate::sys::is_fd_limit(&source) => (
                Kind::Limit,
                "file descriptors are used up; raise the limit (ulimit -n) or hold fewer processes",
            ),
            _ => (Kind::Io, "the system call failed"),
        };
        let mut error = Error::new(kind, pid, tried, reason);
        error.0.source = Some(source);
        error
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { pid, tried, reason, source, .. } = &*self.0;
        match (tried.is_empty(), pid) {
            (true, _) => {}
            (false, Some(pid)) => write!(f, "cannot {tried} {pid}: ")?,
            (false, None) => write!(f, "cannot {tried}: ")?,
        }
        f.write_str(reason)?;
        match source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("pid", &self.0.pid.map(Pid::get))
            .field("message", &self.to_string())
            .finish()
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    /// Keeps the message and gives the nearest [`io::ErrorKind`].
    fn from(error: Error) -> io::Error {
        let kind = match error.0.kind {
            Kind::Gone => io::ErrorKind::NotFound,
            Kind::Thread | Kind::Invalid => io::ErrorKind::InvalidInput,
            Kind::Denied => io::ErrorKind::PermissionDenied,
            Kind::Unsupported => io::ErrorKind::Unsupported,
            Kind::Routed => io::ErrorKind::AlreadyExists,
            Kind::Foreign | Kind::Limit | Kind::Unstable | Kind::Io => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
