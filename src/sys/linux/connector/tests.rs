use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use pidigree_testkit::{DEADLINE, Family, is_root, require, stage};

use super::Connector;
use super::filter::Filter;
use crate::pid::Pid;
use crate::state::ExitStatus;
use crate::sys::notice::Notice;

const PATH: &str = "sys::backend::connector::tests::";

fn pid(number: u32) -> Pid {
    Pid::new(number).unwrap()
}

fn unfiltered(_: BorrowedFd<'_>) -> Result<Filter, Errno> {
    Err(Errno::ENOSYS)
}

/// Both ways of keeping count, or as many as there are here.
fn both() -> Vec<Connector> {
    let kernel = Connector::open(None).unwrap();
    // The whole machine's messages come there, other tests' too.
    let ours = Connector::open_with(Some(64 << 20), unfiltered).unwrap();
    assert!(!ours.is_filtered());
    if !kernel.is_filtered() {
        assert!(!is_root(), "root has CAP_BPF");
        return vec![ours];
    }
    vec![kernel, ours]
}

macro_rules! require_connector {
    () => {
        require!(Connector::open(None), "the process connector cannot be had here");
    };
}

/// Who is in a census of those that are not marked.
fn census(connector: &Connector) -> Vec<Pid> {
    let census = connector.census().unwrap().unwrap();
    assert!(census.iter().all(|(_, mark)| *mark == 0), "{census:?}");
    census.into_iter().map(|(pid, _)| pid).collect()
}

fn is_readable(connector: &Connector, timeout: u16) -> bool {
    let mut fds = [PollFd::new(connector.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, timeout).unwrap() > 0
}

/// Reads until `is_last` has been told of a notice that is. As long as others come, it has time.
fn read_until(connector: &mut Connector, mut is_last: impl FnMut(&Notice) -> bool) -> Vec<Notice> {
    let (mut notices, mut seen) = (Vec::new(), 0);
    let mut deadline = Instant::now() + DEADLINE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let latest = &notices[notices.len().saturating_sub(10)..];
        assert!(
            is_readable(connector, left.as_millis() as u16),
            "nothing within {DEADLINE:?} after {} notices, lastly {latest:?}",
            notices.len()
        );
        connector.read(&mut notices).unwrap();
        // No `any`: it is told of all that were read.
        if notices[seen..].iter().filter(|notice| is_last(notice)).count() > 0 {
            return notices;
        }
        if notices.len() > seen {
            (seen, deadline) = (notices.len(), Instant::now() + DEADLINE);
        }
    }
}

fn ended(of: u32) -> impl FnMut(&Notice) -> bool {
    move |notice| matches!(notice, Notice::Ended { pid, .. } if pid.get() == of)
}

/// Reads until this process and everybody it has started, as far as that is noticed, has ended: whoever is waited for may
/// go on before the kernel says that it has ended, and whoever waited may end before.
fn read_family(connector: &mut Connector, root: u32) -> Vec<Notice> {
    let mut alive = vec![pid(root)];
    let (mut is_over, filtered) = (false, connector.is_filtered());
    read_until(connector, |notice| {
        assert!(!is_over, "more than one end: {notice:?}");
        match *notice {
            Notice::Forked { parent, child, .. } => {
                assert!(alive.contains(&parent), "{parent} forked {child}");
                alive.push(child);
            }
            Notice::Executed { pid, .. } => assert!(alive.contains(&pid), "{pid} executed"),
            Notice::Ended { pid, .. } => {
                let index = alive.iter().position(|&other| other == pid);
                alive.swap_remove(index.unwrap_or_else(|| panic!("{pid} ended")));
            }
            Notice::Lost => panic!("something was lost; filtered by the kernel: {filtered}"),
        }
        is_over = alive.is_empty();
        is_over
    })
}

/// What this process did, in that order; of several, nothing is in order but that.
fn doings(notices: &[Notice], of: Pid) -> Vec<Notice> {
    let is_its = |notice: &Notice| match *notice {
        Notice::Forked { parent: by, .. }
        | Notice::Executed { pid: by, .. }
        | Notice::Ended { pid: by, .. } => by == of,
        Notice::Lost => false,
    };
    notices.iter().copied().filter(is_its).collect()
}

fn time(of: &Notice) -> u64 {
    match *of {
        Notice::Forked { at, .. } | Notice::Executed { at, .. } | Notice::Ended { at, .. } => at,
        Notice::Lost => 0,
    }
}

fn without_times(notices: &[Notice]) -> Vec<Notice> {
    let strip = |notice: &Notice| match *notice {
        Notice::Forked { parent, child, .. } => Notice::Forked { parent, child, at: 0 },
        Notice::Executed { pid, .. } => Notice::Executed { pid, at: 0 },
        Notice::Ended { pid, status, .. } => Notice::Ended { pid, status, at: 0 },
        Notice::Lost => Notice::Lost,
    };
    notices.iter().map(strip).collect()
}

/// A shell that is held until its PID is tracked by all; its output is what `script` prints.
fn shell(connectors: &mut [Connector], script: &str) -> u32 {
    let mut child =
        Command::new("sh").args(["-c", &format!("read go; {script}")]).stdin(Stdio::piped()).spawn().unwrap();
    for connector in connectors {
        // The shell has one thread, and is held.
        assert!(connector.track(pid(child.id()), Some(1)).unwrap());
    }
    drop(child.stdin.take());
    child.wait().unwrap();
    child.id()
}

#[test]
fn forks_execs_and_ends_are_noticed_with_their_status() {
    require_connector!();
    let mut connectors = both();
    let root = shell(&mut connectors, "(exec true); (exit 7); sh -c 'kill -9 $$'; exit 3");
    for connector in &mut connectors {
        let notices = read_family(connector, root);
        let now = super::monotonic();
        let is_recent = |at: u64| at < now && now - at < 60_000_000_000;
        let forks: Vec<Pid> = notices
            .iter()
            .filter_map(|notice| match *notice {
                Notice::Forked { child, .. } => Some(child),
                _ => None,
            })
            .collect();
        for of in [&[pid(root)], &forks[..]].concat() {
            let times: Vec<u64> = doings(&notices, of).iter().map(time).collect();
            assert!(times.is_sorted() && times.iter().all(|&at| is_recent(at)), "{notices:?}");
        }
        let [first, second, third] = forks[..] else { panic!("{notices:?}") };
        let notices = without_times(&notices);
        // The exec of the shell itself is noticed if it comes late: the parent may go on before the kernel says it.
        let its_own = Notice::Executed { pid: pid(root), at: 0 };
        let of_root: Vec<Notice> =
            doings(&notices, pid(root)).into_iter().filter(|notice| *notice != its_own).collect();
        let expected = [
            Notice::Forked { parent: pid(root), child: first, at: 0 },
            Notice::Forked { parent: pid(root), child: second, at: 0 },
            Notice::Forked { parent: pid(root), child: third, at: 0 },
            Notice::Ended { pid: pid(root), status: ExitStatus::Code(3), at: 0 },
        ];
        assert_eq!(of_root, expected);
        let expected = [
            Notice::Executed { pid: first, at: 0 },
            Notice::Ended { pid: first, status: ExitStatus::Code(0), at: 0 },
        ];
        assert_eq!(doings(&notices, first), expected);
        let expected = [Notice::Ended { pid: second, status: ExitStatus::Code(7), at: 0 }];
        assert_eq!(doings(&notices, second), expected);
        let expected = [
            Notice::Executed { pid: third, at: 0 },
            Notice::Ended { pid: third, status: ExitStatus::Signal(9), at: 0 },
        ];
        assert_eq!(doings(&notices, third), expected);
        if let Some(census) = connector.census() {
            assert_eq!(census.unwrap(), []);
        }
    }
}

/// What all of them notice of a family whose root waits to be poked, until that has ended.
fn notices_of(script: &str, threads: Option<u32>, act: impl FnOnce(&Family)) -> (u32, Vec<Vec<Notice>>) {
    let mut connectors = both();
    let family = Family::spawn(script);
    let root = family.fact("root").pid;
    for connector in &mut connectors {
        assert!(connector.track(pid(root), threads).unwrap());
        assert!(connector.track(pid(root), None).unwrap(), "once more is nothing more");
    }
    family.poke(root);
    act(&family);
    let read = |connector: &mut Connector| without_times(&read_family(connector, root));
    let all = connectors.iter_mut().map(read).collect();
    family.wait_all();
    // Nothing comes after the end.
    for connector in &mut connectors {
        let mut rest = Vec::new();
        connector.read(&mut rest).unwrap();
        assert_eq!(rest, []);
    }
    (root, all)
}

/// Trap 4: the end of the main thread is not that of the process.
#[test]
fn a_process_ends_with_its_last_thread() {
    require_connector!();
    for threads in [Some(1), None] {
        let script = "say root await thread [ say worker await exit 5 ] thread-exit";
        let (root, all) = notices_of(script, threads, |family| {
            let worker = family.fact("worker");
            let main_ended = || {
                let stat = std::fs::read_to_string(format!("/proc/{}/stat", worker.pid)).unwrap();
                stat.contains(") Z ").then_some(())
            };
            pidigree_testkit::eventually("the main thread has ended", main_ended);
            family.poke(worker.pid);
        });
        for notices in all {
            assert_eq!(notices, [Notice::Ended { pid: pid(root), status: ExitStatus::Code(5), at: 0 }]);
        }
    }
}

/// Trap 22: the thread that executes takes over the PID of the main thread, which has ended.
#[test]
fn exec_from_another_thread_ends_nothing() {
    require_connector!();
    for threads in [Some(1), None] {
        let script = "say root await thread [ pause ] thread [ exec [ say after await exit 3 ] ] pause";
        let (root, all) = notices_of(script, threads, |family| family.poke(family.fact("after").pid));
        for notices in all {
            let expected = [
                Notice::Executed { pid: pid(root), at: 0 },
                Notice::Ended { pid: pid(root), status: ExitStatus::Code(3), at: 0 },
            ];
            assert_eq!(notices, expected);
        }
    }
}

#[test]
fn the_end_of_one_that_was_found_with_threads_is_noticed_once() {
    require_connector!();
    let threads = "thread [ pause ] ".repeat(20);
    let script =
        format!("{threads} say root await thread [ say in ] {threads} fork [ exit 1 ] reap await raise 15");
    let (root, all) = notices_of(&script, None, |family| {
        family.fact("in");
        family.poke(family.root_pid());
    });
    for notices in all {
        let [fork @ Notice::Forked { child, .. }, _, _] = notices[..] else { panic!("{notices:?}") };
        let last = Notice::Ended { pid: pid(root), status: ExitStatus::Signal(15), at: 0 };
        assert_eq!(doings(&notices, pid(root)), [fork, last]);
        let kid = Notice::Ended { pid: child, status: ExitStatus::Code(1), at: 0 };
        assert_eq!(doings(&notices, child), [kid]);
    }
}

#[test]
fn one_that_has_ended_is_not_tracked() {
    require_connector!();
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    let handle = super::Handle::open(pid(child.id())).unwrap();
    assert!(handle.wait(Some(DEADLINE)).unwrap());
    for connector in &mut both() {
        assert!(!connector.track(pid(child.id()), None).unwrap());
        if let Some(census) = connector.census() {
            assert_eq!(census.unwrap(), []);
        }
    }
    child.wait().unwrap();
    for connector in &mut both() {
        assert!(!connector.track(pid(child.id()), None).unwrap());
    }
}

#[test]
fn what_was_forgotten_is_not_noticed() {
    require_connector!();
    for connector in &mut both() {
        let family = Family::spawn("say root await fork [ say kid await fork [ ] reap ] reap");
        let root = family.fact("root").pid;
        connector.track(pid(root), Some(1)).unwrap();
        family.poke(root);
        let kid = family.fact("kid").pid;
        connector.forget(pid(root));
        family.poke(kid);
        family.wait_all();
        let mut ends = 0;
        let notices = without_times(&read_until(connector, |notice| {
            ends += usize::from(matches!(notice, Notice::Ended { .. }));
            ends == 2
        }));
        let [first, second @ Notice::Forked { child, .. }, _, _] = notices[..] else { panic!("{notices:?}") };
        assert_eq!(first, Notice::Forked { parent: pid(root), child: pid(kid), at: 0 });
        let end = |of: Pid| Notice::Ended { pid: of, status: ExitStatus::Code(0), at: 0 };
        assert_eq!(doings(&notices, pid(kid)), [second, end(pid(kid))], "what it started stays tracked");
        assert_eq!(doings(&notices, child), [end(child)]);
    }
}

#[test]
fn the_forks_of_others_wake_only_who_has_no_filter() {
    require_connector!();
    let connectors = both();
    let family = Family::spawn("storm 500 say stormed pause");
    family.fact("stormed");
    for connector in connectors {
        assert_eq!(is_readable(&connector, 0), !connector.is_filtered());
    }
}

/// Trap 1: every generation ends as the next begins, and none is missed.
#[test]
fn a_hopper_is_followed_to_its_end() {
    const GENERATIONS: usize = 10_000;
    require_connector!();
    let connectors = both();
    let script = format!(
        "subreaper fork [ say root await hopper {GENERATIONS} setsid-every 100 say last exit 9 ] reap-all"
    );
    let family = Family::spawn(script.as_str());
    let root = family.fact("root").pid;
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        let mut following = Vec::new();
        for mut connector in connectors {
            connector.track(pid(root), Some(1)).unwrap();
            following.push(scope.spawn(move || {
                let notices = read_family(&mut connector, root);
                if let Some(census) = connector.census() {
                    assert_eq!(census.unwrap(), []);
                }
                without_times(&notices)
            }));
        }
        family.poke(root);
        all.extend(following.into_iter().map(|following| following.join().unwrap()));
    });
    let last = pid(family.fact("last").pid);
    for notices in &all {
        let forks = notices.iter().filter(|notice| matches!(notice, Notice::Forked { .. }));
        assert_eq!(forks.count(), GENERATIONS);
        // Another may have had its PID before.
        let end = Notice::Ended { pid: last, status: ExitStatus::Code(9), at: 0 };
        assert_eq!(doings(notices, last).last(), Some(&end));
    }
}

/// Trap 18.
#[test]
fn after_a_loss_the_census_is_right() {
    require_connector!();
    let mut connector = Connector::open(Some(1)).unwrap();
    require!(connector.is_filtered(), "needs CAP_BPF");
    assert!(connector.receive_buffer() < 10_000);
    let family = Family::spawn(
        "say found pause fork [ ] fork [ ] fork [ ] fork [ ] fork [ ] fork [ ] fork [ ] fork [ ] fork [ ]"
            .replace("pause", "fork [ say root await storm 300 fork [ say kid pause ] fork [ say kid pause ] say done pause ] pause")
            .as_str(),
    );
    let (found, root) = (family.fact("found").pid, family.fact("root").pid);
    connector.track(pid(found), None).unwrap();
    connector.track(pid(root), Some(1)).unwrap();
    family.poke(root);
    family.fact("done");
    let kids = family.facts("kid", 2);
    let mut notices = Vec::new();
    connector.read(&mut notices).unwrap();
    let notices = without_times(&notices);
    let (last, before) = notices.split_last().unwrap();
    assert_eq!(*last, Notice::Lost, "{notices:?}");
    assert!(!before.is_empty());
    // Before the loss, nothing is missing.
    let mut children = Vec::new();
    for notice in before {
        match *notice {
            Notice::Forked { parent, child, .. } if parent.get() == root => children.push(child),
            Notice::Ended { pid, status: ExitStatus::Code(0), .. } if children.contains(&pid) => {
                children.retain(|&child| child != pid);
            }
            _ => panic!("{notices:?}"),
        }
        // Each is waited for before the next, which may be a little before its end is said.
        assert!(children.len() <= 3, "{notices:?}");
    }
    let mut alive: Vec<Pid> = kids.iter().map(|kid| pid(kid.pid)).chain([pid(root), pid(found)]).collect();
    alive.sort_unstable();
    assert_eq!(census(&connector), alive);
    assert!(!is_readable(&connector, 0));
    // It goes on.
    family.end();
    family.wait_all();
    let mut notices = Vec::new();
    while !census(&connector).is_empty() {
        connector.read(&mut notices).unwrap();
    }
    connector.read(&mut notices).unwrap();
    assert!(!notices.is_empty());
}

/// The buffer can be full of others' forks before the kernel answers.
#[test]
fn without_the_filter_it_starts_in_a_storm() {
    require_connector!();
    let storm: Vec<Family> = (0..8).map(|_| Family::spawn("subreaper fork [ hopper 0 ] reap-all")).collect();
    for _ in 0..20_000 {
        Connector::open_with(Some(1), unfiltered).unwrap();
    }
    storm.iter().for_each(Family::end);
}

#[test]
fn without_the_filter_a_loss_is_a_new_beginning() {
    require_connector!();
    let mut connector = Connector::open_with(Some(1), unfiltered).unwrap();
    let family = Family::spawn("say root await storm 300 say done pause");
    let root = family.fact("root").pid;
    connector.track(pid(root), Some(1)).unwrap();
    family.poke(root);
    family.fact("done");
    let mut notices = Vec::new();
    connector.read(&mut notices).unwrap();
    assert_eq!(notices.pop(), Some(Notice::Lost));
    assert!(!notices.contains(&Notice::Lost));
    assert!(connector.census().is_none());
    family.end();
    family.wait_all();
    let mut notices = Vec::new();
    connector.read(&mut notices).unwrap();
    assert!(notices.iter().all(|notice| *notice == Notice::Lost), "nobody is tracked: {notices:?}");
}

#[test]
fn a_member_without_room_is_a_loss() {
    require_connector!();
    let attach = |socket: BorrowedFd<'_>| Filter::with_room_for(2, socket);
    let mut connector = Connector::open_with(None, attach).unwrap();
    require!(connector.is_filtered(), "needs CAP_BPF");
    let script = "say root await fork [ pause ] fork [ say kid await ] fork [ pause ] say done pause";
    let family = Family::spawn(script);
    let root = family.fact("root").pid;
    connector.track(pid(root), Some(1)).unwrap();
    family.poke(root);
    family.fact("done");
    assert!(connector.census().is_none(), "it is not right");
    let mut notices = Vec::new();
    connector.read(&mut notices).unwrap();
    assert_eq!(notices.last(), Some(&Notice::Lost));
    assert!(connector.census().is_none());
    let kid = family.fact("kid").pid;
    assert!(connector.track(pid(kid), None).unwrap());
    assert_eq!(census(&connector), [pid(kid)]);
    family.poke(kid);
    let notices = without_times(&read_until(&mut connector, ended(kid)));
    assert_eq!(notices, [Notice::Ended { pid: pid(kid), status: ExitStatus::Code(0), at: 0 }]);
    assert_eq!(census(&connector), []);
}

/// Trap 1 holds for reading a map, too.
#[test]
fn the_census_has_whoever_was_forked_under_it() {
    require_connector!();
    let mut connector = Connector::open(None).unwrap();
    require!(connector.is_filtered(), "needs CAP_BPF");
    let mut family = Family::spawn("say root await fork [ say kid pause ] exit 0");
    let root = family.fact("root").pid;
    connector.track(pid(root), Some(1)).unwrap();
    let super::Keeper::Kernel(filter) = &connector.keeper else { unreachable!("it is filtered") };
    let counted = filter.census_and(|naive| {
        assert_eq!(naive, [root]);
        family.poke(root);
        family.fact("kid");
        family.child().wait().unwrap();
    });
    let kid = family.fact("kid").pid;
    assert!(counted.unwrap().contains(&(pid(kid), 0)), "none of those that were members at first lives");
    read_until(&mut connector, ended(root));
    assert_eq!(census(&connector), [pid(kid)]);
}

/// It waits for the kernel's other processors, which can take long where they are busy.
#[test]
fn a_census_bears_thousands_of_forks() {
    require_connector!();
    let mut connector = Connector::open(None).unwrap();
    require!(connector.is_filtered(), "needs CAP_BPF");
    let family = Family::spawn("say root await storm 6000 say done pause");
    let root = family.fact("root").pid;
    connector.track(pid(root), Some(1)).unwrap();
    let super::Keeper::Kernel(filter) = &connector.keeper else { unreachable!("it is filtered") };
    let counted = filter.census_and(|_| {
        family.poke(root);
        family.fact("done");
    });
    assert!(!filter.has_missed().unwrap());
    assert!(counted.unwrap().contains(&(pid(root), 0)));
}

#[test]
fn the_census_of_a_hopper_is_never_empty() {
    require_connector!();
    let mut connector = Connector::open(None).unwrap();
    require!(connector.is_filtered(), "needs CAP_BPF");
    let family = Family::spawn("subreaper fork [ say root await hopper 0 ] reap-all");
    let root = family.fact("root").pid;
    connector.track(pid(root), Some(1)).unwrap();
    family.poke(root);
    for _ in 0..100 {
        assert_ne!(census(&connector), []);
        connector.read(&mut Vec::new()).unwrap();
    }
}

#[test]
fn nobody_needs_no_privilege() {
    require_connector!();
    stage(&format!("{PATH}nobody_needs_no_privilege"), &["in-ns", "mount", "--uid", "65534"], || {
        let mut connector = match Connector::open(None) {
            Ok(connector) => connector,
            Err(error) => {
                require!(!error.is_denied(), "before Linux 6.6 it takes CAP_NET_ADMIN");
                panic!("{error}");
            }
        };
        assert!(!connector.is_filtered());
        assert!(connector.census().is_none());
        let family = Family::spawn("say root await fork [ exit 4 ] reap exit 6");
        let root = family.fact("root").pid;
        connector.track(pid(root), None).unwrap();
        family.poke(root);
        let notices = without_times(&read_family(&mut connector, root));
        let [fork @ Notice::Forked { child, .. }, _, _] = notices[..] else { panic!("{notices:?}") };
        let last = Notice::Ended { pid: pid(root), status: ExitStatus::Code(6), at: 0 };
        assert_eq!(doings(&notices, pid(root)), [fork, last]);
        let kid = Notice::Ended { pid: child, status: ExitStatus::Code(4), at: 0 };
        assert_eq!(doings(&notices, child), [kid]);
    });
}

#[test]
fn other_namespaces_and_sandboxes_are_refused_in_words() {
    require_connector!();
    let test = format!("{PATH}other_namespaces_and_sandboxes_are_refused_in_words");
    let refused = |word: &str| {
        let error = Connector::open(None).unwrap_err();
        assert!(error.is_unsupported() && error.to_string().contains(word), "{error}");
    };
    stage(&test, &["in-ns", "pid,mount"], || refused("PID namespace"));
    stage(&test, &["in-ns", "pid,mount", "--empty-proc"], || refused("does not answer"));
    stage(&test, &["in-ns", "user,mount"], || refused("user namespaces"));
    stage(&test, &["in-ns", "net"], || refused("network namespace"));
    stage(&test, &["deny", "EPERM", "socket:AF_NETLINK"], || {
        let error = Connector::open(None).unwrap_err();
        assert!(error.is_denied() && error.to_string().contains("sandbox"), "{error}");
    });
    let not_supported = Errno::EAFNOSUPPORT as i32;
    stage(&test, &["deny", &not_supported.to_string(), "socket:AF_NETLINK"], || refused("sandbox"));
}
