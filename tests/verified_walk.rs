//! Trap 16: while a walk is under way, a parent ends and a stranger gets its PID. With twenty PIDs to go round and
//! processes that fork and end as fast as they can, that happens all the time.
#![cfg(target_os = "linux")] // only Linux has PID namespaces, in which PIDs are few

mod common;

use common::pid;
use pidigree::{Pid, Process, State, ancestors_of};
use pidigree_testkit::{Family, rounds, stage};

const WALKS: usize = 20_000;

/// A hundred thousand in all.
const ROUNDS: usize = 5;

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
        let walks = WALKS * rounds(ROUNDS);
        for walk in 0..walks {
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
        assert!(complete > walks / 20, "only {complete} walks were complete");
    });
}

/// The control, one step at a time: between the reading of a parent's PID and the reading of that parent, it ends and a
/// stranger's child gets the PID. Whoever reads on names the stranger.
#[test]
fn without_verification_a_stranger_becomes_an_ancestor() {
    stage("without_verification_a_stranger_becomes_an_ancestor", &["in-ns", "pid,mount"], || {
        let family = Family::spawn(
            "fork [ fork [ say leaf pause ] say parent await exit 0 ] say root await reap say reaped pause",
        );
        let stranger = Family::spawn("say stranger await fork [ say newcomer pause ] pause");
        let [leaf, parent, root] = ["leaf", "parent", "root"].map(|name| family.fact(name).pid);
        let stranger_pid = stranger.fact("stranger").pid;
        let naive_parent_of = |number: u32| {
            procfs::process::Process::new(number as i32).and_then(|process| process.stat()).unwrap().ppid
                as u32
        };
        let pinned = Process::open(pid(leaf)).unwrap().parent().unwrap().unwrap();

        let mut naive = vec![naive_parent_of(leaf)];
        assert_eq!(naive, [parent]);
        family.poke(parent);
        family.poke(root);
        family.fact("reaped");
        std::fs::write("/proc/sys/kernel/ns_last_pid", (parent - 1).to_string()).unwrap();
        stranger.poke(stranger_pid);
        assert_eq!(stranger.fact("newcomer").pid, parent, "the PID is reused");
        naive.push(naive_parent_of(parent));

        assert_eq!(naive, [parent, stranger_pid], "the control is fooled");
        assert!(pinned.parent().unwrap_err().is_gone(), "who pinned the parent is not");
        assert!(!ancestors_of(pid(leaf)).unwrap().contains(&pid(stranger_pid)));
    });
}
