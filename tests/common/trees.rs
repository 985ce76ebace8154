//! What every test of trees says often.

use pidigree::{Backend, Emptied, Result, Tree, TreeBuilder, TreeChild};
use pidigree_testkit::Family;

/// How long the end of a tree may take to be told: to whoever polls, as long as anybody on the machine forks.
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// Whether a tree can be spawned so.
pub(crate) fn works(backend: Backend) -> Result<()> {
    let (_family, spawned) = Family::builder().spawn_by("exit 0", |command| on(backend).spawn(command));
    let (tree, mut child) = spawned?;
    // Whoever polls would wait until nobody forks.
    if backend != Backend::Poll {
        tree.wait_empty(Some(PATIENCE))?;
    }
    child.wait().map(drop)
}

/// A tree to be, on this backend.
pub(crate) fn on(backend: Backend) -> TreeBuilder {
    Tree::builder().backend(backend)
}

/// Spawns a family as a tree.
pub(crate) fn spawn(
    builder: &TreeBuilder,
    script: impl Into<pidigree_testkit::Script>,
) -> (Family, Tree, TreeChild) {
    let (family, spawned) = Family::builder().spawn_by(script, |command| builder.spawn(command));
    let (tree, child) = spawned.unwrap_or_else(|error| panic!("{builder:?}: {error}"));
    (family, tree, child)
}

/// Waits until it is said to be empty, which it then must be.
pub(crate) fn emptied(tree: &Tree, family: &Family) -> Emptied {
    let emptied = tree.wait_empty(Some(PATIENCE)).unwrap();
    assert!(emptied.is_some(), "{} says nothing of its end: {:?}", tree.backend(), tree.members());
    // Another thread's fork has copies of every descriptor until it executes something (trap 26), for a moment.
    let begun = std::time::Instant::now();
    while !family.has_ended() && begun.elapsed() < std::time::Duration::from_millis(200) {
        std::thread::yield_now();
    }
    assert!(family.has_ended(), "{} is said to be empty, and is not", tree.backend());
    emptied.unwrap()
}
