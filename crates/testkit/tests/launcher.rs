//! Every mode makes the world it promises, and mirrors the status of its command.

use std::fs;
use std::process::{Command, Output};

use pidigree_testkit::{Family, binary, is_root, require, stage};

fn run(words: &[&str]) -> Output {
    Command::new(binary()).args(words).output().expect("the binary runs")
}

fn sh(words: &[&str], script: &str) -> (Option<i32>, String) {
    let output = run(&[words, &["--", "sh", "-c", script]].concat());
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).trim().to_owned())
}

fn namespaces_work() -> bool {
    sh(&["in-ns", "pid,mount"], "true").0 == Some(0)
}

#[test]
fn the_status_of_the_command_is_mirrored() {
    require!(namespaces_work(), "needs PID and mount namespaces");
    for mode in
        [&["in-ns", "pid,mount"][..], &["in-ns", "net"], &["nofile", "64", "64"], &["deny", "EPERM", "kcmp"]]
    {
        assert_eq!(sh(mode, "exit 7").0, Some(7), "{mode:?}");
        assert_eq!(run(&[mode, &["--", "/nonexistent"]].concat()).status.code(), Some(127), "{mode:?}");
        assert_eq!(run(&[mode, &["--", "/dev/null"]].concat()).status.code(), Some(126), "{mode:?}");
    }
    assert_eq!(sh(&["in-ns", "pid,mount"], "kill -9 $$").0, Some(128 + 9));
}

#[test]
fn what_cannot_be_made_is_125() {
    for words in [
        &["in-ns", "moon"][..],
        &["in-ns", "pid"],
        &["in-ns", "pid,mount", "--pid-max"],
        &["in-ns", "pid,mount", "--time-offset", "5"],
        &["in-ns", "pid,mount", "--colour"],
        &["deny", "EWHAT", "kcmp"],
        &["deny", "EPERM", "no_such_call"],
        &["nofile", "9"],
        &["nofile", "9", "8"],
    ] {
        let (code, text) = sh(words, "true");
        assert_eq!(code, Some(125), "{words:?}");
        assert!(text.starts_with(&format!("pidigree-testkit: {}: ", words[0])), "{words:?}: {text}");
    }
    assert_eq!(run(&["deny", "EPERM", "kcmp"]).status.code(), Some(125));
}

#[test]
fn a_pid_namespace_has_our_init_and_its_own_proc() {
    require!(namespaces_work(), "needs PID and mount namespaces");
    let (code, text) =
        sh(&["in-ns", "pid,mount"], "echo $$ $(cat /proc/1/comm) $PPID; ls /proc | grep -c '^[0-9]'");
    assert_eq!(code, Some(0));
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words[1..3], ["pidigree-testki", "1"]);
    assert!(words[0].parse::<u32>().expect("a PID") < 10, "{text}");
    assert!(words[3].parse::<u32>().expect("a count") < 10, "{text}");
}

#[test]
fn the_init_reaps_and_what_is_left_ends_with_the_command() {
    require!(namespaces_work(), "needs PID and mount namespaces");
    let family = Family::builder().launcher(&["in-ns", "pid,mount"]).spawn(
        "fork [ fork [ orphaned say orphan await ] say parent ] reap double-fork [ say daemon pause ] say root await",
    );
    let (orphan, root) = (family.fact("orphan"), family.fact("root"));
    assert_eq!((orphan.ppid, family.fact("daemon").ppid, root.ppid), (1, 1, 1));
    // Their PIDs mean others here, their pidfds do not
    family.poke(orphan.pid);
    family.wait_gone(orphan.pid);
    drop(family);
    // This command leaves something behind that knows no lifeline
    let (code, text) = sh(&["in-ns", "pid,mount"], "sleep 1000 >/dev/null 2>&1 & exit 4");
    assert_eq!((code, text.as_str()), (Some(4), ""));
}

#[test]
fn the_namespace_ends_with_the_launcher() {
    require!(namespaces_work(), "needs PID and mount namespaces");
    let mut family = Family::builder().launcher(&["in-ns", "pid,mount"]).spawn("say root pause");
    let _ = family.fact("root");
    family.child().kill().expect("a child can be killed");
    family.wait_all();
}

#[test]
fn pid_max_is_the_namespaces_own() {
    require!(namespaces_work(), "needs PID and mount namespaces");
    let outer = fs::read_to_string("/proc/sys/kernel/pid_max").expect("pid_max");
    let (code, text) = sh(&["in-ns", "pid,mount", "--pid-max", "400"], "cat /proc/sys/kernel/pid_max");
    require!(code == Some(0), "{text}");
    assert_eq!(text, "400");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/pid_max").expect("pid_max"), outer);
    let family = Family::builder()
        .launcher(&["in-ns", "pid,mount", "--pid-max", "400"])
        .spawn("fork [ storm 1000 say calm fork [ say kid pause ] pause ] pause");
    assert!(family.fact("kid").pid < 400);
}

#[cfg(target_os = "linux")] // macOS has no namespaces
#[test]
fn a_time_namespace_shifts_the_clock() {
    require!(is_root(), "needs root");
    let uptime =
        |text: &str| text.split('.').next().and_then(|whole| whole.parse::<u64>().ok()).expect("an uptime");
    let outer = uptime(&fs::read_to_string("/proc/uptime").expect("/proc/uptime"));
    let (code, text) = sh(&["in-ns", "time", "--time-offset", "1000000"], "cat /proc/uptime");
    require!(code == Some(0), "{text}");
    assert!(uptime(&text) >= outer + 1_000_000, "{text}");
}

#[test]
fn hidepid_hides_from_another_user() {
    require!(is_root() && namespaces_work(), "needs root, PID and mount namespaces");
    let listing = "id -u; ls /proc | grep -c '^[0-9]'; test -e /proc/1 && echo seen || echo hidden";
    let hidden = sh(&["in-ns", "pid,mount", "--hidepid", "2", "--uid", "65534"], listing).1;
    assert!(hidden.starts_with("65534\n") && hidden.ends_with("hidden"), "{hidden}");
    let plain = sh(&["in-ns", "pid,mount", "--uid", "65534"], listing).1;
    assert!(plain.ends_with("seen"), "{plain}");
    // And over our own processes, without a PID namespace
    let (_, outer) = sh(&["in-ns", "mount", "--hidepid", "2", "--uid", "65534"], listing);
    assert!(outer.ends_with("hidden"), "{outer}");
}

#[test]
fn proc_can_be_the_outer_one_or_empty() {
    require!(namespaces_work(), "needs PID and mount namespaces");
    let (_, inner) = sh(&["in-ns", "pid,mount", "--no-proc"], "echo $$ $(readlink /proc/self)");
    let words: Vec<&str> = inner.split_whitespace().collect();
    // The outer /proc knows no PID of this namespace as `self`, or another number
    assert_ne!(words.first(), words.get(1), "{inner}");
    assert_eq!(sh(&["in-ns", "pid,mount", "--empty-proc"], "ls -A /proc"), (Some(0), String::new()));
    // Scripts go on without /proc, exec too
    let family = Family::builder()
        .launcher(&["in-ns", "mount", "--empty-proc"])
        .spawn("fork [ exec [ say new await say poked pause ] ] pause");
    let new = family.fact("new").pid;
    family.poke(new);
    let _ = family.fact("poked");
}

#[test]
fn user_namespaces_hold_the_same_users_for_root() {
    let (code, text) = sh(&["in-ns", "user,pid,mount"], "id -u; readlink /proc/self/ns/user");
    require!(code == Some(0), "needs user namespaces: {text}");
    let outer = fs::read_link("/proc/self/ns/user").expect("a user namespace");
    assert!(text.starts_with('0') && !text.ends_with(outer.to_str().expect("text")), "{text}");
    require!(is_root(), "needs root");
    assert_eq!(sh(&["in-ns", "user,pid,mount", "--uid", "65534"], "id -u").1, "65534");
}

#[test]
fn a_net_namespace_is_empty() {
    let (code, text) = sh(&["in-ns", "net"], "tail -n +3 /proc/net/dev | grep -v lo: | wc -l");
    require!(code == Some(0), "needs network namespaces: {text}");
    let device_count: u32 = text.parse().expect("a count");
    let outer = fs::read_to_string("/proc/net/dev").expect("/proc/net/dev").lines().count();
    assert!(device_count == 0 || (device_count as usize) < outer, "{text}");
}

#[test]
fn nofile_limits() {
    assert_eq!(sh(&["nofile", "77", "88"], "ulimit -Sn; ulimit -Hn").1, "77\n88");
}

#[test]
fn modes_nest() {
    require!(namespaces_work(), "needs PID and mount namespaces");
    let words = ["in-ns", "pid,mount", "--", "deny", "ENOSYS", "kcmp", "--", "nofile", "50", "60"];
    assert_eq!(sh(&words, "ulimit -Sn; grep Seccomp: /proc/self/status").1, "50\nSeccomp:\t2");
}

#[test]
fn a_family_under_a_launcher_keeps_its_members() {
    let family = Family::builder()
        .launcher(&["nofile", "100", "100"])
        .spawn("fork [ say kid await say b pause ] pause");
    let kid = family.fact("kid").pid;
    family.poke(kid);
    let member = family.fact("b").pid;
    assert_eq!(member, kid);
    // It is /proc that shows another's limits
    #[cfg(target_os = "linux")]
    {
        let limits = fs::read_to_string(format!("/proc/{}/limits", member)).expect("limits");
        let open = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
        assert!(open.split_whitespace().any(|word| word == "100"), "{limits}");
    }
}

#[test]
fn members_are_reached_where_pidfds_are_denied() {
    let name = "members_are_reached_where_pidfds_are_denied";
    for calls in ["pidfd_open", "pidfd_send_signal", "pidfd_open,pidfd_send_signal"] {
        stage(name, &["deny", "ENOSYS", calls], || {
            let family = Family::spawn("fork [ say kid await say poked ] reap say root pause");
            family.poke(family.fact("kid").pid);
            let _ = (family.fact("poked"), family.fact("root"));
        });
    }
}

#[test]
fn stage_as_nobody_under_two_modes() {
    require!(is_root() && namespaces_work(), "needs root, PID and mount namespaces");
    let launch = ["in-ns", "pid,mount", "--uid", "65534", "--", "nofile", "99", "99"];
    stage("stage_as_nobody_under_two_modes", &launch, || {
        assert!(!is_root());
        let family = Family::spawn("fork [ fork [ orphaned say kid pause ] ] say root await say poked pause");
        assert_eq!(family.fact("kid").ppid, 1);
        family.poke(family.fact("root").pid);
        assert_eq!(family.fact("poked").ppid, std::process::id());
    });
}

#[test]
fn storms_and_hoppers_survive_where_pids_run_out() {
    let launch = ["in-ns", "pid,mount", "--pid-max", "330"];
    stage("storms_and_hoppers_survive_where_pids_run_out", &launch, || {
        // As many as there are PIDs above the reserved ones, more or less
        let hoppers = [0; 24].map(|_| Family::spawn("setsid say go await hopper 400 say done pause"));
        let storm = Family::spawn("say go await storm 2000 say done pause");
        let families = || hoppers.iter().chain([&storm]);
        for family in families() {
            family.poke(family.fact("go").pid);
        }
        for family in families() {
            let _ = family.fact("done");
        }
    });
}

#[test]
fn a_command_is_handed_on() {
    let test = "a_command_is_handed_on";
    if let Some(mut command) = pidigree_testkit::handed_on() {
        let status = command.status().expect("the binary runs");
        assert_eq!(status.code(), Some(3));
        return;
    }
    let here = std::env::current_exe().expect("a test knows its own executable");
    let here = here.to_str().expect("its path is text");
    let mut family = Family::builder()
        .launcher(&["hand-on", here, "--exact", test, "--nocapture"])
        .spawn("say below exit 3");
    assert_eq!(family.fact("below").ppid, family.root_pid());
    assert_eq!(family.child().wait().expect("a child can be waited for").code(), Some(0));
}
