//! Forks, execs and ends of whoever is tracked, and of all that they start, as far as it is seen: a kqueue says that a
//! process has forked, but not whom (traps 34 and 35). So whenever one has, or has ended, the process table is read, and
//! whoever is new in it is asked who made it: `p_puniqueid` names the maker for good, whoever adopts the child.
//!
//! Who is forked, forks, ends and is reaped between two looks is not seen, nor is what it started.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use nix::errno::Errno;

use super::abi::{NOTE_EXEC, NOTE_EXIT, NOTE_FORK};
use super::kernel::{self, Kernel, Seen, start_of};
use super::queue::{Attached, Queue, Told};
use crate::error::{Error, Result};
use crate::identity::{Identity, StartTime};
use crate::parse::kinfo_proc::KinfoProc;
use crate::pid::Pid;
use crate::state::ExitStatus;
use crate::sys::notice::Notice;
use crate::sys::posix::monotonic;

#[derive(Debug)]
pub(crate) struct Connector<K: Kernel> {
    kernel: K,
    queue: Queue<K>,
    members: HashMap<Pid, Member>,
    /// Those that were in the table last time and are nobody's: each is asked once.
    strangers: HashMap<Pid, StartTime>,
    /// Somebody may have started somebody that is not known yet.
    is_due: bool,
    /// Tracked just now: of whom they had started, those that are members already are to be told, too.
    tracked: Vec<Pid>,
    /// What has been found out, and could not be told because of an error.
    untold: Vec<Notice>,
    last: usize,
}

#[derive(Debug)]
struct Member {
    /// Of its knote.
    key: usize,
    unique: Option<u64>,
    start: StartTime,
    maker: Maker,
    is_traced: bool,
    /// It has ended, which is told after whom it has started.
    ended: Option<ExitStatus>,
}

/// By what it is known who made a process.
#[derive(Clone, Copy, Debug)]
enum Maker {
    /// By its number, whoever is the parent now.
    Unique(u64),
    /// Where that is refused, it is taken to be the parent.
    Parent(Option<Pid>),
}

/// What a look for new processes has come to.
enum Found {
    All,
    /// These have ended, which is to be told first: others have their PIDs.
    Reused(Vec<Pid>),
    /// There was no end of them. But the children of whoever had ended before are found.
    More,
}

const TRACK: &str = "track process";
const READ: &str = "look for new processes";
/// New ones have to be asked for theirs. After so many rounds, others get a turn.
const ROUNDS: usize = 16;

impl<K: Kernel> Connector<K> {
    pub(super) fn open_in(kernel: K) -> Result<Connector<K>> {
        let failed = |errno: Errno| Error::os(None, "listen for forks", errno.into());
        Ok(Connector {
            queue: Queue::new(kernel.clone()).map_err(failed)?,
            kernel,
            members: HashMap::new(),
            strangers: HashMap::new(),
            is_due: false,
            tracked: Vec::new(),
            untold: Vec::new(),
            last: 0,
        })
    }

    #[cfg(target_os = "macos")]
    pub(super) fn queue(&self) -> &K::Queue {
        self.queue.descriptor()
    }

    /// From now on, notices of this process and of everything that it starts come; for a start, that it has forked
    /// whoever it has already. Returns whether it is tracked: one that has ended before is not.
    pub(crate) fn track(&mut self, pid: Pid, _threads: Option<u32>) -> Result<bool> {
        let seen = match kernel::look(&self.kernel, pid, TRACK) {
            Err(error) if error.is_gone() => return Ok(false),
            seen => seen?,
        };
        match self.members.get(&pid) {
            Some(member) if member.start == seen.start() => {}
            // The end of the one that had the PID is still to be told.
            Some(_) => return Err(Error::unstable(pid, TRACK)),
            None if seen.info.has_ended() => return Ok(false),
            None => {
                let member = self.attach(pid, &seen)?;
                if member.ended.is_some() {
                    return Ok(false);
                }
                self.enter(pid, member)?;
                // Those judged so far may be its children.
                self.strangers.clear();
            }
        }
        self.tracked.push(pid);
        self.queue.ring().map_err(|errno| Error::os(pid, TRACK, errno.into()))?;
        Ok(true)
    }

    /// Of one that has ended, tells whom it has started, and then its end. `false` if it cannot: where processes have no
    /// numbers of their own, or another one has its PID and is tracked.
    pub(crate) fn track_ended(&mut self, ended: &Identity, status: ExitStatus) -> bool {
        let (Some(unique), Some(start)) = (ended.unique, ended.start) else { return false };
        if self.members.contains_key(&ended.pid) {
            return false;
        }
        self.last += 1;
        let member = Member {
            key: self.last,
            unique: Some(unique),
            start,
            maker: Maker::Parent(None),
            is_traced: false,
            ended: Some(status),
        };
        self.strangers.clear();
        self.tracked.push(ended.pid);
        self.enter(ended.pid, member).is_ok()
    }

    /// No more notices of it. What it has started stays tracked.
    pub(crate) fn forget(&mut self, pid: Pid) {
        if self.members.remove(&pid).is_some_and(|member| member.ended.is_none()) {
            self.queue.detach(pid);
        }
    }

    /// Takes all notices that there are by now, without blocking.
    pub(crate) fn read(&mut self, into: &mut Vec<Notice>) -> Result<()> {
        let taken = self.take();
        if taken.is_ok() {
            into.append(&mut self.untold);
        } else {
            self.is_due = true;
            // Should this fail as well, the next event will do.
            let _ = self.queue.set_timer();
        }
        taken
    }

    fn take(&mut self) -> Result<()> {
        let failed = |errno: Errno| Error::os(None, READ, errno.into());
        let mut told = Vec::new();
        while self.queue.read(&mut told, Some(Duration::ZERO)).map_err(failed)? {}
        let at = monotonic();
        for told in told {
            match told {
                Told::Process { pid, key, notes, status } => {
                    let Some(member) = self.members.get_mut(&pid).filter(|member| member.key == key) else {
                        continue;
                    };
                    self.is_due |= notes & (NOTE_FORK | NOTE_EXIT) != 0;
                    if notes & NOTE_EXEC != 0 {
                        self.untold.push(Notice::Executed { pid, at });
                    }
                    if notes & NOTE_EXIT != 0 {
                        let known = member.ended.unwrap_or(ExitStatus::Unknown);
                        member.ended = Some(if status == ExitStatus::Unknown { known } else { status });
                    }
                }
                Told::Timer => {
                    self.is_due = true;
                    self.look_at_traced()?;
                }
                Told::Rung => {}
            }
        }
        // Whoever ended is told after whom it has started, or nobody would know whose those are.
        while self.is_due {
            self.is_due = false;
            let ended = self.ended();
            let found = self.find()?;
            self.retell();
            match found {
                Found::All => {}
                Found::Reused(reused) => {
                    self.is_due = true;
                    self.end(reused);
                }
                Found::More => {
                    self.is_due = true;
                    self.end(ended);
                    return self.queue.ring().map_err(failed);
                }
            }
        }
        self.retell();
        self.end(self.ended());
        Ok(())
    }

    fn ended(&self) -> Vec<Pid> {
        self.members.iter().filter(|(_, member)| member.ended.is_some()).map(|(pid, _)| *pid).collect()
    }

    fn end(&mut self, ended: Vec<Pid>) {
        let at = monotonic();
        for pid in ended {
            if let Some(member) = self.members.remove(&pid) {
                let status = member.ended.unwrap_or(ExitStatus::Unknown);
                self.untold.push(Notice::Ended { pid, status, at });
            }
        }
    }

    /// Looks for children of members until there are no new ones.
    fn find(&mut self) -> Result<Found> {
        for _ in 0..ROUNDS {
            let table = kernel::table(&self.kernel, READ)?;
            // Who started after this is none of these.
            let at = monotonic();
            let mut reused = Vec::new();
            let mut new: Vec<(Pid, KinfoProc)> = Vec::new();
            for info in table {
                let Some(pid) = Pid::from_raw(info.pid) else { continue };
                match self.members.get_mut(&pid) {
                    Some(member) if member.start == start_of(&info) => {}
                    Some(member) => {
                        member.ended.get_or_insert(ExitStatus::Unknown);
                        reused.push(pid);
                    }
                    None => new.push((pid, info)),
                }
            }
            let found = self.judge(&mut new, at)?;
            if !reused.is_empty() {
                // Those who have these PIDs now have not been judged, and can be members, and the makers of some of the new.
                self.strangers.clear();
                return Ok(Found::Reused(self.ended_first(reused)?));
            }
            self.strangers = new.iter().map(|(pid, info)| (*pid, start_of(info))).collect();
            if !found {
                return Ok(Found::All);
            }
        }
        Ok(Found::More)
    }

    /// Of these, whose PIDs others have by now, those that have made none of the others: who has, is told to have ended after
    /// that one has been found. Somebody is left, as one that has made another had not been reaped when that got its PID.
    fn ended_first(&self, mut reused: Vec<Pid>) -> Result<Vec<Pid>> {
        let numbers = self.numbers();
        let mut makers: HashSet<Pid> = HashSet::new();
        for pid in &reused {
            match kernel::look(&self.kernel, *pid, READ).map(|seen| maker_of(&seen)) {
                Ok(Maker::Unique(unique)) => makers.extend(numbers.get(&unique)),
                // An orphan: its parent is not one that has ended.
                Ok(Maker::Parent(_)) => {}
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
        }
        reused.retain(|pid| !makers.contains(pid));
        Ok(reused)
    }

    /// Takes out of these whom members have started, and enters them. Returns whether there were any.
    fn judge(&mut self, new: &mut Vec<(Pid, KinfoProc)>, at: u64) -> Result<bool> {
        let mut asked: HashMap<Pid, Seen> = HashMap::new();
        for (pid, info) in &*new {
            if self.strangers.get(pid) == Some(&start_of(info)) {
                continue;
            }
            match kernel::look(&self.kernel, *pid, READ) {
                Ok(seen) if seen.start() == start_of(info) => drop(asked.insert(*pid, seen)),
                // Reaped since it was listed: nobody can tell any more whose it was.
                Ok(_) => {}
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
        }
        let mut found = false;
        loop {
            let mut made: Vec<(Pid, Seen, Pid)> = Vec::new();
            let numbers = self.numbers();
            new.retain(|(pid, _)| {
                let Some(seen) = asked.get(pid) else { return true };
                let parent = self.member_that(maker_of(seen), &numbers);
                made.extend(parent.map(|parent| (*pid, *seen, parent)));
                parent.is_none()
            });
            if made.is_empty() {
                return Ok(found);
            }
            found = true;
            for (pid, seen, parent) in made {
                let member = self.attach(pid, &seen)?;
                self.enter(pid, member)?;
                self.untold.push(Notice::Forked { parent, child: pid, at });
            }
        }
    }

    /// Whose number it is.
    fn numbers(&self) -> HashMap<u64, Pid> {
        self.members.iter().filter_map(|(pid, member)| Some((member.unique?, *pid))).collect()
    }

    fn member_that(&self, maker: Maker, numbers: &HashMap<u64, Pid>) -> Option<Pid> {
        match maker {
            Maker::Unique(unique) => numbers.get(&unique).copied(),
            Maker::Parent(parent) => parent.filter(|parent| self.members.contains_key(parent)),
        }
    }

    /// Of those below whom was tracked just now, some may have been members for the sake of others.
    fn retell(&mut self) {
        let mut above = std::mem::take(&mut self.tracked);
        if above.is_empty() {
            return;
        }
        let numbers = self.numbers();
        let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
        for (pid, member) in &self.members {
            if let Some(maker) = self.member_that(member.maker, &numbers) {
                children.entry(maker).or_default().push(*pid);
            }
        }
        let at = monotonic();
        let mut told = HashSet::new();
        while let Some(parent) = above.pop() {
            for &child in children.get(&parent).into_iter().flatten().filter(|child| told.insert(**child)) {
                self.untold.push(Notice::Forked { parent, child, at });
                above.push(child);
            }
        }
    }

    /// Attaches to the process that was seen with this PID; or says that it has ended.
    fn attach(&mut self, pid: Pid, seen: &Seen) -> Result<Member> {
        self.last += 1;
        let key = self.last;
        let mut member = Member {
            key,
            unique: seen.unique.map(|info| info.unique),
            start: seen.start(),
            maker: maker_of(seen),
            is_traced: false,
            // It is a zombie, or on its way.
            ended: seen.info.has_ended().then_some(ExitStatus::Unknown),
        };
        let attached = self.queue.attach(pid, NOTE_FORK | NOTE_EXEC, key);
        if attached.map_err(|errno| Error::os(pid, TRACK, errno.into()))? == Attached::Ended {
            member.ended = Some(ExitStatus::Unknown);
        }
        // By PID: it is the one if it has the PID after that.
        match kernel::look(&self.kernel, pid, TRACK) {
            Ok(now) if now.start() == member.start => member.is_traced = now.info.is_traced(),
            Ok(_) => {
                self.queue.detach(pid);
                member.ended = Some(ExitStatus::Unknown);
            }
            Err(error) if error.is_gone() => member.ended = Some(ExitStatus::Unknown),
            Err(error) => {
                self.queue.detach(pid);
                return Err(error);
            }
        }
        Ok(member)
    }

    fn enter(&mut self, pid: Pid, member: Member) -> Result<()> {
        let is_traced = member.is_traced;
        self.members.insert(pid, member);
        // It may have forked before it was attached to.
        self.is_due = true;
        if is_traced {
            self.queue.set_timer().map_err(|errno| Error::os(pid, TRACK, errno.into()))?;
        }
        Ok(())
    }

    fn look_at_traced(&mut self) -> Result<()> {
        let mut left = false;
        for (pid, member) in self.members.iter_mut().filter(|(_, member)| member.is_traced) {
            match kernel::look(&self.kernel, *pid, READ) {
                Ok(seen) if seen.start() == member.start && !seen.info.has_ended() => left = true,
                Ok(_) => {
                    member.ended.get_or_insert(ExitStatus::Unknown);
                }
                Err(error) if error.is_gone() => {
                    member.ended.get_or_insert(ExitStatus::Unknown);
                }
                // What cannot be asked any more is not thereby at an end.
                Err(_) => left = true,
            }
        }
        if left {
            self.queue.set_timer().map_err(|errno| Error::os(None, READ, errno.into()))?;
        }
        Ok(())
    }
}

fn maker_of(seen: &Seen) -> Maker {
    match seen.unique {
        Some(unique) => Maker::Unique(unique.parent_unique),
        None => Maker::Parent(seen.parent()),
    }
}
