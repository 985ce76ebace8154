//! One process, and never another.

use super::*;
use crate::state::State;

/// Trap 28: nobody has the PID, which is a success with nothing in it.
#[test]
fn nobody_is_gone() {
    let (fake, root) = Fake::new();
    assert!(open(&fake, 4242).unwrap_err().is_gone());
    let handle = open(&fake, root).unwrap();
    end(&fake, root, 0);
    assert_eq!(handle.state().unwrap(), State::Gone);
    assert!(handle.ppid().unwrap_err().is_gone());
    assert!(handle.name().unwrap_err().is_gone());
    assert!(handle.is_kernel_thread().unwrap_err().is_gone());
    assert!(handle.signal(9).unwrap_err().is_gone());
}

/// Trap 28: a table that grew between the question for its size and the reading is read again.
#[test]
fn a_table_that_grew_is_read_again() {
    let (fake, _) = Fake::new();
    for _ in 0..100 {
        fake.act(Op::Fork(0));
    }
    fake.lock().growths = 3;
    let mut pids = Vec::new();
    table::scan(&fake, |pid, parent| pids.push((pid.get(), parent.map(Pid::get)))).unwrap();
    assert_eq!(pids.len(), 102);
    assert!(pids.is_sorted(), "by PID");
    assert_eq!(pids[0], (1, None), "the top; the kernel itself is nobody's process");
    fake.lock().growths = usize::MAX;
    let error = table::scan(&fake, |_, _| panic!("a table was read")).unwrap_err();
    assert!(!error.is_gone() && error.to_string().contains("grows"), "{error}");
}

/// Trap 38: the end is told before the process is a zombie.
#[test]
fn whoever_is_on_its_way_out_has_ended() {
    let (fake, root) = Fake::new();
    let handle = open(&fake, root).unwrap();
    assert_eq!(handle.state().unwrap(), State::Running);
    fake.act(Op::Exit(0, 0));
    assert_eq!(handle.state().unwrap(), State::Zombie);
    assert!(!handle.is_reaped().unwrap());
    for _ in 0..2 {
        fake.act(Op::GoOn(0));
        assert_eq!(handle.state().unwrap(), State::Zombie);
    }
    fake.act(Op::Reap(0));
    assert!(handle.is_reaped().unwrap());
}

/// Trap 32: a debugger takes the parent's place, and gives it back.
#[test]
fn a_tracer_is_not_the_parent() {
    let (fake, root) = Fake::new();
    fake.act(Op::Fork(1));
    let child = open(&fake, 101).unwrap();
    assert_eq!(child.ppid().unwrap(), Some(pid(root)));
    fake.act(Op::Trace(1, 0));
    assert_eq!(fake.lock().bearer(101).unwrap().parent_shown(), 1, "the trap");
    assert_eq!(child.ppid().unwrap(), Some(pid(root)));
    assert_eq!(table::parent_of(&fake, pid(101)).unwrap(), Some(pid(root)));
    assert_eq!(table::children_of(&open(&fake, root).unwrap()).unwrap(), [pid(101)]);
}

/// Trap 33: the wall clock can be set back, so who started "earlier" can be the later one.
#[test]
fn start_times_are_compared_for_equality_alone() {
    for refuses_ids in [false, true] {
        let (fake, root) = begun(&[], refuses_ids);
        fake.lock().most_pids = root;
        let handle = open(&fake, root).unwrap();
        let before = *fake.lock().bearer(root).unwrap();
        end(&fake, root, 0);
        fake.act(Op::SetBack);
        fake.act(Op::Fork(0));
        let after = *fake.lock().bearer(root).unwrap();
        assert!(after.unique > before.unique && after.start < before.start, "the trap");
        assert_eq!(handle.state().unwrap(), State::Gone);
        assert!(handle.signal(15).unwrap_err().is_gone());
        assert_eq!(fake.lock().signals, []);
    }
}

/// An exec keeps all that a process is known by.
#[test]
fn exec_keeps_the_identity() {
    let (fake, root) = Fake::new();
    let handle = open(&fake, root).unwrap();
    fake.act(Op::Exec(1));
    assert_eq!(open(&fake, root).unwrap().identity(true), handle.identity(true));
    assert_eq!(handle.name().unwrap(), "fake 2");
    assert!(!handle.is_kernel_thread().unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    /// Whatever happens between two calls, an answer is of one process: the one that was opened.
    #[test]
    fn no_answer_is_another_ones(
        before in prop::collection::vec(op(), 0..30),
        between in scripts(40),
        refuses_ids: bool,
    ) {
        let (fake, _) = begun(&before, refuses_ids);
        fake.lock().script = between.into();
        for number in 100..124 {
            let Ok(handle) = open(&fake, number) else { continue };
            let identity = handle.identity(true);
            let start = identity.start_time().unwrap().ticks;
            let of_start = |unique: u64| fake.lock().all[&unique].start as u64 == start;
            let who: Vec<u64> = fake.lock().all.values().filter(|one| one.pid == number).map(|one| one.unique).collect();
            let Some(unique) = identity.unique_id().or_else(|| who.iter().copied().find(|one| of_start(*one))) else {
                return Err(TestCaseError::fail("of nobody"));
            };
            prop_assert!(of_start(unique) && who.contains(&unique), "two processes in one identity");
            let phase = || fake.lock().all[&unique].phase;

            let was = phase();
            match handle.state().unwrap() {
                State::Running => prop_assert_eq!(was, Phase::Alive),
                State::Zombie => prop_assert!(has_ended(phase()) && was < Phase::Reaped),
                State::Gone => prop_assert_eq!(phase(), Phase::Reaped),
            }
            let was = phase();
            match handle.ppid() {
                Ok(parent) => {
                    prop_assert!(was < Phase::Reaped);
                    let maker = fake.lock().all[&unique].maker;
                    let makers = fake.lock().all.get(&maker).map(|maker| maker.pid);
                    let parent = parent.map(|parent| parent.raw());
                    prop_assert!(parent == makers || parent == Some(1), "{:?} is no parent", parent);
                }
                Err(error) => prop_assert!(error.is_gone() && phase() == Phase::Reaped, "{}", error),
            }
            // Nothing happens between its look and the call.
            let rest = std::mem::take(&mut fake.lock().script);
            match handle.signal(15) {
                Ok(()) => prop_assert_eq!(fake.lock().signals.pop(), Some((unique, 15))),
                Err(error) => prop_assert!(error.is_gone() && phase() == Phase::Reaped, "{}", error),
            }
            fake.lock().script = rest;
        }
    }

    /// A walk names nobody who was never a parent.
    #[test]
    fn a_verified_link_is_true(before in prop::collection::vec(op(), 0..40), between in scripts(30)) {
        let (fake, _) = begun(&before, false);
        fake.lock().script = between.into();
        for number in 100..124 {
            let since = step::Since::now().unwrap();
            let Ok(mut child) = step::Step::pin_in(fake.clone(), pid(number)) else { continue };
            let Ok(Some(parent)) = child.ppid() else { continue };
            let Ok(parent) = step::Step::pin_in(fake.clone(), parent) else { continue };
            if let Ok(true) = child.is_child_of(&parent, since) {
                let (child, parent) = (child.unique().unwrap(), parent.unique().unwrap());
                let maker = fake.lock().all[&child].maker;
                prop_assert!(maker == parent || parent == 1, "{} is no parent of {}", parent, child);
            }
        }
    }
}
