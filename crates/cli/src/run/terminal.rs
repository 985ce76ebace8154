//! The terminal that a command is run from: whose it is, and a line of progress on it.

use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::unistd::{getpgrp, tcgetpgrp, tcsetpgrp};
use pidigree::Pid;

use crate::events::processes;
use crate::output;
use crate::run::census::Census;

/// How long a run is before it is one that people watch.
const LONG: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_secs(1);

/// The terminal, if there is one.
#[derive(Debug)]
pub(crate) struct Terminal(Option<OwnedFd>);

impl Terminal {
    pub(crate) fn find() -> Terminal {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let fd = if stdin.is_terminal() {
            Some(stdin.as_fd().try_clone_to_owned())
        } else if stderr.is_terminal() {
            Some(stderr.as_fd().try_clone_to_owned())
        } else {
            stdout.is_terminal().then(|| stdout.as_fd().try_clone_to_owned())
        };
        Terminal(fd.and_then(Result::ok))
    }

    /// Whether what is typed there is for our process group.
    pub(crate) fn is_ours(&self) -> bool {
        self.0.as_ref().is_some_and(|fd| tcgetpgrp(fd) == Ok(getpgrp()))
    }

    /// The process group that what is typed there is for, by the PID of its first member.
    pub(crate) fn foreground(&self) -> Option<Pid> {
        let group = tcgetpgrp(self.0.as_ref()?).ok()?;
        u32::try_from(group.as_raw()).ok().and_then(Pid::new)
    }

    /// Takes it back from a job that has ended, as shells do: an interactive shell leaves it to its own process group.
    pub(crate) fn take_back(&self) {
        if let Some(fd) = &self.0 {
            // SIGTTOU is blocked, so that this does not stop us.
            let _ = tcsetpgrp(fd, getpgrp());
        }
    }
}

/// A line of progress, where it is in nobody's way: the command itself has ended, or writes its output elsewhere.
#[derive(Debug)]
pub(crate) struct Progress {
    wanted: bool,
    output_is_elsewhere: bool,
    began: Instant,
    next: Instant,
    shown: bool,
}

impl Progress {
    pub(crate) fn new(wanted: bool) -> Progress {
        let began = Instant::now();
        Progress {
            wanted: wanted && io::stderr().is_terminal(),
            output_is_elsewhere: !io::stdout().is_terminal(),
            began,
            next: began + LONG,
            shown: false,
        }
    }

    /// When it is to be drawn next.
    pub(crate) fn due(&self, root_runs: bool) -> Option<Instant> {
        (self.wanted && (self.output_is_elsewhere || !root_runs)).then_some(self.next)
    }

    pub(crate) fn draw(&mut self, terminal: &Terminal, census: &Census, root_runs: bool) {
        let now = Instant::now();
        if self.due(root_runs).is_none_or(|due| due > now) {
            return;
        }
        self.next = now + TICK;
        if !terminal.is_ours() {
            return;
        }
        let (took, running) = (output::age(self.began.elapsed()), census.running());
        let line = if root_runs {
            let so_far = processes(u64::from(census.seen), true);
            format!("pidigree: {took}, {so_far} so far, {running} running")
        } else {
            format!(
                "pidigree: {took}, waiting for {running} that outlived the command (Ctrl-C twice: leave them)"
            )
        };
        let line = output::cut(&line, output::error_width().unwrap_or(80).saturating_sub(1));
        // The cursor is left where the command's own words would begin.
        let _ = write!(io::stderr().lock(), "\r{line}\x1b[K\r");
        self.shown = true;
    }

    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = io::stderr().lock().write_all(b"\r\x1b[K");
        }
    }
}
