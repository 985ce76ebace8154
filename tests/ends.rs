//! Traps 8, 9 and 19: what an end looks like, and who may tell how it came.

mod common;

use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use common::pid;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
#[cfg(target_os = "linux")] // the traps of epoll and of pidfds
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    wait::{WaitStatus, waitpid},
};
use nix::unistd::{Uid, seteuid};
use pidigree::{ExitStatus, Grade, Process, ProcessWatcher, Signal, State, capabilities};
use pidigree_testkit::{DEADLINE, Family, idle_children, is_root, require, stage};

fn readable(fd: impl AsFd, timeout: PollTimeout) -> bool {
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout).unwrap() > 0
}

#[test]
fn a_watcher_that_has_reported_is_quiet_though_nobody_reaps() {
    let mut children = idle_children(100);
    let watcher = ProcessWatcher::new().unwrap();
    let processes: Vec<_> =
        children.pids().iter().map(|&number| Process::open(pid(number)).unwrap()).collect();
    for process in &processes {
        watcher.watch(process).unwrap();
    }
    assert_eq!(watcher.drain(&mut Vec::new()).unwrap(), 0);
    (0..100).for_each(|index| children.signal_one(index, 9));

    let mut ends = Vec::new();
    while ends.len() < 100 {
        ends.push(watcher.wait(Some(DEADLINE)).unwrap().expect("all of them end"));
        watcher.drain(&mut ends).unwrap();
    }
    assert!(ends.iter().all(|end| end.status == ExitStatus::Signal(9)), "{ends:?}");
    let keys: std::collections::HashSet<_> = ends.iter().map(|end| end.key).collect();
    assert_eq!((keys.len(), watcher.len()), (100, 0), "each once");

    // Unreaped, every one of them; the control's descriptors are readable for ever, the watcher's is not.
    assert!(processes.iter().all(|process| process.state().unwrap() == State::Zombie));
    assert!(!readable(&watcher, PollTimeout::from(100_u8)), "a spin");
    #[cfg(target_os = "linux")] // no descriptor elsewhere is readable for ever
    if let Some(raw) = raw_pidfd(children.pids()[0]) {
        let control = Epoll::new(EpollCreateFlags::empty()).unwrap();
        control.add(&raw, EpollEvent::new(EpollFlags::EPOLLIN, 0)).unwrap();
        for _ in 0..3 {
            assert!(readable(&control.0, PollTimeout::ZERO), "the trap");
            assert_eq!(control.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO), Ok(1), "the trap");
        }
    }
    (0..100).for_each(|index| children.reap_one(index));
    assert!(!readable(&watcher, PollTimeout::ZERO));
}

/// `None` in a sandbox without.
#[cfg(target_os = "linux")] // macOS has no pidfds
fn raw_pidfd(number: u32) -> Option<std::os::fd::OwnedFd> {
    // SAFETY: two integers go in, no memory is touched.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, number, 0) };
    // SAFETY: where the call succeeded, this is a descriptor that nobody else owns.
    (fd >= 0).then(|| unsafe { std::os::fd::FromRawFd::from_raw_fd(fd as i32) })
}

/// Closing a descriptor takes it out of epoll only when nobody has a copy. A child of fork has one of each.
#[cfg(target_os = "linux")] // a child of fork has no copy of a kqueue
#[test]
fn a_watcher_that_has_reported_is_quiet_though_a_forked_child_holds_copies() {
    let name = "a_watcher_that_has_reported_is_quiet_though_a_forked_child_holds_copies";
    // Alone in its process: other tests wait for the ends of pipes, and the child would hold those open.
    stage(name, &["in-ns", "pid,mount"], || {
        let mut children = idle_children(5);
        let watcher = ProcessWatcher::new().unwrap();
        for &number in children.pids() {
            // The watcher is the only owner.
            watcher.watch(&Process::open(pid(number)).unwrap()).unwrap();
        }
        let control = Epoll::new(EpollCreateFlags::empty()).unwrap();
        let raw = raw_pidfd(children.pids()[0]);
        if let Some(raw) = &raw {
            control.add(raw, EpollEvent::new(EpollFlags::EPOLLIN, 0)).unwrap();
        }
        let controlled = raw.is_some();

        let (lifeline, held) = std::os::unix::net::UnixStream::pair().unwrap();
        // SAFETY: the child makes system calls alone until it `_exit`s.
        let child = match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                drop(held);
                let _ = nix::unistd::read(&lifeline, &mut [0]);
                // SAFETY: ends this process at once, without the harness's own exit handlers.
                unsafe { libc::_exit(0) }
            }
            nix::unistd::ForkResult::Parent { child } => child,
        };
        drop(raw);

        let mut ends = Vec::new();
        for index in 0..5 {
            children.kill_one(index);
            ends.extend(watcher.wait(Some(DEADLINE)).unwrap());
        }
        watcher.drain(&mut ends).unwrap();
        assert_eq!((ends.len(), watcher.len()), (5, 0), "each once");
        assert!(!readable(&watcher, PollTimeout::ZERO), "a spin");
        (0..5).for_each(|index| children.reap_one(index));
        assert!(!readable(&watcher, PollTimeout::ZERO), "a spin");
        assert_eq!(readable(&control.0, PollTimeout::ZERO), controlled, "the trap");

        drop(held);
        assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
    });
}

#[test]
fn the_status_of_a_child_is_told_and_left_for_its_parent() {
    for (script, status) in [("exit 0", ExitStatus::Code(0)), ("exit 42", ExitStatus::Code(42))] {
        let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let process = Process::from_child(&child).unwrap();
        assert_eq!(process.wait(None).unwrap(), Some(status));
        assert_eq!(process.state().unwrap(), State::Zombie);
        let code = child.wait().unwrap().code();
        assert_eq!(code.map(ExitStatus::Code), Some(status), "still ours to reap");
        assert_eq!(process.state().unwrap(), State::Gone);
    }
}

#[test]
fn signals_are_told_by_number_real_time_ones_too() {
    // Which only Linux has
    let real_time = if cfg!(target_os = "linux") { &[34, 50][..] } else { &[] };
    for signal in [&[9, 15, 6], real_time].concat() {
        let family = Family::spawn(&*format!("fork [ say kid await raise {signal} ] say root pause"));
        let kid = family.fact("kid");
        let process = Process::open(pid(kid.pid)).unwrap();
        family.poke(kid.pid);
        // A zombie that is not our child.
        assert_eq!(process.wait(Some(DEADLINE)).unwrap(), Some(ExitStatus::Signal(signal)));
    }
}

/// The parent is told by waitid(2); the number in stat, for those who may ptrace the child, is not for everybody.
#[test]
fn a_parent_is_told_how_a_child_ended_that_it_may_not_ptrace() {
    require!(is_root(), "needs root, to have a child of another user");
    let name = "a_parent_is_told_how_a_child_ended_that_it_may_not_ptrace";
    stage(name, &["in-ns", "pid,mount"], || {
        for (end, status) in [
            ("exit 3", ExitStatus::Code(3)),
            ("raise 15", ExitStatus::Signal(15)),
            ("raise 34", ExitStatus::Signal(34)),
            ("raise 50", ExitStatus::Signal(50)),
        ] {
            let family = Family::spawn(&*format!("say root await {end}"));
            let root = family.fact("root");
            let process = Process::open(pid(root.pid)).unwrap();
            // Effectively, for the time being: the family, and its end, stay root's.
            seteuid(Uid::from_raw(65534)).unwrap();
            family.poke(root.pid);
            let told = process.wait(Some(DEADLINE));
            let denied = std::fs::read_link(format!("/proc/{}/ns/user", root.pid));
            seteuid(Uid::from_raw(0)).unwrap();
            let kind = denied.expect_err("the trap").kind();
            assert_eq!(kind, std::io::ErrorKind::PermissionDenied, "the trap");
            assert_eq!(told.unwrap(), Some(status), "{end}");
            assert_eq!(process.state().unwrap(), State::Zombie, "it is left for its parent's wait");
        }
    });
}

#[test]
fn the_status_of_a_reaped_stranger_is_told_or_unknown() {
    let family = Family::spawn("fork [ say kid await exit 5 ] say root await reap say reaped pause");
    let (kid, root) = (family.fact("kid"), family.fact("root"));
    let process = Process::open(pid(kid.pid)).unwrap();
    family.poke(kid.pid);
    family.poke(root.pid);
    family.fact("reaped");
    assert_eq!(process.state().unwrap(), State::Gone);
    let told = capabilities().unwrap().grade("exit-status") == Grade::Proven;
    let expected = if told { ExitStatus::Code(5) } else { ExitStatus::Unknown };
    assert_eq!(process.wait(None).unwrap(), Some(expected));
}

#[test]
fn an_end_before_the_watch_is_reported_at_once() {
    let mut children = idle_children(2);
    let processes: Vec<_> =
        children.pids().iter().map(|&number| Process::open(pid(number)).unwrap()).collect();
    (0..2).for_each(|index| children.signal_one(index, 9));
    children.reap_one(0);
    let watcher = ProcessWatcher::new().unwrap();
    for process in &processes {
        process.wait(Some(DEADLINE)).unwrap().expect("it was killed");
        let key = watcher.watch(process).unwrap();
        let exited = watcher.wait(Some(DEADLINE)).unwrap().unwrap();
        assert_eq!((exited.key, exited.identity), (key, *process.identity()));
    }
}

#[test]
fn one_process_watched_twice_is_reported_twice_and_unwatch_takes_one_back() {
    let mut children = idle_children(1);
    let process = Process::open(pid(children.pids()[0])).unwrap();
    let watcher = ProcessWatcher::new().unwrap();
    let keys: Vec<_> = (0..3).map(|_| watcher.watch(&process).unwrap()).collect();
    let other = ProcessWatcher::new().unwrap();
    let elsewhere = other.watch(&process).unwrap();
    drop(process);
    assert_eq!(watcher.len(), 3);
    assert!(watcher.unwatch(keys[1]));
    assert!(!watcher.unwatch(keys[1]));

    children.kill_one(0);
    let mut reported = vec![
        watcher.wait(Some(DEADLINE)).unwrap().unwrap().key,
        watcher.wait(Some(DEADLINE)).unwrap().unwrap().key,
    ];
    reported.sort();
    assert_eq!(reported, [keys[0], keys[2]]);
    assert_eq!(watcher.wait(Some(Duration::from_millis(50))).unwrap(), None);
    assert!(!watcher.unwatch(keys[0]));
    assert_eq!(other.wait(Some(DEADLINE)).unwrap().unwrap().key, elsewhere);
}

#[test]
fn many_threads_may_wait_and_each_end_goes_to_one() {
    let mut children = idle_children(200);
    let watcher = ProcessWatcher::new().unwrap();
    for &number in children.pids() {
        watcher.watch(&Process::open(pid(number)).unwrap()).unwrap();
    }
    let ends = std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut ends = Vec::new();
                    while !watcher.is_empty() {
                        ends.extend(watcher.wait(Some(Duration::from_millis(20))).unwrap());
                    }
                    ends
                })
            })
            .collect();
        (0..200).for_each(|index| children.kill_one(index));
        waiters.into_iter().flat_map(|waiter| waiter.join().unwrap()).collect::<Vec<_>>()
    });
    let keys: std::collections::HashSet<_> = ends.iter().map(|end| end.key).collect();
    assert_eq!((ends.len(), keys.len()), (200, 200));
}

#[test]
fn opening_a_process_that_is_ending_gives_it_or_says_gone() {
    // Trap 9: pidfd_open can say EINVAL for a moment; that is no third answer.
    for _ in 0..300 {
        let mut child = Command::new("true").spawn().unwrap();
        let number = pid(child.id());
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        loop {
            match Process::open(number) {
                Ok(process) => assert_eq!(process.pid(), number),
                Err(error) => {
                    assert!(error.is_gone(), "{error}");
                    break;
                }
            }
        }
        reaper.join().unwrap();
    }
}

#[test]
fn from_child_refuses_a_child_that_was_waited_for() {
    let mut child = Command::new("true").spawn().unwrap();
    assert!(Process::from_child(&child).is_ok());
    child.wait().unwrap();
    assert!(Process::from_child(&child).unwrap_err().is_gone());
}

#[test]
fn a_group_may_outlive_its_leader() {
    // Trap 19: the leader is dead and reaped, its group takes signals still.
    let family = Family::spawn(
        "fork [ setsid fork [ say member pause ] say leader await exit 0 ] say root await reap say reaped pause",
    );
    let (leader, member, root) = (family.fact("leader"), family.fact("member"), family.fact("root"));
    let process = Process::open(pid(leader.pid)).unwrap();
    family.poke(leader.pid);
    family.poke(root.pid);
    family.fact("reaped");

    let group = nix::unistd::Pid::from_raw(leader.pid as i32);
    assert_eq!(nix::sys::signal::killpg(group, None), Ok(()), "the group lives");
    assert_eq!(process.state().unwrap(), State::Gone);
    assert!(Process::open(pid(leader.pid)).unwrap_err().is_gone());
    assert!(process.signal(Signal::TERM).unwrap_err().is_gone());
    assert_eq!(Process::open(pid(member.pid)).unwrap().state().unwrap(), State::Running);
}

#[test]
fn a_signal_arrives_and_a_zombie_ignores_it() {
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    let process = Process::from_child(&child).unwrap();
    process.signal(Signal::TERM).unwrap();
    assert_eq!(process.wait(Some(DEADLINE)).unwrap(), Some(ExitStatus::Signal(15)));
    process.signal(Signal::KILL).unwrap();
    child.wait().unwrap();
    assert!(process.signal(Signal::KILL).unwrap_err().is_gone());
}
