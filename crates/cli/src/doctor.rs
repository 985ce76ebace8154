//! `pidigree doctor`.

use std::io::Write;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use owo_colors::OwoColorize;
use pidigree::{Capabilities, Capability, Grade, Identity, Pid, Snapshot};
use serde::Serialize;

use crate::args;
use crate::failure::{Code, Failure};
use crate::output;
use crate::sys;

pub(crate) fn doctor(args: &args::Doctor) -> Result<Code, Failure> {
    let capabilities = pidigree::capabilities()?;
    let facts = facts(&capabilities)?;
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
    } else {
        for (fact, value) in &facts {
            writeln!(out, "{:<13} {value}", fact.bold())?;
        }
        writeln!(out)?;
        table(&mut out, &capabilities)?;
    }
    out.flush()?;
    let unavailable = capabilities.iter().any(|answer| answer.grade == Grade::Unavailable);
    Ok(if unavailable { Code::No } else { Code::Yes })
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
