//! Trap 16, at the very system call: the library is stepped with ptrace until it is about to look at a process, and at
//! that moment the process ends and a stranger gets its PID, or an older parent its children. Not by chance, as in
//! `verified_walk.rs`: every time.
#![cfg(target_os = "linux")] // a system call is met by PTRACE_SYSCALL

mod common;

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::pid;
use nix::sys::ptrace;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;
use pidigree::{Pid, Process, ancestors_of, is_descendant, parent_of};
use pidigree_testkit::{Family, stage};

/// A system call that is about to be made.
struct Call {
    number: libc::c_long,
    arguments: [u64; 6],
    caller: nix::unistd::Pid,
}

impl Call {
    /// Opens this process, by pidfd or below /proc.
    fn opens(&self, process: u32) -> bool {
        match self.number {
            libc::SYS_pidfd_open => self.arguments[0] == u64::from(process),
            libc::SYS_openat => self
                .text(self.arguments[1])
                .strip_prefix(&format!("/proc/{process}"))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            _ => false,
        }
    }

    fn asks_session_of(&self, process: u32) -> bool {
        self.number == libc::SYS_getsid && self.arguments[0] == u64::from(process)
    }

    /// The first eight words of a string of the caller's.
    fn text(&self, address: u64) -> String {
        let places = (address..).step_by(size_of::<libc::c_long>()).take(8);
        let words = places.map_while(|place| ptrace::read(self.caller, place as ptrace::AddressType).ok());
        let bytes: Vec<u8> = words.flat_map(libc::c_long::to_ne_bytes).collect();
        String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
    }
}

/// The answer to `question` when `swap` happens right before the first call that `moment` recognises.
fn answer(question: impl FnOnce() -> String, moment: impl Fn(&Call) -> bool, swap: impl FnOnce()) -> String {
    let (mut reader, writer) = UnixStream::pair().unwrap();
    // SAFETY: the one other thread of the harness waits for this one; the child runs our code and `_exit`s.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Child => {
            // Anew in this process, before it is stepped.
            parent_of(pid(std::process::id())).unwrap();
            ptrace::traceme().unwrap();
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).unwrap();
            // A panic must not get to the harness, of which this is a copy.
            let answered = catch_unwind(AssertUnwindSafe(|| {
                nix::unistd::write(&writer, question().as_bytes()).unwrap();
            }));
            // SAFETY: ends this process at once, without the harness's own exit handlers.
            unsafe { libc::_exit(i32::from(answered.is_err())) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut swap = Some(swap);
            assert!(matches!(waitpid(child, None).unwrap(), WaitStatus::Stopped(..)));
            ptrace::setoptions(
                child,
                ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL,
            )
            .unwrap();
            loop {
                ptrace::syscall(child, None).unwrap();
                match waitpid(child, None).unwrap() {
                    WaitStatus::PtraceSyscall(_) => {
                        let info = ptrace::syscall_info(child).unwrap();
                        if swap.is_none() || info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
                            continue;
                        }
                        // SAFETY: `op` says that it is the entry of a system call that `u` describes.
                        let entry = unsafe { info.u.entry };
                        let call =
                            Call { number: entry.nr as libc::c_long, arguments: entry.args, caller: child };
                        if moment(&call) {
                            swap.take().unwrap()();
                        }
                    }
                    WaitStatus::Exited(_, code) => {
                        assert_eq!(code, 0, "the question failed; see above");
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(swap.is_none(), "the moment never came: this test proves nothing");
            let mut answer = String::new();
            reader.read_to_string(&mut answer).unwrap();
            answer
        }
    }
}

/// A leaf whose parent ends when it is told to, and whose parent's PID a stranger takes then.
struct World {
    family: Family,
    stranger: Family,
    leaf: Pid,
    parent: u32,
    stranger_pid: Pid,
}

impl World {
    fn new(stranger: &str) -> World {
        let family = Family::spawn(
            "fork [ fork [ say leaf pause ] say parent await exit 0 ] say root await reap say reaped pause",
        );
        let stranger =
            Family::spawn(&*format!("{stranger} say stranger await fork [ say newcomer pause ] pause"));
        let (leaf, parent) = (pid(family.fact("leaf").pid), family.fact("parent").pid);
        let stranger_pid = pid(stranger.fact("stranger").pid);
        World { family, stranger, leaf, parent, stranger_pid }
    }

    fn swap(&self) {
        self.family.poke(self.parent);
        self.family.poke(self.family.fact("root").pid);
        self.family.fact("reaped");
        std::fs::write("/proc/sys/kernel/ns_last_pid", (self.parent - 1).to_string()).unwrap();
        self.stranger.poke(self.stranger_pid.get());
        assert_eq!(self.stranger.fact("newcomer").pid, self.parent, "the PID is reused");
    }
}

#[test]
fn ancestors_name_no_stranger() {
    stage("ancestors_name_no_stranger", &["in-ns", "pid,mount"], || {
        let world = World::new("");
        let question =
            || format!("{:?}", ancestors_of(world.leaf).unwrap().iter().map(|p| p.get()).collect::<Vec<_>>());
        let before = question();
        assert!(before.starts_with(&format!("[{}, ", world.parent)), "{before}");
        let told = answer(question, |call| call.opens(world.parent), || world.swap());
        // Adopted by the first process of this world.
        assert_eq!(told, "[1]");
    });
}

#[test]
fn a_pinned_parent_is_no_stranger() {
    stage("a_pinned_parent_is_no_stranger", &["in-ns", "pid,mount"], || {
        let world = World::new("");
        let leaf = Process::open(world.leaf).unwrap();
        let question = || leaf.parent().unwrap().unwrap().pid().to_string();
        assert_eq!(answer(question, |call| call.opens(world.parent), || world.swap()), "1");
    });
}

#[test]
fn nobody_descends_from_a_stranger() {
    stage("nobody_descends_from_a_stranger", &["in-ns", "pid,mount"], || {
        let world = World::new("");
        let question = || is_descendant(world.leaf, world.stranger_pid).unwrap().to_string();
        assert_eq!(answer(question, |call| call.opens(world.parent), || world.swap()), "false");
    });
}

#[test]
fn a_session_is_no_evidence_once_its_member_is_another() {
    stage("a_session_is_no_evidence_once_its_member_is_another", &["in-ns", "pid,mount"], || {
        // The newcomer is in the session that the stranger leads, and has the PID of an ancestor already verified.
        let world = World::new("setsid");
        let question = || is_descendant(world.leaf, world.stranger_pid).unwrap().to_string();
        assert_eq!(answer(question, |call| call.asks_session_of(world.parent), || world.swap()), "false");
    });
}

/// Its parent ends under the walk, and it goes to one whose children have been listed already.
#[test]
fn an_orphan_that_changes_hands_within_the_family_is_not_missed() {
    stage("an_orphan_that_changes_hands_within_the_family_is_not_missed", &["in-ns", "pid,mount"], || {
        // The middle one stays a zombie: still there, it has no children any more.
        let family = Family::spawn(
            "subreaper fork [ fork [ say orphan orphaned say adopted pause ] say middle await exit 0 ] say root pause",
        );
        let (orphan, middle) = (pid(family.fact("orphan").pid), family.fact("middle").pid);
        let root = Process::open(pid(family.fact("root").pid)).unwrap();
        let question = || root.descendants().unwrap().iter().any(|p| p.pid() == orphan).to_string();
        let told = answer(
            question,
            |call| call.opens(middle),
            || {
                family.poke(middle);
                assert_eq!(family.fact("adopted").ppid, root.pid().get());
            },
        );
        assert_eq!(told, "true");
    });
}
