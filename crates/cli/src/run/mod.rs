//! `pidigree run`: a command, all that it starts, and what became of it.
//!
//! One loop and no thread of its own: it sleeps on the tree's events, on the end of the command and on signals at once.

pub(crate) mod census;
mod report;
mod summary;
mod terminal;
mod trace;

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use pidigree::{
    Backend, Emptied, ExitStatus, OnTrackerDeath, Pid, ProcessWatcher, Promise, Signal, Tree, TreeChild,
    TreeEvent,
};

use crate::args;
use crate::ends;
use crate::events::{self, Began, Object};
use crate::failure::{self, Code, Failure};
use crate::output;
use crate::sys::{Caught, Sender, Signals};
use census::Census;
use report::Report;
use summary::Summary;
use terminal::{Progress, Terminal};
use trace::Trace;

pub(crate) fn run(args: &args::Run) -> Result<Code, Failure> {
    start(args).map_err(Failure::of_run)?.run()
}

/// A command that runs.
struct Run<'a> {
    args: &'a args::Run,
    tree: Tree,
    child: TreeChild,
    /// Tells the end of the command, on every backend at once.
    root: ProcessWatcher,
    signals: Signals,
    terminal: Terminal,
    had_terminal: bool,
    told: Told,
    began: Instant,
    deadline: Option<Instant>,
    /// How the command ended, once it has.
    status: Option<ExitStatus>,
    /// An interrupt came from the terminal, for us as for the command.
    interrupted: bool,
    timed_out: bool,
    stage: Stage,
    /// The tree cannot be followed any more.
    lost: bool,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It goes its way.
    Runs,
    /// The command has ended, and somebody has asked what it left behind to end, too.
    Asked,
    /// All of it was sent SIGTERM, and is killed then.
    Ending(Option<Instant>),
    /// All of it was killed.
    Killed,
}

/// What has been seen of it, and to whom that is told.
struct Told {
    began: Began,
    census: Census,
    complete: bool,
    json: bool,
    report: Report,
    trace: Option<Trace>,
    progress: Progress,
}

/// Why the loop is over.
enum Over {
    Empty(Emptied),
    /// Somebody does not want to wait any longer.
    Left,
    /// The command has ended, and more cannot be known.
    Lost,
}

fn start(args: &args::Run) -> Result<Run<'_>, Failure> {
    let shown: Vec<_> = args.command.iter().map(|word| word.to_string_lossy()).collect();
    let shown = shown.join(" ");
    let report = Report::to(args.output.as_deref())?;
    let trace = args.trace.as_deref().map(|path| Trace::begin(path, &shown)).transpose()?;

    let signals = Signals::catch().map_err(|error| Failure::new(format!("cannot catch signals: {error}")))?;
    let terminal = Terminal::find();
    let had_terminal = terminal.is_ours();
    let root = ProcessWatcher::new()?;
    let [program, arguments @ ..] = args.command.as_slice() else {
        return Err(Failure::new("there is no command to run"));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    signals.unblock_in(&mut command);
    let mut builder = Tree::builder().backend(args.backend).every_member(true);
    if args.kill_on_exit && matches!(args.backend, Backend::Auto | Backend::Subreaper) {
        builder = builder.on_tracker_death(OnTrackerDeath::Kill);
    }
    let (wall, began) = (Began::now(), Instant::now());
    let (tree, child) = builder.spawn(&mut command).map_err(|error| not_run(program, error))?;
    root.watch(child.process())?;

    let coverage = tree.coverage();
    let best_effort = coverage.members == Promise::BestEffort;
    let mut told = Told {
        began: wall,
        census: Census::new(best_effort),
        complete: !best_effort,
        json: args.json,
        report,
        trace,
        progress: Progress::new(!args.quiet && (!args.json || args.output.is_some())),
    };
    if told.json {
        told.report.json(&Object::Started {
            head: wall.head(&tree.root(), Duration::ZERO),
            command: Some(&shown),
            backend: tree.backend().name(),
            coverage: events::covered(&coverage),
        });
    }
    let deadline = args.timeout.and_then(|timeout| began.checked_add(timeout));
    Ok(Run {
        args,
        tree,
        child,
        root,
        signals,
        terminal,
        had_terminal,
        told,
        began,
        deadline,
        status: None,
        interrupted: false,
        timed_out: false,
        stage: Stage::Runs,
        lost: false,
    })
}

impl Run<'_> {
    fn run(mut self) -> Result<Code, Failure> {
        let over = loop {
            self.sleep()?;
            // Before the events: who sent a signal may have ended since.
            if self.take_signals()? {
                break Over::Left;
            }
            self.look_at_root()?;
            if let Some(emptied) = self.take_events() {
                break Over::Empty(emptied);
            }
            if self.lost && self.status.is_some() {
                break Over::Lost;
            }
            self.look_at_clock();
            let runs = self.status.is_none();
            self.told.progress.draw(&self.terminal, &self.told.census, runs);
        };
        self.finish(&over)
    }

    /// Until there is something to see to.
    fn sleep(&self) -> Result<(), Failure> {
        let kill_at = match self.stage {
            Stage::Ending(at) => at,
            _ => None,
        };
        let drawn_at = self.told.progress.due(self.status.is_none());
        let next = [self.deadline, kill_at, drawn_at].into_iter().flatten().min();
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if self.status.is_none() {
            fds.push(PollFd::new(self.root.as_fd(), PollFlags::POLLIN));
        }
        if !self.lost {
            fds.push(PollFd::new(self.tree.event_fd()?, PollFlags::POLLIN));
        }
        match poll(&mut fds, output::milliseconds(left)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(Failure::new(format!("cannot wait for what happens: {errno}"))),
        }
    }

    /// Passes signals on. Returns whether nobody wants to wait any longer.
    fn take_signals(&mut self) -> Result<bool, Failure> {
        let failed = |error| Failure::new(format!("cannot read signals: {error}"));
        while let Some(caught) = self.signals.next().map_err(failed)? {
            let to_end = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM].contains(&caught.signal);
            if caught.signal == Signal::INT && caught.sender == Sender::Terminal {
                self.interrupted = true;
            }
            if caught.sender != Sender::Terminal {
                // It may have ended a moment ago, and a zombie takes every signal.
                self.look_at_root()?;
            }
            match self.stage {
                _ if self.status.is_none() => self.pass_on(caught),
                _ if !to_end => {}
                Stage::Runs => self.ask(caught),
                Stage::Ending(_) => self.stage = Stage::Ending(Some(Instant::now())),
                Stage::Asked | Stage::Killed => return Ok(true),
            }
        }
        Ok(false)
    }

    /// To the command: unless whoever sent it has sent it to the whole group, the command included.
    fn pass_on(&self, caught: Caught) {
        let meant_us_all = match caught.sender {
            Sender::Terminal => true,
            Sender::Process(None) => false,
            Sender::Process(Some(pid)) => self.is_member(pid),
        };
        if meant_us_all {
            return;
        }
        if let Err(error) = self.child.signal(caught.signal) {
            if !error.is_gone() {
                failure::report(&error.to_string());
            }
        }
    }

    fn is_member(&self, pid: Pid) -> bool {
        self.told.census.live().any(|(member, _)| member.pid() == pid)
            || self.tree.contains(pid).unwrap_or(false)
    }

    /// The command has ended, and what it left behind is asked to end; the next time it is left alone.
    fn ask(&mut self, caught: Caught) {
        self.stage = Stage::Asked;
        self.told.progress.clear();
        // The terminal has sent it to those that care for it.
        if caught.sender != Sender::Terminal {
            self.kill(caught.signal);
        }
        let left = ends::list(self.left());
        if !left.is_empty() {
            let what = format!("still running: {left}; another Ctrl-C or SIGTERM leaves them alone");
            failure::report(&what);
        }
    }

    fn look_at_root(&mut self) -> Result<(), Failure> {
        if self.status.is_some() {
            return Ok(());
        }
        self.status = self.child.try_wait()?;
        if self.status.is_some() {
            self.take_terminal_back();
            if self.args.kill_on_exit && self.stage == Stage::Runs && !self.left().is_empty() {
                self.end();
            }
        }
        Ok(())
    }

    /// From the command's own process group, or another of the tree: if it is somebody else's by now, we are in the
    /// background.
    fn take_terminal_back(&self) {
        let of_tree = |group| group == self.child.pid() || self.tree.contains(group).unwrap_or(false);
        if self.had_terminal && !self.terminal.is_ours() && self.terminal.foreground().is_some_and(of_tree) {
            self.terminal.take_back();
        }
    }

    fn take_events(&mut self) -> Option<Emptied> {
        while !self.lost {
            match self.tree.next_event(Some(Duration::ZERO)) {
                Ok(None) => break,
                Ok(Some(event)) => {
                    self.told.take(&event);
                    if let TreeEvent::Empty(emptied) = event {
                        return Some(emptied);
                    }
                }
                Err(error) => {
                    self.told.progress.clear();
                    failure::report(&error.to_string());
                    self.lost = error.is_unsupported();
                }
            }
        }
        None
    }

    fn look_at_clock(&mut self) {
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.timed_out = true;
            self.told.progress.clear();
            let timeout = self.args.timeout.unwrap_or_default();
            failure::report(&format!("{}; ending them", ends::late(timeout, self.left())));
            self.end();
        }
        if let Stage::Ending(Some(at)) = self.stage {
            if at <= now {
                self.stage = Stage::Killed;
                self.kill(Signal::KILL);
            }
        }
    }

    /// SIGTERM to all of it, and SIGKILL later.
    fn end(&mut self) {
        self.stage = Stage::Ending(Instant::now().checked_add(self.args.kill_after));
        self.kill(Signal::TERM);
        // One that is stopped would not know before it goes on.
        if let Ok(go_on) = "CONT".parse() {
            self.kill(go_on);
        }
    }

    fn kill(&self, signal: Signal) {
        if let Err(error) = self.tree.kill(signal) {
            if !error.is_gone() {
                failure::report(&error.to_string());
            }
        }
    }

    fn left(&self) -> Vec<Pid> {
        let mut left: Vec<Pid> = self.tree.members().iter().map(|member| member.pid()).collect();
        left.sort();
        left
    }

    /// Tells what it came to.
    fn finish(mut self, over: &Over) -> Result<Code, Failure> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        while let Ok(Some(caught)) = self.signals.next() {
            self.interrupted |= caught.signal == Signal::INT && caught.sender == Sender::Terminal;
        }
        let (took, processes) = match over {
            Over::Empty(emptied) => {
                self.status = self.status.or(Some(emptied.status));
                (emptied.at, emptied.members)
            }
            Over::Left | Over::Lost => (self.began.elapsed(), u64::from(self.told.census.seen)),
        };
        let left = if matches!(over, Over::Left) { self.left() } else { Vec::new() };
        let coverage = self.tree.coverage();
        self.told.progress.clear();
        let summary = Summary {
            census: &self.told.census,
            coverage: &coverage,
            root: self.child.pid(),
            processes,
            status: self.status,
            took,
            timed_out: self.timed_out,
            left,
            lost: self.lost,
        };
        if self.told.json {
            self.told.report.json(&summary.object());
        } else if !self.args.quiet {
            self.told.report.text(&summary.text());
        }
        let mut wrong = Vec::new();
        let traced = self.told.trace.take().map_or(Ok(()), |mut trace| {
            for (identity, member) in self.told.census.live() {
                trace.left_running(member, identity.pid(), took);
            }
            trace.finish()
        });
        for written in [traced, self.told.report.finish()] {
            if let Err(Failure::Lines(lines)) = written {
                wrong.extend(lines);
            }
        }
        let code = match self.status {
            _ if self.timed_out => Code::TimedOut,
            Some(ExitStatus::Code(code)) => Code::Of(u8::try_from(code).unwrap_or(u8::MAX)),
            Some(ExitStatus::Signal(signal)) => Code::Of(u8::try_from(128 + signal).unwrap_or(u8::MAX)),
            Some(ExitStatus::Unknown) | None => {
                wrong.push("how the command ended is not known".to_owned());
                Code::Failed
            }
        };
        let died_of_it = self.interrupted && self.status == Some(ExitStatus::Signal(Signal::INT.number()));
        if wrong.is_empty() && died_of_it && !self.timed_out {
            // As the command did: a shell that runs us in a loop looks at that, and ends it.
            let _ = self.signals.die_of(Signal::INT);
        }
        match code {
            code if wrong.is_empty() => Ok(code),
            Code::Of(0) => Err(Failure::With(Code::Failed, wrong)),
            code => Err(Failure::With(code, wrong)),
        }
    }
}

impl Told {
    fn take(&mut self, event: &TreeEvent) {
        let ended = self.census.take(event);
        if let Some(trace) = &mut self.trace {
            if let Some(ended) = &ended {
                trace.ended(ended);
            }
            if let TreeEvent::Exec { member, program, at } = event {
                if let Some(member) = self.census.member(member) {
                    trace.executed(member, program.as_deref().unwrap_or("?"), *at);
                }
            }
        }
        if self.json {
            let object = self.began.object(event, &self.census, ended.as_ref(), self.complete);
            if let Some(object) = object {
                self.report.json(&object);
            }
        }
    }
}

/// Why a command could not be run, with the exit code that a shell would give it.
fn not_run(program: &OsString, error: pidigree::Error) -> Failure {
    let shown = program.to_string_lossy();
    match find(program) {
        Found::Executable => {
            let message = error.to_string();
            match io::Error::from(error).kind() {
                // A script whose interpreter is missing.
                io::ErrorKind::NotFound => Failure::With(Code::NotFound, vec![format!("{shown}: {message}")]),
                _ => Failure::With(Code::Failed, vec![message]),
            }
        }
        Found::NotExecutable(path) => {
            let what = format!("cannot run {shown}: {} is not an executable file", path.display());
            Failure::With(Code::NotExecutable, vec![what])
        }
        Found::Nothing => {
            let what = if program.as_encoded_bytes().contains(&b'/') {
                format!("cannot run {shown}: there is no such file")
            } else {
                format!("cannot run {shown}: there is no such command in PATH")
            };
            Failure::With(Code::NotFound, vec![what])
        }
    }
}

enum Found {
    Executable,
    NotExecutable(PathBuf),
    Nothing,
}

/// As execvp(3) looks for it, to tell why that did not succeed.
fn find(program: &OsString) -> Found {
    let candidates: Vec<PathBuf> = if program.as_encoded_bytes().contains(&b'/') {
        vec![PathBuf::from(program)]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|folder| folder.join(program)).collect()
    };
    let mut found = Found::Nothing;
    for path in candidates.into_iter().filter(|_| !program.is_empty()) {
        if is_executable(&path) {
            return Found::Executable;
        }
        if path.exists() && matches!(found, Found::Nothing) {
            found = Found::NotExecutable(path);
        }
    }
    found
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|there| there.is_file() && there.permissions().mode() & 0o111 != 0)
}
