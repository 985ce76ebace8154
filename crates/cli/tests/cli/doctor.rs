//! `pidigree doctor`

use crate::common::{pidigree, pidigree_in};
use pidigree::{Backend, Grade};
use pidigree_testkit::require;

#[test]
fn json_has_every_question_and_the_facts() {
    let here = pidigree::capabilities().unwrap();
    let ran = pidigree(&["doctor", "--json"]);
    let unavailable = here.iter().any(|answer| answer.grade == Grade::Unavailable);
    assert_eq!(ran.code, Some(i32::from(unavailable)), "{ran:?}");
    let (facts, told): (Vec<_>, Vec<_>) =
        ran.json().into_iter().partition(|object| object.get("fact").is_some());
    let (trees, answers): (Vec<_>, Vec<_>) =
        told.into_iter().partition(|object| object.get("tree").is_some());
    assert_eq!(answers.len(), here.iter().len());
    for (answer, told) in here.iter().zip(&answers) {
        assert_eq!(told["question"], answer.question);
        assert_eq!(told["grade"], answer.grade.to_string().replace(' ', "-"));
        assert_eq!(told["reason"], answer.reason);
    }
    assert_eq!(trees.len(), Backend::ALL.len());
    for (backend, told) in Backend::ALL.iter().zip(&trees) {
        assert_eq!(told["tree"], backend.name());
        assert!(told["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{told}");
        assert_eq!(told["works"] == true, told["emptiness"].is_string(), "{told}");
        // It needs nothing but /proc, or nothing at all.
        let is_everywhere =
            *backend == if cfg!(target_os = "macos") { Backend::Kqueue } else { Backend::Poll };
        assert!(!is_everywhere || told["works"] == true, "{told}");
    }
    for fact in ["pidigree", "kernel", "backend", "boot", "pid-namespace", "user", "open-files", "processes"]
    {
        let told = facts.iter().find(|told| told["fact"] == fact);
        assert!(told.is_some_and(|told| told["value"].is_string()), "{fact}: {facts:?}");
    }
}

#[test]
fn text_is_a_table() {
    let ran = pidigree(&["doctor"]);
    for word in
        ["QUESTION", "identity", "ancestry", "exit-status", "kernel", "open-files", "TREE", "proc-connector"]
    {
        assert!(ran.stdout.lines().any(|line| line.starts_with(word)), "{word}: {}", ran.stdout);
    }
}

#[test]
fn what_a_sandbox_takes_away_is_unavailable() {
    let ran = pidigree_in(&["deny", "ENOSYS", "pidfd_open,pidfd_send_signal"], &["doctor", "--json"]);
    require!(ran.code != Some(125), "no seccomp: {}", ran.stderr);
    let told = ran.ended_with(1).json();
    let signal = told.iter().find(|told| told["question"] == "signal");
    assert_eq!(signal.unwrap()["grade"], "unavailable");
    let exit = told.iter().find(|told| told["question"] == "exit");
    assert_eq!(exit.unwrap()["grade"], "best-effort");
    let backend = told.iter().find(|told| told["fact"] == "backend");
    assert_eq!(backend.unwrap()["value"], "procfs");
}
