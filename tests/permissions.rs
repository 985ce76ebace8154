//! Traps 5 and 11: denied is not gone, and hidden is not gone.
#![cfg(target_os = "linux")] // only Linux has hidepid, and processes that are not dumpable

mod common;

use std::time::Duration;

use common::pid;
use pidigree::{
    ExitStatus, Grade, Process, ProcessWatcher, Sameness, Signal, Snapshot, State, ancestors_of,
    capabilities, parent_of,
};
use pidigree_testkit::{DEADLINE, Family, is_root, require, stage};

const NOBODY: &str = "65534";

/// Effectively, for the time being. hidepid hides nothing from group 0.
fn become_user(id: u32) {
    use nix::unistd::{Gid, Uid, setegid, seteuid, setgroups};
    if id == 0 {
        seteuid(Uid::from_raw(0)).unwrap();
    }
    setgroups(&[Gid::from_raw(id)]).unwrap();
    setegid(Gid::from_raw(id)).unwrap();
    seteuid(Uid::from_raw(id)).unwrap();
}

/// Whether the answers come from the process itself and not from /proc.
fn asks_the_process() -> bool {
    capabilities()
        .unwrap()
        .iter()
        .any(|found| found.question == "parent" && found.reason.contains("PIDFD_GET_INFO"))
}

#[test]
fn another_users_undumpable_process_is_alive() {
    require!(is_root(), "needs root, to have a process of another user");
    let name = "another_users_undumpable_process_is_alive";
    stage(name, &["in-ns", "pid,mount"], || {
        let family = Family::spawn("undumpable say root pause");
        let root = family.fact("root");
        // The family, and its end, stay root's.
        become_user(65534);
        let error = std::fs::read_link(format!("/proc/{}/ns/mnt", root.pid)).expect_err("the trap");
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);

        let process = Process::open(pid(root.pid)).unwrap();
        assert_eq!(process.state().unwrap(), State::Running);
        assert!(process.parent().unwrap().is_some());
        assert_ne!(
            process.identity().same_process(Process::open(pid(root.pid)).unwrap().identity()),
            Sameness::Different
        );
        assert_eq!(process.wait(Some(Duration::from_millis(20))).unwrap(), None);
        become_user(0);
    });
}

#[test]
fn another_users_process_cannot_be_signalled() {
    stage("another_users_process_cannot_be_signalled", &["in-ns", "pid,mount", "--uid", NOBODY], || {
        let init = Process::open(pid(1)).unwrap();
        let error = init.signal(Signal::TERM).expect_err("it is root's");
        assert!(error.is_denied() && !error.is_gone(), "{error}");
        assert_eq!(init.state().unwrap(), State::Running);
        assert_eq!(init.wait(Some(Duration::ZERO)).unwrap(), None);
    });
}

#[test]
fn a_hidden_process_is_not_gone() {
    let name = "a_hidden_process_is_not_gone";
    stage(name, &["in-ns", "pid,mount", "--hidepid", "2", "--uid", NOBODY], || {
        // The first process of this world is root's.
        let hidden = pid(1);
        assert!(!std::path::Path::new("/proc/1").exists(), "the trap");
        let killed = nix::sys::signal::kill(nix::unistd::Pid::from_raw(1), None);
        assert_eq!(killed, Err(nix::errno::Errno::EPERM), "the trap");
        assert_eq!(Snapshot::capture().unwrap().get(hidden), None, "hidden from a table");

        if asks_the_process() {
            assert_eq!(parent_of(hidden).unwrap(), None);
            assert!(ancestors_of(Process::current().unwrap().pid()).unwrap().contains(&hidden));
        } else {
            let error = parent_of(hidden).expect_err("only /proc could tell");
            assert!(error.is_denied() && !error.is_gone(), "{error}");
        }
        match Process::open(hidden) {
            Ok(process) => {
                assert_eq!(process.state().unwrap(), State::Running);
                assert_eq!(process.wait(Some(Duration::ZERO)).unwrap(), None);
                assert_eq!(process.identity().start_time(), None);
            }
            Err(error) => {
                assert_ne!(capabilities().unwrap().grade("exit"), Grade::Proven);
                assert!(error.is_denied() && !error.is_gone(), "{error}");
            }
        }
        assert!(Process::open(pid(4_194_305)).unwrap_err().is_gone(), "nothing is there to hide");
    });
}

#[test]
fn a_process_that_becomes_hidden_has_not_ended() {
    let name = "a_process_that_becomes_hidden_has_not_ended";
    // Also where there are no pidfds, and the handle is of the very directory that is hidden now.
    for inner in [&["deny", "ENOSYS", "pidfd_open", "--"][..], &[]] {
        let launch = [&["in-ns", "pid,mount", "--hidepid", "2", "--"], inner].concat();
        stage(name, &launch, || {
            let family = Family::spawn("say root pause");
            let process = Process::open(pid(family.fact("root").pid)).unwrap();
            let watcher = ProcessWatcher::new().unwrap();
            watcher.watch(&process).unwrap();
            become_user(65534);
            let hidden = !std::path::Path::new(&format!("/proc/{}", process.pid())).exists();
            let (state, wait) = (process.state(), process.wait(Some(Duration::ZERO)));
            let reported = watcher.wait(Some(Duration::from_millis(50)));
            become_user(0);
            assert!(hidden, "the trap");
            assert!(
                state.as_ref().map_or_else(pidigree::Error::is_denied, |state| *state == State::Running),
                "{state:?}"
            );
            assert!(wait.as_ref().map_or_else(pidigree::Error::is_denied, Option::is_none), "{wait:?}");
            assert_eq!(reported.unwrap(), None);
            assert_eq!(process.state().unwrap(), State::Running);
        });
    }
}

#[test]
fn a_hidden_process_tells_its_exit_status_once_reaped() {
    let name = "a_hidden_process_tells_its_exit_status_once_reaped";
    // A process of root, hidden from the user who waits for it, started before that user exists.
    stage(name, &["in-ns", "pid,mount", "--hidepid", "2"], || {
        if !asks_the_process() {
            return; // Then it cannot even be opened: see above.
        }
        let family = Family::spawn("fork [ say kid await exit 9 ] say root await reap say reaped pause");
        let (kid, root) = (family.fact("kid"), family.fact("root"));
        let process = Process::open(pid(kid.pid)).unwrap();
        become_user(65534);
        assert!(!std::path::Path::new(&format!("/proc/{}", kid.pid)).exists(), "the trap");
        assert_eq!(process.parent().unwrap().unwrap().pid(), pid(root.pid));
        become_user(0);
        family.poke(kid.pid);
        family.poke(root.pid);
        family.fact("reaped");
        become_user(65534);
        assert_eq!(process.wait(Some(DEADLINE)).unwrap(), Some(ExitStatus::Code(9)));
        become_user(0);
    });
}
