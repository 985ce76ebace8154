//! How a tree begins: spawned, attached or adopted.

use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use crate::ancestry;
use crate::error::{Error, Result};
use crate::identity::{Identity, Sameness};
use crate::pid::Pid;
use crate::process::Process;
use crate::state::{ExitStatus, State};
use crate::sys::{self, Interest, OnDeath};
use crate::tree::Tree;
use crate::tree::builder::{Backend, CONNECTOR, OnTrackerDeath, TreeBuilder};
use crate::tree::child::TreeChild;
use crate::tree::coverage;
use crate::tree::engine::{Engine, Locked};
use crate::tree::evidence::{MARK, MARKED, Proof};
use crate::tree::follow::{Follow, Source, Word};
use crate::tree::follower::Follower;
use crate::tree::lineage::{Input, Lineage, Saved};
use crate::tree::look::pin;
use crate::tree::scan::{forks, told_until};
use crate::tree::state::{Kept, TreeState};
use crate::tree::walk::beside;

const SPAWN: &str = "spawn the root of a tree";
const ATTACH: &str = "attach a tree to process";

pub(super) fn spawn(builder: &TreeBuilder, command: &mut Command) -> Result<(Tree, TreeChild)> {
    use Backend::{Auto, Cgroup, Kqueue, Poll, ProcConnector, Subreaper};
    let kill = builder.on_tracker_death == OnTrackerDeath::Kill;
    let order: &[Backend] = match builder.backend {
        Auto | Subreaper if kill => &[Subreaper],
        Auto => &[Cgroup, ProcConnector, Subreaper, ProcConnector, Kqueue, Poll],
        Cgroup => &[Cgroup],
        ProcConnector => &[ProcConnector],
        Subreaper => &[Subreaper],
        Kqueue => &[Kqueue],
        Poll => &[Poll],
    };
    if kill && order != [Subreaper] {
        return Err(Error::unsupported(
            None,
            SPAWN,
            "only the helper of the subreaper backend survives this process and can kill the tree then",
        ));
    }
    let mut refused = None;
    for (turn, backend) in order.iter().enumerate() {
        let begun = Begun::new(builder)?;
        // The first time round, only if foreign forks do not wake us.
        let filtered_only = order.len() > 1 && turn == 1;
        let ready = match backend {
            Cgroup => sys::Cgroup::create().map(|cgroup| Some(Source::Cgroup(cgroup))),
            ProcConnector | Kqueue => has_connector(*backend, None, SPAWN)
                .and_then(|()| begun.connect(filtered_only))
                .map(|()| Some(Source::Connector)),
            Poll => begun.poll().map(Some),
            Auto | Subreaper => Ok(None),
        };
        match ready {
            Ok(Some(source)) => return begun.spawn(command, source),
            Ok(None) => {
                let then = if kill { OnDeath::Kill } else { OnDeath::Leave };
                match begun.spawn_under_helper(command, then) {
                    Err(error) if error.is_unsupported() => drop(refused.get_or_insert(error)),
                    spawned => return spawned,
                }
            }
            Err(error) if error.is_limit() => return Err(error),
            Err(error) => {
                crate::debug!(%backend, %error, "refused");
                refused.get_or_insert(error);
            }
        }
    }
    Err(refused.unwrap_or_else(|| Error::unsupported(None, SPAWN, "there is no backend")))
}

pub(super) fn attach(builder: &TreeBuilder, root: &Process) -> Result<Tree> {
    let pid = root.pid();
    let spawned_only = |reason| Err(Error::unsupported(pid, ATTACH, reason));
    let order: &[Backend] = match builder.backend {
        Backend::Auto => &[Backend::ProcConnector, Backend::Kqueue, Backend::Poll],
        Backend::ProcConnector => &[Backend::ProcConnector],
        Backend::Kqueue => &[Backend::Kqueue],
        Backend::Poll => &[Backend::Poll],
        Backend::Cgroup => {
            return spawned_only(
                "moving processes that run into a cgroup of ours would change what others rely on; spawn the root",
            );
        }
        Backend::Subreaper => {
            return spawned_only("a process that runs cannot be given another parent; spawn the root");
        }
    };
    if builder.on_tracker_death == OnTrackerDeath::Kill {
        return spawned_only(
            "only the helper of the subreaper backend, which spawns the root, can kill the tree when this process has ended",
        );
    }
    if root.state()? != State::Running {
        return Err(Error::gone(pid, ATTACH));
    }
    let mut refused = None;
    for backend in order {
        let begun = Begun::new(builder)?;
        let source = match backend {
            Backend::Poll => begun.poll(),
            backend => has_connector(*backend, pid, ATTACH)
                .and_then(|()| begun.connect(false))
                .map(|()| Source::Connector),
        };
        match source {
            Ok(source) => return begun.attach(root, source),
            Err(error) if error.is_limit() => return Err(error),
            Err(error) => {
                refused.get_or_insert(error);
            }
        }
    }
    Err(refused.unwrap_or_else(|| Error::unsupported(pid, ATTACH, "there is no backend")))
}

/// What [`Tree::adopt`] does.
pub(super) fn adopt(builder: &TreeBuilder, state: &TreeState) -> Result<Tree> {
    let world = sys::world()?;
    let elsewhere =
        |recorded: Option<u64>, here: Option<u64>| recorded.is_some() && here.is_some() && recorded != here;
    let root = state.root;
    if elsewhere(root.pid_namespace, world.pid_namespace)
        || (root.boot.is_some() && world.boot.is_some() && root.boot != world.boot)
    {
        return Err(Error::foreign(
            root.pid(),
            "adopt the tree of process",
            "it was saved in another PID namespace or before the last boot; what was saved means nothing here",
        ));
    }
    let begun = Begun::new(builder)?;
    match &state.kept {
        _ if state.lineage.empty => begun.adopt_ended(state),
        Kept::Cgroup { path, id } => match sys::Cgroup::reopen(path, *id)? {
            // A cgroup with somebody in it cannot be removed.
            None => begun.adopt_ended(state),
            Some(cgroup) => {
                if cgroup.contains_self()? {
                    cgroup.leave()?;
                }
                let fed = begun.feed();
                begun.adopt(state, Source::Cgroup(cgroup), fed)
            }
        },
        Kept::Subreaper(helper) => match Process::reopen(helper) {
            Ok(process) => {
                begun.adopt(state, Source::Subreaper { helper: None, process, word: Word::Waiting }, false)
            }
            Err(error) if error.is_gone() => begun.adopt_ended(state),
            Err(error) => Err(error),
        },
        Kept::ProcConnector | Kept::Kqueue => {
            has_connector(state.backend(), root.pid(), "adopt the tree of process")?;
            begun.connect(false)?;
            begun.adopt(state, Source::Connector, true)
        }
        Kept::Poll => {
            let source = begun.poll()?;
            begun.adopt(state, source, false)
        }
    }
}

/// Whether the connector of this system is that one.
fn has_connector(backend: Backend, root: impl Into<Option<Pid>>, tried: &'static str) -> Result<()> {
    match backend {
        _ if backend == CONNECTOR => Ok(()),
        Backend::Kqueue => Err(Error::unsupported(root, tried, "kqueues are macOS's")),
        _ => Err(Error::unsupported(root, tried, "the process connector is Linux's")),
    }
}

/// Whether the connector tells of those as well that were started before somebody is tracked. Then there is nothing to
/// scan for.
const TELLS_EARLIER: bool = sys::Connector::IS_KQUEUE;

/// A tree that is about to be entered. Dropped, it takes out again what was.
struct Begun<'a> {
    follower: Follower,
    builder: &'a TreeBuilder,
    began: u64,
}

impl<'a> Begun<'a> {
    fn new(builder: &'a TreeBuilder) -> Result<Begun<'a>> {
        Ok(Begun { follower: Follower::new(Engine::lease()?), builder, began: sys::monotonic() })
    }

    fn lock(&self) -> Locked<'_> {
        self.follower.engine.lock()
    }

    fn connect(&self, filtered_only: bool) -> Result<()> {
        let selector = &self.follower.engine.selector;
        let mut inner = self.lock();
        let filtered = inner.connect(selector, self.builder.event_buffer)?;
        if filtered || !filtered_only {
            return Ok(());
        }
        inner.disconnect_if_unused(selector);
        Err(Error::unsupported(
            None,
            SPAWN,
            "without CAP_BPF the kernel would wake us for every fork on the machine",
        ))
    }

    /// Whether the connector tells of the members of a tree that could do without it.
    fn feed(&self) -> bool {
        self.connect(!self.builder.every_member).is_ok()
    }

    fn poll(&self) -> Result<Source> {
        forks().map(|_| Source::Poll)
    }

    /// The root is a child of this process, and held until it has been entered.
    fn spawn(self, command: &mut Command, source: Source) -> Result<(Tree, TreeChild)> {
        let fed = match &source {
            Source::Connector => true,
            Source::Cgroup(_) => self.feed(),
            _ => false,
        };
        let is_polled = matches!(source, Source::Poll);
        // Where it may come to a scan, and the kernel marks nobody.
        let is_marked = is_polled || matches!(source, Source::Connector) && !self.is_filtered();
        let mark = is_marked.then(|| self.mark(command));
        let cgroup = match &source {
            Source::Cgroup(cgroup) => Some(cgroup.path().to_owned()),
            _ => None,
        };
        let mut held = None;
        let spawned = sys::spawn_held(
            command,
            |pid| {
                let root = Process::open(pid)?;
                if let Source::Cgroup(cgroup) = &source {
                    cgroup.add(pid)?;
                }
                let (mut lineage, above) = self.lineage_of_spawned(*root.identity())?;
                if is_polled {
                    // The root has started nobody yet: whoever is there is a stranger.
                    lineage.set_strangers(strangers(pid)?);
                }
                let mut follow = self.follow(*root.identity(), lineage, source, fed);
                follow.above = above;
                follow.evidence.extend(mark.clone());
                // Of one that is polled, nothing that happens is told by anybody.
                let lost = is_polled.then(|| told_until(self.began));
                self.enter(follow, Some(1), lost)?;
                held = Some(root);
                Ok(())
            },
            |command| {
                let spawned = command.spawn().map_err(|error| Error::os(None, SPAWN, error));
                if let Some(Proof::Mark(name)) = &mark {
                    command.env_remove(name);
                }
                spawned
            },
        );
        let child = spawned.inspect_err(|_| {
            // It could not be removed as long as the child was in it.
            let _ = cgroup.map(std::fs::remove_dir);
        })?;
        let root = held.ok_or_else(|| Error::malformed(None, SPAWN, "nobody held it"))?;
        let (child, spawned) = TreeChild::new(child, root.clone(), false);
        self.lock().tree(self.follower.key).hand(spawned, root);
        Ok((self.tree(), child))
    }

    fn mark(&self, command: &mut Command) -> Proof {
        let name = format!("{MARK}{}_{}", Pid::current(), self.began);
        command.env(&name, MARKED);
        Proof::Mark(name)
    }

    /// The root is a child of a helper, which is the first member to the machine, and hidden.
    fn spawn_under_helper(self, command: &mut Command, then: OnDeath) -> Result<(Tree, TreeChild)> {
        let fed = self.feed();
        let key = self.follower.key;
        let mut above = None;
        let (helper, child, root) = sys::spawn_held(
            command,
            |pid| {
                let process = Process::open(pid)?;
                let (lineage, ancestors) = self.lineage_of_spawned(*process.identity())?;
                let source =
                    Source::Subreaper { helper: None, process: process.clone(), word: Word::Waiting };
                let mut follow = self.follow(*process.identity(), lineage, source, fed);
                follow.above = ancestors;
                follow.root_to_come = true;
                self.enter(follow, Some(1), None)?;
                above = Some(process);
                Ok(())
            },
            |command| sys::Helper::spawn(command, then),
        )?;
        let above = above.ok_or_else(|| Error::malformed(None, SPAWN, "nobody held its helper"))?;
        // The helper reaps nothing before it is told to go on: the PID is the root's, ended or not.
        let process = Process::open(root)?;
        let selector = &self.follower.engine.selector;
        let mut inner = self.lock();
        inner.hear_connector();
        let at = sys::monotonic();
        if inner.tree(key).root_to_come {
            inner.step(key, Input::Forked { parent: above.pid(), child: *process.identity() }, at);
        }
        // What was told of it, if it ended at once, had less to go by.
        inner.tree(key).root_is(*process.identity());
        selector.add(helper.as_fd(), key, Interest::Readable)?;
        let (child, spawned) = TreeChild::new(child, process.clone(), true);
        let follow = inner.tree(key);
        follow.hand(spawned, process);
        follow.go_on(helper)?;
        drop(inner);
        Ok((self.tree(), child))
    }

    fn attach(self, root: &Process, source: Source) -> Result<Tree> {
        let fed = matches!(source, Source::Connector);
        let (mut lineage, above) = self.lineage(*root.identity())?;
        let mut young = Vec::new();
        if !TELLS_EARLIER {
            // Should it take long to prove who was there: these were.
            young = beside(root.pid(), &above, &mut lineage)?;
        }
        let mut follow = self.follow(*root.identity(), lineage, source, fed);
        follow.above = above.iter().map(|process| *process.identity()).collect();
        follow.young = young;
        for evidence in &self.builder.evidence {
            follow.evidence.extend(Proof::of(evidence, root)?);
        }
        // Nobody joins a session but by being forked into it.
        let leads = sys::session_of(root.pid()) == Some(root.pid());
        follow.evidence.extend(leads.then(|| Proof::Session(root.pid())));
        follow.held.push(root.clone());
        follow.coverage = coverage::of_attached(&follow.source, self.is_filtered());
        let key = self.follower.key;
        if fed && TELLS_EARLIER {
            self.enter(follow, None, None)?;
            self.lock().search(key)?;
            return Ok(self.tree());
        }
        // Whoever lives and cannot be linked to the root now is no member: that is what attaching means.
        self.enter(follow, None, Some(u64::MAX))?;
        self.scan(key)
    }

    fn adopt(self, state: &TreeState, source: Source, fed: bool) -> Result<Tree> {
        let mut saved = state.lineage.clone();
        // What those hold is in the tree.
        if !matches!(source, Source::Cgroup(_) | Source::Subreaper { .. }) {
            for process in &self.builder.exclude {
                if saved.members.iter().all(|member| member.pid() != process.pid()) {
                    saved.exclude(*process.identity(), is_given_orphans(process.pid()));
                }
            }
            // It would wait for its own end otherwise.
            saved.exclude(*Process::current()?.identity(), is_given_orphans(Pid::current()));
        }
        let mut follow = self.follow(state.root, Lineage::adopt(saved), source, fed);
        let marked = state.evidence.iter().any(|proof| matches!(proof, Proof::Mark(_)));
        follow.coverage = coverage::of_adopted(&follow.source, fed, self.is_filtered(), marked);
        follow.evidence.clone_from(&state.evidence);
        follow.root_status = state.root_status;
        follow.above.clone_from(&state.above);
        follow.seen = state.members;
        follow.untracked = fed;
        let key = self.follower.key;
        let members: Vec<Identity> =
            follow.lineage.members().chain(follow.lineage.suspects()).copied().collect();
        // Who is in it is listed below; of others a scan tells.
        let lists = matches!(follow.source, Source::Cgroup(_) | Source::Subreaper { .. });
        let listed = listed(&follow.source)?;
        let mut inner = self.lock();
        inner.put(&self.follower, follow, self.builder.event_buffer)?;
        let mut all = true;
        for member in members {
            let reopened = match listed.iter().find(|process| process.pid() == member.pid()) {
                Some(process) if process.identity().same_process(&member) == Sameness::Unknown => {
                    inner.tree(key).lineage.enrich(member.pid(), *process.identity());
                    Ok(process.clone())
                }
                _ => Process::reopen(&member),
            };
            let status = match reopened {
                Ok(process) if process.state()? == State::Running => {
                    inner.mind(key, &member)?;
                    continue;
                }
                Ok(process) => process.handle.exit_status(),
                // What was recorded does not prove who it is.
                Err(error) if error.is_unsupported() && !lists && !TELLS_EARLIER => {
                    all = false;
                    continue;
                }
                Err(error) if error.is_gone() || error.is_unsupported() && lists => ExitStatus::Unknown,
                Err(error) => return Err(error),
            };
            if !fed || !inner.track_ended(key, &member, status) {
                inner.step(key, Input::Ended { pid: member.pid(), status }, self.began);
            }
        }
        if fed && all {
            // They are here, or their end has been told: what they do from now on is told, too.
            inner.step(key, Input::Unseen { since: u64::MAX }, self.began);
        }
        if let Source::Subreaper { process, .. } = &inner.tree(key).source {
            let helper = *process.identity();
            inner.mind(key, &helper)?;
        }
        inner.list_cgroup(key)?;
        inner.look(key);
        if fed && TELLS_EARLIER {
            inner.count_known(key);
            inner.search(key)?;
        }
        let needs_scan = inner.tree(key).needs_scan();
        drop(inner);
        if needs_scan { self.scan(key) } else { Ok(self.tree()) }
    }

    /// Its members are known as far as one scan can tell.
    fn scan(self, key: u64) -> Result<Tree> {
        self.follower.engine.scan(&[key]);
        let trouble = self.lock().tree(key).trouble.take();
        trouble.map_or_else(|| Ok(self.tree()), Err)
    }

    /// Nothing of it is left, by the word of what outlived its tracker.
    fn adopt_ended(self, state: &TreeState) -> Result<Tree> {
        // As if that had not been said yet.
        let lineage = Lineage::adopt(Saved { empty: false, ..state.lineage.clone() });
        let alive = lineage.members().find(|member| {
            Process::reopen(member).is_ok_and(|p| p.state().is_ok_and(|s| s == State::Running))
        });
        if let (Some(alive), Kept::Subreaper(helper)) = (alive, &state.kept) {
            crate::debug!(%alive, "outlived the helper");
            let _ = alive;
            return Err(Error::unsupported(
                helper.pid(),
                "adopt a process tree from helper process",
                "somebody killed it before the tree was empty: what is left of the tree is not known",
            ));
        }
        let coverage = coverage::of_ended();
        let mut follow =
            Follow::new(state.root, lineage, Source::Over(state.kept.clone()), false, coverage, self.began);
        follow.root_status = state.root_status;
        follow.seen = state.members;
        let key = self.follower.key;
        let mut inner = self.lock();
        inner.put(&self.follower, follow, self.builder.event_buffer)?;
        inner.finish(key, self.began);
        drop(inner);
        Ok(self.tree())
    }

    /// The ancestors of the root, which are returned too, can be given the tree's orphans.
    fn lineage(&self, root: Identity) -> Result<(Lineage, Vec<Process>)> {
        let excluded = self.builder.exclude.iter().map(|process| *process.identity());
        let exclude = excluded.chain([*Process::current()?.identity()]);
        let mut lineage = Lineage::new(root, exclude);
        let listed = ancestry::ancestors_of(root.pid())?;
        let above = ancestors(root.pid(), &listed);
        lineage.set_strangers(above.iter().map(|process| *process.identity()));
        let (adopters, spared): (Vec<Pid>, Vec<Pid>) =
            listed.into_iter().partition(|pid| is_given_orphans(*pid));
        lineage.set_adopters(adopters);
        spared.into_iter().for_each(|pid| lineage.spare(pid));
        Ok((lineage, above))
    }

    /// Of a root that is about to run for the first time: it is in the session of whoever spawned it.
    fn lineage_of_spawned(&self, root: Identity) -> Result<(Lineage, Vec<Identity>)> {
        let (mut lineage, above) = self.lineage(root)?;
        lineage.set_sessions(sys::session_of(root.pid()));
        Ok((lineage, above.iter().map(|process| *process.identity()).collect()))
    }

    fn follow(&self, root: Identity, mut lineage: Lineage, source: Source, fed: bool) -> Follow {
        if matches!(source, Source::Cgroup(_) | Source::Subreaper { .. }) {
            lineage.hold();
        }
        let coverage = coverage::of_spawned(&source, fed, self.is_filtered());
        let mut follow = Follow::new(root, lineage, source, fed, coverage, self.began);
        follow.held.clone_from(&self.builder.exclude);
        follow.held.extend(Process::current());
        follow
    }

    fn is_filtered(&self) -> bool {
        self.lock().connector.as_ref().is_some_and(sys::Connector::is_filtered)
    }

    /// Puts it in, with its root as the first member. `threads`: of the root, where that is known. `lost`: the tick from
    /// which on events are missing.
    fn enter(&self, mut follow: Follow, threads: Option<u32>, lost: Option<u64>) -> Result<()> {
        let (key, root, fed) = (self.follower.key, follow.root.pid(), follow.fed);
        follow.root_joins();
        if follow.root.unique.is_none() {
            // Only the tick that they started in tells them from others, and not even that for sure if they were first seen
            // in it.
            let is_young = |process: &Process| follow.lineage.has_young_stranger(process.pid());
            let above = ancestors(root, &ancestry::ancestors_of(root)?);
            let young: Vec<Process> = above.into_iter().filter(is_young).collect();
            follow.held.extend(young);
        }
        let identity = follow.root;
        // No census can know more than that scan finds.
        follow.untracked = fed && lost.is_some();
        // The first scan, at once.
        follow.set_due(follow.is_polled().then(Instant::now));
        let mut inner = self.lock();
        inner.put(&self.follower, follow, self.builder.event_buffer)?;
        if let Some(since) = lost {
            let missing = if fed { Input::Unseen { since } } else { Input::Lost { since } };
            inner.step(key, missing, self.began);
        }
        if fed {
            inner.told.insert((root, key));
            // What it had started is linked to nobody then.
            if !inner.track(key, root, threads)? {
                return Err(Error::gone(root, ATTACH));
            }
        } else {
            inner.mind(key, &identity)?;
        }
        Ok(())
    }

    fn tree(self) -> Tree {
        Tree { follower: Arc::new(self.follower) }
    }
}

/// Nobody's orphans come to us, unless we have asked for them: our children are our own then.
fn is_given_orphans(ancestor: Pid) -> bool {
    ancestor != Pid::current() || sys::adopts_orphans()
}

/// Those that are there, but for this one.
fn strangers(root: Pid) -> Result<Vec<Identity>> {
    let mut strangers = Vec::new();
    for pid in sys::listing()?.into_iter().filter(|pid| *pid != root) {
        match Process::open(pid) {
            Ok(process) => strangers.push(*process.identity()),
            Err(error) if error.is_gone() || error.is_thread() || error.is_denied() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(strangers)
}

/// Who is in the tree by the word of what it goes by.
fn listed(source: &Source) -> Result<Vec<Process>> {
    match source {
        Source::Cgroup(cgroup) => pin(cgroup, &cgroup.members()?),
        Source::Subreaper { process, .. } => match process.descendants() {
            Err(error) if error.is_gone() => Ok(Vec::new()),
            family => family,
        },
        _ => Ok(Vec::new()),
    }
}

/// Those of these ancestors of a root that are there still.
fn ancestors(root: Pid, listed: &[Pid]) -> Vec<Process> {
    let mut opened: Vec<Process> = listed.iter().filter_map(|pid| Process::open(*pid).ok()).collect();
    // Still ancestors while pinned: they were all the time.
    let again = ancestry::ancestors_of(root).unwrap_or_default();
    opened.retain(|process| again.contains(&process.pid()));
    opened
}
