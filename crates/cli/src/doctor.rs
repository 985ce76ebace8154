//! `pidigree doctor`.

use std::borrow::Cow;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use owo_colors::OwoColorize;
use pidigree::{Backend, Capabilities, Capability, Coverage, Grade, Identity, Pid, Promise, Snapshot, Tree};
use serde::Serialize;

use crate::args;
use crate::events;
use crate::failure::{Code, Failure};
use crate::output;
use crate::sys;

/// For a tree whose command has ended.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn doctor(args: &args::Doctor) -> Result<Code, Failure> {
    let capabilities = pidigree::capabilities()?;
    let facts = facts(&capabilities)?;
    let tried = Backend::ALL.map(Tried::of);
    let mut out = output::pages();
    if args.json {
        for (fact, value) in &facts {
            output::json(&mut out, &Fact { fact, value })?;
        }
        for Capability { question, grade, reason, .. } in &capabilities {
            let grade = match grade {
                Grade::Proven => "proven",
                Grade::BestEffort => "best-effort",
                Grade::Unavailable => "unavailable",
            };
            output::json(&mut out, &Answer { question, grade, reason })?;
        }
        for tried in &tried {
            let coverage = tried.outcome.as_ref().ok().map(|(_, coverage)| events::covered(coverage));
            let object = Object {
                tree: tried.asked.name(),
                works: tried.outcome.is_ok(),
                backend: tried.outcome.as_ref().ok().map(|(backend, _)| backend.name()),
                emptiness: coverage.as_ref().map(|coverage| coverage.emptiness),
                members: coverage.as_ref().map(|coverage| coverage.members),
                reason: tried.reason(),
            };
            output::json(&mut out, &object)?;
        }
    } else {
        for (fact, value) in &facts {
            writeln!(out, "{:<13} {value}", fact.bold())?;
        }
        writeln!(out)?;
        table(&mut out, &capabilities)?;
        writeln!(out)?;
        trees(&mut out, &tried)?;
    }
    out.flush()?;
    let unavailable = capabilities.iter().any(|answer| answer.grade == Grade::Unavailable);
    let trees = tried.iter().any(|tried| tried.outcome.is_ok());
    Ok(if unavailable || !trees { Code::No } else { Code::Yes })
}

/// A backend, and what came of spawning a tree with it.
struct Tried {
    asked: Backend,
    outcome: Result<(Backend, Coverage), String>,
}

impl Tried {
    fn of(asked: Backend) -> Tried {
        Tried { asked, outcome: attempt(asked).map_err(|error| error.to_string()) }
    }

    fn reason(&self) -> &str {
        match &self.outcome {
            Ok((_, coverage)) => &coverage.reason,
            Err(error) => error,
        }
    }
}

/// Runs a command that ends at once: this one.
fn attempt(asked: Backend) -> Result<(Backend, Coverage), Box<dyn std::error::Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let (tree, mut child) = Tree::builder().backend(asked).every_member(true).spawn(&mut command)?;
    let found = (tree.backend(), tree.coverage());
    child.wait()?;
    // For the end of whatever the backend needs.
    tree.wait_empty(Some(PATIENCE))?;
    Ok(found)
}

#[derive(Serialize)]
struct Object<'a> {
    tree: &'static str,
    works: bool,
    backend: Option<&'static str>,
    emptiness: Option<&'static str>,
    members: Option<&'static str>,
    reason: &'a str,
}

#[derive(Serialize)]
struct Fact<'a> {
    fact: &'a str,
    value: &'a str,
}

#[derive(Serialize)]
struct Answer<'a> {
    question: &'a str,
    grade: &'a str,
    reason: &'a str,
}

fn facts(capabilities: &Capabilities) -> Result<Vec<(&'static str, String)>, Failure> {
    let here = Identity::of(Pid::current())?;
    let unknown = || "unknown".to_owned();
    let kernel = nix::sys::utsname::uname().map_or_else(
        |_| unknown(),
        |name| {
            let words = [name.sysname(), name.release(), name.machine()];
            words.map(|word| word.to_string_lossy()).join(" ")
        },
    );
    let uid = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    let user = user.map_or_else(|| uid.to_string(), |user| format!("{} ({uid})", user.name));
    let files = getrlimit(Resource::RLIMIT_NOFILE)
        .map_or_else(|_| unknown(), |(soft, hard)| format!("{}, at most {}", limit(soft), limit(hard)));
    let visible = Snapshot::capture().map_or_else(|error| error.to_string(), |table| table.len().to_string());
    Ok(vec![
        ("pidigree", env!("CARGO_PKG_VERSION").to_owned()),
        ("kernel", kernel),
        ("backend", capabilities.backend().to_owned()),
        ("boot", here.boot_id().map_or_else(unknown, |boot| boot.to_string())),
        ("pid-namespace", here.pid_namespace().map_or_else(unknown, sys::namespace)),
        ("user", user),
        ("open-files", files),
        ("processes", visible),
    ])
}

fn limit(limit: u64) -> String {
    if limit == RLIM_INFINITY { "unlimited".to_owned() } else { limit.to_string() }
}

fn table(out: &mut impl Write, capabilities: &Capabilities) -> Result<(), Failure> {
    let question_width = capabilities.iter().map(|answer| answer.question.len()).max().unwrap_or(0);
    let grade_width = Grade::Unavailable.to_string().len();
    let indent = question_width + grade_width + 2;
    let header = format!("{:<question_width$} {:<grade_width$} REASON", "QUESTION", "ANSWER");
    writeln!(out, "{}", header.bold())?;
    for Capability { question, grade, reason, .. } in capabilities {
        let shown = format!("{:<grade_width$}", grade.to_string());
        write!(out, "{question:<question_width$} ")?;
        match grade {
            Grade::Proven => write!(out, "{} ", shown.green())?,
            Grade::BestEffort => write!(out, "{} ", shown.yellow())?,
            Grade::Unavailable => write!(out, "{} ", shown.red())?,
        }
        for (number, line) in wrapped(reason, indent).iter().enumerate() {
            if number > 0 {
                write!(out, "{:indent$}", "")?;
            }
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

fn trees(out: &mut impl Write, tried: &[Tried]) -> Result<(), Failure> {
    let width = Backend::ALL.iter().map(|backend| backend.name().len()).max().unwrap_or(0);
    let promise = Promise::ExactSinceAttach.to_string().len();
    let header = format!("{:<width$} {:<promise$} {:<promise$} REASON", "TREE", "EMPTINESS", "MEMBERS");
    writeln!(out, "{}", header.bold())?;
    for tried in tried {
        write!(out, "{:<width$} ", tried.asked.name())?;
        let mut reason = Cow::Borrowed(tried.reason());
        match &tried.outcome {
            Ok((backend, coverage)) => {
                for promised in [coverage.emptiness, coverage.members] {
                    let shown = format!("{:<promise$}", promised.to_string());
                    match promised {
                        Promise::BestEffort => write!(out, "{} ", shown.yellow())?,
                        Promise::ExactSinceAttach | Promise::Exact => write!(out, "{} ", shown.green())?,
                    }
                }
                if tried.asked == Backend::Auto {
                    reason = Cow::Owned(format!("{backend}: {reason}"));
                }
            }
            Err(_) => {
                let shown = format!("{:<promise$}", Grade::Unavailable.to_string());
                write!(out, "{} {:promise$} ", shown.red(), "")?;
            }
        }
        let indent = width + 2 * promise + 3;
        for (number, line) in wrapped(&reason, indent).iter().enumerate() {
            if number > 0 {
                write!(out, "{:indent$}", "")?;
            }
            writeln!(out, "{}", output::printable(line))?;
        }
    }
    Ok(())
}

/// Breaks a reason into lines where the terminal has room for them beside the other columns.
fn wrapped(reason: &str, indent: usize) -> Vec<String> {
    const NARROWEST: usize = 24;
    let room = output::width().map_or(usize::MAX, |width| width.saturating_sub(indent).max(NARROWEST));
    let mut lines = vec![String::new()];
    for word in reason.split(' ') {
        let line = lines.last_mut().expect("there is a first line");
        if line.is_empty() {
            line.push_str(word);
        } else if output::columns(line) + 1 + output::columns(word) <= room {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}
