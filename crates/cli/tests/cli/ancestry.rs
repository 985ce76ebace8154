//! `pidigree ancestors` and `pidigree is-descendant`

use crate::common::{NOBODY, idle, pidigree, pidigree_in, token, token_of_the_dead};
use pidigree_testkit::{Family, is_root, require};

#[test]
fn ancestors_come_nearest_first() {
    let family = Family::spawn("fork [ fork [ say leaf pause ] say kid pause ] say root pause");
    let pids = ["kid", "root"].map(|name| family.fact(name).pid.to_string());
    let leaf = family.fact("leaf").pid.to_string();

    let rows = pidigree(&["ancestors", "--json", &leaf]).ended_with(0).json();
    let listed: Vec<String> = rows.iter().map(|row| row["pid"].to_string()).collect();
    assert_eq!(listed[..2], pids);
    assert_eq!(listed[2], std::process::id().to_string());
    for (row, depth) in rows.iter().zip(1..) {
        assert_eq!(row["depth"], depth);
    }
    for pair in rows.windows(2) {
        assert_eq!(pair[0]["parent"], pair[1]["pid"]);
    }
    assert!(rows.last().unwrap()["parent"].is_null());

    let text = pidigree(&["ancestors", &leaf]).ended_with(0).stdout;
    let first: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(first[0], "PID");
    assert_eq!(first[1..], listed);
}

#[test]
fn the_top_has_no_ancestors() {
    let ran = pidigree(&["ancestors", "1"]).ended_with(0);
    assert!(ran.stdout.contains("process 1 is at the top"), "{ran:?}");
    assert_eq!(pidigree(&["ancestors", "--json", "1"]).ended_with(0).stdout, "");
}

#[test]
fn descent_is_the_exit_code() {
    let family = Family::spawn("fork [ say kid pause ] say root pause");
    let (root, kid) = (family.fact("root").pid.to_string(), family.fact("kid").pid.to_string());
    let yes = pidigree(&["is-descendant", &kid, &root]).ended_with(0);
    assert_eq!(yes.stdout, format!("yes: {kid} descends from {root}\n"));
    let no = pidigree(&["is-descendant", &root, &kid]).ended_with(1);
    assert_eq!(no.stdout, format!("no: {root} does not descend from {kid}\n"));
    let itself = pidigree(&["is-descendant", &kid, &kid]).ended_with(1);
    assert_eq!(itself.stdout, format!("no: {kid} does not descend from itself\n"));

    assert_eq!(pidigree(&["is-descendant", "--quiet", &kid, &root]).ended_with(0).stdout, "");
    assert_eq!(pidigree(&["is-descendant", "-q", &root, &kid]).ended_with(1).stdout, "");
    pidigree(&["is-descendant", &token(&kid), &token(&root)]).ended_with(0);
}

#[test]
fn an_orphan_descends_from_the_leader_of_its_session() {
    let family =
        Family::spawn("setsid fork [ fork [ orphaned say orphan pause ] exit 0 ] reap say root pause");
    let (root, orphan) = (family.fact("root").pid.to_string(), family.fact("orphan").pid.to_string());
    pidigree(&["is-descendant", &orphan, &root]).ended_with(0);
    let above = pidigree(&["ancestors", "--json", &orphan]).ended_with(0).json();
    assert!(above.iter().all(|row| row["pid"].as_u64() != root.parse().ok()), "{above:?}");
}

#[test]
fn without_a_process_there_is_no_answer() {
    let (_family, pid) = idle();
    pidigree(&["is-descendant", &pid, NOBODY]).failed_naming(NOBODY);
    pidigree(&["is-descendant", NOBODY, &pid]).failed_naming(NOBODY);
    pidigree(&["ancestors", NOBODY]).failed_naming(NOBODY);
    let dead = token_of_the_dead();
    let pid_of_the_dead = dead.split(':').nth(1).unwrap();
    pidigree(&["ancestors", &dead]).failed_naming(pid_of_the_dead);
}

#[test]
fn hidden_ancestors_are_listed_or_said_to_be_denied() {
    require!(is_root(), "needs root");
    let nobody = ["in-ns", "mount", "--hidepid", "2", "--uid", "65534"];
    let ran = pidigree_in(&nobody, &["is-descendant", &std::process::id().to_string(), "1"]);
    require!(ran.code != Some(125), "no mount namespace: {}", ran.stderr);
    // PIDFD_GET_INFO does not care for hidepid; /proc does, and says so.
    match ran.code {
        Some(0) => assert!(ran.stdout.starts_with("yes: "), "{ran:?}"),
        _ => assert!(ran.failed_naming("process").stderr.contains("hidepid")),
    }
}
