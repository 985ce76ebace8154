//! What each backend can promise, in words.

use crate::tree::builder::{Backend, CONNECTOR};
use crate::tree::event::{Coverage, Promise};
use crate::tree::follow::Source;

const SEEN: &str = "the kernel tells of every fork";
const UNSEEN: &str = "members that come and go between two looks are not seen";

/// How polling knows the orphans of a tree that it has spawned.
const MARKED: &str = "orphans are known by a variable in the environment (PIDIGREE_TREE_…) or by their session, are taken for strangers \
    where another environment was given to them, and hold it back where that cannot be read";
/// And of one that was there before.
const UNMARKED: &str = "orphans are known by their session, or by the evidence that was named; any other child of process 1 or of an \
    ancestor of the root that was started since could be one, and holds it back until its own end";

/// Of a tree whose members the kernel counts, when it could not.
const UNCOUNTED: &str =
    "once the kernel missed some itself, and had not counted all: orphans of that time may hold it back";

/// What a kqueue can promise.
const LOOKED_UP: &str = "the kernel tells that a member has forked, and the process table shows whom, with a number that names its \
    maker: a process that starts others, ends and is reaped between two looks hides what it has started";

/// `fed`: the connector tells of members. `filtered`: and the kernel drops what is not ours.
pub(super) fn of_spawned(source: &Source, fed: bool, filtered: bool) -> Coverage {
    let members = if fed { (Promise::Exact, SEEN) } else { (Promise::BestEffort, UNSEEN) };
    let (emptiness, why) = match source {
        Source::Cgroup(_) => {
            (Promise::Exact, "its cgroup holds whatever it starts, and the kernel says when that is empty")
        }
        Source::Subreaper { .. } => (
            Promise::Exact,
            "a helper adopts every orphan in its PID namespace, and has what the root creates with CLONE_PARENT; not what enters another by nsenter",
        ),
        Source::Connector if CONNECTOR == Backend::Kqueue => return best_effort(LOOKED_UP.to_owned()),
        Source::Connector if filtered => {
            return of_connector(
                Promise::Exact,
                "counted in the kernel, so that even lost events lose nobody",
            );
        }
        Source::Connector => {
            return of_connector(
                Promise::Exact,
                "without CAP_BPF every fork on the machine wakes this process; should events be lost, orphans of that time hold emptiness back",
            );
        }
        Source::Poll | Source::Over(_) => return of_poll(MARKED),
    };
    Coverage { emptiness, members: members.0, reason: format!("{why}; {}", members.1) }
}

pub(super) fn of_attached(source: &Source, filtered: bool) -> Coverage {
    match source {
        Source::Connector if CONNECTOR == Backend::Kqueue => best_effort(format!(
            "{LOOKED_UP}; what was orphaned before the tree was attached cannot be linked to it"
        )),
        Source::Connector => {
            let lost =
                if filtered { "" } else { "; without CAP_BPF every fork on the machine wakes this process" };
            of_connector(
                Promise::ExactSinceAttach,
                &format!("what was orphaned before the tree was attached cannot be linked to it{lost}"),
            )
        }
        _ => of_poll(UNMARKED),
    }
}

/// `marked`: by an environment variable, since it was spawned.
pub(super) fn of_adopted(source: &Source, fed: bool, filtered: bool, marked: bool) -> Coverage {
    match source {
        Source::Poll if marked => of_poll(MARKED),
        Source::Connector | Source::Poll | Source::Over(_) => of_attached(source, filtered),
        Source::Cgroup(_) | Source::Subreaper { .. } => {
            let spawned = of_spawned(source, fed, filtered);
            let reason = format!("{}; adopted: ends before that are not told", spawned.reason);
            Coverage { members: spawned.members.min(Promise::ExactSinceAttach), reason, ..spawned }
        }
    }
}

/// Of a tree that had ended when it was adopted.
pub(super) fn of_ended() -> Coverage {
    let reason = "it had ended before it was adopted".to_owned();
    Coverage { emptiness: Promise::Exact, members: Promise::BestEffort, reason }
}

/// From the first loss of events on. The promise about the end takes losses into account from the start.
pub(super) fn after_loss(coverage: &mut Coverage) {
    if coverage.members != Promise::BestEffort {
        coverage.members = Promise::BestEffort;
        coverage.reason += "; events were lost, and members that came and went meanwhile were not seen";
    }
}

/// A message is missing in the kernel's own numbering (it had no memory for it, say), or a member found no room: then the
/// filter's count is worth nothing, and a scan has to do.
pub(super) fn after_uncounted_loss(coverage: &mut Coverage) {
    if !coverage.reason.contains(UNCOUNTED) {
        coverage.reason = format!("{}; {UNCOUNTED}", coverage.reason);
    }
}

fn of_connector(promise: Promise, more: &str) -> Coverage {
    let reason = format!("{SEEN}, except that one with CLONE_PARENT does not name who did it; {more}");
    Coverage { emptiness: promise, members: promise, reason }
}

fn of_poll(orphans: &str) -> Coverage {
    best_effort(format!(
        "emptiness is believed only of a scan during which nothing was forked on the whole machine, and comes late by one pause between scans; \
         {orphans}; {UNSEEN}"
    ))
}

fn best_effort(reason: String) -> Coverage {
    Coverage { emptiness: Promise::BestEffort, members: Promise::BestEffort, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_counted_is_said_once() {
        let mut coverage = of_spawned(&Source::Connector, true, true);
        let before = coverage.clone();
        after_loss(&mut coverage);
        assert_eq!((coverage.emptiness, coverage.members), (before.emptiness, Promise::BestEffort));
        assert!(!coverage.reason.contains(UNCOUNTED));
        after_uncounted_loss(&mut coverage);
        after_uncounted_loss(&mut coverage);
        assert_eq!(coverage.reason.matches(UNCOUNTED).count(), 1, "{coverage}");
        assert_eq!(coverage.emptiness, before.emptiness);
    }
}
