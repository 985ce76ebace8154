//! The machine is held against a simulated kernel, where it is known who started whom.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::check::{self, Listener};
use super::{Details, Input, Lineage, Output, Row};
use crate::identity::{BootId, Identity, StartTime};
use crate::pid::Pid;
use crate::state::ExitStatus;

mod ask;
mod kernel;
mod world;

use world::{Counts, Setup, Source, Step, World, setup, steps, walked};

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
        ("walks that overlooked nobody", counts.walked, 100),
        ("walks that may have overlooked somebody", counts.overlooked, 50),
    ] {
        assert!(count >= least, "{what}: only {count}: {counts:?}");
    }
}

/// A table by hand, for what is worth telling apart.
struct Table {
    lineage: Lineage,
    listener: Listener,
    rows: BTreeMap<u32, (u32, Details)>,
    strange: Vec<u32>,
    /// Ended since they were listed.
    reaped: Vec<u32>,
}

impl Table {
    /// The root is 10, a child of 3, in the session that 3 leads.
    fn new() -> Table {
        let mut lineage = Lineage::new(identity(10, 50), []);
        lineage.set_adopters([pid(3)]);
        lineage.set_sessions([pid(3)]);
        let listener = Listener::of(&lineage);
        let mut table =
            Table { lineage, listener, rows: BTreeMap::new(), strange: Vec::new(), reaped: Vec::new() };
        for (row, parent, session) in [(1, 0, 1), (3, 1, 3), (10, 3, 3)] {
            table.row(row, parent, session, 50);
        }
        table
    }

    fn row(&mut self, row: u32, parent: u32, session: u32, start: u64) {
        let identity = identity(row, start);
        self.rows.insert(row, (parent, Details { session: Pid::new(session), ..Details::of(identity) }));
    }

    fn step(&mut self, input: Input<'_>) -> Vec<Output> {
        let mut out = Vec::new();
        self.lineage.step(input, &mut out);
        self.listener.hear(&out, &self.lineage);
        out
    }

    fn forked(&mut self, parent: u32, child: Identity) -> Vec<Output> {
        self.step(Input::Forked { parent: pid(parent), child })
    }

    fn ended(&mut self, who: u32) -> Vec<Output> {
        self.step(Input::Ended { pid: pid(who), status: ExitStatus::Code(0) })
    }

    fn scan(&mut self) -> Vec<Output> {
        let rows = self.rows.clone();
        let table: Vec<Row> =
            rows.iter().map(|(&row, &(parent, _))| Row { pid: pid(row), parent: Pid::new(parent) }).collect();
        let reaped = self.reaped.clone();
        let mut details = |pid: Pid| {
            rows.get(&pid.get()).filter(|_| !reaped.contains(&pid.get())).map(|&(_, details)| details)
        };
        let strange = self.strange.clone();
        let mut is_strange = |pid: Pid| strange.contains(&pid.get());
        let (details, is_strange) = (&mut details, &mut is_strange);
        self.step(Input::Scanned { table: &table, details, is_strange, began: 200 })
    }

    /// What a scan finds after events were missing since tick 100.
    fn resync(&mut self) -> Vec<Output> {
        self.step(Input::Lost { since: 100 });
        self.scan()
    }

    fn members(&self) -> Vec<u32> {
        self.lineage.members().map(|member| member.pid.get()).collect()
    }

    fn suspects(&self) -> Vec<u32> {
        self.lineage.suspects().map(|suspect| suspect.pid.get()).collect()
    }
}

fn pid(number: u32) -> Pid {
    Pid::new(number).unwrap()
}

fn identity(number: u32, ticks: u64) -> Identity {
    Identity {
        pid: pid(number),
        unique: None,
        start: Some(StartTime { ticks, offset: 0 }),
        settled: true,
        pid_namespace: Some(7),
        boot: Some(BootId([1; 16])),
    }
}

fn bare(number: u32) -> Identity {
    Identity { start: None, settled: false, ..identity(number, 0) }
}

/// After a loss, a stranger is told as the child of a member whose end was lost. That it has another member's PID, and
/// started when that did, does not make it that member.
#[test]
fn what_is_told_of_a_stranger_proves_nothing_of_the_member_before_it() {
    let mut table = Table::new();
    let young = Identity { settled: false, ..identity(20, 150) };
    table.forked(10, young);
    table.step(Input::Lost { since: 150 });
    table.forked(20, bare(21));
    table.forked(21, identity(20, 150));
    table.ended(21);
    // In the session that the tree began in: that may be a member's.
    table.row(20, 1, 3, 150);
    table.scan();
    assert_eq!((table.members(), table.suspects()), (vec![10], vec![20]));
}

#[test]
fn an_orphan_of_unknown_origin_holds_emptiness_back_until_its_end() {
    let mut table = Table::new();
    table.row(20, 1, 20, 120);
    assert_eq!(table.resync(), [Output::Resynced { suspects: 1 }]);
    assert_eq!((table.members(), table.suspects()), (vec![10], vec![20]));
    // What it forks may be of the tree as well.
    table.forked(20, identity(21, 130));
    table.ended(10);
    table.ended(20);
    assert_eq!((table.members(), table.suspects()), (vec![], vec![21]));
    assert_eq!(table.ended(21), [Output::Empty]);
    assert_eq!(table.ended(21), []);
}

#[test]
fn an_orphan_from_before_the_loss_is_a_stranger() {
    let mut table = Table::new();
    table.row(20, 1, 20, 99);
    table.row(21, 20, 20, 120);
    assert_eq!(table.resync(), [Output::Resynced { suspects: 0 }]);
}

/// A loss is told a tick or two early.
#[test]
fn a_stranger_that_was_seen_in_the_last_scan_is_no_suspect_after_it() {
    let mut table = Table::new();
    table.row(20, 1, 20, 199);
    table.step(Input::Lost { since: u64::MAX });
    table.scan();
    // Seen at 200, and listed then.
    table.row(21, 1, 21, 199);
    table.step(Input::Lost { since: 198 });
    table.scan();
    assert_eq!((table.members(), table.suspects()), (vec![10], vec![21]));
}

/// It was no member at the first loss, as far as is known; at the second, that is no proof.
#[test]
fn a_suspect_is_not_cleared_by_its_age_at_the_next_loss() {
    let mut table = Table::new();
    table.row(20, 1, 20, 120);
    table.resync();
    table.step(Input::Lost { since: 180 });
    assert_eq!(table.scan(), [Output::Resynced { suspects: 1 }]);
}

/// Nothing was told since the tree began, for want of anything to tell; but a scan was made.
#[test]
fn a_loss_does_not_go_back_behind_what_is_known() {
    let mut table = Table::new();
    table.row(20, 1, 19, 80);
    table.step(Input::Lost { since: 100 });
    table.scan();
    assert_eq!((table.members(), table.suspects()), (vec![10], vec![]));
    table.step(Input::Lost { since: 70 });
    table.scan();
    assert_eq!((table.members(), table.suspects()), (vec![10], vec![]));
}

#[test]
fn an_orphan_in_the_session_of_a_member_is_one() {
    // The leader is there.
    let mut table = Table::new();
    table.forked(10, identity(20, 60));
    table.row(20, 10, 20, 60);
    table.row(21, 1, 20, 120);
    table.resync();
    assert_eq!((table.members(), table.suspects()), (vec![10, 20, 21], vec![]));
    // Or another one that was forked into it: what the root began in is of no member's making, this is.
    let mut table = Table::new();
    table.forked(10, identity(20, 60));
    table.row(20, 10, 19, 60);
    table.row(21, 1, 19, 120);
    table.resync();
    assert_eq!((table.members(), table.suspects()), (vec![10, 20, 21], vec![]));
}

/// The session's number was a member's PID, and can be a stranger's since: 20 ended, and so did whoever came after it.
#[test]
fn that_a_member_had_the_number_of_a_session_is_no_proof() {
    let mut table = Table::new();
    table.forked(10, identity(20, 60));
    table.row(21, 1, 20, 120);
    table.resync();
    assert_eq!((table.members(), table.suspects()), (vec![10], vec![21]));
    // Now it is there to be seen.
    table.row(30, 1, 30, 70);
    table.row(20, 30, 20, 110);
    table.resync();
    assert_eq!((table.members(), table.suspects()), (vec![10], vec![]));
}

#[test]
fn a_session_with_members_and_strangers_proves_neither() {
    let mut table = Table::new();
    table.row(20, 1, 3, 120);
    table.row(21, 3, 3, 130);
    table.resync();
    assert_eq!((table.members(), table.suspects()), (vec![10], vec![20, 21]));
}

/// The leader has ended; another one in its session was there before the loss, and no member.
#[test]
fn an_orphan_in_a_session_of_strangers_is_one() {
    let mut table = Table::new();
    table.row(20, 1, 19, 60);
    table.row(21, 1, 19, 120);
    assert_eq!(table.resync(), [Output::Resynced { suspects: 0 }]);
}

/// Its parent's PID was read, and that parent ended before it was listed itself: it can have been a member.
#[test]
fn a_child_whose_parent_ended_under_the_scan_is_no_stranger() {
    let mut table = Table::new();
    table.row(20, 30, 3, 120);
    table.resync();
    assert_eq!((table.members(), table.suspects()), (vec![10], vec![20]));
}

/// So can be what the root has started, though whoever started that is excluded.
#[test]
fn a_child_whose_parent_the_root_ended_under_the_scan_is_not_the_grandparents() {
    let mut table = Table::new();
    table.lineage = Lineage::new(identity(10, 50), [identity(3, 50)]);
    table.row(20, 10, 3, 120);
    table.reaped = vec![10];
    table.resync();
    assert_eq!((table.members(), table.suspects()), (vec![], vec![20]));
}

/// The PID of 20 can be a stranger's by then.
#[test]
fn what_is_forked_after_a_loss_is_suspect_until_the_scan() {
    let mut table = Table::new();
    table.forked(10, identity(20, 60));
    table.step(Input::Lost { since: 100 });
    assert_eq!(table.forked(20, identity(21, 120)), []);
    assert_eq!((table.members(), table.suspects()), (vec![10, 20], vec![21]));
    // It was the member.
    let mut seen = Table { rows: table.rows.clone(), lineage: table.lineage.clone(), ..Table::new() };
    seen.listener = Listener::of(&seen.lineage);
    seen.row(20, 10, 3, 60);
    seen.row(21, 20, 3, 120);
    let joined = Output::Joined { member: identity(21, 120), parent: Some(identity(20, 60)) };
    assert_eq!(seen.scan(), [joined, Output::Resynced { suspects: 0 }]);
    // It was not.
    table.row(30, 1, 30, 70);
    table.row(20, 30, 30, 110);
    table.row(21, 20, 30, 120);
    let left = Output::Left { member: identity(20, 60), status: ExitStatus::Unknown };
    assert_eq!(table.scan(), [left, Output::Resynced { suspects: 0 }]);
}

/// 20 was seen in its first tick only. It can have ended in the first loss, and a stranger can have started in that tick.
#[test]
fn a_second_loss_does_not_prove_who_lived_through_the_first() {
    let mut table = Table::new();
    table.forked(10, Identity { settled: false, ..identity(20, 100) });
    table.step(Input::Lost { since: 100 });
    table.step(Input::Lost { since: 150 });
    table.row(30, 1, 30, 70);
    table.row(20, 30, 30, 100);
    table.scan();
    assert_eq!((table.members(), table.suspects()), (vec![10], vec![]));
    // Had it not, its end would have been told.
    let mut table = Table::new();
    table.forked(10, Identity { settled: false, ..identity(20, 100) });
    table.step(Input::Lost { since: 101 });
    table.row(20, 1, 20, 100);
    table.scan();
    assert_eq!((table.members(), table.suspects()), (vec![10, 20], vec![]));
}

/// By their starts, 20 is not to be told from another one that started in the same tick.
#[test]
fn whoever_was_held_all_the_time_is_the_same() {
    let young = Identity { settled: false, ..identity(20, 100) };
    for (is_pinned, left) in [(true, vec![10, 20]), (false, vec![10])] {
        let mut table = Table::new();
        table.forked(10, young);
        table.row(20, 1, 20, 100);
        table.rows.get_mut(&20).unwrap().1.is_pinned = is_pinned;
        table.resync();
        assert_eq!(table.members(), left);
        assert_eq!(table.suspects().is_empty(), is_pinned);
    }
}

#[test]
fn an_ancestor_that_was_held_all_the_time_is_a_stranger_however_young() {
    for (is_pinned, suspects) in [(true, vec![]), (false, vec![3])] {
        let mut table = Table::new();
        table.row(3, 1, 3, 150);
        table.rows.get_mut(&3).unwrap().1.is_pinned = is_pinned;
        table.resync();
        assert_eq!((table.members(), table.suspects()), (vec![10], suspects));
    }
}

#[test]
fn an_orphan_without_the_mark_of_the_tree_is_a_stranger_unless_something_proves_the_contrary() {
    let mut table = Table::new();
    table.row(20, 1, 20, 120);
    table.row(21, 20, 20, 130);
    table.forked(10, identity(30, 60));
    table.row(30, 10, 30, 60);
    table.row(31, 1, 30, 120);
    table.strange = vec![20, 31];
    table.resync();
    assert_eq!((table.members(), table.suspects()), (vec![10, 30, 31], vec![]));
}

/// Nothing could be read of it once.
#[test]
fn a_suspect_that_turns_out_to_lack_the_mark_is_one_no_more() {
    let mut table = Table::new();
    table.row(20, 1, 20, 120);
    table.resync();
    assert_eq!(table.suspects(), [20]);
    table.strange = vec![20];
    table.resync();
    assert_eq!((table.members(), table.suspects()), (vec![10], vec![]));
}

/// A subreaper that follows a tree it has started excludes itself, and is given the tree's orphans.
#[test]
fn orphans_given_to_an_excluded_ancestor_are_not_taken_for_its_own() {
    let mut table = Table::new();
    table.lineage = Lineage::new(identity(10, 50), [identity(3, 50)]);
    table.lineage.set_adopters([pid(3)]);
    table.row(20, 3, 3, 120);
    table.resync();
    assert_eq!((table.members(), table.suspects()), (vec![10], vec![20]));
}

#[test]
fn what_is_excluded_never_joins_and_nor_does_what_it_starts() {
    let mut table = Table::new();
    table.lineage = Lineage::new(identity(10, 50), [identity(20, 60)]);
    table.row(20, 10, 3, 60);
    table.row(21, 20, 3, 120);
    assert_eq!(table.forked(10, identity(20, 60)), []);
    assert_eq!(table.forked(20, identity(22, 90)), []);
    assert_eq!(table.resync(), [Output::Resynced { suspects: 0 }]);
    // Its PID is free again, and a member's child has it.
    table.ended(20);
    let joined = Output::Joined { member: identity(20, 130), parent: Some(identity(10, 50)) };
    assert_eq!(table.forked(10, identity(20, 130)), [joined]);
    table.ended(20);
    assert_eq!(table.ended(10).last(), Some(&Output::Empty));
}

#[test]
fn who_had_ended_before_anybody_looked_leaves_with_the_next_scan() {
    let mut table = Table::new();
    table.forked(10, bare(20));
    table.forked(20, identity(21, 60));
    table.row(21, 1, 3, 60);
    let left = Output::Left { member: bare(20), status: ExitStatus::Unknown };
    assert_eq!(table.resync(), [left, Output::Resynced { suspects: 0 }]);
    assert_eq!(table.members(), [10, 21]);
}

/// Unreadable is not absent.
#[test]
fn what_cannot_be_read_makes_a_scan_worthless() {
    let mut table = Table::new();
    table.rows.get_mut(&10).unwrap().1.identity = bare(10);
    assert_eq!(table.resync(), []);
    assert!(table.lineage.is_lost());
    table.row(10, 3, 3, 50);
    assert_eq!(table.scan(), [Output::Resynced { suspects: 0 }]);
}

#[test]
fn a_long_chain_is_judged_in_time_and_a_circle_at_all() {
    let mut table = Table::new();
    for row in 20..20_000 {
        table.row(row, row + 1, 20, 120);
    }
    table.row(20_000, 10, 20, 120);
    for row in 30_000..40_000 {
        table.row(row, if row == 30_000 { 39_999 } else { row - 1 }, 41_000, 120);
    }
    table.resync();
    assert_eq!(table.members().len(), 1 + 19_981);
    assert_eq!(table.suspects().len(), 10_000);
}

#[test]
fn the_kernels_word_that_all_have_ended_is_taken() {
    let mut table = Table::new();
    table.row(20, 1, 20, 120);
    table.resync();
    table.step(Input::Lost { since: 210 });
    let mut out = Vec::new();
    table.lineage.finish(&mut out);
    let left = Output::Left { member: identity(10, 50), status: ExitStatus::Unknown };
    assert_eq!(out, [left, Output::Empty]);
    table.lineage.finish(&mut out);
    assert_eq!(out.len(), 2);
}

/// There can be members in a cgroup that nobody told of.
#[test]
fn while_it_is_held_it_is_not_empty_by_itself() {
    let mut table = Table::new();
    table.lineage.hold();
    let mut out = Vec::new();
    table.lineage.step(Input::Ended { pid: pid(10), status: ExitStatus::Code(0) }, &mut out);
    assert_eq!(out, [Output::Left { member: identity(10, 50), status: ExitStatus::Code(0) }]);
    table.lineage.step(Input::Found { member: identity(20, 60), parent: None }, &mut out);
    table.lineage.step(Input::Ended { pid: pid(20), status: ExitStatus::Code(0) }, &mut out);
    assert_ne!(out.last(), Some(&Output::Empty));
    out.clear();
    table.lineage.finish(&mut out);
    assert_eq!(out, [Output::Empty]);
}

/// Those that are not known are another question.
#[test]
fn what_members_do_is_sure_though_others_may_be_unseen() {
    let mut table = Table::new();
    table.step(Input::Unseen { since: 100 });
    let joined = Output::Joined { member: identity(20, 110), parent: Some(identity(10, 50)) };
    assert_eq!(table.forked(10, identity(20, 110)), [joined]);
    assert_eq!(
        table.step(Input::Executed { pid: pid(20) }),
        [Output::Executed { member: identity(20, 110) }]
    );
    table.ended(10);
    assert_eq!(table.ended(20).len(), 1, "not empty before all have been seen");
    // An orphan from before, one from after, and nobody of the tree is there to be asked about.
    table.rows.remove(&10);
    table.row(30, 1, 30, 99);
    table.row(31, 1, 31, 120);
    assert_eq!(table.scan(), [Output::Resynced { suspects: 1 }]);
    assert_eq!(table.suspects(), [31]);
    assert_eq!(table.ended(31), [Output::Empty]);
}

/// Who has found all of them again has made a loss a smaller one, and not shorter.
#[test]
fn a_loss_is_not_forgotten_when_those_known_have_been_found_again() {
    let mut table = Table::new();
    table.step(Input::Lost { since: 100 });
    table.step(Input::Unseen { since: u64::MAX });
    assert_eq!((table.lineage.is_lost(), table.lineage.missing_since()), (false, Some(100)));
    assert_eq!(table.forked(10, identity(20, 130)).len(), 1);
    table.row(20, 10, 3, 130);
    table.row(21, 1, 21, 120);
    table.scan();
    assert_eq!((table.members(), table.suspects()), (vec![10, 20], vec![21]));
}

/// Its end may have been missed by whoever did not follow it yet; a member's child has its PID.
#[test]
fn that_an_excluded_one_is_there_is_asked_while_others_may_be_unseen() {
    let mut table = Table::new();
    table.lineage = Lineage::new(identity(10, 50), [identity(20, 60)]);
    table.step(Input::Unseen { since: 100 });
    table.row(20, 10, 3, 120);
    table.scan();
    assert_eq!(table.members(), [10, 20]);
}

#[test]
fn a_successor_takes_no_stranger_that_was_seen_for_a_suspect() {
    let mut table = Table::new();
    table.row(20, 1, 20, 199);
    table.step(Input::Lost { since: u64::MAX });
    table.scan();
    table.step(Input::Lost { since: 198 });
    table.lineage = Lineage::adopt(table.lineage.save(None));
    // Seen at 200, and listed then; another one since, and one that was listed when it was saved again.
    table.row(21, 1, 21, 199);
    table.row(22, 1, 22, 201);
    let mut saved = table.lineage.save(None);
    saved.add_strangers([identity(22, 201)]);
    table.lineage = Lineage::adopt(saved);
    table.scan();
    assert_eq!((table.members(), table.suspects()), (vec![10], vec![21]));
}

/// Within its first tick another one can have had its PID.
#[test]
fn a_stranger_is_one_to_a_successor_if_it_was_seen_after_its_first_tick() {
    for (again, suspects) in [(false, vec![20]), (true, vec![])] {
        let mut table = Table::new();
        table.row(10, 3, 3, 51);
        table.row(20, 1, 20, 199);
        table.lineage = Lineage::new(identity(10, 51), []);
        table.lineage.set_strangers([Identity { settled: false, ..identity(20, 199) }]);
        assert!(table.lineage.has_young_stranger(pid(20)));
        if again {
            table.lineage.enrich_stranger(identity(20, 199));
        }
        assert_eq!(table.lineage.has_young_stranger(pid(20)), !again);
        table.lineage = Lineage::adopt(table.lineage.save(None));
        table.scan();
        assert_eq!(table.suspects(), suspects);
    }
}

#[test]
fn what_was_told_is_not_missing_for_a_successor() {
    let mut table = Table::new();
    table.row(10, 3, 3, 51);
    table.row(20, 1, 20, 120);
    for (told, suspects) in [(Some(150), vec![]), (None, vec![20])] {
        table.lineage = Lineage::adopt(Lineage::new(identity(10, 51), []).save(told));
        table.scan();
        assert_eq!(table.suspects(), suspects);
    }
}

#[cfg(feature = "serde")]
#[test]
fn what_was_saved_survives_any_format() {
    let mut table = Table::new();
    table.row(20, 1, 20, 120);
    table.forked(10, bare(21));
    table.resync();
    let json = serde_json::to_string(&table.lineage.save(None)).unwrap();
    let lineage = Lineage::adopt(serde_json::from_str(&json).unwrap());
    assert!(lineage.members().eq(table.lineage.members()));
    assert!(lineage.suspects().eq(table.lineage.suspects()));
    assert!(lineage.is_lost());
    assert_eq!(serde_json::to_string(&lineage.save(None)).unwrap(), json);
}
