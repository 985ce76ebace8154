//! `pidigree kill`

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use crate::common::{
    NOBODY, idle, kernel_thread, of_another, pidigree, pidigree_as_nobody, token, token_of_the_dead, zombie,
};
use pidigree_testkit::{is_root, require};

/// A child of this process; killed and reaped when dropped.
struct Victim(Child);

impl Victim {
    fn new() -> Victim {
        Victim::of(Command::new("sleep").arg("1000"))
    }

    fn of(command: &mut Command) -> Victim {
        pidigree_testkit::default_signals();
        Victim(command.spawn().expect("it runs"))
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    fn signal(&mut self) -> Option<i32> {
        self.0.wait().expect("a child can be waited for").signal()
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().expect("a child can be waited for").is_none()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_default_is_term_and_silence() {
    let mut victim = Victim::new();
    assert_eq!(pidigree(&["kill", &victim.pid()]).ended_with(0).stdout, "");
    assert_eq!(victim.signal(), Some(15));
}

#[test]
fn signals_have_names_and_numbers() {
    for (word, number) in [("KILL", 9), ("SIGHUP", 1), ("int", 2), ("10", 10)] {
        let mut victim = Victim::new();
        pidigree(&["kill", "-s", word, &victim.pid()]).ended_with(0);
        assert_eq!(victim.signal(), Some(number), "{word}");
    }
    let (_family, pid) = idle();
    for bad in ["0", "-1", "99", "FOO", ""] {
        pidigree(&["kill", "-s", bad, &pid]).failed_naming(bad);
    }
    pidigree(&["kill", "-9", &pid]).failed_naming("-s 9");
}

#[test]
fn with_wait_the_ends_are_told() {
    let victim = Victim::new();
    let ran = pidigree(&["kill", "--wait", "--timeout", "60s", &token(&victim.pid())]).ended_with(0);
    assert_eq!(ran.stdout, format!("{} ended: signal 15 (SIGTERM)\n", victim.pid()));
    let victim = Victim::new();
    let told = pidigree(&["kill", "--wait", "--json", "-s", "KILL", &victim.pid()]).ended_with(0).json();
    assert_eq!(told[0]["signal_name"], "SIGKILL");
}

#[test]
fn with_wait_the_time_is_up_with_124() {
    let mut stubborn = Command::new("sh");
    stubborn.args(["-c", "trap '' TERM; echo ready; exec sleep 1000"]).stdout(Stdio::piped());
    let mut victim = Victim::of(&mut stubborn);
    let mut ready = String::new();
    BufReader::new(victim.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    let ran = pidigree(&["kill", "--wait", "--timeout", "50ms", &victim.pid()]).ended_with(124);
    assert!(ran.stderr.contains(&victim.pid()), "{ran:?}");
    assert!(victim.runs());
}

#[test]
fn who_has_the_pid_now_is_not_signalled() {
    let mut victim = Victim::new();
    let ran = pidigree(&["kill", &of_another(&token(&victim.pid()))]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.starts_with(&format!("pidigree: process {}: ", victim.pid())), "{ran:?}");
    assert!(victim.runs());
}

#[test]
fn the_dead_are_reported_and_the_others_signalled() {
    let (_zombie, zombie) = zombie(0);
    for dead in [token_of_the_dead(), zombie] {
        let mut victim = Victim::new();
        let ran = pidigree(&["kill", &dead, &victim.pid()]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.ends_with("nobody was signalled\n"), "{ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        assert_eq!(victim.signal(), Some(15));
    }
}

#[test]
fn a_failure_does_not_keep_the_others_from_being_signalled() {
    let mut victim = Victim::new();
    pidigree(&["kill", NOBODY, &victim.pid()]).failed_naming(NOBODY);
    assert_eq!(victim.signal(), Some(15));
}

#[test]
fn some_are_refused() {
    pidigree(&["kill", "1"]).failed_naming("process 1 ");
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" kill $$", crate::common::BINARY]);
    let ran: crate::common::Ran = shell.output().expect("sh runs").into();
    ran.failed_naming("itself");
    let thread = kernel_thread();
    require!(thread, "no kernel thread can be seen from here");
    pidigree(&["kill", &thread.unwrap()]).failed_naming("kernel thread");
}

#[test]
fn another_users_process_is_denied() {
    require!(is_root(), "needs root");
    let mut victim = Victim::new();
    pidigree_as_nobody(&["kill", &victim.pid()]).failed_naming(&victim.pid());
    assert!(victim.runs());
}
