//! Another user cannot enter a view, and does not see that it is there.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use pidigree_testkit::{is_root, require};
use spfs_vfs::Owner;

use crate::common::{Place, Shell};

fn run_as(uid: u32, program: &str, path: &Path) -> Output {
    let mut command = Command::new(program);
    command.arg(path).uid(uid).gid(uid).current_dir("/").env("LC_ALL", "C");
    command.output().unwrap()
}

fn is_denied(output: &Output) -> bool {
    !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("Permission denied")
}

#[test]
fn a_view_is_its_owners_alone() {
    require!(is_root(), "needs root to mount, and to become others");
    const ALICE: u32 = 12_345;
    const BOB: u32 = 54_321;
    let place = Place::new();
    let layer = place.layer("layer", &[("file", "text"), ("private", "secret")]);
    std::os::unix::fs::chown(layer.join("private"), Some(BOB), None).unwrap();
    fs::set_permissions(layer.join("private"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();

    let mut command = Command::new("sh");
    command.uid(ALICE).gid(ALICE).current_dir("/");
    let mut shell = Shell::start(command);
    let owner = Owner { uid: ALICE, gid: ALICE };
    let id = place.views.add(&shell.process(), std::slice::from_ref(&layer), owner).unwrap();
    let view = place.directory(id);
    let root = fs::metadata(&view).unwrap();
    assert_eq!((root.uid(), root.gid(), root.mode() & 0o7777), (ALICE, ALICE, 0o700));

    assert_eq!(shell.ask(&format!("cat '{}'/file; echo", place.link().display())), "text");
    assert!(is_denied(&run_as(BOB, "cat", &view.join("file"))));
    assert!(is_denied(&run_as(BOB, "ls", &view)));
    assert!(is_denied(&run_as(BOB, "ls", &place.at.join("views"))), "the numbers of others are not listed");
    // Within it, the modes of the layer hold
    assert!(is_denied(&run_as(ALICE, "cat", &view.join("private"))));
    assert_eq!(run_as(ALICE, "cat", &view.join("file")).stdout, b"text");

    // What Bob has by himself is the empty view
    let empty = run_as(BOB, "ls", &place.link().join("."));
    assert!(empty.status.success() && empty.stdout.is_empty(), "{empty:?}");
    // Root may: it could become Alice
    assert_eq!(fs::read_to_string(view.join("file")).unwrap(), "text");
}
