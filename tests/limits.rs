//! Trap 20: descriptors run out, and that is neither an end nor an absence.
#![cfg(target_os = "linux")] // only there a process that is looked at takes a descriptor

mod common;

use std::fs::File;

use common::pid;
use pidigree::{Process, ProcessWatcher, Snapshot, capabilities, parent_of};
use pidigree_testkit::{DEADLINE, idle_children, stage};

#[test]
fn a_watcher_raises_the_soft_limit() {
    stage("a_watcher_raises_the_soft_limit", &["nofile", "1024", "20000"], || {
        let children = idle_children(5000);
        let watcher = ProcessWatcher::new().unwrap();
        for &number in children.pids() {
            watcher.watch(&Process::open(pid(number)).unwrap()).unwrap();
        }
        assert_eq!(watcher.len(), 5000);
        drop(children);
        let mut ends = Vec::new();
        while ends.len() < 5000 {
            ends.push(watcher.wait(Some(DEADLINE)).unwrap().expect("all of them end"));
            watcher.drain(&mut ends).unwrap();
        }
        let keys: std::collections::HashSet<_> = ends.iter().map(|end| end.key).collect();
        assert_eq!(keys.len(), 5000);
    });
}

#[test]
fn at_the_hard_limit_it_is_a_limit_and_not_an_end() {
    stage("at_the_hard_limit_it_is_a_limit_and_not_an_end", &["nofile", "128", "128"], || {
        let mut children = idle_children(200);
        let watcher = ProcessWatcher::new().unwrap();
        let error = children
            .pids()
            .iter()
            .find_map(|&number| Process::open(pid(number)).and_then(|process| watcher.watch(&process)).err())
            .expect("200 processes do not fit 128 descriptors");
        assert!(error.is_limit() && !error.is_gone(), "{error}");
        assert!(error.to_string().contains("ulimit"), "{error}");
        let watched = watcher.len();
        assert!(watched > 90, "only {watched} were watched before that");

        // Those that are watched stay so; each end makes room.
        (0..watched).for_each(|index| children.kill_one(index));
        for _ in 0..watched {
            assert!(watcher.wait(Some(DEADLINE)).unwrap().is_some());
        }
        let last = *children.pids().last().unwrap();
        watcher.watch(&Process::open(pid(last)).unwrap()).unwrap();
    });
}

#[test]
fn without_any_descriptor_nothing_is_concluded() {
    stage("without_any_descriptor_nothing_is_concluded", &["nofile", "64", "64"], || {
        let children = idle_children(1);
        let child = pid(children.pids()[0]);
        let fill = || std::iter::from_fn(|| File::open("/dev/null").ok()).collect::<Vec<_>>();

        // Even what the kernel offers cannot be found out now; and that is not remembered as "nothing".
        let full = fill();
        assert!(capabilities().unwrap_err().is_limit());
        assert!(parent_of(child).unwrap_err().is_limit());
        drop(full);
        let before = capabilities().unwrap().to_string();
        let process = Process::open(child).unwrap();
        assert!(parent_of(child).is_ok());

        let full = fill();
        for error in [
            parent_of(child).map(drop).unwrap_err(),
            Process::open(child).map(drop).unwrap_err(),
            process.parent().map(drop).unwrap_err(),
            process.children().map(drop).unwrap_err(),
            Snapshot::capture().map(drop).unwrap_err(),
            ProcessWatcher::new().map(drop).unwrap_err(),
            pidigree::is_descendant(child, pid(1)).map(drop).unwrap_err(),
            Process::reopen(process.identity()).map(drop).unwrap_err(),
        ] {
            assert!(error.is_limit() && !error.is_gone(), "{error}");
        }
        drop(full);
        assert_eq!(process.parent().unwrap().unwrap().pid(), Process::current().unwrap().pid());
        assert_eq!(capabilities().unwrap().to_string(), before);
    });
}
