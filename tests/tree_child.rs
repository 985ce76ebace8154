//! The root of a tree as a child: alike on every backend, whoever its parent is.

mod common;
#[macro_use]
#[path = "common/every.rs"]
mod every;
#[path = "common/trees.rs"]
mod trees;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::pid;
use pidigree::{Backend, ExitStatus, Process, Signal, State};
use pidigree_testkit::{alone, eventually};
use trees::{PATIENCE, emptied, on, spawn};

on_every_backend!(
    it_has_pipes,
    its_pipes_close_when_it_closes_them,
    it_is_waited_for_and_tried,
    it_is_signalled,
    it_leaves_no_zombie,
    it_runs_on_when_nobody_follows_it,
    its_end_is_told_though_others_run_on,
);

fn it_has_pipes(backend: Backend) {
    let mut command = Command::new("sh");
    command.args(["-c", "read line; echo \"out $line\"; echo \"err $line\" >&2; cat; exit 7"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (tree, mut child) = {
        let _alone = alone();
        on(backend).spawn(&mut command).unwrap()
    };
    assert_eq!(child.pid(), tree.root().pid(), "{backend}");
    assert_eq!(child.process().identity(), &tree.root(), "{backend}");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").unwrap();
    let (mut out, mut err) =
        (BufReader::new(child.stdout.take().unwrap()), BufReader::new(child.stderr.take().unwrap()));
    let mut text = String::new();
    out.read_line(&mut text).unwrap();
    err.read_line(&mut text).unwrap();
    assert_eq!(text, "out one\nerr one\n", "{backend}");
    drop(stdin);
    text.clear();
    out.read_to_string(&mut text).unwrap();
    err.read_to_string(&mut text).unwrap();
    assert_eq!(text, "two\n", "{backend}");
    assert_eq!(child.wait().unwrap(), ExitStatus::Code(7), "{backend}");
    assert_eq!(tree.wait_empty(Some(PATIENCE)).unwrap().unwrap().status, ExitStatus::Code(7), "{backend}");
}

/// Nobody else holds their other ends.
fn its_pipes_close_when_it_closes_them(backend: Backend) {
    let mut command = Command::new("sh");
    command.args(["-c", "exec >&- 2>&-; read line; exit 3"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (_tree, mut child) = {
        let _alone = alone();
        on(backend).spawn(&mut command).unwrap()
    };
    let mut bytes = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
    child.stderr.take().unwrap().read_to_end(&mut bytes).unwrap();
    assert!(bytes.is_empty());
    assert_eq!(child.try_wait().unwrap(), None, "{backend}: it waits for a line");
    // And wait closes the first: as std's does.
    assert_eq!(child.wait().unwrap(), ExitStatus::Code(3), "{backend}");
}

fn it_is_waited_for_and_tried(backend: Backend) {
    let (family, tree, mut child) = spawn(&on(backend), "say root await exit 9");
    assert_eq!(child.try_wait().unwrap(), None, "{backend}");
    family.poke(family.fact("root").pid);
    assert_eq!(child.wait().unwrap(), ExitStatus::Code(9), "{backend}");
    assert_eq!(child.wait().unwrap(), ExitStatus::Code(9), "{backend}: as often as it is asked");
    assert_eq!(child.try_wait().unwrap(), Some(ExitStatus::Code(9)), "{backend}");
    assert_eq!(emptied(&tree, &family).status, ExitStatus::Code(9), "{backend}");
    drop(tree);
    assert_eq!(child.wait().unwrap(), ExitStatus::Code(9), "{backend}: without its tree, too");
}

fn it_is_signalled(backend: Backend) {
    let (family, tree, mut child) = spawn(&on(backend), "fork [ say kid await ] say root pause");
    let kid = family.fact("kid").pid;
    family.fact("root");
    child.signal(Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap(), ExitStatus::Signal(15), "{backend}");
    // Where a helper is its parent, that reaps it; soon.
    let gone = || child.signal(Signal::TERM).is_err_and(|error| error.is_gone());
    eventually("it is reaped", || gone().then_some(()));
    assert_eq!(tree.wait_empty(Some(Duration::from_millis(10))).unwrap(), None, "{backend}: the kid lives");
    family.poke(kid);
    assert_eq!(emptied(&tree, &family).status, ExitStatus::Signal(15), "{backend}");
}

fn it_leaves_no_zombie(backend: Backend) {
    for waits in [true, false] {
        let (family, tree, mut child) = spawn(&on(backend), "say root await");
        let root = Process::open(pid(family.fact("root").pid)).unwrap();
        let above = root.parent().unwrap().filter(|_| backend == Backend::Subreaper);
        family.poke(root.pid().get());
        emptied(&tree, &family);
        if waits {
            child.wait().unwrap();
        }
        drop(child);
        drop(tree);
        eventually("the root is reaped", || (root.state().unwrap() == State::Gone).then_some(()));
        if let Some(helper) = above {
            eventually("the helper is reaped", || (helper.state().unwrap() == State::Gone).then_some(()));
        }
    }
}

fn it_runs_on_when_nobody_follows_it(backend: Backend) {
    let script = "double-fork [ say daemon await ] fork [ say kid await ] say root await";
    let (family, tree, child) = spawn(&on(backend), script);
    let members = ["root", "kid", "daemon"].map(|name| Process::open(pid(family.fact(name).pid)).unwrap());
    drop(child);
    drop(tree);
    for member in &members {
        assert_eq!(member.wait(Some(Duration::from_millis(20))).unwrap(), None, "{backend}");
    }
    for member in &members {
        family.poke(member.pid().get());
    }
    family.wait_all();
}

fn its_end_is_told_though_others_run_on(backend: Backend) {
    let (family, tree, mut child) = spawn(&on(backend), "fork [ say kid await ] exit 4");
    assert_eq!(child.wait().unwrap(), ExitStatus::Code(4), "{backend}");
    let kid = family.fact("kid").pid;
    // Also of a child whose tree is gone.
    drop(tree);
    assert_eq!(child.try_wait().unwrap(), Some(ExitStatus::Code(4)), "{backend}");
    family.poke(kid);
    family.wait_all();
}
