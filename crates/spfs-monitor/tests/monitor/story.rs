//! The whole of it: a shell, a background child, a daemon.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use pidigree::{Process, State};
use spfs_monitor::Phase;

use crate::common::{BINARY, Runtime, begin, pid, waiting};

/// In whatever order they end, the file is there until the last one has.
#[test]
fn the_file_lives_until_the_last_has_ended() {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    crate::common::side_by_side(orders.len(), |number| {
        let runtime = Runtime::new();
        let family =
            waiting("fork [ say child await ] double-fork [ fork [ say daemon await ] ] say shell await");
        let monitor = runtime.watch(family.fact("root").pid);
        assert_eq!(runtime.record().phase, Phase::Watching);
        assert_eq!(runtime.record().root.pid().get(), family.root_pid());
        begin(&family);
        let who = ["shell", "child", "daemon"].map(|name| family.fact(name).pid);
        for (count, member) in orders[number].into_iter().enumerate() {
            runtime.lives(&monitor, &format!("{} of 3 live", 3 - count));
            family.poke(who[member]);
            family.wait_ended(who[member]);
        }
        runtime.is_over(&monitor, &family);
    });
}

/// A real shell, which starts the monitor itself: that is no member, though it was started by one, and nor is its cleanup.
#[test]
fn a_monitor_that_was_started_from_within_is_no_member() {
    for how in ["", "--foreground"] {
        let runtime = Runtime::new();
        let job = if how.is_empty() { "" } else { "&" };
        let script = format!(
            "\"$1\" --runtime \"$2\" --root $$ {how} --on-empty sh -c 'echo cleaned >> \"$0\"' \"$3\" {job}\n\
             sleep 600 & echo child $!; read line; kill $!"
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh", BINARY]).args([&runtime.file, &runtime.log]);
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(shell.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut lines = [said.next().unwrap(), said.next().unwrap()];
        lines.sort();
        assert!(lines[0].starts_with("child ") && lines[1] == "watching", "{lines:?}");
        let record = runtime.record();
        assert_eq!(record.root.pid().get(), shell.id());
        let monitor = Process::reopen(&record.owner).unwrap();
        let root = Process::from_child(&shell).unwrap();
        assert_eq!(monitor.is_descendant_of(&root).unwrap(), !how.is_empty(), "detached: nobody's child");
        let number: u32 = lines[0][6..].parse().unwrap();
        let child = Process::open(pid(number)).unwrap();
        runtime.lives(&monitor, "the shell and its child live");
        shell.stdin.take().unwrap().write_all(b"\n").unwrap();
        shell.wait().unwrap();
        assert!(child.wait(Some(crate::common::PATIENCE)).unwrap().is_some());
        runtime.ends(&monitor);
        runtime.is_gone();
        assert_eq!(runtime.logged(), ["cleaned"]);
        assert_ne!(child.state().unwrap(), State::Running);
    }
}

/// Whoever reads its output to the end gets to the end, though the monitor lives on; nor does it keep anything else open.
#[test]
fn nothing_of_the_caller_stays_open() {
    let runtime = Runtime::new();
    let family = waiting("exit 0");
    let root = family.fact("root").pid.to_string();
    let mut command = Command::new("sh");
    // Descriptor 7 is the pipe that is read here, too.
    command.args(["-c", "exec \"$@\" 7>&1", "sh", BINARY, "--root", &root, "--runtime"]).arg(&runtime.file);
    let mut started =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut said = String::new();
    started.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "watching\n");
    assert!(started.wait().unwrap().success());
    let monitor = Process::reopen(&runtime.record().owner).unwrap();
    runtime.lives(&monitor, "the root lives");
    begin(&family);
    runtime.ends(&monitor);
    runtime.is_gone();
}

/// Among as many as a busy machine has.
#[test]
fn among_2000_others() {
    let others = pidigree_testkit::idle_children(2_000);
    let runtime = Runtime::new();
    let family = waiting("fork [ say child await ] exit 0");
    let monitor = runtime.watch(family.fact("root").pid);
    begin(&family);
    let child = family.fact("child").pid;
    runtime.lives(&monitor, "the child lives");
    family.poke(child);
    runtime.is_over(&monitor, &family);
    drop(others);
}
