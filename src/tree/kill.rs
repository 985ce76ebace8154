//! A signal to every member, to a fixpoint.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::signal::Signal;
use crate::state::State;
use crate::tree::follower::Follower;

/// How many rounds may find new members before it is said that there is no end of them.
const ROUNDS: usize = 10_000;

/// Whom a signal has been sent to, and whom it came too late for.
#[derive(Default)]
struct Done {
    sent: HashSet<Identity>,
    ended: HashSet<Identity>,
    refused: Option<Error>,
}

pub(super) fn kill(follower: &Follower, signal: Signal) -> Result<usize> {
    let mut done = Done::default();
    if signal == Signal::KILL {
        // Refused, as to one that has become another user since it was made, each is still to be sent it by itself.
        if let Ok(Some(members)) = follower.kill_cgroup() {
            done.sent.extend(members);
        } else {
            // A stopped process forks no more: then all of them can be killed before any can answer it. Trouble with that is
            // met again below, and none of them is to be left stopped because of it.
            let _ = rounds(follower, "STOP".parse()?, &mut Done::default());
        }
    }
    rounds(follower, signal, &mut done)?;
    done.refused.map_or(Ok(done.sent.len()), Err)
}

/// Until a round finds nobody new. One that has ended since the round began is new: it may have forked before.
fn rounds(follower: &Follower, signal: Signal, done: &mut Done) -> Result<()> {
    for _ in 0..ROUNDS {
        let mut new = false;
        for member in follower.members() {
            if done.sent.contains(&member) {
                continue;
            }
            new |= match send(follower, &member, signal) {
                Ok(true) => done.sent.insert(member),
                Ok(false) => done.ended.insert(member),
                Err(error) if error.is_denied() => {
                    done.refused.get_or_insert(error);
                    done.sent.insert(member)
                }
                Err(error) => return Err(error),
            };
        }
        if !new {
            return Ok(());
        }
    }
    Err(Error::unstable(follower.root().pid(), "signal every member of the tree of process"))
}

/// Returns whether it was there.
fn send(follower: &Follower, member: &Identity, signal: Signal) -> Result<bool> {
    let Some(process) = follower.open_member(member)? else { return Ok(false) };
    if process.state()? != State::Running {
        return Ok(false);
    }
    match process.signal(signal) {
        Ok(()) => Ok(true),
        Err(error) if error.is_gone() => Ok(false),
        Err(error) => Err(error),
    }
}
