//! Ends are told: none is lost, none twice, and none of another one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::state::ExitStatus;
use poller::Poller;

fn drain(poller: &Poller<Fake>) -> Vec<u64> {
    let mut keys = Vec::new();
    while poller.wait(&mut keys, 256, Some(Duration::ZERO)).unwrap() {}
    keys
}

/// Trap 36: nobody can attach to one that is ending, though it is listed; that is an end.
#[test]
fn whoever_cannot_be_attached_to_has_ended() {
    let (fake, root) = Fake::new();
    let handle = open(&fake, root).unwrap();
    fake.act(Op::Exit(0, 0));
    let poller = Poller::new_in(fake.clone()).unwrap();
    poller.add(&handle, 5).unwrap();
    assert_eq!(drain(&poller), [5]);
    assert_eq!(drain(&poller), [0; 0], "once");
}

/// Trap 37: how another user's process ends is not told, and that it does is.
#[test]
fn without_the_right_to_its_status_the_end_is_told() {
    let (fake, _) = Fake::new();
    for _ in 0..3 {
        fake.act(Op::Fork(1));
    }
    let poller = Poller::new_in(fake.clone()).unwrap();
    for (number, is_foreign) in [(101, false), (103, true)] {
        assert_eq!(fake.lock().bearer(number).unwrap().is_foreign, is_foreign);
        let handle = open(&fake, number).unwrap();
        let key = handle.pid().get().into();
        poller.add(&handle, key).unwrap();
        end(&fake, number, 0x0300);
        assert_eq!(drain(&poller), [key]);
        let status = if is_foreign { ExitStatus::Unknown } else { ExitStatus::Code(3) };
        assert_eq!(handle.exit_status(), status);
    }
}

/// Trap 39: a knote that stands is not attached anew.
#[test]
fn a_reused_pid_is_attached_to_anew() {
    let (fake, root) = Fake::new();
    fake.lock().most_pids = root;
    let poller = Poller::new_in(fake.clone()).unwrap();
    let old = open(&fake, root).unwrap();
    poller.add(&old, 1).unwrap();
    end(&fake, root, 0);
    fake.act(Op::Fork(0));
    let new = open(&fake, root).unwrap();
    poller.add(&new, 2).unwrap();
    assert_eq!(drain(&poller), [1]);
    end(&fake, root, 0x0700);
    assert_eq!(drain(&poller), [2]);
    assert_eq!(new.exit_status(), ExitStatus::Code(7));
}

/// Trap 32: the end of a traced one is told to the tracer alone, so it is looked at now and then.
#[test]
fn the_end_of_a_traced_one_is_found() {
    let (fake, root) = Fake::new();
    fake.act(Op::Trace(0, 0));
    let handle = open(&fake, root).unwrap();
    let poller = Poller::new_in(fake.clone()).unwrap();
    poller.add(&handle, 1).unwrap();
    fake.act(Op::Tick);
    assert_eq!(drain(&poller), [0; 0], "it runs");
    for op in [Op::Exit(0, 0), Op::GoOn(0), Op::GoOn(0)] {
        fake.act(op);
    }
    assert_eq!(drain(&poller), [0; 0], "the trap");
    fake.act(Op::Tick);
    assert_eq!(drain(&poller), [1]);
}

#[test]
fn a_wait_ends_with_the_process_or_the_time() {
    let (fake, root) = Fake::new();
    let handle = open(&fake, root).unwrap();
    assert!(!handle.wait(Some(Duration::ZERO)).unwrap());
    assert!(!handle.wait(Some(Duration::from_nanos(1))).unwrap());
    // At the fifth call: that which waits.
    fake.lock().script = vec![vec![]; 16].into();
    fake.lock().script.push_back(vec![Op::Exit(0, 0x0500), Op::GoOn(0)]);
    assert!(handle.wait(None).unwrap());
    assert_eq!(handle.exit_status(), ExitStatus::Code(5));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn each_end_is_told_once(
        before in prop::collection::vec(op(), 0..30),
        between in scripts(60),
        actions in prop::collection::vec((100..124_i32, 0..6_u8), 1..40),
        refuses_ids: bool,
    ) {
        let (fake, _) = begun(&before, refuses_ids);
        let poller = Poller::new_in(fake.clone()).unwrap();
        fake.lock().script = between.into();
        // By key: of whom, and whether its end has been told.
        let mut watched: BTreeMap<u64, (u64, Arc<Handle<Fake>>, bool)> = BTreeMap::new();
        let mut registered = BTreeMap::new();
        for (key, (number, action)) in (1..).zip(actions) {
            if action < 4 {
                let Ok(handle) = open(&fake, number) else { continue };
                let start = handle.identity(true).start_time().unwrap().ticks;
                let unique = fake.lock().all.values().find(|one| one.start as u64 == start).unwrap().unique;
                registered.insert(key, poller.add(&handle, key).unwrap());
                watched.insert(key, (unique, handle, false));
            } else if action == 4 {
                let key = watched.iter().find(|(_, (_, _, told))| !told).map(|(key, _)| *key);
                let Some(key) = key else { continue };
                let (_, handle, _) = watched.remove(&key).unwrap();
                poller.remove(&handle, registered.remove(&key).unwrap(), key);
            }
            told(&fake, &drain(&poller), &mut watched)?;
        }
        // Until nothing is left to happen, and all have ended.
        while !fake.lock().script.is_empty() {
            told(&fake, &drain(&poller), &mut watched)?;
        }
        fake.lock().end_all();
        fake.act(Op::Tick);
        told(&fake, &drain(&poller), &mut watched)?;
        for (key, (unique, _, told)) in watched {
            prop_assert!(told, "the end of {} was not told for {}", unique, key);
        }
    }
}

fn told(
    fake: &Fake,
    keys: &[u64],
    watched: &mut BTreeMap<u64, (u64, Arc<Handle<Fake>>, bool)>,
) -> Result<(), TestCaseError> {
    for key in keys {
        // One that was unwatched can have been on its way.
        let Some((unique, handle, told)) = watched.get_mut(key) else { continue };
        let process = fake.lock().all[unique];
        prop_assert!(!*told, "{} twice", unique);
        prop_assert!(has_ended(process.phase), "{} runs", unique);
        *told = true;
        let status = handle.exit_status();
        let real = crate::sys::posix::from_wait(process.status);
        prop_assert!(status == real || status == ExitStatus::Unknown, "{:?}, not {:?}", status, real);
    }
    Ok(())
}
