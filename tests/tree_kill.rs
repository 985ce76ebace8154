//! A signal to a whole tree: to every member, however fast they fork, and to nobody else.

mod common;
#[macro_use]
#[path = "common/every.rs"]
mod every;
#[path = "common/trees.rs"]
mod trees;

use std::time::Duration;

use common::pid;
use pidigree::{Backend, Pid, Process, Signal, State};
use pidigree_testkit::{Family, eventually};
use trees::{PATIENCE, emptied, on, spawn};

on_every_backend!(
    handlers_run_in_all_of_fifty,
    a_bomb_is_killed,
    a_stopped_member_is_killed,
    an_ended_tree_takes_no_signal,
);

/// Somebody else, who would die of any signal meant for the tree.
struct Bystander {
    family: Family,
    process: Process,
}

impl Bystander {
    fn start() -> Bystander {
        let family = Family::spawn("fork [ say kid pause ] say bystander pause");
        family.fact("kid");
        let process = Process::open(pid(family.fact("bystander").pid)).unwrap();
        Bystander { family, process }
    }

    fn is_unharmed(&self) {
        assert_eq!(self.process.state().unwrap(), State::Running);
        assert_eq!(self.process.wait(Some(Duration::ZERO)).unwrap(), None);
        assert_eq!(self.process.children().unwrap().len(), 1);
        assert!(!self.family.has_ended());
    }
}

fn handlers_run_in_all_of_fifty(backend: Backend) {
    let bystander = Bystander::start();
    // Each answers the first signal by a child, which takes the next.
    let handler = "take 15 fork [ say late take 15 exit 8 ] say handled exit 7";
    let script =
        format!("block 15 {} say member {handler}", format!("fork [ say member {handler} ] ").repeat(49));
    let (family, tree, mut child) = spawn(&on(backend), script);
    let members = family.facts("member", 50);
    let sent = tree.kill(Signal::TERM).unwrap();
    assert!(sent >= 50, "{backend}: sent to {sent}");
    family.facts("handled", 50);
    let late = family.facts("late", 50);
    members.iter().for_each(|member| family.wait_ended(member.pid));
    assert_eq!(child.wait().unwrap(), pidigree::ExitStatus::Code(7), "{backend}");
    eventually("each of the late ones that it was sent to has ended", || {
        let runs =
            |pid| Process::open(pid).is_ok_and(|one| one.state().is_ok_and(|state| state == State::Running));
        let running = late.iter().filter(|one| runs(pid(one.pid))).count();
        (running <= 100 - sent).then_some(())
    });
    assert_eq!(tree.kill(Signal::TERM).unwrap(), 100 - sent, "{backend}: each of them once");
    emptied(&tree, &family);
    bystander.is_unharmed();
}

/// It stops by itself after 7,000 forks at most, and holds 1,500 processes by then.
fn a_bomb_is_killed(backend: Backend) {
    let bystander = Bystander::start();
    let hoppers = "fork [ hopper 1000 setsid-every 7 double-every 11 pause ] ".repeat(5);
    // Whoever polls cannot know an orphan for a member, or kill it.
    let hoppers = if matches!(backend, Backend::Poll | Backend::Kqueue) { "" } else { &hoppers };
    let (family, tree, mut child) = spawn(&on(backend), format!("{hoppers} say root bomb 1500 pause"));
    family.fact("root");
    let sent = tree.kill(Signal::KILL).unwrap();
    assert!(sent > 0, "{backend}");
    assert_eq!(child.wait().unwrap(), pidigree::ExitStatus::Signal(9), "{backend}");
    // Not by their lifeline, which is open.
    let emptied = emptied(&tree, &family);
    assert_eq!(emptied.status, pidigree::ExitStatus::Signal(9), "{backend}");
    bystander.is_unharmed();
}

fn a_stopped_member_is_killed(backend: Backend) {
    let (family, tree, mut child) = spawn(&on(backend), "fork [ say kid await ] say root await");
    for name in ["kid", "root"] {
        let member = Process::open(pid(family.fact(name).pid)).unwrap();
        member.signal("STOP".parse().unwrap()).unwrap();
        eventually("it has stopped", || has_stopped(member.pid()).then_some(()));
    }
    tree.kill(Signal::TERM).unwrap();
    assert_eq!(tree.wait_empty(Some(Duration::from_millis(10))).unwrap(), None, "{backend}: stopped");
    assert_eq!(tree.kill(Signal::KILL).unwrap(), 2, "{backend}");
    assert_eq!(child.wait().unwrap(), pidigree::ExitStatus::Signal(9), "{backend}");
    emptied(&tree, &family);
}

#[cfg(target_os = "linux")]
fn has_stopped(member: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{member}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}

#[cfg(not(target_os = "linux"))] // there is no /proc elsewhere
fn has_stopped(member: Pid) -> bool {
    let ps = std::process::Command::new("ps").args(["-o", "state=", "-p", &member.to_string()]).output();
    ps.unwrap().stdout.trim_ascii().starts_with(b"T")
}

fn an_ended_tree_takes_no_signal(backend: Backend) {
    let (family, tree, mut child) = spawn(&on(backend), "exit 0");
    assert!(child.wait().unwrap().success());
    assert!(tree.wait_empty(Some(PATIENCE)).unwrap().is_some());
    assert!(family.has_ended());
    assert_eq!(tree.kill(Signal::KILL).unwrap(), 0, "{backend}");
}
