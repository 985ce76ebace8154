//! The heartbeat beats by its own clock.

use std::fs;
use std::time::SystemTime;

use pidigree_testkit::eventually;

use crate::common::{Ran, Runtime, begin, kill, waiting};

fn beats(path: &std::path::Path, times: usize) {
    for _ in 0..times {
        let long_ago = SystemTime::UNIX_EPOCH;
        fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
        eventually("it beats", || (fs::metadata(path).ok()?.modified().ok()? != long_ago).then_some(()));
    }
}

/// Nothing happens in the tree, and it beats; and for a successor, who is told by the file alone.
#[test]
fn it_beats_while_nothing_happens() {
    let runtime = Runtime::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let heart = elsewhere.path().join("heart");
    let family = waiting("exit 0");
    let root = family.fact("root").pid.to_string();
    let args = ["--root", &root, "--heartbeat", heart.to_str().unwrap(), "--every", "20ms"];
    let first = runtime.watching(&args);
    assert!(heart.exists(), "it beats before it says that it watches");
    beats(&heart, 5);
    // The service that looks at it may have been started anew.
    fs::remove_file(&heart).unwrap();
    eventually("it is made again", || heart.exists().then_some(()));
    kill(&first);
    let second = runtime.watching(&[""; 0]);
    beats(&heart, 3);
    begin(&family);
    runtime.ends(&second);
    runtime.is_gone();
    assert!(heart.exists(), "it is the service's, and others may touch it");
}

/// It beats for as long as there is something to clean up.
#[test]
fn it_beats_during_the_cleanup() {
    let runtime = Runtime::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let (heart, fifo) = (elsewhere.path().join("heart"), elsewhere.path().join("fifo"));
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let family = waiting("exit 0");
    let root = family.fact("root").pid.to_string();
    let args = ["--root", &root, "--heartbeat", heart.to_str().unwrap(), "--every", "0.02"];
    let cleanup = ["--on-empty", "sh", "-c", "read word < \"$0\"", fifo.to_str().unwrap()];
    let monitor = runtime.watching(&[&args[..], &cleanup].concat());
    begin(&family);
    let word = fs::OpenOptions::new().write(true).open(&fifo).unwrap();
    beats(&heart, 3);
    drop(word);
    runtime.ends(&monitor);
}

/// Trouble with it is written down, and is no reason to leave the runtime alone.
#[test]
fn a_heartbeat_that_cannot_be_touched_is_told() {
    let runtime = Runtime::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let heart = elsewhere.path().join("folder/heart");
    let family = waiting("exit 0");
    let root = family.fact("root").pid.to_string();
    let args = ["--root", &root, "--heartbeat", heart.to_str().unwrap(), "--every", "20ms"];
    let refused = Ran::from(runtime.command(&args).output().unwrap());
    refused.failed(2, &[heart.to_str().unwrap(), "No such file"]);
    assert!(!runtime.file.exists());
    fs::create_dir(heart.parent().unwrap()).unwrap();
    let monitor = runtime.watching(&args);
    fs::remove_dir_all(heart.parent().unwrap()).unwrap();
    eventually("it is written down", || {
        runtime.record().trouble.filter(|trouble| trouble.contains("heartbeat"))
    });
    begin(&family);
    runtime.ends(&monitor);
    runtime.is_gone();
}
