//! A kernel in small: few PIDs, reused at once; orphans go to the nearest subreaper above; sessions keep their number
//! taken. It knows who descends from whom, so whatever the machine says can be held against the truth.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::identity::{BootId, Identity, StartTime};
use crate::pid::Pid;
use crate::tree::lineage::{Details, Row};

/// Of the clock, in one tick.
pub(super) const MOMENTS: u64 = 4;
/// So few that they are reused at once.
pub(super) const PIDS: u32 = 14;
/// Positions in `Kernel::processes`.
pub(super) const INIT: usize = 0;
/// If it is, it is excluded: it goes on, and is no subreaper at first.
pub(super) const TRACKER: usize = 1;
pub(super) const ROOT: usize = 3;

/// What a process is to the tree, for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    Member,
    Excluded,
    Stranger,
    /// Below the root, and orphaned before anybody looked: either answer is right.
    Lapsed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    Zombie,
    Reaped,
}

#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) parent: usize,
    /// By whom it was forked, whoever became its parent.
    pub(super) maker: usize,
    pub(super) truth: Truth,
    pub(super) life: Life,
    pub(super) session: Pid,
    pub(super) subreaper: bool,
    start: u64,
    /// It, or one above it, is excluded, has lost its parent, and was given to a member.
    pub(super) fostered: bool,
}

impl Process {
    /// In which it started.
    pub(super) fn tick(&self) -> u64 {
        self.start / MOMENTS
    }
}

/// What the kernel tells whoever has subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Fork { parent: usize, child: usize },
    Exec(usize),
    Exit(usize),
}

/// What processes do.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// And after how many generations that have forked, ended and were reaped at once.
    Fork {
        who: Index,
        pid: Index,
        brief: u8,
    },
    Exec(Index),
    /// And whether it is reaped at once.
    End(Index, bool),
    Reap(Index),
    Setsid(Index),
    Subreaper(Index),
    Pass(u64),
}

impl Act {
    /// Can happen while a scan is proven: nobody is created.
    pub(super) fn in_scan() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (any::<Index>(), any::<bool>()).prop_map(|(who, reaped)| Act::End(who, reaped)),
            2 => any::<Index>().prop_map(Act::Reap),
            1 => any::<Index>().prop_map(Act::Setsid),
            1 => any::<Index>().prop_map(Act::Subreaper),
            1 => (1..2 * MOMENTS).prop_map(Act::Pass),
        ]
    }

    pub(super) fn any() -> impl Strategy<Value = Act> {
        let brief = prop_oneof![5 => Just(0), 1 => 1..3_u8];
        prop_oneof![
            10 => (any::<Index>(), any::<Index>(), brief).prop_map(|(who, pid, brief)| Act::Fork { who, pid, brief }),
            1 => any::<Index>().prop_map(Act::Exec),
            7 => Act::in_scan(),
        ]
    }
}

#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) processes: Vec<Process>,
    pub(super) now: u64,
    pub(super) events: Vec<(u64, Event)>,
    /// Whether it has ids that are never used again.
    pub(super) unique: bool,
}

impl Kernel {
    /// Init, two ancestors and the root, which is in a session of theirs or in its own; and a stranger, whom the elder of
    /// them has started by way of another one: it is in their session too.
    pub(super) fn new(unique: bool, leads: bool) -> Kernel {
        let mut kernel = Kernel { processes: Vec::new(), now: 40 * MOMENTS, events: Vec::new(), unique };
        for (parent, maker, pid, truth) in [
            (0, 0, 1, Truth::Stranger),
            (0, 0, 2, Truth::Stranger),
            (1, 1, 3, Truth::Stranger),
            (2, 2, 4, Truth::Member),
            (0, 1, 5, Truth::Stranger),
        ] {
            kernel.processes.push(Process {
                pid: Pid::new(pid).unwrap(),
                parent,
                maker,
                truth,
                life: Life::Running,
                session: Pid::new(pid.min(2)).unwrap(),
                subreaper: false,
                start: kernel.now,
                fostered: false,
            });
        }
        if leads {
            kernel.processes[ROOT].session = kernel.processes[ROOT].pid;
        }
        kernel
    }

    /// Who does it, of those for whom `may` holds.
    pub(super) fn act(&mut self, act: &Act, may: impl Fn(&Process) -> bool) {
        match act {
            Act::Fork { who, pid, brief } => {
                let Some(mut parent) = self.pick(who, may, true) else { return };
                for generation in 0..=*brief {
                    let free = self.free();
                    if free.is_empty() {
                        return;
                    }
                    let child = self.fork(parent, *pid.get(&free));
                    if generation > 0 {
                        self.end(parent);
                        self.processes[parent].life = Life::Reaped;
                    }
                    parent = child;
                }
            }
            Act::Exec(who) => {
                if let Some(who) = self.pick(who, may, true) {
                    self.tell(Event::Exec(who));
                }
            }
            Act::End(who, reaped) => {
                if let Some(who) = self.pick(who, may, false).filter(|who| !self.tracks(*who)) {
                    self.end(who);
                    if *reaped {
                        self.processes[who].life = Life::Reaped;
                    }
                }
            }
            Act::Reap(who) => {
                let zombies: Vec<usize> =
                    (0..self.processes.len()).filter(|&at| self.processes[at].life == Life::Zombie).collect();
                if !zombies.is_empty() {
                    self.processes[*who.get(&zombies)].life = Life::Reaped;
                }
            }
            Act::Setsid(who) => {
                if let Some(who) = self.pick(who, may, false) {
                    let process = &mut self.processes[who];
                    process.session = process.pid;
                }
            }
            Act::Subreaper(who) => {
                if let Some(who) = self.pick(who, may, false) {
                    self.processes[who].subreaper = true;
                }
            }
            Act::Pass(moments) => self.now += moments,
        }
    }

    fn tracks(&self, who: usize) -> bool {
        who == TRACKER && self.processes[who].truth == Truth::Excluded
    }

    fn pick(&self, who: &Index, may: impl Fn(&Process) -> bool, init: bool) -> Option<usize> {
        let able = |at: &usize| {
            let process = &self.processes[*at];
            process.life == Life::Running && may(process) && (init || *at != INIT)
        };
        let able: Vec<usize> = (0..self.processes.len()).filter(able).collect();
        (!able.is_empty()).then(|| *who.get(&able))
    }

    /// Numbers that are nobody's PID and no living session's.
    fn free(&self) -> Vec<Pid> {
        let is_free = |pid: &Pid| {
            let mut unreaped = self.processes.iter().filter(|process| process.life != Life::Reaped);
            !unreaped.any(|process| process.pid == *pid || process.session == *pid)
        };
        (1..=PIDS).filter_map(Pid::new).filter(is_free).collect()
    }

    pub(super) fn fork(&mut self, parent: usize, pid: Pid) -> usize {
        let Process { truth, session, fostered, .. } = self.processes[parent];
        self.processes.push(Process {
            pid,
            parent,
            maker: parent,
            truth,
            life: Life::Running,
            session,
            subreaper: false,
            start: self.now,
            fostered,
        });
        let child = self.processes.len() - 1;
        self.tell(Event::Fork { parent, child });
        child
    }

    pub(super) fn end(&mut self, who: usize) {
        self.processes[who].life = Life::Zombie;
        self.tell(Event::Exit(who));
        let mut heir = self.processes[who].parent;
        while heir != INIT && !self.processes[heir].subreaper {
            heir = self.processes[heir].parent;
        }
        let is_members = self.processes[heir].truth == Truth::Member;
        for child in &mut self.processes {
            if child.parent == who && child.life != Life::Reaped {
                child.parent = heir;
                child.fostered |= child.truth == Truth::Excluded && is_members;
            }
        }
        // With all that is below it: parents come before their children.
        for at in 0..self.processes.len() {
            let Process { parent, truth, .. } = self.processes[at];
            self.processes[at].fostered |= truth == Truth::Excluded && self.processes[parent].fostered;
        }
    }

    /// Whoever of these cannot be linked to the root now is not owed any more.
    pub(super) fn lapse(&mut self, may: impl Fn(usize) -> bool) {
        for who in (0..self.processes.len()).filter(|&who| may(who)) {
            let Process { truth, life, .. } = self.processes[who];
            match (truth, life) {
                (Truth::Member, Life::Running) => self.processes[who].truth = self.linked(who),
                (Truth::Member, _) => self.processes[who].truth = Truth::Lapsed,
                _ => {}
            }
        }
    }

    /// What it is by its links.
    pub(super) fn linked(&self, who: usize) -> Truth {
        let mut above = who;
        let mut truth = Truth::Member;
        while above != ROOT {
            if self.processes[above].truth == Truth::Excluded {
                truth = Truth::Excluded;
            }
            if above == self.processes[above].parent {
                return Truth::Lapsed;
            }
            above = self.processes[above].parent;
        }
        truth
    }

    fn tell(&mut self, event: Event) {
        self.events.push((self.tick(), event));
    }

    pub(super) fn tick(&self) -> u64 {
        self.now / MOMENTS
    }

    /// Who has this PID now.
    pub(super) fn bearer(&self, pid: Pid) -> Option<usize> {
        (0..self.processes.len()).find(|&at| {
            let process = &self.processes[at];
            process.pid == pid && process.life != Life::Reaped
        })
    }

    pub(super) fn running(&self, truth: Truth) -> Vec<usize> {
        (0..self.processes.len())
            .filter(|&at| self.processes[at].life == Life::Running && self.processes[at].truth == truth)
            .collect()
    }

    /// As read now; bare if it is not there any more.
    pub(super) fn identity(&self, who: usize) -> Identity {
        let process = &self.processes[who];
        let there = process.life != Life::Reaped;
        let ticks = process.start / MOMENTS;
        Identity {
            pid: process.pid,
            unique: (there && self.unique).then_some(who as u64),
            start: there.then_some(StartTime { ticks, offset: 0 }),
            settled: there && ticks < self.tick(),
            pid_namespace: Some(7),
            boot: Some(BootId([1; 16])),
        }
    }

    /// Whether this can have been recorded of that process.
    pub(super) fn is_of(&self, identity: &Identity, who: usize) -> bool {
        let process = &self.processes[who];
        let is_unique = identity.unique.is_none_or(|unique| unique == who as u64);
        let is_start = identity.start.is_none_or(|start| start.ticks == process.start / MOMENTS);
        process.pid == identity.pid && is_unique && is_start
    }

    pub(super) fn row(&self, pid: Pid) -> Option<Row> {
        let process = &self.processes[self.bearer(pid)?];
        let parent = &self.processes[process.parent];
        Some(Row { pid, parent: (pid.get() != 1).then_some(parent.pid) })
    }

    pub(super) fn details(&self, pid: Pid) -> Option<Details> {
        let who = self.bearer(pid)?;
        let process = &self.processes[who];
        let ended = process.life == Life::Zombie;
        Some(Details { session: Some(process.session), ended, ..Details::of(self.identity(who)) })
    }

    /// Of some it cannot be read.
    pub(super) fn is_strange(&self, pid: Pid) -> bool {
        self.bearer(pid).is_some_and(|who| self.processes[who].truth == Truth::Stranger && who % 3 == 0)
    }
}
