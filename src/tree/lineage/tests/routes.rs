//! Many trees of one kernel, nested as it comes, put in and taken away while their members fork, end and are given away:
//! which of the routes is the nearest to whom? It is known who has started whom.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::ask::{is_known_as_member, judge};
use super::kernel::{Act, Event, INIT, Kernel, Life, MOMENTS, PIDS, Truth};
use super::told::Bearers;
use crate::pid::Pid;
use crate::router::Rank;
use crate::tree::ask::Standing;
use crate::tree::lineage::{Input, Lineage, Row};

#[derive(Clone, Debug)]
enum Move {
    Act(Act),
    /// A process is made the root of a route.
    Insert(Index),
    Remove(Index),
    Deliver(usize),
    /// So many events that wait are lost, from that one on.
    Lose(Index, usize),
    Scan,
    /// Of everybody.
    Ask,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        20 => Act::any().prop_map(Move::Act),
        5 => any::<Index>().prop_map(Move::Insert),
        1 => any::<Index>().prop_map(Move::Remove),
        4 => (1..6_usize).prop_map(Move::Deliver),
        1 => (any::<Index>(), 1..8_usize).prop_map(|(from, count)| Move::Lose(from, count)),
        1 => Just(Move::Scan),
        6 => Just(Move::Ask),
    ];
    prop::collection::vec(one, 10..70)
}

struct Route {
    rank: Rank,
    root: usize,
    lineage: Lineage,
    /// What each process is to its tree.
    truth: Vec<Truth>,
}

struct World {
    kernel: Kernel,
    sessions: bool,
    routes: Vec<Route>,
    last: u64,
    /// `None`: some are missing.
    waiting: Vec<(u64, Option<Event>)>,
    bearers: Bearers,
    counts: Counts,
}

/// What a run has met.
#[derive(Debug, Default)]
struct Counts {
    found: usize,
    without: usize,
    doubts: usize,
    /// Members of several trees of which nothing tells which is nearer.
    unordered: usize,
    /// Answers to members of several trees; and those where the nearest was not the last that was put in.
    nested: usize,
    outer_later: usize,
    left: usize,
}

impl World {
    fn new(unique: bool, sessions: bool) -> World {
        World {
            kernel: Kernel::new(unique, false),
            sessions,
            routes: Vec::new(),
            last: 0,
            waiting: Vec::new(),
            bearers: Bearers::default(),
            counts: Counts::default(),
        }
    }

    fn step(&mut self, step: &Move) {
        match step {
            Move::Act(act) => self.act(act),
            Move::Insert(which) => self.insert(which),
            Move::Remove(which) if !self.routes.is_empty() => {
                self.routes.remove(which.index(self.routes.len()));
            }
            Move::Remove(_) => {}
            Move::Deliver(count) => self.deliver(*count),
            Move::Lose(from, count) if !self.waiting.is_empty() => {
                let from = from.index(self.waiting.len());
                let to = (from + count).min(self.waiting.len());
                let since = self.waiting[from].0;
                self.waiting.splice(from..to, [(since, None)]);
            }
            Move::Lose(..) => {}
            Move::Scan => self.scan(),
            Move::Ask => self.ask_all(),
        }
    }

    fn act(&mut self, act: &Act) {
        self.kernel.act(act, |_| true);
        for (tick, event) in self.kernel.events.drain(..) {
            if let Event::Fork { parent, child } = event {
                for route in &mut self.routes {
                    assert_eq!(route.truth.len(), child);
                    route.truth.push(route.truth[parent]);
                }
            }
            self.waiting.push((tick, Some(event)));
        }
    }

    fn deliver(&mut self, count: usize) {
        for (tick, event) in self.waiting.drain(..count.min(self.waiting.len())) {
            let told = event.and_then(|event| self.bearers.told(&self.kernel, event));
            for route in &mut self.routes {
                match (event, told) {
                    (None, _) => route.lineage.step(Input::Lost { since: tick }, &mut Vec::new()),
                    (_, Some(told)) => route.lineage.step(told.input(), &mut Vec::new()),
                    _ => {}
                }
            }
        }
        self.leave();
    }

    /// Those that are over.
    fn leave(&mut self) {
        let World { kernel, routes, counts, .. } = self;
        routes.retain(|route| {
            if route.lineage.is_empty() {
                let lives = |who: &usize| kernel.processes[*who].life == Life::Running;
                let mut members = (0..route.truth.len()).filter(|who| route.truth[*who] == Truth::Member);
                assert_eq!(members.find(lives), None, "its route has left");
                counts.left += 1;
            }
            !route.lineage.is_empty()
        });
    }

    fn scan(&mut self) {
        self.deliver(usize::MAX);
        for route in &mut self.routes {
            if route.lineage.missing_since().is_some() {
                scan(&mut route.lineage, &self.kernel);
            }
        }
        self.bearers.count(&self.kernel);
        self.leave();
    }

    fn insert(&mut self, which: &Index) {
        self.deliver(usize::MAX);
        let is_free = |who: &usize| {
            let is_running = self.kernel.processes[*who].life == Life::Running;
            is_running && *who != INIT && self.routes.iter().all(|route| route.root != *who)
        };
        let free: Vec<usize> = (0..self.kernel.processes.len()).filter(is_free).collect();
        if free.is_empty() {
            return;
        }
        let root = *which.get(&free);
        if self.inside(root, |_, _| true).is_none() {
            self.scan();
        }
        // It is refused: whether it is below another is not known.
        let Some(inside) = self.inside(root, |_, _| true) else { return };
        self.last += 1;
        // As long as it takes to tell them from others.
        self.kernel.now += MOMENTS;
        let outer = inside.into_iter().map(|place| self.routes[place].rank.number).collect();
        let kernel = &self.kernel;
        let mut lineage = Lineage::new(kernel.identity(root), []);
        let is_member = |who: &usize| {
            kernel.processes[*who].life == Life::Running && self.above(*who, |process| process.parent, root)
        };
        let of = |who: usize| match is_member(&who) {
            true => Truth::Member,
            false if self.above(who, |process| process.maker, root) => Truth::Lapsed,
            false => Truth::Stranger,
        };
        let truth: Vec<Truth> = (0..kernel.processes.len()).map(of).collect();
        let mut above = Vec::new();
        let mut at = root;
        while at != INIT {
            at = kernel.processes[at].parent;
            above.push(kernel.identity(at));
        }
        lineage.set_adopters(above.iter().map(|one| one.pid()));
        let rank = Rank { number: self.last, root: kernel.identity(root), above, outer };
        if self.sessions {
            let members = (0..truth.len()).filter(|who| truth[*who] == Truth::Member);
            lineage.set_sessions(members.map(|who| kernel.processes[who].session));
        }
        lineage.step(Input::Unseen { since: u64::MAX }, &mut Vec::new());
        scan(&mut lineage, kernel);
        self.bearers.count(kernel);
        self.routes.push(Route { rank, root, lineage, truth });
    }

    /// Whether it is `root`, or that is above it.
    fn above(&self, who: usize, next: impl Fn(&super::kernel::Process) -> usize, root: usize) -> bool {
        let mut at = who;
        while at != root && at != INIT {
            at = next(&self.kernel.processes[at]);
        }
        at == root
    }

    /// Of which trees it is a member; `None` if it may be in another one that matters.
    fn inside(&self, who: usize, matters: impl Fn(&[usize], usize) -> bool) -> Option<Vec<usize>> {
        let mut inside = Vec::new();
        let mut doubtful = Vec::new();
        for (place, route) in self.routes.iter().enumerate() {
            match self.standing(&route.lineage, who) {
                Standing::Member => inside.push(place),
                Standing::Doubtful => doubtful.push(place),
                Standing::Stranger { .. } => {}
            }
        }
        doubtful.retain(|place| matters(&inside, *place));
        doubtful.is_empty().then_some(inside)
    }

    /// As a tree says of which the kernel tells.
    fn standing(&self, lineage: &Lineage, who: usize) -> Standing {
        let pid = self.kernel.processes[who].pid;
        let known = is_known_as_member(lineage, &self.kernel, who);
        let is_suspect = lineage.suspects().any(|suspect| suspect.pid() == pid);
        match known {
            Some(true) => Standing::Member,
            None if lineage.missing_since().is_none() && !is_suspect => Standing::Stranger { settled: true },
            _ => judge(lineage, &self.kernel, who, None),
        }
    }

    fn ask_all(&mut self) {
        self.deliver(usize::MAX);
        let running = |who: &usize| self.kernel.processes[*who].life == Life::Running;
        for who in (0..self.kernel.processes.len()).filter(running).collect::<Vec<_>>() {
            let at = |place: usize| &self.routes[place].rank;
            let Some(inside) = self.inside(who, |inside, place| Rank::may_be_nearest(inside, place, at))
            else {
                self.counts.doubts += 1;
                continue;
            };
            let found = Rank::nearest(&inside, at).map(|place| at(place).number);
            if found.is_none() && !inside.is_empty() {
                self.counts.unordered += 1;
                continue;
            }
            let right = self.right(who);
            let process = &self.kernel.processes[who];
            assert!(right.contains(&found), "{found:?} for process {who}, not one of {right:?}: {process:?}");
            match found {
                Some(_) => self.counts.found += 1,
                None => self.counts.without += 1,
            }
            if inside.len() > 1 {
                let last = inside.iter().map(|place| at(*place).number).max();
                self.counts.nested += 1;
                self.counts.outer_later += usize::from(found != last);
            }
        }
    }

    /// The nearest above it by who has started whom; and those before that are not owed to it, or none.
    fn right(&self, who: usize) -> Vec<Option<u64>> {
        let mut right = Vec::new();
        let mut at = who;
        loop {
            for route in self.routes.iter().filter(|route| route.root == at) {
                right.push(Some(route.rank.number));
                if route.truth[who] == Truth::Member {
                    return right;
                }
                assert_eq!(route.truth[who], Truth::Lapsed);
            }
            if at == INIT {
                right.push(None);
                return right;
            }
            at = self.kernel.processes[at].maker;
        }
    }
}

/// Nobody does anything meanwhile.
fn scan(lineage: &mut Lineage, kernel: &Kernel) {
    let table: Vec<Row> = (1..=PIDS).filter_map(|pid| kernel.row(Pid::new(pid)?)).collect();
    let details = &mut |pid| kernel.details(pid);
    let is_strange = &mut |_| false;
    lineage
        .step(Input::Scanned { table: &table, details, is_strange, began: kernel.tick() }, &mut Vec::new());
}

fn run(unique: bool, sessions: bool, moves: &[Move]) -> Counts {
    let mut world = World::new(unique, sessions);
    moves.iter().for_each(|step| world.step(step));
    world.ask_all();
    world.scan();
    world.ask_all();
    world.counts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(super::cases()))]

    /// Never a value of another one's, and never none for whoever is owed one.
    #[test]
    fn the_nearest_route_is_that_of_the_nearest_maker(
        unique in any::<bool>(), sessions in any::<bool>(), moves in moves(),
    ) {
        run(unique, sessions, &moves);
    }
}

#[test]
fn routes_are_nested_hard_enough() {
    let mut runner = TestRunner::deterministic();
    let mut all = Counts::default();
    for turn in 0..300 {
        let moves = moves().new_tree(&mut runner).unwrap().current();
        let met = run(turn % 2 == 0, turn % 4 < 2, &moves);
        all.found += met.found;
        all.without += met.without;
        all.doubts += met.doubts;
        all.unordered += met.unordered;
        all.nested += met.nested;
        all.outer_later += met.outer_later;
        all.left += met.left;
    }
    let Counts { found, without, doubts, unordered, nested, outer_later, left } = all;
    assert!(found > 1000 && without > 1000 && doubts > 20, "{all:?}");
    assert!(nested > 500 && outer_later > 100 && unordered < nested / 20 && left > 50, "{all:?}");
}
