//! The simulated kernel, somebody who listens to it badly, and the machine.

use std::cell::RefCell;
use std::collections::BTreeSet;

use proptest::sample::Index;

use super::kernel::{Act, Event, Kernel, Life, PIDS, Process, ROOT, TRACKER, Truth};
use super::setup::{Setup, Source, Step};
use super::told::{Bearers, Told};
use crate::identity::{Identity, Sameness};
use crate::pid::Pid;
use crate::state::ExitStatus;
use crate::tree::lineage::check::Listener;
use crate::tree::lineage::{Input, Lineage, Output, Row, Saved, same};

mod walk;

#[derive(Clone, Copy, Debug)]
enum Notice {
    Event(Event),
    Lost,
}

pub(super) struct World {
    pub(super) kernel: Kernel,
    setup: Setup,
    pub(super) lineage: Lineage,
    listener: Listener,
    out: Vec<Output>,
    waiting: Vec<(u64, Notice)>,
    bearers: Bearers,
    saved: Option<Saved>,
    /// Whose forks and ends are told; `None`: everybody's.
    pub(super) followed: Option<BTreeSet<usize>>,
    /// When it was attached, nobody was overlooked.
    is_all: bool,
    pub(super) counts: Counts,
}

/// What a run has met.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) suspects: usize,
    /// Suspects that were proven strangers, and those that were proven members.
    pub(super) cleared: usize,
    pub(super) convicted: usize,
    /// Strangers that held emptiness back to the end.
    pub(super) held: usize,
    pub(super) reused: usize,
    pub(super) bare: usize,
    /// Members that joined without a parent among them.
    pub(super) orphans: usize,
    pub(super) resynced: usize,
    pub(super) empty: usize,
    /// Trackers that had asked for orphans since the tree began.
    pub(super) asked: usize,
    /// Walks that certainly overlooked nobody, and others.
    pub(super) walked: usize,
    pub(super) overlooked: usize,
}

impl World {
    pub(super) fn new(setup: &Setup) -> World {
        let mut kernel = Kernel::new(setup.unique, setup.leads);
        for act in &setup.before {
            kernel.act(act, |process| process.truth == Truth::Member);
            if kernel.processes[ROOT].life != Life::Running {
                kernel = Kernel::new(setup.unique, setup.leads);
            }
        }
        kernel.now += 4;
        let excluded = kernel.running(Truth::Member).get(1).copied();
        let mut exclude: Vec<Identity> = Vec::new();
        if let (true, Some(excluded)) = (setup.excluding, excluded) {
            exclude.push(kernel.identity(excluded));
            kernel.processes[excluded].truth = Truth::Excluded;
        }
        let mut adopters = vec![2, 3];
        if setup.above {
            exclude.push(kernel.identity(TRACKER));
            kernel.processes[TRACKER].truth = Truth::Excluded;
            adopters.remove(0);
        }
        let spared = setup.above.then(|| kernel.processes[TRACKER].pid);
        kernel.lapse(|_| true);
        kernel.events.clear();
        let mut lineage = Lineage::new(kernel.identity(ROOT), exclude);
        lineage.set_adopters(adopters.into_iter().filter_map(Pid::new));
        spared.into_iter().for_each(|spared| lineage.spare(spared));
        if setup.sessions {
            let members = kernel.running(Truth::Member);
            lineage.set_sessions(members.into_iter().map(|who| kernel.processes[who].session));
        }
        let listener = Listener::of(&lineage);
        let mut world = World {
            kernel,
            setup: setup.clone(),
            lineage,
            listener,
            out: Vec::new(),
            waiting: Vec::new(),
            bearers: Bearers::default(),
            saved: None,
            followed: None,
            is_all: true,
            counts: Counts::default(),
        };
        if let Some((acts, turns)) = &setup.walk {
            world.walk(acts, *turns);
            return world;
        }
        // As when attaching: all that can be linked to the root.
        let excluded = world.kernel.running(Truth::Excluded);
        world.tell(Input::Lost { since: u64::MAX });
        world.scan(&[]);
        if setup.source == Source::Poll {
            let since = world.kernel.tick();
            world.tell(Input::Lost { since });
        }
        assert_eq!(world.lineage.len(), world.kernel.running(Truth::Member).len());
        assert_eq!(world.kernel.running(Truth::Excluded), excluded);
        world
    }

    pub(super) fn step(&mut self, step: &Step) {
        match step {
            Step::Act(act) => self.act(act),
            Step::Deliver(count) => self.deliver(*count),
            Step::Lose(from, count) => self.lose(from, *count),
            Step::Scan(acts) => {
                self.deliver(usize::MAX);
                self.scan(acts);
            }
            Step::Find(which) => self.find(which),
            Step::Save if !self.waiting.iter().any(|(_, notice)| matches!(notice, Notice::Lost)) => {
                self.save();
            }
            Step::Save => {}
            Step::Restart => self.restart(),
        }
        self.check();
    }

    fn act(&mut self, act: &Act) {
        self.kernel.act(act, |_| true);
        self.take_events();
    }

    fn take_events(&mut self) {
        for (tick, event) in self.kernel.events.drain(..) {
            let is_told = match (&mut self.followed, event) {
                (None, _) => true,
                (Some(followed), Event::Fork { parent, child }) => {
                    followed.contains(&parent) && followed.insert(child)
                }
                (Some(followed), Event::Exec(who) | Event::Exit(who)) => followed.contains(&who),
            };
            if is_told {
                self.waiting.push((tick, Notice::Event(event)));
            }
        }
    }

    fn tell(&mut self, input: Input<'_>) {
        self.lineage.step(input, &mut self.out);
        self.heard();
    }

    fn deliver(&mut self, count: usize) {
        for (tick, notice) in self.waiting.drain(..count.min(self.waiting.len())).collect::<Vec<_>>() {
            match (notice, self.setup.source) {
                (Notice::Lost, _) => self.tell(Input::Lost { since: tick }),
                (Notice::Event(event), Source::Poll) => self.deliver_end(event),
                (Notice::Event(event), _) => self.deliver_event(event),
            }
        }
    }

    fn deliver_event(&mut self, event: Event) {
        let Some(told) = self.bearers.told(&self.kernel, event) else { return };
        if let Told::Forked { child, .. } = told {
            self.counts.reused += usize::from(self.bearers.of(child.pid) > 1);
        }
        self.tell(told.input());
    }

    /// Of whoever was pinned when it became known.
    fn deliver_end(&mut self, event: Event) {
        let Event::Exit(who) = event else { return };
        let pid = self.kernel.processes[who].pid;
        let mut known = self.lineage.members().chain(self.lineage.suspects());
        let is_one = known.any(|known| self.kernel.is_of(known, who));
        let alike = |other: usize| self.kernel.is_of(&self.start_of(who), other);
        // Without unique ids two can look the same; a pin is of one of them.
        if is_one && (0..self.kernel.processes.len()).filter(|&other| alike(other)).count() == 1 {
            drop(known);
            self.tell(Input::Ended { pid, status: ExitStatus::Code(0) });
        }
    }

    fn start_of(&self, who: usize) -> Identity {
        let mut kernel = self.kernel.clone();
        kernel.processes[who].life = Life::Running;
        kernel.identity(who)
    }

    fn lose(&mut self, from: &Index, count: usize) {
        if self.waiting.is_empty() || self.setup.lossless || self.setup.source == Source::Poll {
            return;
        }
        let from = from.index(self.waiting.len());
        let to = (from + count).min(self.waiting.len());
        let since = self.waiting[from].0;
        self.waiting.splice(from..to, [(since, Notice::Lost)]);
    }

    /// All has been delivered.
    pub(super) fn scan(&mut self, acts: &[(u32, Act)]) {
        if self.lineage.is_empty() {
            return;
        }
        let began = self.kernel.tick();
        let before: Vec<Identity> = self.lineage.suspects().copied().collect();
        // As when attaching, the first time: the kernel counts only from then on.
        if self.setup.source == Source::Counted && self.lineage.is_lost() && self.counts.resynced > 0 {
            self.census();
        } else {
            let kernel = RefCell::new(self.kernel.clone());
            let act = |at: u32| {
                for (_, act) in acts.iter().filter(|(when, _)| *when == at) {
                    kernel.borrow_mut().act(act, |_| true);
                }
            };
            let mut table: Vec<Row> = Vec::new();
            for number in 1..=PIDS {
                act(number);
                table.extend(kernel.borrow().row(Pid::new(number).unwrap()));
            }
            let mut asked = PIDS;
            let mut details = |pid| {
                asked += 1;
                act(asked);
                kernel.borrow().details(pid)
            };
            // What the machine says is held against what is so when all has been read.
            let mut lineage = self.lineage.clone();
            if let Some(spared) = lineage.spared().filter(|_| kernel.borrow().processes[TRACKER].subreaper) {
                lineage.add_adopter(spared);
                self.counts.asked += 1;
            }
            let mut out = Vec::new();
            let mut is_strange = |pid| kernel.borrow().is_strange(pid);
            let (details, is_strange) = (&mut details, &mut is_strange);
            lineage.step(Input::Scanned { table: &table, details, is_strange, began }, &mut out);
            self.kernel = kernel.into_inner();
            self.lineage = lineage;
            self.out = out;
            self.heard();
        }
        if self.lineage.missing_since().is_none() {
            self.followed = None;
        }
        self.bearers.count(&self.kernel);
        self.take_events();
        self.check_known();
        for suspect in before {
            let is =
                |known: &Identity| same(known, &suspect) != Sameness::Different && known.pid == suspect.pid;
            if self.lineage.members().any(is) {
                self.counts.convicted += 1;
            } else if !self.lineage.suspects().any(is)
                && self.kernel.bearer(suspect.pid).is_some_and(|who| self.kernel.is_of(&suspect, who))
            {
                self.counts.cleared += 1;
            }
        }
        self.counts.suspects += self.lineage.suspects().count();
        if self.setup.source == Source::Poll {
            self.tell(Input::Lost { since: began });
        }
    }

    fn heard(&mut self) {
        let out = std::mem::take(&mut self.out);
        for output in &out {
            match output {
                Output::Empty => {
                    self.counts.empty += 1;
                    assert_eq!(self.kernel.running(Truth::Member), [] as [usize; 0], "empty, and these live");
                }
                Output::Resynced { .. } => self.counts.resynced += 1,
                Output::Joined { member, parent } => {
                    self.counts.bare += usize::from(member.unique.is_none() && member.start.is_none());
                    self.counts.orphans += usize::from(parent.is_none());
                }
                Output::Executed { .. } | Output::Left { .. } => {}
            }
        }
        self.listener.hear(&out, &self.lineage);
        self.check_strangers();
    }

    fn census(&mut self) {
        let alive: Vec<(Identity, Option<Pid>)> = self
            .kernel
            .running(Truth::Member)
            .into_iter()
            .map(|who| {
                let parent = self.kernel.processes[who].parent;
                (self.kernel.identity(who), Some(self.kernel.processes[parent].pid))
            })
            .collect();
        self.tell(Input::Census { alive: &alive });
        let mut expected: Vec<Pid> = alive.iter().map(|(identity, _)| identity.pid).collect();
        expected.sort();
        // Only what cannot be told from somebody excluded stays in doubt.
        let suspects: Vec<Pid> = self.lineage.suspects().map(|suspect| suspect.pid).collect();
        assert!(suspects.is_empty() || (self.setup.excluding && !self.setup.unique), "{suspects:?}");
        let mut listed: Vec<Pid> = self.lineage.members().map(|member| member.pid).chain(suspects).collect();
        listed.sort();
        assert_eq!(listed, expected);
    }

    fn find(&mut self, which: &Index) {
        let children: Vec<usize> = self
            .kernel
            .running(Truth::Member)
            .into_iter()
            .filter(|&who| self.kernel.processes[self.kernel.processes[who].parent].truth == Truth::Member)
            .collect();
        if children.is_empty() || self.setup.source == Source::Counted {
            return;
        }
        let who = *which.get(&children);
        let member = self.kernel.identity(who);
        let parent = self.kernel.processes[self.kernel.processes[who].parent].pid;
        // Whoever looks at processes looks after all that was told.
        self.deliver(usize::MAX);
        if self.setup.source == Source::Poll {
            self.tell(Input::Found { member, parent: Some(parent) });
        } else {
            self.tell(Input::Forked { parent, child: member });
        }
        if self.lineage.member(member.pid).is_some_and(|known| self.kernel.is_of(known, who)) {
            self.followed.iter_mut().for_each(|followed| followed.extend([who]));
        }
    }

    fn save(&mut self) {
        // Where nothing is missing, whoever is not known is none.
        let all = self.setup.source != Source::Poll && self.waiting.is_empty();
        let told = (all && self.lineage.missing_since().is_none()).then(|| self.kernel.tick());
        let mut saved = self.lineage.save(told);
        if told.is_some() {
            let there = (1..=PIDS).filter_map(|pid| self.kernel.bearer(Pid::new(pid)?));
            let there = there.map(|who| self.kernel.identity(who));
            saved.add_strangers(there.filter(|one| !self.lineage.knows(one.pid)));
        }
        self.saved = Some(saved);
    }

    fn restart(&mut self) {
        if let Some(saved) = &self.saved {
            self.lineage = Lineage::adopt(saved.clone());
            self.listener = Listener::of(&self.lineage);
            self.waiting.clear();
            self.bearers.count(&self.kernel);
            if self.setup.proves && self.setup.source != Source::Poll {
                self.prove();
            }
        }
    }

    /// A successor follows those of whom it is proven that they are there. If that is all, nothing is missing of them.
    fn prove(&mut self) {
        let mut all = true;
        let mut followed = BTreeSet::new();
        let known: Vec<Identity> = self.lineage.members().chain(self.lineage.suspects()).copied().collect();
        for known in known {
            let bearer = self.kernel.bearer(known.pid);
            let bearer = bearer.filter(|&who| self.kernel.processes[who].life == Life::Running);
            let sameness = bearer.map(|who| (who, same(&known, &self.kernel.identity(who))));
            match sameness {
                Some((who, Sameness::Same)) => drop(followed.insert(who)),
                Some((_, Sameness::Unknown)) => all = false,
                _ => self.tell(Input::Ended { pid: known.pid, status: ExitStatus::Unknown }),
            }
        }
        if all && !self.lineage.is_empty() {
            self.bearers.set(followed.iter().map(|&who| self.kernel.processes[who].pid));
            self.followed = Some(followed);
            self.tell(Input::Unseen { since: u64::MAX });
        }
    }

    /// Nobody is listed who never was one.
    fn check_strangers(&self) {
        for member in self.lineage.members() {
            let mut candidates =
                self.kernel.processes.iter().enumerate().filter(|(at, _)| self.kernel.is_of(member, *at));
            let is_right = |(_, process): (usize, &Process)| {
                matches!(process.truth, Truth::Member | Truth::Lapsed) || process.fostered
            };
            assert!(candidates.any(is_right), "{member} is listed, and is a stranger");
        }
    }

    /// All has been told, or was made up for: nobody is missing, and whoever has a listed PID is a member.
    fn check_known(&self) {
        if self.lineage.missing_since().is_some() || self.lineage.is_empty() {
            return;
        }
        for who in self.kernel.running(Truth::Member) {
            let mut known = self.lineage.members().chain(self.lineage.suspects());
            assert!(known.any(|known| self.kernel.is_of(known, who)), "process {who} is missing");
        }
        for member in self.lineage.members() {
            let Some(who) = self.kernel.bearer(member.pid) else { continue };
            let process = &self.kernel.processes[who];
            let is_right = matches!(process.truth, Truth::Member | Truth::Lapsed) || process.fostered;
            assert!(is_right, "{member} is listed, and process {who} has its PID");
        }
    }

    fn check(&self) {
        if self.waiting.is_empty() {
            self.check_known();
            // What was forked unseen may be in doubt once it has been seen.
            let is_exact = self.is_all || self.followed.is_some();
            if self.setup.lossless
                && self.setup.source == Source::Events
                && is_exact
                && !self.lineage.is_empty()
            {
                self.check_exact();
            }
        }
    }

    fn check_exact(&self) {
        let mut members = self.kernel.running(Truth::Member);
        if let Some(followed) = &self.followed {
            members.retain(|who| followed.contains(who));
        }
        let mut members: Vec<Pid> = members.into_iter().map(|who| self.kernel.processes[who].pid).collect();
        members.sort();
        let mut listed: Vec<Pid> = self.lineage.members().map(|member| member.pid).collect();
        if self.setup.walk.is_some() {
            let is_fostered = |who: usize| self.kernel.processes[who].fostered;
            listed.retain(|pid| !self.kernel.bearer(*pid).is_some_and(is_fostered));
        }
        assert_eq!(listed, members);
        assert_eq!(self.lineage.suspects().count(), 0);
    }

    /// All members end, and then the strangers that were suspected.
    pub(super) fn finish(&mut self) {
        self.deliver(usize::MAX);
        for truth in [Truth::Member, Truth::Lapsed] {
            for who in self.kernel.running(truth) {
                self.kernel.end(who);
            }
        }
        self.settle();
        for round in 0.. {
            assert!(round < 3, "never empty, though all have ended: {:?}", self.lineage);
            let suspects: Vec<Identity> = self.lineage.suspects().copied().collect();
            if self.lineage.is_empty() {
                break;
            }
            // Strangers, and what was fostered.
            for known in suspects.iter().chain(&self.lineage.members().copied().collect::<Vec<_>>()) {
                if let Some(who) = self.kernel.bearer(known.pid).filter(|&who| who != 0) {
                    if self.kernel.processes[who].life == Life::Running {
                        self.counts.held += 1;
                        self.kernel.end(who);
                    }
                }
            }
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.take_events();
        self.deliver(usize::MAX);
        self.check();
        if self.lineage.missing_since().is_some() {
            self.kernel.now += 8;
            self.scan(&[]);
            self.deliver(usize::MAX);
        }
    }
}
