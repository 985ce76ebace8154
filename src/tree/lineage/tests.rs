//! The machine is held against a simulated kernel, where it is known who started whom.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::check;

mod ask;
mod kernel;
mod losses;
mod routes;
mod setup;
mod strangers;
mod successor;
mod table;
mod told;
mod world;

use setup::{Setup, Source, Step, setup, steps, walked};
use world::{Counts, World};

fn run(setup: &Setup, steps: &[Step]) -> World {
    let mut world = World::new(setup);
    for step in steps {
        world.step(step);
    }
    world.finish();
    world
}

/// Of each property: as many as `PROPTEST_CASES` says, or as are usual.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").map_or(2200, |cases| cases.parse().expect("PROPTEST_CASES is a number"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    /// The members are the truth, exactly, and it is empty when they have ended: no scan is needed.
    #[test]
    fn without_a_loss_members_are_the_truth(
        setup in setup(&[Source::Events], true), steps in steps(true),
    ) {
        run(&setup, &steps);
    }

    #[test]
    fn after_a_loss_nobody_is_missing_and_no_stranger_listed(
        setup in setup(&[Source::Events], false), steps in steps(false),
    ) {
        run(&setup, &steps);
    }

    #[test]
    fn a_census_makes_up_for_a_loss_completely(
        setup in setup(&[Source::Counted], false), steps in steps(false),
    ) {
        run(&setup, &steps);
    }

    #[test]
    fn a_polled_tree_is_never_empty_too_early(
        setup in setup(&[Source::Poll], false), steps in steps(false),
    ) {
        run(&setup, &steps);
    }

    /// What the tracker starts is excluded, and the ancestors of the root are started by it; but not all of their children are.
    #[test]
    fn an_ancestor_that_its_tracker_has_started_hides_no_orphan(
        setup in setup(&[Source::Events, Source::Poll], false), steps in steps(false),
    ) {
        run(&Setup { above: true, ..setup }, &steps);
    }

    /// Attached while others fork all the time: what it forks, and what of that is orphaned, is known at once.
    #[test]
    fn a_walk_without_a_proven_scan_finds_whom_to_follow(
        setup in walked(&[Source::Events], true), steps in steps(true),
    ) {
        run(&setup, &steps);
    }

    #[test]
    fn after_a_walk_without_a_proven_scan_nobody_is_missing_and_no_stranger_listed(
        setup in walked(&[Source::Events, Source::Counted, Source::Poll], false), steps in steps(false),
    ) {
        run(&setup, &steps);
    }

    #[test]
    fn its_books_are_kept_whatever_it_is_told(input in prop::collection::vec(any::<u8>(), 0..300)) {
        check::lineage(&input);
    }
}

/// The simulation must meet what it is there for; otherwise the properties above hold of nothing.
#[test]
fn the_simulated_kernels_are_hard_enough() {
    let mut runner = TestRunner::deterministic();
    let mut counts = Counts::default();
    for _ in 0..150 {
        for source in [&[Source::Events], &[Source::Counted], &[Source::Poll]] {
            let setup = setup(source, false).new_tree(&mut runner).unwrap().current();
            let steps = steps(false).new_tree(&mut runner).unwrap().current();
            let met = run(&setup, &steps).counts;
            counts.suspects += met.suspects;
            counts.cleared += met.cleared;
            counts.convicted += met.convicted;
            counts.held += met.held;
            counts.reused += met.reused;
            counts.bare += met.bare;
            counts.orphans += met.orphans;
            counts.resynced += met.resynced;
            counts.empty += met.empty;
        }
    }
    for _ in 0..150 {
        let setup = setup(&[Source::Poll], false).new_tree(&mut runner).unwrap().current();
        let steps = steps(false).new_tree(&mut runner).unwrap().current();
        counts.asked += run(&Setup { above: true, ..setup }, &steps).counts.asked;
    }
    for _ in 0..300 {
        let setup = walked(&[Source::Events], false).new_tree(&mut runner).unwrap().current();
        let met = run(&setup, &[]).counts;
        counts.walked += met.walked;
        counts.overlooked += met.overlooked;
    }
    for (what, count, least) in [
        ("suspects", counts.suspects, 100),
        ("suspects that were proven strangers", counts.cleared, 5),
        ("suspects that were proven members", counts.convicted, 5),
        ("strangers that held emptiness back to the end", counts.held, 50),
        ("PIDs told to be forked anew before the end of their bearer", counts.reused, 20),
        ("members that had ended before anybody looked", counts.bare, 20),
        ("orphans that joined", counts.orphans, 20),
        ("losses made up for", counts.resynced, 300),
        ("trees found empty", counts.empty, 400),
        ("trackers that asked for orphans in time", counts.asked, 20),
        ("walks that overlooked nobody", counts.walked, 100),
        ("walks that may have overlooked somebody", counts.overlooked, 50),
    ] {
        assert!(count >= least, "{what}: only {count}: {counts:?}");
    }
}
