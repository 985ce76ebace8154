//! Scans of the process table, for trees that nobody tells of, and after a loss.
//!
//! Reading who is whose takes long, and somebody may be forked meanwhile. So that is done first, once for all trees that
//! are due, and without the lock; what has to be done while nobody is forked is to list who is there now, and to ask
//! those that are new.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::pid::Pid;
use crate::process::Process;
use crate::state::State;
use crate::sys;
use crate::tree::engine::{Engine, Inner};
use crate::tree::evidence::{self, Wanted};
use crate::tree::follow::{Follow, Source};
use crate::tree::hear::bare;
use crate::tree::lineage::{Details, Input, Row, YOUNG};
use crate::tree::look::expect_orphans;

/// How often a scan is tried at once, while others fork.
const TRIES: usize = 16;
/// Scans take at most this share of one processor: one in so many.
const SHARE: u32 = 20;
/// A start is stamped before it is told, and processors do not agree on the time to the tick.
const STAMPED: u64 = 2;
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);

/// What was read of the process table while others may have forked.
struct Survey {
    /// How far the creation of processes had come before.
    forks: sys::Forks,
    parents: Parents,
    /// Those that had started some time before. Asked if there was no scan before that shows who was there.
    old: HashSet<(Pid, u64)>,
    /// Those that carry what proves them to be of a tree.
    carriers: Vec<(u64, Process)>,
}

/// Of whoever was listed, the parent; by the PID, and the number of the entry, which another one with that PID has not.
#[derive(Debug, Default)]
struct Parents(HashMap<Pid, (u64, Option<Pid>)>);

impl Parents {
    /// A table of those that are listed now, and who of them had not been asked before.
    fn ask(&mut self, entries: Vec<(Pid, u64)>) -> Result<(Vec<Row>, Vec<Pid>)> {
        let mut table = Vec::with_capacity(entries.len());
        let mut new = Vec::new();
        let fresh = entries.iter().filter(|(pid, entry)| !self.has(*pid, *entry));
        let fresh: HashSet<Pid> = fresh.map(|(pid, _)| *pid).collect();
        // The child of one is not that of another one who was given its PID.
        let is_other = |pid: &Pid| fresh.contains(pid);
        self.0.retain(|pid, (_, parent)| !is_other(pid) && !parent.as_ref().is_some_and(is_other));
        for (pid, entry) in entries {
            let parent = match self.0.get(&pid) {
                Some((_, parent)) => *parent,
                None => match sys::parent_of(pid) {
                    Ok(parent) => {
                        new.push(pid);
                        self.0.insert(pid, (entry, parent));
                        parent
                    }
                    Err(error) if error.is_gone() || error.is_thread() || error.is_denied() => continue,
                    Err(error) => return Err(error),
                },
            };
            table.push(Row { pid, parent });
        }
        Ok((table, new))
    }

    fn has(&self, pid: Pid, entry: u64) -> bool {
        self.0.get(&pid).is_some_and(|(known, _)| *known == entry)
    }
}

impl Survey {
    fn read(wanted: &[Wanted], is_first: bool) -> Result<Survey> {
        let (forks, began) = (forks()?, sys::ticks_at(sys::monotonic()));
        let mut parents = Parents::default();
        let entries = sys::entries()?;
        let is_old = |(pid, _): &(Pid, u64)| {
            let start = Process::open(*pid).ok().and_then(|process| process.identity().start_time());
            start.is_some_and(|start| start.ticks + YOUNG < began)
        };
        let old = if is_first { entries.iter().copied().filter(is_old).collect() } else { HashSet::new() };
        let listed = parents.ask(entries)?.1;
        let carriers = evidence::search(wanted, listed)?;
        Ok(Survey { forks, parents, old, carriers })
    }
}

impl Engine {
    /// Reads the process table for these trees, until that proves something or a few times; and later again if it does not.
    pub(super) fn scan(&self, keys: &[u64]) {
        let started = Instant::now();
        let inner = self.lock();
        let mut keys = keys.to_vec();
        inner.retain_scanned(&mut keys);
        let wanted = inner.wanted(&keys);
        let is_first = |follow: &Follow| follow.is_polled() && follow.listed.is_empty();
        let is_first = keys.iter().any(|key| is_first(&inner.trees[key]));
        drop(inner);
        if keys.is_empty() {
            return;
        }
        let survey = Survey::read(&wanted, is_first);
        let mut inner = self.lock();
        let scanned = survey.and_then(|survey| inner.scan(survey, keys.clone()));
        let pause = (started.elapsed() * SHARE).clamp(SHORTEST, LONGEST);
        inner.retain_scanned(&mut keys);
        for key in keys {
            if let Err(error) = &scanned {
                inner.tree(key).fail(error.again());
            }
            let follow = inner.tree(key);
            let again = follow.needs_scan();
            if !again {
                follow.young.clear();
            }
            follow.set_due(again.then(|| Instant::now() + pause));
        }
        inner.check_sources();
    }
}

impl Inner {
    /// Those of these trees that are still there and not over.
    fn retain_scanned(&self, keys: &mut Vec<u64>) {
        keys.retain(|key| self.trees.get(key).is_some_and(|follow| follow.emptied.is_none()));
    }

    fn wanted(&self, keys: &[u64]) -> Vec<Wanted> {
        keys.iter().map(|key| (*key, self.trees[key].evidence.clone())).collect()
    }

    /// Goes on from the survey, until nobody was forked meanwhile; where others do not stop forking, finds who it can.
    fn scan(&mut self, mut survey: Survey, mut keys: Vec<u64>) -> Result<()> {
        self.carry(&mut keys, &survey.carriers);
        for _ in 0..TRIES {
            let before = forks()?;
            if !before.reuse_none_since(&survey.forks) {
                break;
            }
            let began = sys::ticks_at(sys::monotonic());
            // Everything that was forked before has been told by now.
            self.take_notices();
            self.retain_scanned(&mut keys);
            // Whoever is in the cgroup of one is a member, orphan or not.
            self.each(&mut keys, Inner::list_cgroup);
            self.each(&mut keys, Inner::bury);
            let followed = self.followed(&keys);
            if !self.scan_once(&mut keys, &mut survey, &before, began)? {
                continue;
            }
            let lost = |inner: &mut Inner, key| {
                let since = began.saturating_sub(STAMPED);
                inner.step(key, Input::Lost { since }, sys::monotonic());
            };
            // Of those that are known by now, all is told from here on.
            let unseen = |inner: &mut Inner, key| {
                let since = began.saturating_sub(STAMPED);
                inner.step(key, Input::Unseen { since }, sys::monotonic());
            };
            self.each(&mut keys, |inner, key| {
                inner.tree(key).untracked = false;
                // What one that is not heard of does is missing.
                inner.mind_all(key).inspect_err(|_| lost(inner, key))
            });
            self.retain_scanned(&mut keys);
            // Whoever was not followed may have forked before the connector was told to follow it.
            let now = self.followed(&keys);
            keys.retain(|key| now.iter().any(|one| one.1 == *key && !followed.contains(one)));
            if keys.is_empty() || none_came(&before, &survey.parents)? {
                return Ok(());
            }
            keys.iter().for_each(|key| unseen(self, *key));
        }
        self.retain_scanned(&mut keys);
        // Too many may have been forked for any of that.
        self.each(&mut keys, Inner::list_cgroup);
        self.each(&mut keys, Inner::walk);
        Ok(())
    }

    /// Does this to each of these trees, and tells those of whom it fails: that is no trouble of the others.
    fn each(&mut self, keys: &mut Vec<u64>, act: impl Fn(&mut Inner, u64) -> Result<()>) {
        keys.retain(|&key| match act(self, key) {
            Ok(()) => true,
            Err(error) => {
                self.tree(key).fail(error);
                false
            }
        });
    }

    /// One table, in which nobody was forked from `before` until its last question was answered; or false, and nothing
    /// has come of it.
    fn scan_once(
        &mut self,
        keys: &mut Vec<u64>,
        survey: &mut Survey,
        before: &sys::Forks,
        began: u64,
    ) -> Result<bool> {
        let listed_from = sys::monotonic();
        let entries = sys::entries()?;
        let listed: Arc<HashSet<(Pid, u64)>> = Arc::new(entries.iter().copied().collect());
        let (table, new) = survey.parents.ask(entries)?;
        let carriers = evidence::search(&self.wanted(keys), new)?;
        self.carry(keys, &carriers);
        // What is asked for by the way has to be of the same moment: so it is tried on copies first.
        let mut tried = Vec::with_capacity(keys.len());
        let mut asked = HashMap::new();
        for key in keys.iter() {
            let follow = &self.trees[key];
            let trouble = RefCell::new(None);
            // Without it, they are in doubt.
            let inside = match &follow.source {
                Source::Cgroup(cgroup) => cgroup.members().unwrap_or_default(),
                _ => Vec::new(),
            };
            let mut details = |pid: Pid| {
                let details = details_of(pid, follow, &mut asked).map(|details| {
                    // Or it is another one, and a member as well.
                    details.map(|details| Details {
                        is_pinned: details.is_pinned || inside.contains(&pid),
                        ..details
                    })
                });
                details.unwrap_or_else(|error| {
                    trouble.replace(Some(error));
                    // Not to be told from a member: it holds emptiness back.
                    Some(Details::of(bare(pid)))
                })
            };
            let mut is_strange = |pid: Pid| {
                evidence::is_missed(&follow.evidence, pid).unwrap_or_else(|error| {
                    trouble.replace(Some(error));
                    false
                })
            };
            let mut lineage = follow.lineage.clone();
            expect_orphans(&mut lineage);
            let (mut outputs, mut young) = (Vec::new(), Vec::new());
            let (details, is_strange) = (&mut details, &mut is_strange);
            lineage.step(Input::Scanned { table: &table, details, is_strange, began }, &mut outputs);
            if follow.is_polled() {
                // Strangers by those above them. Orphaned before the next scan, they could be anybody's by then.
                // Of one whose parent could not be read, nothing is shown.
                let is_judged =
                    |one: &&(Pid, u64)| survey.parents.has(one.0, one.1) && !survey.old.contains(*one);
                let come = listed.difference(&follow.listed).filter(is_judged).map(|(pid, _)| *pid);
                let strangers: Vec<Pid> = come.filter(|pid| !lineage.knows(*pid)).collect();
                // Whoever cannot be looked at is not remembered: the scan is none the worse.
                let seen = strangers.iter().filter_map(|pid| details_of(*pid, follow, &mut asked).ok()?);
                let seen = seen.filter(|details| !details.ended);
                lineage.add_strangers(seen.map(|details| details.identity));
                let is_unsure = |pid: &Pid| lineage.has_young_stranger(*pid) && follow.pinned(*pid).is_none();
                let unsure = strangers.into_iter().filter(is_unsure);
                young.extend(unsure.filter_map(|pid| Process::open(pid).ok()));
            }
            if let Some(error) = trouble.into_inner() {
                return Err(error);
            }
            tried.push((*key, lineage, outputs, young));
        }
        if !none_came(before, &survey.parents)? {
            return Ok(false);
        }
        let at = sys::monotonic();
        for (key, lineage, outputs, young) in tried {
            self.replace(key, lineage, outputs, at);
            let follow = self.tree(key);
            follow.young.extend(young);
            let lineage = &follow.lineage;
            follow.young.retain(|one| lineage.has_young_stranger(one.pid()));
            follow.proven = listed_from;
            follow.listed = Arc::clone(&listed);
            if follow.emptied.is_none() && follow.is_polled() {
                // Whatever is forked from now on is not told by anybody.
                self.step(key, Input::Lost { since: began.saturating_sub(STAMPED) }, at);
            }
        }
        Ok(true)
    }

    /// Those that prove by what they carry to be members, where the connector tells of all others.
    pub(super) fn search(&mut self, key: u64) -> Result<()> {
        for _ in 0..TRIES {
            self.take_notices();
            let wanted = self.wanted(&[key]);
            let seen = self.tree(key).seen;
            for (_, process) in evidence::search(&wanted, sys::listing()?)? {
                self.found(key, std::slice::from_ref(&process))?;
            }
            if self.tree(key).seen == seen {
                break;
            }
        }
        self.tree(key).trouble.take().map_or(Ok(()), Err)
    }

    /// These are members, by what they carry. A tree of which one could not be entered cannot be scanned.
    fn carry(&mut self, keys: &mut Vec<u64>, carriers: &[(u64, Process)]) {
        self.retain_scanned(keys);
        self.each(keys, |inner, key| {
            let mut carriers = carriers.iter().filter(|(of, _)| *of == key);
            carriers.try_for_each(|(_, process)| inner.found(key, std::slice::from_ref(process)))
        });
    }

    /// Of whom the connector tells, for these trees.
    fn followed(&self, keys: &[u64]) -> HashSet<(Pid, u64)> {
        self.told.iter().filter(|(_, key)| keys.contains(key)).copied().collect()
    }

    /// Whoever is, or may be, a member has to be heard of: after a loss nobody may be.
    fn mind_all(&mut self, key: u64) -> Result<()> {
        let lineage = &self.tree(key).lineage;
        let all: Vec<Identity> = lineage.members().chain(lineage.suspects()).copied().collect();
        all.iter().try_for_each(|one| self.mind(key, one))
    }
}

/// Whether nobody came since `before` but `listed`, who were listed after it.
fn none_came(before: &sys::Forks, listed: &Parents) -> Result<bool> {
    let now = forks()?;
    if now.none_since(before) {
        return Ok(true);
    }
    // Others fork in other PID namespaces. But somebody here may have had a PID, and not have been there to be listed; the
    // parent, which was, may have ended before it was asked. Then the child is there now.
    Ok(now.none_given_since(before) && sys::entries()?.iter().all(|(pid, entry)| listed.has(*pid, *entry)))
}

/// How far the creation of processes has come; an error where nobody counts.
pub(super) fn forks() -> Result<sys::Forks> {
    sys::forks()?.ok_or_else(|| {
        Error::unsupported(
            None,
            "scan for the members of a process tree",
            "nobody counts forks here (/proc/stat), so that no scan can be proven",
        )
    })
}

/// The tick until which everything is told that the kernel has told by this moment of the monotonic clock.
pub(super) fn told_until(monotonic: u64) -> u64 {
    sys::ticks_at(monotonic).saturating_sub(STAMPED)
}

/// `asked`: of whom it was asked before.
fn details_of(
    pid: Pid,
    follow: &Follow,
    asked: &mut HashMap<Pid, Option<Details>>,
) -> Result<Option<Details>> {
    // Held all the time since it became known, and not reaped: nobody else can have its PID.
    if let Some(process) = follow.pinned(pid) {
        if let Some(details) = details_of_process(process)? {
            return Ok(Some(Details { is_pinned: true, ..details }));
        }
    }
    if let Some(details) = asked.get(&pid) {
        return Ok(*details);
    }
    let details = match Process::open(pid) {
        Ok(process) => details_of_process(&process)?,
        Err(error) if error.is_gone() || error.is_thread() => None,
        Err(error) => return Err(error),
    };
    Ok(*asked.entry(pid).or_insert(details))
}

fn details_of_process(process: &Process) -> Result<Option<Details>> {
    let session = sys::session_of(process.pid());
    let identity = *process.identity();
    let state = process.state()?;
    let ended = state == State::Zombie;
    Ok((state != State::Gone).then_some(Details { session, ended, ..Details::of(identity) }))
}
