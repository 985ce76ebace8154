//! What the helper keeps, and what the root is given.

use std::os::unix::process::CommandExt;

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use nix::unistd::{getpgid, getpgrp, getsid, setpgid, setsid};
use pidigree_testkit::stage;

use super::*;
use crate::sys::spawn::spawn_held;

const HERE: &str = "sys::backend::subreaper::tests::inheritance";

fn group_of(pid: Pid) -> i32 {
    getpgid(Some(nix::unistd::Pid::from_raw(pid.raw()))).unwrap().as_raw()
}

fn session_of(pid: Pid) -> i32 {
    getsid(Some(nix::unistd::Pid::from_raw(pid.raw()))).unwrap().as_raw()
}

/// What its descriptors are of.
fn files_of(pid: Pid) -> Vec<String> {
    let mut files: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    files
}

#[test]
fn the_helper_holds_its_socket_and_what_wakes_it() {
    // As a program leaves open what it knows nothing of.
    let leaked = std::fs::File::open("/dev/null").unwrap();
    nix::fcntl::fcntl(&leaked, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let mut tended = Tended::spawn(&mut shell("exec cat >/dev/null 2>&1"));
    // The root's are at an end, and nobody else has them.
    let mut output = String::new();
    tended.output.read_to_string(&mut output).unwrap();
    let files = eventually("the helper is ready", || {
        let files = files_of(tended.helper_pid());
        (files.len() == 2).then_some(files)
    });
    assert_eq!(files[0], "anon_inode:[signalfd]");
    assert!(files[1].starts_with("socket:"), "{files:?}");
    assert_eq!(
        std::fs::read_link(format!("/proc/{}/cwd", tended.helper_pid())).unwrap(),
        std::path::Path::new("/")
    );
    let name = std::fs::read_to_string(format!("/proc/{}/comm", tended.helper_pid())).unwrap();
    assert_eq!(name, "pidigree-helper\n");
    tended.assert_silent();
    tended.end();
    assert_eq!(ends(&tended.rest()), [(tended.root, ExitStatus::Code(0))]);
}

#[test]
fn the_root_holds_what_it_would_without() {
    // Where no other test opens anything.
    stage(&format!("{HERE}::the_root_holds_what_it_would_without"), &["nofile", "256", "256"], || {
        let mut command = shell("ls -l /proc/self/fd | sed 's/.*-> //; s/[0-9][0-9]*/N/'; pwd");
        command.current_dir("/usr").stderr(Stdio::null()).stdin(Stdio::piped());
        let alone = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let mut tended = Tended::spawn(&mut command);
        let mut output = String::new();
        tended.output.read_to_string(&mut output).unwrap();
        assert_eq!(output, alone);
        assert!(output.contains("pipe") && output.ends_with("/usr\n"), "{output}");
        tended.rest();
    });
}

/// Trap 21: the thread that spawned it.
#[test]
fn the_end_of_a_thread_does_not_end_the_helper() {
    let mut command = Command::new(binary());
    let die_with_it = || Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?);
    // SAFETY: prctl(2) is async-signal-safe.
    unsafe { command.args(["say", "root", "pause"]).pre_exec(die_with_it) };
    let spawn = || (nix::unistd::gettid(), Tended::spawn(&mut command));
    let (thread, mut tended) = std::thread::scope(|scope| scope.spawn(spawn).join().unwrap());
    let task = format!("/proc/self/task/{thread}");
    eventually("the thread is gone", || (!std::path::Path::new(&task).exists()).then_some(()));
    tended.fact("root");
    tended.assert_silent();
    tended.end();
    assert_eq!(ends(&tended.rest()), [(tended.root, ExitStatus::Code(0))]);
}

/// The mask and what is ignored: as the caller's, and as std leaves it.
#[test]
fn the_root_takes_signals_as_it_would_without() {
    default_signals();
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGUSR2);
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None).unwrap();
    let mut command = Command::new("grep");
    command.args(["^Sig[BIC]", "/proc/self/status"]);
    let ignore = || {
        // SAFETY: this installs no handler.
        unsafe { nix::sys::signal::signal(Signal::SIGCHLD, nix::sys::signal::SigHandler::SigIgn) }?;
        Ok(())
    };
    // SAFETY: signal(2) is async-signal-safe.
    unsafe { command.pre_exec(ignore) };
    let alone = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let mut tended = Tended::spawn(&mut command);
    let mut output = String::new();
    tended.output.read_to_string(&mut output).unwrap();
    pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&blocked), None).unwrap();
    assert_eq!(output, alone);
    // Bits 16 and 11: SIGCHLD, which is no trouble to the helper, and SIGUSR2.
    let bits = |name: &str| {
        let line = output.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_once('\t').unwrap().1, 16).unwrap()
    };
    assert_eq!(bits("SigIgn:") & 1 << 16, 1 << 16);
    assert_eq!(bits("SigBlk:") & 1 << 11, 1 << 11);
    assert_eq!(ends(&tended.rest()), [(tended.root, ExitStatus::Code(0))]);
}

#[test]
fn what_a_terminal_sends_ends_the_root_and_not_the_helper() {
    default_signals();
    let mut leader = Command::new("cat").stdin(Stdio::piped()).process_group(0).spawn().unwrap();
    let group = leader.id() as i32;
    let mut tended = Tended::spawn(
        Command::new(binary()).args(["fork", "[", "say", "kid", "pause", "]", "pause"]).process_group(group),
    );
    let (kid, _) = tended.fact("kid");
    for pid in [tended.root, kid, tended.helper_pid()] {
        assert_eq!(group_of(pid), group);
    }
    kill(nix::unistd::Pid::from_raw(-group), Signal::SIGINT).unwrap();
    let mut ended = ends(&tended.rest());
    ended.sort_by_key(|&(pid, _)| pid != tended.root);
    assert_eq!(ended, [(tended.root, ExitStatus::Signal(2)), (kid, ExitStatus::Signal(2))]);
    assert_eq!(tended.code(), Some(130));
    assert_eq!(leader.wait().unwrap().signal(), Some(2));
}

#[test]
fn signals_to_the_helper_do_nothing() {
    let mut tended = Tended::script("pause");
    for number in Signal::iterator() {
        if ![Signal::SIGKILL, Signal::SIGSTOP].contains(&number) {
            signal(tended.helper_pid(), number);
        }
    }
    tended.assert_silent();
    tended.end();
    assert_eq!(ends(&tended.rest()), [(tended.root, ExitStatus::Code(0))]);
    assert_eq!(tended.code(), Some(0));
}

#[test]
fn without_more_said_both_stay_where_the_caller_is() {
    let mut tended = Tended::script("say root pause");
    tended.fact("root");
    for pid in [tended.root, tended.helper_pid()] {
        assert_eq!(group_of(pid), getpgrp().as_raw());
        assert_eq!(session_of(pid), getsid(None).unwrap().as_raw());
    }
}

#[test]
fn a_group_of_its_own_is_led_by_the_root() {
    let mut tended = Tended::spawn(Command::new(binary()).args(["say", "root", "pause"]).process_group(0));
    // Before it executes its program, as std does it.
    assert_eq!(group_of(tended.root), tended.root.raw());
    assert_eq!(group_of(tended.helper_pid()), tended.helper_pid().raw());
    kill(nix::unistd::Pid::from_raw(-tended.root.raw()), Signal::SIGINT).unwrap();
    assert_eq!(ends(&tended.rest()), [(tended.root, ExitStatus::Signal(2))]);
}

#[test]
fn a_session_of_its_own_is_led_by_the_root() {
    let mut command = Command::new(binary());
    // SAFETY: setsid(2) is async-signal-safe.
    unsafe { command.args(["say", "root", "pause"]).pre_exec(|| Ok(setsid().map(drop)?)) };
    let tended = Tended::spawn(&mut command);
    assert_eq!((session_of(tended.root), group_of(tended.root)), (tended.root.raw(), tended.root.raw()));
    assert_eq!(session_of(tended.helper_pid()), tended.helper_pid().raw());
}

/// A terminal is of one session, and in the hands of one group of it.
#[test]
fn a_session_that_has_a_terminal_is_left_to_the_helper() {
    let (mut master, mut slave) = (-1, -1);
    let null = std::ptr::null_mut();
    // SAFETY: the call writes two descriptors, and allows nulls for all else.
    let opened = unsafe { libc::openpty(&raw mut master, &raw mut slave, null, null.cast(), null.cast()) };
    assert_eq!(opened, 0);
    // SAFETY: the call has just made it.
    let _master = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(master) };
    // SAFETY: as above.
    let slave_owned = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(slave) };
    let take_terminal = move || {
        setsid()?;
        // SAFETY: the descriptor is open in the fork, and the call takes no pointer.
        let taken = unsafe { libc::ioctl(slave, libc::TIOCSCTTY, 0) };
        Errno::result(taken)?;
        Ok(())
    };
    let mut command = Command::new(binary());
    // SAFETY: setsid(2) and ioctl(2) are async-signal-safe.
    unsafe { command.args(["say", "root", "pause"]).pre_exec(take_terminal) };
    let mut tended = Tended::spawn(&mut command);
    drop(slave_owned);
    let helper = tended.helper_pid().raw();
    assert_eq!((session_of(tended.root), group_of(tended.root)), (helper, helper));
    // Where typing ^C would go to.
    signal(tended.root, Signal::SIGCONT);
    kill(nix::unistd::Pid::from_raw(-helper), Signal::SIGINT).unwrap();
    assert_eq!(ends(&tended.rest()), [(tended.root, ExitStatus::Signal(2))]);
}

#[test]
fn a_program_that_cannot_be_executed_leaves_nobody() {
    let before = children_here();
    for _ in 0..20 {
        let error = Helper::spawn(&mut Command::new("/does/not/exist"), OnDeath::Leave).unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
    }
    assert_eq!(children_here(), before);
}

/// Nor does it when a hook of the command's fails, before the root is forked.
#[test]
fn a_hook_that_fails_leaves_nobody() {
    let before = children_here();
    let mut command = Command::new("true");
    // SAFETY: it does nothing.
    unsafe { command.pre_exec(|| Err(Errno::EXDEV.into())) };
    let error = Helper::spawn(&mut command, OnDeath::Leave).unwrap_err();
    assert!(error.to_string().contains("cross-device"), "{error}");
    assert_eq!(children_here(), before);
}

#[test]
fn a_helper_is_held_before_it_forks() {
    let mut held = None;
    let mut command = Command::new("true");
    let spawn = |command: &mut Command| Helper::spawn(command, OnDeath::Leave);
    let placed = |pid: Pid| {
        held = Some((pid, std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap()));
        Ok(())
    };
    let (mut helper, mut child, root) = spawn_held(&mut command, placed, spawn).unwrap();
    assert_eq!(held, Pid::new(child.id()).map(|pid| (pid, String::new())));
    assert_ne!(held.unwrap().0, root);
    helper.go_on().unwrap();
    assert!(child.wait().unwrap().success());

    let before = children_here();
    let mut refused = Command::new("/does/not/exist");
    spawn_held(&mut refused, |_| Ok(()), spawn).unwrap_err();
    let error = Error::unsupported(None, SPAWN, "not this one");
    let refusal = spawn_held(&mut command, move |_| Err(error), spawn).unwrap_err();
    assert!(refusal.to_string().contains("not this one"), "{refusal}");
    assert_eq!(children_here(), before);
}

/// The group is one that is there already, as a shell's pipeline has it.
#[test]
fn a_hook_that_joins_a_group_is_heeded() {
    default_signals();
    let mut leader = Command::new("cat").stdin(Stdio::piped()).process_group(0).spawn().unwrap();
    let group = nix::unistd::Pid::from_raw(leader.id() as i32);
    let mut command = Command::new(binary());
    let join = move || Ok(setpgid(nix::unistd::Pid::from_raw(0), group)?);
    // SAFETY: setpgid(2) is async-signal-safe.
    unsafe { command.args(["say", "root", "pause"]).pre_exec(join) };
    let tended = Tended::spawn(&mut command);
    assert_eq!(group_of(tended.root), group.as_raw());
    drop(leader.stdin.take());
    leader.wait().unwrap();
}
