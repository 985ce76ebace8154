//! What a successor needs to go on with a tree.

use std::path::PathBuf;

use crate::identity::Identity;
use crate::state::ExitStatus;
use crate::tree::builder::Backend;
use crate::tree::evidence::Proof;
use crate::tree::lineage::Saved;

/// A tree as [`Tree::save`](crate::Tree::save) wrote it down, for [`Tree::adopt`](crate::Tree::adopt).
///
/// A plain value, good in this boot and PID namespace. With feature `serde` it can be kept in any format, a few hundred
/// bytes and some for each member and each ancestor of the root; the fields are not for others to rely on.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TreeState {
    pub(super) lineage: Saved,
    pub(super) root: Identity,
    pub(super) root_status: Option<ExitStatus>,
    /// The ancestors of the root when it began.
    #[cfg_attr(feature = "serde", serde(default))]
    pub(super) above: Vec<Identity>,
    /// How many members were seen so far.
    pub(super) members: u64,
    pub(super) evidence: Vec<Proof>,
    pub(super) kept: Kept,
}

/// What outlives the process that follows the tree.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) enum Kept {
    Cgroup {
        path: PathBuf,
        id: u64,
    },
    ProcConnector,
    Kqueue,
    /// The helper.
    Subreaper(Identity),
    Poll,
}

impl TreeState {
    /// Returns the root.
    pub fn root(&self) -> &Identity {
        &self.root
    }

    /// Returns by what means the tree was followed, and will be.
    pub fn backend(&self) -> Backend {
        self.kept.backend()
    }
}

impl Kept {
    pub(super) fn backend(&self) -> Backend {
        match self {
            Kept::Cgroup { .. } => Backend::Cgroup,
            Kept::ProcConnector => Backend::ProcConnector,
            Kept::Kqueue => Backend::Kqueue,
            Kept::Subreaper(_) => Backend::Subreaper,
            Kept::Poll => Backend::Poll,
        }
    }
}
