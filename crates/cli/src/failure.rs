//! What a command ends with: an exit code, or one line for each thing that went wrong.

use std::error::Error as _;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use owo_colors::OwoColorize;

use crate::output;

/// The exit codes; `help.rs` tells people what they mean for each command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Done; yes; it runs.
    Yes,
    /// No; it has ended; something is unavailable.
    No,
    /// Nothing was answered.
    Error,
    /// It can be neither proven nor disproven.
    Unknown,
    /// As timeout(1).
    TimedOut,
    /// As timeout(1) and env(1): not the command that was to be run failed, but we.
    Failed,
    /// As a shell: the command was found and cannot be executed.
    NotExecutable,
    /// As a shell: there is no such command.
    NotFound,
    /// As a shell shows the end by SIGPIPE: whoever read our output has left.
    Pipe,
    /// That of the command that was run.
    Of(u8),
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> ExitCode {
        ExitCode::from(match code {
            Code::Yes => 0,
            Code::No => 1,
            Code::Error => 2,
            Code::Unknown => 3,
            Code::TimedOut => 124,
            Code::Failed => 125,
            Code::NotExecutable => 126,
            Code::NotFound => 127,
            Code::Pipe => 141,
            Code::Of(code) => code,
        })
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be told, a line each.
    Lines(Vec<String>),
    /// The same, with an exit code of its own.
    With(Code, Vec<String>),
    /// Nobody reads our output any more: there is nobody to tell.
    Pipe,
}

impl Failure {
    pub(crate) fn new(line: impl Into<String>) -> Failure {
        Failure::Lines(vec![line.into()])
    }

    pub(crate) fn code(&self) -> Code {
        match self {
            Failure::Lines(_) => Code::Error,
            Failure::With(code, _) => *code,
            Failure::Pipe => Code::Pipe,
        }
    }

    /// As the failure of a command whose own codes begin below 125: as timeout(1) and env(1) do.
    pub(crate) fn of_run(self) -> Failure {
        match self {
            Failure::Lines(lines) => Failure::With(Code::Failed, lines),
            other => other,
        }
    }

    pub(crate) fn report(&self) {
        if let Failure::Lines(lines) | Failure::With(_, lines) = self {
            lines.iter().for_each(|line| report(line));
        }
    }
}

/// Says one line on standard error.
pub(crate) fn report(line: &str) {
    let prefix = "pidigree:";
    // Where standard error is closed there is nobody to tell that it is.
    let _ = writeln!(anstream::stderr(), "{} {}", prefix.red().bold(), output::printable(line));
}

impl From<pidigree::Error> for Failure {
    fn from(error: pidigree::Error) -> Failure {
        Failure::new(error.to_string())
    }
}

impl From<io::Error> for Failure {
    /// Of writing to standard output: the only input or output that is not pidigree's.
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Pipe,
            _ => Failure::new(format!("cannot write to standard output: {error}")),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Failure {
        io::Error::from(error).into()
    }
}

/// Prints help and versions as clap does, and mistakes as one line.
pub(crate) fn of_usage(error: clap::Error) -> Result<Code, Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            error.print()?;
            Ok(Code::Yes)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            Ok(Code::Error)
        }
        // Our own parsers say it all.
        ErrorKind::ValueValidation => match error.source() {
            Some(source) => Err(Failure::new(source.to_string())),
            None => Err(Failure::new(one_line(&error.to_string()))),
        },
        _ => Err(Failure::new(one_line(&error.to_string()))),
    }
}

/// What clap says over several paragraphs: the error and its tips, not the usage.
fn one_line(message: &str) -> String {
    let told: Vec<String> = message
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter_map(|line| {
            let error = line.strip_prefix("error: ").map(str::to_owned);
            error.or_else(|| line.starts_with("tip: ").then_some(line))
        })
        .collect();
    format!("{} (pidigree --help tells more)", told.join("; "))
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn a_usage_error_is_one_line_with_its_tip() {
        let clap = "error: unrecognized subcommand 'tre'\n\n  tip: a similar subcommand exists: 'tree'\n\n\
                    Usage: pidigree <COMMAND>\n\nFor more information, try '--help'.\n";
        assert_eq!(
            one_line(clap),
            "unrecognized subcommand 'tre'; tip: a similar subcommand exists: 'tree' (pidigree --help tells more)"
        );
    }
}
