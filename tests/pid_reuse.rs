//! Trap 6: with the PID forced, a newcomer has the PID of the old process and nearly always its start time. Nothing
//! that was said about the old one may come true of the new one.
#![cfg(target_os = "linux")] // only Linux gives a chosen PID

mod common;

use common::pid;
use pidigree::{Identity, Process, ProcessWatcher, Sameness, Signal, State};
use pidigree_testkit::{DEADLINE, eventually, fork_with_pid, stage};

const REUSES: usize = 200;

/// What is recorded by those who believe that PID and start time identify a process.
fn naive_identity(number: u32) -> (u32, u64) {
    let stat = procfs::process::Process::new(number as i32).unwrap().stat().unwrap();
    (number, stat.starttime)
}

#[test]
fn reopen_refuses_a_reused_pid() {
    stage("reopen_refuses_a_reused_pid", &["in-ns", "pid,mount"], || {
        let mut naive_fooled = 0;
        for _ in 0..REUSES {
            let old = fork_with_pid(7000).unwrap();
            let recorded: Identity = Identity::of(pid(7000)).unwrap().to_string().parse().unwrap();
            let naive = naive_identity(7000);
            old.kill_and_reap();

            let newcomer = fork_with_pid(7000).unwrap();
            let error = Process::reopen(&recorded).expect_err("the old process has ended");
            // Without unique ids, a reuse within one clock tick cannot be told; then it is not called gone either.
            let telling = recorded.unique_id().is_some();
            assert!(error.is_gone() || (!telling && error.is_unsupported()), "{error}");
            let sameness = recorded.same_process(&Identity::of(pid(7000)).unwrap());
            assert!(sameness == Sameness::Different || (!telling && sameness == Sameness::Unknown));

            naive_fooled += usize::from(naive == naive_identity(7000));
            newcomer.kill_and_reap();
        }
        println!(
            "(pid, start time) took the newcomer for the old process in {naive_fooled} of {REUSES} reuses"
        );
        assert!(
            naive_fooled > 0,
            "the control was never fooled: this test reuses PIDs too slowly to prove anything"
        );
    });
}

#[test]
fn a_signal_never_reaches_the_newcomer() {
    stage("a_signal_never_reaches_the_newcomer", &["in-ns", "pid,mount"], || {
        for _ in 0..REUSES {
            let old = fork_with_pid(7000).unwrap();
            let process = Process::open(pid(7000)).unwrap();
            old.kill_and_reap();

            let newcomer = fork_with_pid(7000).unwrap();
            let error = process.signal(Signal::KILL).expect_err("there is nobody left to signal");
            assert!(error.is_gone(), "{error}");
            assert_eq!(error.pid(), Some(pid(7000)));
            assert_eq!(
                Process::open(pid(7000)).unwrap().wait(Some(std::time::Duration::ZERO)).unwrap(),
                None
            );
            newcomer.kill_and_reap();
        }

        // The control: by number, it does.
        let old = fork_with_pid(7000).unwrap();
        old.kill_and_reap();
        let newcomer = fork_with_pid(7000).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(7000), nix::sys::signal::Signal::SIGKILL).unwrap();
        Process::open(pid(7000)).unwrap().wait(None).unwrap();
        newcomer.kill_and_reap();
    });
}

#[test]
fn a_handle_stays_with_the_old_process() {
    stage("a_handle_stays_with_the_old_process", &["in-ns", "pid,mount"], || {
        for _ in 0..REUSES {
            let old = fork_with_pid(7000).unwrap();
            let process = Process::open(pid(7000)).unwrap();
            let me = Process::current().unwrap();
            assert!(process.is_descendant_of(&me).unwrap());
            old.kill_and_reap();

            let newcomer = fork_with_pid(7000).unwrap();
            assert_eq!(process.state().unwrap(), State::Gone);
            assert!(process.wait(None).unwrap().is_some());
            assert!(process.parent().unwrap_err().is_gone());
            assert!(process.children().unwrap_err().is_gone());
            assert!(process.descendants().unwrap_err().is_gone());
            assert!(process.is_descendant_of(&me).unwrap_err().is_gone());
            assert!(me.is_descendant_of(&process).unwrap_err().is_gone());
            assert!(process.ancestors().next().unwrap().unwrap_err().is_gone());
            newcomer.kill_and_reap();
        }
    });
}

#[test]
fn the_watcher_never_reports_the_newcomers_end() {
    stage("the_watcher_never_reports_the_newcomers_end", &["in-ns", "pid,mount"], || {
        let watcher = ProcessWatcher::new().unwrap();
        for _ in 0..REUSES {
            let old = fork_with_pid(7000).unwrap();
            let process = Process::open(pid(7000)).unwrap();
            let identity = *process.identity();
            let key = watcher.watch(&process).unwrap();
            old.kill_and_reap();

            let newcomer = fork_with_pid(7000).unwrap();
            let exited = watcher.wait(Some(DEADLINE)).unwrap().expect("the old one has ended");
            assert_eq!((exited.key, exited.identity), (key, identity));
            // Watched after the fact, it is still the old one that is reported, at once.
            let again = watcher.watch(&process).unwrap();
            assert_eq!(watcher.wait(Some(DEADLINE)).unwrap().unwrap().key, again);

            newcomer.kill_and_reap();
            assert_eq!(watcher.drain(&mut Vec::new()).unwrap(), 0);
            assert!(watcher.is_empty());
        }
    });
}

#[test]
fn an_identity_recorded_after_its_first_clock_tick_is_proven() {
    stage("an_identity_recorded_after_its_first_clock_tick_is_proven", &["in-ns", "pid,mount"], || {
        let child = fork_with_pid(7000).unwrap();
        // Tokens say `s` for it; the tick is over after 10 ms.
        let recorded = eventually("the first tick of the child is over", || {
            Some(Identity::of(pid(7000)).unwrap()).filter(|identity| identity.to_string().contains(":s"))
        });
        assert_eq!(recorded.same_process(&Identity::of(pid(7000)).unwrap()), Sameness::Same);
        assert_eq!(Process::reopen(&recorded).unwrap().pid(), pid(7000));
        child.kill_and_reap();
        assert!(Process::reopen(&recorded).unwrap_err().is_gone());

        let newcomer = fork_with_pid(7000).unwrap();
        assert!(Process::reopen(&recorded).unwrap_err().is_gone());
        newcomer.kill_and_reap();
    });
}

#[test]
fn a_pid_reused_as_a_thread_is_gone() {
    stage("a_pid_reused_as_a_thread_is_gone", &["in-ns", "pid,mount"], || {
        let old = fork_with_pid(7000).unwrap();
        let recorded = Identity::of(pid(7000)).unwrap();
        old.kill_and_reap();
        // Trap 10: kill(tid, 0) and /proc/TID answer for threads too.
        std::fs::write("/proc/sys/kernel/ns_last_pid", "6999").unwrap();
        std::thread::scope(|scope| {
            let (told, tid) = std::sync::mpsc::channel();
            let (end, ended) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                told.send(nix::unistd::gettid().as_raw()).unwrap();
                let _ = ended.recv();
            });
            assert_eq!(tid.recv().unwrap(), 7000);
            assert_eq!(nix::sys::signal::kill(nix::unistd::Pid::from_raw(7000), None), Ok(()), "the trap");
            assert!(Process::reopen(&recorded).unwrap_err().is_gone());
            drop(end);
        });
    });
}
