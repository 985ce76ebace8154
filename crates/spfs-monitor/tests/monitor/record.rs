//! What others find in the runtime file.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use pidigree::Identity;
use spfs_monitor::{Phase, Record};

use crate::common::{Runtime, begin, kill, pid, waiting};

#[test]
fn it_names_everybody_by_token() {
    let runtime = Runtime::new();
    let family = waiting("exit 0");
    let root = family.fact("root").pid;
    let monitor = runtime.watch(root);
    let value: serde_json::Value = serde_json::from_slice(&fs::read(&runtime.file).unwrap()).unwrap();
    // Tokens may say more or less of one process.
    let whom = |key: &str| value[key].as_str().unwrap().parse::<Identity>().unwrap();
    assert_eq!(value["phase"], "watching");
    assert_eq!(whom("root"), Identity::of(pid(root)).unwrap());
    assert_eq!(whom("owner"), *monitor.identity());
    assert_eq!(value["on_empty"][0], "sh");
    let mode = fs::metadata(&runtime.file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it names a command that is executed");
    begin(&family);
    runtime.is_over(&monitor, &family);
}

/// Whoever comes later knows of members that were not there at first.
#[test]
fn members_that_come_are_written_down() {
    let runtime = Runtime::new();
    let family = waiting("double-fork [ say daemon pause ] pause");
    let monitor = runtime.watch(family.fact("root").pid);
    begin(&family);
    // Its start time may be told otherwise, as long as it was in the tick of that.
    let daemon = format!("\"p1:{}:", family.fact("daemon").pid);
    pidigree_testkit::eventually("the daemon is written down", || {
        serde_json::to_string(&runtime.record().tree).unwrap().contains(&daemon).then_some(())
    });
    kill(&monitor);
}

/// It is read while it is written anew, again and again: it is always whole, and there.
#[test]
fn it_is_always_whole() {
    let runtime = Runtime::new();
    let family = waiting("exit 0");
    let mut monitor = runtime.watch(family.fact("root").pid);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut read = 0;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                let record = Record::read(&runtime.file).expect("it is always there");
                assert_eq!(record.phase, Phase::Watching);
                read += 1;
            }
            read
        });
        for _ in 0..pidigree_testkit::rounds(50) {
            kill(&monitor);
            monitor = runtime.watching(&[""; 0]);
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(reader.join().unwrap() > 0);
    });
    begin(&family);
    runtime.is_over(&monitor, &family);
}

/// Somebody removed the file, or the folder with it: the runtime is cleaned up all the same, and nobody else's file is touched.
#[test]
fn a_file_that_was_removed_is_not_missed() {
    let runtime = Runtime::new();
    let family = waiting("exit 0");
    let monitor = runtime.watch(family.fact("root").pid);
    fs::remove_file(&runtime.file).unwrap();
    fs::write(&runtime.file, "somebody else's").unwrap();
    begin(&family);
    runtime.ends(&monitor);
    assert_eq!(runtime.logged(), ["cleaned"]);
    assert_eq!(fs::read_to_string(&runtime.file).unwrap(), "somebody else's");
}
