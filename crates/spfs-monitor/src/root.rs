//! The root as people name it: a PID or a token.

use std::str::FromStr;

use pidigree::{Identity, Pid, Process, Sameness, State};

use crate::failure::Failure;

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Root {
    Pid(Pid),
    Token(Identity),
}

/// What was asked for, and who had the PID when this program was started.
#[derive(Debug)]
pub(crate) struct Asked {
    root: Root,
    found: pidigree::Result<Process>,
}

impl Root {
    /// Pins it, before anything else is done.
    pub(crate) fn pin(self) -> Asked {
        let found = match self {
            Root::Pid(pid) => Process::open(pid),
            Root::Token(identity) => Process::reopen(&identity),
        };
        Asked { root: self, found }
    }
}

impl Asked {
    /// The process, if a runtime can hang on it.
    pub(crate) fn running(self) -> Result<Process, Failure> {
        let cannot =
            |pid: Pid, why: &str| Failure::new(format!("cannot watch the tree of process {pid}: {why}"));
        let process = self.found?;
        match process.state()? {
            State::Running => {}
            State::Zombie => {
                let why = "it has ended, and only waits to be reaped; what it left behind cannot be linked to it any more";
                return Err(cannot(process.pid(), why));
            }
            State::Gone => return Err(cannot(process.pid(), "it has ended")),
        }
        match never_ends(&process)? {
            Some(why) => Err(cannot(process.pid(), why)),
            None => Ok(process),
        }
    }

    /// Makes sure that it is this one that is meant, of a record.
    pub(crate) fn must_be(&self, recorded: &Identity) -> Result<(), String> {
        let (given, found) = match &self.root {
            Root::Pid(pid) => (pid.to_string(), self.found.as_ref().ok().map(|process| *process.identity())),
            Root::Token(identity) => (identity.to_string(), Some(*identity)),
        };
        let is_another = match found {
            Some(found) => found.same_process(recorded) == Sameness::Different,
            // Nobody has the PID any more, so it can have been this one's.
            None => self.pid() != recorded.pid(),
        };
        if is_another { Err(given) } else { Ok(()) }
    }

    fn pid(&self) -> Pid {
        match self.root {
            Root::Pid(pid) => pid,
            Root::Token(identity) => identity.pid(),
        }
    }
}

impl FromStr for Root {
    type Err = String;

    fn from_str(text: &str) -> Result<Root, String> {
        let parsed =
            if text.contains(':') { text.parse().map(Root::Token) } else { text.parse().map(Root::Pid) };
        parsed.map_err(|error: pidigree::Error| error.to_string())
    }
}

/// Why a process is never the root of a runtime.
fn never_ends(root: &Process) -> pidigree::Result<Option<&'static str>> {
    // Not by whom it is borne: the kernel gives this number to nobody else.
    if root.pid().get() == 1 {
        return Ok(Some("it is the first process, with which everything else ends, too"));
    }
    let kernel = root.is_kernel_thread()?;
    Ok(kernel.then_some("it is a thread of the kernel, and starts nothing of a runtime"))
}
