//! A machine in small: boots, PID namespaces, processes that come and go, and observers who record what they can see.
//! A record knows which process it is of, by construction, so whatever `same_process` says can be held against the truth.

use proptest::prelude::*;

use super::super::*;

/// The clock of the simulation: so many moments in one clock tick, so that several processes fit into it.
const MOMENTS: u64 = 8;
const NANOSECONDS: i64 = 10_000_000 / MOMENTS as i64;
/// PIDs of a namespace: so few that they are reused at once.
const PIDS: u32 = 3;

#[derive(Clone, Debug)]
enum Step {
    /// A process starts in a namespace, with this PID if it is free there, as clone3's set_tid would have it.
    Start {
        namespace: prop::sample::Index,
        pid: u32,
    },
    /// One is reaped.
    End {
        process: prop::sample::Index,
    },
    /// One is reaped and another starts with its PIDs, at once.
    Reuse {
        process: prop::sample::Index,
    },
    Pass {
        moments: u64,
    },
    Record {
        process: prop::sample::Index,
        observer: Observer,
    },
    Unshare {
        parent: prop::sample::Index,
    },
    /// A namespace ends, with all in it. Its inode number is free for another.
    Collapse {
        namespace: prop::sample::Index,
    },
    Reboot,
}

/// Who records, and what its kernel or sandbox keeps from it.
#[derive(Clone, Debug)]
struct Observer {
    /// How far up from the process's own namespace it stands.
    level: prop::sample::Index,
    unique: bool,
    start: bool,
    namespace: bool,
    boot: bool,
    /// Of its time namespace, in moments.
    offset: i64,
}

fn observer() -> impl Strategy<Value = Observer> {
    let mostly = || prop::bool::weighted(0.9);
    let offset = prop_oneof![6 => Just(0), 1 => Just(3), 1 => Just(-5), 1 => Just(MOMENTS as i64)];
    (any::<prop::sample::Index>(), any::<bool>(), mostly(), mostly(), mostly(), offset).prop_map(
        |(level, unique, start, namespace, boot, offset)| Observer {
            level,
            unique,
            start,
            namespace,
            boot,
            offset,
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use prop::sample::Index;
    let step = prop_oneof![
        4 => (any::<Index>(), 1..=PIDS).prop_map(|(namespace, pid)| Step::Start { namespace, pid }),
        2 => any::<Index>().prop_map(|process| Step::End { process }),
        6 => any::<Index>().prop_map(|process| Step::Reuse { process }),
        4 => (0..=MOMENTS).prop_map(|moments| Step::Pass { moments }),
        12 => (any::<Index>(), observer()).prop_map(|(process, observer)| Step::Record { process, observer }),
        1 => any::<Index>().prop_map(|parent| Step::Unshare { parent }),
        1 => any::<Index>().prop_map(|namespace| Step::Collapse { namespace }),
        1 => Just(Step::Reboot),
    ];
    prop::collection::vec(step, 10..80)
}

struct Namespace {
    inode: u64,
    parent: Option<usize>,
    alive: bool,
}

struct Process {
    start: u64,
    unique: u64,
    /// Its own namespace and those above it, each with the PID that it has there.
    pids: Vec<(usize, u32)>,
    alive: bool,
}

struct Record {
    process: usize,
    identity: Identity,
}

struct World {
    boot: u8,
    now: u64,
    next_unique: u64,
    /// Of all boots, so that positions never name two.
    namespaces: Vec<Namespace>,
    processes: Vec<Process>,
    records: Vec<Record>,
}

impl World {
    fn new() -> World {
        let mut world = World {
            boot: 0,
            now: 0,
            next_unique: 0,
            namespaces: Vec::new(),
            processes: Vec::new(),
            records: Vec::new(),
        };
        world.boot();
        world
    }

    fn run(steps: &[Step]) -> World {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world
    }

    fn boot(&mut self) {
        self.boot += 1;
        // Every count begins anew; the clock too, near enough to the last boot's times to meet them.
        self.now = 100 * MOMENTS;
        self.next_unique = 1;
        for namespace in &mut self.namespaces {
            namespace.alive = false;
        }
        for process in &mut self.processes {
            process.alive = false;
        }
        self.namespaces.push(Namespace { inode: 1000, parent: None, alive: true });
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Start { namespace, pid } => {
                let namespace = *namespace.get(&self.living_namespaces());
                self.start(namespace, *pid);
            }
            Step::End { process } => {
                if let Some(process) = self.living(process) {
                    self.processes[process].alive = false;
                }
            }
            Step::Reuse { process } => {
                if let Some(process) = self.living(process) {
                    self.processes[process].alive = false;
                    let pids = self.processes[process].pids.clone();
                    self.start_with(pids);
                }
            }
            Step::Pass { moments } => self.now += moments,
            Step::Record { process, observer } => {
                if let Some(process) = self.living(process) {
                    self.record(process, observer);
                }
            }
            Step::Unshare { parent } => {
                let parent = *parent.get(&self.living_namespaces());
                // The lowest number that is free now, as the kernel's allocator gives it.
                let used = |inode| self.namespaces.iter().any(|other| other.alive && other.inode == inode);
                let inode = (1001..).find(|&inode| !used(inode)).unwrap();
                self.namespaces.push(Namespace { inode, parent: Some(parent), alive: true });
            }
            Step::Collapse { namespace } => {
                let namespace = *namespace.get(&self.living_namespaces());
                // The first of a boot ends with the boot.
                if self.namespaces[namespace].parent.is_some() {
                    self.collapse(namespace);
                }
            }
            // A record can only be told from 255 boots by its boot id.
            Step::Reboot if self.boot < u8::MAX => self.boot(),
            Step::Reboot => {}
        }
    }

    fn living_namespaces(&self) -> Vec<usize> {
        (0..self.namespaces.len()).filter(|&at| self.namespaces[at].alive).collect()
    }

    fn living(&self, which: &prop::sample::Index) -> Option<usize> {
        let living: Vec<usize> = (0..self.processes.len()).filter(|&at| self.processes[at].alive).collect();
        (!living.is_empty()).then(|| *which.get(&living))
    }

    fn start(&mut self, namespace: usize, pid: u32) -> Option<usize> {
        let mut pids = Vec::new();
        let mut at = Some(namespace);
        while let Some(namespace) = at {
            let used = |pid| {
                let mut living = self.processes.iter().filter(|process| process.alive);
                living.any(|process| process.pids.contains(&(namespace, pid)))
            };
            // The number is only asked for in its own namespace; above, the next free one is taken.
            let pid = if pids.is_empty() {
                Some(pid).filter(|&pid| !used(pid))
            } else {
                (1..=PIDS).find(|&pid| !used(pid))
            };
            pids.push((namespace, pid?));
            at = self.namespaces[namespace].parent;
        }
        Some(self.start_with(pids))
    }

    fn start_with(&mut self, pids: Vec<(usize, u32)>) -> usize {
        self.processes.push(Process { start: self.now, unique: self.next_unique, pids, alive: true });
        self.next_unique += 1;
        self.processes.len() - 1
    }

    fn collapse(&mut self, namespace: usize) {
        for below in 0..self.namespaces.len() {
            if self.namespaces[below].alive && self.namespaces[below].parent == Some(namespace) {
                self.collapse(below);
            }
        }
        self.namespaces[namespace].alive = false;
        for process in &mut self.processes {
            process.alive &= process.pids[0].0 != namespace;
        }
    }

    fn record(&mut self, process: usize, observer: &Observer) {
        let of = &self.processes[process];
        let &(namespace, pid) = observer.level.get(&of.pids);
        // The kernel shifts, and then rounds; so does the observer's clock.
        let tick = |moment: u64| (moment as i64 + observer.offset) as u64 / MOMENTS;
        let start = StartTime { ticks: tick(of.start), offset: observer.offset * NANOSECONDS };
        let identity = Identity {
            pid: Pid::new(pid).unwrap(),
            unique: observer.unique.then_some(of.unique),
            start: observer.start.then_some(start),
            settled: observer.start && start.ticks < tick(self.now),
            pid_namespace: observer.namespace.then_some(self.namespaces[namespace].inode),
            boot: observer.boot.then_some(BootId([self.boot; 16])),
        };
        self.records.push(Record { process, identity });
    }

    fn pairs(&self) -> impl Iterator<Item = (&Record, &Record)> {
        self.records.iter().flat_map(|a| self.records.iter().map(move |b| (a, b)))
    }
}

/// What most tools go by: PID and start time, equal or not.
fn by_pid_and_start(a: &Identity, b: &Identity) -> bool {
    a.pid == b.pid && a.start == b.start
}

proptest! {
    #[test]
    fn what_is_said_is_true(steps in steps()) {
        let world = World::run(&steps);
        for (a, b) in world.pairs() {
            let truth = if a.process == b.process { Sameness::Same } else { Sameness::Different };
            let said = a.identity.same_process(&b.identity);
            prop_assert!(
                said == truth || said == Sameness::Unknown,
                "{} and {} are said to be {said:?}, and are {truth:?}", a.identity, b.identity,
            );
            prop_assert_eq!(said, b.identity.same_process(&a.identity));
        }
    }

    #[test]
    fn what_can_be_said_is_said(steps in steps()) {
        let world = World::run(&steps);
        for (Record { identity: a, .. }, Record { identity: b, .. }) in world.pairs() {
            let decided = a.same_process(b) != Sameness::Unknown;
            let boots = a.boot.is_some() && b.boot.is_some();
            let namespaces = a.pid_namespace.is_some() && a.pid_namespace == b.pid_namespace;
            if boots && a.unique.is_some() && b.unique.is_some() {
                prop_assert!(decided, "{a} and {b} both have a unique id");
            }
            if let (Some(x), Some(y)) = (a.start, b.start) {
                if x.offset == y.offset && boots && namespaces && a.settled && b.settled {
                    prop_assert!(decided, "{a} and {b} are settled");
                }
            }
        }
    }

    /// Two records of one observer who is told all, at any two times: always decided.
    #[test]
    fn with_unique_ids_identities_are_equal_exactly_if_they_are_one_process(steps in steps()) {
        let mut world = World::run(&steps);
        for record in 0..world.records.len() {
            let Identity { unique, boot, pid_namespace, .. } = world.records[record].identity;
            if unique.is_none() || boot.is_none() || pid_namespace.is_none() {
                world.records[record].identity.pid_namespace = None;
            }
        }
        world.records.retain(|record| record.identity.pid_namespace.is_some());
        for (a, b) in world.pairs() {
            if a.identity.pid_namespace == b.identity.pid_namespace {
                prop_assert_eq!(a.identity == b.identity, a.process == b.process);
            }
        }
    }

    #[test]
    fn a_token_says_as_much_as_the_identity(steps in steps()) {
        let world = World::run(&steps);
        for (a, b) in world.pairs().take(50) {
            let read: Identity = a.identity.to_string().parse().unwrap();
            prop_assert_eq!(read.same_process(&b.identity), a.identity.same_process(&b.identity));
        }
    }

    /// Trap 6, densely: all within one tick, or little more.
    #[test]
    fn reuse_within_one_tick_is_never_taken_for_the_same(
        pauses in prop::collection::vec(prop_oneof![4 => Just(0), 2 => Just(1), 1 => 1..=2 * MOMENTS], 2..20),
        uniques in prop::collection::vec(any::<bool>(), 40),
    ) {
        let mut world = World::new();
        let mut bearer = world.start(0, 1).unwrap();
        let mut uniques = uniques.into_iter();
        for pause in pauses {
            for pass in [0, pause] {
                world.now += pass;
                world.record(bearer, &whole_view(uniques.next().unwrap_or(false)));
            }
            world.processes[bearer].alive = false;
            bearer = world.start(0, 1).unwrap();
        }
        for (a, b) in world.pairs() {
            match a.identity.same_process(&b.identity) {
                Sameness::Same => prop_assert_eq!(a.process, b.process),
                Sameness::Different => prop_assert_ne!(a.process, b.process),
                Sameness::Unknown => {
                    prop_assert!(a.identity.unique.is_none() || b.identity.unique.is_none());
                    prop_assert_eq!(a.identity.start, b.identity.start);
                    prop_assert!(!a.identity.settled || !b.identity.settled);
                }
            }
        }
    }
}

fn whole_view(unique: bool) -> Observer {
    // The namespace at the top is the only one here.
    Observer { level: top(), unique, start: true, namespace: true, boot: true, offset: 0 }
}

fn top() -> prop::sample::Index {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    any::<prop::sample::Index>().new_tree(&mut TestRunner::deterministic()).unwrap().current()
}

/// 200 processes with one PID in one tick; only the last lives on. The pair (PID, start time) takes them all for one.
#[test]
fn of_a_tick_full_of_reuses_only_the_survivor_is_settled() {
    for unique in [false, true] {
        let mut world = World::new();
        let mut bearer = world.start(0, 1).unwrap();
        for _ in 0..200 {
            world.record(bearer, &whole_view(unique));
            world.processes[bearer].alive = false;
            bearer = world.start(0, 1).unwrap();
        }
        world.record(bearer, &whole_view(unique));
        world.now += MOMENTS;
        world.record(bearer, &whole_view(unique));
        world.record(bearer, &whole_view(unique));
        let (mut fooled, mut same) = (0, 0);
        for (a, b) in world.pairs() {
            let truth = a.process == b.process;
            let said = a.identity.same_process(&b.identity);
            if by_pid_and_start(&a.identity, &b.identity) && !truth {
                fooled += 1;
            }
            match said {
                Sameness::Same => assert!(truth),
                Sameness::Different => assert!(!truth),
                Sameness::Unknown => assert!(!unique),
            }
            same += usize::from(said == Sameness::Same);
        }
        // The negative control: 201 processes, and the pair cannot tell any two apart.
        assert_eq!(fooled, 203 * 203 - (200 + 3 * 3));
        // With unique ids each record is of its process; without, only the two that were settled are provably one.
        assert_eq!(same, if unique { 200 + 3 * 3 } else { 2 * 2 });
    }
}

/// The simulation must meet what it is there for; otherwise the properties above hold of nothing.
#[test]
fn the_simulated_worlds_are_hard_enough() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut verdicts, mut fooled, mut inodes, mut boots, mut offsets) = ([0; 3], 0, 0, 0, 0);
    for _ in 0..256 {
        let world = World::run(&steps().new_tree(&mut runner).unwrap().current());
        for (a, b) in world.pairs() {
            verdicts[a.identity.same_process(&b.identity) as usize] += 1;
            let two = a.process != b.process;
            let (x, y) = (&a.identity, &b.identity);
            let namespace = |record: &Record| world.processes[record.process].pids[0].0;
            fooled +=
                usize::from(two && x.boot == y.boot && by_pid_and_start(x, y) && (x.settled || y.settled));
            inodes += usize::from(
                x.pid_namespace == y.pid_namespace && x.boot == y.boot && namespace(a) != namespace(b) && two,
            );
            boots += usize::from(x.boot != y.boot && x.unique.is_some() && x.unique == y.unique && two);
            offsets +=
                usize::from(!two && x.start.map(|start| start.ticks) != y.start.map(|start| start.ticks));
        }
    }
    for (what, count) in [
        ("same", verdicts[0]),
        ("different", verdicts[1]),
        ("unknown", verdicts[2]),
        ("two processes of one boot, PID and start time, one of them settled", fooled),
        ("two namespaces seen through one inode number", inodes),
        ("one unique id in two boots", boots),
        ("one process under two start times", offsets),
    ] {
        assert!(count > 100, "{what}: only {count}");
    }
}
