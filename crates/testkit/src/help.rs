//! The entry of the binary.

use std::process::ExitCode;

use crate::{launcher, ops, script};

/// Runs this process as the binary `pidigree-testkit`: a script, or a mode that launches a command.
///
/// This is the whole of the binary's `main`; nothing else should call it.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("--help" | "-h") => {
            print!("{}", include_str!("help.txt"));
            ExitCode::SUCCESS
        }
        None => {
            eprint!("{}", include_str!("help.txt"));
            ExitCode::from(2)
        }
        Some(mode) if launcher::is_mode(mode) => launcher::launch(&words),
        Some(_) => match script::parse(&words) {
            Ok(ops) => ops::run_process(&ops),
            Err(why) => {
                eprintln!("pidigree-testkit: {why}");
                ExitCode::from(2)
            }
        },
    }
}
