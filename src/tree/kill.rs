//! A signal to every member, to a fixpoint.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::signal::Signal;
use crate::state::State;
use crate::tree::engine::Follower;

/// How many rounds may find new members before it is said that there is no end of them.
const ROUNDS: usize = 10_000;

pub(super) fn kill(follower: &Follower, signal: Signal) -> Result<usize> {
    let mut sent = HashSet::new();
    let mut refused = None;
    if signal == Signal::KILL {
        if let Some(members) = follower.kill_cgroup()? {
            sent.extend(members);
        } else {
            // A stopped process forks no more: then all of them can be killed before any can answer it.
            let stop = "STOP".parse()?;
            let stopped = rounds(follower, stop, &mut HashSet::new(), &mut refused);
            stopped.or_else(|error| if error.is_unstable() { Ok(()) } else { Err(error) })?;
            refused = None;
        }
    }
    rounds(follower, signal, &mut sent, &mut refused)?;
    refused.map_or(Ok(sent.len()), Err)
}

/// Until a round finds nobody new.
fn rounds(
    follower: &Follower,
    signal: Signal,
    sent: &mut HashSet<Identity>,
    refused: &mut Option<Error>,
) -> Result<()> {
    for _ in 0..ROUNDS {
        let mut new = false;
        for member in follower.members() {
            if sent.contains(&member) {
                continue;
            }
            let Some(process) = follower.open_member(&member)? else { continue };
            if process.state()? != State::Running {
                continue;
            }
            match process.signal(signal) {
                Ok(()) => {}
                Err(error) if error.is_gone() => continue,
                Err(error) if error.is_denied() => {
                    refused.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
            new = true;
            sent.insert(member);
        }
        if !new {
            return Ok(());
        }
    }
    Err(Error::unstable(follower.root().pid(), "signal every member of the tree of process"))
}
