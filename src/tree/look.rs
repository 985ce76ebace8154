//! What is asked of the kernel: whether a tree's source says that it is empty, and who is in it where nobody tells.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::identity::{Identity, Sameness};
use crate::pid::Pid;
use crate::process::Process;
use crate::state::{ExitStatus, State};
use crate::sys::{self, Report};
use crate::tree::engine::Inner;
use crate::tree::evidence;
use crate::tree::follow::{Pin, Source, Word};
use crate::tree::hear::{bare, is_bare};
use crate::tree::lineage::{Details, Input, Row};

/// How often a scan is tried at once, while others fork.
const TRIES: usize = 16;
/// A scan takes at most this share of one processor: one in so many.
const SHARE: u32 = 20;
/// A start is stamped before it is told, and processors do not agree on the time to the tick.
const STAMPED: u64 = 2;
const SOON: Duration = Duration::from_millis(1);
const LATEST: Duration = Duration::from_secs(1);

impl Inner {
    /// Looks at a tree: what its source says, who is in it if nobody tells, and whether it is empty. `scan`: also reads
    /// the process table where that is what it takes.
    pub(super) fn look(&mut self, key: u64, scan: bool) {
        if self.tree(key).emptied.is_some() {
            return;
        }
        let follow = self.tree(key);
        let scan =
            scan && (matches!(follow.source, Source::Poll { .. }) || follow.fed && follow.lineage.is_lost());
        let mut looked = match &follow.source {
            Source::Cgroup(_) => self.look_at_cgroup(key),
            Source::Subreaper { .. } => self.look_at_helper(key),
            Source::Connector | Source::Poll { .. } | Source::Over(_) => Ok(()),
        };
        if scan && looked.is_ok() {
            looked = self.scan(key);
        }
        if let Err(error) = looked {
            let follow = self.tree(key);
            follow.fail(error);
            if follow.due().is_none() {
                follow.look_after(LATEST / 10);
            }
        }
    }

    /// After an end that the connector told.
    pub(super) fn check_source(&mut self, key: u64) {
        let follow = self.tree(key);
        if matches!(follow.source, Source::Cgroup(_)) && !follow.lineage.has_members() {
            self.look(key, false);
        }
    }

    pub(super) fn look_at_cgroup(&mut self, key: u64) -> Result<()> {
        // The last one leaves its cgroup moments after its end has been told (trap 3 is about the wake-up, which is later).
        for _ in 0..64 {
            let follow = self.tree(key);
            let Source::Cgroup(cgroup) = &follow.source else { return Ok(()) };
            if !cgroup.is_populated()? {
                self.hear_connector_of(key);
                return self.settle(key);
            }
            let known = follow.lineage.has_members();
            if known && follow.fed {
                return Ok(());
            }
            let listed = cgroup.members()?;
            if self.find(key, &listed)? || known {
                return Ok(());
            }
            std::thread::yield_now();
        }
        self.tree(key).look_after(SOON);
        Ok(())
    }

    /// Whoever is in its cgroup, until a look finds nobody new: from then on all are heard of.
    pub(super) fn list_cgroup(&mut self, key: u64) -> Result<()> {
        for _ in 0..TRIES {
            let follow = self.tree(key);
            let Source::Cgroup(cgroup) = &follow.source else { return Ok(()) };
            let (seen, listed) = (follow.seen, cgroup.members()?);
            self.find(key, &listed)?;
            if self.tree(key).seen == seen {
                break;
            }
        }
        Ok(())
    }

    /// The kernel says that nobody is left. Members that were moved elsewhere can be, and of others the end is about to
    /// be told.
    fn settle(&mut self, key: u64) -> Result<()> {
        let members: Vec<Identity> = self.tree(key).members().collect();
        let mut alive = false;
        for member in members {
            let ended = match self.open_member(key, &member)? {
                Some(process) if process.state()? == State::Running => None,
                Some(process) => Some(process.handle.exit_status()),
                None => Some(ExitStatus::Unknown),
            };
            match ended {
                None => alive = true,
                // The connector will say how; if it has lost that, the next count says that it has ended.
                Some(_) if self.tree(key).fed => {
                    alive = true;
                    self.tree(key).look_after(SOON);
                }
                Some(status) => self.step(key, Input::Ended { pid: member.pid(), status }, sys::monotonic()),
            }
        }
        if !alive {
            self.finish(key, sys::monotonic());
        }
        Ok(())
    }

    /// A member, pinned; `None` if it has ended and been reaped.
    pub(super) fn open_member(&mut self, key: u64, member: &Identity) -> Result<Option<Process>> {
        if let Some(pin) = self.tree(key).pins.get(&member.pid()) {
            return Ok(Some(pin.process.clone()));
        }
        let process = match Process::open(member.pid()) {
            Ok(process) => process,
            Err(error) if error.is_gone() || error.is_thread() => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(match process.handle.identity(false).same_process(member) {
            Sameness::Same => Some(process),
            Sameness::Different => None,
            Sameness::Unknown if is_bare(member) => None,
            // Its end has not been told: nobody else has its PID.
            Sameness::Unknown => Some(process),
        })
    }

    fn look_at_helper(&mut self, key: u64) -> Result<()> {
        let mut reports = Vec::new();
        let follow = self.tree(key);
        let fed = follow.fed;
        let Source::Subreaper { helper, process, word } = &mut follow.source else { return Ok(()) };
        let process = process.clone();
        match helper {
            _ if *word != Word::Waiting => {}
            Some(helper) => helper.read(&mut reports)?,
            // It said its words to a tracker that has ended; its own end is the last of them.
            None => match process.wait(Some(Duration::ZERO))? {
                Some(ExitStatus::Signal(_)) => reports.push(Report::Lost),
                Some(status) => {
                    // It mirrors the root's, and signals as shells do.
                    if matches!(status, ExitStatus::Code(0..=127)) {
                        follow.root_status.get_or_insert(status);
                    }
                    reports.push(Report::Empty { at: sys::monotonic() });
                }
                None => {}
            },
        }
        for report in reports {
            match report {
                Report::Ended { pid, status, at } => {
                    let follow = self.tree(key);
                    if follow.root.pid() == pid {
                        follow.root_ended(status);
                    }
                    // The helper has adopted, and reaped, processes that nobody had seen; a PID among them can be a
                    // member's by now.
                    let alive = |pin: &Pin| matches!(pin.process.state(), Ok(State::Running));
                    if !fed && !follow.pins.get(&pid).is_some_and(alive) {
                        self.step(key, Input::Ended { pid, status }, at);
                    }
                }
                // Of orphans, which are looked for below.
                Report::Dropped(_) => {}
                Report::Empty { .. } => self.tree(key).helper_said(Word::Empty),
                Report::Lost => self.tree(key).helper_said(Word::Lost),
            }
        }
        match &self.tree(key).source {
            Source::Subreaper { word: Word::Empty, .. } => {
                self.hear_connector_of(key);
                self.settle(key)
            }
            Source::Subreaper { word: Word::Waiting, .. } if !fed => match process.descendants() {
                Ok(family) => self.found(key, &family),
                Err(error) if error.is_gone() => Ok(()),
                Err(error) => Err(error),
            },
            _ => Ok(()),
        }
    }

    /// What the connector has told by now of the last ones, before the end is told.
    fn hear_connector_of(&mut self, key: u64) {
        if self.tree(key).fed {
            self.hear_connector();
        }
    }

    /// Pins those of these that are in the cgroup still, and lets the machine know. Returns whether one of them lives.
    pub(super) fn find(&mut self, key: u64, listed: &[Pid]) -> Result<bool> {
        let mut fresh = Vec::new();
        let mut lives = false;
        for &pid in listed {
            let follow = self.tree(key);
            if let Some(pin) = follow.pins.get(&pid) {
                lives |= pin.process.state()? == State::Running;
                continue;
            }
            match Process::open(pid) {
                Ok(process) => fresh.push(process),
                Err(error) if error.is_gone() || error.is_thread() => {}
                Err(error) => return Err(error),
            }
        }
        if fresh.is_empty() {
            return Ok(lives);
        }
        // Listed again while pinned, and not reaped after that: it is the pinned process that is in there.
        let Source::Cgroup(cgroup) = &self.tree(key).source else { return Ok(lives) };
        let again = cgroup.members()?;
        let mut family = Vec::new();
        for process in fresh {
            if again.contains(&process.pid()) && process.state()? == State::Running {
                lives = true;
                family.push(process);
            }
        }
        self.found(key, &family)?;
        Ok(lives)
    }

    /// These are members, by the kernel's word.
    pub(super) fn found(&mut self, key: u64, family: &[Process]) -> Result<()> {
        let at = sys::monotonic();
        for process in family {
            let known = self.tree(key).lineage.member(process.pid()).is_some();
            if known || process.state()? != State::Running {
                continue;
            }
            let parent = process.handle.ppid()?;
            self.step(key, Input::Found { member: process.handle.identity(false), parent }, at);
        }
        Ok(())
    }

    /// Reads the process table until that proves something, a few times; and again later if it does not.
    ///
    /// Reading who is whose takes long, and somebody may be forked meanwhile. So that is done first; what has to be done
    /// while nobody is forked is to list who is there now, and to ask those that are new.
    pub(super) fn scan(&mut self, key: u64) -> Result<()> {
        let started = Instant::now();
        let first = forks()?;
        let mut parents = HashMap::new();
        sys::scan(|pid, parent| {
            parents.insert(pid, parent);
        })?;
        let evident = evidence::search(self.tree(key), parents.keys().copied())?;
        self.found(key, &evident)?;
        let mut proven = false;
        for _ in 0..TRIES {
            let before = forks()?;
            if !before.reuse_none_since(&first) {
                break;
            }
            let began = sys::ticks_at(sys::monotonic());
            // Everything that was forked before has been told by now.
            self.hear_connector_of(key);
            if self.tree(key).emptied.is_some() {
                return Ok(());
            }
            let known = self.tree(key).seen;
            if !self.scan_once(key, &mut parents, &before, began)? {
                continue;
            }
            self.mind_all(key)?;
            self.tree(key).untracked = false;
            // Whoever was found may have forked before the connector was told to follow it.
            let follow = self.tree(key);
            let grown = follow.fed && follow.seen > known && follow.emptied.is_none();
            if grown && !forks()?.none_since(&before) {
                self.step(key, Input::Lost { since: began.saturating_sub(STAMPED) }, sys::monotonic());
                continue;
            }
            proven = true;
            break;
        }
        if self.tree(key).emptied.is_some() {
            return Ok(());
        }
        if !proven {
            self.walk(key)?;
        }
        let pause = (started.elapsed() * SHARE).clamp(SOON * 10, LATEST);
        let follow = self.tree(key);
        let again = match &mut follow.source {
            Source::Poll { pause: kept } => {
                *kept = pause;
                true
            }
            _ => !proven,
        };
        follow.set_due(again.then(|| Instant::now() + pause));
        Ok(())
    }

    /// One table, in which nobody was forked from `before` until its last question was answered; or false, and nothing
    /// has come of it. `parents`: of whoever was listed before.
    fn scan_once(
        &mut self,
        key: u64,
        parents: &mut HashMap<Pid, Option<Pid>>,
        before: &sys::Forks,
        began: u64,
    ) -> Result<bool> {
        let mut table = Vec::with_capacity(parents.len());
        let mut new = Vec::new();
        for pid in sys::listing()? {
            let parent = match parents.get(&pid) {
                Some(parent) => *parent,
                None => match sys::parent_of(pid) {
                    Ok(parent) => {
                        new.push(pid);
                        *parents.entry(pid).or_insert(parent)
                    }
                    Err(error) if error.is_gone() || error.is_thread() || error.is_denied() => continue,
                    Err(error) => return Err(error),
                },
            };
            table.push(Row { pid, parent });
        }
        let evident = evidence::search(self.tree(key), new)?;
        self.found(key, &evident)?;
        let mut trouble = None;
        let mut details = |pid: Pid| match details_of(pid) {
            Ok(details) => details,
            Err(error) => {
                trouble = Some(error);
                // Not to be told from a member: it holds emptiness back.
                Some(Details { identity: bare(pid), session: None, ended: false })
            }
        };
        // What is asked for by the way has to be of the same moment: so it is tried on a copy first.
        let mut tried = self.tree(key).lineage.clone();
        let mut outputs = Vec::new();
        tried.step(Input::Scanned { table: &table, details: &mut details, began }, &mut outputs);
        if let Some(error) = trouble {
            return Err(error);
        }
        if !forks()?.none_since(before) {
            return Ok(false);
        }
        let at = sys::monotonic();
        self.replace(key, tried, outputs, at);
        let follow = self.tree(key);
        if follow.emptied.is_none() && matches!(follow.source, Source::Poll { .. }) {
            // Whatever is forked from now on is not told by anybody.
            self.step(key, Input::Lost { since: began.saturating_sub(STAMPED) }, at);
        }
        Ok(true)
    }

    /// Members that are proven link by link, where no table can be. Not by way of those that are excluded.
    fn walk(&mut self, key: u64) -> Result<()> {
        let mut walked = HashSet::new();
        loop {
            let members = self.tree(key).lineage.members().copied();
            let new: Vec<Identity> = members.filter(|member| walked.insert(*member)).collect();
            if new.is_empty() {
                return Ok(());
            }
            for member in new {
                let Some(process) = self.open_member(key, &member)? else { continue };
                match process.children() {
                    Ok(children) => self.found(key, &children)?,
                    Err(error) if error.is_gone() => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Whoever is, or may be, a member has to be heard of: after a loss nobody may be.
    fn mind_all(&mut self, key: u64) -> Result<()> {
        let lineage = &self.tree(key).lineage;
        let all: Vec<Identity> = lineage.members().chain(lineage.suspects()).copied().collect();
        all.iter().try_for_each(|one| self.mind(key, one))
    }
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

fn details_of(pid: Pid) -> Result<Option<Details>> {
    let process = match Process::open(pid) {
        Ok(process) => process,
        Err(error) if error.is_gone() || error.is_thread() => return Ok(None),
        Err(error) => return Err(error),
    };
    let session = sys::session_of(pid);
    let identity = *process.identity();
    Ok(match process.state()? {
        State::Gone => None,
        state => Some(Details { identity, session, ended: state == State::Zombie }),
    })
}
