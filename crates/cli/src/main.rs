//! The `pidigree` command: process trees, verified ancestry, and race-free wait and kill, on top of the library.
#![deny(unsafe_code)]

mod ancestry;
mod args;
mod doctor;
mod ends;
mod failure;
mod generate;
mod help;
mod identity;
mod kill;
mod output;
mod row;
mod sys;
mod target;
mod tree;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};
use crate::failure::{Code, Failure};

fn main() -> ExitCode {
    let outcome = match Args::try_parse() {
        Ok(args) => run(args.command),
        Err(error) => failure::of_usage(error),
    };
    match outcome {
        Ok(code) => code.into(),
        Err(failure) => {
            failure.report();
            failure.code().into()
        }
    }
}

fn run(command: Command) -> Result<Code, Failure> {
    match command {
        Command::Tree(args) => tree::tree(&args),
        Command::Ancestors(args) => ancestry::ancestors(&args),
        Command::IsDescendant(args) => ancestry::is_descendant(&args),
        Command::Id(args) => identity::id(&args),
        Command::Alive(args) => identity::alive(&args),
        Command::Wait(args) => ends::wait(&args),
        Command::Watch(args) => ends::watch(&args),
        Command::Kill(args) => kill::kill(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Completions(args) => generate::completions(&args),
        Command::Man(args) => generate::man(&args),
    }
}
