//! The modes: a command in another world.

use std::fmt::Display;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use nix::sys::resource::{Resource, setrlimit};

use crate::sys;

/// The exit code when the world cannot be made.
pub(crate) const CANNOT: u8 = 125;

/// Whether a first word is a mode, and not an operation.
pub(crate) fn is_mode(word: &str) -> bool {
    ["in-ns", "deny", "nofile", "hand-on"].contains(&word)
}

/// Runs `MODE ... -- COMMAND...`; does not return unless something is wrong.
pub(crate) fn launch(words: &[String]) -> ExitCode {
    let (mode, rest) = words.split_first().expect("a mode is a word");
    let Some(dashes) = rest.iter().position(|word| word == "--") else {
        return refuse(mode, "`-- COMMAND...` is missing");
    };
    let (args, command) = (&rest[..dashes], &rest[dashes + 1..]);
    let outcome = match (mode.as_str(), args) {
        _ if command.is_empty() => Err("the command is missing".to_owned()),
        ("in-ns", [flags, options @ ..]) => sys::in_namespaces(flags, options, || become_command(command)),
        ("deny", [errno, calls]) => sys::deny(errno, calls, false).map(|()| become_command(command)),
        ("hand-on", [program, words @ ..]) => Err(hand_on(program, words, command)),
        ("nofile", [soft, hard]) => limit_files(soft, hard).map(|()| become_command(command)),
        _ => Err("wrong arguments; see --help".to_owned()),
    };
    match outcome {
        Ok(code) => code,
        Err(why) => refuse(mode, &why),
    }
}

fn refuse(mode: &str, why: &str) -> ExitCode {
    eprintln!("pidigree-testkit: {mode}: {why}");
    ExitCode::from(CANNOT)
}

fn because<E: Display>(what: &str) -> impl FnOnce(E) -> String + '_ {
    move |error| format!("{what}: {error}")
}

/// Executes the command in this process, or, if it starts with a mode, launches that.
fn become_command(command: &[String]) -> ExitCode {
    if is_mode(&command[0]) {
        return launch(command);
    }
    if let Err(error) = sys::tidy_signals() {
        return refuse(&command[0], &error.to_string());
    }
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let error = sys::exec(words[0], &words);
    eprintln!("pidigree-testkit: {}: {error}", words[0]);
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

/// From now on these system calls answer this error in the whole process, all its threads, and for good; named as `deny`
/// names them.
///
/// # Panics
///
/// When there is no such call or error, or the kernel refuses the filter.
pub fn deny_from_now(errno: &str, calls: &str) {
    sys::deny(errno, calls, true).unwrap_or_else(|why| panic!("deny {errno} {calls}: {why}"));
}

const HANDED_ON: &str = "PIDIGREE_HANDED_ON";

/// Executes the program, which is to start the command; returns why it did not.
fn hand_on(program: &str, words: &[String], command: &[String]) -> String {
    let facts = match sys::standard_output().try_clone_to_owned() {
        Ok(facts) => facts,
        Err(error) => return error.to_string(),
    };
    let mut program = Command::new(program);
    // A test harness says things of its own on standard output
    program.args(words).env(HANDED_ON, command.join("\n")).stdout(Stdio::null()).stderr(facts);
    program.exec().to_string()
}

/// Returns the command that the mode `hand-on` has left to this process, with standard input and output as they were before
/// it; `None` if this process was not started so.
///
/// # Panics
///
/// When there is no descriptor left.
#[must_use]
pub fn handed_on() -> Option<Command> {
    let words = std::env::var(HANDED_ON).ok()?;
    let mut words = words.split('\n');
    let mut command = Command::new(words.next()?);
    let facts = std::io::stderr().as_fd().try_clone_to_owned().expect("a descriptor");
    command.args(words).env_remove(HANDED_ON).stdout(facts).stderr(Stdio::null());
    Some(command)
}

fn limit_files(soft: &str, hard: &str) -> Result<(), String> {
    let number = |word: &str| word.parse().map_err(because::<std::num::ParseIntError>(word));
    setrlimit(Resource::RLIMIT_NOFILE, number(soft)?, number(hard)?).map_err(because("setrlimit"))
}
