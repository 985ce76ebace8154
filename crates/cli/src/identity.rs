//! `pidigree id` and `pidigree alive`.

use std::io::Write;
use std::time::Duration;

use owo_colors::OwoColorize;
use pidigree::{Identity, Pid, Process, Sameness, State};
use serde::Serialize;

use crate::args;
use crate::failure::{Code, Failure};
use crate::output;
use crate::target::{self, Found};

pub(crate) fn id(args: &args::Id) -> Result<Code, Failure> {
    let process = Process::open(args.pid)?;
    let mut identity = *process.identity();
    if !is_settled(&identity) {
        std::thread::sleep(2 * TICK);
        let later = Identity::of(args.pid);
        // Its PID was its own all the time.
        if process.state()? != State::Gone {
            identity = later?;
        }
    }
    writeln!(output::lines(), "{identity}")?;
    Ok(Code::Yes)
}

/// The length of a tick of a start time.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Whether it can ever be proven to be of a process. Without unique ids, one that is recorded within the clock tick of the
/// start cannot: another process can have had the same PID and start.
fn is_settled(identity: &Identity) -> bool {
    identity.same_process(identity) == Sameness::Same
}

/// Waits until every process that runs now can be recorded so that it is recognised later: at once with unique ids.
pub(crate) fn let_settle() -> Result<(), Failure> {
    if Identity::of(Pid::current())?.unique_id().is_none() {
        std::thread::sleep(2 * TICK);
    }
    Ok(())
}

/// What has become of the process of a token, and why that is known or not.
struct Verdict {
    state: &'static str,
    reason: Option<String>,
    code: Code,
}

pub(crate) fn alive(args: &args::Alive) -> Result<Code, Failure> {
    let verdict = verdict(&args.token)?;
    if args.json {
        #[derive(Serialize)]
        struct Object<'a> {
            pid: u32,
            state: &'a str,
            reason: Option<&'a str>,
            token: String,
        }
        let object = Object {
            pid: args.token.pid().get(),
            state: verdict.state,
            reason: verdict.reason.as_deref(),
            token: args.token.to_string(),
        };
        output::json(&mut output::lines(), &object)?;
    } else if !args.quiet {
        let mut out = output::lines();
        match verdict.code {
            Code::Yes => write!(out, "{}", verdict.state.green())?,
            Code::No => write!(out, "{}", verdict.state.red())?,
            _ => write!(out, "{}", verdict.state.yellow())?,
        }
        match &verdict.reason {
            Some(reason) => writeln!(out, ": {}", output::printable(reason))?,
            None => writeln!(out)?,
        }
    }
    Ok(verdict.code)
}

fn verdict(token: &Identity) -> Result<Verdict, Failure> {
    let gone = |reason: &str| Verdict { state: "gone", reason: Some(reason.to_owned()), code: Code::No };
    let process = match target::find(token) {
        Ok(Found::Process(process)) => process,
        Ok(Found::Gone(reason)) => return Ok(gone(reason)),
        Err(error) if error.is_foreign() || error.is_unsupported() || error.is_denied() => {
            return Ok(Verdict { state: "unknown", reason: Some(error.to_string()), code: Code::Unknown });
        }
        // Descriptors ran out, say: nothing was found out.
        Err(error) => return Err(error.into()),
    };
    Ok(match process.state()? {
        State::Running => Verdict { state: "running", reason: None, code: Code::Yes },
        State::Zombie => Verdict {
            state: "zombie",
            reason: Some("it has ended, and its parent has not collected its status".to_owned()),
            code: Code::No,
        },
        State::Gone => gone("it has just ended"),
    })
}
