//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as Arguments, Parser, Subcommand};
use clap_complete::Shell;
use pidigree::{Backend, Identity, Pid, Signal};

use crate::help;
use crate::target::Target;

/// Process trees, verified ancestry, and race-free wait and kill.
#[derive(Debug, Parser)]
#[command(name = "pidigree", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(arg_required_else_help = true, subcommand_required = true, propagate_version = true)]
#[command(long_about = help::ABOUT, after_long_help = help::PIDIGREE)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Tree(Tree),
    Ancestors(Ancestors),
    IsDescendant(IsDescendant),
    Id(Id),
    Alive(Alive),
    Wait(Wait),
    Watch(Watch),
    Kill(Kill),
    Run(Run),
    Doctor(Doctor),
    Completions(Completions),
    Man(Man),
}

/// Draw the processes as a tree, with user, age and command
#[derive(Debug, Arguments)]
#[command(after_long_help = help::TREE)]
pub(crate) struct Tree {
    /// The root: only it and what is below it [default: every process without a visible parent]
    #[arg(value_name = "PID|TOKEN", allow_negative_numbers = true)]
    pub(crate) root: Option<Target>,
    /// Show kernel threads too
    #[arg(short, long)]
    pub(crate) kernel: bool,
    /// Draw it again whenever it changes, until all of it has ended; needs a root and a terminal
    #[arg(short, long, requires = "root", conflicts_with_all = ["kernel", "json"])]
    pub(crate) follow: bool,
    /// Print a JSON object for each process, one a line, parents first
    #[arg(long)]
    pub(crate) json: bool,
}

/// List the ancestors of a process, nearest first, each link verified
#[derive(Debug, Arguments)]
#[command(after_long_help = help::ANCESTORS)]
pub(crate) struct Ancestors {
    /// The process
    #[arg(value_name = "PID|TOKEN", allow_negative_numbers = true)]
    pub(crate) process: Target,
    /// Print a JSON object for each ancestor, one a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Say whether a process descends from another
#[derive(Debug, Arguments)]
#[command(after_long_help = help::IS_DESCENDANT)]
pub(crate) struct IsDescendant {
    /// The process that may be a descendant
    #[arg(value_name = "PID|TOKEN", allow_negative_numbers = true)]
    pub(crate) process: Target,
    /// The process that may be its ancestor
    #[arg(value_name = "ROOT", allow_negative_numbers = true)]
    pub(crate) root: Target,
    /// Answer with the exit code alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Print the identity token of a process
#[derive(Debug, Arguments)]
#[command(after_long_help = help::ID)]
pub(crate) struct Id {
    /// The process
    #[arg(value_name = "PID", allow_negative_numbers = true)]
    pub(crate) pid: Pid,
}

/// Say whether the process that a token names still runs
#[derive(Debug, Arguments)]
#[command(after_long_help = help::ALIVE)]
pub(crate) struct Alive {
    /// What `pidigree id` printed
    #[arg(value_name = "TOKEN", allow_negative_numbers = true, value_parser = token)]
    pub(crate) token: Identity,
    /// Answer with the exit code alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print a JSON object
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) json: bool,
}

/// Wait until processes have ended, children of this shell or not, and print how
#[derive(Debug, Arguments)]
#[command(after_long_help = help::WAIT)]
pub(crate) struct Wait {
    /// The processes
    #[arg(value_name = "PID|TOKEN", required = true, allow_negative_numbers = true)]
    pub(crate) processes: Vec<Target>,
    /// Wait for all that they started and will start, too
    #[arg(long)]
    pub(crate) tree: bool,
    /// Wait for the first of them only
    #[arg(short, long)]
    pub(crate) any: bool,
    /// Give up after this long: 500ms, 2s, 1m30s; a bare number is seconds
    #[arg(short, long, value_name = "D", value_parser = duration, allow_negative_numbers = true)]
    pub(crate) timeout: Option<Duration>,
    /// Print a JSON object for each end, one a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Follow processes until all have ended, and print when and how each did
#[derive(Debug, Arguments)]
#[command(after_long_help = help::WATCH)]
pub(crate) struct Watch {
    /// The processes
    #[arg(value_name = "PID|TOKEN", required = true, allow_negative_numbers = true)]
    pub(crate) processes: Vec<Target>,
    /// Follow all that they start, too: each fork, each program, each end
    #[arg(long)]
    pub(crate) tree: bool,
    /// Print a JSON object for each event, one a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Send a signal to processes, and never to another that got the PID
#[derive(Debug, Arguments)]
#[command(after_long_help = help::KILL)]
pub(crate) struct Kill {
    /// The processes
    #[arg(value_name = "PID|TOKEN", required = true, allow_negative_numbers = true, value_parser = victim)]
    pub(crate) processes: Vec<Target>,
    /// The signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "TERM", allow_negative_numbers = true)]
    pub(crate) signal: Signal,
    /// Signal all that they started, too, and what that forks meanwhile
    #[arg(long)]
    pub(crate) tree: bool,
    /// Wait until they have ended, and print how
    #[arg(short, long)]
    pub(crate) wait: bool,
    /// Give up waiting after this long: 500ms, 2s, 1m30s; a bare number is seconds
    #[arg(short, long, value_name = "D", requires = "wait", value_parser = duration, allow_negative_numbers = true)]
    pub(crate) timeout: Option<Duration>,
    /// Print a JSON object for each end, one a line
    #[arg(long, requires = "wait")]
    pub(crate) json: bool,
}

/// Run a command, wait for all that it starts, and tell what ran
#[derive(Debug, Arguments)]
#[command(after_long_help = help::RUN)]
pub(crate) struct Run {
    /// By what means it is followed: auto, cgroup, proc-connector, subreaper, kqueue or poll
    #[arg(short, long, value_name = "B", default_value = "auto")]
    pub(crate) backend: Backend,
    /// When the command itself has ended, end what it left behind instead of waiting for it
    #[arg(long)]
    pub(crate) kill_on_exit: bool,
    /// End all of it after this long: 500ms, 2s, 1m30s; a bare number is seconds
    #[arg(short, long, value_name = "D", value_parser = duration, allow_negative_numbers = true)]
    pub(crate) timeout: Option<Duration>,
    /// To end it is SIGTERM, and after this long SIGKILL
    #[arg(short, long, value_name = "D", default_value = "5s", value_parser = duration, allow_negative_numbers = true)]
    pub(crate) kill_after: Duration,
    /// Tell each event as a JSON object, one a line, and the summary as the last
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the summary, or the JSON, to this file [default: standard error]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write a trace that ui.perfetto.dev opens, with a track for each process
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// No summary and no progress
    #[arg(short, long, conflicts_with_all = ["json", "output"])]
    pub(crate) quiet: bool,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// Say what this machine lets pidigree promise, and why
#[derive(Debug, Arguments)]
#[command(after_long_help = help::DOCTOR)]
pub(crate) struct Doctor {
    /// Print a JSON object for each fact and each question, one a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Print the completions for a shell
#[derive(Debug, Arguments)]
#[command(after_long_help = help::COMPLETIONS)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// Print the manual page, or write one for each command
#[derive(Debug, Arguments)]
#[command(after_long_help = help::MAN)]
pub(crate) struct Man {
    /// Write pidigree.1 and a page for each command into this folder, which is made if it is not there
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// `500ms`, `2s`, `1m30s`; and as for timeout(1), a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let bare = text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let parsed = if bare {
        let seconds = text.parse().ok();
        seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    } else {
        humantime::parse_duration(text).ok()
    };
    parsed.ok_or_else(|| format!("{text:?} is not a duration: expected one such as 500ms, 2s or 1m30s"))
}

/// A token, with a word for those who have a PID.
fn token(text: &str) -> Result<Identity, String> {
    text.parse().map_err(|error: pidigree::Error| match text.parse::<Pid>() {
        Ok(pid) => {
            format!("{pid} is a PID, not a token: pidigree id {pid} prints the token of who has it now")
        }
        Err(_) => error.to_string(),
    })
}

/// A target, with a word for those who type `kill -9`.
fn victim(text: &str) -> Result<Target, String> {
    text.parse().map_err(|error| match text.strip_prefix('-') {
        Some(number) if number.parse::<Signal>().is_ok() => {
            format!("{text:?} is not a process ID: to send signal {number}, write -s {number}")
        }
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory;

    use super::{Args, duration, victim};

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations_have_units_or_are_seconds() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("2s", 2_000),
            ("1m30s", 90_000),
            ("1m 30s", 90_000),
            ("0s", 0),
            ("0", 0),
            ("3", 3_000),
            ("0.25", 250),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "-1", "-5s", "s", "1x", "1.2.3", ".", "1e400", "nan", "inf", "9999999999999999999999"]
        {
            let error = duration(bad).expect_err(bad);
            assert!(error.contains(bad), "{error} does not name {bad:?}");
        }
    }

    #[test]
    fn kill_minus_nine_is_told_how() {
        assert!(victim("-9").expect_err("not a pid").contains("-s 9"));
        assert!(!victim("-99").expect_err("not a pid").contains("-s 99"));
    }
}
