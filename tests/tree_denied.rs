//! A member that has become another user's takes no signal of an unprivileged tracker. That is said, and all others have been
//! sent it.
#![cfg(target_os = "linux")] // elsewhere a process cannot be rid of root and have it again by the same calls

mod common;
#[path = "common/trees.rs"]
mod trees;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use common::pid;
use nix::unistd::{Gid, Uid, chown, setgroups, setresgid, setresuid};
use pidigree::{Backend, ExitStatus, Pid, Process, Signal, State, Tree, TreeChild};
use pidigree_testkit::{DEADLINE, binary, is_root, require, stage};
use trees::{PATIENCE, emptied, on, spawn, works};

use Backend::{Cgroup, Poll, ProcConnector, Subreaper};

const NOBODY: u32 = 65534;

/// Long enough for whoever polls to look more than once.
const WHILE: Duration = Duration::from_millis(25);

/// A tree of whose three members one is root's. Its lifeline and its word are pipes: nobody here could end it otherwise.
struct Mixed {
    tree: Tree,
    child: TreeChild,
    lifeline: ChildStdin,
    others: Process,
    own: [Process; 2],
    said: BufReader<ChildStdout>,
}

impl Mixed {
    fn spawn(backend: Backend, program: &Path) -> Mixed {
        let mut command = Command::new(program);
        let script = "fork [ setuid 0 say others pause ] fork [ setuid 65534 say own pause ] setuid 65534 say root pause";
        command.args(script.split(' ')).stdin(Stdio::piped()).stdout(Stdio::piped());
        let (tree, mut child) = on(backend).spawn(&mut command).unwrap();
        // Waiting for it would close that.
        let lifeline = child.stdin.take().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut members: Vec<(String, Process)> = Vec::new();
        while members.len() < 3 {
            let mut line = String::new();
            assert!(said.read_line(&mut line).unwrap() > 0, "{members:?}");
            let (name, rest) = line.split_once(" pid=").unwrap();
            let number = rest.split(' ').next().unwrap().parse().unwrap();
            members.push((name.to_owned(), Process::open(pid(number)).unwrap()));
        }
        let named = |name| members.iter().find(|(one, _)| one == name).unwrap().1.clone();
        let (others, own) = (named("others"), [named("own"), named("root")]);
        let denied = others.signal(Signal::TERM).expect_err("the trap: it is root's");
        assert!(denied.is_denied(), "{denied}");
        Mixed { tree, child, lifeline, others, own, said }
    }

    fn all_others_were_sent(&mut self, signal: Signal) {
        let backend = self.tree.backend();
        let error = self.tree.kill(signal).expect_err("one of them takes none");
        assert!(error.is_denied(), "{backend}: {error}");
        assert_eq!(error.pid(), Some(self.others.pid()), "{backend}: {error}");
        let status = ExitStatus::Signal(signal.number());
        for member in &self.own {
            assert!(member.wait(Some(DEADLINE)).unwrap().is_some(), "{backend}: {member:?} was not sent it");
        }
        assert_eq!(self.child.wait().unwrap(), status, "{backend}");
    }

    fn one_is_left(self) {
        let backend = self.tree.backend();
        assert_eq!(self.tree.wait_empty(Some(WHILE)).unwrap(), None, "{backend}");
        assert_eq!(self.others.state().unwrap(), State::Running, "{backend}");
        let members: Vec<Pid> = self.tree.members().iter().map(|member| member.pid()).collect();
        assert_eq!(members, [self.others.pid()], "{backend}");
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.others.pid())).unwrap();
        let state = stat.rsplit_once(')').unwrap().1.trim_start().chars().next();
        assert_ne!(state, Some('T'), "{backend}: nor was it stopped");
        self.ends();
    }

    /// By its lifeline.
    fn ends(mut self) {
        drop(self.lifeline);
        assert!(self.tree.wait_empty(Some(PATIENCE)).unwrap().is_some(), "{}", self.tree.backend());
        assert_eq!(self.said.read_to_end(&mut Vec::new()).unwrap(), 0, "nobody holds its pipe any more");
    }
}

/// A copy of the testkit that makes whoever runs it root: in a folder that nobody else can enter.
fn set_uid(folder: &Path) -> PathBuf {
    let program = folder.join("set-uid");
    assert!(Command::new("cp").arg(binary()).arg(&program).status().unwrap().success());
    chown(folder, Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY))).unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o4755)).unwrap();
    program
}

/// But for what `saved` keeps.
fn become_nobody(saved: u32) {
    setgroups(&[]).unwrap();
    setresgid(Gid::from_raw(NOBODY), Gid::from_raw(NOBODY), Gid::from_raw(saved)).unwrap();
    setresuid(Uid::from_raw(NOBODY), Uid::from_raw(NOBODY), Uid::from_raw(saved)).unwrap();
    nix::sys::prctl::set_dumpable(true).unwrap();
}

#[test]
fn all_others_are_signalled() {
    require!(is_root(), "needs root, to have a set-uid program");
    stage("all_others_are_signalled", &["in-ns", "mount"], || {
        let folder = tempfile::tempdir().unwrap();
        let program = set_uid(folder.path());
        std::env::set_current_dir("/").unwrap();
        become_nobody(NOBODY);
        for backend in [ProcConnector, Subreaper, Poll] {
            works(backend).unwrap_or_else(|error| panic!("{backend}: {error}"));
            for signal in [Signal::TERM, Signal::KILL] {
                let mut mixed = Mixed::spawn(backend, &program);
                mixed.all_others_were_sent(signal);
                let again = mixed.tree.kill(signal).expect_err("still");
                assert!(again.is_denied(), "{backend}: {again}");
                mixed.one_is_left();
            }
        }
    });
}

/// A delegated cgroup is killed as a whole, and its kernel asks for nobody's user; other signals are sent one by one.
#[test]
fn a_delegated_cgroup_is_killed_with_whoever_is_in_it() {
    require!(is_root(), "needs root, to delegate a cgroup");
    require!(works(Cgroup), "cgroup cannot be had here");
    stage("a_delegated_cgroup_is_killed_with_whoever_is_in_it", &["in-ns", "mount"], || {
        let folder = tempfile::tempdir().unwrap();
        let program = set_uid(folder.path());
        std::env::set_current_dir("/").unwrap();
        let delegated = Delegated::new();
        as_nobody(|| {
            works(Cgroup).unwrap();
            let mut mixed = Mixed::spawn(Cgroup, &program);
            mixed.all_others_were_sent(Signal::TERM);
            mixed.one_is_left();

            let mut mixed = Mixed::spawn(Cgroup, &program);
            assert_eq!(mixed.tree.kill(Signal::KILL).unwrap(), 3);
            assert_eq!(mixed.child.wait().unwrap(), ExitStatus::Signal(9));
            assert!(mixed.others.wait(Some(DEADLINE)).unwrap().is_some());
            mixed.ends();
        });
        drop(delegated);
    });
}

/// Whoever has become nobody since may not write to the cgroup that it made as root: then each is sent it by itself.
#[test]
fn a_cgroup_that_may_not_be_killed_is_no_reason_to_spare_its_members() {
    require!(is_root(), "needs root, to be rid of it");
    require!(works(Cgroup), "cgroup cannot be had here");
    stage("a_cgroup_that_may_not_be_killed_is_no_reason_to_spare_its_members", &["in-ns", "mount"], || {
        let script = "fork [ setuid 65534 say own pause ] say root pause";
        let (family, tree, _child) = spawn(&on(Cgroup), script);
        let [own, root] = ["own", "root"].map(|name| Process::open(pid(family.fact(name).pid)).unwrap());
        as_nobody(|| {
            let error = tree.kill(Signal::KILL).expect_err("the root is root's");
            assert!(error.is_denied(), "{error}");
            assert!(own.wait(Some(DEADLINE)).unwrap().is_some(), "{error}");
            assert_eq!(root.state().unwrap(), State::Running);
        });
        assert_eq!(tree.kill(Signal::KILL).unwrap(), 1);
        emptied(&tree, &family);
    });
}

/// Not for good.
fn as_nobody(act: impl FnOnce()) {
    struct Again;
    impl Drop for Again {
        fn drop(&mut self) {
            setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).unwrap();
            setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0)).unwrap();
        }
    }
    let _again = Again;
    become_nobody(0);
    act();
}

/// A cgroup that is nobody's, with this process in it.
struct Delegated {
    folder: PathBuf,
    above: PathBuf,
}

impl Delegated {
    fn new() -> Delegated {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let unified = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let top = unified
            .filter(|fields| fields[2] == "cgroup2")
            .map(|fields| PathBuf::from(fields[1]))
            .next()
            .unwrap();
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let above = top.join(own);
        let folder = above.join(format!("delegated-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(&folder.join(file), Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY))).unwrap();
        }
        std::fs::write(folder.join("cgroup.procs"), "0").unwrap();
        Delegated { folder, above }
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        std::fs::write(self.above.join("cgroup.procs"), "0").unwrap();
        std::fs::remove_dir(&self.folder).unwrap();
    }
}
