//! What cannot be done is an error that names it, and changes nothing.

use std::fs;
#[cfg(target_os = "linux")] // of the tests that only it has
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use pidigree::Identity;
use pidigree_testkit::{Family, is_root, require};

use crate::common::{BINARY, Public, Ran, Runtime, begin, kill, pid, waiting};

#[track_caller]
fn refused(runtime: &Runtime, args: &[&str], code: i32, naming: &[&str]) {
    let before = fs::read(&runtime.file).ok();
    let ran = Ran::from(runtime.command(args).output().unwrap());
    ran.failed(code, naming);
    assert_eq!(fs::read(&runtime.file).ok(), before, "{args:?} changed something");
    runtime.is_tidy();
}

#[test]
fn what_is_no_root() {
    let runtime = Runtime::new();
    for bad in ["0", "-1", "2147483648", "99999999999999999999", "x", "", "1 2", "p1:", "p9:1"] {
        refused(&runtime, &["--root", bad], 2, &["--root"]);
    }
    refused(&runtime, &["--root", "2147483647"], 2, &["2147483647"]);
    refused(&runtime, &["--root", "1"], 2, &["process 1", "first process"]);
    refused(&runtime, &[], 2, &["--root", runtime.file.to_str().unwrap()]);
}

#[test]
fn a_root_that_has_ended() {
    let runtime = Runtime::new();
    let mut family = Family::spawn("say root pause");
    let number = family.fact("root").pid;
    let token = Identity::of(pid(number)).unwrap().to_string();
    family.signal(number, 9);
    family.wait_ended(number);
    // A zombie, as long as this process does not reap it.
    for name in [&number.to_string(), &token] {
        refused(&runtime, &["--root", name], 2, &[&number.to_string(), "reaped"]);
    }
    family.child().wait().unwrap();
    for name in [&number.to_string(), &token] {
        refused(&runtime, &["--root", name], 2, &[&number.to_string()]);
    }
}

#[cfg(target_os = "linux")] // threads have no PIDs elsewhere
#[test]
fn a_thread_is_no_root() {
    let runtime = Runtime::new();
    let family = Family::spawn("thread [ say worker pause ] pause");
    let worker = family.fact("worker");
    refused(
        &runtime,
        &["--root", &worker.tid.to_string()],
        2,
        &[&worker.tid.to_string(), &worker.pid.to_string()],
    );
}

#[cfg(target_os = "linux")] // they have no PIDs elsewhere
#[test]
fn a_thread_of_the_kernel_is_no_root() {
    let runtime = Runtime::new();
    let is_kthreadd = fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n");
    require!(is_kthreadd, "the kernel's threads cannot be seen in this PID namespace");
    refused(&runtime, &["--root", "2"], 2, &["process 2", "kernel"]);
    let child = pidigree::Process::open(pid(2)).unwrap().children().unwrap().swap_remove(0);
    refused(&runtime, &["--root", &child.pid().to_string()], 2, &["kernel"]);
}

/// Another process that has the root's PID now is not watched in its place.
#[test]
fn a_token_of_another_process() {
    let runtime = Runtime::new();
    let family = Family::spawn("say root pause");
    let token = Identity::of(pid(family.fact("root").pid)).unwrap().to_string();
    let other = token.replacen(":u", ":u9", 1);
    if other != token {
        refused(&runtime, &["--root", &other], 2, &[&family.root_pid().to_string()]);
    }
    refused(&runtime, &["--root", &in_another_boot(&token)], 2, &["boot"]);
}

fn in_another_boot(token: &str) -> String {
    let at = token.rfind(":b").unwrap() + 2;
    let flipped = if token.as_bytes()[at] == b'0' { "1" } else { "0" };
    format!("{}{flipped}{}", &token[..at], &token[at + 1..])
}

#[test]
fn a_second_monitor_refuses_and_names_the_first() {
    let runtime = Runtime::new();
    let family = waiting("exit 0");
    let root = family.fact("root").pid.to_string();
    let first = runtime.watch(family.fact("root").pid);
    let (number, token) = (first.pid().to_string(), runtime.record().owner.to_string());
    for args in [&["--root", &root][..], &[], &["--retry"], &["--foreground"]] {
        refused(&runtime, args, 3, &[&format!("process {number} "), &token, runtime.file.to_str().unwrap()]);
    }
    begin(&family);
    runtime.is_over(&first, &family);
}

/// However many start at once, one watches.
#[test]
fn of_many_that_start_at_once_one_watches() {
    for _ in 0..pidigree_testkit::rounds(50).div_ceil(10) {
        let runtime = Runtime::new();
        let family = waiting("exit 0");
        let root = family.fact("root").pid.to_string();
        let start = |_| {
            let mut command = runtime.command(&["--root", &root]);
            command.args(runtime.logs()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let started: Vec<_> = (0..16).map(start).collect();
        let ran: Vec<_> =
            started.into_iter().map(|child| Ran::from(child.wait_with_output().unwrap())).collect();
        let watching = ran.iter().filter(|ran| ran.code == Some(0)).count();
        assert_eq!(watching, 1, "{ran:?}");
        let owner = runtime.record().owner;
        for other in ran.iter().filter(|ran| ran.code != Some(0)) {
            other.failed(3, &[&format!("p1:{}:", owner.pid())]);
        }
        let monitor = pidigree::Process::reopen(&owner).unwrap();
        begin(&family);
        runtime.is_over(&monitor, &family);
    }
}

#[test]
fn what_is_no_runtime_file() {
    let runtime = Runtime::new();
    let family = Family::spawn("say root pause");
    let root = family.fact("root").pid.to_string();
    let name = runtime.file.to_str().unwrap().to_owned();
    for bytes in [&b""[..], b"\0\xff", b"{}", b"[1]", b"{\"format\": 1}", b"{\"format\": 2}"] {
        fs::write(&runtime.file, bytes).unwrap();
        refused(&runtime, &["--root", &root], 2, &[&name]);
    }
    fs::remove_file(&runtime.file).unwrap();
    let monitor = runtime.watching(&["--root", &root]);
    kill(&monitor);
    let whole = fs::read(&runtime.file).unwrap();
    for cut in [1, whole.len() / 2, whole.len() - 3] {
        fs::write(&runtime.file, &whole[..cut]).unwrap();
        refused(&runtime, &["--root", &root], 2, &[&name]);
    }
    fs::remove_file(&runtime.file).unwrap();
    for (make, why) in
        [("mkdir", "not a regular file"), ("mkfifo", "not a regular file"), ("ln", "symbolic link")]
    {
        let mut command = Command::new(make);
        if make == "ln" {
            command.args(["-s", "/dev/null"]);
        }
        assert!(command.arg(&runtime.file).status().unwrap().success());
        let ran = Ran::from(runtime.command(&["--root", &root]).output().unwrap());
        ran.failed(2, &[&name, why]);
        assert!(Command::new("rm").arg("-r").arg(&runtime.file).status().unwrap().success());
    }
    for path in
        ["/", "/no/such/folder/runtime", "/dev/null", "relative/runtime", "/proc/1/runtime", "folder/"]
    {
        let mut command = Command::new(BINARY);
        command.current_dir(runtime.folder()).args(["--root", &root, "--runtime", path]);
        Ran::from(command.output().unwrap()).failed(2, &[path]);
    }
    runtime.is_tidy();
}

/// What is of another world names nobody here.
#[test]
fn a_record_of_another_boot_or_namespace() {
    let runtime = Runtime::new();
    let family = Family::spawn("say root pause");
    let root = family.fact("root").pid.to_string();
    let monitor = runtime.watching(&["--root", &root]);
    kill(&monitor);
    let record = fs::read_to_string(&runtime.file).unwrap();
    let boot = record.split(":b").nth(1).unwrap()[..32].to_owned();
    fs::write(&runtime.file, record.replace(&boot, &"7".repeat(32))).unwrap();
    refused(&runtime, &[], 2, &["boot", runtime.file.to_str().unwrap()]);
    let namespace = record.split(":n").nth(1).unwrap().split(':').next().unwrap().to_owned();
    fs::write(&runtime.file, record.replace(&format!(":n{namespace}:"), ":n7:")).unwrap();
    refused(&runtime, &[], 2, &["namespace", runtime.file.to_str().unwrap()]);
}

/// A runtime file is gone on with for its own root only.
#[test]
fn a_record_of_another_root() {
    let runtime = Runtime::new();
    let family = Family::spawn("say root fork [ say other pause ] pause");
    let (root, other) = (family.fact("root").pid, family.fact("other").pid);
    let monitor = runtime.watching(&["--root", &root.to_string()]);
    kill(&monitor);
    let token = Identity::of(pid(other)).unwrap().to_string();
    for given in [other.to_string(), token] {
        refused(&runtime, &["--root", &given], 2, &[&format!("process {root} "), &other.to_string()]);
    }
    let token = Identity::of(pid(root)).unwrap().to_string();
    kill(&runtime.watching(&["--root", &token]));
    family.end();
    family.wait_all();
    // Nobody has the number any more, or somebody whom nobody means.
    let number = root.to_string();
    let ran = Ran::from(runtime.command(&["--root", &number]).output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn a_folder_that_cannot_be_written() {
    require!(is_root(), "needs root, to become somebody else");
    let public = Public::new();
    let runtime = Runtime::of_user(65534, &public);
    let family = Family::builder().uid(65534).spawn("say root pause");
    let root = family.fact("root").pid.to_string();
    let others = tempfile::tempdir().unwrap();
    fs::set_permissions(others.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let closed = Runtime { file: others.path().join("runtime"), _folder: Arc::new(others), ..runtime };
    refused(&closed, &["--root", &root], 2, &[closed.file.to_str().unwrap(), "denied"]);
}

#[cfg(target_os = "linux")] // a small file system is Linux's tmpfs
mod full {
    use super::*;

    /// Runs in a mount namespace of its own.
    fn on_a_tiny_disk(test: &str, body: impl FnOnce(&Path)) {
        require!(is_root(), "needs root, to mount");
        pidigree_testkit::stage(test, &["in-ns", "mount"], || {
            let folder = tempfile::tempdir().unwrap();
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", "size=64k,nr_inodes=16", "none"]).arg(folder.path());
            assert!(mount.status().unwrap().success());
            body(folder.path());
            assert!(Command::new("umount").arg(folder.path()).status().unwrap().success());
        });
    }

    fn fill(folder: &Path) {
        let mut file = fs::File::create(folder.join("ballast")).unwrap();
        while std::io::Write::write_all(&mut file, &[7; 512]).is_ok() {}
    }

    fn runtime_in(folder: &Path) -> Runtime {
        let runtime = Runtime::new();
        Runtime { file: folder.join("runtime"), ..runtime }
    }

    #[test]
    fn a_disk_that_is_full() {
        on_a_tiny_disk("input::full::a_disk_that_is_full", |folder| {
            let runtime = runtime_in(folder);
            let family = waiting("exit 0");
            let root = family.fact("root").pid.to_string();
            fill(folder);
            let ran = Ran::from(runtime.command(&["--root", &root]).output().unwrap());
            ran.failed(2, &[runtime.file.to_str().unwrap(), "No space left"]);
            let left: Vec<_> =
                fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left, ["ballast"]);
        });
    }

    /// It gets full meanwhile: what has to be said at the end has its place already.
    #[test]
    fn a_disk_that_gets_full() {
        on_a_tiny_disk("input::full::a_disk_that_gets_full", |folder| {
            for fails in [false, true] {
                let runtime = runtime_in(folder);
                let family = waiting("fork [ say child await ] exit 0");
                let root = family.fact("root").pid;
                let args: &[&str] = if fails { &["--on-empty", "false"] } else { &[] };
                let monitor = if fails {
                    runtime.watching(&[&["--root", &root.to_string()], args].concat())
                } else {
                    runtime.watch(root)
                };
                fill(folder);
                begin(&family);
                let child = family.fact("child").pid;
                runtime.lives(&monitor, "the child lives");
                family.poke(child);
                runtime.ends(&monitor);
                if fails {
                    assert_eq!(runtime.record().phase, spfs_monitor::Phase::Failed);
                } else {
                    assert!(!runtime.file.exists());
                    assert_eq!(runtime.logged(), ["cleaned"]);
                }
                fs::remove_file(folder.join("ballast")).unwrap();
            }
        });
    }
}

#[test]
fn the_help_teaches() {
    let ran = Ran::from(Command::new(BINARY).arg("--help").output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    for word in ["--runtime", "--root", "--on-empty", "watching", "Exit codes:", "Examples:", "SIGTERM"] {
        assert!(ran.stdout.contains(word), "{word} is not in\n{}", ran.stdout);
    }
    for (args, what) in [
        (&["--root", "1"][..], "--runtime"),
        (&["--runtime", "r", "--every", "1s", "--root", "1"], "--heartbeat"),
        (&["--runtime", "r", "--root", "1", "--heartbeat", "h", "--every", "0"], "\"0\""),
        (&["--runtime", "r", "--what"], "--what"),
    ] {
        Ran::from(Command::new(BINARY).args(args).output().unwrap()).failed(2, &[what]);
    }
}
