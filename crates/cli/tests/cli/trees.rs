//! `pidigree wait --tree`, `watch --tree` and `kill --tree`

use std::process::{Child, Command, Stdio};

use crate::common::{Running, idle, object, pidigree, token, token_of_the_dead, zombie};
use pidigree::{Pid, Process};
use pidigree_testkit::Family;
use serde_json::{Value, json};

/// Nothing here comes near it.
const LONG: &str = "--timeout=60s";

#[test]
fn a_tree_is_waited_for_until_nothing_of_it_runs() {
    let family =
        Family::spawn("fork [ say middle fork [ say orphan await exit 4 ] await ] say root await exit 3");
    let (root, middle, orphan) =
        (family.fact("root").pid, family.fact("middle").pid, family.fact("orphan").pid);
    let mut wait = Running::start(&["wait", "--tree", LONG, "--json", &token(&root.to_string())]);
    // It is attached when it says that the time is not up: those that end now are its members.
    let ran = pidigree(&["wait", "--tree", "--timeout", "300ms", &root.to_string()]);
    assert_eq!(ran.code, Some(124), "{ran:?}");
    for pid in [root, middle, orphan] {
        assert!(ran.stderr.contains(&pid.to_string()), "{ran:?}");
    }
    for pid in [middle, root] {
        family.poke(pid);
        family.wait_ended(pid);
        assert!(wait.child.try_wait().expect("our own child").is_none(), "it left before the orphan");
    }
    family.poke(orphan);
    let told = object(&wait.line());
    assert_eq!((&told["event"], &told["pid"]), (&json!("empty"), &json!(root)), "{told}");
    if told["status"] != "unknown" {
        assert_eq!(told["code"], 3, "{told}");
    }
    assert!(told["processes"].as_u64().unwrap() >= 3, "{told}");
    assert_eq!(wait.line(), "");
    assert_eq!(wait.code(), Some(0));
}

#[test]
fn what_the_dead_left_behind_is_unknown() {
    let (_zombie, zombie) = zombie(3);
    for dead in [token_of_the_dead(), zombie] {
        for verb in ["wait", "watch"] {
            let ran = pidigree(&[verb, "--tree", &dead]);
            assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), ""), "{ran:?}");
            assert!(ran.stderr.contains("had ended before"), "{ran:?}");
        }
    }
}

/// The next line; on a busy machine it is told as well that who is a member was found out anew.
fn line(watch: &mut Running) -> String {
    loop {
        let line = watch.line();
        if !(line.contains("\"event\":\"resynced\"") || line.contains("not all events were seen")) {
            return line;
        }
    }
}

fn next(watch: &mut Running) -> Value {
    object(&line(watch))
}

#[test]
fn each_member_is_told_as_it_joins_and_ends() {
    let family = Family::spawn("say root await fork [ say kid await raise 9 ] await exit 3");
    let root = family.fact("root").pid;
    let mut watch = Running::start(&["watch", "--tree", "--json", &root.to_string()]);
    let started = object(&watch.line());
    assert_eq!((&started["event"], &started["pid"]), (&json!("started"), &json!(root)));
    assert!(started["coverage"]["reason"].is_string(), "{started}");
    let joined = object(&watch.line());
    assert_eq!((&joined["event"], &joined["pid"]), (&json!("joined"), &json!(root)));
    family.poke(root);
    let kid = family.fact("kid").pid;
    family.poke(kid);
    let joined = next(&mut watch);
    assert_eq!((&joined["event"], &joined["pid"]), (&json!("joined"), &json!(kid)), "{joined}");
    assert_eq!(joined["parent"], root);
    let ended = next(&mut watch);
    assert_eq!((&ended["event"], &ended["pid"]), (&json!("ended"), &json!(kid)), "{ended}");
    assert_eq!(ended["token"], joined["token"]);
    family.poke(root);
    let ended = next(&mut watch);
    assert_eq!((&ended["event"], &ended["pid"]), (&json!("ended"), &json!(root)), "{ended}");
    assert_eq!(next(&mut watch)["event"], "empty");
    assert_eq!(watch.line(), "");
    assert_eq!(watch.code(), Some(0));
}

#[test]
fn lines_are_for_people() {
    let family = Family::spawn("say root await exit 3");
    let root = family.fact("root").pid;
    let mut watch = Running::start(&["watch", "--tree", &root.to_string()]);
    let first = watch.line();
    assert!(first.contains(&format!("{root} watching its tree by ")), "{first}");
    let joined = watch.line();
    assert!(joined.contains(&format!("{root} joined: ")) && joined.contains("pidigree-testkit"), "{joined}");
    family.poke(root);
    assert!(line(&mut watch).contains(&format!("{root} ended: ")));
    assert!(line(&mut watch).contains(&format!("{root} tree empty: root ")));
    assert_eq!(watch.code(), Some(0));
}

/// A shell and two sleepers; killed and reaped when dropped.
struct Shell(Child);

impl Shell {
    fn new() -> (Shell, Vec<u32>) {
        pidigree_testkit::default_signals();
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 1000 & echo $!; sleep 1000 & echo $!; wait; wait"]).stdout(Stdio::piped());
        let mut child = shell.spawn().expect("sh runs");
        let mut lines = std::io::BufReader::new(child.stdout.take().expect("piped"));
        let mut pids = vec![child.id()];
        for _ in 0..2 {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut lines, &mut line).expect("it is text");
            pids.push(line.trim().parse().expect("a PID"));
        }
        (Shell(child), pids)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_tree_is_signalled_whole() {
    for signal in ["TERM", "KILL"] {
        let (shell, pids) = Shell::new();
        let pinned: Vec<Process> =
            pids[1..].iter().map(|pid| Process::open(Pid::new(*pid).unwrap()).expect("it runs")).collect();
        let line = ["kill", "--tree", "--wait", LONG, "-s", signal, &pids[0].to_string()];
        let ran = pidigree(&line).ended_with(0);
        assert!(ran.stdout.starts_with(&format!("{} tree empty: root ", pids[0])), "{ran:?}");
        for process in pinned {
            let ended = process.wait(Some(std::time::Duration::ZERO)).expect("it can be asked");
            assert!(ended.is_some(), "{} runs on", process.pid());
        }
        drop(shell);
    }
    pidigree(&["kill", "--tree", "1"]).failed_naming("process 1 ");
}

#[test]
fn it_does_not_end_itself() {
    // The shell's tree holds the command.
    let script = "trap 'echo told' USR1; \"$0\" kill --tree -s USR1 $$; echo \"code $?\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, crate::common::BINARY]).stdin(Stdio::null());
    let ran: crate::common::Ran = shell.output().expect("sh runs").into();
    assert_eq!(ran.stdout, "told\ncode 0\n", "{ran:?}");
}

#[test]
fn without_a_terminal_it_cannot_be_drawn() {
    let (_family, pid) = idle();
    let ran = pidigree(&["tree", "--follow", &pid]);
    ran.failed_naming("watch --tree");
}
