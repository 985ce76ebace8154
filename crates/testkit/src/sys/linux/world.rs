//! Namespaces: a command in a world of its own.

use std::fmt::Display;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use nix::mount::MsFlags;
use nix::sched::CloneFlags;

use super::die_with_parent;
use crate::launcher::CANNOT;
use crate::sys::{self, Fork};

/// `CLONE_NEWTIME`, for which nix has no name.
const NEW_TIME: CloneFlags = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);

/// Does this in the namespaces, and with the options, that `--help` names. Inside, `then` becomes the command; outside, this
/// process waits for it and ends as it does.
pub(crate) fn in_namespaces(
    flags: &str,
    options: &[String],
    then: impl FnOnce() -> ExitCode,
) -> Result<ExitCode, String> {
    World::parse(flags, options)?.run(then)
}

fn because<E: Display>(what: &str) -> impl FnOnce(E) -> String + '_ {
    move |error| format!("{what}: {error}")
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
                "time" => NEW_TIME,
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
            (self.time_offset.is_some() && !has(NEW_TIME), "--time-offset needs time"),
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
    fn run(&self, then: impl FnOnce() -> ExitCode) -> Result<ExitCode, String> {
        if self.spaces.contains(CloneFlags::CLONE_NEWUSER) {
            enter_user_namespace()?;
        }
        nix::sched::unshare(self.spaces - CloneFlags::CLONE_NEWUSER).map_err(because("unshare"))?;
        if let Some(seconds) = self.time_offset {
            // Only before the first process is in it
            write("/proc/self/timens_offsets", &format!("boottime {seconds} 0"))?;
        }
        let (watch, held) = sys::pipe().map_err(because("pipe"))?;
        match sys::fork().map_err(because("fork"))? {
            Fork::Parent(inner) => {
                drop(watch);
                let code = wait_for(inner);
                drop(held);
                sys::exit_now(code)
            }
            Fork::Child => {
                drop(held);
                die_with_parent().map_err(because("prctl"))?;
                // It may have ended before the kernel was told
                if sys::wait_readable(&[watch.as_fd()], Some(Duration::ZERO)).map_err(because("poll"))? {
                    sys::exit_now(i32::from(CANNOT));
                }
                self.enter(then)
            }
        }
    }

    /// Inside: the first process of the PID namespace if there is one, else the one that becomes the command.
    fn enter(&self, then: impl FnOnce() -> ExitCode) -> Result<ExitCode, String> {
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
            super::become_user(uid).map_err(because("setuid"))?;
            // Forgotten by the kernel when the user changes
            die_with_parent().map_err(because("prctl"))?;
        }
        Ok(then())
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
            Ok((pid, status)) if pid == child => return shell_code(status),
            Ok(_) => {}
            Err(_) => return i32::from(CANNOT),
        }
    }
}

/// As a shell reports it: the exit code, or 128 and the signal.
fn shell_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
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
    let (told, tell) = sys::pipe().map_err(because("pipe"))?;
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
                Ok((_, status)) if status.success() => Ok(()),
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
