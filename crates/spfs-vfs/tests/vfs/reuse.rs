//! Trap 6, through the mount: who has the PID of a process that had a view gets the default view.
//!
//! In a PID namespace, where a PID can be chosen. FUSE names callers in the namespace of whoever mounted, so that is done there,
//! too.

use std::fs;
use std::path::Path;
use std::process::Command;

use pidigree_testkit::{is_root, require, rounds, stage};

use crate::common::{Place, Shell};

const DEFAULT: &str = "views/default";

/// The next process gets this PID, if no other comes first.
fn choose(pid: u32) {
    fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
}

/// Where the link leads a stranger who has this PID.
fn route_of(pid: u32, link: &Path) -> String {
    for _ in 0..64 {
        choose(pid);
        let child = Command::new("readlink")
            .arg("-v")
            .arg(link)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let had = child.id();
        let output = child.wait_with_output().unwrap();
        if had == pid {
            assert!(output.status.success(), "{output:?}");
            return String::from_utf8(output.stdout).unwrap().trim_end().to_owned();
        }
    }
    panic!("the PID {pid} cannot be had");
}

/// Where the link leads a member of the shell's tree who has this PID.
fn member_route(shell: &mut Shell, pid: u32, link: &Path) -> String {
    for _ in 0..64 {
        let set = format!("echo {} >/proc/sys/kernel/ns_last_pid", pid - 1);
        shell.say(&format!("{set}; readlink -v '{}' & echo pid $!; wait", link.display()));
        let (mut had, mut route) = (None, None);
        while had.is_none() || route.is_none() {
            let line = shell.hear();
            match line.strip_prefix("pid ") {
                Some(number) => had = Some(number.parse::<u32>().unwrap()),
                None => route = Some(line),
            }
        }
        if had == Some(pid) {
            return route.expect("it was heard");
        }
    }
    panic!("a member cannot have the PID {pid}");
}

#[test]
fn a_reused_pid_of_a_root_or_a_member_gets_the_default_view() {
    require!(is_root(), "needs root to mount");
    stage("reuse::a_reused_pid_of_a_root_or_a_member_gets_the_default_view", &["in-ns", "pid,mount"], || {
        let place = Place::new();
        let layer = place.layer("layer", &[("file", "x")]);
        let link = place.link();
        for round in 0..rounds(30) {
            let mut shell = Shell::new();
            let root = shell.pid();
            let id = place.add(&shell.process(), &layer);
            let view = format!("views/{id}");
            // One PID in turn by members and strangers, each of whom the router remembers
            assert_eq!(member_route(&mut shell, 7000, &link), view, "round {round}");
            assert_eq!(route_of(7000, &link), DEFAULT, "round {round}: the PID of a member");
            assert_eq!(member_route(&mut shell, 7000, &link), view, "round {round}: the PID of a stranger");
            assert_eq!(route_of(7000, &link), DEFAULT, "round {round}: again");
            // The root ended, and the route has not left yet
            shell.kill();
            assert_eq!(route_of(root, &link), DEFAULT, "round {round}: the PID of a root");
            assert_eq!(place.emptied().id, id);
            assert_eq!(route_of(root, &link), DEFAULT, "round {round}: the PID of a root that is forgotten");
        }
    });
}
