//! Which trees, followed how, and what happens to them.

use proptest::prelude::*;
use proptest::sample::Index;

use super::kernel::{Act, PIDS};

/// By what means the tree is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Every event of everybody, until some are lost; then a scan.
    Events,
    /// The same, and the kernel counts the members: after a loss, a census.
    Counted,
    /// Ends of those that are known, and scans.
    Poll,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Act(Act),
    /// So many events are told.
    Deliver(usize),
    /// So many that wait are lost, from that one on.
    Lose(Index, usize),
    /// What happens under it: before that row is read, or after all of them, while details are.
    Scan(Vec<(u32, Act)>),
    /// A child is told as found, whether it was told before or not.
    Find(Index),
    Save,
    /// What was saved last is adopted by a successor.
    Restart,
}

#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) source: Source,
    pub(super) unique: bool,
    /// The root leads its session.
    pub(super) leads: bool,
    /// Sessions are given.
    pub(super) sessions: bool,
    pub(super) excluding: bool,
    /// Whoever follows it has started an ancestor of the root, and is none who is given orphans.
    pub(super) above: bool,
    pub(super) lossless: bool,
    /// What the root's family did before anybody looked.
    pub(super) before: Vec<Act>,
    /// What happens while the family is walked, so often at most, where no scan can be proven when attaching.
    pub(super) walk: Option<(Vec<Act>, usize)>,
    /// A successor proves of those known that they are there, and follows them.
    pub(super) proves: bool,
}

pub(super) fn setup(sources: &'static [Source], lossless: bool) -> impl Strategy<Value = Setup> {
    let excluding = prop::bool::weighted(0.3);
    let before = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(Act::any(), 1..8)];
    (prop::sample::select(sources), any::<bool>(), any::<bool>(), any::<bool>(), excluding, before).prop_map(
        move |(source, unique, leads, sessions, excluding, before)| Setup {
            source,
            unique,
            leads,
            sessions,
            excluding,
            above: false,
            lossless,
            before,
            walk: None,
            proves: false,
        },
    )
}

/// The same, attached while others fork all the time.
pub(super) fn walked(sources: &'static [Source], lossless: bool) -> impl Strategy<Value = Setup> {
    let walk = (prop::collection::vec(Act::any(), 0..24), 1..6_usize);
    (setup(sources, lossless), walk, any::<bool>()).prop_map(|(setup, walk, proves)| Setup {
        walk: Some(walk),
        proves,
        ..setup
    })
}

pub(super) fn steps(lossless: bool) -> impl Strategy<Value = Vec<Step>> {
    let scan = || prop::collection::vec((1..PIDS + 6, Act::in_scan()), 0..4).prop_map(Step::Scan);
    let lossy = if lossless { 0 } else { 1 };
    let step = prop_oneof![
        20 => Act::any().prop_map(Step::Act),
        6 => (1..6_usize).prop_map(Step::Deliver),
        2 => Just(Step::Deliver(usize::MAX)),
        1 + 3 * lossy => scan(),
        1 => any::<Index>().prop_map(Step::Find),
        2 * lossy => (any::<Index>(), 1..8_usize).prop_map(|(from, count)| Step::Lose(from, count)),
        lossy => Just(Step::Save),
        lossy => Just(Step::Restart),
    ];
    prop::collection::vec(step, 8..50)
}
