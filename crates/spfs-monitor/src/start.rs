//! From the command line to a monitor that watches, or to the reason why none does.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use pidigree::{Identity, Pid, Process, State, Tree};

use crate::args::Args;
use crate::failure::{Code, Failure};
use crate::neighbours::Neighbours;
use crate::pulse::Pulse;
use crate::record::{Heartbeat, Phase, Record};
use crate::root::Asked;
use crate::store::Store;
use crate::sys::{self, Side, Signals};
use crate::watch::{Monitor, Work, unknown};

const WATCHING: &str = "watching\n";

/// How often the heartbeat is touched where nothing was said.
const EVERY: Duration = Duration::from_secs(60);

/// The command: reads the command line, and is done when the runtime is watched; with `--foreground`, when it is over.
pub fn main() -> ExitCode {
    let outcome = match Args::try_parse() {
        Ok(args) => run(args),
        Err(error) => usage(&error),
    };
    let code = outcome.unwrap_or_else(|failure| {
        // Where standard error is closed there is nobody to tell that it is.
        let _ = writeln!(io::stderr(), "spfs-monitor: {}", failure.message);
        failure.code
    });
    ExitCode::from(code.number())
}

fn usage(error: &clap::Error) -> Result<Code, Failure> {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let cannot = |error: io::Error| Failure::new(format!("cannot write to standard output: {error}"));
        return error.print().map(|()| Code::Done).map_err(cannot);
    }
    let message = error.to_string();
    // What clap says over several paragraphs: the error, not the usage.
    let told = message.split("\n\n").next().unwrap_or_default();
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    let told = told.strip_prefix("error: ").unwrap_or(&told);
    Err(Failure::new(format!("{told} (spfs-monitor --help tells more)")))
}

fn run(args: Args) -> Result<Code, Failure> {
    if args.foreground {
        return begin(Wanted::new(args)?)?.announced(&mut Voice::Own)?.run();
    }
    sys::close_inherited();
    let wanted = Wanted::new(args)?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| Failure::new(format!("cannot open /dev/null: {error}")))?;
    match sys::detach().map_err(|error| Failure::new(format!("cannot detach: {error}")))? {
        Side::Launcher(word) => hear(word),
        Side::Monitor(word) => detached(wanted, word, &null),
    }
}

/// In the process that was started: passes on what the other says.
fn hear(mut word: UnixStream) -> Result<Code, Failure> {
    let mut said = Vec::new();
    let heard = word.read_to_end(&mut said);
    match (heard, said.split_first()) {
        (Ok(_), Some((0, told))) => {
            let mut out = io::stdout();
            let written = out.write_all(told).and_then(|()| out.flush());
            let cannot = |error| format!("it is watched, which cannot be said on standard output: {error}");
            written.map(|()| Code::Done).map_err(|error| Failure::new(cannot(error)))
        }
        (Ok(_), Some((code, told))) => {
            let code = match code {
                3 => Code::Watched,
                4 => Code::Unknown,
                _ => Code::Error,
            };
            Err(Failure::with(code, String::from_utf8_lossy(told)))
        }
        _ => Err(Failure::new("the monitor has ended before it watched; it is not watched")),
    }
}

/// In the process that stays.
fn detached(wanted: Wanted, word: UnixStream, null: &File) -> Result<Code, Failure> {
    let mut voice = Voice::Launcher { word: Some(word), null };
    match begin(wanted).and_then(|monitor| monitor.announced(&mut voice)) {
        Ok(monitor) => monitor.run(),
        Err(failure) => {
            voice.say(failure.code.number(), &failure.message);
            Ok(failure.code)
        }
    }
}

/// To whom it is said that it is watched.
enum Voice<'a> {
    Own,
    Launcher { word: Option<UnixStream>, null: &'a File },
}

impl Voice<'_> {
    /// An end of the other side is nothing to us: it can be killed, and the runtime is watched all the same.
    fn say(&mut self, code: u8, told: &str) {
        if let Voice::Launcher { word, .. } = self {
            if let Some(mut word) = word.take() {
                let _ = word.write_all(&[&[code], told.as_bytes()].concat());
            }
        }
    }
}

impl Monitor {
    fn announced(mut self, voice: &mut Voice<'_>) -> Result<Monitor, Failure> {
        match voice {
            Voice::Own => {
                let mut out = io::stdout();
                // Whoever does not listen may still want it watched.
                let _ = out.write_all(WATCHING.as_bytes()).and_then(|()| out.flush());
            }
            Voice::Launcher { null, .. } => {
                self.is_quiet = true;
                sys::silence(null).map_err(|error| Failure::new(format!("cannot detach: {error}")))?;
                voice.say(0, WATCHING);
            }
        }
        Ok(self)
    }
}

/// What was asked for, with nothing in it that depends on where this process is.
#[derive(Debug)]
struct Wanted {
    runtime: PathBuf,
    root: Option<Asked>,
    heartbeat: Option<Heartbeat>,
    on_empty: Vec<std::ffi::OsString>,
    retry: bool,
}

impl Wanted {
    fn new(args: Args) -> Result<Wanted, Failure> {
        // First of all: as yet, the PID is most likely whose the caller meant.
        let root = args.root.map(|root| root.pin());
        let heartbeat = args.heartbeat.map(|path| {
            let every_ms = u64::try_from(args.every.unwrap_or(EVERY).as_millis()).unwrap_or(u64::MAX);
            absolute(&path).map(|path| Heartbeat { path, every_ms })
        });
        let runtime = absolute(&args.runtime)?;
        if runtime.file_name().is_none() || args.runtime.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Err(Failure::new(format!("{} is not the name of a file", args.runtime.display())));
        }
        if args.on_empty.first().is_some_and(|program| program.is_empty()) {
            return Err(Failure::new("the cleanup command has no name"));
        }
        Ok(Wanted {
            runtime,
            root,
            heartbeat: heartbeat.transpose()?,
            on_empty: args.on_empty,
            retry: args.retry,
        })
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::new(format!("cannot use {}: {error}", path.display())))
}

/// Attaches or adopts, and writes the record.
fn begin(mut wanted: Wanted) -> Result<Monitor, Failure> {
    // Of nobody's mount or folder a user.
    std::env::set_current_dir("/")
        .map_err(|error| Failure::new(format!("cannot leave this folder: {error}")))?;
    let signals = Signals::catch().map_err(|error| Failure::new(format!("cannot catch signals: {error}")))?;
    if let Some((store, record)) = Store::open(&wanted.runtime)? {
        return resume(wanted, signals, store, record);
    }
    let Some(asked) = wanted.root.take() else {
        let path = wanted.runtime.display();
        return Err(Failure::new(format!("there is no runtime file {path} to go on with: name the --root")));
    };
    let root = asked.running()?;
    let tree = known(Tree::attach(&root)?);
    let pulse = wanted.heartbeat.clone().map(begin_pulse).transpose()?;
    let record = Record {
        phase: Phase::Watching,
        cleaner: None,
        format: Record::FORMAT,
        owner: Identity::of(Pid::current())?,
        root: tree.root(),
        on_empty: wanted.on_empty.clone(),
        heartbeat: wanted.heartbeat.clone(),
        failure: None,
        trouble: None,
        tree: tree.save(),
    };
    match Store::create(&wanted.runtime, &record)? {
        Some(store) => Ok(Monitor {
            store,
            record,
            work: Work::Watch(tree),
            signals,
            pulse,
            neighbours: Neighbours::default(),
            is_quiet: false,
            save_at: None,
        }),
        // Another monitor was faster, or is over again.
        None => match Store::open(&wanted.runtime)? {
            Some((store, record)) => {
                wanted.root = Some(crate::root::Root::Token(tree.root()).pin());
                resume(wanted, signals, store, record)
            }
            None => {
                let path = wanted.runtime.display();
                Err(Failure::new(format!("runtime file {path} came and went meanwhile; try again")))
            }
        },
    }
}

/// What there is to be told of a tree that has just begun is in what is saved of it.
fn known(tree: Tree) -> Tree {
    while let Ok(Some(_)) = tree.next_event(Some(Duration::ZERO)) {}
    tree
}

fn begin_pulse(heartbeat: Heartbeat) -> Result<Pulse, Failure> {
    let path = heartbeat.path.display().to_string();
    Pulse::begin(heartbeat)
        .map_err(|error| Failure::new(format!("cannot touch heartbeat {path}: {error}; nothing was changed")))
}

/// Goes on where another monitor has stopped.
///
/// Nobody but us holds the lock, so neither is there a child of that monitor's any more that could go on to the cleanup: the
/// phase is what it will stay.
fn resume(
    wanted: Wanted,
    signals: Signals,
    mut store: Store,
    mut record: Record,
) -> Result<Monitor, Failure> {
    let path = wanted.runtime.display().to_string();
    let owner = Identity::of(Pid::current())?;
    if let Some(elsewhere) = elsewhere(&record.owner, &owner) {
        let advice =
            "what it names means nothing here. Clean up by hand, then remove it; nothing was changed";
        return Err(Failure::new(format!("runtime file {path} was written {elsewhere}: {advice}")));
    }
    if let Some(Err(given)) = wanted.root.as_ref().map(|asked| asked.must_be(&record.root)) {
        let advice = "leave out --root to go on with that one, or name another file";
        let root = record.root;
        return Err(Failure::new(format!(
            "runtime file {path} is of the tree of process {} ({root}), not of {given}: {advice}",
            root.pid()
        )));
    }
    let mut neighbours = Neighbours::default();
    let work = match record.phase {
        Phase::Watching => {
            neighbours.look(&store);
            Work::Watch(neighbours.adopt(&record.tree)?)
        }
        Phase::Failed => Work::Clean,
        Phase::Cleaned => Work::Remove,
        Phase::Cleaning => match cleaner(&record)? {
            Some(process) => Work::Await(process),
            None if wanted.retry => Work::Clean,
            None => {
                return Err(Failure {
                    message: format!("runtime file {path}: {}", unknown(&record).message),
                    ..unknown(&record)
                });
            }
        },
    };
    if !matches!(work, Work::Await(_) | Work::Remove) {
        record.phase = Phase::Watching;
        record.cleaner = None;
    }
    if !wanted.on_empty.is_empty() {
        record.on_empty = wanted.on_empty;
    }
    record.heartbeat = wanted.heartbeat.or(record.heartbeat);
    record.owner = owner;
    if let Work::Watch(tree) = &work {
        record.tree = tree.save();
    }
    let pulse = record.heartbeat.clone().map(begin_pulse).transpose()?;
    store.replace(&record).map_err(|error| {
        Failure::new(format!("cannot write runtime file {path}: {error}; nothing was changed"))
    })?;
    Ok(Monitor { store, record, work, signals, pulse, neighbours, is_quiet: false, save_at: None })
}

/// In which other world the record was written.
fn elsewhere(then: &Identity, now: &Identity) -> Option<&'static str> {
    let differ = |then: Option<u64>, now: Option<u64>| then.is_some() && now.is_some() && then != now;
    if then.boot_id().is_some() && now.boot_id().is_some() && then.boot_id() != now.boot_id() {
        return Some("before the last boot, of which nothing runs any more");
    }
    differ(then.pid_namespace(), now.pid_namespace()).then_some("in another PID namespace (container)")
}

/// The process of the cleanup command, if it has not ended.
fn cleaner(record: &Record) -> Result<Option<Process>, Failure> {
    let Some(cleaner) = &record.cleaner else { return Ok(None) };
    match Process::reopen(cleaner) {
        // A zombie tells how it ended.
        Ok(process) => Ok(match process.state()? {
            State::Gone => None,
            State::Running | State::Zombie => Some(process),
        }),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error.into()),
    }
}
