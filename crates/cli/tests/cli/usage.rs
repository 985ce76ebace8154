//! What holds for every command: help, manual pages, bad input, and readers that leave.

use crate::common::{NOBODY, Ran, command, idle, pidigree};
use pidigree_testkit::Family;

const COMMANDS: [&str; 12] = [
    "tree",
    "ancestors",
    "is-descendant",
    "id",
    "alive",
    "wait",
    "watch",
    "kill",
    "run",
    "doctor",
    "completions",
    "man",
];

#[test]
fn every_help_teaches() {
    let all = pidigree(&["--help"]).ended_with(0).stdout;
    for name in COMMANDS {
        assert!(all.contains(&format!("  {name}")), "{name} is missing: {all}");
        let help = pidigree(&[name, "--help"]).ended_with(0).stdout;
        assert!(help.contains("\nExit codes:\n  0"), "{help}");
        let (_, examples) = help.split_once("\nExamples:\n").unwrap_or_else(|| panic!("{help}"));
        assert!(examples.matches("  $ ").count() >= 2, "{help}");
        assert!(pidigree(&[name, "-h"]).ended_with(0).stdout.len() < help.len());
    }
    assert_eq!(pidigree(&["-V"]).ended_with(0).stdout, concat!("pidigree ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn manual_pages_and_completions_are_whole() {
    let page = pidigree(&["man"]).ended_with(0).stdout;
    assert!(page.contains(".TH pidigree 1"), "{page}");
    let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("pidigree-man-XXXXXX")).expect("a folder");
    let inner = folder.join("man1");
    pidigree(&["man", "--out", inner.to_str().unwrap()]).ended_with(0);
    let pages: Vec<bool> =
        COMMANDS.iter().map(|name| inner.join(format!("pidigree-{name}.1")).is_file()).collect();
    let written = inner.join("pidigree.1").is_file();
    std::fs::remove_dir_all(&folder).expect("our own folder");
    assert!(written);
    assert_eq!(pages, [true; COMMANDS.len()]);
    pidigree(&["man", "--out", "/proc/none"]).failed_naming("/proc/none");

    for shell in ["bash", "zsh", "fish"] {
        let script = pidigree(&["completions", shell]).ended_with(0).stdout;
        for name in COMMANDS {
            assert!(script.contains(name), "{shell} does not complete {name}");
        }
    }
    pidigree(&["completions", "tcl"]).failed_naming("tcl");
}

/// Each way to name one process, with the rest of a sound command line.
fn with(name: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["tree", name],
        vec!["tree", "--json", name],
        vec!["ancestors", name],
        vec!["is-descendant", name, "1"],
        vec!["is-descendant", "1", name],
        vec!["id", name],
        vec!["wait", name],
        vec!["wait", name, "--json", "--timeout", "1s"],
        vec!["watch", name],
        vec!["wait", "--tree", name],
        vec!["watch", "--tree", name],
        vec!["kill", "--tree", "-s", "CONT", name],
        vec!["kill", "-s", "CONT", name],
    ]
}

#[test]
fn bad_input_is_named_in_one_line() {
    for bad in
        ["0", "-1", "-7", "99999999999", "2147483648", "1.5", "+5", "05", "abc", "", "p1:", "5 ", "é\n"]
    {
        for line in with(bad) {
            let ran = pidigree(&line);
            let escaped = format!("{bad:?}");
            assert!(ran.stderr.contains(&escaped), "{line:?}: {ran:?}");
            ran.failed_naming("");
        }
    }
}

#[test]
fn who_does_not_exist_is_named_in_one_line() {
    for line in with(NOBODY) {
        pidigree(&line).failed_naming(NOBODY);
    }
}

#[test]
fn a_thread_is_not_a_process_and_its_owner_is_named() {
    let family = Family::spawn("thread [ say thread pause ] say root pause");
    let thread = family.fact("thread");
    for line in with(&thread.tid.to_string()) {
        pidigree(&line).failed_naming(&thread.tid.to_string()).failed_naming(&thread.pid.to_string());
    }
}

#[test]
fn mistakes_are_one_line() {
    for (line, word) in [
        (vec!["tre"], "tree"),
        (vec!["tree", "--nonsense"], "--nonsense"),
        (vec!["tree", "1", "2"], "2"),
        (vec!["wait"], "PID"),
        (vec!["is-descendant", "1"], "ROOT"),
        (vec!["wait", "--timeout", "soon", "1"], "soon"),
        (vec!["wait", "--timeout", "-5", "1"], "-5"),
        (vec!["kill", "--timeout", "5s", "1"], "--wait"),
        (vec!["tree", "--follow"], "PID"),
        (vec!["alive", "--json", "--quiet", "p1:1"], "--quiet"),
    ] {
        pidigree(&line).failed_naming(word);
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let (_family, pid) = idle();
    let token = crate::common::token(&pid);
    for line in [
        vec!["tree"],
        vec!["tree", "--json"],
        vec!["ancestors", &pid],
        vec!["is-descendant", &pid, "1"],
        vec!["id", &pid],
        vec!["alive", &token],
        vec!["watch", &pid],
        vec!["doctor"],
        vec!["man"],
        vec!["completions", "bash"],
        vec!["--help"],
        vec!["--version"],
    ] {
        let (reader, writer) = nix::unistd::pipe().expect("a pipe");
        drop(reader);
        let ran: Ran = command(&line).stdout(writer).output().expect("the command runs").into();
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(141), ""), "{line:?}");
    }
}

#[test]
fn a_full_disk_is_an_error() {
    for line in [vec!["tree"], vec!["doctor"], vec!["id", "1"], vec!["man"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
        let ran: Ran = command(&line).stdout(full).output().expect("the command runs").into();
        ran.failed_naming("standard output");
    }
}
