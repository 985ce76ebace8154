//! Trap 27: a sandbox that answers one call after the other with EPERM or ENOSYS. Each is replaced by itself, and what
//! cannot be replaced says so.

mod common;

use std::os::unix::net::UnixStream;
use std::process::Command;

use common::pid;
use pidigree::{
    ExitStatus, Grade, Process, ProcessWatcher, Signal, Snapshot, State, ancestors_of, capabilities,
    is_descendant, parent_of,
};
use pidigree_testkit::{DEADLINE, Family, chain, stage};

/// What must work in every sandbox that leaves /proc.
fn everything_but(missing: &[&str]) {
    let here = capabilities().unwrap();
    for capability in &here {
        let unavailable = capability.grade == Grade::Unavailable;
        assert_eq!(unavailable, missing.contains(&capability.question), "{capability:?}");
    }

    let chain = chain(5);
    let (leaf, root) = (pid(chain.leaf()), pid(chain.root()));
    let me = Process::current().unwrap();
    assert_eq!(parent_of(root).unwrap(), Some(me.pid()));
    assert_eq!(ancestors_of(leaf).unwrap()[3], root);
    assert!(is_descendant(leaf, root).unwrap());
    assert!(!is_descendant(root, leaf).unwrap());
    let process = Process::open(leaf).unwrap();
    assert_eq!(process.parent().unwrap().unwrap().pid(), pid(chain.pids()[3]));
    assert!(process.is_descendant_of(&Process::open(root).unwrap()).unwrap());
    assert_eq!(Process::open(root).unwrap().descendants().unwrap().len(), 4);
    assert!(Snapshot::capture().unwrap().is_descendant(leaf, root));
    assert_eq!(process.state().unwrap(), State::Running);
    assert!(Process::open(pid(4_194_305)).map(drop).unwrap_err().is_gone());

    let family = Family::spawn(
        "thread [ say worker pause ] fork [ say kid await exit 3 ] say main await reap say reaped pause",
    );
    let (worker, kid, main) = (family.fact("worker"), family.fact("kid"), family.fact("main"));
    assert_eq!(Process::from_thread(pid(worker.tid)).unwrap().pid(), pid(main.pid));
    assert!(Process::open(pid(worker.tid)).unwrap_err().is_thread());

    let kid_process = Process::open(pid(kid.pid)).unwrap();
    let watcher = ProcessWatcher::new().unwrap();
    let key = watcher.watch(&kid_process).unwrap();
    family.poke(kid.pid);
    let exited = watcher.wait(Some(DEADLINE)).unwrap().unwrap();
    assert_eq!((exited.key, exited.status), (key, ExitStatus::Code(3)), "a zombie of our own user");
    assert_eq!(kid_process.state().unwrap(), State::Zombie);
    family.poke(main.pid);
    family.fact("reaped");
    assert_eq!(kid_process.state().unwrap(), State::Gone);
    assert!(kid_process.parent().unwrap_err().is_gone());
    assert!(Process::reopen(kid_process.identity()).unwrap_err().is_gone());

    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    let process = Process::from_child(&child).unwrap();
    match process.signal(Signal::TERM) {
        Ok(()) => assert_eq!(process.wait(Some(DEADLINE)).unwrap(), Some(ExitStatus::Signal(15))),
        Err(error) => {
            assert!(missing.contains(&"signal") && error.is_unsupported(), "{error}");
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert_eq!(process.state().unwrap(), State::Gone);

    let (one, _other) = UnixStream::pair().unwrap();
    match Process::from_peer(&one) {
        Ok(peer) => assert_eq!(peer.pid(), me.pid()),
        Err(error) => assert!(missing.contains(&"peer") && error.is_unsupported(), "{error}"),
    }
}

/// What is missing where nothing is denied: only what the forced fallback takes away.
fn missing_anyway() -> Vec<&'static str> {
    if cfg!(pidigree_force_procfs) { vec!["peer"] } else { vec![] }
}

#[test]
fn nothing_is_missing_outside_a_sandbox() {
    everything_but(&missing_anyway());
}

#[test]
fn pidfd_open_denied() {
    for errno in ["EPERM", "ENOSYS"] {
        stage("pidfd_open_denied", &["deny", errno, "pidfd_open"], || {
            assert_eq!(capabilities().unwrap().grade("exit"), Grade::BestEffort);
            everything_but(&missing_anyway());
        });
    }
}

#[test]
fn pidfd_get_info_denied() {
    for errno in ["EPERM", "ENOTTY", "EINVAL"] {
        stage("pidfd_get_info_denied", &["deny", errno, "ioctl:PIDFD_GET_INFO"], || {
            everything_but(&missing_anyway())
        });
    }
}

#[test]
fn pidfd_send_signal_denied() {
    for errno in ["EPERM", "ENOSYS"] {
        stage("pidfd_send_signal_denied", &["deny", errno, "pidfd_send_signal"], || {
            let mut missing = missing_anyway();
            missing.push("signal");
            everything_but(&missing);
        });
    }
}

#[test]
fn every_newer_call_denied() {
    let calls = "pidfd_open,ioctl:PIDFD_GET_INFO,pidfd_send_signal,waitid,getsid,clone3";
    stage("every_newer_call_denied", &["deny", "ENOSYS", calls], || {
        let mut missing = missing_anyway();
        missing.push("signal");
        everything_but(&missing);
    });
}

#[test]
fn info_and_signal_denied() {
    let calls = "ioctl:PIDFD_GET_INFO,pidfd_send_signal";
    stage("info_and_signal_denied", &["deny", "EPERM", calls], || {
        let mut missing = missing_anyway();
        missing.push("signal");
        everything_but(&missing);
    });
}
