//! `pidigree wait` and `pidigree watch`: the ends of processes, as they come.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use owo_colors::OwoColorize;
use pidigree::{ExitStatus, Identity, Pid, Process, ProcessWatcher, WatchKey};
use serde::Serialize;

use crate::args;
use crate::failure::{self, Code, Failure};
use crate::output;
use crate::row::{Row, Users};
use crate::status::{Shown, Status};
use crate::target::{Found, Target};

pub(crate) fn wait(args: &args::Wait) -> Result<Code, Failure> {
    let ends = Ends::of(&args.processes, Style::Wait, args.json)?;
    ends.follow(args.any, args.timeout)
}

pub(crate) fn watch(args: &args::Watch) -> Result<Code, Failure> {
    let ends = Ends::of(&args.processes, Style::Watch, args.json)?;
    ends.follow(false, None)
}

/// Processes whose ends are to be told.
#[derive(Debug)]
pub(crate) struct Ends {
    watcher: ProcessWatcher,
    watched: HashMap<WatchKey, Seen>,
    /// Tokens whose processes had ended before.
    gone: Vec<Identity>,
    /// In the order in which they were named.
    order: Vec<WatchKey>,
    style: Style,
    json: bool,
}

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// How each ended.
    Wait,
    /// And when, and what it was.
    Watch,
}

/// A process as it was when it was pinned.
#[derive(Debug)]
struct Seen {
    identity: Identity,
    command: Option<String>,
    age: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Watching,
    Ended(ExitStatus),
    Gone,
}

impl Ends {
    pub(crate) fn new(style: Style, json: bool) -> Result<Ends, Failure> {
        Ok(Ends {
            watcher: ProcessWatcher::new()?,
            watched: HashMap::new(),
            gone: Vec::new(),
            order: Vec::new(),
            style,
            json,
        })
    }

    /// All of them, or an error for each that cannot be.
    fn of(targets: &[Target], style: Style, json: bool) -> Result<Ends, Failure> {
        let mut ends = Ends::new(style, json)?;
        let mut wrong = Vec::new();
        for target in targets {
            let added = target.find().and_then(|found| match found {
                Found::Process(process) if process.pid() == Pid::current() => {
                    let pid = process.pid();
                    wrong.push(format!("process {pid} is this command itself, and would wait for ever"));
                    Ok(())
                }
                Found::Process(process) => ends.add(&process),
                Found::Gone(_) => {
                    if let Target::Token(identity) = target {
                        ends.gone.push(*identity);
                    }
                    Ok(())
                }
            });
            match added {
                Ok(()) => {}
                // So would the rest.
                Err(error) if error.is_limit() => return Err(error.into()),
                Err(error) => wrong.push(error.to_string()),
            }
        }
        if wrong.is_empty() { Ok(ends) } else { Err(Failure::Lines(wrong)) }
    }

    pub(crate) fn add(&mut self, process: &Process) -> Result<(), pidigree::Error> {
        // Before the end, after which the start time could not be read.
        let identity = *process.identity();
        let mut seen = Seen { identity, command: None, age: None };
        if self.style == Style::Watch {
            let row = Row::of(process, None, &mut Users::default());
            seen.command = row.command().map(str::to_owned);
            seen.age = row.age();
        }
        let key = self.watcher.watch(process)?;
        self.watched.insert(key, seen);
        self.order.push(key);
        Ok(())
    }

    /// Tells the ends until all have ended, or any, or the time is up.
    pub(crate) fn follow(mut self, any: bool, timeout: Option<Duration>) -> Result<Code, Failure> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        if self.style == Style::Watch {
            for seen in self.order.iter().filter_map(|key| self.watched.get(key)) {
                self.tell(Event::Watching, seen)?;
            }
        }
        let mut told = !self.gone.is_empty();
        for identity in &self.gone {
            let seen = Seen { identity: *identity, command: None, age: None };
            self.tell(Event::Gone, &seen)?;
        }
        while !(self.watched.is_empty() || any && told) {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let Some(exited) = self.watcher.wait(left)? else {
                failure::report(&self.late(timeout.unwrap_or_default()));
                return Ok(Code::TimedOut);
            };
            if let Some(mut seen) = self.watched.remove(&exited.key) {
                let start = seen.identity.start_time();
                seen.age = start.and_then(|start| start.elapsed());
                self.tell(Event::Ended(exited.status), &seen)?;
                told = true;
            }
        }
        Ok(Code::Yes)
    }

    fn late(&self, timeout: Duration) -> String {
        let left = self.order.iter().filter_map(|key| self.watched.get(key));
        late(timeout, left.map(|seen| seen.identity.pid()))
    }

    /// Prints an event; a line is out when this returns.
    fn tell(&self, event: Event, seen: &Seen) -> Result<(), Failure> {
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        let mut out = output::lines();
        if self.json {
            return output::json(&mut out, &self.object(event, seen, &now));
        }
        let pid = seen.identity.pid();
        if self.style == Style::Wait {
            return Ok(writeln!(out, "{pid} {event}")?);
        }
        write!(out, "{} {:>7} ", now.dimmed(), pid.get())?;
        let command = seen.command.as_deref().map(output::printable);
        let ran = seen.age.map(output::age);
        match (event, ran) {
            (Event::Watching, Some(ran)) => write!(out, "watching, {ran} old")?,
            (Event::Ended(_), Some(ran)) => write!(out, "{event}, after {ran}")?,
            (event, _) => write!(out, "{event}")?,
        }
        match command {
            Some(command) => writeln!(out, ": {command}")?,
            None => writeln!(out)?,
        }
        Ok(())
    }

    fn object<'a>(&self, event: Event, seen: &'a Seen, now: &impl fmt::Display) -> Object<'a> {
        let status = match event {
            Event::Ended(status) => Some(status),
            Event::Gone => Some(ExitStatus::Unknown),
            Event::Watching => None,
        };
        Object {
            details: (self.style == Style::Watch).then(|| Details {
                at: now.to_string(),
                command: seen.command.as_deref(),
                age_seconds: seen.age.map(output::seconds),
            }),
            event: match event {
                Event::Watching => "watching",
                Event::Ended(_) => "ended",
                Event::Gone => "gone",
            },
            pid: seen.identity.pid().get(),
            token: seen.identity.to_string(),
            status: Status::of(status),
        }
    }
}

/// Says that the time was up, and who still runs.
pub(crate) fn late(timeout: Duration, left: impl IntoIterator<Item = Pid>) -> String {
    let shown = humantime::format_duration(timeout);
    format!("the time was up after {shown}; still running: {}", list(left))
}

/// The first ten, and how many more there are.
pub(crate) fn list(pids: impl IntoIterator<Item = Pid>) -> String {
    let mut pids = pids.into_iter();
    let mut shown: Vec<String> = pids.by_ref().take(10).map(|pid| pid.to_string()).collect();
    let more = pids.count();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join(", ")
}

#[derive(Serialize)]
struct Object<'a> {
    event: &'static str,
    pid: u32,
    token: String,
    #[serde(flatten)]
    status: Status,
    #[serde(flatten)]
    details: Option<Details<'a>>,
}

#[derive(Serialize)]
struct Details<'a> {
    at: String,
    command: Option<&'a str>,
    age_seconds: Option<f64>,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Watching => f.write_str("watching"),
            Event::Gone => f.write_str("gone: had ended before, status unknown"),
            Event::Ended(status) => write!(f, "ended: {}", Shown(*status)),
        }
    }
}
