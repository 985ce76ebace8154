//! B7: from a tree's last exit to `Empty`, and how still an idle tree is. B8: a tree under a storm of forks.
//!
//! None of it can take turns of a fraction of a millisecond, as the judge's pairs do. For `scripts/bench-table` there are
//! lines of other kinds, then: a latency by its percentiles, taken in turns of one exit each, and what a storm cost. Idle
//! trees are looked at from outside: `PIDIGREE_BENCH_IDLE` names the backend of one, which this program keeps until its
//! standard input ends.

#[expect(dead_code, reason = "each benchmark takes its part of it")]
mod common;

use std::collections::HashMap;
use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use common::judge::{Contest, Judge, Work};
use common::pid;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use pidigree::{Backend, Process, Promise, Signal, Tree, TreeChild, TreeEvent, parent_of};
use pidigree_testkit::Family;
use serde_json::json;

/// Those of this system.
const BACKENDS: &[Backend] = if cfg!(target_os = "macos") {
    &[Backend::Kqueue]
} else {
    &[Backend::Cgroup, Backend::ProcConnector, Backend::Subreaper, Backend::Poll]
};

/// Those that see every member.
const SEEING: [Backend; 2] = [Backend::Cgroup, Backend::ProcConnector];

/// The root leaves an orphan behind.
const ORPHAN: &str = "fork [ orphaned say orphan pause ]";

/// How many fork side by side in a storm.
const PARENTS: u64 = 50;

fn main() {
    if let Ok(backend) = std::env::var("PIDIGREE_BENCH_IDLE") {
        return idle(backend.parse().expect("a backend"));
    }
    let mut judge = Judge::from_env();
    if let Judge::Paired { time } = judge {
        let milliseconds = time.as_millis() as u64;
        latencies((milliseconds / 2).min(1_000));
        storms((milliseconds * 50).min(100_000));
        return;
    }
    for &backend in BACKENDS {
        match refusal(backend) {
            None => judge.hold(
                Contest::new("B7", latency_of(backend), each_of(|| last_exit(backend)))
                    .against("floor", each_of(last_exit_raw)),
            ),
            Some(reason) => eprintln!("no {backend} here: {reason}"),
        }
    }
}

fn latency_of(backend: Backend) -> String {
    format!("last exit to Empty, {backend}")
}

fn each_of<'a>(mut work: impl FnMut() -> Duration + 'a) -> Work<'a> {
    Box::new(move |times| (0..times).map(|_| work()).sum())
}

/// Why there are no trees of this kind here.
fn refusal(backend: Backend) -> Option<String> {
    match Tree::builder().backend(backend).spawn(&mut Command::new("true")) {
        Ok((tree, mut child)) => {
            tree.wait_empty(None).expect("a tree that can be followed");
            child.wait().expect("a child");
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

/// A tree whose root has left, and whose last member is asleep.
struct Remnant {
    tree: Tree,
    orphan: Process,
    // Ends with its family, which comes after it
    _child: TreeChild,
    _family: Family,
}

impl Remnant {
    fn new(backend: Backend) -> Remnant {
        let (family, (tree, mut child)) = Family::builder().spawn_by(ORPHAN, |command| {
            Tree::builder().backend(backend).spawn(command).expect("a tree of this kind")
        });
        let orphan = asleep(&family);
        child.wait().expect("a child");
        let root = tree.root();
        loop {
            match tree.next_event(None).expect("a tree that can be followed") {
                Some(TreeEvent::Left { member, .. }) if member == root => break,
                event => assert!(event.is_some(), "the orphan has not ended"),
            }
        }
        Remnant { tree, orphan, _child: child, _family: family }
    }
}

/// The orphan, which has nothing more to do before its end than to end.
fn asleep(family: &Family) -> Process {
    let number = family.fact("orphan").pid;
    #[cfg(target_os = "linux")] // as procfs is; elsewhere it may have something to do yet
    {
        let process = procfs::process::Process::new(number as i32).expect("a member that waits");
        while process.stat().expect("a member that waits").state != 'S' {
            std::thread::yield_now();
        }
    }
    Process::open(pid(number)).expect("a member that waits")
}

/// From the kill to the tree being known to be empty.
fn last_exit(backend: Backend) -> Duration {
    let Remnant { tree, orphan, .. } = &Remnant::new(backend);
    let start = Instant::now();
    orphan.signal(Signal::KILL).expect("a member that waits");
    let emptied = tree.wait_empty(None).expect("a tree that can be followed");
    let took = start.elapsed();
    let emptied = emptied.expect("there is no time limit");
    assert!(emptied.members == 2 || tree.coverage().members != Promise::Exact, "{backend}: {emptied:?}");
    took
}

/// From the same kill to the end being known to who waits for that one process.
fn last_exit_raw() -> Duration {
    let family = Family::spawn(ORPHAN);
    let orphan = asleep(&family);
    let wait = end_of(orphan.pid().get());
    let start = Instant::now();
    orphan.signal(Signal::KILL).expect("a member that waits");
    let ends = wait();
    let took = start.elapsed();
    assert_eq!(ends, 1);
    took
}

/// One poll of one pidfd.
#[cfg(target_os = "linux")]
fn end_of(process: u32) -> impl FnOnce() -> i32 {
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    let fd = common::floor::pidfd_open(process).expect("a member that waits");
    // SAFETY: the kernel has just made it, for us
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    move || poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).expect("poll")
}

/// One event of one kqueue.
#[cfg(target_os = "macos")]
fn end_of(process: u32) -> impl FnOnce() -> usize {
    use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};

    let what = (EventFilter::EVFILT_PROC, EvFlags::EV_ADD, FilterFlag::NOTE_EXIT);
    let mut event = [KEvent::new(process as usize, what.0, what.1, what.2, 0, 0)];
    let queue = Kqueue::new().expect("kqueue");
    queue.kevent(&event, &mut [], None).expect("a member that waits");
    move || queue.kevent(&[], &mut event, None).expect("kevent")
}

/// All in turns, so that whatever else the machine does hits all alike.
fn latencies(rounds: u64) {
    let mut ours: Vec<(Backend, Vec<Duration>)> = Vec::new();
    for &backend in BACKENDS {
        match refusal(backend) {
            None => ours.push((backend, Vec::new())),
            Some(reason) => refused("latency", &latency_of(backend), &reason),
        }
    }
    let mut raw = Vec::new();
    // What the kernel clears away after a program's last tree (a BPF program and its maps) it would clear away within the next
    // round, also within one of the floor's. So there is another tree all the time.
    let others = Family::spawn("pause");
    let root = Process::open(pid(others.root_pid())).expect("a child that waits");
    let _another = Tree::attach(&root).expect("a tree that can be followed");
    for round in 0..rounds {
        for (backend, times) in &mut ours {
            // Looks at intervals, and its latency is known to be long
            if *backend != Backend::Poll || round % 10 == 0 {
                times.push(last_exit(*backend));
            }
        }
        raw.push(last_exit_raw());
    }
    raw.sort_unstable();
    for (backend, mut times) in ours {
        times.sort_unstable();
        let [low, p99, high] = p99(&times).map(|time| time.as_nanos() as u64);
        println!(
            "{}",
            json!({
                "kind": "latency", "table": "B7", "case": latency_of(backend), "rounds": times.len(),
                "p50_ns": p50(&times), "p99_ns": p99, "p99_low_ns": low, "p99_high_ns": high,
                "max_ns": times[times.len() - 1].as_nanos() as u64,
                "floor_p50_ns": p50(&raw), "floor_p99_ns": self::p99(&raw)[1].as_nanos() as u64,
            })
        );
    }
}

fn p50(sorted: &[Duration]) -> u64 {
    sorted[sorted.len() / 2].as_nanos() as u64
}

/// With its 95 % interval around it, by rank: nothing is assumed of how times are distributed.
fn p99(sorted: &[Duration]) -> [Duration; 3] {
    let count = sorted.len() as f64;
    let reach = 1.96 * (count * 0.99 * 0.01).sqrt();
    [-reach, 0.0, reach]
        .map(|by| sorted[((0.99 * count + by).ceil().max(1.0) as usize).min(sorted.len()) - 1])
}

fn refused(kind: &str, case: &str, reason: &str) {
    let table = if kind == "storm" { "B8" } else { "B7" };
    println!("{}", json!({ "kind": kind, "table": table, "case": case, "refused": reason }));
}

/// Keeps a tree, and somebody who waits for its end, until standard input ends.
fn idle(backend: Backend) {
    if let Some(reason) = refusal(backend) {
        println!("{}", json!({ "refused": reason }));
        return;
    }
    let Remnant { tree, orphan, .. } = &Remnant::new(backend);
    let mut pids = vec![std::process::id()];
    if backend == Backend::Subreaper {
        let helper = parent_of(orphan.pid()).expect("a member that waits");
        pids.push(helper.expect("who adopted it").get());
    }
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| tree.wait_empty(None));
        println!("{}", json!({ "pids": pids, "coverage": tree.coverage().to_string() }));
        std::io::stdin().read_to_end(&mut Vec::new()).expect("a pipe");
        orphan.signal(Signal::KILL).expect("a member that waits");
        let emptied = waiter.join().expect("no panic").expect("a tree that can be followed");
        assert!(emptied.is_some());
    });
}

/// What a storm cost those who made it, its helpers included, and how long it took.
struct Storm {
    cpu: Duration,
    took: Duration,
}

/// What the kernel charged; `RUSAGE_CHILDREN` counts whoever has been reaped.
fn cpu(who: UsageWho) -> Duration {
    let usage = getrusage(who).expect("getrusage");
    let nanoseconds = |time: TimeVal| time.num_nanoseconds().unsigned_abs();
    Duration::from_nanos(nanoseconds(usage.user_time()) + nanoseconds(usage.system_time()))
}

fn storms(forks: u64) {
    let each = forks / PARENTS;
    let script =
        format!("say root await {} reap-all", format!("fork [ storm {each} ] ").repeat(PARENTS as usize));
    let bare = untracked(&script);
    for backend in SEEING {
        let case = format!("storm of {forks} forks, {backend}");
        if let Some(reason) = refusal(backend) {
            refused("storm", &case, &reason);
            continue;
        }
        let (storm, tracker, events) = tracked(backend, &script, 2 * forks as usize + 1_000);
        let seen = Seen::of(&events);
        println!(
            "{}",
            json!({
                "kind": "storm", "table": "B8", "case": case, "forks": forks,
                "lost": (each * PARENTS + PARENTS + 1) as i64 - seen.joined as i64,
                "unpaired": seen.unpaired, "resynced": seen.resynced, "skipped": seen.skipped,
                "tracker_ns": tracker.as_nanos() as u64, "storm_ns": storm.cpu.as_nanos() as u64,
                "took_ns": storm.took.as_nanos() as u64, "untracked_ns": bare.cpu.as_nanos() as u64,
                "untracked_took_ns": bare.took.as_nanos() as u64,
            })
        );
    }
}

fn untracked(script: &str) -> Storm {
    let mut family = Family::spawn(script);
    let root = family.fact("root").pid;
    let (start, before) = (Instant::now(), cpu(UsageWho::RUSAGE_CHILDREN));
    family.poke(root);
    family.child().wait().expect("a child");
    Storm { took: start.elapsed(), cpu: cpu(UsageWho::RUSAGE_CHILDREN) - before }
}

/// The storm, what following it cost, and all that was told of it. `room`: for how many events.
fn tracked(backend: Backend, script: &str, room: usize) -> (Storm, Duration, Vec<TreeEvent>) {
    let mut events = Vec::with_capacity(room);
    let (family, (tree, mut child)) = Family::builder().spawn_by(script, |command| {
        Tree::builder().backend(backend).spawn(command).expect("a tree of this kind")
    });
    let root = family.fact("root").pid;
    let (start, before, ours) = (Instant::now(), cpu(UsageWho::RUSAGE_CHILDREN), cpu(UsageWho::RUSAGE_SELF));
    family.poke(root);
    while let Some(event) = tree.next_event(None).expect("a tree that can be followed") {
        events.push(event);
    }
    let (took, tracker) = (start.elapsed(), cpu(UsageWho::RUSAGE_SELF) - ours);
    child.wait().expect("a child");
    (Storm { took, cpu: cpu(UsageWho::RUSAGE_CHILDREN) - before }, tracker, events)
}

/// What a tree told, counted when it was over.
#[derive(Default)]
struct Seen {
    joined: u64,
    /// Members of whom there was an end too few or too many.
    unpaired: u64,
    resynced: u64,
    skipped: u64,
}

impl Seen {
    fn of(events: &[TreeEvent]) -> Seen {
        let mut seen = Seen::default();
        let mut alive: HashMap<_, u64> = HashMap::new();
        for event in events {
            match event {
                TreeEvent::Joined { member, .. } => {
                    seen.joined += 1;
                    *alive.entry(*member).or_default() += 1;
                }
                TreeEvent::Left { member, .. } => match alive.get_mut(member) {
                    Some(count) if *count > 0 => *count -= 1,
                    _ => seen.unpaired += 1,
                },
                TreeEvent::Resynced { .. } => seen.resynced += 1,
                TreeEvent::Skipped { events } => seen.skipped += events,
                _ => {}
            }
        }
        seen.unpaired += alive.into_values().sum::<u64>();
        seen
    }
}
