//! `pidigree run`: what becomes of the command and of all that it starts.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use crate::common::{Ran, Running, command, object, pidigree};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pidigree::{Backend, Identity, Process};
use pidigree_testkit::{DEADLINE, require};
use serde_json::{Value, json};

/// Runs a shell script, quietly.
fn sh(options: &[&str], script: &str) -> Ran {
    let mut args = vec!["run"];
    args.extend(options);
    args.extend(["--", "sh", "-c", script]);
    pidigree(&args)
}

/// Runs a shell script, and returns what is told of it.
fn told(options: &[&str], script: &str) -> (Option<i32>, Vec<Value>) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("told");
    let mut all = vec!["--json", "-o", file.to_str().unwrap()];
    all.extend(options);
    let ran = sh(&all, script);
    let lines = std::fs::read_to_string(&file).expect("it is written");
    (ran.code, lines.lines().map(object).collect())
}

/// The last object, which is the summary.
#[track_caller]
fn summary(told: &[Value]) -> &Value {
    let last = told.last().expect("something is told");
    assert_eq!(last["event"], "summary");
    last
}

fn of<'t>(told: &'t [Value], event: &str) -> Vec<&'t Value> {
    told.iter().filter(|told| told["event"] == event).collect()
}

/// Waits for the end of a process that need not be ours; it may have ended.
fn wait_for(token: &str) {
    let identity: Identity = token.parse().expect("a token");
    match Process::reopen(&identity) {
        Ok(process) => {
            let end = process.wait(Some(DEADLINE)).expect("it can be waited for");
            assert!(end.is_some(), "{token} has not ended within {DEADLINE:?}");
        }
        Err(error) => assert!(error.is_gone(), "{error}"),
    }
}

fn runs(token: &Value) -> bool {
    let identity: Identity = token.as_str().expect("a token").parse().expect("a token");
    Process::reopen(&identity)
        .is_ok_and(|process| process.state().is_ok_and(|state| state == pidigree::State::Running))
}

fn signal(running: &Running, signal: Signal) {
    let child = i32::try_from(running.child.id()).unwrap();
    // Unreaped and ours, so this PID is still this child.
    kill(Pid::from_raw(child), signal).expect("our own child");
}

#[test]
fn it_ends_as_the_command_did() {
    for code in [0, 1, 3, 125, 255] {
        let ran = sh(&["-q"], &format!("exit {code}"));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(code), ""));
    }
    for signal in [2, 9, 15] {
        let ran = sh(&["-q"], &format!("kill -{signal} $$"));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(128 + signal), ""));
    }
}

/// With this backend, if it works here.
fn ends_as_the_command_did(backend: Backend) {
    // While others fork, polling cannot tell whose an orphan is.
    let script = if backend == Backend::Poll { "exit 7" } else { "sleep 0.1 & exit 7" };
    let (code, told) = told(&["--backend", backend.name()], script);
    require!(code != Some(125), "{backend} does not work here");
    assert_eq!(code, Some(7), "{told:?}");
    assert_eq!(told[0]["backend"], backend.name());
    let summary = summary(&told);
    assert_eq!((&summary["status"], &summary["code"]), (&json!("exited"), &json!(7)));
}

#[test]
fn it_ends_as_the_command_did_on_cgroup() {
    ends_as_the_command_did(Backend::Cgroup);
}

#[test]
fn it_ends_as_the_command_did_on_proc_connector() {
    ends_as_the_command_did(Backend::ProcConnector);
}

#[test]
fn it_ends_as_the_command_did_on_subreaper() {
    ends_as_the_command_did(Backend::Subreaper);
}

#[test]
fn it_ends_as_the_command_did_on_poll() {
    ends_as_the_command_did(Backend::Poll);
}

#[test]
fn standard_input_and_output_are_the_commands_own() {
    let mut cat = command(&["run", "-q", "cat"]);
    cat.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut cat = cat.spawn().expect("it runs");
    cat.stdin.take().expect("piped").write_all(b"one\ntwo\n").expect("it reads");
    let ran: Ran = cat.wait_with_output().expect("it ends").into();
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "one\ntwo\n", ""));
}

#[test]
fn a_command_that_cannot_be_run_is_127_or_126() {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "no program").expect("our own file");
    let plain = plain.to_str().unwrap();
    let here = folder.path().to_str().unwrap();
    let absent = format!("{here}/absent");
    for (name, code) in
        [("pidigree-no-such", 127), (absent.as_str(), 127), ("", 127), (plain, 126), (here, 126)]
    {
        let ran = pidigree(&["run", "--", name]);
        assert_eq!(ran.code, Some(code), "{name}: {ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        assert!(ran.stderr.starts_with("pidigree: ") && ran.stderr.contains(name), "{ran:?}");
    }
}

#[test]
fn its_own_failures_are_125() {
    for (line, word) in [
        (vec!["run"], "COMMAND"),
        (vec!["run", "--nonsense", "true"], "--nonsense"),
        (vec!["run", "--backend", "best", "true"], "best"),
        (vec!["run", "--timeout", "soon", "true"], "soon"),
        (vec!["run", "-q", "--json", "true"], "--json"),
        (vec!["run", "-o", "/dev/full", "true"], "/dev/full"),
        (vec!["run", "-o", "/nonexistent/told", "true"], "/nonexistent/told"),
    ] {
        let ran = pidigree(&line);
        assert_eq!(ran.code, Some(125), "{line:?}: {ran:?}");
        assert!(ran.stderr.contains(word), "{ran:?} does not name {word:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    }
}

#[test]
fn it_waits_for_what_the_command_left_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("done");
    let script = format!("(setsid sh -c 'sleep 0.3; echo done >{}' &) ; exit 3", file.display());
    let (code, told) = told(&[], &script);
    assert_eq!(code, Some(3));
    assert_eq!(std::fs::read_to_string(&file).expect("it was waited for"), "done\n");
    let summary = summary(&told);
    assert!(summary["orphans"].as_u64().unwrap() >= 1, "{summary}");
    let outlived = summary["outlived"].as_array().unwrap();
    assert!(outlived.iter().any(|one| one["command"].as_str().unwrap().contains("sleep 0.3")), "{summary}");
}

#[test]
fn failures_and_levels_are_told() {
    let (code, told) =
        told(&[], "sh -c 'exit 4'; sh -c 'kill -9 $$; :'; sh -c 'sh -c \"sleep 0.05; :\"; :'; true");
    assert_eq!(code, Some(0));
    let summary = summary(&told);
    require!(summary["complete"] == true, "not every member is seen here");
    assert_eq!((&summary["failed"], &summary["levels"]), (&json!(2), &json!(4)), "{summary}");
    let failures = summary["failures"].as_array().unwrap();
    assert_eq!((&failures[0]["code"], &failures[1]["signal_name"]), (&json!(4), &json!("SIGKILL")));
}

#[test]
fn text_is_a_line_and_names() {
    let ran = sh(&[], "sleep 0.2 & sh -c 'sleep 0.1; exit 4'; wait; exit 3");
    assert_eq!(ran.code, Some(3));
    assert!(ran.stderr.starts_with("pidigree: exit code 3 after "), "{ran:?}");
    assert!(
        ran.stderr.contains("processes, ") && ran.stderr.contains(": sh -c sleep 0.1; exit 4"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("\n  longest ") && ran.stderr.contains("\n  failed "), "{ran:?}");
    assert_eq!(ran.stdout, "");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("told");
    let ran = sh(&["-o", file.to_str().unwrap()], "echo mine >&2");
    assert_eq!(ran.stderr, "mine\n");
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("pidigree: exit code 0 after "));
}

#[test]
fn every_event_is_an_object_a_line() {
    let (_, told) = told(&[], "sleep 0.1 & sleep 0.1; wait");
    assert_eq!(told[0]["event"], "started");
    assert!(told[0]["coverage"]["reason"].is_string() && told[0]["backend"].is_string(), "{}", told[0]);
    assert_eq!(told[told.len() - 2]["event"], "empty");
    let summary = summary(&told);
    let (joined, ended) = (of(&told, "joined"), of(&told, "ended"));
    assert_eq!(joined.len(), ended.len(), "{told:?}");
    assert_eq!(summary["processes"], joined.len());
    require!(summary["complete"] == true, "not every member is seen here");
    assert_eq!(joined.len(), 3, "{told:?}");
    let root = told[0]["pid"].clone();
    assert_eq!((&joined[0]["pid"], &joined[0]["parent"]), (&root, &json!(null)));
    for joined in &joined[1..] {
        assert_eq!(joined["parent"], root);
        let end = ended.iter().find(|ended| ended["token"] == joined["token"]);
        let end = end.unwrap_or_else(|| panic!("{joined} has no end"));
        assert!(end["seconds"].as_f64() >= joined["seconds"].as_f64());
        assert_eq!(end["command"], "sleep 0.1");
    }
}

#[test]
fn as_many_processes_as_the_kernel_made() {
    let folder = tempfile::tempdir().expect("a folder");
    // What make executes itself: no shell stands between.
    let targets: Vec<String> = (0..40).map(|number| format!("target{number}")).collect();
    let mut makefile = format!("all: {}\n", targets.join(" "));
    for target in &targets {
        makefile.push_str(&format!("{target}:\n\t@/bin/true {target}\n"));
    }
    std::fs::write(folder.path().join("Makefile"), makefile).expect("our own file");
    let script = format!("exec make -s -j2 -C {}", folder.path().display());
    let (code, told) = told(&[], &script);
    assert_eq!(code, Some(0));
    let summary = summary(&told);
    require!(summary["complete"] == true, "not every member is seen here");
    assert_eq!(summary["processes"], 41, "{summary}");
    assert_eq!(of(&told, "joined").len(), 41);
}

/// How many processes were made by whoever strace(1) followed: its calls of the clone family that were no threads.
#[cfg(target_os = "linux")]
fn made(log: &str) -> u64 {
    let (mut made, mut under_way) = (0, std::collections::HashMap::new());
    for line in log.lines() {
        let (caller, call) = line.split_once(' ').expect("a PID, and what it did");
        let call = call.trim_start();
        let forks = ["clone(", "clone3(", "fork(", "vfork("].iter().any(|name| call.starts_with(name));
        let is_thread = match under_way.remove(caller) {
            _ if forks => call.contains("CLONE_THREAD"),
            Some(is_thread) if call.starts_with("<... ") => is_thread,
            Some(is_thread) => {
                // A signal came meanwhile.
                under_way.insert(caller, is_thread);
                continue;
            }
            None => continue,
        };
        match call.rsplit_once(" = ").filter(|_| !call.ends_with("<unfinished ...>")) {
            Some((_, result)) => {
                made += u64::from(!is_thread && result.parse::<u32>().is_ok_and(|pid| pid > 0))
            }
            None => drop(under_way.insert(caller, is_thread)),
        }
    }
    assert!(under_way.is_empty(), "{under_way:?}");
    made
}

/// The build of a package with a build script: cargo, compilers, linkers, and threads of all of them, which are none.
#[cfg(target_os = "linux")] // strace(1) is Linux's
#[test]
fn as_many_processes_of_a_build_as_strace_has_seen() {
    let has_strace = std::process::Command::new("strace").arg("-V").stdout(Stdio::null()).status();
    require!(has_strace, "strace is not there");
    for backend in [Backend::Cgroup, Backend::ProcConnector, Backend::Subreaper] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).into_os_string().into_string().expect("a path");
        let manifest = "[package]\nname = \"real\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
        std::fs::create_dir(path("src")).expect("a folder");
        for (file, text) in [
            ("Cargo.toml", manifest),
            ("build.rs", "fn main() { std::process::Command::new(\"true\").status().unwrap(); }"),
            ("src/main.rs", "fn main() {}"),
        ] {
            std::fs::write(path(file), text).expect("our own file");
        }
        let mut strace = std::process::Command::new("strace");
        strace.args(["-f", "-qq", "-e", "trace=clone,clone3,fork,vfork", "-e", "signal=none", "-o"]);
        strace.args([&path("log"), crate::common::BINARY, "run", "--json", "-o", &path("told"), "--trace"]);
        strace.args([&path("trace"), "--backend", backend.name(), "--", env!("CARGO"), "build", "--offline"]);
        strace.args(["-j2", "--quiet"]).current_dir(folder.path());
        let output = strace.env("CARGO_TARGET_DIR", path("target")).output().expect("strace runs");
        assert!(output.status.success(), "{backend}: {output:?}");
        let told = std::fs::read_to_string(path("told")).expect("it is written");
        let told: Vec<Value> = told.lines().map(object).collect();
        let summary = summary(&told);
        require!(summary["complete"] == true, "not every member is seen here: {summary}");
        let log = std::fs::read_to_string(path("log")).expect("it is written");
        // The helper is ours, and none of the tree.
        let counted = made(&log) - u64::from(backend == Backend::Subreaper);
        assert_eq!(summary["processes"], counted, "{backend}: {summary}\n{log}");
        assert!(counted >= 8, "{backend}: cargo, its compilers and their linkers");
        let trace = std::fs::read_to_string(path("trace")).expect("it is written");
        let trace: Value = serde_json::from_str(&trace).expect("JSON");
        let events = trace["traceEvents"].as_array().expect("a list of events");
        assert_eq!(events.iter().filter(|event| event["ph"] == "X").count() as u64, counted, "{backend}");
    }
}

#[test]
fn when_the_time_is_up_all_of_it_is_ended_with_124() {
    for script in ["sleep 1000 & sleep 1000", "trap '' TERM; sleep 1000 & sleep 1000"] {
        let (code, told) = told(&["--timeout", "300ms", "-k", "200ms"], script);
        assert_eq!(code, Some(124), "{script}");
        let summary = summary(&told);
        assert_eq!(summary["timed_out"], true);
        assert_eq!(summary["left_running"], json!([]));
        for joined in of(&told, "joined") {
            assert!(!runs(&joined["token"]), "{joined}");
        }
    }
    let ran = sh(&["-q", "-t", "100ms"], "sleep 1000");
    assert_eq!(ran.code, Some(124));
    assert!(ran.stderr.starts_with("pidigree: the time was up after 100ms; still running: "), "{ran:?}");
    assert_eq!(sh(&["-q", "--timeout", "100s"], "exit 3").code, Some(3));
}

#[test]
fn kill_on_exit_ends_what_is_left() {
    let (code, told) = told(&["--kill-on-exit"], "sleep 1000 & (setsid sleep 1000 &) ; exit 3");
    assert_eq!(code, Some(3));
    for joined in of(&told, "joined") {
        assert!(!runs(&joined["token"]), "{joined}");
    }
    // Those that do not mind SIGTERM are killed.
    let ran = sh(&["-q", "--kill-on-exit", "-k", "100ms"], "trap '' TERM; sleep 1000 & exit 0");
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

/// The command while it runs, with what it tells on its standard output, and the first that is told.
fn running(options: &[&str], script: &str) -> (Running, Value) {
    let mut args = vec!["run", "--json", "-o", "/dev/stdout"];
    args.extend(options);
    args.extend(["--", "sh", "-c", script]);
    let mut running = Running::of(command(&args).process_group(0));
    let started = object(&running.line());
    assert_eq!(started["event"], "started");
    (running, started)
}

/// Reads on until this is told.
#[track_caller]
fn until(running: &mut Running, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let line = running.line();
        assert_ne!(line, "", "it was never told");
        // The command writes there, too.
        if line.starts_with('{') {
            let told = object(&line);
            if wanted(&told) {
                return told;
            }
        }
    }
}

#[test]
fn a_signal_to_pidigree_alone_is_passed_on() {
    // bash, since dash can lose a trap that comes between two waits.
    let script = "trap 'kill $!; exit 9' TERM; sleep 1000 & echo ready; wait";
    let mut running = Running::start(&["run", "-q", "--", "bash", "-c", script]);
    assert_eq!(running.line(), "ready\n");
    signal(&running, Signal::SIGTERM);
    assert_eq!(running.code(), Some(9));

    let script = "trap 'echo hup' HUP; trap 'echo usr1' USR1; trap 'kill $!; exit 9' QUIT; sleep 1000 & echo ready;\
                  while :; do wait; done";
    let mut running = Running::start(&["run", "-q", "--", "bash", "-c", script]);
    assert_eq!(running.line(), "ready\n");
    for (name, line) in [(Signal::SIGHUP, "hup\n"), (Signal::SIGUSR1, "usr1\n")] {
        signal(&running, name);
        assert_eq!(running.line(), line);
    }
    signal(&running, Signal::SIGQUIT);
    assert_eq!(running.code(), Some(9));
}

#[test]
fn one_that_no_one_catches_ends_the_command_and_not_pidigree() {
    let (mut running, started) = running(&[], "exec sleep 1000");
    signal(&running, Signal::SIGINT);
    let summary = until(&mut running, |told| told["event"] == "summary");
    assert_eq!(summary["signal_name"], "SIGINT", "{summary}");
    assert_eq!(summary["pid"], started["pid"]);
    assert_eq!(running.code(), Some(130));
}

#[test]
fn a_signal_to_the_group_ends_all_of_it() {
    // At the moment of a fork some shells lose a signal.
    let script = "sh -c 'echo ready; exec sleep 1000'; :";
    let mut running = Running::of(command(&["run", "-q", "--", "sh", "-c", script]).process_group(0));
    assert_eq!(running.line(), "ready\n");
    let group = Pid::from_raw(i32::try_from(running.child.id()).unwrap());
    nix::sys::signal::killpg(group, Signal::SIGINT).expect("our own child's group");
    assert_eq!(running.code(), Some(130));
}

#[test]
fn a_command_that_signals_its_own_group_is_not_signalled_again() {
    // A second SIGUSR1 would come before the SIGUSR2, which pidigree passes on after it.
    let script = "n=0; trap 'n=$((n+1))' USR1; trap 'kill $!; exit $n' USR2; kill -USR1 0; sleep 1000 & echo ready; while :; do wait; done";
    let mut running = Running::of(command(&["run", "-q", "--", "bash", "-c", script]).process_group(0));
    assert_eq!(running.line(), "ready\n");
    signal(&running, Signal::SIGUSR2);
    assert_eq!(running.code(), Some(1));
}

#[test]
fn what_is_left_is_asked_and_then_left_alone() {
    let (mut running, started) = running(&[], "sleep 1000 & exit 3");
    let root = started["pid"].clone();
    until(&mut running, |told| told["event"] == "ended" && told["pid"] == root);
    signal(&running, Signal::SIGTERM);
    let summary = until(&mut running, |told| told["event"] == "summary");
    assert_eq!(summary["left_running"], json!([]));
    assert_eq!(running.code(), Some(3));

    let mut stubborn = command(&["run", "--json", "-o", "/dev/stdout", "--", "sh", "-c"]);
    stubborn.arg("trap '' TERM; sleep 1000 & exit 3").stderr(Stdio::piped());
    let mut running = Running::of(&mut stubborn);
    let mut said = BufReader::new(running.child.stderr.take().expect("piped"));
    let root = object(&running.line())["pid"].clone();
    until(&mut running, |told| told["event"] == "ended" && told["pid"] == root);
    signal(&running, Signal::SIGTERM);
    let mut line = String::new();
    said.read_line(&mut line).expect("it is text");
    assert!(line.starts_with("pidigree: still running: "), "{line}");
    signal(&running, Signal::SIGTERM);
    let summary = until(&mut running, |told| told["event"] == "summary");
    let pids = summary["left_running"].as_array().unwrap();
    assert_eq!(pids.len(), 1, "{summary}");
    assert_eq!(running.code(), Some(3));
    let pid = Pid::from_raw(i32::try_from(pids[0].as_i64().unwrap()).unwrap());
    kill(pid, Signal::SIGKILL).expect("it was left running");
}

#[cfg(target_os = "linux")] // the helper is a subreaper
#[test]
fn killed_with_kill_on_exit_it_takes_the_tree_along() {
    let (mut running, started) = running(&["--kill-on-exit"], "(setsid sleep 1000 &); sleep 1000");
    assert_eq!(started["backend"], "subreaper");
    let mut tokens = vec![started["token"].as_str().unwrap().to_owned()];
    while tokens.len() < 3 {
        let sleeps = |told: &Value| told["event"] == "exec" && told["program"] == "sleep";
        let told = until(&mut running, sleeps);
        tokens.push(told["token"].as_str().unwrap().to_owned());
    }
    running.child.kill().expect("our own child");
    for token in &tokens {
        wait_for(token);
    }
}

#[test]
fn killed_without_it_the_tree_goes_on() {
    let (mut running, started) = running(&[], "exec sleep 1000");
    running.child.kill().expect("our own child");
    running.child.wait().expect("our own child");
    let token = started["token"].as_str().unwrap();
    let process = Process::reopen(&token.parse().unwrap()).expect("it goes on");
    process.signal(pidigree::Signal::KILL).expect("our own grandchild");
    wait_for(token);
}

/// The processes whose parent is this one and that have ended without being reaped.
fn zombies_of(parent: u32) -> usize {
    let table = pidigree::Snapshot::capture().expect("a table");
    let parent = pidigree::Pid::new(parent).expect("a PID");
    let children = table.children(parent).filter_map(|child| Process::open(child.pid).ok());
    children.filter(|child| child.state().is_ok_and(|state| state == pidigree::State::Zombie)).count()
}

#[test]
fn it_keeps_no_zombie_while_it_waits() {
    let (mut running, started) = running(&[], "sleep 1000 & exit 3");
    let root = started["pid"].clone();
    until(&mut running, |told| told["event"] == "ended" && told["pid"] == root);
    wait_for(started["token"].as_str().unwrap());
    let pid = running.child.id();
    pidigree_testkit::eventually("no zombie is left", || (zombies_of(pid) == 0).then_some(()));
    signal(&running, Signal::SIGTERM);
    assert_eq!(running.code(), Some(3));
}

#[test]
fn it_can_be_nested() {
    let inner = format!("{} run -q -- sh -c 'sleep 0.1 & exit 5'", crate::common::BINARY);
    let (code, told) = told(&[], &inner);
    assert_eq!(code, Some(5));
    assert!(summary(&told)["processes"].as_u64().unwrap() >= 3);
}

#[cfg(target_os = "linux")] // where /proc says it
#[test]
fn signals_that_were_ignored_stay_so_and_none_is_blocked() {
    let masks = |command: &str| {
        let mut shell = std::process::Command::new("sh");
        let script = format!("trap '' HUP; exec {command} cat /proc/self/status");
        let ran: Ran = shell.args(["-c", &script]).output().expect("sh runs").into();
        ["SigBlk:", "SigIgn:"].map(|name| {
            let mask = ran.stdout.lines().find_map(|line| line.strip_prefix(name));
            let mask = u64::from_str_radix(mask.expect("a line").trim(), 16).expect("a mask");
            // Without those above 31, two of which the threads of the C library use.
            mask & 0x7fff_ffff
        })
    };
    let plain = masks("");
    assert_eq!((plain[0], plain[1] & 1), (0, 1));
    assert_eq!(masks(&format!("{} run -q --", crate::common::BINARY)), plain);
}
