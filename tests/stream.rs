//! The watcher as a stream on tokio.
#![cfg(feature = "tokio")]

mod common;

use common::pid;
use futures_util::StreamExt;
use pidigree::{ExitStatus, Process, ProcessWatcher};
use pidigree_testkit::{DEADLINE, idle_children};

#[test]
fn every_end_comes_down_the_stream_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut children = idle_children(50);
        let mut exits = ProcessWatcher::new().unwrap().into_stream().unwrap();
        let mut keys: Vec<_> = children
            .pids()
            .iter()
            .map(|&number| exits.watcher().watch(&Process::open(pid(number)).unwrap()).unwrap())
            .collect();

        // Nothing has ended: it waits, and others run meanwhile.
        let idle = tokio::time::timeout(std::time::Duration::from_millis(50), exits.next()).await;
        assert!(idle.is_err(), "{idle:?}");

        let mut reported = Vec::new();
        for round in 0..2 {
            (round * 25..round * 25 + 25).for_each(|index| children.signal_one(index, 9));
            for _ in 0..25 {
                let exited = tokio::time::timeout(DEADLINE, exits.next())
                    .await
                    .expect("it was killed")
                    .unwrap()
                    .unwrap();
                assert_eq!(exited.status, ExitStatus::Signal(9));
                reported.push(exited.key);
            }
        }
        reported.sort();
        keys.sort();
        assert_eq!(reported, keys);
        assert!(exits.watcher().is_empty());
    });
}
