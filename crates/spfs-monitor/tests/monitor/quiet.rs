//! What an idle monitor costs.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{Runtime, begin, waiting};

/// Of each thread, how often it was woken, and in which system call it is.
fn threads(pid: u32) -> Vec<(u64, String)> {
    let mut threads: Vec<_> = fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .map(|thread| {
            let path = thread.unwrap().path();
            let status = fs::read_to_string(path.join("status")).unwrap();
            let count = |key: &str| -> u64 {
                let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
                line.trim().parse().unwrap()
            };
            let switches = count("voluntary_ctxt_switches:") + count("nonvoluntary_ctxt_switches:");
            (switches, fs::read_to_string(path.join("syscall")).unwrap())
        })
        .collect();
    threads.sort();
    threads
}

/// A thread that was never woken has made no system call, nor anything else.
#[test]
fn an_idle_monitor_is_never_woken() {
    let others = pidigree_testkit::idle_children(200);
    let runtime = Runtime::new();
    let family = waiting("double-fork [ say daemon pause ] pause");
    let monitor = runtime.watch(family.fact("root").pid);
    begin(&family);
    family.fact("daemon");
    let number = monitor.pid().get();
    // What it writes down about the daemon, it does once.
    pidigree_testkit::eventually("the daemon is written down", || {
        let state = serde_json::to_value(runtime.record().tree).unwrap();
        (state["lineage"]["members"].as_array().unwrap().len() == 2).then_some(())
    });
    pidigree_testkit::eventually("it is asleep", || {
        let before = threads(number);
        std::thread::sleep(Duration::from_millis(100));
        let asleep = before.iter().all(|(_, call)| call.trim() != "running");
        (asleep && before == threads(number)).then_some(())
    });
    let (before, begun) = (threads(number), Instant::now());
    while begun.elapsed() < Duration::from_secs(2) {
        assert!(Command::new("true").status().unwrap().success());
    }
    assert_eq!(threads(number), before, "what others do is nothing to it");
    let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: u64 = resident.trim().strip_suffix(" kB").unwrap().trim().parse().unwrap();
    assert!(resident < 6 << 10, "{resident} KiB");
    drop(others);
}
