//! What a tree tells of its members, in which order; and who is none.

mod common;
#[macro_use]
#[path = "common/every.rs"]
mod every;
#[path = "common/trees.rs"]
mod trees;

use std::time::Duration;

use common::pid;
use pidigree::{Backend, ExitStatus, Identity, Pid, Promise, Tree, TreeEvent};
use pidigree_testkit::{DEADLINE, Family, alone, eventually, require};
use trees::{PATIENCE, emptied, on, spawn, works};

on_every_backend!(
    a_root_joins_first_and_empty_is_last,
    a_descriptor_tells_when_there_are_events,
    a_descriptor_is_quiet_when_all_is_taken,
);

/// Those that are told of every member by the kernel.
const TOLD: [Backend; 2] = [Backend::ProcConnector, Backend::Cgroup];

/// All events of a tree to its end, when it has been said to be empty.
fn events(tree: &Tree) -> Vec<TreeEvent> {
    std::iter::from_fn(|| tree.next_event(Some(DEADLINE)).unwrap()).collect()
}

/// An event as one line, which names who it can; times aside.
fn line(event: &TreeEvent, names: &[(&str, u32)]) -> String {
    let name = |who: &Identity| {
        let known = names.iter().find(|(_, number)| pid(*number) == who.pid());
        known.map_or_else(|| "?".to_owned(), |(name, _)| (*name).to_owned())
    };
    match event {
        TreeEvent::Joined { member, parent: Some(parent), .. } => {
            format!("{} joined from {}", name(member), name(parent))
        }
        TreeEvent::Joined { member, parent: None, .. } => format!("{} joined", name(member)),
        TreeEvent::Exec { member, program, .. } => {
            format!("{} executed {}", name(member), program.as_deref().unwrap_or("something"))
        }
        TreeEvent::Left { member, status, .. } => format!("{} left: {status}", name(member)),
        TreeEvent::Empty(emptied) => format!("empty of {}: {}", emptied.members, emptied.status),
        other => format!("{other:?}"),
    }
}

fn lines(events: &[TreeEvent], names: &[(&str, u32)]) -> Vec<String> {
    events.iter().map(|event| line(event, names)).collect()
}

/// Asks for the test to be run on each of [`TOLD`], if all members are told there.
fn where_told(test: impl Fn(Backend)) {
    for backend in TOLD {
        require!(works(backend), "{backend} cannot be had here");
        let (_family, tree, _child) = spawn(&on(backend), "exit 0");
        require!(tree.coverage().members == Promise::Exact, "{backend} does not tell of every member here");
        test(backend);
    }
}

#[test]
fn every_member_comes_and_goes_in_order() {
    where_told(|backend| {
        let script =
            "fork [ say kid await exit 3 ] double-fork [ say daemon await raise 15 ] say root await raise 9";
        let (family, tree, mut child) = spawn(&on(backend), script);
        let [root, kid, daemon] = ["root", "kid", "daemon"].map(|name| family.fact(name));
        let names = [("root", root.pid), ("kid", kid.pid), ("daemon", daemon.pid)];
        // Whose program is asked for after its end has none that could be told: all is taken in by now.
        assert!(tree.contains(pid(daemon.pid)).unwrap(), "{backend}");
        for member in [kid.pid, root.pid, daemon.pid] {
            family.poke(member);
            family.wait_ended(member);
            // So that the next does not end on another processor before this end has been told.
            if member == root.pid {
                assert_eq!(child.wait().unwrap(), ExitStatus::Signal(9), "{backend}");
            }
        }
        let all = events(&tree);
        let times: Vec<Duration> = all
            .iter()
            .filter_map(|event| match event {
                TreeEvent::Joined { at, .. } | TreeEvent::Exec { at, .. } | TreeEvent::Left { at, .. } => {
                    Some(*at)
                }
                TreeEvent::Empty(emptied) => Some(emptied.at),
                _ => None,
            })
            .collect();
        assert!(times.is_sorted() && times[0] == Duration::ZERO, "{backend}: {times:?}");
        assert_eq!(
            lines(&all, &names),
            [
                "root joined",
                "root executed pidigree-testki",
                "kid joined from root",
                // The middle one of two forks.
                "? joined from root",
                "daemon joined from ?",
                "? left: exit code 0",
                "kid left: exit code 3",
                "root left: signal 9",
                "daemon left: signal 15",
                "empty of 4: signal 9",
            ],
            "{backend}"
        );
    });
}

fn a_root_joins_first_and_empty_is_last(backend: Backend) {
    let (family, tree, _child) = spawn(&on(backend), "fork [ say kid await exit 3 ] say root await exit 5");
    let (root, kid) = (family.fact("root").pid, family.fact("kid").pid);
    let contained = |who: u32| tree.contains(pid(who)).unwrap().then_some(());
    eventually("both are members", || contained(root).and(contained(kid)));
    family.poke(root);
    family.wait_ended(root);
    assert_eq!(tree.wait_empty(Some(Duration::from_millis(10))).unwrap(), None, "{backend}: the kid lives");
    family.poke(kid);
    let emptied = emptied(&tree, &family);
    assert_eq!((emptied.root, emptied.status), (tree.root(), ExitStatus::Code(5)), "{backend}");
    let all = events(&tree);
    let is_root = matches!(&all[0], TreeEvent::Joined { member, parent: None, .. } if *member == tree.root());
    assert!(is_root, "{backend}: {:?}", all[0]);
    assert_eq!(all.last(), Some(&TreeEvent::Empty(emptied)), "{backend}");
    let names = [("root", root), ("kid", kid)];
    let told = lines(&all, &names);
    for once in ["root joined", "root left: exit code 5"] {
        assert_eq!(told.iter().filter(|line| *line == once).count(), 1, "{backend}: {told:?}");
    }
    let comes = told.iter().position(|line| line.starts_with("kid joined"));
    let goes = told.iter().position(|line| line.starts_with("kid left"));
    assert!(comes < goes && comes.is_some(), "{backend}: {told:?}");
    assert_eq!(emptied.members, 2, "{backend}");
    assert_eq!(tree.members(), [], "{backend}");
}

/// Also by whoever took it in from the kernel: or a loop around the descriptor would never sleep.
fn a_descriptor_is_quiet_when_all_is_taken(backend: Backend) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    let (family, tree, _child) = spawn(&on(backend), "say root storm 500 say over pause");
    let descriptor = tree.event_fd().unwrap();
    let taken = || tree.next_event(Some(Duration::ZERO)).unwrap();
    for _ in 0..2000 {
        while taken().is_some() {}
        let mut fds = [PollFd::new(descriptor, PollFlags::POLLIN)];
        let is_readable = poll(&mut fds, PollTimeout::ZERO).unwrap() > 0;
        // Or something has happened since.
        assert!(!is_readable || taken().is_some(), "{backend}");
    }
    family.fact("over");
}

fn a_descriptor_tells_when_there_are_events(backend: Backend) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let (family, tree, _child) = spawn(&on(backend), "say root await");
    let ready = |timeout: PollTimeout| {
        let mut fds = [PollFd::new(tree.event_fd().unwrap(), PollFlags::POLLIN)];
        poll(&mut fds, timeout).unwrap() == 1
    };
    let root = family.fact("root").pid;
    assert!(ready(PollTimeout::ZERO), "{backend}: the root has joined");
    while tree.next_event(Some(Duration::from_millis(50))).unwrap().is_some() {}
    assert!(!ready(PollTimeout::ZERO), "{backend}: all has been taken");
    family.poke(root);
    while !tree.is_empty() {
        assert!(ready(PollTimeout::try_from(DEADLINE).unwrap()), "{backend}: somebody left");
        while tree.next_event(Some(Duration::ZERO)).unwrap().is_some() {}
    }
    while tree.next_event(Some(Duration::ZERO)).unwrap().is_some() {}
    assert!(!ready(PollTimeout::ZERO), "{backend}: nothing comes any more");
}

#[test]
fn a_program_is_told_by_its_name() {
    where_told(|backend| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "read line; exec cat"]).stdin(std::process::Stdio::piped());
        let (tree, mut child) = {
            let _alone = alone();
            on(backend).spawn(&mut command).unwrap()
        };
        let program = || loop {
            match tree.next_event(Some(DEADLINE)).unwrap() {
                Some(TreeEvent::Exec { program, .. }) => return program,
                Some(_) => {}
                None => panic!("{backend}: nothing was executed"),
            }
        };
        assert_eq!(program().as_deref(), Some("sh"));
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
        assert_eq!(program().as_deref(), Some("cat"));
        assert!(child.wait().unwrap().success());
        assert!(tree.wait_empty(Some(PATIENCE)).unwrap().is_some());
    });
}

#[test]
fn threads_are_no_members() {
    where_told(|backend| {
        let script = "thread [ say worker pause ] thread [ thread-exit ] say root await";
        let (family, tree, _child) = spawn(&on(backend), script);
        let (root, worker) = (family.fact("root"), family.fact("worker"));
        assert!(!tree.contains(pid(worker.tid)).unwrap(), "{backend}");
        let members: Vec<Pid> = tree.members().iter().map(Identity::pid).collect();
        assert_eq!(members, [pid(root.pid)], "{backend}");
        family.poke(root.pid);
        let emptied = emptied(&tree, &family);
        assert_eq!(emptied.members, 1, "{backend}");
        let ends = events(&tree).iter().filter(|event| matches!(event, TreeEvent::Left { .. })).count();
        assert_eq!(ends, 1, "{backend}");
    });
}

/// Trap 4.
#[test]
fn a_process_leaves_with_its_last_thread() {
    where_told(|backend| {
        let script = "thread [ fork [ say kid await ] say worker await exit 6 ] thread-exit";
        let (family, tree, _child) = spawn(&on(backend), script);
        let (worker, kid) = (family.fact("worker").pid, family.fact("kid").pid);
        eventually("the main thread has ended", || {
            let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).ok()?;
            stat.rsplit_once(')')?.1.trim_start().starts_with('Z').then_some(())
        });
        assert!(tree.contains(pid(worker)).unwrap(), "{backend}");
        family.poke(worker);
        family.wait_ended(worker);
        family.poke(kid);
        let names = [("root", worker), ("kid", kid)];
        let told = lines(&events(&tree), &names);
        let expected = [
            "root joined",
            "root executed pidigree-testki",
            "kid joined from root",
            "root left: exit code 6",
        ];
        assert_eq!(told[..4], expected, "{backend}");
        assert_eq!(told.len(), 6, "{backend}: {told:?}");
    });
}

/// Trap 22.
#[test]
fn exec_from_another_thread_changes_nobody() {
    where_told(|backend| {
        let script = "say before thread [ await exec [ say after await exit 6 ] ] pause";
        let (family, tree, _child) = spawn(&on(backend), script);
        let root = family.fact("before").pid;
        let before = tree.members();
        family.poke(root);
        assert_eq!(family.fact("after").pid, root);
        assert_eq!(tree.members(), before, "{backend}");
        family.poke(root);
        let told = lines(&events(&tree), &[("root", root)]);
        // By way of /proc/self/exe.
        let (executed, again) = ("root executed pidigree-testki", "root executed exe");
        let expected = ["root joined", executed, again, "root left: exit code 6", "empty of 1: exit code 6"];
        assert_eq!(told, expected, "{backend}");
    });
}

#[test]
fn a_spawned_child_joins_and_executes() {
    where_told(|backend| {
        let script = "spawn [ say kid await exit 2 ] say root await reap exit 0";
        let (family, tree, _child) = spawn(&on(backend), script);
        let (root, kid) = (family.fact("root").pid, family.fact("kid").pid);
        // All is taken in by now: see above.
        assert!(tree.contains(pid(kid)).unwrap(), "{backend}");
        family.poke(kid);
        family.wait_ended(kid);
        family.poke(root);
        let told = lines(&events(&tree), &[("root", root), ("kid", kid)]);
        let expected = [
            "root joined",
            "root executed pidigree-testki",
            "kid joined from root",
            // By way of /proc/self/exe.
            "kid executed exe",
            "kid left: exit code 2",
            "root left: exit code 0",
            "empty of 2: exit code 0",
        ];
        assert_eq!(told, expected, "{backend}");
    });
}

/// Trap 23: the kernel tells the connector of a child of ours, and says nothing of the root.
#[test]
fn a_sibling_of_the_root_is_a_member_of_its_cgroup_alone() {
    where_told(|backend| {
        let (family, tree, mut child) = spawn(&on(backend), "clone-parent [ say sibling await ] exit 0");
        let sibling = family.fact("sibling").pid;
        assert!(child.wait().unwrap().success());
        if backend == Backend::Cgroup {
            assert_eq!(tree.wait_empty(Some(Duration::from_millis(50))).unwrap(), None);
            assert!(tree.contains(pid(sibling)).unwrap());
            family.poke(sibling);
            emptied(&tree, &family);
        } else {
            assert!(tree.wait_empty(Some(PATIENCE)).unwrap().is_some());
            assert!(!family.has_ended());
            let coverage = tree.coverage();
            assert!(coverage.reason.contains("CLONE_PARENT"), "{coverage}");
        }
    });
}

/// Below the root the sibling's parent is a member itself.
#[test]
fn a_sibling_below_the_root_is_a_member() {
    where_told(|backend| {
        let script = "fork [ clone-parent [ say sibling await ] ] reap exit 0";
        let (family, tree, mut child) = spawn(&on(backend), script);
        let sibling = family.fact("sibling").pid;
        assert!(child.wait().unwrap().success());
        assert_eq!(tree.wait_empty(Some(Duration::from_millis(20))).unwrap(), None, "{backend}");
        assert!(tree.contains(pid(sibling)).unwrap(), "{backend}");
        family.poke(sibling);
        emptied(&tree, &family);
    });
}

#[test]
fn two_trees_do_not_mix() {
    where_told(|backend| {
        let script = "fork [ say kid await ] double-fork [ say daemon await ] say root await";
        let trees = [spawn(&on(backend), script), spawn(&on(backend), script)];
        let of = |family: &Family| ["root", "kid", "daemon"].map(|name| family.fact(name).pid);
        let members = [of(&trees[0].0), of(&trees[1].0)];
        for (index, (_, tree, _)) in trees.iter().enumerate() {
            for &member in &members[index] {
                assert!(tree.contains(pid(member)).unwrap(), "{backend}");
            }
            for &other in &members[1 - index] {
                assert!(!tree.contains(pid(other)).unwrap(), "{backend}");
            }
        }
        let (family, tree, _) = &trees[0];
        members[0].iter().for_each(|member| family.poke(*member));
        assert_eq!(emptied(tree, family).members, 4, "{backend}");
        assert!(!trees[1].1.is_empty(), "{backend}: the other goes on");
        let strangers = events(tree).iter().any(|event| match event {
            TreeEvent::Joined { member, .. }
            | TreeEvent::Exec { member, .. }
            | TreeEvent::Left { member, .. } => members[1].iter().any(|other| member.pid() == pid(*other)),
            _ => false,
        });
        assert!(!strangers, "{backend}");
        let (family, tree, _) = &trees[1];
        members[1].iter().for_each(|member| family.poke(*member));
        emptied(tree, family);
    });
}

#[test]
fn what_nobody_takes_is_skipped_and_said() {
    require!(works(Backend::ProcConnector), "the connector cannot be had here");
    let (family, tree, _child) = spawn(&on(Backend::ProcConnector), "say root storm 40000 exit 0");
    drop(family.fact("root"));
    let emptied = eventually("the storm is over", || tree.wait_empty(Some(PATIENCE)).unwrap());
    assert!(family.has_ended());
    let first = tree.next_event(Some(Duration::ZERO)).unwrap();
    let Some(TreeEvent::Skipped { events: skipped }) = first else { panic!("{first:?}") };
    let rest = events(&tree);
    assert_eq!(rest.last(), Some(&TreeEvent::Empty(emptied)));
    assert_eq!(rest.len(), 65_536);
    let resynced = rest.iter().any(|event| matches!(event, TreeEvent::Resynced { .. }));
    // Two of each child, and of the root, and its exec, and the end.
    assert!(skipped + rest.len() as u64 == 2 * 40_001 + 2 || resynced, "{skipped} were skipped");
}

/// Whichever of its clones waits, and however many do.
#[test]
fn every_clone_is_the_same_tree() {
    let (family, tree, _child) = spawn(&Tree::builder(), "say root await");
    let root = family.fact("root").pid;
    let told: usize = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let tree = tree.clone();
                scope.spawn(move || {
                    assert!(tree.wait_empty(Some(PATIENCE)).unwrap().is_some());
                    std::iter::from_fn(|| tree.next_event(Some(DEADLINE)).unwrap())
                        .filter(|event| matches!(event, TreeEvent::Empty(_)))
                        .count()
                })
            })
            .collect();
        drop(tree);
        family.poke(root);
        takers.into_iter().map(|taker| taker.join().unwrap()).sum()
    });
    assert_eq!(told, 1, "an event is taken once");
}
