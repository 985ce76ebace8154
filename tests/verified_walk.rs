//! Trap 16: while a walk is under way, a parent ends and a stranger gets its PID. With twenty PIDs to go round and
//! processes that fork and end as fast as they can, that happens all the time.

mod common;

use common::pid;
use pidigree::{Pid, Process, State, ancestors_of};
use pidigree_testkit::{Family, stage};

const WALKS: usize = 100_000;

/// Chains of processes that fork and end at once, and a stranger whose short-lived children take their PIDs.
struct World {
    stranger: Pid,
    hoppers: Vec<Option<Pid>>,
    next: u32,
    _families: Vec<Family>,
}

const PIDS: u32 = 330;

impl World {
    fn new() -> World {
        let storm = Family::spawn("setsid say storm storm 0");
        let stranger = pid(storm.fact("storm").pid);
        let mut families: Vec<_> = (0..3).map(|_| Family::spawn("setsid say hopper hopper 0")).collect();
        let hoppers = families.iter().map(|family| Pid::new(family.fact("hopper").sid)).collect();
        families.push(storm);
        World { stranger, hoppers, next: 1, _families: families }
    }

    /// A hopper of this moment, pinned.
    fn hopper(&mut self) -> Process {
        loop {
            self.next = self.next % PIDS + 1;
            let number = pid(self.next);
            if !self.hops(number) {
                continue;
            }
            let Ok(process) = Process::open(number) else {
                continue;
            };
            // Alive after it was asked for its session, it is the one that was asked.
            if self.hops(number) && process.state().unwrap() == State::Running {
                return process;
            }
        }
    }

    fn hops(&self, number: Pid) -> bool {
        let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(number.get() as i32)));
        session.is_ok_and(|session| self.hoppers.contains(&Pid::new(session.as_raw() as u32)))
    }
}

#[test]
fn no_stranger_is_ever_an_ancestor() {
    stage("no_stranger_is_ever_an_ancestor", &["in-ns", "pid,mount", "--pid-max", "330"], || {
        let mut world = World::new();
        let (mut complete, mut cut_short) = (0, 0);
        for walk in 0..WALKS {
            let hopper = world.hopper();
            if walk % 2 == 0 {
                match ancestors_of(hopper.pid()) {
                    // Of this hopper, if it still had its PID afterwards.
                    Ok(ancestors) if hopper.state().unwrap() != State::Gone => {
                        complete += 1;
                        assert!(!ancestors.contains(&world.stranger), "{ancestors:?} of {hopper:?}");
                    }
                    Ok(_) => cut_short += 1,
                    Err(error) if error.is_gone() || error.is_unstable() || error.is_thread() => {
                        cut_short += 1
                    }
                    Err(error) => panic!("{error}"),
                }
            } else {
                let stranger = Process::open(world.stranger).unwrap();
                match hopper.is_descendant_of(&stranger) {
                    Ok(answer) => {
                        complete += 1;
                        assert!(!answer, "{hopper:?}");
                    }
                    Err(error) if error.is_gone() || error.is_unstable() => cut_short += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        println!("{complete} complete walks, {cut_short} of processes that ended first");
        assert!(complete > WALKS / 20, "only {complete} walks were complete");
    });
}

/// The control: the same walk without looking twice does name the stranger.
#[test]
fn without_verification_a_stranger_becomes_an_ancestor() {
    let name = "without_verification_a_stranger_becomes_an_ancestor";
    stage(name, &["in-ns", "pid,mount", "--pid-max", "330"], || {
        let mut world = World::new();
        for walk in 0..20 * WALKS {
            let hopper = world.hopper();
            let ancestors = naive_ancestors(hopper.pid().get());
            if hopper.state().unwrap() != State::Gone && ancestors.contains(&world.stranger.get()) {
                println!("fooled after {walk} walks");
                return;
            }
        }
        panic!("the control was never fooled: PIDs are not reused fast enough here to prove anything");
    });
}

fn naive_ancestors(mut number: u32) -> Vec<u32> {
    let mut ancestors = Vec::new();
    while let Ok(stat) = procfs::process::Process::new(number as i32).and_then(|process| process.stat()) {
        number = stat.ppid as u32;
        if number == 0 || ancestors.len() > 400 {
            break;
        }
        ancestors.push(number);
        std::thread::yield_now();
    }
    ancestors
}
