//! What proves membership where the parent chain is broken.

use crate::error::Result;
use crate::pid::Pid;
use crate::process::Process;
use crate::state::State;
use crate::sys;
use crate::tree::builder::Evidence;

/// [`Evidence`], as it stood with the root when the tree was attached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) enum Proof {
    Session(Pid),
    MountNamespace(u64),
    Environment(String, String),
    /// A variable that is named for this tree alone: everything that it starts inherits it, and nobody else has it.
    Mark(String),
}

/// By what the members of a tree can be known.
pub(super) type Wanted = (u64, Vec<Proof>);

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
    fn is_carried_by(&self, looked_at: &mut LookedAt<'_>) -> Result<bool> {
        match self {
            Proof::Session(session) => Ok(sys::session_of(looked_at.process.pid()) == Some(*session)),
            Proof::MountNamespace(inode) => Ok(looked_at.process.handle.mount_namespace()? == *inode),
            Proof::Environment(name, value) => Ok(looked_at.environment()?.has(&format!("{name}={value}"))),
            Proof::Mark(name) => Ok(looked_at.environment()?.has_mark(name)),
        }
    }
}

/// With what the name of a [`Proof::Mark`] begins.
pub(super) const MARK: &str = "PIDIGREE_TREE_";
/// And its value.
pub(super) const MARKED: &str = "1";

/// A process, and what has been read of its environment.
struct LookedAt<'a> {
    process: &'a Process,
    environment: Option<Environment>,
}

struct Environment {
    text: Vec<u8>,
    /// Each with its value: there are few, and many trees may look for theirs.
    marks: Vec<Vec<u8>>,
}

impl Environment {
    fn read(process: &Process) -> Result<Environment> {
        let text = process.handle.environment()?;
        let variables = text.split(|byte| *byte == 0);
        let marks = variables.filter(|one| one.starts_with(MARK.as_bytes())).map(<[u8]>::to_vec).collect();
        Ok(Environment { text, marks })
    }

    fn has(&self, variable: &str) -> bool {
        self.text.split(|byte| *byte == 0).any(|one| one == variable.as_bytes())
    }

    fn has_mark(&self, name: &str) -> bool {
        let mark = format!("{name}={MARKED}");
        self.marks.iter().any(|one| one == mark.as_bytes())
    }

    /// Some overwrite theirs to show another title; and one that is just being executed shows none.
    fn is_whole(&self) -> bool {
        let is_variable = |one: &[u8]| one.iter().skip(1).any(|byte| *byte == b'=');
        self.text.strip_suffix(&[0]).is_some_and(|text| text.split(|byte| *byte == 0).all(is_variable))
    }
}

impl<'a> LookedAt<'a> {
    fn new(process: &'a Process) -> LookedAt<'a> {
        LookedAt { process, environment: None }
    }

    fn environment(&mut self) -> Result<&Environment> {
        let environment = match self.environment.take() {
            Some(environment) => environment,
            None => Environment::read(self.process)?,
        };
        Ok(self.environment.insert(environment))
    }
}

/// Those of these that carry a proof of one of these trees. One that does not let itself be read is none, because the
/// caller trusts the evidence of those that do; [`Coverage`](crate::Coverage) says so.
pub(super) fn search(wanted: &[Wanted], among: impl IntoIterator<Item = Pid>) -> Result<Vec<(u64, Process)>> {
    let mut found = Vec::new();
    if wanted.iter().all(|(_, proofs)| proofs.is_empty()) {
        return Ok(found);
    }
    for pid in among {
        let process = match Process::open(pid) {
            Ok(process) => process,
            Err(error) if error.is_gone() || error.is_thread() => continue,
            Err(error) => return Err(error),
        };
        let mut looked_at = LookedAt::new(&process);
        let mut carried = Vec::new();
        for (key, proofs) in wanted {
            let mut carries = false;
            for proof in proofs {
                carries |= match proof.is_carried_by(&mut looked_at) {
                    Ok(carries) => carries,
                    Err(error) if error.is_gone() || error.is_denied() => false,
                    Err(error) => return Err(error),
                };
            }
            carried.extend(carries.then_some(*key));
        }
        // Unreaped after the reading, the PID was its own all the time.
        if !carried.is_empty() && process.state()? == State::Running {
            found.extend(carried.into_iter().map(|key| (key, process.clone())));
        }
    }
    Ok(found)
}

/// Whether a process certainly lacks the mark of a tree that has one.
pub(super) fn is_missed(proofs: &[Proof], pid: Pid) -> Result<bool> {
    for proof in proofs {
        let Proof::Mark(name) = proof else { continue };
        return match Process::open(pid).and_then(|process| Environment::read(&process)) {
            Ok(environment) => Ok(environment.is_whole() && !environment.has_mark(name)),
            Err(error) if error.is_gone() || error.is_denied() || error.is_thread() => Ok(false),
            Err(error) => Err(error),
        };
    }
    Ok(false)
}
