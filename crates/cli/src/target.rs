//! A process as people name it: a PID or a token.

use std::str::FromStr;

use pidigree::{Identity, Pid, Process};

use crate::failure::Failure;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Pid(Pid),
    Token(Identity),
}

/// What there is of a target.
#[derive(Debug)]
pub(crate) enum Found {
    /// Not reaped yet, and pinned.
    Process(Process),
    /// A token's process is not there any more, for this reason. Never of a bare PID: that names nobody then.
    Gone(&'static str),
}

impl Target {
    /// Pins the process.
    pub(crate) fn find(&self) -> Result<Found, pidigree::Error> {
        match self {
            Target::Pid(pid) => Process::open(*pid).map(Found::Process),
            Target::Token(identity) => find(identity),
        }
    }

    /// Pins the process; an error if it is gone.
    pub(crate) fn open(&self) -> Result<Process, Failure> {
        match self.find()? {
            Found::Process(process) => Ok(process),
            Found::Gone(reason) => Err(Failure::new(format!("process {} is gone: {reason}", self.pid()))),
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        match self {
            Target::Pid(pid) => *pid,
            Target::Token(identity) => identity.pid(),
        }
    }
}

/// Pins the process of a token.
///
/// # Errors
///
/// Where nothing can be proven: those of [`Process::reopen`], except that it is gone.
pub(crate) fn find(identity: &Identity) -> Result<Found, pidigree::Error> {
    match Process::reopen(identity) {
        Ok(process) => Ok(Found::Process(process)),
        Err(error) if error.is_gone() => {
            Ok(Found::Gone("it has ended, and its PID is free or names another process"))
        }
        // Of another boot, which is over, and not of another PID namespace, which we cannot see into.
        Err(error) if error.is_foreign() => {
            let here = Identity::of(Pid::current())?.boot_id();
            if here.is_some() && identity.boot_id().is_some() && here != identity.boot_id() {
                Ok(Found::Gone("it was recorded in another boot, of which nothing runs here"))
            } else {
                Err(error)
            }
        }
        Err(error) => Err(error),
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        if text.contains(':') {
            let identity = text.parse().map_err(|error: pidigree::Error| error.to_string())?;
            return Ok(Target::Token(identity));
        }
        text.parse().map(Target::Pid).map_err(|error: pidigree::Error| {
            let number = text.bytes().any(|byte| byte.is_ascii_digit());
            let or_token = if number { "" } else { ", or a token as pidigree id prints it" };
            format!("{error}{or_token}")
        })
    }
}
