//! Traps 4, 10, 22 and the thread ids of 24: what is a process's and what is a thread's.

mod common;

use std::time::Duration;

use common::pid;
use pidigree::{Process, ProcessWatcher, Sameness, Signal, State, parent_of};
#[cfg(target_os = "linux")] // for threads by number
use pidigree::{ancestors_of, is_descendant};
#[cfg(target_os = "linux")] // as above
use pidigree_testkit::eventually;
use pidigree_testkit::{DEADLINE, Family};

/// What stat says: one letter, of the main thread only.
#[cfg(target_os = "linux")] // there is no /proc elsewhere
fn letter_of_main_thread(number: u32) -> char {
    procfs::process::Process::new(number as i32).unwrap().stat().unwrap().state
}

#[test]
fn a_process_runs_until_its_last_thread_ends() {
    let family = Family::spawn("thread [ say worker await exit 7 ] say main thread-exit");
    let worker = family.fact("worker");
    #[cfg(target_os = "linux")] // nothing says it elsewhere
    eventually("the main thread has ended", || (letter_of_main_thread(worker.pid) == 'Z').then_some(()));

    let process = Process::open(pid(worker.pid)).unwrap();
    let watcher = ProcessWatcher::new().unwrap();
    watcher.watch(&process).unwrap();
    assert_eq!(process.state().unwrap(), State::Running);
    assert_eq!(process.wait(Some(Duration::from_millis(60))).unwrap(), None);
    assert_eq!(watcher.wait(Some(Duration::from_millis(60))).unwrap(), None);
    assert_eq!(process.parent().unwrap().unwrap().pid(), Process::current().unwrap().pid());

    family.poke(worker.pid);
    assert_eq!(process.wait(Some(DEADLINE)).unwrap(), Some(pidigree::ExitStatus::Code(7)));
    assert_eq!(watcher.wait(Some(DEADLINE)).unwrap().unwrap().status, pidigree::ExitStatus::Code(7));
    assert_eq!(process.state().unwrap(), State::Zombie);
}

#[cfg(target_os = "linux")] // elsewhere threads have no numbers like those of processes
#[test]
fn a_thread_id_is_not_a_process() {
    let family = Family::spawn("thread [ say one pause ] thread [ say two pause ] say main pause");
    for name in ["one", "two"] {
        let thread = family.fact(name);
        assert_ne!(thread.pid, thread.tid);
        let tid = pid(thread.tid);
        assert!(std::path::Path::new(&format!("/proc/{tid}/stat")).exists(), "the trap");

        for error in [
            Process::open(tid).expect_err("a thread"),
            parent_of(tid).expect_err("a thread"),
            ancestors_of(tid).expect_err("a thread"),
            is_descendant(tid, pid(1)).expect_err("a thread"),
            is_descendant(pid(1), tid).expect_err("a thread"),
        ] {
            assert!(error.is_thread() && !error.is_gone(), "{error}");
            assert_eq!(error.pid(), Some(tid));
            assert!(error.to_string().contains(&format!("a thread of process {}", thread.pid)), "{error}");
        }
    }
}

#[cfg(target_os = "linux")] // elsewhere threads have no numbers like those of processes
#[test]
fn from_thread_says_whose_it_is() {
    let family =
        Family::spawn("thread [ say worker pause ] fork [ thread [ say other pause ] pause ] say main pause");
    for name in ["worker", "other", "main"] {
        let fact = family.fact(name);
        assert_eq!(Process::from_thread(pid(fact.tid)).unwrap().pid(), pid(fact.pid));
        assert_eq!(Process::from_thread(pid(fact.pid)).unwrap().pid(), pid(fact.pid));
    }
    let own = nix::unistd::gettid().as_raw() as u32;
    assert_eq!(Process::from_thread(pid(own)).unwrap().pid(), Process::current().unwrap().pid());
}

#[cfg(target_os = "linux")] // elsewhere threads have no numbers like those of processes
#[test]
fn from_thread_of_an_ended_thread_is_gone() {
    let tid = std::thread::spawn(|| nix::unistd::gettid().as_raw() as u32).join().unwrap();
    // The join comes a moment before the kernel has put the thread away.
    let error = eventually("the thread id is free", || Process::from_thread(pid(tid)).err());
    assert!(error.is_gone(), "{error}");
}

#[cfg(target_os = "linux")] // elsewhere threads have no numbers like those of processes
#[test]
fn threads_that_come_and_go_never_give_a_wrong_owner() {
    let me = Process::current().unwrap().pid();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    std::thread::spawn(|| ()).join().unwrap();
                }
            });
        }
        for _ in 0..200 {
            for entry in std::fs::read_dir("/proc/self/task").unwrap() {
                let tid = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
                match Process::from_thread(tid) {
                    Ok(process) => assert_eq!(process.pid(), me),
                    Err(error) => assert!(error.is_gone(), "{error}"),
                }
            }
        }
    });
}

#[test]
fn exec_from_another_thread_keeps_the_identity() {
    let family = Family::spawn("thread [ say before await exec [ say after pause ] ] say main pause");
    let before = family.fact("before");
    let process = Process::open(pid(before.pid)).unwrap();
    let identity = *process.identity();
    let watcher = ProcessWatcher::new().unwrap();
    watcher.watch(&process).unwrap();

    family.poke(before.pid);
    let after = family.fact("after");
    assert_eq!((after.pid, after.tid), (before.pid, before.pid), "the thread became the main thread");
    assert_eq!(process.state().unwrap(), State::Running);
    assert_eq!(watcher.wait(Some(Duration::from_millis(60))).unwrap(), None);
    let now = *Process::open(pid(after.pid)).unwrap().identity();
    assert_eq!(now, identity);
    assert_ne!(identity.same_process(&now), Sameness::Different);
    process.signal(Signal::KILL).unwrap();
    assert!(watcher.wait(Some(DEADLINE)).unwrap().is_some());
}

/// Whoever reads while a thread takes its leader's place is shown a process without threads, or the leader as a thread.
#[test]
fn a_process_that_executes_from_a_thread_is_never_gone() {
    let mut script = vec!["say", "done", "pause"];
    for _ in 0..150 {
        script = [&["thread", "[", "exec", "["], &script[..], &["]", "]", "pause"]].concat();
    }
    let family = Family::spawn(&script[..]);
    let number = pid(family.root_pid());
    let process = Process::open(number).unwrap();
    let me = Process::current().unwrap().pid();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(process.state().unwrap(), State::Running);
                assert_eq!(process.parent().unwrap().unwrap().pid(), me);
                assert_eq!(process.wait(Some(Duration::ZERO)).unwrap(), None);
                assert_eq!(parent_of(number).unwrap(), Some(me));
                assert_eq!(Process::open(number).unwrap().pid(), number);
            }
        });
        family.fact("done");
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        looking.join().unwrap();
    });
}
