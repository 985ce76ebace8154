//! One tree: what is known of it, and what of that its owners have not heard yet.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::pid::Pid;
use crate::process::Process;
use crate::state::{ExitStatus, State};
use crate::sys::{self, Selector};
use crate::tree::builder::{Backend, CONNECTOR};
use crate::tree::child::Spawned;
use crate::tree::event::{Coverage, Emptied, TreeEvent};
use crate::tree::evidence::Proof;
use crate::tree::lineage::{Input, Lineage, Output};
use crate::tree::queue::Queue;
use crate::tree::state::{Kept, TreeState};
use crate::watch::WatchKey;

#[derive(Debug)]
pub(super) struct Follow {
    pub(super) root: Identity,
    /// The root is the first child of the hidden member, which has not been seen yet.
    pub(super) root_to_come: bool,
    pub(super) root_status: Option<ExitStatus>,
    /// The ancestors of the root when it began, nearest first.
    pub(super) above: Vec<Identity>,
    /// Of a tree that we have spawned.
    root_process: Option<Process>,
    /// Held as long as the tree is: the root, if it was there before; who is excluded; ancestors without a sure identity.
    pub(super) held: Vec<Process>,
    /// Strangers that only their start tells from others, and were seen in the very tick that they started in; for some ticks.
    pub(super) young: Vec<Process>,
    pub(super) lineage: Lineage,
    pub(super) source: Source,
    /// The connector tells of every member.
    pub(super) fed: bool,
    /// But not of all yet: after a loss, or when it was not there from the start, a scan has to show whom to track.
    pub(super) untracked: bool,
    /// All who are linked to members are told of, though no scan has proven it.
    pub(super) walked: bool,
    /// When the last proven scan began to list who is there, on the kernel's monotonic clock.
    pub(super) proven: u64,
    /// Whom that has listed, each with the number of its entry.
    pub(super) listed: Arc<HashSet<(Pid, u64)>>,
    pub(super) coverage: Coverage,
    pub(super) evidence: Vec<Proof>,
    /// When it began, on the kernel's monotonic clock, in nanoseconds.
    pub(super) began: u64,
    /// How many members were seen.
    pub(super) seen: u64,
    /// Members that are watched, because nobody else tells of their end; suspects too.
    pub(super) pins: HashMap<Pid, Pin>,
    /// When to look again, though nothing wakes us.
    due: Option<Instant>,
    /// To be rung when there is news, or something is due.
    bell: Arc<AtomicBool>,
    /// What is to be told when the engine's lock is given back.
    events: Vec<TreeEvent>,
    queue: Arc<Queue>,
    pub(super) trouble: Option<Error>,
    pub(super) emptied: Option<Emptied>,
    pub(super) remains: Option<Arc<Remains>>,
    has_news: bool,
    pub(super) spawned: Option<Arc<Spawned>>,
    outputs: Vec<Output>,
}

/// By what it is known that a tree is empty.
#[derive(Debug)]
pub(super) enum Source {
    /// By its members.
    Connector,
    Cgroup(sys::Cgroup),
    /// By the helper's word; or, if that told its words to a tracker that has ended, by its end.
    Subreaper {
        helper: Option<sys::Helper>,
        process: Process,
        word: Word,
    },
    Poll,
    /// By nothing any more: it is over.
    Over(Kept),
}

/// What the helper has said of the whole tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Waiting,
    Empty,
    /// Nothing, and it is not there any more.
    Lost,
}

/// What is left of a tree that is over, to be cleared away when that has been told: a helper to reap, a cgroup to remove.
#[derive(Debug)]
pub(super) struct Remains(Mutex<Option<(Source, Option<Arc<Spawned>>)>>);

impl Remains {
    /// When it returns they are gone, whoever did it. Takes up to a millisecond.
    pub(super) fn clear_away(&self) {
        let mut remains = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((source, spawned)) = remains.take() {
            // Closes what it held; an empty cgroup is removed.
            drop(source);
            if let Some(spawned) = spawned {
                spawned.reap_helper();
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Pin {
    pub(super) process: Process,
    pub(super) key: WatchKey,
}

/// What changed about who is a member.
#[derive(Debug)]
pub(super) enum Change {
    Joined(Identity),
    Left(Identity),
}

impl Follow {
    pub(super) fn new(
        root: Identity,
        lineage: Lineage,
        source: Source,
        fed: bool,
        coverage: Coverage,
        began: u64,
    ) -> Follow {
        Follow {
            root,
            root_to_come: false,
            root_status: None,
            above: Vec::new(),
            root_process: None,
            held: Vec::new(),
            young: Vec::new(),
            lineage,
            source,
            fed,
            untracked: false,
            walked: false,
            proven: 0,
            listed: Arc::default(),
            coverage,
            evidence: Vec::new(),
            began,
            seen: 0,
            pins: HashMap::new(),
            due: None,
            bell: Arc::default(),
            events: Vec::new(),
            queue: Arc::default(),
            trouble: None,
            emptied: None,
            remains: None,
            has_news: false,
            spawned: None,
            outputs: Vec::new(),
        }
    }

    /// Lets the machine know, and its answers be known. `at`: nanoseconds on the monotonic clock.
    pub(super) fn step(&mut self, input: Input<'_>, at: u64, changes: &mut Vec<Change>) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.lineage.step(input, &mut outputs);
        self.publish(&mut outputs, at, changes);
        self.outputs = outputs;
    }

    /// The machine, and what it has answered.
    pub(super) fn replace(
        &mut self,
        lineage: Lineage,
        mut outputs: Vec<Output>,
        at: u64,
        changes: &mut Vec<Change>,
    ) {
        self.lineage = lineage;
        self.publish(&mut outputs, at, changes);
    }

    /// The kernel has said that it is empty.
    pub(super) fn finish(&mut self, at: u64, changes: &mut Vec<Change>) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.lineage.finish(&mut outputs);
        self.publish(&mut outputs, at, changes);
        self.outputs = outputs;
    }

    fn publish(&mut self, outputs: &mut Vec<Output>, at: u64, changes: &mut Vec<Change>) {
        let hidden = self.hidden();
        let since = self.since(at);
        for output in outputs.drain(..) {
            match output {
                Output::Joined { member, parent } => {
                    changes.push(Change::Joined(member));
                    if hidden == Some(member.pid()) {
                        continue;
                    }
                    if std::mem::take(&mut self.root_to_come) {
                        self.root = member;
                    }
                    self.seen += 1;
                    let parent = parent.filter(|parent| hidden != Some(parent.pid()));
                    self.push(TreeEvent::Joined { member, parent, at: since });
                }
                // The name is not for the machine to know: see `executed`.
                Output::Executed { .. } => {}
                Output::Left { member, status } => {
                    // The machine knows that it has ended; how, the pin does.
                    let status = match (status, self.pins.get(&member.pid())) {
                        (ExitStatus::Unknown, Some(pin)) => pin.process.handle.exit_status(),
                        (status, _) => status,
                    };
                    changes.push(Change::Left(member));
                    if hidden == Some(member.pid()) {
                        continue;
                    }
                    let mut status = status;
                    if member == self.root {
                        self.root_ended(status);
                        status = self.root_status.unwrap_or(status);
                    }
                    self.push(TreeEvent::Left { member, status, at: since });
                }
                Output::Resynced { suspects } => {
                    // Of what nobody tells, nothing is lost.
                    if self.fed {
                        self.push(TreeEvent::Resynced { suspects, at: since });
                    }
                }
                Output::Empty => self.over(at),
            }
        }
    }

    fn over(&mut self, at: u64) {
        // Its own end may be among events that were lost, or before it was known who it is.
        self.root_ended(ExitStatus::Unknown);
        let status = self.root_status.unwrap_or(ExitStatus::Unknown);
        let emptied = Emptied { root: self.root, status, members: self.seen, at: self.since(at) };
        self.emptied = Some(emptied);
        self.due = None;
        let spawned = self.spawned.take();
        if let Some(spawned) = &spawned {
            spawned.tell(status);
        }
        let source = self.take_source();
        self.remains = Some(Arc::new(Remains(Mutex::new(Some((source, spawned))))));
        self.push(TreeEvent::Empty(emptied));
    }

    /// The root is a member from the start.
    pub(super) fn root_joins(&mut self) {
        if !self.root_to_come {
            self.seen = 1;
            self.push(TreeEvent::Joined { member: self.root, parent: None, at: Duration::ZERO });
        }
    }

    /// The root that was hidden behind the helper.
    pub(super) fn root_is(&mut self, root: Identity) {
        self.root_to_come = false;
        if self.root.pid() != root.pid() {
            self.root = root;
        }
    }

    /// From here on the helper speaks to us.
    pub(super) fn go_on(&mut self, new: sys::Helper) -> Result<()> {
        if let Source::Subreaper { helper, .. } = &mut self.source {
            helper.insert(new).go_on()?;
        }
        Ok(())
    }

    pub(super) fn root_ended(&mut self, status: ExitStatus) {
        // What is known stays known.
        let mut known = self.root_status.filter(|known| *known != ExitStatus::Unknown).unwrap_or(status);
        if let (ExitStatus::Unknown, Some(root)) = (known, &self.root_process) {
            known = root.handle.exit_status();
        }
        if let (ExitStatus::Unknown, Some(spawned)) = (known, &self.spawned) {
            known = spawned.seen().unwrap_or(known);
        }
        self.root_status = Some(known);
        if known == ExitStatus::Unknown && self.is_to_be_told_of(self.root.pid()) {
            return;
        }
        if let Some(spawned) = &self.spawned {
            spawned.tell(known);
        }
    }

    /// Whether the helper is yet to say how this process, the root, has ended.
    pub(super) fn is_to_be_told_of(&self, pid: Pid) -> bool {
        let waits = matches!(&self.source, Source::Subreaper { helper: Some(_), word: Word::Waiting, .. });
        waits && pid == self.root.pid()
    }

    pub(super) fn helper_said(&mut self, said: Word) {
        if let Source::Subreaper { word, .. } = &mut self.source {
            *word = said;
        }
        if said == Word::Lost {
            // Whoever waits for the root's status would wait for ever.
            if let Some(spawned) = &self.spawned {
                spawned.tell(ExitStatus::Unknown);
            }
            self.tell();
        }
    }

    /// Takes what was spawned, to tell it how the root ended.
    pub(super) fn hand(&mut self, spawned: Arc<Spawned>, root: Process) {
        self.root_process = Some(root);
        if self.emptied.is_some() {
            return spawned.tell(self.root_status.unwrap_or(ExitStatus::Unknown));
        }
        self.spawned = Some(spawned);
        if let Some(status) = self.root_status {
            self.root_ended(status);
        }
    }

    pub(super) fn is_polled(&self) -> bool {
        matches!(self.source, Source::Poll)
    }

    /// Whether it is to be scanned when it is due.
    pub(super) fn needs_scan(&self) -> bool {
        self.is_polled() || self.fed && self.lineage.missing_since().is_some()
    }

    /// Who it is that executed a program, if it is a member.
    pub(super) fn executes(&mut self, pid: Pid) -> Option<Identity> {
        self.lineage.step(Input::Executed { pid }, &mut self.outputs);
        self.outputs.drain(..).find_map(|output| match output {
            Output::Executed { member } => Some(member),
            _ => None,
        })
    }

    /// A member executed a program; returns where that is to be told, so that its name can be taken back.
    pub(super) fn executed(&mut self, member: Identity, program: Option<String>, at: u64) -> usize {
        let at = self.since(at);
        self.push(TreeEvent::Exec { member, program, at });
        self.events.len() - 1
    }

    /// Takes back the name that this event is to give to a program.
    pub(super) fn unname(&mut self, index: usize) {
        if let Some(TreeEvent::Exec { program, .. }) = self.events.get_mut(index) {
            *program = None;
        }
    }

    fn push(&mut self, event: TreeEvent) {
        self.events.push(event);
        self.tell();
    }

    pub(super) fn told_by(mut self, bell: &Arc<AtomicBool>, queue: &Arc<Queue>) -> Follow {
        (self.bell, self.queue) = (Arc::clone(bell), Arc::clone(queue));
        self.bell.store(true, Ordering::Relaxed);
        self
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn set_due(&mut self, due: Option<Instant>) {
        self.due = due;
        self.bell.store(true, Ordering::Relaxed);
    }

    /// It is to be looked at again after this pause, if not before.
    pub(super) fn look_after(&mut self, pause: Duration) {
        self.set_due(Some(Instant::now() + pause));
    }

    fn tell(&mut self) {
        self.has_news = true;
        self.bell.store(true, Ordering::Relaxed);
    }

    /// Tells whoever waits, if there is something to tell: once for many events.
    pub(super) fn ring(&mut self) {
        if std::mem::take(&mut self.has_news) {
            let trouble = self.trouble.is_some() || self.broken().is_some();
            self.queue.put(&mut self.events, self.emptied, trouble);
        }
    }

    /// Takes what is to be told by an error.
    pub(super) fn take_trouble(&mut self) -> Option<Error> {
        let error = self.trouble.take().or_else(|| self.broken());
        let mut told = self.queue.lock();
        told.trouble = self.broken().is_some();
        told.show();
        error
    }

    pub(super) fn fail(&mut self, error: Error) {
        self.trouble.get_or_insert(error);
        self.tell();
    }

    /// Why it cannot be followed any more.
    pub(super) fn broken(&self) -> Option<Error> {
        match &self.source {
            Source::Subreaper { process, word: Word::Lost, .. } if self.emptied.is_none() => {
                Some(Error::unsupported(
                    process.pid(),
                    "follow a process tree through helper process",
                    "somebody killed it before the tree was empty: what is left of the tree is not known",
                ))
            }
            _ => None,
        }
    }

    /// The helper, which is a member to the machine, and to nobody else.
    pub(super) fn hidden(&self) -> Option<Pid> {
        match &self.source {
            Source::Subreaper { process, .. } => Some(process.pid()),
            _ => None,
        }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = Identity> {
        let hidden = self.hidden();
        self.lineage.members().filter(move |member| hidden != Some(member.pid())).copied()
    }

    pub(super) fn backend(&self) -> Backend {
        match &self.source {
            Source::Connector => CONNECTOR,
            Source::Cgroup(_) => Backend::Cgroup,
            Source::Subreaper { .. } => Backend::Subreaper,
            Source::Poll => Backend::Poll,
            Source::Over(kept) => kept.backend(),
        }
    }

    fn kept(&self) -> Kept {
        match &self.source {
            Source::Connector if CONNECTOR == Backend::Kqueue => Kept::Kqueue,
            Source::Connector => Kept::ProcConnector,
            Source::Cgroup(cgroup) => Kept::Cgroup { path: cgroup.path().to_owned(), id: cgroup.id() },
            Source::Subreaper { process, .. } => {
                let member = self.lineage.member(process.pid());
                Kept::Subreaper(*member.unwrap_or(process.identity()))
            }
            Source::Poll => Kept::Poll,
            Source::Over(kept) => kept.clone(),
        }
    }

    /// A process that is known under this PID, if it is held.
    pub(super) fn pinned(&self, pid: Pid) -> Option<&Process> {
        let held = || self.held.iter().chain(&self.young).find(|process| process.pid() == pid);
        self.pins.get(&pid).map(|pin| &pin.process).or_else(held)
    }

    /// Looks again at those that were last seen in the tick that they started in: members, and strangers that are held.
    /// Returns whether it is not over for some.
    pub(super) fn settle(&mut self) -> bool {
        let known = self.lineage.known();
        let young = |one: &&Identity| one.unique.is_none() && one.start.is_some() && !one.settled;
        let young: Vec<Identity> = known.filter(young).copied().collect();
        let mut left = false;
        for one in young {
            let seen = match self.pins.get(&one.pid()) {
                Some(pin) => seen_again(&pin.process),
                // Its end may be among what was lost, and another one have its PID.
                None if self.lineage.is_lost() => None,
                None => Process::open(one.pid()).ok().map(|process| process.handle.identity(true)),
            };
            let Some(seen) = seen else {
                continue;
            };
            if seen.start == one.start && seen.settled {
                // Had another one got its PID, its end would have been told since.
                self.lineage.enrich(one.pid(), seen);
            }
            left |= !seen.settled;
        }
        for process in self.held.iter().chain(&self.young) {
            // Of one that has ended there is nothing to tell a successor.
            let young = self.lineage.has_young_stranger(process.pid());
            if let Some(seen) = young.then(|| seen_again(process)).flatten() {
                self.lineage.enrich_stranger(seen);
                left |= !seen.settled;
            }
        }
        left
    }

    /// The root, and its ancestors when it began.
    pub(super) fn line(&self) -> Vec<Identity> {
        let held = |pid| self.held.iter().chain(&self.root_process).find(|one| one.pid() == pid);
        let line = std::iter::once(&self.root).chain(&self.above);
        line.map(|one| match held(one.pid()) {
            Some(held) if one.unique.is_none() && !one.settled => seen_again(held).unwrap_or(*one),
            _ => *one,
        })
        .collect()
    }

    /// Who can be given its orphans, if everything is told of it.
    pub(super) fn adopters(&mut self) -> Option<Vec<Pid>> {
        let is_told = self.fed && !sys::Connector::IS_KQUEUE;
        is_told.then(|| self.lineage.adopters().collect())
    }

    /// `told`: the tick until which everything is told by now that the connector tells. `beside`: some that were there then.
    pub(super) fn save(&self, told: u64, beside: Vec<Identity>) -> TreeState {
        let missing = self.lineage.missing_since();
        let is_all = self.fed && (missing.is_none() || self.walked && missing == Some(u64::MAX));
        let mut lineage = self.lineage.save(is_all.then_some(told));
        if is_all {
            // Or they were known.
            lineage.add_strangers(beside.into_iter().filter(|one| !self.lineage.knows(one.pid())));
        }
        let mut line = self.line();
        TreeState {
            lineage,
            root: line.remove(0),
            root_status: self.root_status,
            above: line,
            members: self.seen,
            evidence: self.evidence.clone(),
            kept: self.kept(),
        }
    }

    /// Takes its descriptors out of the selector.
    pub(super) fn unregister(&self, selector: &Selector) {
        match &self.source {
            Source::Cgroup(cgroup) => selector.remove(cgroup.events()),
            Source::Subreaper { helper: Some(helper), .. } => selector.remove(helper.as_fd()),
            _ => {}
        }
    }

    /// What it goes by; from now on it goes by nothing.
    pub(super) fn take_source(&mut self) -> Source {
        let over = Source::Over(self.kept());
        std::mem::replace(&mut self.source, over)
    }

    fn since(&self, at: u64) -> Duration {
        Duration::from_nanos(at.saturating_sub(self.began))
    }
}

/// A process that was held all the time, as it is seen by somebody who has not looked at it before; `None` if it has ended.
fn seen_again(held: &Process) -> Option<Identity> {
    let again = Process::open(held.pid()).ok()?;
    let seen = again.handle.identity(true);
    // Nobody else has its PID as long as it has not been reaped.
    matches!(held.state(), Ok(State::Running | State::Zombie)).then_some(seen)
}
