//! What a tree was, as its events tell it: who ran, how deep, how long, and how it ended.

use std::collections::HashMap;
use std::time::Duration;

use pidigree::{ExitStatus, Identity, Process, Sameness, State, TreeEvent};

use crate::status::is_failure;
use crate::sys;

/// How many are named of each kind.
const NAMED: usize = 10;
const LONGEST: usize = 3;

/// Counts, and the few that are named at the end. Only who lives takes memory, so that a hundred thousand can pass.
#[derive(Debug)]
pub(crate) struct Census {
    root: Option<Identity>,
    live: HashMap<Identity, Member>,
    /// Whether programs are read at the fork, too: where no event tells that a member executed one.
    eager: bool,
    pub(crate) seen: u32,
    pub(crate) deepest: u32,
    pub(crate) longest: Vec<Ended>,
    pub(crate) failed: Few,
    pub(crate) outlived: Few,
    /// How often events were lost, and how many were dropped here.
    pub(crate) resynced: u64,
    pub(crate) skipped: u64,
}

/// A number, and the first of them.
#[derive(Debug, Default)]
pub(crate) struct Few {
    pub(crate) count: u64,
    pub(crate) first: Vec<Ended>,
}

/// A member while it runs.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Counted from 1, the root. No two have the same, as two can have the same PID.
    pub(crate) number: u32,
    pub(crate) depth: u32,
    /// The number of the one that forked it; 0 if nobody saw that.
    pub(crate) parent: u32,
    /// And who that is.
    forked_by: Option<Identity>,
    pub(crate) joined: Duration,
    /// Its arguments, or else its name; `None` if it ended before they could be read.
    pub(crate) command: Option<String>,
}

/// A member that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) identity: Identity,
    pub(crate) member: Member,
    pub(crate) status: ExitStatus,
    pub(crate) at: Duration,
    /// Its parent had ended before it.
    pub(crate) orphan: bool,
}

impl Ended {
    pub(crate) fn ran(&self) -> Duration {
        self.at.saturating_sub(self.member.joined)
    }
}

impl Census {
    pub(crate) fn new(eager: bool) -> Census {
        Census {
            root: None,
            live: HashMap::new(),
            eager,
            seen: 0,
            deepest: 0,
            longest: Vec::new(),
            failed: Few::default(),
            outlived: Few::default(),
            resynced: 0,
            skipped: 0,
        }
    }

    /// Takes an event in; returns whoever it ended.
    pub(crate) fn take(&mut self, event: &TreeEvent) -> Option<Ended> {
        match event {
            TreeEvent::Joined { member, parent, at } => {
                self.join(member, parent.as_ref(), *at);
                None
            }
            TreeEvent::Exec { member, program, .. } => {
                if let Some(live) = self.live.get_mut(member) {
                    live.command = command_of(member).or_else(|| program.clone());
                }
                None
            }
            TreeEvent::Left { member, status, at } => Some(self.leave(member, *status, *at)),
            TreeEvent::Resynced { .. } => {
                self.resynced += 1;
                None
            }
            TreeEvent::Skipped { events } => {
                self.skipped += events;
                None
            }
            _ => None,
        }
    }

    pub(crate) fn member(&self, identity: &Identity) -> Option<&Member> {
        self.live.get(identity)
    }

    /// The same process as it was told of first: what is known of one can grow, and its token with it.
    pub(crate) fn as_told<'a>(&'a self, identity: &'a Identity) -> &'a Identity {
        let live = self.live.get_key_value(identity).map(|(told, _)| told);
        live.or(self.root.as_ref().filter(|root| *root == identity)).unwrap_or(identity)
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = (&Identity, &Member)> {
        self.live.iter()
    }

    pub(crate) fn running(&self) -> usize {
        self.live.len()
    }

    fn join(&mut self, identity: &Identity, parent: Option<&Identity>, at: Duration) {
        let forker = parent.and_then(|parent| self.live.get(parent));
        let inherited = forker.and_then(|forker| forker.command.clone());
        let is_root = self.root.is_none();
        let depth = match forker {
            Some(forker) => forker.depth + 1,
            None if is_root => 1,
            None => 2,
        };
        let number = forker.map_or(0, |forker| forker.number);
        self.root.get_or_insert(*identity);
        self.seen += 1;
        self.deepest = self.deepest.max(depth);
        let read = self.eager || forker.is_none();
        let command = if read { command_of(identity).or(inherited) } else { inherited };
        let member = Member {
            number: self.seen,
            depth,
            parent: number,
            forked_by: parent.copied(),
            joined: at,
            command,
        };
        self.live.insert(*identity, member);
    }

    fn leave(&mut self, identity: &Identity, status: ExitStatus, at: Duration) -> Ended {
        if !self.live.contains_key(identity) {
            // Its joining was dropped.
            self.join(identity, None, at);
        }
        let (told, member) = self.live.remove_entry(identity).expect("it has just been looked for");
        let parent_lives = member.forked_by.is_some_and(|parent| {
            self.live.get(&parent).is_some_and(|parent| parent.number == member.parent)
        });
        let is_root = self.root == Some(*identity);
        let orphan = member.parent != 0 && !parent_lives;
        let ended = Ended { identity: told, member, status, at, orphan };
        if !is_root {
            if is_failure(status) {
                self.failed.add(&ended);
            }
            if orphan {
                self.outlived.add(&ended);
            }
            let place = self.longest.partition_point(|other| other.ran() >= ended.ran());
            if place < LONGEST {
                self.longest.insert(place, ended.clone());
                self.longest.truncate(LONGEST);
            }
        }
        ended
    }
}

impl Few {
    fn add(&mut self, ended: &Ended) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(ended.clone());
        }
    }
}

/// What a member runs now: read by PID, and believed only if it was its own all the time.
fn command_of(member: &Identity) -> Option<String> {
    // Without either it had ended when it was first looked at.
    if member.unique_id().is_none() && member.start_time().is_none() {
        return None;
    }
    let process = Process::open(member.pid()).ok()?;
    if process.identity().same_process(member) == Sameness::Different {
        return None;
    }
    let command = sys::command(member.pid())?;
    (process.state().ok()? != State::Gone).then_some(command)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pidigree::{ExitStatus, Identity, TreeEvent};

    use super::{Census, Ended};
    use crate::events::Began;

    /// Of a process that cannot be here: another boot's.
    fn identity(pid: u32, id: u64) -> Identity {
        format!("p1:{pid}:u{id}:y7:n1:b{:032x}", 1).parse().expect("a token")
    }

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn joined(member: Identity, parent: Option<Identity>, milliseconds: u64) -> TreeEvent {
        TreeEvent::Joined { member, parent, at: at(milliseconds) }
    }

    fn left(member: Identity, status: ExitStatus, milliseconds: u64) -> TreeEvent {
        TreeEvent::Left { member, status, at: at(milliseconds) }
    }

    #[test]
    fn whoever_ends_after_its_parent_outlived_it_whoever_has_that_pid_now() {
        let [root, middle, child, reuser] =
            [(10, 1), (11, 2), (12, 3), (11, 4)].map(|(pid, id)| identity(pid, id));
        let mut census = Census::new(false);
        census.take(&joined(root, None, 0));
        census.take(&joined(middle, Some(root), 10));
        census.take(&joined(child, Some(middle), 20));
        assert!(!census.take(&left(middle, ExitStatus::Code(0), 30)).expect("it ended").orphan);
        census.take(&joined(reuser, Some(root), 40));
        let ended = census.take(&left(child, ExitStatus::Signal(9), 120)).expect("it ended");
        assert!(ended.orphan);
        assert_eq!((ended.member.depth, ended.member.number, ended.member.parent), (3, 3, 2));
        assert_eq!(ended.ran(), at(100));
        assert!(!census.take(&left(reuser, ExitStatus::Code(1), 121)).expect("it ended").orphan);
        census.take(&left(root, ExitStatus::Code(5), 200));
        assert_eq!((census.seen, census.deepest, census.running()), (4, 3, 0));
        assert_eq!((census.outlived.count, census.failed.count), (1, 2));
        let longest: Vec<u32> = census.longest.iter().map(|ended| ended.member.number).collect();
        assert_eq!(longest, [3, 4, 2], "the root aside, the longest first");
    }

    #[test]
    fn one_whose_joining_was_dropped_still_ends() {
        let (root, stranger) = (identity(10, 1), identity(11, 2));
        let mut census = Census::new(false);
        census.take(&TreeEvent::Skipped { events: 7 });
        census.take(&joined(root, None, 0));
        let ended = census.take(&left(stranger, ExitStatus::Code(1), 10)).expect("it ended");
        assert!(!ended.orphan && ended.ran().is_zero());
        assert_eq!((census.skipped, census.seen, census.deepest, census.failed.count), (7, 2, 2, 1));
    }

    /// Programs tell processes apart by the text.
    #[test]
    fn a_process_has_one_token_however_much_is_known_of_it_later() {
        let [early, root] = ['y', 's'].map(|settled| {
            format!("p1:10:u1:{settled}7:n1:b{:032x}", 1).parse::<Identity>().expect("a token")
        });
        let child = identity(11, 2);
        let mut census = Census::new(false);
        census.take(&joined(early, None, 0));
        let began = Began::now();
        let told = |event: &TreeEvent, census: &Census, ended: Option<&Ended>| {
            serde_json::to_value(began.object(event, census, ended, true)).expect("an object")
        };
        let join = joined(child, Some(root), 10);
        census.take(&join);
        assert_eq!(told(&join, &census, None)["parent_token"], early.to_string());
        let exec = TreeEvent::Exec { member: root, program: None, at: at(20) };
        assert_eq!(told(&exec, &census, None)["token"], early.to_string());
        let leave = left(root, ExitStatus::Code(0), 30);
        let ended = census.take(&leave);
        assert_eq!(told(&leave, &census, ended.as_ref())["token"], early.to_string());
        assert_eq!(
            census.as_told(&root).to_string(),
            early.to_string(),
            "it is the root of what is empty then"
        );
    }

    #[test]
    fn who_lives_takes_memory_and_who_has_ended_does_not() {
        let root = identity(10, 1);
        let mut census = Census::new(false);
        census.take(&joined(root, None, 0));
        for id in 2..50_000 {
            let member = identity(11, id);
            census.take(&joined(member, Some(root), id));
            census.take(&left(member, ExitStatus::Code(1), id + 1));
        }
        assert_eq!((census.seen, census.running(), census.failed.count), (49_999, 1, 49_998));
        assert!(census.failed.first.len() + census.longest.len() < 20 && census.live.capacity() < 20);
    }
}
