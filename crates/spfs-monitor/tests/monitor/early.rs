//! Seven ways to clean up too early, each of which a monitor of this kind has been seen to go. Here: never.

#[cfg(target_os = "linux")] // of the tests that only it has
use std::process::Command;

use pidigree_testkit::{Family, early, is_root, require, rounds};

use crate::common::{PATIENCE, Public, Runtime, begin, side_by_side, waiting};
#[cfg(target_os = "linux")] // of the tests that only it has
use crate::common::{WHILE, copy, pid};

/// This member outlives what others go by. Then it ends as well, and that is the end.
#[track_caller]
fn outlived_by(member: &str, runtime: &Runtime, family: &Family) {
    let monitor = runtime.watch(family.fact("root").pid);
    begin(family);
    let member = family.fact(member).pid;
    runtime.lives(&monitor, "a member lives");
    family.poke(member);
    runtime.is_over(&monitor, family);
}

/// In a PID namespace of their own, one after the other. To a monitor that polls, other monitors that were started between its
/// attaching and its first proven scan are suspects, and it is one to them: they would wait for each other.
#[cfg(target_os = "linux")] // there are no PID namespaces elsewhere
fn alone(test: &str, rounds: usize, round: impl Fn(usize)) {
    require!(is_root(), "needs root, for a PID namespace");
    pidigree_testkit::stage(test, &["in-ns", "pid,mount"], || (0..rounds).for_each(round));
}

/// E1.
#[test]
fn the_root_ends_first() {
    side_by_side(rounds(50), |round| {
        outlived_by("left", &Runtime::new(), &waiting(early::ENDS_FIRST[round % 2]));
    });
}

/// E2.
#[cfg(target_os = "linux")] // a kqueue does not show all of a chain that forks and ends, as its coverage says
#[test]
fn a_chain_forks_and_ends() {
    side_by_side(rounds(50), |round| {
        outlived_by("last", &Runtime::new(), &waiting(early::CHAIN[round % 3]));
    });
}

/// E3.
#[cfg(target_os = "linux")] // only Linux has namespaces
#[test]
fn a_member_leaves_the_mount_namespace() {
    require!(is_root(), "needs root, to have mount namespaces");
    side_by_side(rounds(50), |_| {
        outlived_by("elsewhere", &Runtime::new(), &waiting(early::ELSEWHERE));
    });
}

/// E4 (trap 4).
#[test]
fn a_main_thread_ends_before_the_others() {
    side_by_side(rounds(50), |round| {
        outlived_by("worker", &Runtime::new(), &waiting(early::MAIN_THREAD_ENDS[round % 2]));
    });
}

/// E5: the monitor is nobody's, and of one of its own processes may read nothing.
#[test]
fn a_member_cannot_be_looked_into() {
    require!(is_root(), "needs root, to become somebody else");
    let public = Public::new();
    side_by_side(rounds(50), |_| {
        let script = format!("say root await {}", early::CLOSED);
        let family = Family::builder().uid(65534).spawn(script);
        outlived_by("closed", &Runtime::of_user(65534, &public), &family);
    });
}

/// E5, as it happened: by a program with file capabilities.
#[cfg(target_os = "linux")] // only Linux has them
#[test]
fn a_member_has_file_capabilities() {
    use std::io::BufRead;
    use std::os::unix::process::CommandExt;
    use std::process::Stdio;

    require!(is_root(), "needs root, to give capabilities to a file");
    let public = Public::new();
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).unwrap();
    let able = folder.path().join("able");
    copy(pidigree_testkit::binary(), &able);
    let given = Command::new("setcap").arg("cap_net_raw+ep").arg(&able).status();
    require!(
        given.is_ok_and(|status| status.success()),
        "setcap is not there, or the file system keeps none"
    );
    side_by_side(rounds(50), |_| {
        let runtime = Runtime::of_user(65534, &public);
        let mut command = Command::new(&able);
        command.args("say root await fork [ say able pause ]".split(' ')).uid(65534).gid(65534);
        let mut root = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lifeline = root.stdin.take().unwrap();
        let mut said = std::io::BufReader::new(root.stdout.take().unwrap()).lines();
        assert!(said.next().unwrap().unwrap().starts_with("root pid="));
        let monitor = runtime.watch(root.id());
        let process = pidigree::Process::from_child(&root).unwrap();
        process.signal("USR1".parse().unwrap()).unwrap();
        let line = said.next().unwrap().unwrap();
        let number: u32 = line.strip_prefix("able pid=").unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(root.wait().unwrap().success());
        runtime.lives(&monitor, "a member lives that cannot be looked into");
        assert_eq!(pidigree::Process::open(pid(number)).unwrap().state().unwrap(), pidigree::State::Running);
        drop(lifeline);
        runtime.ends(&monitor);
        assert!(said.next().is_none(), "its end of the pipe is closed");
        runtime.is_gone();
        assert_eq!(runtime.logged(), ["cleaned"]);
    });
}

/// E6: of a monitor that polls, each look fails, for a while.
#[cfg(target_os = "linux")] // strace is Linux's
#[test]
fn an_error_is_no_end() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let strace = Command::new("strace").arg("-V").stdout(Stdio::null()).status();
    require!(strace.map_err(|error| error.to_string()), "needs strace, to have system calls fail");
    alone("early::an_error_is_no_end", rounds(50), |_| {
        let runtime = Runtime::polled();
        let family = waiting("double-fork [ say left await ] exit 0");
        let monitor = runtime.watch(family.fact("root").pid);
        assert_eq!(runtime.record().tree.backend(), pidigree::Backend::Poll);
        begin(&family);
        let left = family.fact("left").pid;
        let log = runtime.log.with_extension("strace");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-e", "trace=openat", "-e", "inject=openat:error=EIO", "-o"]).arg(&log);
        strace.args(["-p", &monitor.pid().to_string()]).stderr(Stdio::piped()).stdin(Stdio::null());
        let mut strace = strace.spawn().unwrap();
        let said = BufReader::new(strace.stderr.take().unwrap()).lines().map_while(Result::ok);
        // The monitor has two threads.
        assert_eq!(said.take(1).filter(|line| line.contains("attached")).count(), 1);
        pidigree_testkit::eventually("a look has failed", || {
            std::fs::read_to_string(&log).unwrap_or_default().contains("EIO").then_some(())
        });
        runtime.lives(&monitor, "whoever cannot look has not seen that nobody is there");
        // Nor is it the end if nobody can look and there is nobody.
        family.poke(left);
        family.wait_all();
        assert_eq!(monitor.wait(Some(WHILE)).unwrap(), None, "nobody could look");
        assert!(runtime.file.exists());
        let tracer = pidigree::Process::from_child(&strace).unwrap();
        tracer.signal(pidigree::Signal::INT).unwrap();
        strace.wait().unwrap();
        std::fs::remove_file(&log).unwrap();
        runtime.is_over(&monitor, &family);
    });
}

/// E7.
#[test]
fn orphans_of_ended_parents_stay() {
    side_by_side(rounds(50), |_| {
        outlived_by("deep", &Runtime::new(), &waiting(early::DEEP));
    });
}

/// E1, E2 and E7 again, of a monitor that only the process table tells anything.
#[cfg(target_os = "linux")] // there is no other way elsewhere
#[test]
fn a_monitor_that_polls_is_not_early_either() {
    alone("early::a_monitor_that_polls_is_not_early_either", rounds(50), |round| {
        let (member, script) =
            [("left", early::ENDS_FIRST[1]), ("last", early::CHAIN[2]), ("deep", early::DEEP)][round % 3];
        outlived_by(member, &Runtime::polled(), &waiting(script));
    });
}

/// The other way round: what others leave behind meanwhile is no reason to be late.
#[test]
fn daemons_of_others_hold_nothing() {
    side_by_side(rounds(50).min(10), |_| {
        let runtime = Runtime::new();
        let family = waiting("exit 0");
        let monitor = runtime.watch(family.fact("root").pid);
        let others = Family::spawn("double-fork [ say daemon pause ] exit 0");
        others.fact("daemon");
        begin(&family);
        let ended = monitor.wait(Some(PATIENCE)).unwrap();
        assert!(ended.is_some() && !others.has_ended());
        runtime.is_over(&monitor, &family);
    });
}
