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
    Yes = 0,
    /// No; it has ended; something is unavailable.
    No = 1,
    /// Nothing was answered.
    Error = 2,
    /// It can be neither proven nor disproven.
    Unknown = 3,
    /// As timeout(1).
    TimedOut = 124,
    /// As a shell shows the end by SIGPIPE: whoever read our output has left.
    Pipe = 141,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> ExitCode {
        ExitCode::from(code as u8)
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be told, a line each.
    Lines(Vec<String>),
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
            Failure::Pipe => Code::Pipe,
        }
    }

    pub(crate) fn report(&self) {
        if let Failure::Lines(lines) = self {
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
