//! Whatever would write is EROFS: from the kernel, and from us where the kernel asks.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use pidigree::Process;
use pidigree_testkit::{is_root, require};

use crate::common::Place;

fn writes(view: &Path) -> Vec<(&'static str, io::Result<()>)> {
    let file = view.join("sub/file");
    let new = view.join("sub/new");
    let opened = |options: &mut OpenOptions, path: &Path| options.open(path).map(drop);
    let times = |path: &Path| {
        let file = File::open(path)?;
        file.set_modified(std::time::SystemTime::now())
    };
    let c = |path: &Path| std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let mode = nix::sys::stat::Mode::S_IRWXU;
    vec![
        ("open for writing", opened(OpenOptions::new().write(true), &file)),
        ("open for both", opened(OpenOptions::new().read(true).write(true), &file)),
        ("open to append", opened(OpenOptions::new().append(true), &file)),
        ("truncate", opened(OpenOptions::new().write(true).truncate(true), &file)),
        ("create", opened(OpenOptions::new().write(true).create_new(true), &new)),
        ("mkdir", fs::create_dir(&new)),
        ("unlink", fs::remove_file(&file)),
        ("rmdir", fs::remove_dir(view.join("sub/empty"))),
        ("rename", fs::rename(&file, &new)),
        ("link", fs::hard_link(&file, &new)),
        ("symlink", symlink("x", &new)),
        ("mkfifo", nix::unistd::mkfifo(c(&new).as_c_str(), mode).map_err(io::Error::from)),
        ("chmod", fs::set_permissions(&file, fs::Permissions::from_mode(0o600))),
        ("chown", std::os::unix::fs::chown(&file, Some(1), Some(1))),
        ("utimes", times(&file)),
        ("utimes of a directory", times(&view.join("sub"))),
        ("truncate by path", nix::unistd::truncate(c(&file).as_c_str(), 0).map_err(io::Error::from)),
        ("mkdir in views", fs::create_dir(view.parent().unwrap().join("9"))),
        ("mkdir in the root", fs::create_dir(view.parent().unwrap().parent().unwrap().join("new"))),
        ("rmdir of a view", fs::remove_dir(view)),
        ("unlink of the link", fs::remove_file(view.parent().unwrap().parent().unwrap().join("self"))),
    ]
}

fn attributes(view: &Path) -> Vec<(&'static str, String)> {
    let python = r#"
import os, sys
for name, call in [
    ("setxattr", lambda path: os.setxattr(path, b"user.x", b"y")),
    ("removexattr", lambda path: os.removexattr(path, b"user.here")),
]:
    try:
        call(sys.argv[1])
        print(name, 0)
    except OSError as error:
        print(name, error.errno)
"#;
    let output =
        std::process::Command::new("python3").args(["-c", python]).arg(view.join("sub/file")).output();
    let text = String::from_utf8(output.expect("python3").stdout).unwrap();
    let line = |name| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim().to_owned();
    vec![("setxattr", line("setxattr")), ("removexattr", line("removexattr"))]
}

#[test]
fn every_write_is_refused() {
    require!(is_root(), "needs root to mount");
    let place = Place::new();
    let layer = place.layer("layer", &[("sub/file", "text"), ("sub/empty/.wh..wh..opq", "")]);
    let me = Process::current().unwrap();
    let view = place.directory(place.add(&me, &layer));
    let erofs = nix::errno::Errno::EROFS as i32;
    let check = |how: &str| {
        for (what, outcome) in writes(&view) {
            let error = outcome.err().unwrap_or_else(|| panic!("{what} passed, {how}"));
            assert_eq!(error.raw_os_error(), Some(erofs), "{what}, {how}: {error}");
        }
        for (what, code) in attributes(&view) {
            assert_eq!(code, erofs.to_string(), "{what}, {how}");
        }
        assert_eq!(fs::read_to_string(view.join("sub/file")).unwrap(), "text");
    };
    check("as it is mounted");
    // The kernel refuses by itself while the mount is read-only. It is not for a moment: now we do.
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(None::<&str>, &place.at, None::<&str>, flags, None::<&str>).unwrap();
    check("remounted for writing");
    assert_eq!(fs::read_to_string(layer.join("sub/file")).unwrap(), "text");
}
