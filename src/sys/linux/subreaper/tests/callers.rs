//! Who calls: many at once, and ones that die.

use std::sync::Barrier;

use super::*;

/// Other threads allocate, and hold all sorts of locks, while one forks.
#[test]
fn sixty_four_threads_spawn_at_once() {
    const THREADS: usize = 64;
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for code in 0..THREADS {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                for _ in 0..4 {
                    let mut tended = Tended::spawn(&mut shell(format!("(exit 9) & exit {code}")));
                    let rest = tended.rest();
                    assert!(matches!(rest.last(), Some(Report::Empty { .. })), "{rest:?}");
                    assert!(ends(&rest).contains(&(tended.root, ExitStatus::Code(code as i32))), "{rest:?}");
                    assert_eq!(tended.code(), Some(code as i32));
                }
            });
        }
    });
}

const CALLER: &str = "PIDIGREE_SUBREAPER_CALLER";

/// The caller of the next two tests: itself a child of theirs, which they kill.
#[test]
fn a_caller_that_is_killed() {
    let Ok(role) = std::env::var(CALLER) else { return };
    let on_death = if role == "kill" { OnDeath::Kill } else { OnDeath::Leave };
    let mut command = Command::new(binary());
    command.args("fork [ setsid say kid pause ] say root pause".split(' '));
    // Its standard input and output are ours, which the test holds.
    let (mut helper, child, _) = Helper::spawn(&mut command, on_death).unwrap();
    helper.go_on().unwrap();
    println!("helper pid={}", child.id());
    loop {
        std::thread::park();
    }
}

struct Caller {
    child: Child,
    members: Vec<Handle>,
    helper: Handle,
}

/// Starts it, and kills it when its tree is there.
fn killed_caller(role: &str) -> Caller {
    let name = "sys::backend::subreaper::tests::callers::a_caller_that_is_killed";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(CALLER, role);
    command.env("PIDIGREE_TESTKIT", binary());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (mut members, mut helper) = (Vec::new(), None);
    while members.len() < 2 || helper.is_none() {
        let mut line = String::new();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "it has ended");
        let pid = line.split_whitespace().find_map(|word| word.strip_prefix("pid="));
        let pinned = pid.map(|pid| Handle::open(pid.parse().unwrap()).unwrap());
        match line.contains("helper ") {
            true => helper = pinned,
            false => members.extend(pinned),
        }
    }
    signal(Pid::new(child.id()).unwrap(), Signal::SIGKILL);
    let stdin = child.stdin.take();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    child.stdin = stdin;
    Caller { child, members, helper: helper.unwrap() }
}

#[test]
fn a_tree_ends_with_its_caller_if_so_said() {
    let caller = killed_caller("kill");
    for handle in caller.members.iter().chain([&caller.helper]) {
        assert!(handle.wait(Some(DEADLINE)).unwrap());
    }
}

#[test]
fn a_tree_survives_its_caller_if_so_said() {
    let mut caller = killed_caller("leave");
    let helper = caller.helper.pid();
    eventually("the helper knows", || {
        let files = std::fs::read_dir(format!("/proc/{helper}/fd")).unwrap().count();
        (files == 1).then_some(())
    });
    for handle in caller.members.iter().chain([&caller.helper]) {
        assert_eq!(handle.state().unwrap(), State::Running);
    }
    // What is left to wait for, for whoever comes after the caller.
    drop(caller.child.stdin.take());
    assert!(caller.helper.wait(Some(DEADLINE)).unwrap());
    for member in &caller.members {
        assert_eq!(member.state().unwrap(), State::Gone);
    }
}
