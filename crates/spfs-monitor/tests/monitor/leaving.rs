//! Told to leave, it leaves, and the next one goes on.

use pidigree::{ExitStatus, Signal};
use spfs_monitor::Phase;

use crate::common::{PATIENCE, Runtime, begin, waiting};

#[test]
fn a_signal_has_it_leave_and_the_next_one_goes_on() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut runtime = Runtime::new();
        // Under nohup it would be ignored. The env(1) of others has no such option.
        let heard: &[&str] = if cfg!(target_os = "linux") { &["env", "--default-signal=HUP"] } else { &[] };
        runtime.launcher.extend(heard.iter().map(Into::into));
        let family = waiting("say shell await");
        let first = runtime.watch(family.fact("root").pid);
        begin(&family);
        let shell = family.fact("shell").pid;
        first.signal(signal).unwrap();
        let status = first.wait(Some(PATIENCE)).unwrap().expect("it leaves");
        assert!(
            [ExitStatus::Code(128 + signal.number()), ExitStatus::Unknown].contains(&status),
            "{status:?}"
        );
        assert_eq!(runtime.record().phase, Phase::Watching);
        runtime.is_tidy();
        assert!(runtime.logged().is_empty());
        let second = runtime.watching(&[""; 0]);
        runtime.lives(&second, "the shell lives");
        family.poke(shell);
        runtime.is_over(&second, &family);
    }
}

/// What ignores SIGINT by its shell's doing leaves all the same; SIGHUP stays ignored for those under nohup.
#[test]
fn what_a_shell_ignores_is_heard() {
    let runtime = Runtime::new();
    let family = waiting("exit 0");
    let root = family.fact("root").pid.to_string();
    let script = "trap '' INT QUIT HUP; exec \"$@\"";
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", script, "sh", crate::common::BINARY, "--root", &root, "--runtime"])
        .arg(&runtime.file);
    assert!(command.status().unwrap().success());
    let monitor = pidigree::Process::reopen(&runtime.record().owner).unwrap();
    monitor.signal(Signal::HUP).unwrap();
    runtime.lives(&monitor, "it ignores that");
    monitor.signal(Signal::INT).unwrap();
    runtime.ends(&monitor);
    assert_eq!(runtime.record().phase, Phase::Watching);
}
