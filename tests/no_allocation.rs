//! The hot paths allocate nothing.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::pid;
use pidigree::{is_descendant, parent_of};
use pidigree_testkit::chain;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are the ones that are asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: `place` came from `alloc` above, with this layout.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations this thread makes in there.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn parent_of_and_is_descendant_allocate_nothing() {
    let chain = chain(64);
    let (leaf, root) = (pid(chain.leaf()), pid(chain.root()));
    // The first call finds out what the kernel offers.
    parent_of(leaf).unwrap();

    assert!(allocations(|| drop(std::hint::black_box(vec![0; 8]))) > 0, "the counter does not count");
    let count = allocations(|| {
        for _ in 0..100 {
            assert_eq!(parent_of(root).unwrap(), Some(pid(std::process::id())));
            assert!(is_descendant(leaf, root).unwrap());
            assert!(!is_descendant(root, leaf).unwrap());
        }
    });
    assert_eq!(count, 0);
}
