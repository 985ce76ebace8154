//! What the command says without a service.

use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spfs-fuse")).args(args).output().expect("the command runs")
}

#[test]
fn help_teaches_each_verb() {
    for verb in ["serve", "mount", "unmount", "status", "list", "stop"] {
        let output = run(&[verb, "--help"]);
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).unwrap();
        for part in ["Exit codes:", "Examples:", "--socket <PATH>", "--json"] {
            assert!(text.contains(part), "{verb} --help has no {part}:\n{text}");
        }
        assert!(!text.contains('\x1b'), "colours where no terminal is");
    }
    let output = run(&["--help"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Exit codes of every command") && text.contains("Examples:"), "{text}");
}

#[test]
fn mistakes_are_told_in_one_line() {
    for (args, names) in [
        (&["mont"][..], "mount"),
        (&["serve"], "MOUNTPOINT"),
        (&["mount", "/"], "--root"),
        (&["mount", "--root", "1", "--owner", "me", "/"], "me"),
        (&["mount", "--root", "1", "--owner", "4294967295", "/"], "4294967295"),
        (&["unmount", "--root", "0"], "\"0\""),
        (&["status", "extra"], "extra"),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.starts_with("spfs-fuse: ") && told.lines().count() == 1, "{told}");
        assert!(told.contains(names), "{told}");
        assert!(output.stdout.is_empty());
    }
}

// Elsewhere there is a FUSE to mount with
#[cfg(not(target_os = "linux"))]
#[test]
fn serve_says_that_it_cannot_mount() {
    let folder = tempfile::tempdir().unwrap();
    let (mnt, socket) = (folder.path().join("mnt"), folder.path().join("s"));
    std::fs::create_dir(&mnt).unwrap();
    let output = run(&["serve", mnt.to_str().unwrap(), "--socket", socket.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("mount"));
    assert!(!socket.exists());
}
