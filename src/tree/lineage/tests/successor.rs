//! What a successor is told, and takes for whom.

use super::table::{Table, identity, pid};
use crate::identity::Identity;
use crate::tree::lineage::{Input, Lineage, Standing};

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

/// Whoever looks at the table again has it as it was first seen: it was held.
#[test]
fn a_scan_forgets_nothing_that_is_known_of_a_stranger() {
    let mut table = Table::new();
    table.row(10, 3, 3, 51);
    table.row(20, 1, 20, 199);
    let first_seen = Identity { settled: false, ..identity(20, 199) };
    table.rows.get_mut(&20).unwrap().1.identity = first_seen;
    table.lineage = Lineage::new(identity(10, 51), []);
    table.lineage.set_strangers([first_seen]);
    let scan = |table: &mut Table| {
        table.step(Input::Lost { since: u64::MAX });
        table.scan();
        table.lineage.has_young_stranger(pid(20))
    };
    assert!(scan(&mut table));
    table.lineage.enrich_stranger(identity(20, 199));
    assert!(!scan(&mut table));
    // The next one that has the PID.
    table.rows.get_mut(&20).unwrap().1.identity = Identity { settled: false, ..identity(20, 200) };
    assert!(scan(&mut table));
}

/// 3 is the ancestor that was there when the tree began, or whoever has its PID since.
#[test]
fn a_successor_with_the_pid_of_an_ancestor_is_that_one_or_left_out() {
    for (start, is_given_orphans, suspects) in
        [(50, true, vec![20]), (50, false, vec![]), (150, true, vec![]), (150, false, vec![])]
    {
        let mut table = Table::new();
        table.row(10, 3, 3, 51);
        table.row(3, 1, 3, start);
        table.row(20, 3, 3, 210);
        table.lineage = Lineage::new(identity(10, 51), []);
        table.lineage.set_adopters([pid(3)]);
        let mut spared = table.lineage.clone();
        spared.insert(identity(3, start), Standing::Excluded);
        spared.set_adopters([]);
        spared.spare(pid(3));
        for before in [table.lineage.clone(), spared] {
            let mut saved = before.save(None);
            saved.exclude(identity(3, start), is_given_orphans);
            table.lineage = Lineage::adopt(saved);
            let lineage = &table.lineage;
            assert_eq!(lineage.adopts(pid(3)), !suspects.is_empty());
            assert_eq!(lineage.spared(), (start == 50 && !is_given_orphans).then(|| pid(3)));
            table.scan();
            let found = (table.members(), table.suspects());
            assert_eq!(found, (vec![10], suspects.clone()), "{start}, {is_given_orphans}");
        }
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
    table.forked(10, super::table::bare(21));
    table.resync();
    let json = serde_json::to_string(&table.lineage.save(None)).unwrap();
    let lineage = Lineage::adopt(serde_json::from_str(&json).unwrap());
    assert!(lineage.members().eq(table.lineage.members()));
    assert!(lineage.suspects().eq(table.lineage.suspects()));
    assert!(lineage.is_lost());
    assert_eq!(serde_json::to_string(&lineage.save(None)).unwrap(), json);
}
