//! A PID is given before its process is there. A scan between the two lists everybody and not the child; if the parent
//! ends before it is asked, nobody is left, and no PID was given meanwhile. Here at that very moment, every time: the fork
//! is held by userfaultfd(2), and the scan is stepped by ptrace(2).
#![cfg(target_os = "linux")] // for both

use std::io::Error;
use std::process::Command;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pidigree::{Backend, Process, Tree};
use pidigree_testkit::{Family, eventually, handed_on, is_root, require, stage};

/// How the tracker ends when it hears of trouble; and when its tree is empty, with how many members it had.
const TROUBLE: i32 = 17;
const EMPTY: i32 = 20;

const SLEEPS: &[libc::c_long] = &[
    #[cfg(target_arch = "x86_64")] // newer architectures have only the others
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
];

const TEST: &str = "a_fork_that_is_under_way_is_not_missed";
const REUSED: &str = "who_was_given_the_pid_of_a_stranger_meanwhile_is_a_member";

const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

#[test]
fn a_fork_that_is_under_way_is_not_missed() {
    follow_to_the_end(|command| Tree::builder().backend(Backend::Poll).spawn(command).unwrap().0);
    require!(is_root(), "needs root, for userfaultfd and a PID namespace in which nobody else forks");
    stage(TEST, &["in-ns", "pid,mount"], || {
        let mut family = followed(TEST, "say root await held given [ say child await ] exit 0");
        let root = family.fact("root").pid;
        let scanner = Stepped::seize(eventually("somebody scans", || thread_of(family.root_pid())));

        family.poke(root);
        assert_eq!(family.fact("given").pid, root);
        let child = last_pid();
        scanner.go_to_the_proof();
        scanner.go_to_the_end_of_a_listing();
        assert_eq!(last_pid(), child, "nobody else forks here");
        assert!(!listed().contains(&child), "the trap: it has a PID, and was not there to be listed");
        assert!(listed().contains(&root));

        family.poke(root);
        assert_eq!(family.fact("child").pid, child);
        family.wait_ended(root);
        for _ in 0..3 {
            assert!(scanner.go_to_sleep(), "empty, while the child lives");
        }
        scanner.let_go();
        assert_eq!(family.heard("child").len(), 1);
        ends_with(&mut family, child);
    });
}

/// It is read beforehand who is whose. Whoever has the PID of a stranger since is no stranger for that.
#[test]
fn who_was_given_the_pid_of_a_stranger_meanwhile_is_a_member() {
    // What it spawns it marks, which would prove a member, too.
    follow_to_the_end(|command| {
        let root = Process::from_child(&command.spawn().unwrap()).unwrap();
        Tree::builder().backend(Backend::Poll).attach(&root).unwrap()
    });
    require!(is_root(), "needs root, to choose a PID");
    stage(REUSED, &["in-ns", "pid,mount"], || {
        // Where a scan is not proven at once, it finds the child in another way.
        for chosen in [6000, 7000, 8000, 9000] {
            // A child of a stranger, not of init, which is given orphans. Its own is one, and a stranger still.
            let script = "say other await fork [ fork [ say orphan pause ] say stranger await exit 0 ] \
                          reap say reaped pause";
            let strangers = Family::spawn(script);
            let choose = || std::fs::write(LAST_PID, (chosen - 1).to_string()).unwrap();
            let other = strangers.fact("other").pid;
            choose();
            strangers.poke(other);
            assert_eq!(strangers.fact("stranger").pid, chosen);
            assert_eq!(strangers.fact("orphan").ppid, chosen);
            let mut family = followed(REUSED, "say root await fork [ setsid say child await ] await exit 0");
            let root = family.fact("root").pid;
            let scanner = Stepped::seize(eventually("somebody scans", || thread_of(family.root_pid())));

            scanner.go_to_the_proof();
            strangers.poke(chosen);
            assert_eq!(strangers.fact("reaped").pid, other);
            choose();
            family.poke(root);
            assert_eq!(family.fact("child").pid, chosen, "nobody else forks here");
            assert!(scanner.go_to_sleep());

            family.poke(root);
            family.wait_ended(root);
            for _ in 0..3 {
                assert!(scanner.go_to_sleep(), "empty, while the child lives");
            }
            scanner.let_go();
            ends_with(&mut family, chosen);
        }
    });
}

/// The family, whose tracker is this test in a process of its own.
fn followed(test: &str, script: &str) -> Family {
    let executable = std::env::current_exe().unwrap();
    let words = ["hand-on", executable.to_str().unwrap(), "--exact", test, "--nocapture"];
    Family::builder().launcher(&words).spawn(script)
}

/// The tree is empty when this last one has ended, and not before; root and child were its members.
fn ends_with(family: &mut Family, last: u32) {
    assert!(!family.has_ended());
    family.poke(last);
    family.wait_all();
    assert_eq!(family.child().wait().unwrap().code(), Some(EMPTY + 2));
}

/// What the tracker does, in its own process; elsewhere nothing.
fn follow_to_the_end(start: impl FnOnce(&mut Command) -> Tree) {
    let Some(mut command) = handed_on() else { return };
    let tree = start(&mut command);
    drop(command);
    std::process::exit(match tree.wait_empty(None) {
        Ok(Some(emptied)) => EMPTY + emptied.members as i32,
        _ => TROUBLE,
    });
}

/// The thread that scans, by the name that the library gives it.
fn thread_of(tracker: u32) -> Option<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{tracker}/task")).unwrap();
    threads.flatten().find_map(|thread| {
        let name = std::fs::read_to_string(thread.path().join("comm")).ok()?;
        (name == "pidigree\n").then(|| Pid::from_raw(thread.file_name().to_str().unwrap().parse().unwrap()))
    })
}

fn last_pid() -> u32 {
    std::fs::read_to_string(LAST_PID).unwrap().trim().parse().unwrap()
}

fn listed() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A thread of another process, stopped at the system calls that are asked for.
struct Stepped(Pid);

impl Stepped {
    fn seize(thread: Pid) -> Stepped {
        let options = ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL;
        ptrace::seize(thread, options).unwrap();
        ptrace::interrupt(thread).unwrap();
        assert!(matches!(wait(thread), WaitStatus::PtraceEvent(..)));
        Stepped(thread)
    }

    /// To the next entry into a system call, or return from one; none once its process has ended.
    fn step(&self) -> Option<Call> {
        ptrace::syscall(self.0, None).unwrap();
        match wait(self.0) {
            WaitStatus::PtraceSyscall(_) => {}
            WaitStatus::Exited(..) => return None,
            other => panic!("{other:?}"),
        }
        let info = ptrace::syscall_info(self.0).unwrap();
        Some(match info.op {
            libc::PTRACE_SYSCALL_INFO_ENTRY => {
                // SAFETY: `op` says that it is an entry, which `u` describes.
                let entry = unsafe { info.u.entry };
                Call::Enters(entry.nr as libc::c_long, entry.args)
            }
            libc::PTRACE_SYSCALL_INFO_EXIT => {
                // SAFETY: `op` says that it is a return, which `u` describes.
                let exit = unsafe { info.u.exit };
                Call::Returns(exit.sval)
            }
            other => panic!("{other}"),
        })
    }

    /// Until it is about to ask for the second time, since it last slept, which PID was given last: the first is before it reads
    /// who is whose, the second when it begins to prove who is there.
    fn go_to_the_proof(&self) {
        // In the middle of whatever it does, now.
        assert!(self.go_to_sleep());
        let mut asked = 0;
        while asked < 2 {
            match self.step().expect("its tree is not empty") {
                Call::Enters(libc::SYS_openat, arguments) => {
                    asked += usize::from(self.text(arguments[1]) == LAST_PID);
                }
                Call::Enters(call, _) if SLEEPS.contains(&call) => asked = 0,
                _ => {}
            }
        }
    }

    /// From there, until it has listed the processes.
    fn go_to_the_end_of_a_listing(&self) {
        let (mut directory, mut lists) = (None, false);
        loop {
            match self.step().expect("its tree is not empty") {
                Call::Enters(libc::SYS_openat, arguments) => {
                    let path = self.text(arguments[1]);
                    assert!(path != LAST_PID, "the moment has passed: this test proves nothing");
                    directory = (path == "/proc").then_some(None);
                }
                Call::Returns(descriptor) if directory == Some(None) => {
                    directory = Some(Some(u64::try_from(descriptor).expect("/proc can be opened")));
                }
                Call::Enters(libc::SYS_getdents64, arguments) => {
                    lists = directory == Some(Some(arguments[0]));
                }
                Call::Returns(0) if lists => return,
                Call::Returns(_) => lists = false,
                Call::Enters(..) => {}
            }
        }
    }

    /// Until it waits for what happens next; false if its process has ended instead.
    fn go_to_sleep(&self) -> bool {
        loop {
            match self.step() {
                None => return false,
                Some(Call::Enters(call, _)) if SLEEPS.contains(&call) => return true,
                Some(_) => {}
            }
        }
    }

    fn let_go(&self) {
        ptrace::detach(self.0, None).unwrap();
    }

    /// The first eight words of a string of the thread's.
    fn text(&self, address: u64) -> String {
        let places = (address..).step_by(size_of::<libc::c_long>()).take(8);
        let words = places.map_while(|place| ptrace::read(self.0, place as ptrace::AddressType).ok());
        let bytes: Vec<u8> = words.flat_map(libc::c_long::to_ne_bytes).collect();
        String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
    }
}

enum Call {
    Enters(libc::c_long, [u64; 6]),
    Returns(i64),
}

/// A thread is no child: __WALL.
fn wait(thread: Pid) -> WaitStatus {
    waitpid(thread, Some(WaitPidFlag::__WALL))
        .unwrap_or_else(|error| panic!("{thread}: {}", Error::from(error)))
}
