//! What is known after a loss, and what a scan proves then.

use super::table::{Table, bare, identity, pid};
use crate::identity::Identity;
use crate::state::ExitStatus;
use crate::tree::lineage::check::Listener;
use crate::tree::lineage::{Input, Lineage, Output};

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

/// It can become one later: what it had started by then is its own for good.
#[test]
fn orphans_given_to_an_excluded_ancestor_that_asked_for_them_later_are_suspects() {
    for is_asked in [false, true] {
        let mut table = Table::new();
        table.lineage = Lineage::new(identity(10, 50), [identity(3, 50)]);
        table.lineage.set_adopters([]);
        table.lineage.spare(pid(3));
        table.row(20, 3, 3, 120);
        table.resync();
        assert_eq!((table.members(), table.suspects()), (vec![10], vec![]));
        table.row(21, 3, 3, 210);
        if is_asked {
            table.lineage.add_adopter(pid(3));
            assert_eq!(table.lineage.spared(), None);
        }
        table.resync();
        let suspects = if is_asked { vec![21] } else { vec![] };
        assert_eq!((table.members(), table.suspects()), (vec![10], suspects));
    }
}

/// Whoever follows it and is no subreaper excludes itself and what it starts, an ancestor of the root among that.
#[test]
fn orphans_given_to_an_ancestor_below_somebody_excluded_are_not_taken_for_its_own() {
    let mut table = Table::new();
    table.lineage = Lineage::new(identity(10, 50), [identity(2, 50)]);
    table.lineage.set_adopters([pid(3)]);
    table.row(2, 1, 2, 50);
    table.row(3, 2, 3, 50);
    table.resync();
    assert_eq!((table.members(), table.suspects()), (vec![10], vec![]));
    table.row(20, 3, 3, 210);
    table.row(21, 2, 3, 210);
    table.resync();
    assert_eq!((table.members(), table.suspects()), (vec![10], vec![20]));
    // It has ended; and what the excluded one starts has its PID.
    table.row(3, 2, 3, 220);
    table.row(20, 1, 3, 210);
    table.row(30, 3, 3, 230);
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
