//! Where some backends are refused, others do; and each says truly what it is and what it promises.

mod common;
#[path = "common/trees.rs"]
mod trees;

use std::process::Command;
use std::time::Duration;

use common::pid;
use pidigree::{Backend, ExitStatus, Process, Promise, Tree, capabilities};
use pidigree_testkit::{Family, eventually, is_root, require, stage};
use trees::{PATIENCE, emptied, on, spawn, works};

use Backend::{Auto, Cgroup, Poll, ProcConnector, Subreaper};

const NOBODY: &str = "65534";

/// What each backend does here: the first of these by `Auto`, and the others if they are asked for; all that are missing
/// say why.
fn only(expected: &[Backend]) {
    for backend in [Cgroup, ProcConnector, Subreaper, Poll] {
        if expected.contains(&backend) {
            works(backend).unwrap_or_else(|error| panic!("{backend} works here, or should: {error}"));
            a_hopper_is_right(backend, backend);
            continue;
        }
        let error = on(backend).spawn(&mut Command::new("true")).expect_err(backend.name());
        assert!(error.is_unsupported() || error.is_denied(), "{backend}: {error:?}");
        assert!(error.to_string().len() > 30, "{backend}: a reason, in words: {error}");
    }
    match expected.first() {
        Some(&first) => a_hopper_is_right(Auto, first),
        None => {
            let error = Tree::spawn(&mut Command::new("true")).expect_err("nothing works here");
            assert!(error.is_unsupported() || error.is_denied(), "{error}");
        }
    }
    let me = Process::current().unwrap();
    assert!(me.children().unwrap().is_empty(), "a refusal leaves nothing behind: {:?}", me.children());
}

fn a_hopper_is_right(asked: Backend, chosen: Backend) {
    let (family, tree, mut child) =
        spawn(&on(asked), "hopper 200 setsid-every 7 double-every 11 say last await exit 3");
    assert_eq!(tree.backend(), chosen, "{}", tree.coverage());
    let last = family.fact("last").pid;
    assert_eq!(tree.wait_empty(Some(Duration::from_millis(30))).unwrap(), None, "{chosen}");
    assert!(tree.contains(pid(last)).unwrap(), "{chosen}");
    let coverage = tree.coverage();
    let emptiness = if chosen == Poll { Promise::BestEffort } else { Promise::Exact };
    assert_eq!(coverage.emptiness, emptiness, "{chosen}: {coverage}");
    assert!(!coverage.reason.is_empty() && !coverage.to_string().contains('\n'));
    family.poke(last);
    let emptied = emptied(&tree, &family);
    assert_eq!(emptied.status, ExitStatus::Code(0));
    match coverage.members {
        Promise::Exact => assert_eq!(emptied.members, 1 + 200 + 200 / 11, "{chosen}: {coverage}"),
        _ => assert!(emptied.members <= 1 + 200 + 200 / 11, "{chosen}"),
    }
    assert!(child.wait().unwrap().success());
}

/// What there is without a sandbox, which those below take away from.
fn here() -> Vec<Backend> {
    [Cgroup, ProcConnector, Subreaper, Poll].into_iter().filter(|backend| works(*backend).is_ok()).collect()
}

fn here_without(missing: &[Backend]) -> Vec<Backend> {
    here().into_iter().filter(|backend| !missing.contains(backend)).collect()
}

#[test]
fn everything_works_outside_a_sandbox() {
    require!(is_root(), "needs root");
    // In a process of its own: children of other tests are none of its business.
    stage("everything_works_outside_a_sandbox", &["in-ns", "mount"], || {
        only(&[Cgroup, ProcConnector, Subreaper, Poll]);
    });
}

#[test]
fn an_unprivileged_user_has_a_helper() {
    require!(is_root(), "needs root, to be rid of it");
    stage("an_unprivileged_user_has_a_helper", &["in-ns", "mount", "--uid", NOBODY], || {
        // The connector wakes us for every fork on the machine here, so it is not the first choice.
        let connector = works(ProcConnector).is_ok();
        only(if connector { &[Subreaper, ProcConnector, Poll] } else { &[Subreaper, Poll] });
        if connector {
            let (_family, tree, _child) = spawn(&on(ProcConnector), "exit 0");
            assert!(tree.coverage().reason.contains("CAP_BPF"), "{}", tree.coverage());
        }
    });
}

#[test]
fn a_pid_namespace_has_no_connector() {
    require!(is_root(), "needs root, to have PID namespaces");
    stage("a_pid_namespace_has_no_connector", &["in-ns", "pid,mount"], || {
        only(&here_without(&[ProcConnector]));
        let error = on(ProcConnector).spawn(&mut Command::new("true")).unwrap_err();
        assert!(error.is_unsupported(), "{error:?}");
    });
    let name = "a_pid_namespace_has_no_connector";
    stage(name, &["in-ns", "pid,mount", "--uid", NOBODY], || only(&[Subreaper, Poll]));
}

#[test]
fn a_user_namespace_has_a_helper() {
    stage("a_user_namespace_has_a_helper", &["in-ns", "user,pid,mount"], || {
        only(&here_without(&[ProcConnector]));
    });
}

#[test]
fn a_network_namespace_has_no_connector() {
    require!(is_root(), "needs root, to have network namespaces");
    stage("a_network_namespace_has_no_connector", &["in-ns", "net"], || {
        only(&here_without(&[ProcConnector]));
    });
}

#[test]
fn a_read_only_cgroup_directory_is_none() {
    require!(is_root(), "needs root, to mount");
    stage("a_read_only_cgroup_directory_is_none", &["in-ns", "mount"], || {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let unified = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        for fields in unified.filter(|fields| fields[2] == "cgroup2") {
            let remount = ["-o", "remount,bind,ro", fields[1]];
            assert!(Command::new("mount").args(remount).status().unwrap().success());
        }
        only(&here_without(&[Cgroup]));
        let error = on(Cgroup).spawn(&mut Command::new("true")).unwrap_err();
        assert!(error.to_string().to_lowercase().contains("read-only"), "{error}");
    });
}

#[test]
fn without_netlink_there_is_no_connector() {
    for errno in ["EPERM", "EACCES", "ENOSYS"] {
        stage("without_netlink_there_is_no_connector", &["deny", errno, "socket:AF_NETLINK"], || {
            only(&here_without(&[ProcConnector]));
        });
    }
}

/// One after the other, until there is only the table of processes.
#[test]
fn auto_falls_to_the_next() {
    require!(is_root(), "needs root, to be rid of it");
    let name = "auto_falls_to_the_next";
    let nobody = ["in-ns", "mount", "--uid", NOBODY, "--"];
    let launch = [&nobody[..], &["deny", "EPERM", "socket:AF_NETLINK"]].concat();
    stage(name, &launch, || only(&[Subreaper, Poll]));
    let launch = [&nobody[..], &["deny", "EPERM", "prctl:PR_SET_CHILD_SUBREAPER"]].concat();
    stage(name, &launch, || {
        only(if works(ProcConnector).is_ok() { &[ProcConnector, Poll] } else { &[Poll] });
    });
    let launch = [&nobody[..], &["deny", "EPERM", "prctl:PR_SET_CHILD_SUBREAPER,socket:AF_NETLINK"]].concat();
    stage(name, &launch, || only(&[Poll]));
}

#[test]
fn to_attach_there_is_the_connector_or_the_table() {
    let attach = |expected: Backend| {
        let family = Family::spawn("fork [ say kid await ] say root await");
        let (root, kid) = (family.fact("root").pid, family.fact("kid").pid);
        let process = Process::open(pid(root)).unwrap();
        let tree = Tree::attach(&process).unwrap();
        assert_eq!(tree.backend(), expected, "{}", tree.coverage());
        assert!(tree.coverage().emptiness <= Promise::ExactSinceAttach, "{}", tree.coverage());
        assert!(tree.contains(pid(kid)).unwrap() && tree.contains(pid(root)).unwrap());
        for backend in [Cgroup, Subreaper] {
            let error = on(backend).attach(&process).expect_err(backend.name());
            assert!(error.is_unsupported(), "{backend}: {error}");
        }
        family.poke(root);
        family.wait_ended(root);
        assert_eq!(tree.wait_empty(Some(Duration::from_millis(30))).unwrap(), None, "{expected}");
        family.poke(kid);
        emptied(&tree, &family);
    };
    require!(is_root(), "needs root");
    let name = "to_attach_there_is_the_connector_or_the_table";
    stage(name, &["in-ns", "mount"], || attach(ProcConnector));
    stage(name, &["in-ns", "pid,mount"], || attach(Poll));
    stage(name, &["deny", "EPERM", "socket:AF_NETLINK"], || attach(Poll));
}

/// Without /proc there is no table, and hardly anything else.
#[test]
fn without_proc_what_is_left_is_right() {
    require!(is_root(), "needs root, to mount");
    stage("without_proc_what_is_left_is_right", &["in-ns", "mount", "--empty-proc"], || {
        let error = on(Poll).spawn(&mut Command::new("true")).expect_err("there is no table");
        assert!(error.is_unsupported() || error.is_denied(), "{error:?}");
        // Whichever of the others work, they work.
        for backend in here() {
            let (family, tree, _child) = spawn(&on(backend), "hopper 50 say last await");
            let last = family.fact("last").pid;
            assert_eq!(tree.wait_empty(Some(Duration::from_millis(30))).unwrap(), None, "{backend}");
            family.poke(last);
            emptied(&tree, &family);
        }
    });
}

/// A refusal is of this world, and says nothing about the next.
#[test]
fn what_is_refused_costs_nothing() {
    stage("what_is_refused_costs_nothing", &["deny", "EPERM", "socket:AF_NETLINK"], || {
        let descriptors = || std::fs::read_dir("/dev/fd").unwrap().count();
        drop(capabilities().unwrap());
        let _ = on(ProcConnector).spawn(&mut Command::new("true"));
        let before = descriptors();
        for _ in 0..20 {
            on(ProcConnector).spawn(&mut Command::new("true")).expect_err("it is refused");
        }
        eventually("the descriptors are closed", || (descriptors() <= before).then_some(()));
        assert!(on(Subreaper).spawn(&mut Command::new("true")).unwrap().0.wait_empty(Some(PATIENCE)).is_ok());
    });
}
