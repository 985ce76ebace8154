//! Killed at any moment and started again: still once.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use pidigree::Process;
use spfs_monitor::{Phase, Record};

use crate::common::{PATIENCE, Ran, Runtime, begin, kill, pid, side_by_side, waiting};

/// As it is started again: the file says the rest.
const AGAIN: [&str; 0] = [];

/// While members live; one of them is forked and orphaned while nobody watches.
#[test]
fn killed_while_members_live() {
    side_by_side(pidigree_testkit::rounds(50), |round| {
        let runtime = Runtime::new();
        let family =
            waiting("fork [ say child await double-fork [ say orphan await ] exit 0 ] say shell await");
        let first = runtime.watch(family.fact("root").pid);
        begin(&family);
        let (child, shell) = (family.fact("child").pid, family.fact("shell").pid);
        let meanwhile = |member| {
            family.poke(member);
            family.wait_ended(member);
        };
        kill(&first);
        assert!(runtime.file.exists() && runtime.logged().is_empty());
        // Nobody watches.
        meanwhile(child);
        let orphan = family.fact("orphan").pid;
        if round % 2 == 0 {
            meanwhile(shell);
        }
        let second = runtime.watching(&AGAIN);
        assert_ne!(first.identity(), second.identity());
        runtime.lives(&second, "members live");
        if round % 2 == 1 {
            meanwhile(shell);
            runtime.lives(&second, "the orphan lives");
        }
        family.poke(orphan);
        runtime.is_over(&second, &family);
    });
}

/// All of it ends while nobody watches.
#[test]
fn killed_and_started_again_after_the_end() {
    side_by_side(pidigree_testkit::rounds(50), |_| {
        let runtime = Runtime::new();
        let family = waiting("double-fork [ say daemon await ] exit 0");
        let first = runtime.watch(family.fact("root").pid);
        begin(&family);
        let daemon = family.fact("daemon").pid;
        kill(&first);
        family.poke(daemon);
        family.wait_all();
        assert!(runtime.file.exists() && runtime.logged().is_empty());
        runtime.says_watching(&AGAIN);
        over_soon(&runtime);
        assert_eq!(runtime.logged(), ["cleaned"]);
    });
}

/// While the cleanup runs: that goes on, and the next monitor takes its result. Another one meanwhile refuses.
#[test]
fn killed_during_the_cleanup() {
    side_by_side(pidigree_testkit::rounds(50), |round| {
        let runtime = Runtime::new();
        let fifo = Fifo::new();
        let family = waiting("exit 0");
        let root = family.fact("root").pid.to_string();
        let code = round % 2;
        let script = format!("echo begun >> \"$0\"; read word < \"$1\"; echo ended >> \"$0\"; exit {code}");
        let words = ["--root", &root, "--on-empty", "sh", "-c", &script];
        let mut args: Vec<&std::ffi::OsStr> = words.iter().map(std::ffi::OsStr::new).collect();
        args.extend([runtime.log.as_os_str(), fifo.path.as_os_str()]);
        let first = runtime.watching(&args);
        begin(&family);
        let mut word = fifo.opened();
        kill(&first);
        let record = runtime.record();
        assert_eq!((record.phase, record.owner), (Phase::Cleaning, *first.identity()));
        let cleaner = Process::reopen(&record.cleaner.expect("who cleans up")).unwrap();
        let second = runtime.watching(&AGAIN);
        let third = Ran::from(runtime.command(&AGAIN).output().unwrap());
        third.failed(3, &["is being cleaned up by", &format!("p1:{}:", second.pid())]);
        assert_eq!(runtime.logged(), ["begun"], "it has not been begun again");
        word.write_all(b"go\n").unwrap();
        drop(word);
        assert!(cleaner.wait(Some(PATIENCE)).unwrap().is_some());
        runtime.ends(&second);
        assert_eq!(runtime.logged(), ["begun", "ended"]);
        if code == 0 {
            runtime.is_gone();
            return;
        }
        let record = runtime.record();
        assert_eq!(record.phase, Phase::Failed);
        assert!(record.failure.unwrap().contains("exit code 1"));
    });
}

/// The cleanup ended when nobody was there to see how: that is said, and nothing is done unasked.
#[test]
fn a_cleanup_whose_end_nobody_saw_is_not_begun_again_unasked() {
    let runtime = Runtime::new();
    let fifo = Fifo::new();
    let family = waiting("exit 0");
    let root = family.fact("root").pid.to_string();
    let script = "echo begun >> \"$0\"; read word < \"$1\"; exit 0";
    let words = ["--root", &root, "--on-empty", "sh", "-c", script];
    let mut args: Vec<&std::ffi::OsStr> = words.iter().map(std::ffi::OsStr::new).collect();
    args.extend([runtime.log.as_os_str(), fifo.path.as_os_str()]);
    let first = runtime.watching(&args);
    begin(&family);
    let word = fifo.opened();
    kill(&first);
    let cleaner = Process::reopen(&runtime.record().cleaner.expect("who cleans up")).unwrap();
    drop(word);
    assert!(cleaner.wait(Some(PATIENCE)).unwrap().is_some());
    pidigree_testkit::eventually("it has been reaped", || {
        Process::reopen(cleaner.identity()).is_err_and(|error| error.is_gone()).then_some(())
    });
    let before = std::fs::read(&runtime.file).unwrap();
    let refused = Ran::from(runtime.command(&AGAIN).output().unwrap());
    refused.failed(4, &["--retry", &format!("p1:{}:", cleaner.pid()), runtime.file.to_str().unwrap()]);
    assert_eq!(std::fs::read(&runtime.file).unwrap(), before, "nothing was changed");
    assert_eq!(runtime.logged(), ["begun"]);
    runtime.says_watching(&["--retry"]);
    drop(fifo.opened());
    over_soon(&runtime);
    assert_eq!(runtime.logged(), ["begun", "begun"]);
}

/// At no matter what moment around the end, again and again: it is begun once, or it is told that nobody knows.
#[test]
fn killed_at_any_moment_it_cleans_up_once() {
    side_by_side(pidigree_testkit::rounds(50), |round| {
        let runtime = Runtime::new();
        let family = waiting("exit 0");
        let mut monitor = runtime.watch(family.fact("root").pid);
        begin(&family);
        // From before the end to after everything.
        let mut moment = Duration::from_micros(100 * (round as u64 % 50));
        loop {
            spin(moment);
            let _ = monitor.signal(pidigree::Signal::KILL);
            assert!(monitor.wait(Some(PATIENCE)).unwrap().is_some());
            let ran = Ran::from(runtime.command(&AGAIN).output().unwrap());
            match ran.code {
                // The file was gone.
                Some(2) => {
                    ran.failed(2, &["there is no runtime file"]);
                    break;
                }
                // Killed after the cleanup's end, and before that was known.
                Some(4) => {
                    runtime.says_watching(&["--retry"]);
                    over_soon(&runtime);
                    assert!([1, 2].contains(&runtime.logged().len()));
                    return;
                }
                Some(0) => {}
                _ => panic!("{ran:?}"),
            }
            let record = Record::read(&runtime.file);
            match record.map(|record| Process::reopen(&record.owner)) {
                Ok(Ok(next)) => monitor = next,
                _ => {
                    over_soon(&runtime);
                    break;
                }
            }
            assert!(moment < PATIENCE, "it never comes to the end: {:?}", Record::read(&runtime.file));
            moment += Duration::from_micros(300).max(moment / 8);
        }
        runtime.is_gone();
        assert_eq!(runtime.logged(), ["cleaned"]);
    });
}

/// As `is_gone`, of a monitor that was perhaps too fast to be looked at.
#[track_caller]
fn over_soon(runtime: &Runtime) {
    pidigree_testkit::eventually("the runtime file is gone", || (!runtime.file.exists()).then_some(()));
    runtime.is_tidy();
}

fn spin(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Somewhere else, so that the runtime's folder is nobody's but its own.
struct Fifo {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
}

impl Fifo {
    fn new() -> Fifo {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        Fifo { _folder: folder, path }
    }

    /// When somebody has opened it to read.
    fn opened(&self) -> std::fs::File {
        OpenOptions::new().write(true).open(&self.path).unwrap()
    }
}

/// Who was there beside the tree, young and below the same parents, is not waited for.
#[test]
fn strangers_of_the_time_before_hold_nothing() {
    side_by_side(pidigree_testkit::rounds(50).min(10), |_| {
        let runtime = Runtime::new();
        let family = waiting("say shell await");
        let root = family.fact("root").pid;
        let strangers = pidigree_testkit::Family::spawn("fork [ say stranger pause ] pause");
        let stranger = pid(strangers.fact("stranger").pid);
        let first = runtime.watch(root);
        begin(&family);
        let shell = family.fact("shell").pid;
        kill(&first);
        let second = runtime.watching(&AGAIN);
        runtime.lives(&second, "the shell lives");
        family.poke(shell);
        runtime.is_over(&second, &family);
        assert!(!strangers.has_ended() && Process::open(stranger).is_ok());
    });
}
