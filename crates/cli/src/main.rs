//! The `pidigree` command: process trees, verified ancestry, and race-free wait and kill, on top of the library.
#![deny(unsafe_code)]

mod ancestry;
mod args;
mod doctor;
mod ends;
mod events;
mod failure;
mod follow;
mod generate;
mod help;
mod identity;
mod kill;
mod output;
mod row;
mod run;
mod status;
mod sys;
mod target;
mod tree;
mod trees;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};
use crate::failure::{Code, Failure};

fn main() -> ExitCode {
    let outcome = match Args::try_parse() {
        Ok(args) => run(args.command),
        // Its own codes are the command's that it was to run.
        Err(error) if std::env::args_os().nth(1).is_some_and(|name| name == "run") => {
            failure::of_usage(error).map_err(Failure::of_run)
        }
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
        Command::Tree(args) if args.follow => follow::follow(&args),
        Command::Tree(args) => tree::tree(&args),
        Command::Ancestors(args) => ancestry::ancestors(&args),
        Command::IsDescendant(args) => ancestry::is_descendant(&args),
        Command::Id(args) => identity::id(&args),
        Command::Alive(args) => identity::alive(&args),
        Command::Wait(args) if args.tree => trees::wait(&args),
        Command::Wait(args) => ends::wait(&args),
        Command::Watch(args) if args.tree => trees::watch(&args),
        Command::Watch(args) => ends::watch(&args),
        Command::Kill(args) => kill::kill(&args),
        Command::Run(args) => run::run(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Completions(args) => generate::completions(&args),
        Command::Man(args) => generate::man(&args),
    }
}
