//! What those above a process prove about it, whatever was lost: never that a stranger is a member, nor that a member is none.

use proptest::prelude::*;

use super::kernel::{Kernel, Life, Truth};
use super::setup::{Setup, Source, Step, setup, steps};
use super::world::World;
use crate::identity::Sameness;
use crate::tree::ask::{Above, Standing, by_ancestry};
use crate::tree::lineage::Lineage;

/// The stranger that is there from the beginning: it takes itself for none.
const TRACKER: usize = 4;

/// Whether it is the very one that is known as a member under its PID, if one is.
pub(super) fn is_known_as_member(lineage: &Lineage, kernel: &Kernel, who: usize) -> Option<bool> {
    let identity = kernel.identity(who);
    lineage.member(identity.pid()).map(|member| match member.same_process(&identity) {
        Sameness::Same => true,
        Sameness::Different => false,
        Sameness::Unknown => !lineage.is_lost(),
    })
}

/// By those above it.
pub(super) fn judge(lineage: &Lineage, kernel: &Kernel, who: usize, tracker: Option<usize>) -> Standing {
    let mut at = Some(who);
    let standing = by_ancestry(lineage, &lineage.root, true, |_| {
        let Some(now) = at else { return Ok(None) };
        let parent = kernel.processes[now].parent;
        at = (parent != now).then_some(parent);
        let identity = kernel.identity(now);
        let is_known_member = is_known_as_member(lineage, kernel, now) == Some(true);
        Ok(Some(Above { identity, is_known_member, is_held: false, is_tracker: Some(now) == tracker }))
    });
    standing.unwrap()
}

/// How many were proven to be members, and how many to be none.
fn judge_all(lineage: &Lineage, kernel: &Kernel) -> [usize; 2] {
    let mut proven = [0, 0];
    for who in 0..kernel.processes.len() {
        let process = &kernel.processes[who];
        if process.life != Life::Running {
            continue;
        }
        match judge(lineage, kernel, who, Some(TRACKER)) {
            Standing::Member => {
                let right = matches!(process.truth, Truth::Member | Truth::Lapsed) || process.fostered;
                assert!(right, "{process:?} is no member");
                proven[0] += 1;
            }
            Standing::Stranger { .. } => {
                assert!(process.truth != Truth::Member, "{process:?} is a member");
                proven[1] += 1;
            }
            Standing::Doubtful => {}
        }
    }
    proven
}

fn run(setup: &Setup, steps: &[Step]) -> [usize; 2] {
    let mut world = World::new(setup);
    let mut proven = [0, 0];
    for step in steps {
        world.step(step);
        // Whoever asks has taken in what is told by now.
        world.step(&Step::Deliver(usize::MAX));
        let [members, strangers] = judge_all(&world.lineage, &world.kernel);
        proven = [proven[0] + members, proven[1] + strangers];
    }
    proven
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn ancestors_prove_the_truth_or_nothing(
        setup in setup(&[Source::Events], false), steps in steps(false),
    ) {
        run(&setup, &steps);
    }

    #[test]
    fn ancestors_prove_the_truth_or_nothing_where_nobody_tells_of_forks(
        setup in setup(&[Source::Poll], false), steps in steps(false),
    ) {
        run(&setup, &steps);
    }
}

/// Otherwise the properties hold of nothing.
#[test]
fn ancestors_prove_something() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut proven = [0, 0];
    for _ in 0..50 {
        let world = (setup(&[Source::Events, Source::Poll], false), steps(false));
        let (setup, steps) = world.new_tree(&mut runner).unwrap().current();
        let [members, strangers] = run(&setup, &steps);
        proven = [proven[0] + members, proven[1] + strangers];
    }
    assert!(proven.iter().all(|count| *count > 50), "{proven:?}");
}
