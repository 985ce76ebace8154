use std::collections::HashSet;
use std::os::fd::AsFd;
use std::process::Child;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::ancestry::{self, RETRIES};
use crate::error::{Error, Result};
use crate::identity::{Identity, Sameness};
use crate::pid::Pid;
use crate::signal::Signal;
use crate::state::{ExitStatus, State};
use crate::sys;

/// One process, pinned: whatever is asked of it is answered for that process or with
/// [`is_gone`](Error::is_gone), and never for another that got its PID.
///
/// Holds one file descriptor, shared by clones: a pidfd, or `/proc/PID` where the kernel or sandbox offers no pidfds.
/// `Send` and `Sync`. Dropping it does nothing to the process.
///
/// # Example: wait for a process that is not our child
///
/// ```
/// use pidigree::{ExitStatus, Process};
///
/// let mut child = std::process::Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
/// let process = Process::from_child(&child)?;
/// assert_eq!(process.wait(None)?, Some(ExitStatus::Code(3)));
/// child.wait().unwrap(); // still ours to reap: pidigree never reaps
/// # Ok::<(), pidigree::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Process {
    pub(crate) handle: Arc<sys::Handle>,
    /// Read when first asked for; the parts that tell processes apart do not change and cannot be missed.
    pub(crate) identity: OnceLock<Identity>,
}

impl Process {
    /// Pins the process that has this PID now.
    ///
    /// # Errors
    ///
    /// [`is_gone`](Error::is_gone) if there is none, [`is_thread`](Error::is_thread) if the number is a thread's,
    /// [`is_denied`](Error::is_denied) if hidepid hides it and there are no pidfds, [`is_limit`](Error::is_limit) if no
    /// descriptor is free.
    ///
    /// # Races
    ///
    /// From here on there are none. Before, the PID was only a number: see [`from_child`](Process::from_child) and
    /// [`reopen`](Process::reopen) for openings that know which process they mean.
    ///
    /// # References
    ///
    /// pidfd_open(2)
    pub fn open(pid: Pid) -> Result<Process> {
        sys::Handle::open(pid).map(Process::from_handle)
    }

    /// Pins the calling process.
    pub fn current() -> Result<Process> {
        Process::open(Pid::current())
    }

    /// Pins a child of the calling process.
    ///
    /// # Errors
    ///
    /// [`is_gone`](Error::is_gone) if the child has been waited for; [`is_invalid`](Error::is_invalid) if whoever has its
    /// PID now is no child of the calling process.
    ///
    /// # Races
    ///
    /// None while nobody has waited for the child: an unreaped child keeps its PID. Of a child that *was* waited for,
    /// the PID may have gone to another child of this process, which `Child` does not let us tell apart.
    pub fn from_child(child: &Child) -> Result<Process> {
        let pid = Pid::try_from(child.id())?;
        let process = match Process::open(pid) {
            Err(error) if error.is_thread() => return Err(Error::reused(pid, "open child process")),
            opened => opened?,
        };
        if process.handle.ppid()? != Some(Pid::current()) {
            return Err(Error::no_child(pid));
        }
        Ok(process)
    }

    /// Pins the process that owns a thread. FUSE, for one, names its callers by thread id.
    ///
    /// A process's own PID is the thread id of its first thread, and gives that process. On macOS threads have no numbers of
    /// that kind, and every number is taken for a process's.
    ///
    /// # Errors
    ///
    /// [`is_gone`](Error::is_gone) if there is no such thread.
    pub fn from_thread(tid: Pid) -> Result<Process> {
        sys::process_of_thread(tid).map(Process::from_handle)
    }

    /// Pins the process at the other end of a connected Unix socket: the one that called connect(2), listen(2) or
    /// socketpair(2), whoever uses the socket now.
    ///
    /// # Errors
    ///
    /// [`is_gone`](Error::is_gone) if it has ended; [`is_foreign`](Error::is_foreign) if its PID namespace is not
    /// visible from ours; [`is_unsupported`](Error::is_unsupported) before Linux 6.5, where the kernel only remembers a
    /// number that may be a stranger's by now.
    ///
    /// # Races
    ///
    /// None on Linux. macOS remembers the PID of whoever used the other end last, and the UUID of its executable. It is
    /// unsupported if another executable has that PID; another process that runs the same one cannot be told from it.
    ///
    /// # References
    ///
    /// SO_PEERPIDFD in unix(7); LOCAL_PEERPID, LOCAL_PEERUUID in sys/un.h of macOS
    pub fn from_peer(socket: impl AsFd) -> Result<Process> {
        sys::process_of_peer(socket.as_fd()).map(Process::from_handle)
    }

    /// Pins the very process that an identity was recorded of.
    ///
    /// # Errors
    ///
    /// [`is_gone`](Error::is_gone) if it has ended, whoever has its PID now; [`is_foreign`](Error::is_foreign) for an
    /// identity of another PID namespace, where the PID means nothing, or of another boot;
    /// [`is_unsupported`](Error::is_unsupported) if a process with this PID lives and nothing can prove that it is the
    /// one (see [`Identity::same_process`]), or if its PID namespace is unknown, for want of a `/proc` here or there.
    pub fn reopen(identity: &Identity) -> Result<Process> {
        const TRIED: &str = "reopen process";
        let pid = identity.pid;
        let world = sys::world()?;
        if known_to_differ(identity.boot, world.boot) {
            return Err(Error::foreign(
                pid,
                TRIED,
                "it was recorded in another boot, of which nothing runs here",
            ));
        }
        if known_to_differ(identity.pid_namespace, world.pid_namespace) {
            return Err(Error::foreign(
                pid,
                TRIED,
                "it was recorded in another PID namespace; ask from in there",
            ));
        }
        let reopened = Process::reopen_here(identity);
        let same_world = identity.pid_namespace.is_some() && world.pid_namespace.is_some();
        reopened.map_err(|error| {
            if same_world || !error.is_gone() {
                error
            } else {
                Error::unsupported(
                    pid,
                    TRIED,
                    "without /proc, here or where it was recorded, its PID namespace is unknown",
                )
            }
        })
    }

    /// In this boot and PID namespace.
    fn reopen_here(identity: &Identity) -> Result<Process> {
        const TRIED: &str = "reopen process";
        let pid = identity.pid;
        let process = match Process::open(pid) {
            Ok(process) => process,
            Err(error) if error.is_thread() => return Err(Error::reused(pid, TRIED)),
            Err(error) => return Err(error),
        };
        match process.identity().same_process(identity) {
            Sameness::Same => Ok(process),
            Sameness::Different => Err(Error::reused(pid, TRIED)),
            Sameness::Unknown => Err(Error::unsupported(
                pid,
                TRIED,
                "a process with this PID runs, and what was recorded cannot prove that it is the same one",
            )),
        }
    }

    fn from_handle(handle: sys::Handle) -> Process {
        Process { handle: Arc::new(handle), identity: OnceLock::new() }
    }

    /// Returns the PID. It is valid for other interfaces while this process has not been reaped.
    pub fn pid(&self) -> Pid {
        self.handle.pid()
    }

    /// Returns which process this is.
    ///
    /// # Cost
    ///
    /// The first call reads what was not needed before (fstat, and `/proc/PID/stat` for the start time); later ones
    /// nothing. Asked only after the process was reaped, the identity may lack the start time, not the unique id.
    pub fn identity(&self) -> &Identity {
        if self.identity.get().is_none() {
            // Not within `get_or_init`: a fork by another thread meanwhile would leave the child waiting for ever.
            let _ = self.identity.set(self.handle.identity(true));
        }
        self.identity.get_or_init(|| self.handle.identity(true))
    }

    /// Returns whether it runs, is a zombie, or is gone.
    ///
    /// # Cost
    ///
    /// One poll(2) while it runs.
    pub fn state(&self) -> Result<State> {
        self.handle.state()
    }

    /// Returns whether it is a thread of the kernel's own, which executes no program, takes no signals and never ends: nothing to
    /// be waited for, killed, or followed as the root of a tree. Linux shows them among the processes, in the first PID namespace.
    ///
    /// # Errors
    ///
    /// [`is_gone`](Error::is_gone) if it has been reaped; those of reading `/proc/PID/stat`, which hidepid can hide.
    ///
    /// # References
    ///
    /// proc_pid_stat(5), flags
    pub fn is_kernel_thread(&self) -> Result<bool> {
        self.handle.is_kernel_thread()
    }

    /// Returns the parent, pinned and verified; `None` at the top of what can be seen from here.
    ///
    /// # Errors
    ///
    /// [`is_gone`](Error::is_gone) if *this* process has been reaped; [`is_unstable`](Error::is_unstable) if 16 parents
    /// ended, one after the other, while they were being pinned.
    pub fn parent(&self) -> Result<Option<Process>> {
        for _ in 0..RETRIES {
            let Some(ppid) = self.handle.ppid()? else {
                return Ok(None);
            };
            match Process::open(ppid) {
                Ok(parent) if self.handle.ppid()? == Some(ppid) => return Ok(Some(parent)),
                Ok(_) => {}
                Err(error) if error.is_gone() || error.is_thread() => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::unstable(self.pid(), "pin the parent of process"))
    }

    /// Iterates over the ancestors, nearest first, each pinned and verified as the parent of the one before.
    ///
    /// Ends after an error. An ancestor that is reaped before its own parent was read is such an error
    /// ([`is_gone`](Error::is_gone), with its PID): who adopted its children is for the caller to ask anew.
    pub fn ancestors(&self) -> Ancestors {
        Ancestors { next: Some(self.clone()) }
    }

    /// Returns whether this process descends from `root`; a process does not descend from itself.
    ///
    /// What counts, and what is not seen, is as for [`is_descendant`](crate::is_descendant); but here both ends are
    /// pinned, so the answer is about these two processes.
    ///
    /// # Errors
    ///
    /// [`is_gone`](Error::is_gone) if either has been reaped, with its PID.
    pub fn is_descendant_of(&self, root: &Process) -> Result<bool> {
        let answer = ancestry::is_descendant(self.pid(), root.pid());
        // Unreaped after the walk, both had their PIDs all through it.
        for process in [self, root] {
            if process.handle.is_reaped()? {
                return Err(Error::gone(process.pid(), "walk the ancestry of process"));
            }
        }
        answer
    }

    /// Returns the children, pinned and verified.
    ///
    /// Every process that is its child throughout the call is among them.
    ///
    /// # Errors
    ///
    /// [`is_gone`](Error::is_gone) if this process has been reaped.
    ///
    /// # Cost
    ///
    /// Follows the number of threads and children, not the processes of the machine, unless the lists change during
    /// each of four readings or the kernel was built without them (CONFIG_PROC_CHILDREN): then one scan of all.
    ///
    /// # References
    ///
    /// proc_tid_children(5)
    pub fn children(&self) -> Result<Vec<Process>> {
        let listed = self.listed_children()?;
        let mut children = Vec::with_capacity(listed.len());
        for pid in listed {
            children.extend(self.open_child(pid)?);
        }
        self.must_not_be_reaped()?;
        Ok(children)
    }

    /// Those that are listed as children, each to be pinned by [`child`](Process::child) when its turn comes: there can be more than
    /// there are descriptors.
    pub(crate) fn listed_children(&self) -> Result<Vec<Pid>> {
        sys::children_of(&self.handle)
    }

    /// The child that has this PID, pinned and verified; `None` if it is none (any more).
    pub(crate) fn child(&self, pid: Pid) -> Result<Option<Process>> {
        let child = self.open_child(pid)?;
        self.must_not_be_reaped()?;
        Ok(child)
    }

    /// Verified if this process is not reaped after that: then it had its PID when the child named it.
    fn open_child(&self, pid: Pid) -> Result<Option<Process>> {
        match Process::open(pid).and_then(|child| child.handle.ppid().map(|ppid| (child, ppid))) {
            Ok((child, ppid)) => Ok((ppid == Some(self.pid())).then_some(child)),
            Err(error) if error.is_gone() || error.is_thread() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn must_not_be_reaped(&self) -> Result<()> {
        if self.handle.is_reaped()? {
            return Err(Error::gone(self.pid(), "list the children of process"));
        }
        Ok(())
    }

    /// Returns the children, their children, and so on, pinned and verified; parents before their children.
    ///
    /// # Errors
    ///
    /// [`is_gone`](Error::is_gone) if this process has been reaped.
    ///
    /// # Races
    ///
    /// The family may change while it is walked. Every list of children is read again after the walk, and if one has
    /// changed the walk is done again, four times at most. A process whose parent ended during the last walk may still be
    /// missing. A tree that watches from the start misses nobody.
    ///
    /// # Cost
    ///
    /// Follows the size of the family, not of the machine (see [`children`](Process::children)).
    pub fn descendants(&self) -> Result<Vec<Process>> {
        for _ in 0..4 {
            let (family, complete) = self.family()?;
            if complete {
                return Ok(family);
            }
        }
        self.family().map(|(family, _)| family)
    }

    /// One walk of the family, and whether all of it held still.
    fn family(&self) -> Result<(Vec<Process>, bool)> {
        let mut family = Vec::new();
        let mut listed = Vec::new();
        let mut parent = Some(self.clone());
        while let Some(process) = parent {
            match process.children() {
                Ok(children) => {
                    listed.push(children.iter().map(Process::pid).collect::<Vec<_>>());
                    family.extend(children);
                }
                Err(error) if error.is_gone() && process.pid() != self.pid() => {
                    return Ok((distinct(family), false));
                }
                Err(error) => return Err(error),
            }
            parent = family.get(listed.len() - 1).cloned();
        }
        // A parent that ended meanwhile gave its children to one above it, whose children had been listed already: then
        // that list is longer now.
        for (process, before) in std::iter::once(self).chain(&family).zip(&listed) {
            match sys::children_of(&process.handle) {
                Ok(now) if now == *before => {}
                Ok(_) => return Ok((distinct(family), false)),
                Err(error) if error.is_gone() && process.pid() != self.pid() => {
                    return Ok((distinct(family), false));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((family, true))
    }

    /// Waits for the end of the process, all its threads included, and returns how it ended; `None` if the time was up
    /// before. A zombie has ended. Works for any process, not only children, and reaps nothing.
    ///
    /// `timeout`: `None` waits for ever, zero only looks.
    ///
    /// # Errors
    ///
    /// Not for a process that is gone: that is an answer, with [`ExitStatus::Unknown`] where nobody kept the status.
    ///
    /// # Cost
    ///
    /// One poll(2) on the pidfd. Where there are no pidfds there is no event either: then it looks every 1 to 20 ms. On macOS
    /// a kqueue of its own.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<ExitStatus>> {
        if self.handle.wait(timeout)? { Ok(Some(self.handle.exit_status())) } else { Ok(None) }
    }

    /// Sends a signal to this process; never to another, whoever has its PID (on macOS: see Races).
    ///
    /// # Errors
    ///
    /// [`is_gone`](Error::is_gone) if it has been reaped (a zombie takes signals and ignores them),
    /// [`is_denied`](Error::is_denied) as kill(2), [`is_unsupported`](Error::is_unsupported) where there is no
    /// pidfd_send_signal (before Linux 5.1, or a sandbox): the crate does not fall back to kill(2), which could reach a
    /// stranger.
    ///
    /// # Races
    ///
    /// None on Linux. On macOS there is only kill(2), right after a look at who has the PID. In the microseconds between, this
    /// process would have to end, be reaped, and its PID be given again, after all others.
    ///
    /// # References
    ///
    /// pidfd_send_signal(2), kill(2)
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.handle.signal(signal.number())
    }
}

fn known_to_differ<T: PartialEq>(recorded: Option<T>, here: Option<T>) -> bool {
    recorded.is_some() && here.is_some() && recorded != here
}

/// A process that changed hands during a walk was met twice.
fn distinct(mut family: Vec<Process>) -> Vec<Process> {
    let mut seen = HashSet::new();
    family.retain(|process| seen.insert(process.pid()));
    family
}

/// The ancestors of a process, nearest first; see [`Process::ancestors`].
#[derive(Debug)]
pub struct Ancestors {
    next: Option<Process>,
}

impl Iterator for Ancestors {
    type Item = Result<Process>;

    fn next(&mut self) -> Option<Result<Process>> {
        let parent = self.next.take()?.parent().transpose()?;
        self.next = parent.as_ref().ok().cloned();
        Some(parent)
    }
}

impl std::iter::FusedIterator for Ancestors {}
