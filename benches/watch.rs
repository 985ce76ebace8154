//! B6: watching for the end of many processes.

#[expect(dead_code, reason = "each benchmark takes its part of it")]
mod common;

use std::time::{Duration, Instant};

#[cfg(target_os = "linux")] // as the floor is
use common::floor::Epoll;
use common::judge::{Contest, Judge, Work};
use common::{descriptors, pid};
use pidigree::{ExitStatus, Process, ProcessWatcher};
use pidigree_testkit::{IdleChildren, idle_children};

/// How many are watched. Elsewhere a user may have few processes.
const MOST: usize = if cfg!(target_os = "linux") { 10_000 } else { 300 };

/// How many end between two looks.
const ENDS: usize = 32;

fn main() {
    let mut judge = Judge::from_env();
    // Enough for two watchers of all.
    let room = descriptors(2 * MOST + 1_000) - 200;
    let most = MOST.min(room - 1_000);
    let standing = idle_children(most);

    register(&mut judge, &standing);

    let zombies = Ends::zombies();
    for count in [10, most / 10, most] {
        let ours = ours_over(&standing, count);
        // Where descriptors are short, it is the floor that watches fewer.
        #[cfg(target_os = "linux")] // as it is
        let raw = raw_over(&standing, count.min(room - most));
        let contest = Contest::new("B6", format!("deliver, {count} watched"), deliver(&ours, &zombies));
        #[cfg(target_os = "linux")]
        let contest = contest.against("floor", deliver_raw(&raw, &zombies));
        judge.hold(contest.of(ENDS as u64));
    }
    let (few, many) = (ours_over(&standing, 10), ours_over(&standing, most));
    judge.hold(
        Contest::new("B6", format!("deliver, {most} watched"), deliver(&many, &zombies))
            .against("10 watched", deliver(&few, &zombies))
            .of(ENDS as u64),
    );
    drop((few, many));

    let ours = ours_over(&standing, 10);
    #[cfg(target_os = "linux")] // as the floor is
    let raw = raw_over(&standing, 10);
    let contest = Contest::new("B6", "deliver, 10 watched, reaped meanwhile", deliver(&ours, &Ends::Reaped));
    #[cfg(target_os = "linux")]
    let contest = contest.against("floor", deliver_raw(&raw, &Ends::Reaped));
    judge.hold(contest.of(ENDS as u64).patience(5));
    let contest = Contest::new("B6", "kill to event", latency(&ours));
    #[cfg(target_os = "linux")]
    let contest = contest.against("floor", latency_raw(&raw));
    judge.hold(contest);
}

/// pidfd_open and EPOLL_CTL_ADD are timed; deregistering is not.
fn register(judge: &mut Judge, standing: &IdleChildren) {
    let pids = &standing.pids()[..standing.pids().len().min(1_000)];
    let watcher = ProcessWatcher::new().unwrap();
    let ours: Work<'_> = Box::new(|times| {
        in_batches(times, pids, |pids| {
            let mut keys = Vec::with_capacity(pids.len());
            let start = Instant::now();
            for &number in pids {
                let process = Process::open(pid(number)).unwrap();
                keys.push(watcher.watch(&process).unwrap());
            }
            let took = start.elapsed();
            assert!(keys.into_iter().all(|key| watcher.unwatch(key)));
            took
        })
    });
    let contest = Contest::new("B6", "register", ours);
    #[cfg(target_os = "linux")] // as the floor is
    let epoll = Epoll::new();
    #[cfg(target_os = "linux")]
    let raw: Work<'_> = Box::new(|times| {
        in_batches(times, pids, |pids| {
            let mut fds = Vec::with_capacity(pids.len());
            let start = Instant::now();
            for &number in pids {
                fds.push(epoll.watch(number));
            }
            let took = start.elapsed();
            fds.into_iter().for_each(|fd| epoll.unwatch(fd));
            took
        })
    });
    #[cfg(target_os = "linux")]
    let contest = contest.against("floor", raw);
    judge.hold(contest);
}

fn in_batches(times: u64, pids: &[u32], mut batch: impl FnMut(&[u32]) -> Duration) -> Duration {
    let mut left = times as usize;
    let mut total = Duration::ZERO;
    while left > 0 {
        let now = left.min(pids.len());
        total += batch(&pids[..now]);
        left -= now;
    }
    total
}

fn ours_over(standing: &IdleChildren, count: usize) -> ProcessWatcher {
    let watcher = ProcessWatcher::new().unwrap();
    for &number in &standing.pids()[..count] {
        watcher.watch(&Process::open(pid(number)).unwrap()).unwrap();
    }
    watcher
}

#[cfg(target_os = "linux")] // as the floor is
fn raw_over(standing: &IdleChildren, count: usize) -> Epoll {
    let mut epoll = Epoll::new();
    standing.pids()[..count].iter().for_each(|&number| epoll.keep(number));
    epoll
}

/// Who ends.
enum Ends {
    /// Children of ours, in silence: their status is for waitid to tell. They can be watched over and over, and have
    /// ended each time.
    Zombies(IdleChildren),
    /// Fresh processes each time, which somebody has reaped when we look: their status is in the pidfd.
    Reaped,
}

impl Ends {
    fn zombies() -> Ends {
        let mut children = idle_children(ENDS);
        (0..ENDS).for_each(|index| children.kill_one(index));
        Ends::Zombies(children)
    }

    /// Lets some be watched, and sees to it that they have ended.
    fn prepare(&self, mut watch: impl FnMut(u32)) {
        match self {
            Ends::Zombies(children) => children.pids().iter().copied().for_each(watch),
            Ends::Reaped => {
                let children = idle_children(ENDS);
                children.pids().iter().for_each(|&number| watch(number));
            }
        }
    }
}

/// Taking the ends that wait to be taken is timed, all that comes before is not.
fn deliver<'a>(watcher: &'a ProcessWatcher, ends: &'a Ends) -> Work<'a> {
    Box::new(move |times| {
        let mut total = Duration::ZERO;
        for _ in 0..times {
            ends.prepare(|number| {
                watcher.watch(&Process::open(pid(number)).unwrap()).unwrap();
            });
            let mut taken = Vec::with_capacity(ENDS);
            let start = Instant::now();
            watcher.drain(&mut taken).unwrap();
            total += start.elapsed();
            assert!(taken.iter().all(|end| end.status == ExitStatus::Signal(libc::SIGKILL)));
            assert_eq!(taken.len(), ENDS);
        }
        total
    })
}

#[cfg(target_os = "linux")] // as the floor is
fn deliver_raw<'a>(epoll: &'a Epoll, ends: &'a Ends) -> Work<'a> {
    Box::new(move |times| {
        let mut total = Duration::ZERO;
        for _ in 0..times {
            ends.prepare(|number| {
                epoll.watch(number);
            });
            let mut taken = Vec::with_capacity(ENDS);
            let start = Instant::now();
            epoll.take(0, &mut taken);
            total += start.elapsed();
            assert!(taken.iter().all(|&(_, _, status)| status == libc::SIGKILL));
            assert_eq!(taken.len(), ENDS);
        }
        total
    })
}

/// A child that has nothing more to do before its end than to end.
fn asleep() -> IdleChildren {
    let child = idle_children(1);
    #[cfg(target_os = "linux")] // as procfs is; elsewhere it may have something to do yet
    {
        let process = procfs::process::Process::new(child.pids()[0] as i32).expect("a live child");
        while process.stat().expect("a live child").state != 'S' {
            std::thread::yield_now();
        }
    }
    child
}

/// From the kill to the end being known.
fn latency(watcher: &ProcessWatcher) -> Work<'_> {
    Box::new(move |times| {
        let mut total = Duration::ZERO;
        for _ in 0..times {
            let mut children = asleep();
            watcher.watch(&Process::open(pid(children.pids()[0])).unwrap()).unwrap();
            let start = Instant::now();
            children.signal_one(0, libc::SIGKILL);
            watcher.wait(None).unwrap().unwrap();
            total += start.elapsed();
        }
        total
    })
}

#[cfg(target_os = "linux")] // as the floor is
fn latency_raw(epoll: &Epoll) -> Work<'_> {
    Box::new(move |times| {
        let mut total = Duration::ZERO;
        for _ in 0..times {
            let mut children = asleep();
            epoll.watch(children.pids()[0]);
            let mut ends = Vec::with_capacity(1);
            let start = Instant::now();
            children.signal_one(0, libc::SIGKILL);
            epoll.take(-1, &mut ends);
            total += start.elapsed();
            assert_eq!(ends.len(), 1);
        }
        total
    })
}
