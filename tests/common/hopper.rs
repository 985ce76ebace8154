//! What both tests of hoppers say.

use std::time::{Duration, Instant};

use pidigree::Tree;
use pidigree_testkit::Family;

use crate::trees::PATIENCE;

/// Asks all the while whether it is empty, at least that often, until the last generation has said so.
pub(crate) fn last_of(tree: &Tree, family: &Family, often: Duration) -> u32 {
    let begun = Instant::now();
    loop {
        // Before the question, so that nobody can end between the two.
        let heard = family.heard("last");
        let empty = tree.wait_empty(Some(often)).unwrap();
        assert_eq!(empty, None, "{}: empty, while a generation lives", tree.backend());
        if let [last] = &heard[..] {
            return last.pid;
        }
        assert!(begun.elapsed() < PATIENCE, "{}: no last generation", tree.backend());
    }
}
