//! Trees, as far as a kqueue and the process table show them.

use std::collections::BTreeSet;

use super::super::fake::Process;
use super::super::handle::PID_NAMESPACE;
use super::super::kernel::Kernel;
use super::*;
use crate::identity::Identity;
use crate::state::ExitStatus;
use crate::sys::notice::Notice;
use crate::tree::lineage::{Input, Lineage, Output};
use connector::Connector;

/// A tree as the engine follows it.
struct Followed {
    fake: Fake,
    root: u64,
    connector: Connector<Fake>,
    lineage: Lineage,
    told: BTreeSet<u64>,
    is_empty: bool,
}

impl Followed {
    fn attach(fake: &Fake, root: i32) -> Followed {
        let identity = open(fake, root).unwrap().identity(true);
        let mut connector = Connector::open_in(fake.clone()).unwrap();
        assert!(connector.track(pid(root), None).unwrap());
        let root = fake.lock().bearer(root).unwrap().unique;
        Followed {
            fake: fake.clone(),
            root,
            connector,
            lineage: Lineage::new(identity, []),
            told: BTreeSet::from([root]),
            is_empty: false,
        }
    }

    fn hear(&mut self) {
        let mut notices = Vec::new();
        self.connector.read(&mut notices).unwrap();
        let mut outputs = Vec::new();
        for notice in notices {
            let input = match notice {
                Notice::Forked { parent, child, .. } => {
                    self.was_told(parent, child);
                    Input::Forked { parent, child: identify(&self.fake, child, parent) }
                }
                Notice::Executed { pid, .. } => Input::Executed { pid },
                Notice::Ended { pid, status, .. } => Input::Ended { pid, status },
                Notice::Lost => panic!("nothing is lost"),
            };
            self.lineage.step(input, &mut outputs);
        }
        self.is_empty |= outputs.contains(&Output::Empty);
    }

    fn members(&self) -> Vec<i32> {
        self.lineage.members().map(|member| member.pid().raw()).collect()
    }

    fn descends(&self, unique: u64) -> bool {
        let xnu = self.fake.lock();
        let line = std::iter::successors(xnu.all.get(&unique), |one| xnu.all.get(&one.maker));
        line.skip(1).any(|one| one.unique == self.root)
    }

    /// Takes down who it was that was told, where only one can be meant.
    fn was_told(&mut self, parent: Pid, child: Pid) {
        let xnu = self.fake.lock();
        let can_be = |one: &&Process| {
            let is_its = self.told.contains(&one.maker) && xnu.all[&one.maker].pid == parent.raw();
            one.pid == child.raw() && is_its && !self.told.contains(&one.unique)
        };
        let mut meant = xnu.all.values().filter(can_be);
        if let (Some(one), None) = (meant.next(), meant.next()) {
            self.told.insert(one.unique);
        }
    }

    fn living(&self) -> Vec<u64> {
        let all: Vec<u64> = {
            let xnu = self.fake.lock();
            xnu.all
                .values()
                .filter(|one| one.phase == Phase::Alive && !one.is_new)
                .map(|one| one.unique)
                .collect()
        };
        all.into_iter().filter(|one| *one == self.root || self.descends(*one)).collect()
    }

    /// Nobody is a member who is none.
    fn check_members(&self) -> Result<(), TestCaseError> {
        for member in self.lineage.members() {
            let number = member.pid().raw();
            let is_one = |unique: u64| unique == self.root || self.descends(unique);
            let bearers: Vec<u64> = {
                let xnu = self.fake.lock();
                xnu.all.values().filter(|one| one.pid == number).map(|one| one.unique).collect()
            };
            let known = member.unique_id().map_or_else(|| bearers.iter().any(|one| is_one(*one)), is_one);
            prop_assert!(known, "{} is a stranger", member);
        }
        Ok(())
    }

    /// Whoever lives, and was made by somebody that was told, is a member, once all is quiet.
    fn check_living(&self) -> Result<(), TestCaseError> {
        let is_told =
            |unique: &u64| *unique == self.root || self.told.contains(&self.fake.lock().all[unique].maker);
        for unique in self.living().into_iter().filter(is_told) {
            let number = self.fake.lock().all[&unique].pid;
            prop_assert!(!self.is_empty, "empty, while {} lives", number);
            prop_assert!(self.lineage.member(pid(number)).is_some(), "{} is missing", number);
        }
        Ok(())
    }
}

/// Who forked whom, if that is what is told.
fn link(notice: &Notice) -> Option<(i32, i32)> {
    match *notice {
        Notice::Forked { parent, child, .. } => Some((parent.raw(), child.raw())),
        _ => None,
    }
}

/// As the engine does: the one that `parent` forked, or bare if that cannot be shown.
fn identify(fake: &Fake, child: Pid, parent: Pid) -> Identity {
    let handle = open(fake, child.raw())
        .ok()
        .filter(|handle| matches!(handle.ppid(), Ok(Some(ppid)) if ppid == parent));
    let known = Identity {
        pid: child,
        unique: None,
        start: None,
        settled: false,
        pid_namespace: Some(PID_NAMESPACE),
        boot: fake.boot(),
    };
    handle.map_or(known, |handle| handle.identity(false))
}

/// Trap 34: whose an orphan is, its maker's number tells.
#[test]
fn an_orphan_is_its_makers() {
    let (fake, root) = Fake::new();
    let mut tree = Followed::attach(&fake, root);
    fake.act(Op::Fork(1));
    fake.act(Op::Fork(2));
    tree.hear();
    assert_eq!(tree.members(), [100, 101, 102]);
    end(&fake, 101, 0);
    assert_eq!(open(&fake, 102).unwrap().ppid().unwrap(), Some(pid(1)), "the trap");
    fake.act(Op::Fork(2));
    tree.hear();
    assert_eq!(tree.members(), [100, 102, 103]);
    for number in [100, 102] {
        end(&fake, number, 0);
        tree.hear();
        assert!(!tree.is_empty);
    }
    end(&fake, 103, 0);
    tree.hear();
    assert!(tree.is_empty);
}

/// An orphan that nobody had heard of when its maker ended: daemon(3).
#[test]
fn a_daemon_is_found_after_its_maker_has_gone() {
    let (fake, root) = Fake::new();
    let mut tree = Followed::attach(&fake, root);
    tree.hear();
    fake.act(Op::Fork(1));
    end(&fake, root, 0x0300);
    tree.hear();
    assert_eq!(tree.members(), [101]);
    assert!(!tree.is_empty);
}

/// Trap 35: a process that comes and goes between two looks hides what it has started. That is why the coverage is
/// best effort; this is the control.
#[test]
fn what_is_not_seen_is_not_known() {
    let (fake, root) = Fake::new();
    let mut tree = Followed::attach(&fake, root);
    tree.hear();
    fake.act(Op::Fork(1));
    fake.act(Op::Fork(2));
    end(&fake, 101, 0);
    tree.hear();
    assert_eq!(tree.members(), [100]);
    // But one that has not been reaped is seen.
    fake.act(Op::Fork(1));
    fake.act(Op::Fork(3));
    for op in [Op::Exit(2, 0), Op::GoOn(0), Op::GoOn(0)] {
        fake.act(op);
    }
    assert_eq!(fake.lock().bearer(103).unwrap().phase, Phase::Zombie);
    tree.hear();
    assert_eq!(tree.members(), [100, 104]);
}

/// What a process had started before it is tracked is told, and what is below that.
#[test]
fn earlier_children_are_told() {
    let (fake, root) = Fake::new();
    fake.act(Op::Fork(1));
    fake.act(Op::Fork(2));
    fake.act(Op::Fork(0));
    let mut tree = Followed::attach(&fake, root);
    tree.hear();
    assert_eq!(tree.members(), [100, 101, 102]);
}

/// One tree around another: members of the one are told for the other.
#[test]
fn those_that_are_tracked_already_are_told_again() {
    let (fake, root) = Fake::new();
    fake.act(Op::Fork(1));
    fake.act(Op::Fork(2));
    fake.act(Op::Fork(3));
    let mut connector = Connector::open_in(fake.clone()).unwrap();
    let told = |connector: &mut Connector<Fake>| {
        let mut notices = Vec::new();
        connector.read(&mut notices).unwrap();
        notices.iter().map(|notice| link(notice).unwrap()).collect::<Vec<_>>()
    };
    assert!(connector.track(pid(102), None).unwrap());
    assert!(told(&mut connector).contains(&(102, 103)));
    assert!(connector.track(pid(root), None).unwrap());
    let links = told(&mut connector);
    for link in [(100, 101), (101, 102), (102, 103)] {
        assert!(links.contains(&link), "{links:?}");
    }
    let position = |link| links.iter().position(|one| *one == link);
    assert!(position((101, 102)) < position((102, 103)), "parents before their children");
}

/// A successor is told what those have started that ended in the meantime.
#[test]
fn children_of_those_that_had_ended_are_told() {
    let (fake, root) = Fake::new();
    let ended = open(&fake, root).unwrap().identity(true);
    fake.act(Op::Fork(1));
    end(&fake, root, 0);
    let mut connector = Connector::open_in(fake.clone()).unwrap();
    assert!(!connector.track(pid(root), None).unwrap(), "there is nobody to attach to");
    assert!(connector.track_ended(&ended, ExitStatus::Code(4)));
    let mut notices = Vec::new();
    connector.read(&mut notices).unwrap();
    assert_eq!(link(&notices[0]), Some((100, 101)), "{notices:?}");
    let is_end = matches!(notices.last(), Some(Notice::Ended { pid, status: ExitStatus::Code(4), .. }) if pid.raw() == root);
    assert!(is_end, "{notices:?}");
}

/// Traps 35 and 39: a member's PID is another member's before its end has been read. The old knote must not tell the end
/// of the new one, and what that has started is found.
#[test]
fn a_member_can_have_the_pid_of_an_earlier_one() {
    let (fake, root) = Fake::new();
    let mut tree = Followed::attach(&fake, root);
    fake.act(Op::Fork(1));
    tree.hear();
    end(&fake, root, 0);
    fake.lock().most_pids = 101;
    fake.act(Op::Fork(1));
    fake.lock().most_pids = 120;
    fake.act(Op::Fork(2));
    for _ in 0..2 {
        tree.hear();
        assert_eq!(tree.members(), [100, 101, 102]);
    }
    let unique = tree.lineage.member(pid(root)).unwrap().unique_id();
    assert_ne!(unique, Some(tree.root));
}

/// The PIDs of two members are others' before their ends have been read, and one of these was made by one of those.
#[test]
fn who_made_one_that_has_the_pid_of_another_is_known_until_it_is_found() {
    let (fake, root) = Fake::new();
    let mut tree = Followed::attach(&fake, root);
    fake.act(Op::Fork(1));
    fake.act(Op::Fork(1));
    tree.hear();
    assert_eq!(tree.members(), [100, 101, 102]);
    for (ended, maker) in [(102, 2), (101, 0)] {
        end(&fake, ended, 0);
        fake.lock().most_pids = ended;
        fake.act(Op::Fork(maker));
    }
    tree.hear();
    assert_eq!(tree.members(), [100, 102]);
    end(&fake, 102, 0);
    tree.hear();
    assert_eq!(tree.members(), [100]);
}

/// No more is told of who is forgotten; of what it has started, all.
#[test]
fn whoever_is_forgotten_is_heard_of_no_more() {
    let (fake, root) = Fake::new();
    let mut tree = Followed::attach(&fake, root);
    fake.act(Op::Fork(1));
    tree.hear();
    tree.connector.forget(pid(root));
    end(&fake, root, 0);
    fake.act(Op::Fork(1));
    let mut notices = Vec::new();
    tree.connector.read(&mut notices).unwrap();
    assert_eq!(notices.iter().map(link).collect::<Vec<_>>(), [Some((101, 102))], "{notices:?}");
}

/// What was found out before an error is told after it.
#[test]
fn an_error_loses_nothing() {
    let (fake, root) = Fake::new();
    let mut tree = Followed::attach(&fake, root);
    tree.hear();
    fake.act(Op::Exec(1));
    fake.act(Op::Fork(1));
    end(&fake, root, 0x0300);
    fake.lock().growths = 16;
    let mut notices = Vec::new();
    assert!(tree.connector.read(&mut notices).is_err());
    assert_eq!(notices, []);
    tree.hear();
    assert_eq!(tree.members(), [101]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    /// Whatever happens between any two calls.
    #[test]
    fn nobody_is_taken_for_another_and_whoever_is_seen_is_followed(
        before in prop::collection::vec(op(), 0..30),
        between in scripts(80),
        refuses_ids in prop::bool::weighted(0.1),
    ) {
        let (fake, root) = begun(&before, refuses_ids);
        if fake.lock().bearer(root).is_none_or(|root| root.phase != Phase::Alive) {
            return Ok(());
        }
        let mut tree = Followed::attach(&fake, root);
        fake.lock().script = between.into();
        while !fake.lock().script.is_empty() {
            tree.hear();
            if !refuses_ids {
                tree.check_members()?;
            }
            // As much happens between two readings as in one.
            fake.lock().pass();
        }
        tree.hear();
        if !refuses_ids {
            tree.check_members()?;
            tree.check_living()?;
        }
        fake.lock().end_all();
        fake.act(Op::Tick);
        tree.hear();
        prop_assert!(tree.is_empty, "{:?} are left", tree.members());
    }

    /// When each fork is read before the next thing happens, everybody is seen.
    #[test]
    fn whoever_looks_each_time_sees_all(ops in prop::collection::vec(op(), 0..120)) {
        let (fake, root) = begun(&[], false);
        let mut tree = Followed::attach(&fake, root);
        for op in ops {
            fake.act(op);
            tree.hear();
            tree.check_members()?;
            tree.check_living()?;
            prop_assert!(!tree.is_empty || tree.living().is_empty());
        }
        fake.lock().end_all();
        fake.act(Op::Tick);
        tree.hear();
        prop_assert!(tree.is_empty, "{:?} are left", tree.members());
    }
}
