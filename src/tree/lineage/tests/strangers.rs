//! Strangers that started about when a scan was taken, and are orphans by the next one: what is known of them holds.

use super::table::{Table, identity, pid};
use crate::identity::Identity;
use crate::tree::lineage::Input;

/// A scan at tick 200 that is polled: what is forked from a little before it may be missing.
fn polled(table: &mut Table) {
    table.scan();
    table.step(Input::Lost { since: 198 });
}

#[test]
fn one_that_was_judged_by_its_parent_is_none_of_ours_when_that_has_ended() {
    for told in [true, false] {
        let mut table = Table::new();
        table.step(Input::Lost { since: u64::MAX });
        table.row(20, 3, 3, 60);
        table.row(21, 20, 20, 199);
        polled(&mut table);
        if told {
            table.lineage.add_strangers([identity(21, 199)]);
        }
        // Not asked this time either.
        polled(&mut table);
        table.rows.remove(&20);
        table.row(21, 1, 20, 199);
        polled(&mut table);
        assert_eq!(table.suspects(), if told { vec![] } else { vec![21] });
    }
}

/// Seen in the very tick that it started in: another one can have had its PID then, but not of one that is held.
#[test]
fn one_that_is_held_is_the_same_one() {
    for is_held in [true, false] {
        let mut table = Table::new();
        table.step(Input::Lost { since: u64::MAX });
        table.row(20, 3, 20, 199);
        let first_seen = Identity { settled: false, ..identity(20, 199) };
        table.rows.get_mut(&20).unwrap().1.identity = first_seen;
        polled(&mut table);
        assert!(table.lineage.has_young_stranger(pid(20)));
        table.rows.get_mut(&20).unwrap().1.is_pinned = is_held;
        polled(&mut table);
        assert_eq!(table.suspects(), if is_held { vec![] } else { vec![20] });
    }
}
