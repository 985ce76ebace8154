//! What happens in a tree, as objects for programs and as lines for people.

use std::fmt;
use std::time::{Duration, SystemTime};

use pidigree::{Coverage, Emptied, Identity, Promise, TreeEvent};
use serde::Serialize;

use crate::output;
use crate::run::census::{Census, Ended};
use crate::status::{Shown, Status};

/// One event, one line of JSON.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Object<'a> {
    Started {
        #[serde(flatten)]
        head: Head,
        command: Option<&'a str>,
        backend: &'static str,
        coverage: Covered<'a>,
    },
    Joined {
        #[serde(flatten)]
        head: Head,
        parent: Option<u32>,
        parent_token: Option<String>,
    },
    Exec {
        #[serde(flatten)]
        head: Head,
        program: Option<&'a str>,
        command: Option<&'a str>,
    },
    Ended {
        #[serde(flatten)]
        head: Head,
        #[serde(flatten)]
        status: Status,
        ran_seconds: f64,
        orphan: bool,
        command: Option<&'a str>,
    },
    Resynced {
        #[serde(flatten)]
        when: When,
        suspects: usize,
    },
    Skipped {
        events: u64,
    },
    Empty {
        #[serde(flatten)]
        head: Head,
        #[serde(flatten)]
        status: Status,
        processes: u64,
        complete: bool,
    },
}

/// When, and who.
#[derive(Debug, Serialize)]
pub(crate) struct Head {
    #[serde(flatten)]
    when: When,
    pid: u32,
    token: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct When {
    at: String,
    seconds: f64,
}

/// What the backend promises of a tree.
#[derive(Debug, Serialize)]
pub(crate) struct Covered<'a> {
    pub(crate) emptiness: &'static str,
    pub(crate) members: &'static str,
    pub(crate) reason: &'a str,
}

/// When a tree began to be followed: the clock on the wall, from which its events count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began(SystemTime);

impl Began {
    pub(crate) fn now() -> Began {
        Began(SystemTime::now())
    }

    fn when(self, at: Duration) -> When {
        When { at: self.clock(at), seconds: seconds(at) }
    }

    pub(crate) fn head(self, identity: &Identity, at: Duration) -> Head {
        Head { when: self.when(at), pid: identity.pid().get(), token: identity.to_string() }
    }

    /// UTC, as `2024-05-06T07:08:09.123Z`.
    pub(crate) fn clock(self, at: Duration) -> String {
        let then = self.0.checked_add(at).unwrap_or(self.0);
        humantime::format_rfc3339_millis(then).to_string()
    }

    /// An event, after the census has taken it in. `None` for those that a later version of the library may have.
    pub(crate) fn object<'a>(
        self,
        event: &'a TreeEvent,
        census: &'a Census,
        ended: Option<&'a Ended>,
        complete: bool,
    ) -> Option<Object<'a>> {
        Some(match event {
            TreeEvent::Joined { member, parent, at } => Object::Joined {
                head: self.head(member, *at),
                parent: parent.map(|parent| parent.pid().get()),
                parent_token: parent.as_ref().map(|parent| census.as_told(parent).to_string()),
            },
            TreeEvent::Exec { member, program, at } => Object::Exec {
                head: self.head(census.as_told(member), *at),
                program: program.as_deref(),
                command: census.member(member).and_then(|member| member.command.as_deref()),
            },
            TreeEvent::Left { member, status, at } => Object::Ended {
                head: self.head(ended.map_or(member, |ended| &ended.identity), *at),
                status: Status::of(Some(*status)),
                ran_seconds: seconds(ended.map(Ended::ran).unwrap_or_default()),
                orphan: ended.is_some_and(|ended| ended.orphan),
                command: ended.and_then(|ended| ended.member.command.as_deref()),
            },
            TreeEvent::Resynced { suspects, at } => {
                Object::Resynced { when: self.when(*at), suspects: *suspects }
            }
            TreeEvent::Skipped { events } => Object::Skipped { events: *events },
            TreeEvent::Empty(emptied) => self.empty(emptied, census, complete),
            _ => return None,
        })
    }

    pub(crate) fn empty(self, emptied: &Emptied, census: &Census, complete: bool) -> Object<'static> {
        Object::Empty {
            head: self.head(census.as_told(&emptied.root), emptied.at),
            status: Status::of(Some(emptied.status)),
            processes: emptied.members,
            complete,
        }
    }
}

/// An event as a line for people, without its time.
pub(crate) struct Line<'a> {
    pub(crate) event: &'a TreeEvent,
    pub(crate) census: &'a Census,
    pub(crate) ended: Option<&'a Ended>,
    pub(crate) complete: bool,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = |f: &mut fmt::Formatter<'_>, command: Option<&str>| match command {
            Some(command) => write!(f, ": {}", output::printable(command)),
            None => Ok(()),
        };
        match self.event {
            TreeEvent::Joined { member, parent, .. } => {
                match parent {
                    Some(parent) => {
                        write!(f, "{:>7} joined, forked by {}", member.pid().get(), parent.pid())?
                    }
                    None => write!(f, "{:>7} joined", member.pid().get())?,
                }
                let joined = self.census.member(member);
                command(f, joined.and_then(|member| member.command.as_deref()))
            }
            TreeEvent::Exec { member, program, .. } => {
                write!(f, "{:>7} exec", member.pid().get())?;
                let runs = self.census.member(member).and_then(|member| member.command.as_deref());
                command(f, runs.or(program.as_deref()))
            }
            TreeEvent::Left { member, status, .. } => {
                let ran = output::short(self.ended.map(Ended::ran).unwrap_or_default());
                write!(f, "{:>7} ended: {}, after {ran}", member.pid().get(), Shown(*status))?;
                if self.ended.is_some_and(|ended| ended.orphan) {
                    f.write_str(", outlived its parent")?;
                }
                command(f, self.ended.and_then(|ended| ended.member.command.as_deref()))
            }
            TreeEvent::Resynced { suspects: 0, .. } => {
                f.write_str("        not all events were seen; who is a member was found out anew")
            }
            TreeEvent::Resynced { suspects, .. } => write!(
                f,
                "        not all events were seen; who is a member was found out anew, {suspects} may be or not"
            ),
            TreeEvent::Skipped { events } => {
                write!(f, "        {events} events were dropped: they came faster than they could be told")
            }
            TreeEvent::Empty(emptied) => {
                write!(f, "{:>7} {}", emptied.root.pid().get(), Empty(emptied, self.complete))
            }
            _ => f.write_str("        something that this version has no words for"),
        }
    }
}

/// The end of a tree.
pub(crate) struct Empty<'a>(pub(crate) &'a Emptied, pub(crate) bool);

impl fmt::Display for Empty<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Empty(emptied, complete) = self;
        let status = Shown(emptied.status);
        write!(f, "tree empty: root {status}, {}", processes(emptied.members, *complete))
    }
}

/// `1 process`, `at least 7 processes`.
pub(crate) fn processes(count: u64, complete: bool) -> String {
    let at_least = if complete { "" } else { "at least " };
    let noun = if count == 1 { "process" } else { "processes" };
    format!("{at_least}{count} {noun}")
}

pub(crate) fn covered(coverage: &Coverage) -> Covered<'_> {
    let promise = |promise| match promise {
        Promise::Exact => "exact",
        Promise::ExactSinceAttach => "exact-since-attach",
        Promise::BestEffort => "best-effort",
    };
    Covered {
        emptiness: promise(coverage.emptiness),
        members: promise(coverage.members),
        reason: &coverage.reason,
    }
}

/// To the microsecond.
pub(crate) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e6
}
