//! A proven table, and what it proves.

use std::collections::{BTreeMap, BTreeSet};

use super::{Details, Lineage, Output, Row, Standing, is_bare, richer, same};
use crate::identity::{Identity, Sameness};
use crate::pid::Pid;
use crate::state::ExitStatus;

/// Whose a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ours,
    Excluded,
    Stranger,
    Unsure,
    /// It had ended, or its place was not in the table any more: who its parent was is not known, nor who its children's.
    Ended,
}

/// A loss that is told after a scan goes back behind the scan by fewer ticks than that.
pub(in crate::tree) const YOUNG: u64 = 8;

struct Scan<'a> {
    parents: BTreeMap<Pid, Option<Pid>>,
    details: &'a mut dyn FnMut(Pid) -> Option<Details>,
    asked: BTreeMap<Pid, Option<Details>>,
    /// Of those that are not judged by their parent.
    verdicts: BTreeMap<Pid, Verdict>,
    /// Of each row, the one above it (or itself) that it is judged by.
    tops: BTreeMap<Pid, Pid>,
    /// Known, and not proven to be the same or another: when they started says nothing of whose they are.
    in_doubt: BTreeSet<Pid>,
    /// Something could not be read.
    unreadable: bool,
}

impl Lineage {
    /// Returns whether it makes up for what is missing.
    pub(super) fn scanned(
        &mut self,
        table: &[Row],
        details: &mut dyn FnMut(Pid) -> Option<Details>,
        is_strange: &mut dyn FnMut(Pid) -> bool,
        began: u64,
        out: &mut Vec<Output>,
    ) -> bool {
        let mut scan = Scan {
            parents: table.iter().map(|row| (row.pid, row.parent)).collect(),
            details,
            asked: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            tops: BTreeMap::new(),
            in_doubt: BTreeSet::new(),
            unreadable: false,
        };
        let gone = self.recognise(&mut scan);
        for pid in scan.pids() {
            self.place(&mut scan, pid);
        }
        self.by_session(&mut scan);
        for pid in scan.with(Verdict::Unsure) {
            if self.member(pid).is_none() && is_strange(pid) {
                scan.verdicts.insert(pid, Verdict::Stranger);
            }
        }
        for pid in gone {
            self.remove(pid, ExitStatus::Unknown, out);
        }
        if !scan.unreadable {
            let strangers = scan.with(Verdict::Stranger).into_iter();
            let strangers = strangers.filter_map(|pid| scan.asked.get(&pid).copied().flatten());
            let is_young = |one: &Identity| one.start.is_none_or(|start| start.ticks + YOUNG >= began);
            let young = strangers.map(|details| details.identity).filter(is_young);
            // Whoever was seen when its first tick was over is the one that is there: another one would have started later.
            let is_it = |known: &&Identity, seen: &Identity| {
                known.settled && known.pid == seen.pid && known.start == seen.start
            };
            let known = std::mem::take(&mut self.strangers);
            let as_known =
                |seen| known.iter().find(|one| is_it(one, &seen)).map_or(seen, |one| richer(*one, seen));
            self.strangers = young.map(as_known).collect();
            // Judged by those above them.
            let is_unasked =
                |one: &Identity| scan.parents.contains_key(&one.pid) && !scan.asked.contains_key(&one.pid);
            self.strangers.extend(known.iter().filter(|one| is_young(one) && is_unasked(one)));
        }
        self.conclude_known(&mut scan, out);
        self.add(&mut scan, out);
        !scan.unreadable
    }

    /// Which of those known are in the table. Returns those that are not there any more.
    fn recognise(&self, scan: &mut Scan<'_>) -> Vec<Pid> {
        let mut gone = Vec::new();
        for (&pid, known) in &self.known {
            let listed = scan.parents.contains_key(&pid);
            let verdict = match known.standing {
                Standing::Member => Some(Verdict::Ours),
                Standing::Excluded => Some(Verdict::Excluded),
                Standing::Suspect => None,
            };
            // Somebody bare had ended before; whoever has its PID now is somebody else.
            if is_bare(&known.identity) {
                gone.push(pid);
                continue;
            }
            // Nobody's end is missing. That of somebody excluded may be, who was not followed before all were known.
            let is_sure = known.standing != Standing::Excluded || self.unseen.is_none();
            if self.lost.is_none() && is_sure {
                match verdict {
                    Some(verdict) => drop(scan.verdicts.insert(pid, verdict)),
                    None => drop(scan.in_doubt.insert(pid)),
                }
                continue;
            }
            let Some(details) = (if listed { scan.ask(pid) } else { None }) else {
                if listed {
                    // Whether what stands below it was started by it, or by another one that had its PID, is not known.
                    scan.verdicts.insert(pid, Verdict::Ended);
                }
                gone.push(pid);
                continue;
            };
            let same =
                if details.is_pinned { Sameness::Same } else { same(&known.identity, &details.identity) };
            match (same, verdict) {
                _ if is_bare(&details.identity) => {
                    // Unreadable is not absent.
                    match verdict {
                        Some(verdict) => drop(scan.verdicts.insert(pid, verdict)),
                        None => drop(scan.in_doubt.insert(pid)),
                    }
                    continue;
                }
                (Sameness::Different, _) => {
                    gone.push(pid);
                    continue;
                }
                (Sameness::Same, Some(verdict)) => {
                    scan.verdicts.insert(pid, verdict);
                }
                // Within one tick two can have had the PID; and what cannot be compared can be of either.
                (Sameness::Same | Sameness::Unknown, _) => {
                    scan.in_doubt.insert(pid);
                }
            }
            if details.ended {
                gone.push(pid);
            }
        }
        gone
    }

    /// Finds by whom a row is judged, and judges that one as far as itself tells.
    fn place(&self, scan: &mut Scan<'_>, pid: Pid) {
        let mut path = Vec::new();
        let mut at = pid;
        let top = loop {
            if scan.verdicts.contains_key(&at) {
                break at;
            }
            if let Some(&top) = scan.tops.get(&at) {
                break top;
            }
            path.push(at);
            let parent = scan.parents.get(&at).copied().flatten();
            let steps = path.len();
            let mut tells = |parent| !self.is_above(scan, at) && !self.is_question(scan, parent, steps);
            let Some(parent) = parent.filter(|&parent| tells(parent)) else {
                let verdict = self.judge(scan, at);
                scan.verdicts.insert(at, verdict);
                if verdict == Verdict::Ended && at != pid {
                    path.clear();
                    at = pid;
                    continue;
                }
                break at;
            };
            at = parent;
        };
        scan.tops.extend(path.into_iter().map(|pid| (pid, top)));
    }

    /// Whether this parent leaves open who made its child: it is given orphans, or it has ended meanwhile. A circle is
    /// no proof either.
    fn is_question(&self, scan: &mut Scan<'_>, parent: Pid, steps: usize) -> bool {
        match scan.verdicts.get(&parent) {
            Some(Verdict::Ours | Verdict::Excluded) => false,
            Some(Verdict::Ended) => true,
            _ if parent.get() == 1 || !scan.parents.contains_key(&parent) => true,
            _ => self.is_above(scan, parent) || steps > scan.parents.len(),
        }
    }

    /// Whether it can be an ancestor of the root. That one is no member, and not all of its children are of its own making;
    /// so it is not excluded either, though it may have been started by somebody who is.
    fn is_above(&self, scan: &mut Scan<'_>, pid: Pid) -> bool {
        let is_later = |details: Details| self.root.started_before(&details.identity);
        self.adopters.contains(&pid) && !scan.ask(pid).is_some_and(is_later)
    }

    /// Of one whose parent does not tell.
    fn judge(&self, scan: &mut Scan<'_>, pid: Pid) -> Verdict {
        let in_doubt = scan.in_doubt.contains(&pid);
        let since = match self.missing_since() {
            // All forks have been told: it is a stranger, or the zombie of a member, which matters to suspects alone.
            None if scan.in_doubt.is_empty() => return Verdict::Stranger,
            since => since.unwrap_or(u64::MAX),
        };
        let Some(details) = scan.ask(pid) else {
            return Verdict::Ended;
        };
        if same(&self.root, &details.identity) == Sameness::Same {
            return Verdict::Ours;
        }
        if details.ended {
            return Verdict::Ended;
        }
        if details.is_pinned && self.adopters.contains(&pid) {
            // An ancestor of the root.
            return Verdict::Stranger;
        }
        let was_stranger = |one: &Identity| {
            let is_held = details.is_pinned && one.pid == pid && one.start == details.identity.start;
            is_held || same(one, &details.identity) == Sameness::Same
        };
        if !in_doubt && self.strangers.iter().any(was_stranger) {
            return Verdict::Stranger;
        }
        // All those that were members, or could have been, were known by then.
        let older =
            self.missing_since().is_none() || details.identity.start.is_some_and(|start| start.ticks < since);
        if older && !in_doubt { Verdict::Stranger } else { Verdict::Unsure }
    }

    /// What sessions prove. Nobody joins one but by being forked into it, and its number is nobody else's PID while
    /// somebody is in it. So it was made by the last process that had this PID: if that is in the table, by that one.
    /// And one that a member is in was made by a member, if it is none of those that the tree began in.
    ///
    /// That a member *had* this PID once proves nothing: it can be a stranger's since.
    fn by_session(&self, scan: &mut Scan<'_>) {
        let mut unsure: Vec<Pid> = scan.with(Verdict::Unsure);
        if unsure.is_empty() {
            return;
        }
        let (mut ours, mut strange) = (BTreeSet::new(), BTreeSet::new());
        // In a session with a member and somebody excluded, orphans can be of either.
        if let Some(foreign) = self.foreign.as_ref().filter(|_| !self.excludes) {
            let members: Vec<Pid> = scan.placed(Verdict::Ours);
            ours.extend(members.into_iter().filter_map(|pid| scan.session(pid)));
            // What could not be proven once is not worth reading the whole table again.
            if unsure.iter().any(|pid| !scan.in_doubt.contains(pid)) {
                let strangers: Vec<Pid> = scan.placed(Verdict::Stranger);
                strange.extend(strangers.into_iter().filter_map(|pid| scan.session(pid)));
            }
            // The root's own is of its making, whoever else of its making was orphaned in it before the tree began.
            ours.retain(|&session| session == self.root.pid || !foreign.contains(&session));
        }
        loop {
            let before = unsure.len();
            unsure.retain(|&pid| {
                let Some(session) = scan.session(pid).filter(|&session| session != pid) else {
                    return true;
                };
                let is_foreign = self.foreign.as_ref().is_none_or(|foreign| foreign.contains(&session));
                let verdict = match scan.verdict(session) {
                    Some(Verdict::Ours) if !self.excludes => Verdict::Ours,
                    Some(Verdict::Stranger | Verdict::Excluded) if !is_foreign => Verdict::Stranger,
                    _ if ours.contains(&session) => Verdict::Ours,
                    _ if !is_foreign && strange.contains(&session) => Verdict::Stranger,
                    _ => return true,
                };
                scan.verdicts.insert(pid, verdict);
                false
            });
            if unsure.len() == before {
                return;
            }
        }
    }

    fn conclude_known(&mut self, scan: &mut Scan<'_>, out: &mut Vec<Output>) {
        for (pid, known) in self.known.clone() {
            let Some(verdict) = scan.verdict(pid) else {
                continue;
            };
            let seen = scan.asked.get(&pid).copied().flatten().map(|details| details.identity);
            match (known.standing, verdict) {
                (Standing::Member, Verdict::Ours)
                | (Standing::Suspect, Verdict::Unsure)
                | (Standing::Excluded, Verdict::Excluded) => {
                    if let Some(identity) = seen {
                        self.enrich(pid, identity);
                    }
                }
                // What it proves to be, it becomes with the new ones.
                _ => self.remove(pid, ExitStatus::Unknown, out),
            }
        }
    }

    /// Those that were not known.
    fn add(&mut self, scan: &mut Scan<'_>, out: &mut Vec<Output>) {
        let mut joined = BTreeMap::new();
        for pid in scan.pids() {
            let standing = match scan.verdict(pid) {
                Some(Verdict::Ours) => Standing::Member,
                Some(Verdict::Unsure) => Standing::Suspect,
                Some(Verdict::Excluded) => Standing::Excluded,
                _ => continue,
            };
            if self.known.contains_key(&pid) {
                continue;
            }
            match scan.ask(pid).filter(|details| !details.ended) {
                Some(Details { identity, .. }) if standing == Standing::Member && !is_bare(&identity) => {
                    joined.insert(pid, (identity, scan.parents[&pid]));
                }
                Some(Details { identity, .. }) if standing == Standing::Excluded => {
                    self.insert(identity, standing);
                }
                Some(Details { identity, .. }) => self.insert(identity, Standing::Suspect),
                None => {}
            }
        }
        self.join(&joined, out);
    }
}

impl Scan<'_> {
    fn pids(&self) -> Vec<Pid> {
        self.parents.keys().copied().collect()
    }

    /// Once of each process.
    fn ask(&mut self, pid: Pid) -> Option<Details> {
        if let Some(&details) = self.asked.get(&pid) {
            return details;
        }
        let details = (self.details)(pid).filter(|details| details.identity.pid == pid);
        self.unreadable |= details.is_some_and(|details| is_bare(&details.identity) && !details.ended);
        self.asked.insert(pid, details);
        details
    }

    fn session(&mut self, pid: Pid) -> Option<Pid> {
        self.ask(pid).filter(|details| !details.ended)?.session
    }

    fn verdict(&self, pid: Pid) -> Option<Verdict> {
        let top = self.tops.get(&pid).unwrap_or(&pid);
        self.verdicts.get(top).copied()
    }

    fn with(&self, verdict: Verdict) -> Vec<Pid> {
        self.verdicts.iter().filter(|(_, found)| **found == verdict).map(|(&pid, _)| pid).collect()
    }

    fn placed(&self, verdict: Verdict) -> Vec<Pid> {
        self.parents.keys().copied().filter(|&pid| self.verdict(pid) == Some(verdict)).collect()
    }
}
