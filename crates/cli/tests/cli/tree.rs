//! `pidigree tree`

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;

use crate::common::{command, idle, kernel_thread, pidigree, pidigree_in, token_of_the_dead, zombie};
use pidigree_testkit::{Family, is_root, require};
use serde_json::{Value, json};

const FAMILY: &str = "fork [ fork [ say leaf pause ] say one pause ] fork [ say two pause ] say root pause";

#[test]
fn json_is_one_object_a_process_parents_first() {
    let family = Family::spawn(FAMILY);
    let pid = |name| json!(family.fact(name).pid);
    let root = pid("root").to_string();
    let _ = (pid("one"), pid("leaf"), pid("two"));

    let rows = pidigree(&["tree", "--json", &root]).ended_with(0).json();
    let place: Vec<(Value, Value, Value)> =
        rows.iter().map(|row| (row["pid"].clone(), row["parent"].clone(), row["depth"].clone())).collect();
    let mut kids = [
        vec![(pid("one"), pid("root"), json!(1)), (pid("leaf"), pid("one"), json!(2))],
        vec![(pid("two"), pid("root"), json!(1))],
    ];
    // Siblings come by their PIDs, and those may have wrapped.
    kids.sort_by_key(|kid| kid[0].0.as_u64());
    let mut expected = vec![(pid("root"), json!(std::process::id()), json!(0))];
    expected.extend(kids.concat());
    assert_eq!(place, expected);

    for row in &rows {
        let keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        let all =
            ["pid", "parent", "depth", "state", "user", "uid", "age_seconds", "kernel", "command", "token"];
        assert_eq!(HashSet::<&str>::from_iter(keys), HashSet::from(all));
        assert_eq!(row["state"], "running");
        assert_eq!(row["uid"], nix::unistd::geteuid().as_raw());
        assert_eq!(row["kernel"], false);
        assert!(row["age_seconds"].as_f64().is_some_and(|age| (0.0..600.0).contains(&age)), "{row}");
        assert!(row["command"].as_str().unwrap().contains("pidigree-testkit fork ["), "{row}");
        pidigree(&["alive", row["token"].as_str().unwrap()]).ended_with(0);
    }
}

#[test]
fn text_connects_children_to_their_parents() {
    let family = Family::spawn("fork [ fork [ say leaf pause ] say kid pause ] say root pause");
    let pids = ["root", "kid", "leaf"].map(|name| family.fact(name).pid.to_string());
    let drawn = pidigree(&["tree", &pids[0]]).ended_with(0).stdout;
    let lines: Vec<&str> = drawn.lines().collect();
    assert_eq!(lines.len(), 4, "{drawn}");
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["PID", "USER", "AGE", "COMMAND"]);
    let column = lines[0].find("COMMAND").unwrap();
    for (line, (pid, branch)) in lines[1..].iter().zip(pids.iter().zip(["", "└─ ", "   └─ "])) {
        assert_eq!(line.split_whitespace().next(), Some(pid.as_str()), "{drawn}");
        let command = line[column..].strip_prefix(branch).unwrap_or_else(|| panic!("{drawn}"));
        assert!(command.starts_with('/'), "{drawn}");
    }
    assert!(!drawn.contains('\x1b'), "colours are for terminals");
}

#[test]
fn a_token_is_a_root_too() {
    let (_family, pid) = idle();
    let rows = pidigree(&["tree", "--json", &crate::common::token(&pid)]).ended_with(0).json();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["pid"].to_string(), pid);
    pidigree(&["tree", &token_of_the_dead()]).failed_naming("is gone");
}

#[test]
fn every_process_is_there_once() {
    let (_family, pid) = idle();
    let rows = pidigree(&["tree", "--json"]).ended_with(0).json();
    let mut met = HashSet::new();
    for row in &rows {
        assert!(met.insert(row["pid"].as_u64()), "{row} is there twice");
        let parent_is_above =
            row["parent"].is_null() || row["depth"] == 0 || met.contains(&row["parent"].as_u64());
        assert!(parent_is_above, "{row} comes before its parent");
    }
    assert!(met.contains(&pid.parse().ok()), "{pid} is missing");
    assert!(met.contains(&Some(u64::from(std::process::id()))));
}

#[test]
fn kernel_threads_are_counted_unless_asked_for() {
    let thread = kernel_thread();
    require!(thread, "no kernel thread can be seen from here");
    let thread = thread.unwrap();
    let pids = |args: &[&str]| -> HashSet<String> {
        let rows = pidigree(args).ended_with(0).json();
        rows.iter().map(|row| row["pid"].to_string()).collect()
    };
    assert!(!pids(&["tree", "--json"]).contains(&thread));
    assert!(pids(&["tree", "--json", "--kernel"]).contains(&thread));
    assert!(pids(&["tree", "--json", &thread]).contains(&thread), "asked for by its PID");

    let drawn = pidigree(&["tree"]).ended_with(0).stdout;
    assert!(drawn.contains("not shown; --kernel shows them)"), "{drawn}");
    let drawn = pidigree(&["tree", "-k"]).ended_with(0).stdout;
    assert!(!drawn.contains("not shown"), "{drawn}");
}

#[test]
fn a_zombie_is_called_one() {
    let (_family, pid) = zombie(3);
    let rows = pidigree(&["tree", "--json", &pid]).ended_with(0).json();
    assert_eq!(rows[0]["state"], "zombie");
    let drawn = pidigree(&["tree", &pid]).ended_with(0).stdout;
    assert!(drawn.contains("[pidigree-testki] (zombie)"), "{drawn}");
}

#[test]
fn a_hostile_name_cannot_move_the_cursor() {
    // A zombie has no arguments, only its name.
    let family = Family::spawn(r"fork [ name a)\sR\n\x1b[31m\xff say zombie exit 0 ] say root pause");
    let pid = family.fact("zombie").pid;
    family.wait_ended(pid);
    let drawn = pidigree(&["tree", &pid.to_string()]).ended_with(0).stdout;
    assert!(drawn.contains(r"[a) R\n\u{1b}[31m"), "{drawn}");
    assert_eq!(drawn.lines().count(), 2, "{drawn}");
    let rows = pidigree(&["tree", "--json", &pid.to_string()]).ended_with(0).json();
    assert!(rows[0]["command"].as_str().unwrap().starts_with("[a) R\n\x1b[31m"), "{rows:?}");
}

#[test]
fn lines_fit_the_terminal_and_colours_obey_no_color() {
    let family = Family::spawn(FAMILY);
    let root = family.fact("root").pid.to_string();
    let _ = ["one", "two", "leaf"].map(|name| family.fact(name));
    for (no_color, width) in [(false, 40), (true, 40), (true, 12)] {
        let shown = on_a_terminal(&["tree", &root], width, no_color);
        assert_eq!(shown.contains('\x1b'), !no_color, "{shown:?}");
        if no_color {
            let widths: Vec<usize> = shown.lines().map(|line| line.chars().count()).collect();
            assert_eq!(widths.len(), 5, "{shown}");
            // Commands are cut, columns before them are not.
            let widest = usize::from(width).max(1 + root.len() + 30);
            assert!(widths.iter().all(|&columns| columns <= widest), "{shown}");
            assert!(width < 40 || widths.iter().all(|&columns| columns <= 40), "{shown}");
        }
    }
}

fn on_a_terminal(args: &[&str], width: u16, no_color: bool) -> String {
    let size = nix::pty::Winsize { ws_row: 24, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(&size, None).expect("a terminal");
    let mut command = command(args);
    command.env("TERM", "xterm").env_remove("NO_COLOR");
    if no_color {
        command.env("NO_COLOR", "1");
    }
    let mut child = command.stdout(pty.slave).spawn().expect("the command runs");
    // It holds the slave.
    drop(command);
    let mut shown = Vec::new();
    // The end of a terminal is EIO.
    let _ = File::from(pty.master).read_to_end(&mut shown);
    assert!(child.wait().expect("a child can be waited for").success());
    String::from_utf8(shown).expect("text")
}

#[test]
fn hidden_processes_are_left_out_and_said_to_be_hidden() {
    require!(is_root(), "needs root");
    let nobody = ["in-ns", "mount", "--hidepid", "2", "--uid", "65534"];
    let all = pidigree_in(&nobody, &["tree", "--json"]);
    require!(all.code != Some(125), "no mount namespace: {}", all.stderr);
    let all = all.ended_with(0).json();
    assert!(!all.is_empty());
    assert!(all.iter().all(|row| row["uid"] == 65534), "{all:?}");
    pidigree_in(&nobody, &["tree", "1"]).failed_naming("process 1");
}
