//! The modes: a command in another world.

use std::fmt::Display;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::sys::resource::{Resource, setrlimit};

use crate::sys::{self, Fork};

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
        ("in-ns", [flags, options @ ..]) => World::parse(flags, options).and_then(|world| world.run(command)),
        ("deny", [errno, calls]) => deny(errno, calls, false).map(|()| become_command(command)),
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
    deny(errno, calls, true).unwrap_or_else(|why| panic!("deny {errno} {calls}: {why}"));
}

fn deny(errno: &str, calls: &str, in_every_thread: bool) -> Result<(), String> {
    let named = sys::ERRNO_NAMES.iter().find(|(name, _)| *name == errno).map(|(_, number)| *number);
    let number =
        named.or_else(|| errno.parse().ok()).ok_or_else(|| format!("no error is called `{errno}`"))?;
    let clauses = calls
        .split(',')
        .map(|name| sys::call_named(name).ok_or_else(|| format!("no known system call is called `{name}`")))
        .collect::<Result<Vec<_>, _>>()?;
    sys::install_filter(&clauses, number, in_every_thread).map_err(because("seccomp"))
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

/// What `/proc` shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proc {
    Fresh,
    Outer,
    Empty,
}

/// What `in-ns` shall make.
#[derive(Debug)]
struct World {
    spaces: CloneFlags,
    proc: Proc,
    pid_max: Option<u32>,
    time_offset: Option<i64>,
    hidepid: Option<u32>,
    uid: Option<u32>,
}

impl World {
    fn parse(flags: &str, options: &[String]) -> Result<World, String> {
        let mut spaces = CloneFlags::empty();
        for flag in flags.split(',') {
            spaces |= match flag {
                "pid" => CloneFlags::CLONE_NEWPID,
                "mount" => CloneFlags::CLONE_NEWNS,
                "time" => sys::NEW_TIME,
                "user" => CloneFlags::CLONE_NEWUSER,
                "net" => CloneFlags::CLONE_NEWNET,
                _ => return Err(format!("no namespace is called `{flag}`")),
            };
        }
        let mut world =
            World { spaces, proc: Proc::Fresh, pid_max: None, time_offset: None, hidepid: None, uid: None };
        let mut options = options.iter();
        while let Some(option) = options.next() {
            let mut number = || -> Result<i64, String> {
                let word = options.next().ok_or_else(|| format!("{option} needs a number"))?;
                word.parse().map_err(|_| format!("{option} needs a number, not `{word}`"))
            };
            match option.as_str() {
                "--pid-max" => world.pid_max = Some(number()? as u32),
                "--time-offset" => world.time_offset = Some(number()?),
                "--hidepid" => world.hidepid = Some(number()? as u32),
                "--uid" => world.uid = Some(number()? as u32),
                "--no-proc" => world.proc = Proc::Outer,
                "--empty-proc" => world.proc = Proc::Empty,
                _ => return Err(format!("no option is called `{option}`")),
            }
        }
        world.check()?;
        Ok(world)
    }

    fn check(&self) -> Result<(), String> {
        let has = |space| self.spaces.contains(space);
        for (wrong, why) in [
            (self.pid_max.is_some() && !has(CloneFlags::CLONE_NEWPID), "--pid-max needs pid"),
            (self.time_offset.is_some() && !has(sys::NEW_TIME), "--time-offset needs time"),
            (self.hidepid.is_some() && !has(CloneFlags::CLONE_NEWNS), "--hidepid needs mount"),
            (self.hidepid.is_some() && self.proc != Proc::Fresh, "--hidepid needs a fresh /proc"),
            (self.proc == Proc::Empty && !has(CloneFlags::CLONE_NEWNS), "--empty-proc needs mount"),
            (
                has(CloneFlags::CLONE_NEWPID) && !has(CloneFlags::CLONE_NEWNS) && self.proc == Proc::Fresh,
                "pid needs mount for a fresh /proc, or --no-proc",
            ),
        ] {
            if wrong {
                return Err(why.to_owned());
            }
        }
        // Before 6.14 the file is the whole machine's. No probe could tell without changing it, so the version must.
        if self.pid_max.is_some() && kernel_version() < (6, 14) {
            return Err("kernel.pid_max belongs to a PID namespace only since Linux 6.14".to_owned());
        }
        Ok(())
    }

    /// This process stays outside and waits; a child of it enters.
    fn run(&self, command: &[String]) -> Result<ExitCode, String> {
        if self.spaces.contains(CloneFlags::CLONE_NEWUSER) {
            enter_user_namespace()?;
        }
        nix::sched::unshare(self.spaces - CloneFlags::CLONE_NEWUSER).map_err(because("unshare"))?;
        if let Some(seconds) = self.time_offset {
            // Only before the first process is in it
            write("/proc/self/timens_offsets", &format!("boottime {seconds} 0"))?;
        }
        let (watch, held) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(because("pipe"))?;
        match sys::fork().map_err(because("fork"))? {
            Fork::Parent(inner) => {
                drop(watch);
                let code = wait_for(inner);
                drop(held);
                sys::exit_now(code)
            }
            Fork::Child => {
                drop(held);
                sys::die_with_parent().map_err(because("prctl"))?;
                // It may have ended before the kernel was told
                if sys::wait_readable(&[watch.as_fd()], Some(Duration::ZERO)).map_err(because("poll"))? {
                    sys::exit_now(i32::from(CANNOT));
                }
                self.enter(command)
            }
        }
    }

    /// Inside: the first process of the PID namespace if there is one, else the one that becomes the command.
    fn enter(&self, command: &[String]) -> Result<ExitCode, String> {
        // While a /proc is still there, whatever it shows: the file is of the namespace of the process that writes
        if let Some(pid_max) = self.pid_max {
            write("/proc/sys/kernel/pid_max", &pid_max.to_string())?;
        }
        if self.spaces.contains(CloneFlags::CLONE_NEWNS) {
            self.mount_proc()?;
        }
        if self.spaces.contains(CloneFlags::CLONE_NEWPID) {
            match sys::fork().map_err(because("fork"))? {
                Fork::Parent(inner) => sys::exit_now(wait_for(inner)),
                Fork::Child => {}
            }
        }
        if let Some(uid) = self.uid {
            sys::become_user(uid).map_err(because("setuid"))?;
            // Forgotten by the kernel when the user changes
            sys::die_with_parent().map_err(because("prctl"))?;
        }
        Ok(become_command(command))
    }

    fn mount_proc(&self) -> Result<(), String> {
        const NONE: Option<&str> = None;
        nix::mount::mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
            .map_err(because("make / private"))?;
        let hidepid = self.hidepid.map(|level| format!("hidepid={level}"));
        let kind = match self.proc {
            Proc::Empty => "tmpfs",
            Proc::Fresh if self.spaces.contains(CloneFlags::CLONE_NEWPID) || hidepid.is_some() => "proc",
            Proc::Fresh | Proc::Outer => return Ok(()),
        };
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        nix::mount::mount(Some(kind), "/proc", Some(kind), flags, hidepid.as_deref())
            .map_err(because("mount /proc"))
    }
}

/// Reaps everything until `child` has ended, and tells how.
fn wait_for(child: i32) -> i32 {
    loop {
        match sys::reap(-1) {
            Ok((pid, status)) if pid == child => return status.shell_code(),
            Ok(_) => {}
            Err(_) => return i32::from(CANNOT),
        }
    }
}

/// Every user that exists outside exists inside, if we may say so; else we alone, as root.
fn enter_user_namespace() -> Result<(), String> {
    if !crate::is_root() {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        nix::sched::unshare(CloneFlags::CLONE_NEWUSER).map_err(because("unshare user"))?;
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
        return write("/proc/self/gid_map", &format!("0 {gid} 1"));
    }
    // Only a process outside may map more than one user
    let subject = sys::own_pid();
    let (told, tell) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(because("pipe"))?;
    match sys::fork().map_err(because("fork"))? {
        Fork::Child => {
            drop(tell);
            let entered = nix::unistd::read(&told, &mut [0]) == Ok(1);
            let mapped = entered && ["uid_map", "gid_map"].iter().all(|map| copy_map(map, subject).is_ok());
            sys::exit_now(i32::from(!mapped))
        }
        Fork::Parent(helper) => {
            nix::sched::unshare(CloneFlags::CLONE_NEWUSER).map_err(because("unshare user"))?;
            nix::unistd::write(&tell, b"!").map_err(because("pipe"))?;
            match sys::reap(helper) {
                Ok((_, status)) if status.shell_code() == 0 => Ok(()),
                _ => Err("the users cannot be mapped".to_owned()),
            }
        }
    }
}

/// Our own map names what exists here: map each of it to itself.
fn copy_map(map: &str, subject: i32) -> io::Result<()> {
    let own = std::fs::read_to_string(format!("/proc/self/{map}"))?;
    let mut same = String::new();
    for line in own.lines() {
        if let [inside, _, count] = line.split_whitespace().collect::<Vec<_>>()[..] {
            same += &format!("{inside} {inside} {count}\n");
        }
    }
    std::fs::write(format!("/proc/{subject}/{map}"), same)
}

fn write(path: &str, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(because(path))
}

fn kernel_version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
