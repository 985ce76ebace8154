use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

type Table = BTreeMap<u32, Option<u32>>;

/// Every process has an older parent or none: what a machine that stands still looks like.
fn forest() -> impl Strategy<Value = Table> {
    prop::collection::vec((1..4_u32, any::<prop::sample::Index>(), prop::bool::weighted(0.9)), 0..60)
        .prop_map(|processes| {
            let mut table = Table::new();
            let mut pids: Vec<u32> = Vec::new();
            for (gap, parent, has_parent) in processes {
                let pid = pids.last().copied().unwrap_or(0) + gap;
                let parent = (has_parent && !pids.is_empty()).then(|| *parent.get(&pids));
                table.insert(pid, parent);
                pids.push(pid);
            }
            table
        })
}

/// Links at random: circles, a process that is its own parent, and parents that are not in the table, as reading under
/// PID reuse and hidepid can show them.
fn any_graph() -> impl Strategy<Value = Table> {
    prop::collection::btree_map(1..25_u32, prop::option::weighted(0.9, 1..28_u32), 0..25)
}

fn table() -> impl Strategy<Value = Table> {
    prop_oneof![forest(), any_graph()]
}

fn pid(number: u32) -> Pid {
    Pid::new(number).unwrap()
}

fn entry((&number, &parent): (&u32, &Option<u32>)) -> Entry {
    Entry { pid: pid(number), parent: parent.map(pid) }
}

fn snapshot(table: &Table) -> Snapshot {
    Snapshot::of(table.iter().map(entry).collect(), true)
}

/// Everything that a question can be about: those in the table, named by it, and neither.
fn asked(table: &Table) -> BTreeSet<u32> {
    let named = table.iter().flat_map(|(&pid, &parent)| [Some(pid), parent]).flatten();
    named.chain([1, 500, i32::MAX as u32]).collect()
}

/// The naive answer: follows the links up, never twice over the same one.
fn is_below(table: &Table, mut at: u32, root: u32) -> bool {
    let start = at;
    let mut met = BTreeSet::new();
    while let Some(&Some(parent)) = table.get(&at) {
        if parent == root {
            return start != root;
        }
        if !met.insert(parent) {
            break;
        }
        at = parent;
    }
    false
}

proptest! {
    #[test]
    fn every_process_is_found_and_no_other(table in table()) {
        let snapshot = snapshot(&table);
        prop_assert_eq!(snapshot.len(), table.len());
        prop_assert_eq!(snapshot.is_empty(), table.is_empty());
        prop_assert!(snapshot.iter().copied().eq(table.iter().map(entry)));
        prop_assert_eq!(snapshot.iter().len(), table.len());
        for number in asked(&table) {
            let expected = table.get_key_value(&number).map(entry);
            prop_assert_eq!(snapshot.get(pid(number)).copied(), expected);
        }
    }

    #[test]
    fn the_order_of_the_listing_does_not_matter(
        (table, listed) in table().prop_flat_map(|table| {
            let entries: Vec<Entry> = table.iter().map(entry).collect();
            (Just(table), Just(entries).prop_shuffle())
        })
    ) {
        let (sorted, shuffled) = (snapshot(&table), Snapshot::of(listed, false));
        prop_assert!(sorted.iter().eq(shuffled.iter()));
        for number in asked(&table) {
            prop_assert!(sorted.children(pid(number)).eq(shuffled.children(pid(number))));
        }
        prop_assert!(sorted.is_proven() && !shuffled.is_proven());
    }

    #[test]
    fn children_are_those_whose_parent_it_is_by_ascending_pid(table in table()) {
        let snapshot = snapshot(&table);
        for number in asked(&table) {
            let expected: Vec<Entry> = table
                .iter()
                .filter(|(_, parent)| **parent == Some(number))
                .map(entry)
                .collect();
            prop_assert_eq!(snapshot.children(pid(number)).len(), expected.len());
            prop_assert!(snapshot.children(pid(number)).eq(&expected));
        }
    }

    #[test]
    fn descendants_are_all_below_each_once_parents_first(table in table()) {
        let snapshot = snapshot(&table);
        for root in asked(&table) {
            let found = snapshot.descendants(pid(root));
            let mut known = BTreeSet::from([pid(root)]);
            for entry in &found {
                prop_assert!(known.contains(&entry.parent.unwrap()), "{entry:?} comes before its parent");
                prop_assert!(known.insert(entry.pid), "{entry:?} comes twice, or is the root");
            }
            let set: BTreeSet<u32> = found.iter().map(|entry| entry.pid.get()).collect();
            let expected: BTreeSet<u32> = table.keys().copied().filter(|&at| is_below(&table, at, root)).collect();
            prop_assert_eq!(set, expected, "below {}", root);
        }
    }

    #[test]
    fn is_descendant_agrees_with_descendants(table in table()) {
        let snapshot = snapshot(&table);
        let asked = asked(&table);
        for &root in &asked {
            for &at in &asked {
                let said = snapshot.is_descendant(pid(at), pid(root));
                prop_assert_eq!(said, is_below(&table, at, root), "{} below {}", at, root);
            }
            prop_assert!(!snapshot.is_descendant(pid(root), pid(root)));
        }
    }

    #[test]
    fn in_a_forest_nobody_is_both_above_and_below(table in forest()) {
        let snapshot = snapshot(&table);
        let pids: Vec<u32> = table.keys().copied().collect();
        for (&a, &b) in pids.iter().zip(pids.iter().rev()) {
            prop_assert!(!(snapshot.is_descendant(pid(a), pid(b)) && snapshot.is_descendant(pid(b), pid(a))));
        }
    }
}

#[test]
fn a_chain_of_every_process_is_walked_to_its_end() {
    let table: Table = (1..=2000).map(|at| (at, (at > 1).then(|| at - 1))).collect();
    let snapshot = snapshot(&table);
    assert!(snapshot.is_descendant(pid(2000), pid(1)));
    assert_eq!(snapshot.descendants(pid(1)).len(), 1999);
}

#[test]
fn a_circle_ends() {
    let table = Table::from([(1, Some(2)), (2, Some(1)), (3, Some(3)), (4, Some(1))]);
    let snapshot = snapshot(&table);
    assert!(snapshot.is_descendant(pid(1), pid(2)) && snapshot.is_descendant(pid(2), pid(1)));
    assert!(!snapshot.is_descendant(pid(4), pid(3)) && !snapshot.is_descendant(pid(3), pid(3)));
    let below: Vec<u32> = snapshot.descendants(pid(1)).iter().map(|entry| entry.pid.get()).collect();
    assert_eq!(below, [2, 4]);
    assert_eq!(snapshot.descendants(pid(3)).len(), 0);
}
