//! Real cgroups with real processes in them.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, poll};
use pidigree_testkit::{DEADLINE, binary, eventually, require, stage};

use super::*;
use crate::sys::spawn::spawn_held;

mod places;
mod sweeping;

/// Where no cgroup can be made there is nothing to test.
macro_rules! cgroup_or_skip {
    () => {{
        let made = Cgroup::create();
        require!(made, "no cgroup can be made here");
        made.unwrap()
    }};
}
use cgroup_or_skip;

/// A child that is in it before it executes its program.
fn spawn_in(cgroup: &Cgroup, command: &mut Command) -> Result<Child> {
    let spawn = |command: &mut Command| command.spawn().map_err(|error| Error::os(None, "spawn", error));
    spawn_held(command, |pid| cgroup.add(pid), spawn)
}

/// Members that end with the test, whatever becomes of it.
struct Members<'c> {
    cgroup: &'c Cgroup,
    root: Child,
}

impl<'c> Members<'c> {
    /// A script of the testkit. They end by themselves when the root's standard input is closed.
    fn script(cgroup: &'c Cgroup, words: &[&str]) -> Members<'c> {
        Members::spawn(cgroup, Command::new(binary()).args(words))
    }

    fn spawn(cgroup: &'c Cgroup, command: &mut Command) -> Members<'c> {
        let root = spawn_in(cgroup, command.stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
        Members { cgroup, root }
    }

    fn pid(&self) -> Pid {
        Pid::new(self.root.id()).unwrap()
    }

    /// What the root prints, to the end.
    fn output(&mut self) -> String {
        let mut text = String::new();
        self.root.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.root.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn end(&mut self) {
        drop(self.root.stdin.take());
    }
}

impl Drop for Members<'_> {
    fn drop(&mut self) {
        let _ = self.cgroup.kill();
        let _ = self.root.wait();
        // Else the cgroup, which is dropped next, would stay.
        let deadline = Instant::now() + DEADLINE;
        while self.cgroup.is_populated().unwrap_or(false) && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

/// Waits for the event, and looks.
fn wait_empty(cgroup: &Cgroup) {
    let deadline = Instant::now() + DEADLINE;
    while cgroup.is_populated().unwrap() {
        assert!(wait_changed(cgroup), "not empty within {DEADLINE:?}");
        assert!(Instant::now() < deadline, "not empty within {DEADLINE:?}");
    }
}

fn wait_changed(cgroup: &Cgroup) -> bool {
    let mut fds = [PollFd::new(cgroup.events(), PollFlags::POLLPRI)];
    poll(&mut fds, DEADLINE.as_millis() as u16).unwrap() == 1
}

fn unified_path_of(proc: &str) -> String {
    let text = std::fs::read(format!("{proc}/cgroup")).unwrap();
    String::from_utf8(parse::cgroup::own(&text).unwrap().to_vec()).unwrap()
}

#[test]
fn the_root_is_in_it_at_its_first_instruction() {
    let cgroup = cgroup_or_skip!();
    let mut cat = Members::spawn(&cgroup, Command::new("cat").arg("/proc/self/cgroup"));
    let seen = cat.output();
    let name = cgroup.path().file_name().unwrap().to_str().unwrap();
    assert!(
        seen.lines().any(|line| line.starts_with("0::") && line.ends_with(&format!("/{name}"))),
        "{seen}"
    );
    assert!(!unified_path_of("/proc/thread-self").contains(name), "we are not");
    assert!(!cgroup.contains_self().unwrap());
}

#[test]
fn a_program_that_cannot_be_executed_leaves_it_empty() {
    let cgroup = cgroup_or_skip!();
    let error = spawn_in(&cgroup, &mut Command::new("/does/not/exist")).unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
    assert!(!cgroup.is_populated().unwrap());
}

#[test]
fn it_is_populated_until_the_last_one_ends() {
    let cgroup = cgroup_or_skip!();
    assert!(!cgroup.is_populated().unwrap());
    let mut family = Members::script(&cgroup, &["fork", "[", "say", "kid", "pause", "]", "pause"]);
    assert!(cgroup.is_populated().unwrap());
    let fact = family.line();
    let kid: u32 = fact.split(['=', ' ']).nth(2).unwrap().parse().unwrap();
    assert_eq!(
        cgroup.members().unwrap(),
        [family.pid().min(Pid::new(kid).unwrap()), family.pid().max(Pid::new(kid).unwrap())]
    );
    assert!(!cgroup.remove().unwrap(), "somebody is in it");
    family.end();
    wait_empty(&cgroup);
    assert_eq!(cgroup.members().unwrap(), []);
}

#[test]
fn a_daemon_is_a_member_after_its_parents_have_gone() {
    let cgroup = cgroup_or_skip!();
    let mut family =
        Members::script(&cgroup, &["double-fork", "[", "say", "daemon", "pause", "]", "exit", "0"]);
    let lifeline = family.root.stdin.take();
    assert!(family.line().starts_with("daemon "));
    assert!(family.root.wait().unwrap().success());
    assert!(cgroup.is_populated().unwrap());
    let members = cgroup.members().unwrap();
    assert!(members.len() == 1 && members[0] != family.pid(), "{members:?}");
    drop(lifeline);
    wait_empty(&cgroup);
}

/// Trap 3: the file says so as soon as the last one has ended, whoever is to reap it.
#[test]
fn a_zombie_is_nobody() {
    let cgroup = cgroup_or_skip!();
    let family = Members::script(&cgroup, &["exit", "0"]);
    let handle = Handle::open(family.pid()).unwrap();
    assert!(handle.wait(Some(DEADLINE)).unwrap());
    eventually("empty with a zombie", || (!cgroup.is_populated().unwrap()).then_some(()));
    assert_eq!(cgroup.members().unwrap(), []);
    assert!(cgroup.remove().unwrap(), "it is in the way of nothing");
    assert!(!cgroup.path().exists());
    assert_eq!(handle.state().unwrap(), crate::state::State::Zombie);
}

/// Trap 3: the file changes for the freezer, too.
#[test]
fn a_freeze_wakes_and_is_no_end() {
    let cgroup = cgroup_or_skip!();
    let _family = Members::script(&cgroup, &["pause"]);
    assert!(cgroup.is_populated().unwrap());
    for frozen in ["1", "0"] {
        std::fs::write(cgroup.path().join("cgroup.freeze"), frozen).unwrap();
        assert!(wait_changed(&cgroup), "the trap");
        assert!(cgroup.is_populated().unwrap());
    }
}

#[test]
fn a_cgroup_that_a_member_makes_is_part_of_it() {
    let cgroup = cgroup_or_skip!();
    let script =
        r#"mkdir -p "$0/a b/c" "$0/d/e/empty" && echo 0 >"$0/a b/c/cgroup.procs" && echo ready && exec cat"#;
    let mut shell = Members::spawn(&cgroup, Command::new("sh").arg("-c").arg(script).arg(cgroup.path()));
    assert_eq!(shell.line(), "ready");
    assert_eq!(cgroup.members().unwrap(), [shell.pid()]);
    assert!(!cgroup.remove().unwrap());
    assert!(cgroup.path().join("d/e/empty").exists(), "what a member made stays while anybody is left");
    shell.end();
    wait_empty(&cgroup);
    assert!(cgroup.remove().unwrap());
    assert!(!cgroup.path().exists());
}

#[test]
fn a_threaded_cgroup_below_hides_nobody() {
    let cgroup = cgroup_or_skip!();
    let mut family = Members::script(&cgroup, &["say", "here", "pause"]);
    family.line();
    let below = cgroup.path().join("threaded");
    std::fs::create_dir(&below).unwrap();
    std::fs::write(below.join("cgroup.type"), "threaded").unwrap();
    std::fs::write(below.join("cgroup.threads"), family.pid().to_string()).unwrap();
    assert!(std::fs::read(below.join("cgroup.procs")).is_err(), "the trap");
    assert_eq!(cgroup.members().unwrap(), [family.pid()]);
    assert!(cgroup.is_populated().unwrap());
}

/// A moving target among many: whoever kills one after the other by PID never hits it.
#[test]
fn kill_leaves_nobody() {
    let cgroup = cgroup_or_skip!();
    // The root reaps what it leaves: some init processes take their time over thousands of orphans.
    let mut words = vec!["subreaper", "fork", "[", "hopper", "0", "setsid-every", "5", "]"];
    for _ in 0..20 {
        words.extend(["fork", "["]);
        (0..9).for_each(|_| words.extend(["fork", "[", "pause", "]"]));
        words.extend(["pause", "]"]);
    }
    words.push("reap-all");
    let mut family = Members::script(&cgroup, &words);
    eventually("200 members and more", || (cgroup.members().unwrap().len() > 200).then_some(()));
    assert!(cgroup.kill().unwrap());
    wait_empty(&cgroup);
    assert_eq!(cgroup.members().unwrap(), []);
    assert_eq!(family.root.wait().unwrap().signal(), Some(9));
}

#[test]
fn reopen_finds_the_same_and_no_other() {
    let cgroup = cgroup_or_skip!();
    let family = Members::script(&cgroup, &["pause"]);
    let again = Cgroup::reopen(cgroup.path(), cgroup.id()).unwrap().unwrap();
    assert_eq!((again.path(), again.id()), (cgroup.path(), cgroup.id()));
    assert!(again.is_populated().unwrap());
    assert_eq!(again.members().unwrap(), [family.pid()]);
    assert!(Cgroup::reopen(cgroup.path(), cgroup.id() + 1).unwrap().is_none());

    let mut other_view = Name::parse(cgroup.path().file_name().unwrap().to_str().unwrap()).unwrap();
    other_view.root += 1_000_000;
    let unseen = cgroup.path().with_file_name(other_view.to_string());
    assert!(Cgroup::reopen(&unseen, cgroup.id()).unwrap_err().is_foreign(), "unseen is not gone");

    drop(again);
    assert!(cgroup.path().exists(), "dropping one leaves a populated one where it is");
    drop(family);
    let (path, id) = (cgroup.path().to_owned(), cgroup.id());
    drop(cgroup);
    assert!(!path.exists());
    assert!(Cgroup::reopen(&path, id).unwrap().is_none());
}

#[test]
fn a_removed_one_is_empty() {
    let cgroup = cgroup_or_skip!();
    std::fs::remove_dir(cgroup.path()).unwrap();
    assert!(wait_changed(&cgroup), "whoever waits is woken");
    assert!(!cgroup.is_populated().unwrap());
    assert_eq!(cgroup.members().unwrap(), []);
    cgroup.kill().unwrap();
    cgroup.leave().unwrap();
    assert!(cgroup.remove().unwrap());
    assert!(cgroup.add(Pid::current()).is_err());
}

#[test]
fn it_is_removed_when_no_descriptor_is_left() {
    let test = "sys::backend::cgroup::tests::it_is_removed_when_no_descriptor_is_left";
    stage(test, &["nofile", "100", "100"], || {
        let cgroup = cgroup_or_skip!();
        let path = cgroup.path().to_owned();
        let fill: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        drop(cgroup);
        drop(fill);
        assert!(!path.exists());
    });
}

#[test]
fn a_name_is_accepted_as_it_is_written_and_no_other() {
    let owner = Handle::open(Pid::current()).unwrap().identity(true);
    let shifted: crate::Identity = "p1:5:y9@-77:n1".parse().unwrap();
    for owner in [owner, shifted] {
        let written = Name { owner, root: 1, count: 12 }.to_string();
        let read = Name::parse(&written).unwrap();
        crate::parse::check::assert_same_fields(&read.owner, &owner);
        assert_eq!((read.root, read.count), (1, 12));
        assert!(written.len() < 255 && !written.contains([':', '/', '\n', ' ']));
        for other in [
            format!("{written}0x"),
            format!("{written}-"),
            format!("x{written}"),
            written.replacen('.', ":", 1),
            written.replace("-12", "-012"),
            written.replace("-1-12", "-12"),
            written.replacen("p1", "p2", 1),
        ] {
            assert!(Name::parse(&other).is_none(), "{other}");
        }
    }
}
