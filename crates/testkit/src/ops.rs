//! The scripted child: one process, or one thread, that does what its script says.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use crate::script::{Hops, Op};
use crate::sys::{self, Fork, Pinned};

/// Runs a script as the main thread of this process, which ends with it.
pub(crate) fn run_process(ops: &[Op]) -> ExitCode {
    // First of all, so that no poke can come too early
    must("block SIGUSR1", sys::block_pokes());
    let mut runner = Runner { parent: sys::parent_pid() };
    runner.run(ops);
    ExitCode::SUCCESS
}

/// So many generations of a hopper go before one more is looked for: those in between may be zombies still. Some init
/// processes take their time over thousands of orphans, and PIDs are everybody's.
const UNREAPED: u64 = 4000;

/// What the kernel forgets: the parent at the time of the fork.
struct Runner {
    parent: i32,
}

impl Runner {
    fn run(&mut self, ops: &[Op]) {
        for op in ops {
            self.step(op);
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Say(name) => say(name),
            Op::Pause => pause(),
            Op::Await => {
                if !must("await", sys::wait_poke()) {
                    sys::exit_now(0);
                }
            }
            Op::Orphaned => self.wait_orphaned(),
            Op::Reap => {
                must("reap", sys::reap(-1));
            }
            Op::ReapAll => while sys::reap(-1).is_ok() {},
            Op::Fork(ops) => {
                // Asked before the fork: in the child, getppid would race with the parent's end
                let parent = sys::own_pid();
                if fork("fork") == Fork::Child {
                    run_and_exit(parent, ops);
                }
            }
            Op::DoubleFork(ops) => double_fork(ops),
            Op::CloneParent(ops) => {
                if must("clone-parent", sys::clone_parent()) == Fork::Child {
                    run_and_exit(self.parent, ops);
                }
            }
            Op::Held(name, ops) => {
                let (parent, name) = (sys::own_pid(), name.clone());
                if must("held", sys::fork_held(move || say(&name))) == Fork::Child {
                    run_and_exit(parent, ops);
                }
            }
            Op::Thread(ops) => self.thread(ops),
            Op::Exec(words) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                fail("exec", exec_self(&words));
            }
            Op::Spawn(words) => spawn_self(words),
            Op::Hopper(hops) => self.hop(hops),
            Op::Storm(count) => storm(*count),
            Op::Bomb(forks) => bomb(*forks),
            Op::Exit(code) => sys::exit_now(*code),
            Op::Raise(signal) => raise(*signal),
            Op::ThreadExit => sys::thread_exit(),
            Op::Setsid => {
                must("setsid", nix::unistd::setsid());
            }
            Op::Block(signal) => must("block", sys::block(*signal)),
            Op::Take(signal) => {
                if !must("take", sys::take(*signal)) {
                    sys::exit_now(0);
                }
            }
            Op::UnshareMount => must("unshare-mount", sys::unshare_mount()),
            Op::EnterPid(of) => must("enter-pid", sys::enter_pid_namespace(*of)),
            Op::Subreaper => must("subreaper", sys::become_subreaper()),
            Op::Undumpable => must("undumpable", sys::become_undumpable()),
            Op::Name(name) => must("name", sys::name_thread(name)),
            Op::Setuid(id) => must("setuid", sys::become_user(*id)),
        }
    }

    fn thread(&self, ops: &[Op]) {
        let (parent, ops) = (self.parent, ops.to_vec());
        let body = move || Runner { parent }.run(&ops);
        must("thread", std::thread::Builder::new().stack_size(256 << 10).spawn(body));
    }

    fn hop(&mut self, hops: &Hops) {
        let mut generation = 0;
        let mut behind: Option<Pinned> = None;
        while hops.generations == 0 || generation < hops.generations {
            generation += 1;
            let is_turn = |every: Option<u64>| every.is_some_and(|every| generation % every == 0);
            if hops.hold > 0 {
                std::thread::sleep(Duration::from_micros(hops.hold));
            }
            self.hand_on();
            if is_turn(hops.double_every) {
                must("hopper", nix::unistd::setsid());
                self.hand_on();
            }
            if is_turn(hops.setsid_every) {
                must("hopper", nix::unistd::setsid());
            }
            if cfg!(target_os = "linux") && generation % UNREAPED == 0 {
                // Where it may not be pinned, nobody waits
                let is_left = |one: &Pinned| !one.wait_reaped(Duration::from_millis(10)).unwrap_or(true);
                while behind.as_ref().is_some_and(is_left) {
                    end_with_lifeline();
                }
                behind = Pinned::open(sys::own_pid().unsigned_abs()).ok();
            }
            end_with_lifeline();
        }
    }

    /// The child goes on as this one.
    fn hand_on(&mut self) {
        let parent = sys::own_pid();
        match fork("hopper") {
            Fork::Parent(_) => sys::exit_now(0),
            Fork::Child => self.parent = parent,
        }
    }

    fn wait_orphaned(&self) {
        while sys::parent_pid() == self.parent {
            let parent = match Pinned::open(self.parent as u32) {
                Ok(parent) => parent,
                // It ends just now
                Err(_) => continue,
            };
            // Only now is it certain which process was pinned
            if sys::parent_pid() != self.parent {
                return;
            }
            // Children are handed on before the pidfd becomes ready (soon after a kqueue does); a thread's children may
            // stay in the process
            if must("orphaned", sys::lifeline_ended(Some(std::os::fd::AsFd::as_fd(&parent)), None)) {
                sys::exit_now(0);
            }
        }
    }
}

fn run_and_exit(parent: i32, ops: &[Op]) -> ! {
    Runner { parent }.run(ops);
    sys::exit_now(0)
}

fn double_fork(ops: &[Op]) {
    let (mut told, mut tell) = must("double-fork", pipe());
    match fork("double-fork") {
        Fork::Parent(middle) => {
            must("double-fork", sys::reap(middle));
            // Were the other side gone already, that would be its own affair
            let _ = tell.write_all(b"!");
        }
        Fork::Child => {
            must("double-fork", nix::unistd::setsid());
            let middle = sys::own_pid();
            match fork("double-fork") {
                Fork::Parent(_) => sys::exit_now(0),
                Fork::Child => {
                    drop(tell);
                    // Until the middle one has ended and is reaped
                    let _ = told.read(&mut [0]);
                    run_and_exit(middle, ops);
                }
            }
        }
    }
}

fn say(name: &str) {
    let (pid, tid, ppid) = (sys::own_pid(), sys::own_tid(), sys::parent_pid());
    let sid = nix::unistd::getsid(None).map_or(0, nix::unistd::Pid::as_raw);
    let line = format!("{name} pid={pid} tid={tid} ppid={ppid} sid={sid}\n");
    if sys::tell(&line).is_err() {
        // Nobody listens any more: the test is gone
        sys::exit_now(0);
    }
}

fn pause() -> ! {
    must("pause", sys::lifeline_ended(None, None));
    sys::exit_now(0)
}

/// Forks, again and again while there is no PID free: in a world of thirty PIDs that passes.
fn fork(what: &str) -> Fork {
    loop {
        match sys::fork() {
            Err(error) if error.raw_os_error() == Some(sys::EAGAIN) => {
                end_with_lifeline();
                std::thread::yield_now();
            }
            forked => return must(what, forked),
        }
    }
}

fn end_with_lifeline() {
    if must("lifeline", sys::lifeline_ended(None, Some(Duration::ZERO))) {
        sys::exit_now(0);
    }
}

fn storm(count: u64) {
    let mut started = 0;
    while count == 0 || started < count {
        started += 1;
        match fork("storm") {
            Fork::Child => sys::exit_now(0),
            Fork::Parent(child) => must("storm", sys::reap(child)),
        };
        end_with_lifeline();
    }
}

/// Doubles as long as there are forks left, of which all of them draw on one pipe.
fn bomb(forks: usize) {
    let (mut left, mut fill) = must("bomb", pipe());
    must("bomb", fill.write_all(&vec![0; forks]));
    drop(fill);
    while must("bomb", left.read(&mut [0])) > 0 {
        fork("bomb");
        end_with_lifeline();
    }
}

fn raise(signal: i32) {
    let core = nix::sys::resource::Resource::RLIMIT_CORE;
    must("raise", nix::sys::resource::setrlimit(core, 0, 0));
    if ![sys::SIGKILL, sys::SIGSTOP].contains(&signal) {
        must("raise", sys::default_disposition(signal));
        must("raise", sys::unblock(signal));
    }
    must("raise", sys::kill(sys::own_pid(), signal));
}

/// By posix_spawn(3), as std does where nothing is in its way.
fn spawn_self(words: &[String]) {
    let mut last = io::ErrorKind::NotFound.into();
    for path in sys::executable() {
        match std::process::Command::new(path).args(script(words)).spawn() {
            Ok(_) => return,
            Err(error) => last = error,
        }
    }
    fail("spawn", last)
}

/// Without words the binary would show its help: an empty script is one that ends.
fn script<W: AsRef<str>>(words: &[W]) -> Vec<&str> {
    if words.is_empty() { vec!["exit", "0"] } else { words.iter().map(AsRef::as_ref).collect() }
}

fn exec_self(words: &[&str]) -> io::Error {
    let words: Vec<&str> = ["pidigree-testkit"].into_iter().chain(script(words)).collect();
    let mut last = io::ErrorKind::NotFound.into();
    for path in sys::executable() {
        last = sys::exec(&path, &words);
    }
    last
}

fn pipe() -> io::Result<(File, File)> {
    let (read, write) = sys::pipe()?;
    Ok((read.into(), write.into()))
}

fn must<T, E: Display>(what: &str, outcome: Result<T, E>) -> T {
    outcome.unwrap_or_else(|error| fail(what, error))
}

/// A script that cannot be carried out ends its process with code 70, and says why.
fn fail(what: &str, error: impl Display) -> ! {
    eprintln!("pidigree-testkit: {what}: {error}");
    sys::exit_now(70)
}
