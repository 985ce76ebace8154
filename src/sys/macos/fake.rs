//! XNU as far as it is asked anything here: processes that are forked, end and are reaped between any two calls, as a
//! script says. What it does is what traps 28 to 40 say that XNU does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::errno::Errno;

use super::abi::{
    CTL_KERN, EV_ADD, EV_DELETE, EV_ERROR, EVFILT_PROC, EVFILT_TIMER, EVFILT_USER, KERN_PROC, KERN_PROC_ALL,
    KERN_PROC_PID, NOTE_EXEC, NOTE_EXIT, NOTE_EXITSTATUS, NOTE_FORK, NOTE_TRIGGER,
};
use super::kernel::{Event, Kernel};
use super::queue::MOST;
use crate::identity::BootId;
use crate::parse::{kinfo_proc, unique_info};
use crate::state::ExitStatus;

#[derive(Clone, Debug, Default)]
pub(super) struct Fake(Arc<Mutex<Xnu>>);

/// What happens next. Numbers choose among the processes to which it can happen; where there are none, nothing does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Fork(usize),
    /// The child is in the table; that it has been forked is told at the next op. It does nothing before.
    ForkSlowly(usize),
    Exec(usize),
    /// It is on its way: nobody can attach to it any more (traps 36 and 38).
    Exit(usize, i32),
    /// One that is on its way goes on: its children are given away and its end is told; then it is a zombie.
    GoOn(usize),
    Reap(usize),
    /// By another one, which is its parent from then on (trap 32).
    Trace(usize, usize),
    /// The time of all timers has come.
    Tick,
    /// The wall clock is set back (trap 33).
    SetBack,
}

/// Everything about one process that there ever was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) unique: u64,
    pub(super) maker: u64,
    pub(super) start: i64,
    ppid: i32,
    tracer: Option<i32>,
    pub(super) phase: Phase,
    /// As waitpid(2) gives it.
    pub(super) status: i32,
    /// Of another user: how it ends is not for us to know (trap 37).
    pub(super) is_foreign: bool,
    pub(super) is_new: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Alive,
    Ending,
    /// Its end has been told, or would have been if nobody traced it.
    Told,
    Zombie,
    Reaped,
}

#[derive(Debug, Default)]
pub(super) struct Xnu {
    /// By their unique ids.
    pub(super) all: BTreeMap<u64, Process>,
    last_pid: i32,
    clock: i64,
    /// Between two calls.
    pub(super) script: VecDeque<Vec<Op>>,
    /// Beyond that, PIDs are given anew.
    pub(super) most_pids: i32,
    /// A sandbox lets nobody ask who is who.
    pub(super) refuses_ids: bool,
    /// How many more times the table turns out to have grown.
    pub(super) growths: usize,
    /// Whom signals reached.
    pub(super) signals: Vec<(u64, i32)>,
    queues: Vec<BTreeMap<(usize, i16), Knote>>,
}

#[derive(Clone, Copy, Debug)]
struct Knote {
    /// The process that it is attached to, whoever has the PID.
    unique: u64,
    key: usize,
    wanted: u32,
    notes: u32,
    data: i64,
    is_armed: bool,
}

pub(super) const LAUNCHD: i32 = 1;

impl Process {
    /// As XNU shows it.
    pub(super) fn parent_shown(&self) -> i32 {
        self.tracer.unwrap_or(self.ppid)
    }
}

impl Fake {
    /// With launchd and one process of ours, which is returned.
    pub(super) fn new() -> (Fake, i32) {
        let fake = Fake::default();
        let mut xnu = fake.lock();
        xnu.most_pids = 99_999;
        xnu.clock = 1_800_000_000_000_000;
        xnu.fork(None);
        xnu.last_pid = 99;
        xnu.fork(Some(1));
        drop(xnu);
        (fake, 100)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Xnu> {
        self.0.lock().unwrap()
    }

    pub(super) fn act(&self, op: Op) {
        self.lock().act(op);
    }

    /// At a call: first whatever happens before it.
    fn call(&self) -> MutexGuard<'_, Xnu> {
        let mut xnu = self.lock();
        xnu.pass();
        xnu
    }
}

impl Xnu {
    pub(super) fn bearer(&self, pid: i32) -> Option<&Process> {
        self.all.values().find(|process| process.pid == pid && process.phase != Phase::Reaped)
    }

    /// What brings this process nearer to its end, until it is gone.
    pub(super) fn next_step(&self, unique: u64, status: i32) -> Option<Op> {
        let nth = |can: &dyn Fn(&Process) -> bool| {
            self.all.values().filter(|one| !one.is_new && can(one)).position(|one| one.unique == unique)
        };
        match self.all[&unique].phase {
            Phase::Alive if self.all[&unique].is_new => Some(Op::Tick),
            Phase::Alive => {
                nth(&|one| one.phase == Phase::Alive && one.pid >= 100).map(|nth| Op::Exit(nth, status))
            }
            Phase::Ending | Phase::Told => {
                nth(&|one| matches!(one.phase, Phase::Ending | Phase::Told)).map(Op::GoOn)
            }
            Phase::Zombie => nth(&|one| one.phase == Phase::Zombie).map(Op::Reap),
            Phase::Reaped => None,
        }
    }

    /// All but launchd.
    pub(super) fn end_all(&mut self) {
        for unique in self.all.keys().copied().skip(1).collect::<Vec<u64>>() {
            while let Some(op) = self.next_step(unique, 0) {
                self.act(op);
            }
        }
    }

    pub(super) fn pass(&mut self) {
        for op in self.script.pop_front().unwrap_or_default() {
            self.act(op);
        }
    }

    pub(super) fn act(&mut self, op: Op) {
        let new: Vec<u64> = self.all.values().filter(|one| one.is_new).map(|one| one.unique).collect();
        for unique in new {
            self.announce(unique);
        }
        match op {
            Op::Fork(nth) => {
                let maker = self.pick(nth, |one| one.phase == Phase::Alive);
                if let Some(unique) = maker.and_then(|maker| self.fork(Some(maker))) {
                    self.announce(unique);
                }
            }
            Op::ForkSlowly(nth) => {
                if let Some(maker) = self.pick(nth, |one| one.phase == Phase::Alive) {
                    self.fork(Some(maker));
                }
            }
            Op::Exec(nth) => {
                if let Some(unique) = self.pick(nth, |one| one.phase == Phase::Alive) {
                    self.note(unique, NOTE_EXEC, 0);
                }
            }
            Op::Exit(nth, status) => {
                if let Some(unique) = self.pick(nth, |one| one.phase == Phase::Alive && one.pid >= 100) {
                    let process = self.get(unique);
                    process.phase = Phase::Ending;
                    process.status = status;
                }
            }
            Op::GoOn(nth) => {
                if let Some(unique) = self.pick(nth, |one| matches!(one.phase, Phase::Ending | Phase::Told)) {
                    self.go_on(unique);
                }
            }
            Op::Reap(nth) => {
                if let Some(unique) = self.pick(nth, |one| one.phase == Phase::Zombie) {
                    self.reap(unique);
                }
            }
            Op::Trace(nth, by) => {
                let tracer = self.pick(by, |one| one.phase == Phase::Alive);
                let traced = self.pick(nth, |one| {
                    one.phase == Phase::Alive
                        && one.pid >= 100
                        && one.tracer.is_none()
                        && Some(one.unique) != tracer
                });
                if let (Some(traced), Some(tracer)) = (traced, tracer) {
                    let tracer = self.get(tracer).pid;
                    self.get(traced).tracer = Some(tracer);
                }
            }
            Op::Tick => {
                for queue in &mut self.queues {
                    for ((_, filter), knote) in queue {
                        if *filter == EVFILT_TIMER && knote.wanted != 0 {
                            knote.is_armed = true;
                        }
                    }
                }
            }
            Op::SetBack => self.clock -= 5_000_000,
        }
    }

    fn pick(&self, nth: usize, can: impl Fn(&Process) -> bool) -> Option<u64> {
        let able: Vec<u64> =
            self.all.values().filter(|one| !one.is_new && can(one)).map(|one| one.unique).collect();
        (!able.is_empty()).then(|| able[nth % able.len()])
    }

    fn get(&mut self, unique: u64) -> &mut Process {
        self.all.get_mut(&unique).unwrap()
    }

    /// `None` if all PIDs are taken.
    fn fork(&mut self, maker: Option<u64>) -> Option<u64> {
        let ppid = maker.map_or(0, |maker| self.get(maker).pid);
        let mut after = (self.last_pid + 1..=self.most_pids).chain(100..=self.last_pid.min(self.most_pids));
        self.last_pid = after.find(|pid| self.bearer(*pid).is_none())?;
        self.clock += 1;
        let unique = self.all.len() as u64 + 1;
        self.all.insert(
            unique,
            Process {
                pid: self.last_pid,
                unique,
                maker: maker.unwrap_or(0),
                start: self.clock,
                ppid,
                tracer: None,
                phase: Phase::Alive,
                status: 0,
                is_foreign: unique % 5 == 0,
                is_new: maker.is_some(),
            },
        );
        Some(unique)
    }

    fn announce(&mut self, unique: u64) {
        self.get(unique).is_new = false;
        let maker = self.get(unique).maker;
        self.note(maker, NOTE_FORK, 0);
    }

    fn go_on(&mut self, unique: u64) {
        let process = *self.get(unique);
        if process.phase == Phase::Told {
            self.get(unique).phase = Phase::Zombie;
            return;
        }
        let mut freed = Vec::new();
        for child in self.all.values_mut().filter(|child| child.phase != Phase::Reaped) {
            if child.ppid == process.pid && child.unique != unique {
                child.ppid = LAUNCHD;
            }
            // Whoever it traced goes on without.
            if child.tracer == Some(process.pid) {
                child.tracer = None;
                freed.extend((child.phase >= Phase::Told).then_some((child.unique, child.status)));
            }
        }
        for (freed, status) in freed {
            self.note(freed, NOTE_EXIT, i64::from(status));
        }
        self.get(unique).phase = Phase::Told;
        if process.tracer.is_none() {
            self.note(unique, NOTE_EXIT, i64::from(process.status));
        }
    }

    fn reap(&mut self, unique: u64) {
        let process = *self.get(unique);
        if process.tracer.is_some() {
            // By its tracer; from now on it is its parent's.
            self.get(unique).tracer = None;
            return self.note(unique, NOTE_EXIT, i64::from(process.status));
        }
        self.get(unique).phase = Phase::Reaped;
        self.note(unique, NOTE_EXIT, i64::from(process.status));
    }

    fn note(&mut self, unique: u64, note: u32, data: i64) {
        for queue in &mut self.queues {
            for ((_, filter), knote) in queue {
                if *filter != EVFILT_PROC || knote.unique != unique || knote.wanted & note == 0 {
                    continue;
                }
                if knote.notes & NOTE_EXIT != 0 {
                    // That was the last.
                    continue;
                }
                knote.is_armed = true;
                knote.notes |= note;
                if note == NOTE_EXIT && knote.wanted & NOTE_EXITSTATUS != 0 {
                    knote.notes |= NOTE_EXITSTATUS;
                    knote.data = data;
                }
            }
        }
    }

    fn entry(&self, process: &Process) -> [u8; kinfo_proc::SIZE] {
        let parent = process.parent_shown();
        let flag = if process.tracer.is_some() { 0x800 } else { 0 }
            | if process.phase > Phase::Alive { 0x2000 } else { 0 };
        let original = if process.tracer.is_some() { process.ppid } else { 0 };
        let mut entry = [0; kinfo_proc::SIZE];
        let mut put = |at: usize, bytes: &[u8]| entry[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &(process.start / 1_000_000).to_le_bytes());
        put(8, &((process.start % 1_000_000) as i32).to_le_bytes());
        put(32, &i32::to_le_bytes(flag));
        put(36, &[if process.phase == Phase::Zombie { 5 } else { 2 }]);
        put(40, &process.pid.to_le_bytes());
        put(44, &original.to_le_bytes());
        put(243, format!("fake {}", process.unique).as_bytes());
        put(560, &parent.to_le_bytes());
        entry
    }

    fn listed(&self) -> Vec<u8> {
        let mut listed: Vec<&Process> = self.all.values().filter(|one| one.phase != Phase::Reaped).collect();
        // The living first, the newest of them at the head; and the kernel itself at the end.
        listed.sort_by_key(|one| (one.phase == Phase::Zombie, std::cmp::Reverse(one.unique)));
        let mut bytes: Vec<u8> = listed.into_iter().flat_map(|one| self.entry(one)).collect();
        let kernel_task = Process { pid: 0, ppid: 0, start: 1, tracer: None, ..self.all[&1] };
        bytes.extend(self.entry(&kernel_task));
        bytes
    }

    fn change(&mut self, queue: usize, change: &Event) -> Result<(), Errno> {
        let place = (change.ident, change.filter);
        if change.flags & EV_DELETE != 0 {
            return self.queues[queue].remove(&place).map(drop).ok_or(Errno::ENOENT);
        }
        if change.filter == EVFILT_PROC && change.flags & EV_ADD != 0 {
            // One that stands is not attached anew, whoever has the PID (trap 39).
            if let Some(knote) = self.queues[queue].get_mut(&place) {
                knote.key = change.key;
                knote.wanted = change.notes;
                return Ok(());
            }
            let process = i32::try_from(change.ident).ok().and_then(|pid| self.bearer(pid)).copied();
            let Some(process) = process.filter(|one| one.phase == Phase::Alive) else {
                return Err(Errno::ESRCH);
            };
            if process.is_foreign && change.notes & NOTE_EXITSTATUS != 0 {
                return Err(Errno::EACCES);
            }
            let knote = Knote {
                unique: process.unique,
                key: change.key,
                wanted: change.notes,
                notes: 0,
                data: 0,
                is_armed: false,
            };
            self.queues[queue].insert(place, knote);
            return Ok(());
        }
        if change.flags & EV_ADD != 0 {
            let wanted = u32::from(change.filter == EVFILT_TIMER);
            let knote = Knote { unique: 0, key: change.key, wanted, notes: 0, data: 0, is_armed: false };
            self.queues[queue].insert(place, knote);
            return Ok(());
        }
        let knote = self.queues[queue].get_mut(&place).ok_or(Errno::ENOENT)?;
        knote.is_armed |= change.filter == EVFILT_USER && change.notes & NOTE_TRIGGER != 0;
        Ok(())
    }

    fn take(&mut self, queue: usize, events: &mut Vec<Event>) {
        let mut gone = Vec::new();
        for (&(ident, filter), knote) in &mut self.queues[queue] {
            if !knote.is_armed || events.len() == MOST {
                continue;
            }
            let (notes, data) = (knote.notes, knote.data);
            events.push(Event { ident, filter, flags: 0, notes, data, key: knote.key });
            if notes & NOTE_EXIT != 0 || filter == EVFILT_TIMER {
                gone.push((ident, filter));
            }
            knote.is_armed = false;
            knote.notes = 0;
        }
        for place in gone {
            self.queues[queue].remove(&place);
        }
    }
}

impl Kernel for Fake {
    type Queue = usize;

    fn sysctl(&self, name: &[i32], buffer: Option<&mut [u8]>) -> Result<usize, Errno> {
        let mut xnu = self.call();
        match (name, buffer) {
            (&[CTL_KERN, KERN_PROC, KERN_PROC_PID, pid], Some(buffer)) => {
                // Nobody: a success with nothing in it (trap 28).
                let Some(process) = xnu.bearer(pid) else { return Ok(0) };
                buffer.copy_from_slice(&xnu.entry(process));
                Ok(kinfo_proc::SIZE)
            }
            (&[CTL_KERN, KERN_PROC, KERN_PROC_ALL, 0], None) => Ok(xnu.listed().len()),
            (&[CTL_KERN, KERN_PROC, KERN_PROC_ALL, 0], Some(buffer)) => {
                let listed = xnu.listed();
                if xnu.growths > 0 || listed.len() > buffer.len() {
                    xnu.growths = xnu.growths.saturating_sub(1);
                    return Err(Errno::ENOMEM);
                }
                buffer[..listed.len()].copy_from_slice(&listed);
                Ok(listed.len())
            }
            _ => Err(Errno::ENOENT),
        }
    }

    fn unique_info(&self, pid: i32, buffer: &mut [u8]) -> Result<usize, Errno> {
        let xnu = self.call();
        if xnu.refuses_ids {
            return Err(Errno::EPERM);
        }
        let process = xnu.bearer(pid).ok_or(Errno::ESRCH)?;
        buffer.fill(0);
        buffer[16..24].copy_from_slice(&process.unique.to_le_bytes());
        buffer[24..32].copy_from_slice(&process.maker.to_le_bytes());
        Ok(unique_info::SIZE)
    }

    fn queue(&self) -> Result<usize, Errno> {
        let mut xnu = self.call();
        xnu.queues.push(BTreeMap::new());
        Ok(xnu.queues.len() - 1)
    }

    fn kevent(
        &self,
        queue: &usize,
        changes: &[Event],
        events: &mut Vec<Event>,
        timeout: Option<Duration>,
    ) -> Result<(), Errno> {
        let mut xnu = self.call();
        events.clear();
        for change in changes {
            let data = xnu.change(*queue, change).err().map_or(0, |errno| errno as i64);
            events.push(Event { flags: EV_ERROR, data, ..*change });
        }
        if changes.is_empty() {
            xnu.take(*queue, events);
            while events.is_empty() && timeout != Some(Duration::ZERO) && !xnu.script.is_empty() {
                xnu.pass();
                xnu.take(*queue, events);
            }
        }
        Ok(())
    }

    fn kill(&self, pid: i32, signal: i32) -> Result<(), Errno> {
        let mut xnu = self.call();
        let reached = xnu.bearer(pid).ok_or(Errno::ESRCH)?.unique;
        xnu.signals.push((reached, signal));
        Ok(())
    }

    /// We are nobody's parent.
    fn child_status(&self, _pid: i32) -> Option<ExitStatus> {
        None
    }

    fn boot(&self) -> Option<BootId> {
        Some(BootId([7; 16]))
    }
}
