//! The guard of a family of scripted processes.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::script::{self, Script};
use crate::stage::Copies;
use crate::sys::{self, Pinned};
use crate::{DEADLINE, binary};

/// How long members may take to end by themselves once the lifeline is closed.
const GRACE: Duration = Duration::from_secs(5);

/// What `say NAME` said: numbers as the speaker saw them, in its own PID namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The NAME.
    pub name: String,
    /// The process that spoke.
    pub pid: u32,
    /// The thread that spoke; equal to `pid` for the main thread.
    pub tid: u32,
    /// Its parent at that moment; 0 for one outside its PID namespace.
    pub ppid: u32,
    /// Its session; 0 for a leader outside its PID namespace.
    pub sid: u32,
}

/// Processes that carry out a script, and a guard that lets none outlive it.
///
/// Every member holds the reading end of a pipe whose writing end is here alone, and ends when this closes it. Dropping
/// the family does that, waits until every member has ended, kills those that have not (only those that said a fact, through
/// the pins that came with it), and reaps its children.
///
/// # Example
///
/// ```no_run
/// use pidigree_testkit::Family;
///
/// let family = Family::spawn("fork [ say kid pause ] say root pause");
/// assert_eq!(family.fact("kid").ppid, family.root_pid());
/// ```
#[derive(Debug)]
pub struct Family {
    /// `None` where the test started it in its own way.
    root: Option<Child>,
    lifeline: Mutex<Option<OwnedFd>>,
    facts: Mutex<Facts>,
    // Removed after everything that runs from it
    _copies: Option<Copies>,
}

/// How to start a [`Family`] otherwise than plainly.
#[derive(Debug, Default)]
pub struct FamilyBuilder {
    launcher: Vec<String>,
    uid: Option<u32>,
}

impl FamilyBuilder {
    /// Starts the family in another world: the words of a mode of `pidigree-testkit`, the final `--` of which may be left
    /// out. [`Family::root_pid`] is then the launcher. With a PID namespace, facts hold inner PIDs: good for
    /// [`Family::poke`] and its like, and for nothing else outside.
    #[must_use]
    pub fn launcher(mut self, words: &[&str]) -> FamilyBuilder {
        self.launcher = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Starts the family as this user and group, with no other groups. Needs root.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> FamilyBuilder {
        self.uid = Some(uid);
        self
    }

    /// Starts the family.
    ///
    /// # Panics
    ///
    /// When the script is wrong or the binary cannot be run.
    pub fn spawn(self, script: impl Into<Script>) -> Family {
        let (mut family, root) = self.spawn_by(script, |command| {
            command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
        });
        family.root = Some(root);
        family
    }

    /// Has `start` start the family by the command it is given, whose standard input and output are the family's, and
    /// returns what `start` does as well. Whoever the child is, waiting for it is up to the caller.
    ///
    /// # Panics
    ///
    /// When the script is wrong.
    pub fn spawn_by<T>(
        self,
        script: impl Into<Script>,
        start: impl FnOnce(&mut Command) -> T,
    ) -> (Family, T) {
        let Script(words) = script.into();
        if let Err(why) = script::parse(&words) {
            panic!("in the script {words:?}: {why}");
        }
        let copies = self.uid.map(|_| Copies::new());
        let executable: PathBuf = match &copies {
            Some(copies) => copies.of(binary()),
            None => binary().to_owned(),
        };
        let mut command = Command::new(&executable);
        if !self.launcher.is_empty() {
            command.args(&self.launcher);
            if self.launcher.last().is_some_and(|word| word != "--") {
                command.arg("--");
            }
            command.arg(&executable);
        }
        let alone = alone();
        let (channel, stdout) = sys::channel().expect("a socket");
        let (stdin, lifeline) = sys::pipe().expect("a pipe");
        command.args(&words).stdin(stdin).stdout(stdout);
        if let Some(uid) = self.uid {
            use std::os::unix::process::CommandExt;
            command.uid(uid).gid(uid).current_dir("/");
        }
        let started = start(&mut command);
        // It holds a speaking end
        drop(command);
        drop(alone);
        let mut flags = self.launcher.windows(2).filter(|pair| pair[0] == "in-ns").map(|pair| &pair[1]);
        let facts = Facts {
            channel,
            unread: Vec::new(),
            seen: Vec::new(),
            members: HashMap::new(),
            inner_pids: flags.any(|flags| flags.split(',').any(|flag| flag == "pid")),
            ended: false,
        };
        let lifeline = Mutex::new(Some(lifeline));
        (Family { root: None, lifeline, facts: Mutex::new(facts), _copies: copies }, started)
    }
}

/// Keeps families from being started, by this process, as long as it is held.
///
/// A child that another thread forks while a family is started has a copy of its speaking end until it executes something,
/// so that [`Family::has_ended`] would be late. A test that asks that, and that starts processes by other means, does it
/// under this guard.
pub fn alone() -> impl Drop {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Family {
    /// Starts a family whose root is a child of this process.
    ///
    /// # Panics
    ///
    /// When the script is wrong or the binary cannot be run.
    pub fn spawn(script: impl Into<Script>) -> Family {
        Family::builder().spawn(script)
    }

    /// Starts a family otherwise than plainly.
    #[must_use]
    pub fn builder() -> FamilyBuilder {
        FamilyBuilder::default()
    }

    /// Returns the PID of the root, or of the launcher.
    ///
    /// # Panics
    ///
    /// When the test started it in its own way ([`FamilyBuilder::spawn_by`]).
    #[must_use]
    pub fn root_pid(&self) -> u32 {
        self.root.as_ref().expect(NOT_OURS).id()
    }

    /// Returns the root, or the launcher, as the child of this process that it is.
    ///
    /// # Panics
    ///
    /// As [`root_pid`](Self::root_pid) does.
    pub fn child(&mut self) -> &mut Child {
        self.root.as_mut().expect(NOT_OURS)
    }

    /// Waits for the first fact of this name.
    ///
    /// # Panics
    ///
    /// With all facts so far, when there is none within [`DEADLINE`] or every member has ended.
    pub fn fact(&self, name: &str) -> Fact {
        self.facts(name, 1).swap_remove(0)
    }

    /// Waits for the first `count` facts of this name.
    ///
    /// # Panics
    ///
    /// As [`fact`](Self::fact) does.
    pub fn facts(&self, name: &str, count: usize) -> Vec<Fact> {
        let mut facts = self.lock();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let named: Vec<Fact> =
                facts.seen.iter().filter(|fact| fact.name == name).take(count).cloned().collect();
            if named.len() == count {
                return named;
            }
            assert!(!facts.ended, "every member has ended without {count} of `{name}`; {}", facts.report());
            assert!(facts.read(deadline), "{count} of `{name}` not within {DEADLINE:?}; {}", facts.report());
        }
    }

    /// Returns all facts of this name that have been said by now, without waiting.
    #[must_use]
    pub fn heard(&self, name: &str) -> Vec<Fact> {
        let mut facts = self.lock();
        facts.read_to_end(Duration::ZERO);
        facts.seen.iter().filter(|fact| fact.name == name).cloned().collect()
    }

    /// Sends SIGUSR1 to a member that has said a fact: its `await` goes on.
    ///
    /// # Panics
    ///
    /// When there is no such member, or it has ended.
    pub fn poke(&self, pid: u32) {
        self.signal(pid, sys::SIGUSR1);
    }

    /// Sends a signal to a member that has said a fact.
    ///
    /// In a sandbox that denies pidfds, it goes by number: a member that waits for it is alive.
    ///
    /// # Panics
    ///
    /// When there is no such member, or it has been reaped.
    pub fn signal(&self, pid: u32, signal: i32) {
        let facts = self.lock();
        let by_number = || {
            assert!(!facts.inner_pids, "{pid} is a number of another PID namespace");
            sys::kill(pid as i32, signal)
        };
        let sent = match facts.members.get(&pid) {
            Some(Some(pinned)) => match pinned.signal(signal) {
                Err(error) if sys::is_denied(&error) => by_number(),
                sent => sent,
            },
            Some(None) => by_number(),
            None => panic!("{pid} {UNHEARD}"),
        };
        sent.unwrap_or_else(|error| panic!("signal {signal} to member {pid}: {error}"));
    }

    /// Waits until a member that has said a fact has ended; its parent may not have reaped it yet.
    ///
    /// # Panics
    ///
    /// When there is no such member, or it has not ended within [`DEADLINE`].
    pub fn wait_ended(&self, pid: u32) {
        if matches!(self.lock().members.get(&pid), Some(None)) {
            // Where pidfds are denied
            return crate::eventually("a member has ended", || sys::looks_ended(pid).then_some(()));
        }
        let ended = self.pinned(pid).wait_ended(DEADLINE);
        assert!(ended.expect("a pin can be polled"), "{pid} has not ended within {DEADLINE:?}");
    }

    /// Waits until a member that has said a fact has ended and been reaped: its PID is free.
    ///
    /// # Panics
    ///
    /// When there is no such member, or it has not been reaped within [`DEADLINE`].
    pub fn wait_gone(&self, pid: u32) {
        let gone = self.pinned(pid).wait_reaped(DEADLINE);
        assert!(gone.expect("a pin can be polled"), "{pid} has not been reaped within {DEADLINE:?}");
    }

    /// Closes the lifeline, and does not wait: every member is about to end with code 0.
    pub fn end(&self) {
        *self.lifeline.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits until every member has ended, whether they said a fact or not; some may not be reaped yet.
    ///
    /// # Panics
    ///
    /// When some have not within [`DEADLINE`].
    pub fn wait_all(&self) {
        let mut facts = self.lock();
        assert!(
            facts.read_to_end(DEADLINE),
            "not every member has ended within {DEADLINE:?}; {}\n{}",
            facts.report(),
            who_is_there()
        );
    }

    /// Returns whether every member has ended by now.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.lock().read_to_end(Duration::ZERO)
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy, since nobody should wait under the lock, which others may want.
    fn pinned(&self, pid: u32) -> Pinned {
        match self.lock().members.get(&pid) {
            Some(Some(pinned)) => pinned.try_clone().expect("a descriptor can be duplicated"),
            Some(None) => panic!("member {pid} could not be pinned: is that denied here?"),
            None => panic!("{pid} {UNHEARD}"),
        }
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        self.end();
        let facts = self.facts.get_mut().unwrap_or_else(PoisonError::into_inner);
        // A test may have stopped some
        facts.signal_all(sys::SIGCONT);
        let mut all_ended = facts.read_to_end(GRACE);
        if !all_ended {
            // The launcher's end is the end of its namespace
            if let Some(root) = &mut self.root {
                let _ = root.kill();
            }
            facts.signal_all(sys::SIGKILL);
            all_ended = facts.read_to_end(GRACE);
        }
        if let Some(root) = &mut self.root {
            let ended = || Pinned::open(root.id()).is_ok_and(|root| root.wait_ended(GRACE).unwrap_or(false));
            if all_ended || ended() {
                let _ = root.wait();
            }
        }
        // Siblings of the root (clone-parent) are children of ours as well, unless they are somebody else's to wait for. Where all descriptors are closed, the
        // end is a moment away.
        let ours = self.root.iter().flat_map(|_| facts.members.values().flatten());
        for pinned in ours {
            let ended = all_ended && pinned.wait_ended(GRACE).unwrap_or(false);
            if ended {
                pinned.try_reap();
            }
        }
        if !all_ended {
            let report = facts.report();
            if std::thread::panicking() {
                eprintln!("some members outlive their family; {report}");
            } else {
                panic!("some members outlive their family; {report}");
            }
        }
    }
}

const NOT_OURS: &str = "the root is a child of whoever started it";
const UNHEARD: &str = "is no member that said a fact (and was heard: a fact is when it is asked for)";

/// The hearing end of the facts, and all that came out of it. Its end is the end of the family: every member, and
/// nobody else, holds the speaking end.
#[derive(Debug)]
struct Facts {
    channel: OwnedFd,
    unread: Vec<u8>,
    seen: Vec<Fact>,
    /// Who spoke, by the PIDs they know themselves by; without a pin where that is denied them.
    members: HashMap<u32, Option<Pinned>>,
    inner_pids: bool,
    ended: bool,
}

impl Facts {
    /// Reads what there is, after waiting for it; false when the deadline passes before that.
    fn read(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if !sys::wait_readable(&[self.channel.as_fd()], Some(left)).expect("a socket can be polled") {
            return false;
        }
        let mut buffer = [0; 4096];
        let heard = sys::hear(self.channel.as_fd(), &mut buffer);
        let (read, mut pinned) = heard.expect("a socket can be read");
        self.ended = read == 0;
        self.unread.extend_from_slice(&buffer[..read]);
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            // A panic while reading would also be one in drop
            let Some(fact) = parse(&line) else {
                eprintln!("pidigree-testkit: not a fact: {line}");
                continue;
            };
            let pinned = if self.unread.is_empty() { pinned.take() } else { None };
            self.pin(fact.pid, pinned.or_else(|| sys::pin_speaker(fact.pid)));
            self.seen.push(fact);
        }
        true
    }

    fn read_to_end(&mut self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while !self.ended {
            if !self.read(deadline) {
                return false;
            }
        }
        true
    }

    fn signal_all(&self, signal: i32) {
        for pinned in self.members.values().flatten() {
            let _ = pinned.signal(signal);
        }
    }

    /// The PID may have been another member's before.
    fn pin(&mut self, pid: u32, pinned: Option<Pinned>) {
        let member = self.members.entry(pid).or_default();
        let alive = |pinned: &Pinned| !pinned.wait_ended(Duration::ZERO).unwrap_or(false);
        if !member.as_ref().is_some_and(alive) {
            *member = pinned;
        }
    }

    fn report(&self) -> String {
        let mut report = format!("{} facts so far", self.seen.len());
        for fact in &self.seen {
            let Fact { name, pid, tid, ppid, sid } = fact;
            let _ = write!(report, "\n  {name} pid={pid} tid={tid} ppid={ppid} sid={sid}");
        }
        if self.ended {
            report += "\n  (and every member has ended)";
        }
        report
    }
}

/// Whoever keeps a test waiting may be no member.
fn who_is_there() -> String {
    const MOST: usize = 100;
    let listed = Command::new("ps").args(["-A", "-o", "pid,ppid,stat,wchan,comm"]).output();
    let text = match listed {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => return format!("ps: {error}"),
    };
    let first: Vec<&str> = text.lines().take(MOST).collect();
    format!("{} processes, of which the first are:\n{}", text.lines().count(), first.join("\n"))
}

fn parse(line: &str) -> Option<Fact> {
    let mut words = line.split(' ');
    let name = words.next()?.to_owned();
    let mut number = |key: &str| words.next()?.strip_prefix(key)?.parse().ok();
    let (pid, tid, ppid, sid) = (number("pid=")?, number("tid=")?, number("ppid=")?, number("sid=")?);
    Some(Fact { name, pid, tid, ppid, sid })
}
