//! A process as people name it: a PID or a token.

use std::str::FromStr;

use pidigree::{Identity, Pid, Process};
use spfs_vfs::failure::Failure;

#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Pid(Pid),
    Token(Identity),
}

impl Target {
    /// Pins the process. Of those that can be reopened, only a token says more than "whoever has the number now".
    pub(super) fn pin(self) -> Result<Process, Failure> {
        Ok(match self {
            Target::Pid(pid) => Process::open(pid)?,
            Target::Token(identity) => Process::reopen(&identity)?,
        })
    }

    /// Which process it is, or was: the view of one that has ended can still be asked for.
    pub(super) fn identity(self) -> Result<Identity, Failure> {
        Ok(match self {
            Target::Pid(pid) => *Process::open(pid)?.identity(),
            Target::Token(identity) => identity,
        })
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        if text.contains(':') {
            let identity = text.parse().map_err(|error: pidigree::Error| error.to_string())?;
            return Ok(Target::Token(identity));
        }
        text.parse().map(Target::Pid).map_err(|error: pidigree::Error| error.to_string())
    }
}
