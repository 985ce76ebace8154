//! What the helper says, and when.

use super::*;
use crate::sys::posix::monotonic;

#[test]
fn the_root_ends_before_its_orphan_and_nobody_is_left_after_both() {
    let before = monotonic();
    let mut tended = Tended::script("fork [ say kid pause ] exit 3");
    let (kid, _) = tended.fact("kid");
    let Report::Ended { pid, status, at: first } = tended.next() else { panic!("not an end") };
    assert_eq!((pid, status), (tended.root, ExitStatus::Code(3)));
    tended.assert_silent();
    tended.end();
    let rest = tended.rest();
    let [Report::Ended { pid, status, at: second }, Report::Empty { at: last }] = rest[..] else {
        panic!("{rest:?}")
    };
    assert_eq!((pid, status), (kid, ExitStatus::Code(0)));
    assert!(before < first && first < second && second < last && last < monotonic(), "{rest:?}");
    assert_eq!(tended.code(), Some(3), "as the root");
    tended.assert_silent();
}

#[test]
fn a_root_that_was_killed_is_mirrored_as_shells_do() {
    let mut tended = Tended::script("pause");
    signal(tended.root, Signal::SIGKILL);
    assert_eq!(ends(&tended.rest()), [(tended.root, ExitStatus::Signal(9))]);
    assert_eq!(tended.code(), Some(137));
}

#[test]
fn every_code_is_mirrored() {
    for code in [0, 1, 127, 128, 137, 255] {
        let mut tended = Tended::spawn(&mut shell(format!("exit {code}")));
        assert_eq!(ends(&tended.rest()), [(tended.root, ExitStatus::Code(code))]);
        assert_eq!(tended.code(), Some(code));
    }
}

/// A PID among children is free only after the reaping.
#[test]
fn nobody_is_reaped_before_it_is_told_to_go_on() {
    let mut tended = Tended::spawn_held(&mut Command::new("true"), OnDeath::Kill);
    let root = Handle::open(tended.root).unwrap();
    assert!(root.wait(Some(DEADLINE)).unwrap());
    // The helper was woken by the end, has taken the signal, and sleeps again.
    eventually("the helper sleeps", || is_asleep(tended.helper_pid()).then_some(()));
    assert_eq!(root.state().unwrap(), State::Zombie);
    tended.assert_silent();
    tended.helper().go_on().unwrap();
    assert_eq!(ends(&tended.rest()), [(tended.root, ExitStatus::Code(0))]);
    assert_eq!(root.state().unwrap(), State::Gone);
}

/// With no SIGCHLD (17) waiting for it.
fn is_asleep(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    let pending = u64::from_str_radix(line("ShdPnd:"), 16).unwrap();
    line("State:").starts_with('S') && pending & 1 << 16 == 0
}

#[test]
fn a_daemon_is_adopted() {
    let mut tended = Tended::script("double-fork [ say daemon pause ] exit 0");
    let (daemon, parent) = tended.fact("daemon");
    assert_eq!(parent, tended.helper_pid());
    assert_eq!(ends(&[tended.next()]), [(tended.root, ExitStatus::Code(0))]);
    tended.assert_silent();
    signal(daemon, Signal::SIGTERM);
    assert_eq!(ends(&tended.rest()), [(daemon, ExitStatus::Signal(15))]);
}

/// Trap 23: a child of the root's parent is one of the helper's.
#[test]
fn a_sibling_of_the_root_is_covered() {
    let mut tended = Tended::script("clone-parent [ clone-parent [ say sibling pause ] exit 0 ] exit 0");
    let (sibling, parent) = tended.fact("sibling");
    assert_eq!(parent, tended.helper_pid());
    for _ in 0..2 {
        assert!(matches!(tended.next(), Report::Ended { status: ExitStatus::Code(0), .. }));
    }
    tended.assert_silent();
    signal(sibling, Signal::SIGTERM);
    assert_eq!(ends(&tended.rest()), [(sibling, ExitStatus::Signal(15))]);
}

/// Traps 1 and 2.
#[test]
fn a_hopper_is_never_lost_sight_of() {
    const GENERATIONS: u64 = 10_000;
    let script = format!("hopper {GENERATIONS} setsid-every 7 double-every 11 orphaned say last pause");
    let mut tended = Tended::script(&script);
    let (last, parent) = tended.fact("last");
    assert_eq!(parent, tended.helper_pid());
    let mut ended = 0;
    let mut reports = Vec::new();
    while ended < GENERATIONS + GENERATIONS / 11 {
        assert!(tended.is_readable());
        tended.helper().read(&mut reports).unwrap();
        for report in reports.drain(..) {
            match report {
                Report::Ended { status, .. } => {
                    assert_eq!(status, ExitStatus::Code(0));
                    ended += 1;
                }
                Report::Dropped(count) => ended += count,
                Report::Empty { .. } | Report::Lost => panic!("{last} lives"),
            }
        }
    }
    tended.assert_silent();
    tended.end();
    assert_eq!(ends(&tended.rest()), [(last, ExitStatus::Code(0))]);
}

#[test]
fn what_nobody_read_is_counted_but_for_the_root_and_the_last_word() {
    const ORPHANS: u64 = 3_000;
    let mut tended = Tended::script(&format!("hopper {ORPHANS} exit 5"));
    let helper = Handle::open(tended.helper_pid()).unwrap();
    // It does not end before it has said everything.
    eventually("all were reaped", || children_of(tended.helper_pid()).is_empty().then_some(()));
    assert_eq!(helper.state().unwrap(), State::Running);
    let reports = tended.rest();
    let dropped: Vec<u64> = reports
        .iter()
        .filter_map(|report| if let Report::Dropped(count) = report { Some(*count) } else { None })
        .collect();
    let told = ends(&reports);
    assert!(told.contains(&(tended.root, ExitStatus::Code(0))));
    assert!(dropped.iter().sum::<u64>() > 0, "{} of {ORPHANS} were told", told.len());
    assert_eq!(told.len() as u64 + dropped.iter().sum::<u64>(), ORPHANS + 1);
    assert!(matches!(reports[reports.len() - 2..], [Report::Dropped(_), Report::Empty { .. }]));
}

#[test]
fn a_helper_that_somebody_kills_proves_nothing() {
    let mut tended = Tended::script("fork [ pause ] pause");
    tended.assert_silent();
    signal(tended.helper_pid(), Signal::SIGKILL);
    assert_eq!(tended.rest(), [Report::Lost]);
    tended.assert_silent();
    assert_eq!(state(tended.root), State::Running);
    assert_eq!(tended.child.wait().unwrap().signal(), Some(9));
}

#[test]
fn records_are_what_they_were() {
    let records = [
        Record::Root { root: i32::MAX, helper: 1 },
        Record::Ended { pid: 7, status: 0x1ff00, at: u64::MAX },
        Record::Dropped { count: 1 << 40 },
        Record::Empty { at: 5 },
    ];
    for record in records {
        let mut bytes = record.encode();
        assert_eq!(Record::decode(&bytes), Some(record));
        assert_eq!(Record::decode(&bytes[1..]), None);
        bytes[..8].copy_from_slice(&9_u64.to_ne_bytes());
        assert_eq!(Record::decode(&bytes), None);
    }
}
