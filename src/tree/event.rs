//! What a tree tells: plain values.

use std::fmt;
use std::time::Duration;

use crate::identity::Identity;
use crate::state::ExitStatus;

/// Something that happened in a tree; see [`Tree::next_event`](crate::Tree::next_event).
///
/// `at` is when, counted from the moment when the tree began to be followed, by the kernel's monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TreeEvent {
    /// A member forked, or a member was found that had not been seen before. The root joins first.
    Joined {
        /// The new member. Its identity may lack the start time beside a unique id, and lacks both if it had ended before
        /// it could be looked at; the events of one member all carry the same identity.
        member: Identity,
        /// Who forked it; `None` of the root, and where nobody saw it.
        parent: Option<Identity>,
        /// When it was forked, or found.
        at: Duration,
    },
    /// A member executed another program.
    Exec {
        /// Who.
        member: Identity,
        /// The program's name as the kernel keeps it: the first 15 bytes of the file's. `None` if the process ended, or
        /// executed yet another one, before it could be read.
        program: Option<String>,
        /// When.
        at: Duration,
    },
    /// A member ended. It may not have been reaped yet.
    Left {
        /// Who.
        member: Identity,
        /// How, where the kernel told.
        status: ExitStatus,
        /// When, or when it was found out.
        at: Duration,
    },
    /// Events had been lost, or had not been heard from the start, as of a tree that was attached or adopted; who is a member
    /// has been found out anew. Members that came and went meanwhile have no events.
    Resynced {
        /// How many processes may be members or strangers: orphans that were forked while events were lost. They are
        /// not listed, and the tree is not empty before they have ended, or are found to be strangers.
        suspects: usize,
        /// When.
        at: Duration,
    },
    /// Nobody took the events for so long that the oldest were dropped. The members themselves are as true as ever.
    Skipped {
        /// How many.
        events: u64,
    },
    /// Every member has ended. Nothing comes after it.
    Empty(Emptied),
}

/// The end of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emptied {
    /// Who the root was.
    pub root: Identity,
    /// How the root ended, where the kernel told.
    pub status: ExitStatus,
    /// How many members there were, as far as they were seen: see [`Coverage::members`].
    pub members: u64,
    /// When the last one had ended, since the tree began to be followed.
    pub at: Duration,
}

/// What a tree can promise on this machine, with this backend; see [`Tree::coverage`](crate::Tree::coverage).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Whether [`Empty`](TreeEvent::Empty) comes exactly when the last member has ended, and not before. Never before,
    /// whatever the promise: below `Exact` it is *who* counts as a member that is less than certain, or *when* it comes.
    pub emptiness: Promise,
    /// Whether every member is seen, with its events. [`BestEffort`](Promise::BestEffort) from the first loss of events on.
    pub members: Promise,
    /// Why, in words.
    pub reason: String,
}

/// How far a promise goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// True when given, but there may be more than was seen, or it is seen late; the reason says which.
    BestEffort,
    /// Exact for everything that happened after the tree was attached to a root that ran already.
    ExactSinceAttach,
    /// Exact.
    Exact,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Promise::BestEffort => "best effort",
            Promise::ExactSinceAttach => "exact since attach",
            Promise::Exact => "exact",
        })
    }
}

impl fmt::Display for Coverage {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "emptiness {}, members {}: {}", self.emptiness, self.members, self.reason)
    }
}
