//! `pidigree watch`

use std::os::unix::process::ExitStatusExt;

use crate::common::{NOBODY, Running, object, pidigree, token, token_of_the_dead};
use pidigree_testkit::Family;

#[test]
fn each_process_is_named_and_each_end_is_told_as_it_happens() {
    let family = Family::spawn("fork [ say one await exit 1 ] fork [ say two await exit 2 ] say root pause");
    let (one, two) = (family.fact("one").pid, family.fact("two").pid);
    let mut watch = Running::start(&["watch", "--json", &one.to_string(), &token(&two.to_string())]);
    for pid in [one, two] {
        let told = object(&watch.line());
        assert_eq!(told["event"], "watching");
        assert_eq!(told["pid"], pid);
        assert!(told["command"].as_str().unwrap().contains("pidigree-testkit fork"), "{told}");
        assert!(told["status"].is_null());
    }
    for (pid, code) in [(two, 2), (one, 1)] {
        family.poke(pid);
        let told = object(&watch.line());
        assert_eq!((&told["event"], &told["pid"]), (&"ended".into(), &pid.into()));
        assert!(told["at"].as_str().unwrap().ends_with('Z'), "{told}");
        assert!(told["age_seconds"].as_f64().is_some(), "{told}");
        if told["status"] != "unknown" {
            assert_eq!((&told["status"], &told["code"]), (&"exited".into(), &code.into()));
        }
    }
    assert_eq!(watch.line(), "");
    assert_eq!(watch.code(), Some(0));
}

#[test]
fn text_has_times_and_commands() {
    let (_family, pid) = crate::common::zombie(3);
    let ran = pidigree(&["watch", &pid]).ended_with(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{ran:?}");
    assert!(lines[0].contains(" watching, ") && lines[0].ends_with(": [pidigree-testki]"), "{ran:?}");
    assert!(lines[1].contains(&format!("{pid} ended: exit code 3, after ")), "{ran:?}");
    let ran = pidigree(&["watch", &token_of_the_dead()]).ended_with(0);
    assert!(ran.stdout.ends_with(" gone: had ended before, status unknown\n"), "{ran:?}");
}

#[test]
fn an_interrupt_ends_it_as_one_ends_any_command() {
    let (_family, pid) = crate::common::idle();
    let mut watch = Running::start(&["watch", &pid]);
    assert!(watch.line().contains("watching"));
    let child = i32::try_from(watch.child.id()).unwrap();
    // Unreaped and ours, so this PID is still this child.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), nix::sys::signal::SIGINT)
        .expect("our own child");
    assert_eq!(watch.child.wait().unwrap().signal(), Some(2));
}

#[test]
fn nothing_is_watched_if_one_does_not_exist() {
    let (_family, pid) = crate::common::idle();
    pidigree(&["watch", &pid, NOBODY]).failed_naming(NOBODY);
}
