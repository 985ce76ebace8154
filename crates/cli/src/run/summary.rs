//! What a run came to, told once it is over.

use std::fmt::Write;
use std::time::Duration;

use owo_colors::OwoColorize;
use pidigree::{Coverage, ExitStatus, Pid, Promise};
use serde::Serialize;

use crate::events::{processes, seconds};
use crate::output;
use crate::run::census::{Census, Ended, Few};
use crate::status::{Shown, Status};

/// A run that is over.
#[derive(Debug)]
pub(crate) struct Summary<'a> {
    pub(crate) census: &'a Census,
    pub(crate) coverage: &'a Coverage,
    pub(crate) root: Pid,
    /// How many processes there were, as far as they were seen.
    pub(crate) processes: u64,
    /// How the command ended; `None` if it runs still.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) took: Duration,
    pub(crate) timed_out: bool,
    /// Those that are left running.
    pub(crate) left: Vec<Pid>,
    /// Whether it could not be followed to its end.
    pub(crate) lost: bool,
}

#[derive(Serialize)]
struct Object<'a> {
    event: &'static str,
    pid: u32,
    #[serde(flatten)]
    status: Status,
    timed_out: bool,
    seconds: f64,
    processes: u64,
    complete: bool,
    incomplete_because: Option<String>,
    levels: u32,
    failed: u64,
    orphans: u64,
    left_running: Vec<u32>,
    resynced: u64,
    skipped_events: u64,
    longest: Vec<Named<'a>>,
    failures: Vec<Named<'a>>,
    outlived: Vec<Named<'a>>,
}

#[derive(Serialize)]
struct Named<'a> {
    pid: u32,
    token: String,
    command: Option<&'a str>,
    #[serde(flatten)]
    status: Status,
    ran_seconds: f64,
}

impl Summary<'_> {
    /// The last object of `--json`.
    pub(crate) fn object(&self) -> impl Serialize + '_ {
        Object {
            event: "summary",
            pid: self.root.get(),
            status: Status::of(self.status),
            timed_out: self.timed_out,
            seconds: seconds(self.took),
            processes: self.processes,
            complete: self.incomplete().is_none(),
            incomplete_because: self.incomplete(),
            levels: self.census.deepest,
            failed: self.census.failed.count,
            orphans: self.census.outlived.count,
            left_running: self.left.iter().map(|pid| pid.get()).collect(),
            resynced: self.census.resynced,
            skipped_events: self.census.skipped,
            longest: self.census.longest.iter().map(name).collect(),
            failures: self.census.failed.first.iter().map(name).collect(),
            outlived: self.census.outlived.first.iter().map(name).collect(),
        }
    }

    /// A line, and one for each process that is worth naming.
    pub(crate) fn text(&self) -> String {
        let census = self.census;
        let mut text = format!("{} ", "pidigree:".bold());
        let status = match self.status {
            Some(status) => Shown(status).to_string(),
            None => "still running".to_owned(),
        };
        let took = output::short(self.took);
        let _ =
            write!(text, "{status} after {took}; {}", processes(self.processes, self.incomplete().is_none()));
        if census.deepest > 1 {
            let _ = write!(text, ", {} levels deep", census.deepest);
        }
        if census.failed.count > 0 {
            let _ = write!(text, ", {} failed", census.failed.count);
        }
        if census.outlived.count > 0 {
            let parents = if census.outlived.count == 1 { "its parent" } else { "their parents" };
            let _ = write!(text, ", {} outlived {parents}", census.outlived.count);
        }
        if !self.left.is_empty() {
            let _ = write!(text, ", {} left running", self.left.len());
        }
        text.push('\n');
        for (number, ended) in census.longest.iter().enumerate() {
            line(&mut text, if number == 0 { "longest" } else { "" }, ended, "");
        }
        few(&mut text, "failed", &census.failed, |ended| Shown(ended.status).to_string());
        few(&mut text, "outlived", &census.outlived, |_| String::new());
        if let Some(why) = self.incomplete() {
            let _ = writeln!(text, "  {}", format!("at least: {}", output::printable(&why)).dimmed());
        }
        text
    }

    /// Why there may have been more processes than were seen.
    fn incomplete(&self) -> Option<String> {
        let mut why = Vec::new();
        if self.coverage.members == Promise::BestEffort {
            why.push(self.coverage.reason.clone());
        }
        if self.census.resynced > 0 {
            why.push(format!("the kernel's events were lost {} times", self.census.resynced));
        }
        if self.census.skipped > 0 {
            why.push(format!("{} events came faster than they could be told", self.census.skipped));
        }
        if self.lost {
            why.push("it could not be followed to its end".to_owned());
        }
        (!why.is_empty()).then(|| why.join("; "))
    }
}

fn name(ended: &Ended) -> Named<'_> {
    Named {
        pid: ended.identity.pid().get(),
        token: ended.identity.to_string(),
        command: ended.member.command.as_deref(),
        status: Status::of(Some(ended.status)),
        ran_seconds: seconds(ended.ran()),
    }
}

fn few(text: &mut String, label: &str, few: &Few, note: impl Fn(&Ended) -> String) {
    for (number, ended) in few.first.iter().enumerate() {
        line(text, if number == 0 { label } else { "" }, ended, &note(ended));
    }
    let more = few.count - few.first.len() as u64;
    if more > 0 {
        let _ = writeln!(text, "  {:<9}{}", "", format!("and {more} more").dimmed());
    }
}

fn line(text: &mut String, label: &str, ended: &Ended, note: &str) {
    let (pid, ran) = (ended.identity.pid().get(), output::short(ended.ran()));
    let mut line = format!("  {label:<9}{pid:>7} {ran:>6}  ");
    if !note.is_empty() {
        let _ = write!(line, "{note}: ");
    }
    line.push_str(&output::printable(ended.member.command.as_deref().unwrap_or("?")));
    let _ = writeln!(text, "{}", output::cut(&line, output::error_width().unwrap_or(usize::MAX)));
}
