//! Who is a member of a tree, and when is it empty: the machine behind every way of watching one. No kernel, no clock,
//! no I/O: it is told what happened and what a proven scan showed, and answers what to report.
//!
//! Membership is sticky: once a member, until its own end, whoever becomes its parent; and whatever a member forks is a
//! member. As long as nothing is missing that is all there is to it. After a loss three things are uncertain, and none
//! of them is guessed:
//!
//! - **Whether those known are still there**, until a scan has seen the same process again. What is told of a fork by one
//!   of them may be of a stranger who has its PID by now: the child is suspect until the scan.
//! - **Whose an unknown process is.** Its parent decides, where it still has the one that forked it; an orphan is judged
//!   by when it started and by its session. Where neither proves anything it is a *suspect*: never a member, but there
//!   is no `Empty` while it lives. What it forks is suspect too.
//! - **Emptiness**, until a scan or a census has made up for the loss.
//!
//! That members may be *unseen* is less than a loss: of those known nothing is missing, so what they fork and how they end
//! is as sure as ever. Only whose an unknown process is stays open, and emptiness.
//!
//! What it relies on is written at [`Input`]. Not covered, because no row of a table shows it: what a process made with
//! CLONE_PARENT (trap 23) or sent into another PID namespace (trap 2) while events were missing; and a process started by
//! an excluded one, orphaned and given to a member that is a subreaper, all while events were missing: it is taken for
//! that member's own.

use std::collections::{BTreeMap, BTreeSet};

use crate::identity::{Identity, Sameness};
use crate::pid::Pid;
use crate::state::ExitStatus;

mod above;
#[cfg(any(test, fuzzing))]
pub(crate) mod check;
mod saved;
mod scan;

pub(crate) use saved::Saved;
pub(super) use scan::YOUNG;

/// One tree: a root, everything it started, until empty.
#[derive(Clone, Debug)]
pub(crate) struct Lineage {
    root: Identity,
    /// One living bearer of a PID at most.
    known: BTreeMap<Pid, Known>,
    members: usize,
    suspects: usize,
    exclusions: usize,
    adopters: BTreeSet<Pid>,
    /// An ancestor of the root that is given no orphans so far. It may be once, and then it is an adopter.
    spared: Option<Pid>,
    /// The sessions of other people's making that members can be in; `None` if not all are known.
    foreign: Option<BTreeSet<Pid>>,
    /// Somebody was excluded from the beginning, so not all in a session that a member made are members.
    excludes: bool,
    /// Shown to be strangers, by the last proven scan, and as young as what may be missing after it.
    strangers: Vec<Identity>,
    /// Events are missing from this clock tick on.
    lost: Option<u64>,
    /// Members may be unknown who were forked from this clock tick on.
    unseen: Option<u64>,
    /// A clock tick before which nothing has happened that has not been told.
    heard: u64,
    /// Emptiness is somebody else's to say.
    held: bool,
    empty: bool,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    identity: Identity,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Member,
    Suspect,
    Excluded,
}

/// What the machine is told.
///
/// Events come in the order in which they happened. None overtakes another: the end of a process, whoever found out, is
/// told after everything that it forked. Where forks are not told at all (polling, a cgroup), the caller tells the loss
/// of them at the very beginning, before anybody's end, and when polling again after each scan: so it can be found
/// empty right at a scan, and at no other time.
pub(crate) enum Input<'a> {
    /// `parent` made `child` by fork, or `child` was found as a verified child of `parent`. Idempotent. The identity is
    /// that of the process that was forked and of no later bearer of its PID; bare (no unique id and no start time) if
    /// it had ended before anybody could look at it. Those by suspects and by excluded processes are told too.
    Forked {
        parent: Pid,
        child: Identity,
    },
    Executed {
        pid: Pid,
    },
    /// This process, looked at alive, is a member by other proof: the kernel lists it, or it carries evidence that the
    /// caller trusts. Idempotent.
    Found {
        member: Identity,
        parent: Option<Pid>,
    },
    /// Every process told so far under this PID has ended: a member, a suspect, or an excluded one. If the PID was
    /// forked anew before that could be told, it is told once, after both have ended.
    Ended {
        pid: Pid,
        status: ExitStatus,
    },
    /// At this place in the stream events are missing. No process that has started before the clock tick `since` (ticks
    /// as in [`StartTime`](crate::StartTime)) has its fork missing, and no end before that tick is missing: a kernel
    /// stamps a start before it tells of it, so leave a tick or two. `u64::MAX`: nothing is missing, but everybody is to
    /// be looked at.
    Lost {
        since: u64,
    },
    /// Of all those known nothing is missing: they are here, and all that they do from now on is told. But some that are
    /// not known may be members, if they were forked from the clock tick `since` on, or by those; `u64::MAX`: whoever is
    /// linked to a member is. If events were missing, they are of the unknown.
    Unseen {
        since: u64,
    },
    /// The process table, proven: the kernel's fork counter stood still from before the last events were taken until the
    /// last answer. All that happened before the first of these two looks at the counter has been told
    /// before, and nothing else. The table hides nobody. `began`: the tick in which the first look was taken.
    ///
    /// Whoever it adds is followed from the scan on. If somebody may have forked before it was followed, tell the loss
    /// since `began`, and scan again until nobody new is found.
    Scanned {
        table: &'a [Row],
        details: &'a mut dyn FnMut(Pid) -> Option<Details>,
        /// Whether it lacks what every member is given and hands on. Asked, and believed, where nothing proves the contrary.
        is_strange: &'a mut dyn FnMut(Pid) -> bool,
        began: u64,
    },
    /// Exactly these are alive and members (somebody counted them in the kernel); with the parent, where it is known.
    /// Those that are excluded, and known to be, may be among them. All that happened before has been told before, and
    /// nothing else.
    Census {
        alive: &'a [(Identity, Option<Pid>)],
    },
}

/// One process of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) pid: Pid,
    pub(crate) parent: Option<Pid>,
}

/// What a scan reads only of members and of processes whose origin is in question. There is none only of a process that
/// has ended since it was listed. Where it could not be read, the identity is bare, and the scan makes up for nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Details {
    pub(crate) identity: Identity,
    /// `None` if its leader is outside our PID namespace.
    pub(crate) session: Option<Pid>,
    /// A zombie, all threads of which have ended.
    pub(crate) ended: bool,
    /// It is the very process that is known under this PID, or the adopter, or the stranger: it was held all the time.
    pub(crate) is_pinned: bool,
}

impl Details {
    pub(crate) fn of(identity: Identity) -> Details {
        Details { identity, session: None, ended: false, is_pinned: false }
    }
}

/// What the machine answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Parents before their children. Not said of the root.
    Joined {
        member: Identity,
        parent: Option<Identity>,
    },
    Executed {
        member: Identity,
    },
    Left {
        member: Identity,
        status: ExitStatus,
    },
    /// A loss has been made up for. So many suspects are left.
    Resynced {
        suspects: usize,
    },
    /// All have ended. The last that is ever said.
    Empty,
}

impl Lineage {
    /// A tree of its root alone, which is a member from the start: no `Joined` is said of it. What is excluded never
    /// joins, nor does what that starts; it is to be alive, and not to have started within this very clock tick. With an
    /// exclusion sessions prove less, so only processes that can be inside the tree should be excluded; ancestors of the
    /// root are not, see [`set_adopters`](Lineage::set_adopters).
    pub(crate) fn new(root: Identity, exclude: impl IntoIterator<Item = Identity>) -> Lineage {
        let mut lineage = Lineage {
            root,
            known: BTreeMap::new(),
            members: 0,
            suspects: 0,
            exclusions: 0,
            adopters: BTreeSet::new(),
            spared: None,
            foreign: None,
            excludes: false,
            strangers: Vec::new(),
            lost: None,
            unseen: None,
            heard: root.start.map_or(0, |start| start.ticks),
            held: false,
            empty: false,
        };
        for mut identity in exclude {
            identity.settled = identity.start.is_some();
            lineage.excludes = true;
            lineage.insert(identity, Standing::Excluded);
        }
        lineage.insert(root, Standing::Member);
        lineage
    }

    /// From now on it is empty when [`finish`](Lineage::finish) says so, and never by itself: there can be members that
    /// are not told.
    pub(crate) fn hold(&mut self) {
        self.held = true;
    }

    /// The sessions that the root, and whatever it had started by then, were in when the tree began: all of them, those
    /// with a leader outside our PID namespace aside. Not to be called unless all are known: then sessions prove less.
    pub(crate) fn set_sessions(&mut self, sessions: impl IntoIterator<Item = Pid>) {
        self.foreign = Some(sessions.into_iter().collect());
    }

    /// Some that are known to be none of its members, though they may have started within the very clock tick.
    pub(crate) fn set_strangers(&mut self, strangers: impl IntoIterator<Item = Identity>) {
        self.strangers.clear();
        self.add_strangers(strangers);
    }

    /// Some more.
    pub(crate) fn add_strangers(&mut self, strangers: impl IntoIterator<Item = Identity>) {
        let since = self.heard.saturating_sub(YOUNG);
        let is_young = |one: &Identity| one.start.is_none_or(|start| start.ticks >= since);
        self.strangers.extend(strangers.into_iter().filter(is_young));
    }

    pub(crate) fn step(&mut self, input: Input<'_>, out: &mut Vec<Output>) {
        if self.empty {
            return;
        }
        match input {
            Input::Forked { parent, child } => self.forked(parent, child, out),
            Input::Executed { pid } => {
                // After a loss it may be somebody else who has the PID now.
                if let Some(&member) = self.member(pid).filter(|_| self.lost.is_none()) {
                    out.push(Output::Executed { member });
                }
            }
            Input::Found { member, parent } => self.found(member, parent, out),
            Input::Ended { pid, status } => self.remove(pid, status, out),
            Input::Lost { since } => self.lose(since),
            Input::Unseen { since } => {
                let since = self.lost.take().into_iter().chain(self.unseen).fold(since, u64::min);
                self.unseen = Some(since);
            }
            Input::Scanned { table, details, is_strange, began } => {
                if self.scanned(table, details, is_strange, began, out) {
                    self.heard = self.heard.max(began);
                    self.synchronised(out);
                }
            }
            Input::Census { alive } => {
                self.census(alive, out);
                self.synchronised(out);
            }
        }
        self.conclude(out);
    }

    /// The kernel has proven by other means that all have ended: a cgroup that is not populated, ECHILD for a subreaper.
    pub(crate) fn finish(&mut self, out: &mut Vec<Output>) {
        if self.empty {
            return;
        }
        for pid in self.known.keys().copied().collect::<Vec<_>>() {
            self.remove(pid, ExitStatus::Unknown, out);
        }
        (self.lost, self.unseen) = (None, None);
        self.held = false;
        self.conclude(out);
    }

    /// By PID.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Identity> {
        self.of(Standing::Member)
    }

    pub(crate) fn member(&self, pid: Pid) -> Option<&Identity> {
        self.known.get(&pid).filter(|known| known.standing == Standing::Member).map(|known| &known.identity)
    }

    /// Those of whom nothing is proven, by PID. Their ends and forks are to be told as members' are; who cannot do that
    /// tells the loss of events since the scan.
    pub(crate) fn suspects(&self) -> impl Iterator<Item = &Identity> {
        self.of(Standing::Suspect)
    }

    /// All of whom ends and forks are to be told, whatever they are.
    pub(crate) fn known(&self) -> impl Iterator<Item = &Identity> {
        self.known.values().map(|known| &known.identity)
    }

    pub(crate) fn knows(&self, pid: Pid) -> bool {
        self.known.contains_key(&pid)
    }

    pub(crate) fn has_members(&self) -> bool {
        self.members > 0
    }

    /// How many members there are.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn len(&self) -> usize {
        self.members
    }

    /// Whether it has been said that all have ended. That there is no member is less.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn is_empty(&self) -> bool {
        self.empty
    }

    /// Whether events are missing, so that not even those known are sure.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// From which tick on there may be members that are not known, so that a scan or a census is due; `u64::MAX` if none
    /// but those that are linked to one that is.
    pub(crate) fn missing_since(&self) -> Option<u64> {
        self.lost.into_iter().chain(self.unseen).min()
    }

    fn of(&self, standing: Standing) -> impl Iterator<Item = &Identity> {
        self.known.values().filter(move |known| known.standing == standing).map(|known| &known.identity)
    }

    fn forked(&mut self, parent: Pid, child: Identity, out: &mut Vec<Output>) {
        let Some(&maker) = self.known.get(&parent).filter(|_| parent != child.pid) else {
            return;
        };
        let standing = if self.lost.is_some() { Standing::Suspect } else { maker.standing };
        if let (None, Some(start)) = (self.lost, child.start) {
            // Stamped a little before it is told; another one may be stamped before it, and told after it.
            self.heard = self.heard.max(start.ticks.saturating_sub(1));
        }
        let Some(known) = self.known.get_mut(&child.pid) else {
            return self.admit(child, standing, Some(maker.identity), out);
        };
        let sameness = same(&known.identity, &child);
        // That the old bearer has ended, and the new one too if it is bare: then the end of both is told once.
        let other = match (known.standing, standing) {
            _ if sameness == Sameness::Different => true,
            // Told again, it would be told by the same parent; but those that were excluded at first were told by none.
            (Standing::Member, Standing::Excluded)
            | (Standing::Excluded, Standing::Member | Standing::Suspect) => sameness != Sameness::Same,
            (Standing::Suspect, Standing::Member | Standing::Excluded) => true,
            (Standing::Member, Standing::Suspect) => is_bare(&known.identity) && !is_bare(&child),
            _ => false,
        };
        if other {
            self.remove(child.pid, ExitStatus::Unknown, out);
            self.admit(child, standing, Some(maker.identity), out);
        } else if self.lost.is_none() || sameness == Sameness::Same {
            // After a loss, what is told of another one with this PID proves nothing of this one.
            known.identity = richer(known.identity, child);
        }
    }

    fn found(&mut self, member: Identity, parent: Option<Pid>, out: &mut Vec<Output>) {
        if let Some(known) = self.known.get_mut(&member.pid) {
            let is_other = is_bare(&known.identity) || same(&known.identity, &member) == Sameness::Different;
            match known.standing {
                Standing::Excluded if !is_other => return,
                Standing::Member if !is_other => {
                    known.identity = richer(known.identity, member);
                    return;
                }
                _ => self.remove(member.pid, ExitStatus::Unknown, out),
            }
        }
        let parent = parent.and_then(|parent| self.member(parent)).copied();
        if parent.is_none() {
            // Who knows in whose session it is.
            self.foreign = None;
        }
        self.admit(member, Standing::Member, parent, out);
    }

    fn lose(&mut self, since: u64) {
        // Whoever was told, or scanned, last proves that nothing was missing before.
        let since = since.max(self.heard.saturating_sub(YOUNG - 1));
        if self.lost.is_none() && since < u64::MAX {
            for known in self.known.values_mut().filter(|known| known.standing != Standing::Excluded) {
                // Its end would have been told, so it was alive then. Nobody promises that of the excluded.
                known.identity.settled |= known.identity.start.is_some_and(|start| start.ticks < since);
            }
        }
        self.lost = Some(self.lost.map_or(since, |lost| lost.min(since)));
    }

    fn census(&mut self, alive: &[(Identity, Option<Pid>)], out: &mut Vec<Output>) {
        let mut alive: BTreeMap<Pid, (Identity, Option<Pid>)> =
            alive.iter().map(|&(identity, parent)| (identity.pid, (identity, parent))).collect();
        for (pid, known) in self.known.clone() {
            let found = alive.get(&pid).map(|&(identity, _)| identity);
            let is_same = |found: &Identity| {
                let is_new = is_bare(&known.identity) && !is_bare(found);
                !is_new && same(&known.identity, found) != Sameness::Different
            };
            match (known.standing, found.filter(is_same)) {
                (Standing::Member, Some(identity)) => {
                    self.enrich(pid, identity);
                    alive.remove(&pid);
                }
                (Standing::Excluded, Some(found)) => {
                    alive.remove(&pid);
                    if same(&known.identity, &found) == Sameness::Unknown {
                        self.remove(pid, ExitStatus::Unknown, out);
                        self.insert(found, Standing::Suspect);
                    }
                }
                // It is not for the census to tell what became of it, unless somebody else has its PID.
                (Standing::Excluded, None) if found.is_none() => {}
                _ => self.remove(pid, ExitStatus::Unknown, out),
            }
        }
        self.join(&alive, out);
    }

    /// Parents before their children.
    fn join(&mut self, found: &BTreeMap<Pid, (Identity, Option<Pid>)>, out: &mut Vec<Output>) {
        for &pid in found.keys() {
            let mut path = Vec::new();
            let mut next = Some(pid);
            while let Some((pid, &(identity, parent))) = next.and_then(|pid| found.get_key_value(&pid)) {
                if self.known.contains_key(pid) || path.len() == found.len() {
                    break;
                }
                path.push((identity, parent));
                next = parent;
            }
            for (identity, parent) in path.into_iter().rev() {
                if !self.known.contains_key(&identity.pid) {
                    let parent = parent.and_then(|parent| self.member(parent)).copied();
                    self.admit(identity, Standing::Member, parent, out);
                }
            }
        }
    }

    /// More is known of the one that is known under this PID.
    pub(crate) fn enrich(&mut self, pid: Pid, identity: Identity) {
        if let Some(known) = self.known.get_mut(&pid) {
            if known.identity == self.root {
                self.root = richer(self.root, identity);
            }
            known.identity = richer(known.identity, identity);
        }
    }

    /// Whether somebody with this PID is known to be none of its members only by when it started, and was last seen in
    /// that very tick: to whoever goes on with the lineage it proves nothing.
    pub(crate) fn has_young_stranger(&self, pid: Pid) -> bool {
        let is_young = |one: &Identity| one.pid == pid && one.unique.is_none() && !one.settled;
        self.strangers.iter().any(is_young)
    }

    /// More is known of the stranger that this one is.
    pub(crate) fn enrich_stranger(&mut self, seen: Identity) {
        let is_it = |one: &&mut Identity| one.pid == seen.pid && one.start == seen.start;
        self.strangers.iter_mut().filter(is_it).for_each(|one| *one = richer(*one, seen));
    }

    fn admit(
        &mut self,
        identity: Identity,
        standing: Standing,
        parent: Option<Identity>,
        out: &mut Vec<Output>,
    ) {
        self.insert(identity, standing);
        if standing == Standing::Member {
            out.push(Output::Joined { member: identity, parent });
        }
    }

    fn remove(&mut self, pid: Pid, status: ExitStatus, out: &mut Vec<Output>) {
        if let Some(Known { identity, standing: Standing::Member, .. }) = self.drop_known(pid) {
            out.push(Output::Left { member: identity, status });
        }
    }

    /// Nothing is missing any more.
    fn synchronised(&mut self, out: &mut Vec<Output>) {
        if self.lost.take().or(self.unseen.take()).is_some() {
            out.push(Output::Resynced { suspects: self.suspects });
        }
    }

    fn conclude(&mut self, out: &mut Vec<Output>) {
        let is_known = self.missing_since().is_none();
        if self.members == 0 && self.suspects == 0 && is_known && !self.held && !self.empty {
            self.empty = true;
            out.push(Output::Empty);
        }
    }

    fn insert(&mut self, identity: Identity, standing: Standing) {
        self.drop_known(identity.pid);
        self.known.insert(identity.pid, Known { identity, standing });
        *self.count(standing) += 1;
    }

    fn drop_known(&mut self, pid: Pid) -> Option<Known> {
        let known = self.known.remove(&pid)?;
        *self.count(known.standing) -= 1;
        Some(known)
    }

    fn count(&mut self, standing: Standing) -> &mut usize {
        match standing {
            Standing::Member => &mut self.members,
            Standing::Suspect => &mut self.suspects,
            Standing::Excluded => &mut self.exclusions,
        }
    }
}

/// Nobody could look at it before it had ended.
fn is_bare(identity: &Identity) -> bool {
    identity.unique.is_none() && identity.start.is_none()
}

/// As [`Identity::same_process`], between identities of one machine's one observer: where the boot or the PID namespace
/// could not be read, it is one all the same.
fn same(a: &Identity, b: &Identity) -> Sameness {
    let sameness = a.same_process(b);
    let one_world = a.boot == b.boot && a.pid_namespace == b.pid_namespace && a.pid == b.pid;
    if sameness != Sameness::Unknown || !one_world {
        return sameness;
    }
    let one_unique = a.unique.is_some() && a.unique == b.unique;
    let one_start = a.unique.is_none() || b.unique.is_none();
    if one_unique || (one_start && a.settled && b.settled && a.start.is_some() && a.start == b.start) {
        Sameness::Same
    } else {
        Sameness::Unknown
    }
}

/// The one that says more; of two that say the same, the later.
fn richer(known: Identity, told: Identity) -> Identity {
    let says = |identity: &Identity| (identity.unique.is_some(), identity.start.is_some(), identity.settled);
    if says(&told) >= says(&known) { told } else { known }
}

#[cfg(test)]
mod tests;
