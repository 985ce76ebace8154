//! Callers of every kind: of another PID namespace, killed while they ask, many at once.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use pidigree::Process;
use pidigree_testkit::{binary, eventually, is_root, require, rounds};

use crate::common::{Place, again, alone, words};

/// In a PID namespace of its own: mounts, shows itself a view, says where, and waits for the end of its input.
#[test]
fn foreign_server() {
    if words().is_none() {
        return;
    }
    let place = Place::new();
    let layer = place.layer("layer", &[("file", "x")]);
    place.add(&Process::current().unwrap(), &layer);
    println!("\nmounted {}", place.link().display());
    let _ = std::io::stdin().read(&mut [0]);
}

/// FUSE has no number for whoever is outside of the PID namespace of the mount: it says 0.
#[test]
fn a_caller_from_outside_of_the_pid_namespace_gets_the_default_view() {
    require!(is_root(), "needs root to mount");
    let server = again("callers::foreign_server", &["here".as_ref()]);
    let mut command = Command::new(binary());
    command.args(["in-ns", "pid,mount", "--"]).arg(server.get_program()).args(server.get_args());
    command.envs(server.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let link = lines.find_map(|line| line.unwrap().strip_prefix("mounted ").map(str::to_owned)).unwrap();
    // Into its mounts, but not into its PIDs
    let world = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    let below = Process::from_child(&child).unwrap().descendants().unwrap();
    let inside =
        below.iter().map(|process| process.pid().to_string()).find(|pid| world(pid) != world("self"));
    let inside = inside.expect("the server is in a world of its own");
    let output =
        Command::new("nsenter").args(["--target", &inside, "--mount", "readlink", "-v", &link]).output();
    let output = output.expect("nsenter");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "views/default\n", "{output:?}");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn callers_that_are_killed_while_they_ask_hurt_nobody() {
    require!(is_root(), "needs root to mount");
    if words().is_none() {
        // In a process of its own: others open files meanwhile
        alone("callers::callers_that_are_killed_while_they_ask_hurt_nobody");
        return;
    }
    let place = Place::new();
    let layer = place.layer("layer", &[("a/file", &"text\n".repeat(50_000)), ("a/b/c/d", "x")]);
    place.add(&Process::current().unwrap(), &layer);
    let read = format!("exec tar -c '{0}/.' '{0}/a/b' >/dev/null 2>&1", place.link().display());
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    assert_eq!(fs::read_to_string(place.link().join("a/b/c/d")).unwrap(), "x");
    let before = open();
    for _ in 0..rounds(200) {
        let mut readers: Vec<_> =
            (0..3).map(|_| Command::new("sh").args(["-c", &read]).spawn().unwrap()).collect();
        for reader in &mut readers {
            reader.kill().unwrap();
        }
        for reader in &mut readers {
            reader.wait().unwrap();
        }
    }
    assert_eq!(fs::read_to_string(place.link().join("a/b/c/d")).unwrap(), "x");
    // What they had open is closed, and the router lets go of who has ended when others come
    eventually("the files of the killed are closed", || (open() <= before + 3 * 64).then_some(()));
}
