//! What proves membership where the parent chain is broken.

use crate::error::Result;
use crate::pid::Pid;
use crate::process::Process;
use crate::state::State;
use crate::sys;
use crate::tree::builder::Evidence;
use crate::tree::follow::Follow;

/// [`Evidence`], as it stood with the root when the tree was attached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) enum Proof {
    Session(Pid),
    MountNamespace(u64),
    Environment(String, String),
}

impl Proof {
    /// What the root has of it; an error if that cannot be read.
    pub(super) fn of(evidence: &Evidence, root: &Process) -> Result<Option<Proof>> {
        Ok(match evidence {
            Evidence::Session => sys::session_of(root.pid()).map(Proof::Session),
            Evidence::MountNamespace => Some(Proof::MountNamespace(root.handle.mount_namespace()?)),
            Evidence::Environment(name, value) => Some(Proof::Environment(name.clone(), value.clone())),
        })
    }

    /// An error if it cannot be read: that is no answer.
    fn is_carried_by(&self, process: &Process) -> Result<bool> {
        match self {
            Proof::Session(session) => Ok(sys::session_of(process.pid()) == Some(*session)),
            Proof::MountNamespace(inode) => Ok(process.handle.mount_namespace()? == *inode),
            Proof::Environment(name, value) => {
                let variable = format!("{name}={value}");
                let environment = process.handle.environment()?;
                Ok(environment.split(|byte| *byte == 0).any(|one| one == variable.as_bytes()))
            }
        }
    }
}

/// Those of these that carry a proof and are no members yet. One that does not let itself be read is none, because the
/// caller trusts the evidence of those that do; [`Coverage`](crate::Coverage) says so.
pub(super) fn search(follow: &Follow, among: impl IntoIterator<Item = Pid>) -> Result<Vec<Process>> {
    let mut found = Vec::new();
    if follow.evidence.is_empty() {
        return Ok(found);
    }
    for pid in among.into_iter().filter(|&pid| follow.lineage.member(pid).is_none()) {
        let process = match Process::open(pid) {
            Ok(process) => process,
            Err(error) if error.is_gone() || error.is_thread() => continue,
            Err(error) => return Err(error),
        };
        let mut carries = false;
        for proof in &follow.evidence {
            carries |= match proof.is_carried_by(&process) {
                Ok(carries) => carries,
                Err(error) if error.is_gone() || error.is_denied() => false,
                Err(error) => return Err(error),
            };
        }
        // Unreaped after the reading, the PID was its own all the time.
        if carries && process.state()? == State::Running {
            found.push(process);
        }
    }
    Ok(found)
}
