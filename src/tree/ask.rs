//! Of many trees at once: which of them is this process a member of? One lock, and the kernel's events are taken in once.
//!
//! Whoever is pinned and runs had been forked before the question: so after everything that was told by then has been taken
//! in, a tree of which every fork is told knows its member, and whom it does not know is none. Where forks are not told,
//! the trees are asked by what they go by, and never believed beyond that.

use std::collections::HashSet;
use std::ptr;
use std::time::Duration;

use crate::ancestry;
use crate::error::{Error, Result};
use crate::identity::{Identity, Sameness};
use crate::pid::Pid;
use crate::process::Process;
use crate::state::State;
use crate::sys;
use crate::tree::Tree;
use crate::tree::engine::{Engine, Inner, Locked};
use crate::tree::evidence::Proof;
use crate::tree::follow::{Follow, Source};
use crate::tree::lineage::{Input, Lineage};
use crate::tree::look::expect_orphans;

/// What is known of one process.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The trees that it is a member of, by their place among those that were asked.
    pub(crate) inside: Vec<usize>,
    /// That is how it stays for as long as the process lives. If not, its fork may be under way: the child can be seen
    /// before it runs, and before its fork is told.
    pub(crate) settled: bool,
}

/// The same trees are scanned so many times, if events are lost meanwhile.
const SCANS: usize = 3;
/// Whoever is older has been told of, if that is ever told.
const GROWN: Duration = Duration::from_secs(1);

const TRIED: &str = "find the tree of process";
const DOUBT: &str = "processes are started faster than it can be told whether it is in one of the trees, \
                     of which the kernel tells nothing here; try again";
const SUSPECT: &str = "it may be an orphan of one of the trees, and nothing proves whose it is; \
                       evidence that the members carry would (TreeBuilder::evidence)";

/// Whether the process that has this PID runs and is in this tree.
pub(super) fn contains(tree: &Tree, pid: Pid) -> Result<bool> {
    let process = match Process::open(pid) {
        Ok(process) => process,
        Err(error) if error.is_gone() || error.is_thread() => return Ok(false),
        Err(error) => return Err(error),
    };
    // Whoever is in it stays in it, orphaned or not: so it is to be known, where nobody tells of it.
    let is_polled = tree.follower.with_members(|follow| follow.is_polled());
    let answer = which_contain([tree].into_iter(), &process, |_, _| true);
    // Once it has ended, the tree does not know it any more.
    if process.state()? != State::Running {
        return Ok(false);
    }
    let contains = !answer?.inside.is_empty();
    if contains && is_polled {
        let mut inner = tree.follower.engine.lock();
        inner.found(tree.follower.key, std::slice::from_ref(&process))?;
    }
    Ok(contains)
}

/// Asks these trees. The process is to run, still, after the answer; otherwise that is worth nothing. `matters`: whether it
/// is of interest if it is in one of them, given those that it is in for sure.
///
/// # Errors
///
/// [`is_unstable`](Error::is_unstable) if it may be a member of one and nothing proves it, nor the contrary; and what the
/// kernel refused.
pub(crate) fn which_contain<'t>(
    trees: impl Iterator<Item = &'t Tree> + Clone,
    process: &Process,
    matters: impl Fn(&[usize], usize) -> bool,
) -> Result<Answer> {
    let mut question = Question::about(process);
    let mut answer = Answer { inside: Vec::new(), settled: true };
    let mut doubtful: Vec<(usize, &Tree)> = Vec::new();
    ask(trees.enumerate(), &mut question, &mut answer, &mut doubtful)?;
    for _ in 0..SCANS {
        doubtful.retain(|(index, _)| matters(&answer.inside, *index));
        if doubtful.is_empty() {
            break;
        }
        for keys in by_engine(&doubtful) {
            keys.0.scan(&keys.1);
        }
        let again = std::mem::take(&mut doubtful);
        ask(again.into_iter(), &mut question, &mut answer, &mut doubtful)?;
    }
    if let Some((_, tree)) = doubtful.iter().find(|(index, _)| matters(&answer.inside, *index)) {
        let mut inner = tree.follower.engine.lock();
        let follow = inner.tree(tree.follower.key);
        let why = if follow.is_suspect(process.pid()) { SUSPECT } else { DOUBT };
        let trouble = follow.trouble.as_ref().map(Error::again);
        return Err(trouble.unwrap_or_else(|| Error::in_doubt(process.pid(), TRIED, why)));
    }
    answer.inside.sort_unstable();
    Ok(answer)
}

/// Those that run in one engine: all of them, as long as one lives.
fn by_engine<'t>(trees: &[(usize, &'t Tree)]) -> Vec<(&'t Engine, Vec<u64>)> {
    let mut engines: Vec<(&Engine, Vec<u64>)> = Vec::new();
    for (_, tree) in trees {
        let engine: &Engine = &tree.follower.engine;
        match engines.iter_mut().find(|(known, _)| ptr::eq(*known, engine)) {
            Some((_, keys)) => keys.push(tree.follower.key),
            None => engines.push((engine, vec![tree.follower.key])),
        }
    }
    engines
}

fn ask<'t>(
    trees: impl Iterator<Item = (usize, &'t Tree)>,
    question: &mut Question<'_>,
    answer: &mut Answer,
    doubtful: &mut Vec<(usize, &'t Tree)>,
) -> Result<()> {
    let mut held: Option<(&Engine, Locked<'_>)> = None;
    for (index, tree) in trees {
        let engine: &Engine = &tree.follower.engine;
        let (_, inner) = match &mut held {
            Some((known, _)) if ptr::eq(*known, engine) => held.as_mut().expect("it has just been seen"),
            _ => {
                // Not two locks at once.
                drop(held.take());
                let mut inner = engine.lock();
                inner.hear_connector();
                inner.hear_watcher();
                held.insert((engine, inner))
            }
        };
        match inner.standing(tree.follower.key, question)? {
            Standing::Member => answer.inside.push(index),
            Standing::Stranger { settled } => answer.settled &= settled,
            Standing::Doubtful => doubtful.push((index, tree)),
        }
    }
    Ok(())
}

/// What somebody is to a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Member,
    Stranger { settled: bool },
    Doubtful,
}

const STRANGER: Standing = Standing::Stranger { settled: true };

/// A process that runs, and what has been found out about it by the way.
struct Question<'a> {
    process: &'a Process,
    identity: Identity,
    /// When it was there, on the kernel's monotonic clock.
    asked: u64,
    parent: Option<Option<Pid>>,
    ancestors: Option<HashSet<Pid>>,
    /// Itself and its ancestors, nearest first, each verified; as far as they could be read.
    chain: Option<Vec<Process>>,
    cgroups: Option<Option<Vec<u8>>>,
    is_young: Option<bool>,
}

impl<'a> Question<'a> {
    fn about(process: &'a Process) -> Question<'a> {
        Question {
            process,
            identity: process.handle.identity(false),
            asked: sys::monotonic(),
            parent: None,
            ancestors: None,
            chain: None,
            cgroups: None,
            is_young: None,
        }
    }

    fn pid(&self) -> Pid {
        self.process.pid()
    }

    fn parent(&mut self) -> Result<Option<Pid>> {
        match self.parent {
            Some(parent) => Ok(parent),
            None => Ok(*self.parent.insert(self.process.handle.ppid()?)),
        }
    }

    fn descends_from(&mut self, pid: Pid) -> Result<bool> {
        let ancestors = match self.ancestors.take() {
            Some(ancestors) => ancestors,
            None => ancestry::ancestors_of(self.pid())?.into_iter().collect(),
        };
        Ok(self.ancestors.insert(ancestors).contains(&pid))
    }

    /// Itself, its parent, and so on; `None` where it cannot be read further.
    fn above(&mut self, step: usize) -> Option<Process> {
        let chain = self.chain.get_or_insert_with(|| vec![self.process.clone()]);
        while chain.len() <= step {
            let parent = chain.last()?.parent().ok()??;
            chain.push(parent);
        }
        Some(chain[step].clone())
    }

    /// Whether it can be in this cgroup, by the names of those above it. Which one has the name, only the cgroup can tell.
    fn may_be_in(&mut self, cgroup: &sys::Cgroup) -> bool {
        let pid = self.pid();
        let names = self.cgroups.get_or_insert_with(|| sys::Cgroup::names_above(pid));
        let name = cgroup.path().file_name().map(std::ffi::OsStr::as_encoded_bytes);
        match (names, name) {
            (Some(names), Some(name)) => names.windows(name.len()).any(|part| part == name),
            _ => true,
        }
    }

    /// Whether its fork may have gone untold so far.
    fn is_young(&mut self) -> bool {
        let process = self.process;
        *self.is_young.get_or_insert_with(|| {
            let age = process.identity().start_time().and_then(|start| start.elapsed());
            age.is_none_or(|age| age < GROWN)
        })
    }
}

impl Inner {
    /// After what was told by now has been taken in.
    fn standing(&mut self, key: u64, question: &mut Question<'_>) -> Result<Standing> {
        let pid = question.pid();
        if self.tree(key).is_polled() {
            self.bury_one(key, pid)?;
        }
        let follow = self.tree(key);
        if follow.emptied.is_some() || follow.hidden() == Some(pid) {
            return Ok(STRANGER);
        }
        let known = follow.is_known_as_member(question.process, &question.identity)?;
        if known == Some(true) {
            return Ok(Standing::Member);
        }
        if let Some(error) = follow.broken() {
            return Err(error);
        }
        if follow.fed || follow.is_polled() {
            let standing = follow.standing_by_what_is_told(known, question)?;
            if standing != Standing::Doubtful {
                return Ok(standing);
            }
            let standing = follow.standing_by_ancestry(question)?;
            let is_news = expect_orphans(&mut follow.lineage);
            return if is_news { follow.standing_by_ancestry(question) } else { Ok(standing) };
        }
        match &follow.source {
            Source::Cgroup(cgroup) if question.may_be_in(cgroup) => {
                // It pins whom it finds.
                self.look(key);
                let follow = self.tree(key);
                if follow.emptied.is_none()
                    && follow.is_known_as_member(question.process, &question.identity)? == Some(true)
                {
                    return Ok(Standing::Member);
                }
                follow.trouble.as_ref().map_or(Ok(STRANGER), |error| Err(error.again()))
            }
            // Whoever is orphaned in there is the helper's child.
            Source::Subreaper { process, .. } => {
                let helper = process.clone();
                let descends = question.descends_from(helper.pid())?;
                // If it runs still, its PID was its own all the time.
                if descends && helper.state()? == State::Running {
                    return Ok(Standing::Member);
                }
                Ok(STRANGER)
            }
            _ => Ok(STRANGER),
        }
    }
}

impl Inner {
    /// Tells the ends of those whose PIDs others can have. Without events for them they are found out about late; and whoever
    /// has the PID then would be hard to tell from the one before, where there are no unique ids.
    pub(super) fn bury(&mut self, key: u64) -> Result<()> {
        let follow = self.tree(key);
        if !follow.is_polled() {
            return Ok(());
        }
        let mut gone = Vec::new();
        for (pid, pin) in &follow.pins {
            if pin.process.handle.is_reaped()? {
                gone.push((*pid, pin.key, pin.process.handle.exit_status()));
            }
        }
        for (pid, watch, status) in gone {
            self.tree(key).pins.remove(&pid);
            self.watched.remove(&watch);
            if let Some(watcher) = &self.watcher {
                watcher.unwatch(watch);
            }
            self.step(key, Input::Ended { pid, status }, sys::monotonic());
            self.tree(key).look_after(Duration::ZERO);
        }
        Ok(())
    }

    /// The same of one.
    fn bury_one(&mut self, key: u64, pid: Pid) -> Result<()> {
        match self.tree(key).pins.get(&pid) {
            Some(pin) if pin.process.handle.is_reaped()? => self.bury(key),
            _ => Ok(()),
        }
    }
}

impl Follow {
    /// Whether it is the very process that is known to be a member under its PID; `None` if none is, or if it cannot be
    /// told.
    fn is_known_as_member(&self, process: &Process, identity: &Identity) -> Result<Option<bool>> {
        let pid = process.pid();
        let Some(member) = self.lineage.member(pid) else { return Ok(None) };
        // Both run, and one at a time has a PID.
        if let Some(pinned) = self.pinned(pid) {
            if pinned.state()? == State::Running {
                return Ok(Some(true));
            }
        }
        Ok(match identity.same_process(member) {
            Sameness::Same => Some(true),
            Sameness::Different => Some(false),
            // Its end has not been told, so it has not ended, and nobody else has its PID.
            Sameness::Unknown => (self.fed && !self.is_short_of_news()).then_some(true),
        })
    }

    /// What the ones above it prove, where the tree does not know it.
    fn standing_by_ancestry(&self, question: &mut Question<'_>) -> Result<Standing> {
        let own_session = Proof::Session(self.root.pid());
        // By what it carries it can be a member whoever made it.
        let is_by_descent = |proof: &Proof| *proof == own_session || matches!(proof, Proof::Mark(_));
        let by_descent = self.evidence.iter().all(is_by_descent);
        by_ancestry(&self.lineage, &self.root, by_descent, |step| {
            let Some(process) = question.above(step) else { return Ok(None) };
            let identity = *process.identity();
            let held =
                self.pinned(process.pid()).is_some_and(|held| matches!(held.state(), Ok(State::Running)));
            Ok(Some(Above {
                identity,
                is_known_member: self.is_known_as_member(&process, &identity)? == Some(true),
                is_held: held,
                is_tracker: process.pid() == Pid::current(),
            }))
        })
    }

    fn is_suspect(&self, pid: Pid) -> bool {
        self.lineage.knows(pid) && self.lineage.suspects().any(|suspect| suspect.pid() == pid)
    }

    /// The end of one who is known can be missing.
    fn is_short_of_news(&self) -> bool {
        self.lineage.is_lost() || self.untracked && !self.walked
    }

    /// A member can be unknown.
    fn may_lack_members(&self) -> bool {
        match self.lineage.missing_since() {
            None => self.untracked && !self.walked,
            // Everybody who is linked to the root is known, if that much has been done, and nobody else is owed.
            Some(u64::MAX) => !self.walked,
            Some(_) => true,
        }
    }

    /// Where a process makes itself known by its fork, or by a scan.
    fn standing_by_what_is_told(&self, known: Option<bool>, question: &mut Question<'_>) -> Result<Standing> {
        let pid = question.pid();
        let is_told = if self.is_polled() { self.proven > question.asked } else { !self.may_lack_members() };
        // Of one that had its PID before.
        let is_outdated = known == Some(false) || known.is_none() && self.lineage.member(pid).is_some();
        if !is_told || is_outdated || self.is_suspect(pid) {
            return Ok(Standing::Doubtful);
        }
        if self.lineage.knows(pid) {
            return Ok(STRANGER);
        }
        // It may be a child whose fork is not told yet; or one that a member was given, and that is none of its own.
        let by_member = match question.parent()? {
            Some(parent) => self.lineage.member(parent).is_some(),
            None => false,
        };
        Ok(Standing::Stranger { settled: !(by_member && question.is_young()) })
    }
}

/// A process, or one above it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Above {
    pub(crate) identity: Identity,
    /// It is the very one that is known as a member under its PID.
    pub(crate) is_known_member: bool,
    /// It is the very one that is known under its PID.
    pub(crate) is_held: bool,
    /// Whoever follows the tree, who is always left out.
    pub(crate) is_tracker: bool,
}

/// A process is a member if its maker is one. The maker is the parent, unless that is given the tree's orphans. `above`: the
/// process itself, its parent, and so on. `by_descent`: nobody is a member for another reason.
pub(crate) fn by_ancestry(
    lineage: &Lineage,
    root: &Identity,
    by_descent: bool,
    mut above: impl FnMut(usize) -> Result<Option<Above>>,
) -> Result<Standing> {
    let mut may_be_excluded = false;
    for step in 0.. {
        let Some(Above { identity, is_known_member, is_held, is_tracker }) = above(step)? else { break };
        let pid = identity.pid();
        if step > 0 && lineage.adopts(pid) {
            break;
        }
        if is_known_member {
            return Ok(if may_be_excluded { Standing::Doubtful } else { Standing::Member });
        }
        if by_descent && (identity.started_before(root) || is_tracker) {
            return Ok(STRANGER);
        }
        let is_suspect = || lineage.suspects().any(|suspect| suspect.pid() == pid);
        if lineage.knows(pid) {
            if lineage.member(pid).is_some() || is_suspect() {
                break;
            }
            if is_held {
                return Ok(STRANGER);
            }
            // Or another one has its PID.
            may_be_excluded = true;
        }
    }
    Ok(Standing::Doubtful)
}

impl Tree {
    /// The root, and its ancestors when it began, nearest first.
    pub(crate) fn line(&self) -> Vec<Identity> {
        self.follower.line()
    }

    /// The root, pinned; `None` if it has ended.
    pub(crate) fn open_root(&self) -> Result<Option<Process>> {
        let root = self.root();
        let member = {
            let mut inner = self.follower.engine.lock();
            inner.hear_connector();
            inner.hear_watcher();
            inner.tree(self.follower.key).lineage.member(root.pid()).copied()
        };
        let Some(member) = member.filter(|member| member.same_process(&root) != Sameness::Different) else {
            return Ok(None);
        };
        let opened = self.follower.open_member(&member)?;
        Ok(match opened {
            Some(process) if process.state()? == State::Running => Some(process),
            _ => None,
        })
    }
}
