//! Real helpers over real trees.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStdout, Stdio};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use pidigree_testkit::{DEADLINE, binary, default_signals, eventually};

use super::*;
use crate::state::{ExitStatus, State};
use crate::sys::backend::handle::Handle;

mod callers;
mod ends;
mod inheritance;
mod killing;
mod places;

/// A helper with its tree; dropped, it kills both, if it was spawned to do so.
struct Tended {
    helper: Option<Helper>,
    child: Child,
    root: Pid,
    output: BufReader<ChildStdout>,
    unread: Vec<Report>,
}

impl Tended {
    /// A script of the testkit. Its processes end by themselves when the root's standard input is closed.
    fn script(words: &str) -> Tended {
        Tended::spawn(Command::new(binary()).args(words.split(' ')))
    }

    /// A command that reads nothing from a terminal and writes to us.
    fn spawn(command: &mut Command) -> Tended {
        let mut tended = Tended::spawn_held(command, OnDeath::Kill);
        tended.helper().go_on().unwrap();
        tended
    }

    fn spawn_held(command: &mut Command, on_death: OnDeath) -> Tended {
        default_signals();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let (helper, mut child, root) = Helper::spawn(command, on_death).unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Tended { helper: Some(helper), child, root, output, unread: Vec::new() }
    }

    fn helper(&mut self) -> &mut Helper {
        self.helper.as_mut().unwrap()
    }

    fn helper_pid(&self) -> Pid {
        Pid::new(self.child.id()).unwrap()
    }

    /// Lets whoever reads the root's standard input end.
    fn end(&mut self) {
        drop(self.child.stdin.take());
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// What a member says of itself: its PID and its parent's.
    fn fact(&mut self, name: &str) -> (Pid, Pid) {
        let line = self.line();
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some(name), "{line}");
        let mut number = |key: &str| words.find_map(|word| word.strip_prefix(key)).unwrap().parse().unwrap();
        (number("pid="), number("ppid="))
    }

    /// The next thing that the helper says.
    fn next(&mut self) -> Report {
        while self.unread.is_empty() {
            assert!(self.is_readable(), "nothing was said within {DEADLINE:?}");
            let mut reports = Vec::new();
            self.helper().read(&mut reports).unwrap();
            self.unread = reports;
        }
        self.unread.remove(0)
    }

    fn is_readable(&mut self) -> bool {
        let helper = self.helper();
        let mut fds = [PollFd::new(helper.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, DEADLINE.as_millis() as u16).unwrap() == 1
    }

    /// All that it says from here on, to its last word.
    fn rest(&mut self) -> Vec<Report> {
        let mut all = Vec::new();
        loop {
            let report = self.next();
            all.push(report);
            if matches!(report, Report::Empty { .. } | Report::Lost) {
                return all;
            }
        }
    }

    /// That it has nothing to say now.
    #[track_caller]
    fn assert_silent(&mut self) {
        let mut reports = std::mem::take(&mut self.unread);
        self.helper().read(&mut reports).unwrap();
        assert_eq!(reports, []);
    }

    fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Tended {
    fn drop(&mut self) {
        self.end();
        drop(self.helper.take());
        let _ = self.child.wait();
    }
}

/// Who ended, and how, without the moments.
fn ends(reports: &[Report]) -> Vec<(Pid, ExitStatus)> {
    let end = |report: &Report| match *report {
        Report::Ended { pid, status, .. } => Some((pid, status)),
        _ => None,
    };
    reports.iter().filter_map(end).collect()
}

/// A shell with a script.
fn shell(script: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script);
    command
}

fn signal(pid: Pid, signal: Signal) {
    kill(nix::unistd::Pid::from_raw(pid.raw()), signal).unwrap();
}

fn state(pid: Pid) -> State {
    Handle::open(pid).map_or(State::Gone, |handle| handle.state().unwrap())
}

fn children_of(pid: Pid) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap()
}

/// The children of this thread, zombies too.
fn children_here() -> String {
    std::fs::read_to_string("/proc/thread-self/children").unwrap()
}
