//! How a tree is to be followed.

use std::fmt;
use std::process::Command;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::process::Process;
use crate::sys::Connector;
use crate::tree::child::TreeChild;
use crate::tree::{Tree, TreeState, begin};

/// By what means a tree is followed.
///
/// | backend | how | needs |
/// | --- | --- | --- |
/// | `Cgroup` | the root is put into a fresh cgroup before it runs; the kernel says when that is empty | a cgroup v2 directory that we may write |
/// | `ProcConnector` | the kernel tells of every fork, exec and end | the first PID, user and network namespaces; Linux 6.6 or CAP_NET_ADMIN |
/// | `Subreaper` | a helper process of ours spawns the root and adopts every orphan | nothing |
/// | `Kqueue` | macOS tells that a member has forked, and the process table shows whom | macOS |
/// | `Poll` | reads the process table, and believes it only if nothing was forked meanwhile | `/proc` |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Backend {
    /// The strongest that works here. To spawn: a cgroup; the connector, if the kernel filters it for us; the subreaper;
    /// the connector; polling. To attach: the connector; polling. On macOS: a kqueue.
    #[default]
    Auto,
    /// A cgroup of its own. Spawned trees only.
    Cgroup,
    /// The kernel's process connector, a netlink socket that all trees of this process share.
    ProcConnector,
    /// A helper process between us and the root. Spawned trees only.
    Subreaper,
    /// macOS's kqueue, with one look at the process table for each fork that it tells of: no more than
    /// [best effort](crate::Promise::BestEffort), because whoever comes and goes between two looks hides what it has started.
    Kqueue,
    /// Scans. A root that it spawns, and so all that that starts, has a variable `PIDIGREE_TREE_…` in its environment, by
    /// which orphans are known.
    Poll,
}

/// What makes a process a member of an attached tree even when nothing else shows that it descends from the root, because
/// its parent had ended before the tree was attached.
///
/// Trusted as given: a process that carries it *is* a member.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// It is in the session of the root (setsid(2)).
    Session,
    /// It is in the mount namespace of the root (mount_namespaces(7)).
    MountNamespace,
    /// It was started with this variable in its environment, set to this value.
    Environment(String, String),
}

/// What becomes of a tree when the process that follows it ends before it does. To drop the [`Tree`] is not that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnTrackerDeath {
    /// It goes on; a successor can [`adopt`](Tree::adopt) it.
    #[default]
    Leave,
    /// All of it is killed. Takes the helper of [`Backend::Subreaper`], which survives us.
    Kill,
}

/// Configures how a [`Tree`] is followed; see [`Tree::builder`].
///
/// # Example: which backend it became, and what that promises
///
/// ```
/// use std::process::Command;
/// use pidigree::{Backend, Tree};
///
/// let builder = Tree::builder().backend(Backend::Subreaper);
/// let (tree, mut child) = builder.spawn(&mut Command::new("true"))?;
/// println!("{}", tree.coverage());
/// tree.wait_empty(None)?;
/// assert!(child.wait()?.success());
/// # Ok::<(), pidigree::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TreeBuilder {
    pub(super) backend: Backend,
    pub(super) exclude: Vec<Process>,
    pub(super) evidence: Vec<Evidence>,
    pub(super) on_tracker_death: OnTrackerDeath,
    pub(super) every_member: bool,
    pub(super) event_buffer: Option<usize>,
}

impl TreeBuilder {
    /// Chooses the backend; otherwise [`Backend::Auto`].
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> TreeBuilder {
        self.backend = backend;
        self
    }

    /// Leaves a process out of the tree, and everything that it starts: a file-system daemon, say, that was started from
    /// within. May be called more than once. The process that follows the tree is always left out.
    #[must_use]
    pub fn exclude(mut self, process: &Process) -> TreeBuilder {
        self.exclude.push(process.clone());
        self
    }

    /// Accepts this as proof of membership, too. May be called more than once: any will do.
    #[must_use]
    pub fn evidence(mut self, evidence: Evidence) -> TreeBuilder {
        self.evidence.push(evidence);
        self
    }

    /// Says what becomes of the tree when this process ends first.
    #[must_use]
    pub fn on_tracker_death(mut self, then: OnTrackerDeath) -> TreeBuilder {
        self.on_tracker_death = then;
        self
    }

    /// Follows every member's coming and going even where that takes a wake-up for each fork on the machine: without
    /// CAP_BPF, the kernel does not filter for us. By default, backends that do not need those events do without them there.
    #[must_use]
    pub fn every_member(mut self, every: bool) -> TreeBuilder {
        self.every_member = every;
        self
    }

    /// Sets how many bytes of the kernel's events may wait for us, if this tree is the first of the process to use the
    /// connector; otherwise 8 MiB, or what the kernel allows. When they do not suffice the tree is
    /// [resynchronised](crate::TreeEvent::Resynced).
    #[must_use]
    pub fn event_buffer(mut self, bytes: usize) -> TreeBuilder {
        self.event_buffer = Some(bytes);
        self
    }

    /// As [`Tree::spawn`], configured so.
    ///
    /// # Errors
    ///
    /// [`is_unsupported`](Error::is_unsupported) or [`is_denied`](Error::is_denied), with the reason, if the backend
    /// that was asked for does not work here; nothing has been spawned then. Otherwise those of [`Tree::spawn`].
    pub fn spawn(&self, command: &mut Command) -> Result<(Tree, TreeChild)> {
        begin::spawn(self, command)
    }

    /// As [`Tree::attach`], configured so.
    ///
    /// # Errors
    ///
    /// [`is_unsupported`](Error::is_unsupported) for backends that only spawn. Otherwise those of [`Tree::attach`].
    pub fn attach(&self, root: &Process) -> Result<Tree> {
        begin::attach(self, root)
    }

    /// As [`Tree::adopt`]; of what is configured only the exclusions count, in addition to those that the tree was saved
    /// with. Daemons that were started while nobody followed it, say, which would hold back emptiness until their end.
    /// One that was a member when the tree was saved stays one; and a cgroup or a subreaper leaves nobody out.
    ///
    /// # Errors
    ///
    /// Those of [`Tree::adopt`].
    pub fn adopt(&self, state: &TreeState) -> Result<Tree> {
        begin::adopt(self, state)
    }
}

impl Backend {
    /// All that can be asked for by name.
    pub const ALL: [Backend; 6] = [
        Backend::Auto,
        Backend::Cgroup,
        Backend::ProcConnector,
        Backend::Subreaper,
        Backend::Kqueue,
        Backend::Poll,
    ];

    /// Returns its name: `auto`, `cgroup`, `proc-connector`, `subreaper`, `kqueue`, `poll`.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Auto => "auto",
            Backend::Cgroup => "cgroup",
            Backend::ProcConnector => "proc-connector",
            Backend::Subreaper => "subreaper",
            Backend::Kqueue => "kqueue",
            Backend::Poll => "poll",
        }
    }
}

/// What the connector of this system is.
pub(super) const CONNECTOR: Backend =
    if Connector::IS_KQUEUE { Backend::Kqueue } else { Backend::ProcConnector };

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Backend {
    type Err = Error;

    /// Reads a name as [`Backend::name`] gives it.
    fn from_str(text: &str) -> Result<Backend> {
        Backend::ALL.into_iter().find(|backend| backend.name() == text).ok_or_else(|| {
            let names = Backend::ALL.map(Backend::name).join(", ");
            Error::invalid(format!("{text:?} is not a backend: expected one of {names}"))
        })
    }
}
