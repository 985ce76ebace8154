//! Seven ways to clean up too early, each of which a runtime of this kind has been seen to go. Here: never.

mod common;
#[macro_use]
#[path = "common/every.rs"]
mod every;
#[path = "common/trees.rs"]
mod trees;

use std::process::Command;
use std::time::Duration;

use common::pid;
use pidigree::{Backend, Tree, TreeEvent};
use pidigree_testkit::{Family, deny_from_now, early, is_root, require, rounds, stage};
use trees::{PATIENCE, emptied, on, spawn, works};

on_every_backend!(
    the_root_ends_first,
    a_main_thread_ends_before_the_others,
    orphans_of_ended_parents_stay,
    daemons_of_others_hold_nothing,
);

#[cfg(target_os = "linux")] // a kqueue does not show all of a chain that forks and ends, as its coverage says
on_every_backend!(a_chain_forks_and_ends);

#[cfg(target_os = "linux")] // only Linux has namespaces
on_every_backend!(a_member_leaves_the_mount_namespace);

/// All but the choice among them.
const BACKENDS: &[Backend] = Backend::ALL.split_at(1).1;

/// Long enough for whoever polls to look more than once.
const WHILE: Duration = Duration::from_millis(25);

/// The root, whatever it was, has ended, and this member has not: that is no end of the tree. Then it ends, and that is.
fn outlives(tree: &Tree, family: &Family, member: &str) {
    let member = family.fact(member).pid;
    let backend = tree.backend();
    assert_eq!(tree.wait_empty(Some(WHILE)).unwrap(), None, "{backend}: {member} lives");
    assert!(!tree.is_empty(), "{backend}: {member} lives");
    // What cannot be looked into, and was orphaned before a scan, only holds the end back there.
    let environment = std::fs::read(format!("/proc/{member}/environ")).map_err(|error| error.kind());
    let is_closed = backend == Backend::Poll && environment == Err(std::io::ErrorKind::PermissionDenied);
    assert!(is_closed || tree.contains(pid(member)).unwrap(), "{backend}: {member} is no member any more");
    family.poke(member);
    emptied(tree, family);
}

/// E1, as `sh -c 'sleep 2 & exit 0'`, and as a daemon.
fn the_root_ends_first(backend: Backend) {
    for round in 0..rounds(50) {
        let (family, tree, mut child) = spawn(&on(backend), early::ENDS_FIRST[round % 2]);
        assert!(child.wait().unwrap().success());
        outlives(&tree, &family, "left");
    }
}

/// E2, at the three paces at which scans were seen to miss it.
#[cfg(target_os = "linux")]
fn a_chain_forks_and_ends(backend: Backend) {
    for round in 0..rounds(50) {
        let (family, tree, _child) = spawn(&on(backend), early::CHAIN[round % 3]);
        outlives(&tree, &family, "last");
    }
}

/// E3.
#[cfg(target_os = "linux")]
fn a_member_leaves_the_mount_namespace(backend: Backend) {
    require!(is_root(), "needs root, to have mount namespaces");
    for _ in 0..rounds(50) {
        let (family, tree, mut child) = spawn(&on(backend), early::ELSEWHERE);
        assert!(child.wait().unwrap().success());
        outlives(&tree, &family, "elsewhere");
    }
}

/// E4, as the root and below it (trap 4).
fn a_main_thread_ends_before_the_others(backend: Backend) {
    for round in 0..rounds(50) {
        let (family, tree, _child) = spawn(&on(backend), early::MAIN_THREAD_ENDS[round % 2]);
        let worker = family.fact("worker");
        #[cfg(target_os = "linux")] // nothing says it elsewhere
        pidigree_testkit::eventually("the main thread has ended", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", worker.pid)).ok()?;
            stat.rsplit_once(')')?.1.trim_start().starts_with('Z').then_some(())
        });
        outlives(&tree, &family, "worker");
        let told = std::iter::from_fn(|| tree.next_event(Some(Duration::ZERO)).unwrap());
        let ends: Vec<_> = told
            .filter_map(|event| match event {
                TreeEvent::Left { member, status, .. } if member.pid() == pid(worker.pid) => Some(status),
                _ => None,
            })
            .collect();
        assert_eq!(ends, [pidigree::ExitStatus::Code(4)], "{backend}: it ended once, with its last thread");
    }
}

/// E7: no chain of parents leads to the root any more.
fn orphans_of_ended_parents_stay(backend: Backend) {
    for _ in 0..rounds(50) {
        let (family, tree, mut child) = spawn(&on(backend), early::DEEP);
        assert!(child.wait().unwrap().success());
        outlives(&tree, &family, "deep");
    }
}

/// The other way round: what others leave behind meanwhile, orphaned to the same adopter, is no reason to be late.
fn daemons_of_others_hold_nothing(backend: Backend) {
    let mut daemons = Vec::new();
    for _ in 0..rounds(50).min(10) {
        let (family, tree, mut child) = spawn(&on(backend), "say root await exit 0");
        let others = Family::spawn("double-fork [ say daemon pause ] exit 0");
        others.fact("daemon");
        daemons.push(others);
        family.poke(family.fact("root").pid);
        assert!(child.wait().unwrap().success());
        emptied(&tree, &family);
    }
    assert!(daemons.iter().all(|others| !others.has_ended()), "they hold nothing though they live");
}

/// E5: nothing of `/proc` that says more than that it is there can be read of it.
#[test]
fn a_member_cannot_be_looked_into() {
    require!(is_root(), "needs root, to become somebody else");
    stage("a_member_cannot_be_looked_into", &["in-ns", "mount", "--uid", "65534"], || {
        for backend in BACKENDS.iter().copied().filter(|backend| works(*backend).is_ok()) {
            for _ in 0..rounds(50) {
                let (family, tree, mut child) = spawn(&on(backend), early::CLOSED);
                assert!(child.wait().unwrap().success());
                let closed = family.fact("closed").pid;
                let namespace = std::fs::read_link(format!("/proc/{closed}/ns/mnt"));
                namespace.expect_err("the trap: it is this very user's, and denied");
                outlives(&tree, &family, "closed");
            }
        }
    });
}

/// E5, as it happened: by a program with file capabilities.
#[cfg(target_os = "linux")] // only Linux has them
#[test]
fn a_member_has_file_capabilities() {
    require!(is_root(), "needs root, to give capabilities to a file");
    stage("a_member_has_file_capabilities", &["in-ns", "mount"], || {
        let folder = tempfile::tempdir().unwrap();
        let able = folder.path().join("able");
        assert!(Command::new("cp").arg(pidigree_testkit::binary()).arg(&able).status().unwrap().success());
        let given = Command::new("setcap").arg("cap_net_raw+ep").arg(&able).status();
        require!(
            given.is_ok_and(|status| status.success()),
            "setcap is not there, or the file system keeps none"
        );
        become_nobody(folder.path());
        for backend in BACKENDS.iter().copied().filter(|backend| works(*backend).is_ok()) {
            for _ in 0..rounds(50) {
                // Its lifeline and its word are pipes, because this process has no other hold on it.
                let mut command = Command::new(&able);
                command.args("fork [ say able pause ]".split(' '));
                command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
                let (tree, mut child) = on(backend).spawn(&mut command).unwrap();
                drop(command);
                let lifeline = child.stdin.take().unwrap();
                let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
                let mut line = String::new();
                std::io::BufRead::read_line(&mut said, &mut line).unwrap();
                assert!(line.starts_with("able pid="), "{line}");
                let number: u32 = line.split(['=', ' ']).nth(2).unwrap().parse().unwrap();
                std::fs::read_link(format!("/proc/{number}/ns/mnt")).expect_err("the trap");
                assert_eq!(child.wait().unwrap(), pidigree::ExitStatus::Code(0), "{backend}");
                assert_eq!(tree.wait_empty(Some(WHILE)).unwrap(), None, "{backend}");
                assert!(backend == Backend::Poll || tree.contains(pid(number)).unwrap(), "{backend}");
                drop(lifeline);
                assert!(tree.wait_empty(Some(PATIENCE)).unwrap().is_some(), "{backend}");
                let rest = std::io::Read::read_to_string(&mut said, &mut line).unwrap();
                assert_eq!(rest, 0, "{backend}: its end of the pipe is closed");
            }
        }
    });
}

/// For good, and able to look into itself.
#[cfg(target_os = "linux")]
fn become_nobody(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;

    use nix::unistd::{Gid, Uid, chown, setgroups, setresgid, setresuid};
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (uid, gid) = (Uid::from_raw(65534), Gid::from_raw(65534));
    chown(folder, Some(uid), Some(gid)).unwrap();
    setgroups(&[]).unwrap();
    setresgid(gid, gid, gid).unwrap();
    setresuid(uid, uid, uid).unwrap();
    nix::sys::prctl::set_dumpable(true).unwrap();
    std::env::set_current_dir("/").unwrap();
}

/// E6: whoever cannot look has not seen that nobody is there; at whichever call of a scan that is.
mod an_error_is_no_end {
    use super::no_end;

    #[test]
    fn of_opening() {
        no_end("an_error_is_no_end::of_opening", "openat");
    }

    #[test]
    fn of_listing() {
        no_end("an_error_is_no_end::of_listing", "getdents64");
    }

    #[test]
    fn of_pinning() {
        no_end("an_error_is_no_end::of_pinning", "pidfd_open");
    }

    #[test]
    fn of_asking() {
        no_end("an_error_is_no_end::of_asking", "ioctl:PIDFD_GET_INFO");
    }
}

fn no_end(test: &str, call: &str) {
    stage(test, &["in-ns", "mount"], || {
        let trees: Vec<_> = BACKENDS
            .iter()
            .copied()
            .filter(|backend| works(*backend).is_ok())
            .flat_map(|backend| (0..rounds(50)).map(move |_| backend))
            .map(|backend| spawn(&on(backend), "double-fork [ say left await ] exit 0"))
            .collect();
        trees.iter().for_each(|(family, ..)| drop(family.fact("left")));
        deny_from_now("EIO", call);
        let listed = std::fs::read_dir("/proc").and_then(|mut listed| listed.next().unwrap()).map(drop);
        let asked = pidigree::parent_of(pid(1)).map(drop);
        let fails = |result: &std::io::Error| result.raw_os_error() == Some(libc::EIO);
        let is_made =
            listed.is_err_and(|error| fails(&error)) || asked.is_err_and(|error| fails(&error.into()));
        // Where others are made instead, there are no such calls to fail.
        assert!(is_made || !matches!(call, "openat" | "getdents64"), "the trap");
        for (_, tree, _) in &trees {
            let backend = tree.backend();
            let mut errors = 0;
            // The time for one is time for all: those that nobody tells need it, to look.
            let time = if backend == Backend::Poll { WHILE } else { Duration::from_millis(1) };
            for _ in 0..3 {
                match tree.wait_empty(Some(time)) {
                    Ok(None) => {}
                    Ok(Some(emptied)) => panic!("{backend}: {emptied:?} out of an error"),
                    Err(error) => {
                        errors += 1;
                        assert!(!error.is_gone(), "{backend}: {error}");
                    }
                }
                assert!(!tree.is_empty(), "{backend}");
            }
            // The others are told by the kernel, and need not look.
            if backend == Backend::Poll && is_made {
                assert!(errors > 0, "a scan that failed is told");
            }
        }
        // And when they end, none ends by an error either.
        for (family, tree, _) in &trees {
            family.poke(family.fact("left").pid);
            family.wait_all();
            if tree.backend() != Backend::Poll || !is_made {
                continue;
            }
            match tree.wait_empty(Some(Duration::from_millis(5))) {
                Ok(emptied) => assert_eq!(emptied, None, "nobody could look"),
                Err(error) => assert!(!error.is_gone(), "{error}"),
            }
        }
    });
}

/// E6 again: another /proc, in which nobody is.
#[test]
fn an_empty_proc_is_no_end() {
    require!(is_root(), "needs root, to mount");
    stage("an_empty_proc_is_no_end", &["in-ns", "mount"], || {
        let trees: Vec<_> = BACKENDS
            .iter()
            .copied()
            .filter(|backend| works(*backend).is_ok())
            .map(|backend| spawn(&on(backend), "double-fork [ say left await ] exit 0"))
            .collect();
        trees.iter().for_each(|(family, ..)| drop(family.fact("left")));
        let mounted = Command::new("mount").args(["-t", "tmpfs", "none", "/proc"]).status().unwrap();
        assert!(mounted.success() && std::fs::read_dir("/proc").unwrap().next().is_none(), "the trap");
        for _ in 0..rounds(50) {
            for (_, tree, _) in &trees {
                if let Ok(Some(emptied)) = tree.wait_empty(Some(Duration::from_millis(2))) {
                    panic!("{}: {emptied:?}, because /proc is empty", tree.backend());
                }
                assert!(!tree.is_empty(), "{}", tree.backend());
            }
        }
        assert!(Command::new("umount").arg("/proc").status().unwrap().success());
        for (family, tree, _) in &trees {
            family.poke(family.fact("left").pid);
            family.wait_all();
            // Trouble that was met meanwhile may have to be heard first.
            let empty = (0..10).find_map(|_| tree.wait_empty(Some(PATIENCE)).ok().flatten());
            assert!(empty.is_some(), "{}: whoever can look again sees the end", tree.backend());
        }
    });
}
