//! M1: from a runtime's last exit until its file is gone. M2: how still an idle monitor is, which is looked at from outside:
//! with `PIDIGREE_BENCH_IDLE` this program keeps one until its standard input ends.
//!
//! Of each latency one line for `scripts/bench-table`, which sets `PIDIGREE_BENCH_PAIRED` to the milliseconds that may be taken.
//!
//! The file is looked for again and again, without a pause: to be told of its end would take a watch on its folder, and what the
//! kernel has to clear away after that is in the way of the next round.

use std::ffi::OsStr;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pidigree::{Pid, Process, Signal};
use pidigree_testkit::Family;
use serde_json::json;
use spfs_monitor::Record;
use tempfile::TempDir;

const MONITOR: &str = env!("CARGO_BIN_EXE_spfs-monitor");

fn main() {
    if std::env::var_os("PIDIGREE_BENCH_IDLE").is_some() {
        return idle();
    }
    let milliseconds =
        std::env::var("PIDIGREE_BENCH_PAIRED").map_or(3_000, |text| text.parse().expect("a number"));
    let rounds: usize = if milliseconds < 3_000 { 40 } else { 200 };
    measure("last exit to runtime file gone", rounds, &[]);
    measure("last exit to runtime file gone, cleanup executes true", rounds, &["--on-empty", "true"]);
    let others = pidigree_testkit::idle_children(2_000);
    measure("last exit to runtime file gone, among 2000 idle processes", rounds, &[]);
    drop(others);
}

/// A runtime whose root has left somebody behind, who is its last member.
struct Runtime {
    folder: TempDir,
    family: Family,
    last: Process,
    monitor: Process,
}

impl Runtime {
    fn new(args: &[&str]) -> Runtime {
        let folder = TempDir::new().expect("a folder");
        let family = Family::spawn("say root await fork [ orphaned say last pause ]");
        let root = family.fact("root").pid;
        let mut command = Command::new(MONITOR);
        command.arg("--runtime").arg(folder.path().join("runtime")).args(["--root", &root.to_string()]);
        let said = command.args(args.iter().map(OsStr::new)).stdin(Stdio::null()).output();
        assert_eq!(said.expect("the monitor runs").stdout, b"watching\n");
        family.poke(root);
        let last = Process::open(Pid::new(family.fact("last").pid).expect("a PID")).expect("it waits");
        let record = Record::read(&folder.path().join("runtime")).expect("it watches");
        let monitor = Process::reopen(&record.owner).expect("it watches");
        Runtime { folder, family, last, monitor }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("runtime")
    }

    fn end(&self) {
        self.last.signal(Signal::KILL).expect("it waits");
    }
}

fn measure(case: &str, rounds: usize, args: &[&str]) {
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let runtime = Runtime::new(args);
            let file = runtime.file();
            settled(&runtime.monitor);
            let start = Instant::now();
            runtime.end();
            while file.symlink_metadata().is_ok() {
                assert!(start.elapsed() < Duration::from_secs(60), "the runtime file stays");
                std::thread::yield_now();
            }
            let took = start.elapsed();
            runtime.family.wait_all();
            runtime.monitor.wait(None).expect("it ends");
            took
        })
        .collect();
    times.sort_unstable();
    let at = |rank: f64| {
        times[((rank * rounds as f64).ceil().max(1.0) as usize).min(rounds) - 1].as_nanos() as u64
    };
    let reach = 1.96 * (0.99 * 0.01 / rounds as f64).sqrt();
    println!(
        "{}",
        json!({
            "kind": "gone", "table": "M1", "case": case, "rounds": rounds, "p50_ns": at(0.5), "p99_ns": at(0.99),
            "p99_low_ns": at(0.99 - reach), "p99_high_ns": at(0.99 + reach), "max_ns": at(1.0),
        })
    );
}

/// Long enough for the events of the beginning, not for what comes a second later: that is not measured.
fn settled(monitor: &Process) {
    assert_eq!(monitor.wait(Some(Duration::from_millis(20))).expect("it watches"), None);
}

fn idle() {
    let runtime = Runtime::new(&[]);
    // It has saved what it heard at the beginning.
    let first = std::fs::metadata(runtime.file()).expect("the record").modified().ok();
    let begun = Instant::now();
    while std::fs::metadata(runtime.file()).expect("the record").modified().ok() == first {
        assert!(begun.elapsed() < Duration::from_secs(30), "the tree was not saved anew");
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("{}", json!({ "pids": [runtime.monitor.pid().get()], "coverage": "a monitor" }));
    std::io::stdin().read_to_end(&mut Vec::new()).expect("a pipe");
    runtime.end();
    runtime.monitor.wait(None).expect("it ends");
}
