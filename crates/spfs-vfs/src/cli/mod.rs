//! The command line.

mod args;
mod help;
mod log;
mod output;
mod serve;
mod target;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use serde::Serialize;
use spfs_vfs::client::Client;
use spfs_vfs::failure::{Failure, Kind};
use spfs_vfs::socket;

use self::args::{Args, Command, List, Mount, Status, Stop, Unmount};
use self::output::Outcome;

/// How long a service that was told to stop may take: longer than the parts of its end together.
const STOPPING: Duration = Duration::from_secs(30);

pub(crate) fn main() -> ExitCode {
    let outcome = match Args::try_parse() {
        Ok(args) => run(args.command),
        Err(error) => usage(&error),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(Outcome::Failed(failure)) => {
            output::report(&failure.to_string());
            ExitCode::from(failure.exit_code())
        }
        // As a shell shows the end by SIGPIPE: whoever read our output has left, and nobody is to be told
        Err(Outcome::Unread) => ExitCode::from(141),
    }
}

/// Whether the answer is yes.
fn run(command: Command) -> Result<bool, Outcome> {
    match command {
        Command::Serve(args) => serve::serve(args),
        Command::Mount(args) => mount(args),
        Command::Unmount(args) => unmount(&args),
        Command::Status(args) => status(&args),
        Command::List(args) => list(&args),
        Command::Stop(args) => stop(&args),
    }
}

fn mount(args: Mount) -> Result<bool, Outcome> {
    // Before the service is asked: from here on it is about this process, whoever has its PID later
    let root = args.root.pin()?;
    let layers = args.layers.iter().map(|layer| absolute(layer)).collect::<Result<Vec<_>, _>>()?;
    let mut client = Client::connect(&args.service.socket())?;
    let view = output::View::of(client.mount(&root, &layers, args.owner)?);
    if args.service.json {
        output::json(&view)?;
    } else {
        output::line(format_args!("view {} of process {}: {}", view.id, view.pid(), view.layers()))?;
    }
    Ok(true)
}

fn unmount(args: &Unmount) -> Result<bool, Outcome> {
    let root = args.root.identity()?;
    let mut client = Client::connect(&args.service.socket())?;
    let view = client.unmount(&root)?.map(output::View::of);
    let found = view.is_some();
    match view {
        _ if args.service.json => output::json(&output::Unmounted { unmounted: found, view })?,
        Some(view) => output::line(format_args!("view {} of process {} is gone", view.id, view.pid()))?,
        None => output::line(format_args!("process {} has no view of its own", root.pid()))?,
    }
    Ok(found)
}

fn status(args: &Status) -> Result<bool, Outcome> {
    let path = args.service.socket();
    let mut client = Client::connect(&path)?;
    let status = client.status()?;
    let serving = client.is_serving()?;
    output::status(&path, status, serving, args.service.json)?;
    Ok(serving)
}

fn list(args: &List) -> Result<bool, Outcome> {
    let mut client = Client::connect(&args.service.socket())?;
    let json = args.service.json;
    client.list(args.members, |view| output::listed(output::View::of(view), args.members, json))?;
    Ok(true)
}

fn stop(args: &Stop) -> Result<bool, Outcome> {
    let path = args.service.socket();
    Client::connect(&path)?.stop(STOPPING)?;
    if args.service.json {
        output::json(&Stopped { stopped: true })?;
    } else {
        output::line(format_args!("the service of {} has ended", path.display()))?;
    }
    Ok(true)
}

#[derive(Serialize)]
struct Stopped {
    stopped: bool,
}

/// The service is in another folder.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::new(Kind::Error, format!("layer {}: {error}", path.display())))
}

impl args::Service {
    fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(socket::default_path)
    }
}

/// Prints help and versions as clap does, and mistakes as one line.
fn usage(error: &clap::Error) -> Result<bool, Outcome> {
    let failed = |line: String| Err(Failure::new(Kind::Error, line).into());
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            error.print()?;
            Ok(true)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _: io::Result<()> = error.print();
            Err(Outcome::Failed(Failure::new(Kind::Error, "what is it to do?")))
        }
        // Our own parsers say it all
        ErrorKind::ValueValidation => match std::error::Error::source(error) {
            Some(source) => failed(source.to_string()),
            None => failed(output::one_line(&error.to_string())),
        },
        _ => failed(output::one_line(&error.to_string())),
    }
}
