//! `pidigree wait`

use std::process::Command;

use crate::common::{
    NOBODY, Running, command, idle, object, pidigree, pidigree_as_nobody, pidigree_in, token,
    token_of_the_dead, zombie,
};
use pidigree::Grade;
use pidigree_testkit::{Family, idle_children, is_root, require};
use serde_json::json;

/// Nothing here comes near it.
const LONG: &str = "--timeout=60s";

#[test]
fn the_end_of_a_process_that_is_not_our_child_is_told_with_its_status() {
    let (_zombie, zombie) = zombie(3);
    let family = Family::spawn(
        "double-fork [ say orphan await exit 7 ] fork [ say kid await raise 9 ] reap say root pause",
    );
    let (orphan, kid) = (family.fact("orphan").pid, family.fact("kid").pid);
    let orphan_token = token(&orphan.to_string());
    let mut wait = Running::start(&["wait", LONG, "--json", &zombie, &orphan_token, &kid.to_string()]);

    // All are pinned when the first end is told.
    let first = object(&wait.line());
    assert_eq!(first["pid"].to_string(), zombie);
    assert_eq!(
        (&first["event"], &first["status"], &first["code"]),
        (&json!("ended"), &json!("exited"), &json!(3))
    );

    let statuses_are_kept =
        pidigree::capabilities().unwrap().grade("exit-status") == Grade::Proven && is_root();
    for (pid, status, code, signal, name) in [
        (orphan, "exited", json!(7), json!(null), json!(null)),
        (kid, "killed", json!(null), json!(9), json!("SIGKILL")),
    ] {
        family.poke(pid);
        let told = object(&wait.line());
        assert_eq!(told["pid"], pid);
        assert_eq!(told["event"], "ended");
        assert!(told["token"].as_str().unwrap().starts_with(&format!("p1:{pid}:")), "{told}");
        if statuses_are_kept || told["status"] != "unknown" {
            assert_eq!((&told["status"], &told["code"]), (&json!(status), &code));
            assert_eq!((&told["signal"], &told["signal_name"]), (&signal, &name));
        }
    }
    assert_eq!(wait.line(), "");
    assert_eq!(wait.code(), Some(0));
}

#[test]
fn text_is_a_line_for_each_end() {
    let (_family, pid) = zombie(3);
    let ran = pidigree(&["wait", LONG, &pid]).ended_with(0);
    assert_eq!(ran.stdout, format!("{pid} ended: exit code 3\n"));

    let family = Family::spawn("fork [ say zombie raise 15 ] say root pause");
    let pid = family.fact("zombie").pid;
    family.wait_ended(pid);
    let ran = pidigree(&["wait", LONG, &pid.to_string()]).ended_with(0);
    assert_eq!(ran.stdout, format!("{pid} ended: signal 15 (SIGTERM)\n"));
}

#[test]
fn a_token_of_the_dead_is_gone_at_once() {
    let dead = token_of_the_dead();
    let ran = pidigree(&["wait", LONG, &dead]).ended_with(0);
    assert!(ran.stdout.ends_with(" gone: had ended before, status unknown\n"), "{ran:?}");
    let told = pidigree(&["wait", LONG, "--json", &dead]).ended_with(0).json();
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0]["event"], &told[0]["status"]), (&json!("gone"), &json!("unknown")));
    assert_eq!(told[0]["token"], dead.as_str());

    let (_family, pid) = idle();
    pidigree(&["wait", LONG, "--any", &pid, &dead]).ended_with(0);
}

#[test]
fn the_time_is_up_with_124() {
    let (_family, pid) = idle();
    for time in ["20ms", "0", "0s", "0.01"] {
        let ran = pidigree(&["wait", "--timeout", time, &pid]).ended_with(124);
        assert!(ran.stderr.contains(&pid), "{ran:?}");
        assert_eq!(ran.stdout, "");
    }
    // Those that had ended are told nevertheless.
    let (_zombie, zombie) = zombie(0);
    let ran = pidigree(&["wait", "-t", "20ms", &pid, &zombie]).ended_with(124);
    assert_eq!(ran.stdout, format!("{zombie} ended: exit code 0\n"));
    assert!(!ran.stderr.contains(&zombie), "{ran:?}");
}

#[test]
fn any_is_the_first_one() {
    let (_family, pid) = idle();
    let (_zombie, zombie) = zombie(5);
    let ran = pidigree(&["wait", LONG, "--any", &pid, &zombie]).ended_with(0);
    assert_eq!(ran.stdout, format!("{zombie} ended: exit code 5\n"));
    pidigree(&["wait", "--timeout=20ms", "--any", &pid]).ended_with(124);
}

#[test]
fn nothing_is_waited_for_if_one_does_not_exist() {
    let (_family, pid) = idle();
    let (_zombie, zombie) = zombie(0);
    pidigree(&["wait", &zombie, &pid, NOBODY]).failed_naming(NOBODY);
    let foreign = crate::common::with_field(&token(&pid), 'n', "1");
    pidigree(&["wait", &zombie, &foreign]).failed_naming(&pid);
}

#[test]
fn more_processes_than_the_soft_limit_allows_can_be_waited_for() {
    let mut children = idle_children(100);
    for index in 0..100 {
        children.kill_one(index);
    }
    let pids: Vec<String> = children.pids().iter().map(u32::to_string).collect();
    let mut args = vec!["wait", LONG];
    args.extend(pids.iter().map(String::as_str));
    let ran = pidigree_in(&["nofile", "40", "200"], &args).ended_with(0);
    assert_eq!(ran.stdout.lines().count(), 100);
    let ran = pidigree_in(&["nofile", "40", "40"], &args);
    ran.failed_naming("ulimit -n");
}

#[test]
fn another_users_process_can_be_waited_for() {
    require!(is_root(), "needs root");
    let (_family, pid) = idle();
    pidigree_as_nobody(&["wait", "--timeout", "20ms", &pid]).ended_with(124);
    let (_zombie, zombie) = zombie(3);
    let ran = pidigree_as_nobody(&["wait", LONG, &zombie]).ended_with(0);
    assert!(ran.stdout.starts_with(&format!("{zombie} ended: ")), "{ran:?}");
}

#[test]
fn it_does_not_wait_for_itself() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" wait $$", crate::common::BINARY]);
    let ran: crate::common::Ran = shell.output().expect("sh runs").into();
    ran.failed_naming("itself");
}

#[test]
fn a_reader_that_left_is_no_drama() {
    let (_zombie, zombie) = zombie(0);
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    drop(reader);
    let ran: crate::common::Ran =
        command(&["wait", &zombie]).stdout(writer).output().expect("it runs").into();
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(141), ""));
}
