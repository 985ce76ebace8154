//! The guard of a family of scripted processes.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::script::{self, Script};
use crate::stage::Copies;
use crate::sys::{self, Pidfd};
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
/// the family does that, waits until every member has ended, kills those that have not (only those that are proven to be
/// members, through pidfds), and reaps its children.
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
    root: Child,
    lifeline: Mutex<Option<ChildStdin>>,
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
    /// out. [`Family::root_pid`] is then the launcher. With a PID namespace, facts hold inner PIDs, and members
    /// cannot be poked, signalled or waited for from here: use [`stage`](crate::stage) for that.
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
        command.args(&words).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(uid) = self.uid {
            use std::os::unix::process::CommandExt;
            command.uid(uid).gid(uid).current_dir("/");
        }
        let mut root = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let lifeline = root.stdin.take();
        let pipe = root.stdout.take().expect("standard output is piped");
        let mut flags = self
            .launcher
            .windows(2)
            .filter(|pair| pair[0] == "in-ns")
            .map(|pair| &pair[1]);
        let facts = Facts {
            inode: nix::sys::stat::fstat(&pipe).expect("a pipe has an inode").st_ino,
            pipe,
            unread: Vec::new(),
            seen: Vec::new(),
            members: HashMap::new(),
            inner_pids: flags.any(|flags| flags.split(',').any(|flag| flag == "pid")),
            ended: false,
        };
        Family {
            root,
            lifeline: Mutex::new(lifeline),
            facts: Mutex::new(facts),
            _copies: copies,
        }
    }
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
    #[must_use]
    pub fn root_pid(&self) -> u32 {
        self.root.id()
    }

    /// Returns the root, or the launcher, as the child of this process that it is.
    pub fn child(&mut self) -> &mut Child {
        &mut self.root
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
            let named: Vec<Fact> = facts
                .seen
                .iter()
                .filter(|fact| fact.name == name)
                .take(count)
                .cloned()
                .collect();
            if named.len() == count {
                return named;
            }
            assert!(
                !facts.ended,
                "every member has ended without {count} of `{name}`; {}",
                facts.report()
            );
            assert!(
                facts.read(deadline),
                "{count} of `{name}` not within {DEADLINE:?}; {}",
                facts.report()
            );
        }
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
    /// # Panics
    ///
    /// When there is no such member, or it has been reaped.
    pub fn signal(&self, pid: u32, signal: i32) {
        match self.lock().members.get(&pid) {
            Some(Member::Pinned(pidfd)) => {
                pidfd
                    .signal(signal)
                    .unwrap_or_else(|error| panic!("signal {signal} to member {pid}: {error}"));
            }
            other => panic!("cannot signal {pid}: {}", unfit(other)),
        }
    }

    /// Waits until a member that has said a fact has ended; its parent may not have reaped it yet.
    ///
    /// # Panics
    ///
    /// When there is no such member, or it has not ended within [`DEADLINE`].
    pub fn wait_ended(&self, pid: u32) {
        if let Some(pidfd) = self.pidfd(pid) {
            let ended = pidfd.wait_ended(DEADLINE).expect("a pidfd can be polled");
            assert!(ended, "member {pid} has not ended within {DEADLINE:?}");
        }
    }

    /// Waits until a member that has said a fact has ended and been reaped: its PID is free.
    ///
    /// # Panics
    ///
    /// When there is no such member, or it has not been reaped within [`DEADLINE`].
    pub fn wait_gone(&self, pid: u32) {
        if let Some(pidfd) = self.pidfd(pid) {
            let gone = pidfd.wait_reaped(DEADLINE).expect("a pidfd can be polled");
            assert!(gone, "member {pid} has not been reaped within {DEADLINE:?}");
        }
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
            "not every member has ended within {DEADLINE:?}; {}",
            facts.report()
        );
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` when the member is known to be gone. Not waited on under the lock, which others may want.
    fn pidfd(&self, pid: u32) -> Option<Pidfd> {
        match self.lock().members.get(&pid) {
            Some(Member::Pinned(pidfd) | Member::Ending(pidfd)) => {
                Some(pidfd.try_clone().expect("a descriptor can be duplicated"))
            }
            Some(Member::Gone) => None,
            other => panic!("cannot wait for {pid}: {}", unfit(other)),
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
            let _ = self.root.kill();
            facts.signal_all(sys::SIGKILL);
            all_ended = facts.read_to_end(GRACE);
        }
        if all_ended || Pidfd::open(self.root.id()).is_ok_and(|root| root.wait_ended(GRACE).unwrap_or(false))
        {
            let _ = self.root.wait();
        }
        // Siblings of the root (clone-parent) are children of ours as well. Where all descriptors are closed, the
        // end is a moment away.
        for member in facts.members.values() {
            if let Member::Pinned(pidfd) | Member::Ending(pidfd) = member {
                let ended = all_ended && pidfd.wait_ended(GRACE).unwrap_or(false);
                if ended {
                    pidfd.try_reap();
                }
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

/// A process that has said a fact.
#[derive(Debug)]
enum Member {
    /// Proven to be the one that spoke: it holds the family's pipe.
    Pinned(Pidfd),
    /// Ended, or about to, before it could be proven: good for waiting, never to be signalled.
    Ending(Pidfd),
    /// Ended and reaped.
    Gone,
    /// Alive, but not to be proven from here, and so left alone.
    Unproven(String),
}

/// Why a member cannot be pinned, for a panic's message.
fn unfit(member: Option<&Member>) -> &str {
    match member {
        None => "no member has said so (a fact is only heard once it is waited for)",
        Some(Member::Unproven(why)) => why,
        Some(Member::Pinned(_)) => "it lives",
        Some(Member::Ending(_) | Member::Gone) => "it had ended before its fact was heard",
    }
}

/// The reading end of the facts pipe, and all that came out of it. The pipe's end is the end of the family: every
/// member, and nobody else, holds the writing end.
#[derive(Debug)]
struct Facts {
    pipe: ChildStdout,
    inode: sys::ino_t,
    unread: Vec<u8>,
    seen: Vec<Fact>,
    members: HashMap<u32, Member>,
    inner_pids: bool,
    ended: bool,
}

impl Facts {
    /// Reads what there is, after waiting for it; false when the deadline passes before that.
    fn read(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if !sys::wait_readable(&[self.pipe.as_fd()], Some(left)).expect("a pipe can be polled") {
            return false;
        }
        let mut buffer = [0; 4096];
        let read = self.pipe.read(&mut buffer).expect("a pipe can be read");
        self.ended = read == 0;
        self.unread.extend_from_slice(&buffer[..read]);
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            // A panic while reading would also be one in drop
            if let Some(fact) = parse(&line) {
                self.pin(&fact);
                self.seen.push(fact);
            } else {
                eprintln!("pidigree-testkit: not a fact: {line}");
            }
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
        for member in self.members.values() {
            if let Member::Pinned(pidfd) = member {
                let _ = pidfd.signal(signal);
            }
        }
    }

    fn pin(&mut self, fact: &Fact) {
        let standing = self.members.get(&fact.pid);
        if matches!(standing, Some(Member::Pinned(pidfd)) if !pidfd.wait_ended(Duration::ZERO).unwrap_or(false))
        {
            return;
        }
        let member = if self.inner_pids {
            Member::Unproven("it is in another PID namespace".to_owned())
        } else {
            self.prove(fact)
        };
        self.members.insert(fact.pid, member);
    }

    /// Pins first and looks then: what holds the pipe while the pidfd is open is what was pinned.
    fn prove(&self, fact: &Fact) -> Member {
        let pidfd = match Pidfd::open(fact.pid) {
            Ok(pidfd) => pidfd,
            Err(error) if error.raw_os_error() == Some(sys::ESRCH) => return Member::Gone,
            Err(error) => return Member::Unproven(error.to_string()),
        };
        let ours = PathBuf::from(format!("pipe:[{}]", self.inode));
        let ended = pidfd.wait_ended(Duration::ZERO).unwrap_or(false);
        match standard_output(fact.pid) {
            Ok(Some(stdout)) if stdout == ours => Member::Pinned(pidfd),
            _ if ended => Member::Ending(pidfd),
            // The PID names somebody else by now
            Ok(Some(_)) => Member::Gone,
            // Descriptors go before the pidfd tells
            Ok(None) => Member::Ending(pidfd),
            Err(error) => Member::Unproven(format!("its descriptors cannot be read: {error}")),
        }
    }

    fn report(&self) -> String {
        let mut report = format!("{} facts so far", self.seen.len());
        for fact in &self.seen {
            let Fact {
                name,
                pid,
                tid,
                ppid,
                sid,
            } = fact;
            let _ = write!(report, "\n  {name} pid={pid} tid={tid} ppid={ppid} sid={sid}");
        }
        if self.ended {
            report += "\n  (and every member has ended)";
        }
        report
    }
}

/// What a process has as standard output; `None` when it has none any more.
fn standard_output(pid: u32) -> io::Result<Option<PathBuf>> {
    let missing = |error: &io::Error| {
        error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(sys::ESRCH)
    };
    // Of any thread: the main one may have ended, and with it its view of the descriptors
    let tasks = match fs::read_dir(format!("/proc/{pid}/task")) {
        Err(error) if missing(&error) => return Ok(None),
        tasks => tasks?,
    };
    for task in tasks {
        match task.and_then(|task| fs::read_link(task.path().join("fd/1"))) {
            Err(error) if missing(&error) => {}
            stdout => return stdout.map(Some),
        }
    }
    Ok(None)
}

fn parse(line: &str) -> Option<Fact> {
    let mut words = line.split(' ');
    let name = words.next()?.to_owned();
    let mut number = |key: &str| words.next()?.strip_prefix(key)?.parse().ok();
    let (pid, tid, ppid, sid) = (
        number("pid=")?,
        number("tid=")?,
        number("ppid=")?,
        number("sid=")?,
    );
    Some(Fact {
        name,
        pid,
        tid,
        ppid,
        sid,
    })
}
