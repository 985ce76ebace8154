//! The cleanup command: what it finds, and what becomes of its failure.

use pidigree::ExitStatus;
use pidigree_testkit::Family;
use spfs_monitor::Phase;

use crate::common::{PATIENCE, Ran, Runtime, begin, waiting};

/// A tree that ends as soon as it is watched, its monitor in the foreground.
fn in_foreground(runtime: &Runtime, args: &[&str]) -> Ran {
    let family = waiting("exit 0");
    let root = family.fact("root").pid;
    let mut command = runtime.command(&["--foreground", "--root", &root.to_string()]);
    command.args(args).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let monitor = command.spawn().unwrap();
    pidigree_testkit::eventually("it watches", || runtime.file.exists().then_some(()));
    begin(&family);
    Ran::from(monitor.wait_with_output().unwrap())
}

#[test]
fn in_the_foreground_it_ends_as_the_cleanup_did() {
    let runtime = Runtime::new();
    let ran = in_foreground(&runtime, &["--on-empty", "sh", "-c", "echo out; pwd; echo err >&2"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (Some(0), "watching\nout\n/\n", "err\n")
    );
    runtime.is_gone();
    let ran = in_foreground(&runtime, &[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "watching\n"));
    runtime.is_gone();
}

#[test]
fn a_failure_is_kept_with_its_reason_and_tried_again_later() {
    let runtime = Runtime::new();
    for (command, why) in [
        (&["sh", "-c", "exit 3"][..], "exit status: 3"),
        (&["sh", "-c", "kill -9 $$"], "signal: 9"),
        (&["/no/such/program"], "No such file"),
    ] {
        let ran = in_foreground(&runtime, &[&["--on-empty"], command].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), "watching\n"));
        assert!(ran.stderr.contains(why) && ran.stderr.contains(runtime.file.to_str().unwrap()), "{ran:?}");
        let record = runtime.record();
        assert_eq!(record.phase, Phase::Failed, "{command:?}");
        assert!(record.failure.as_ref().unwrap().contains(why), "{record:?}");
        runtime.is_tidy();
        // It fails again, and says so again.
        let again = Ran::from(runtime.command(&["--foreground"]).output().unwrap());
        assert_eq!(again.code, Some(1), "{again:?}");
        assert!(again.stderr.contains(why), "{again:?}");
        // And with another command it does not.
        let mut args = vec!["--foreground".into()];
        args.extend(runtime.logs());
        let ran = Ran::from(runtime.command(&args).output().unwrap());
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "watching\n", ""));
        runtime.is_gone();
        assert_eq!(runtime.logged(), ["cleaned"]);
        std::fs::remove_file(&runtime.log).unwrap();
    }
}

/// Shells ignore SIGINT and SIGQUIT for what they start in the background; the cleanup shall not inherit that, nor a blocked signal.
#[cfg(target_os = "linux")] // where /proc says what is ignored
#[test]
fn the_cleanup_ignores_and_blocks_nothing() {
    let runtime = Runtime::new();
    let family = waiting("exit 0");
    let root = family.fact("root").pid.to_string();
    let script = "trap '' INT QUIT HUP USR1 PIPE CHLD; exec \"$@\"";
    let cleanup = "grep -E '^Sig(Blk|Ign):' /proc/self/status > \"$0\"";
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", script, "sh", crate::common::BINARY, "--root", &root, "--runtime"])
        .arg(&runtime.file);
    command.args(["--on-empty", "sh", "-c", cleanup]).arg(&runtime.log);
    assert!(command.status().unwrap().success());
    let monitor = pidigree::Process::reopen(&runtime.record().owner).unwrap();
    begin(&family);
    runtime.ends(&monitor);
    runtime.is_gone();
    let masks: Vec<u64> =
        runtime.logged().iter().map(|line| u64::from_str_radix(&line[8..], 16).expect("a mask")).collect();
    // The C library keeps two real-time signals for itself, and lets nobody touch them.
    assert_eq!(masks.iter().map(|mask| mask & 0x7fff_ffff).collect::<Vec<_>>(), [0, 0], "{masks:x?}");
}

/// It is a process of its own: no descriptor of ours reaches it, the lock least of all.
#[cfg(target_os = "linux")] // where /proc lists them
#[test]
fn the_cleanup_inherits_no_descriptor() {
    let runtime = Runtime::new();
    let family = waiting("exit 0");
    let root = family.fact("root").pid.to_string();
    let lists = "for fd in /proc/self/fd/*; do readlink $fd; done > \"$0\"";
    let args = ["--root", &root, "--on-empty", "sh", "-c", lists, runtime.log.to_str().unwrap()];
    let monitor = runtime.watching(&args);
    begin(&family);
    runtime.ends(&monitor);
    // The list is made by the shell, the links are read by others, who have three.
    let log = runtime.log.to_str().unwrap();
    assert_eq!(runtime.logged(), ["/dev/null", log, "/dev/null"]);
}

/// Whoever the cleanup leaves behind is waited for by nobody.
#[test]
fn what_the_cleanup_leaves_behind_holds_nothing() {
    let runtime = Runtime::new();
    let lifeline = Family::spawn("say alive pause");
    let ran = in_foreground(&runtime, &["--on-empty", "sh", "-c", "sleep 600 > /dev/null 2>&1 & echo $!"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    runtime.is_gone();
    let left: pidigree::Pid = ran.stdout.lines().nth(1).unwrap().parse().unwrap();
    let left = pidigree::Process::open(left).unwrap();
    left.signal(pidigree::Signal::KILL).unwrap();
    let status = left.wait(Some(PATIENCE)).unwrap().unwrap();
    assert!(matches!(status, ExitStatus::Signal(9) | ExitStatus::Unknown));
    drop(lifeline);
}
