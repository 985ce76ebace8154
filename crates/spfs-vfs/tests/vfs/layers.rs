//! What a stack shows, case by case; `model.rs` does it at random.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use pidigree::Process;
use pidigree_testkit::{is_root, require};
use spfs_vfs::layers::Stack;
use spfs_vfs::{Mount, MountOptions};

use crate::common::{Place, ROOT};

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn upper_layers_come_first_and_remove_what_is_below() {
    require!(is_root(), "needs root to mount");
    let place = Place::new();
    let upper = place.layer(
        "upper",
        &[
            ("both", "upper"),
            ("merged/upper", "u"),
            (".wh.removed", ""),
            ("again", "new"),
            (".wh.again", ""),
            ("fresh/.wh..wh..opq", ""),
            ("fresh/only", "1"),
            ("file", "hides a directory"),
            ("directory/hides", "a file"),
        ],
    );
    let lower = place.layer(
        "lower",
        &[
            ("both", "lower"),
            ("merged/lower", "l"),
            ("removed", "x"),
            ("again", "old"),
            ("fresh/old", "2"),
            ("file/in", "x"),
            ("directory", "x"),
            ("below", "seen"),
            (".wh.stray", ""),
        ],
    );
    let me = Process::current().unwrap();
    let id = place.views.add(&me, &[upper, lower], ROOT).unwrap();
    let view = place.link();
    assert_eq!(names(&view), ["again", "below", "both", "directory", "file", "fresh", "merged"]);
    assert_eq!(names(&view.join("merged")), ["lower", "upper"]);
    assert_eq!(names(&view.join("fresh")), ["only"]);
    assert_eq!(names(&view.join("directory")), ["hides"]);
    for (path, text) in
        [("both", "upper"), ("again", "new"), ("below", "seen"), ("file", "hides a directory")]
    {
        assert_eq!(fs::read_to_string(view.join(path)).unwrap(), text, "{path}");
    }
    for path in ["removed", ".wh.removed", ".wh.stray", "fresh/old", "fresh/.wh..wh..opq", "file/in"] {
        let error = fs::symlink_metadata(view.join(path)).unwrap_err();
        let file = path == "file/in";
        let wanted = if file { std::io::ErrorKind::NotADirectory } else { std::io::ErrorKind::NotFound };
        assert_eq!(error.kind(), wanted, "{path}");
    }
    // As no layer has it: how many directories are in it, nobody knows
    assert_eq!(fs::metadata(view.join("merged")).unwrap().nlink(), 1);
    assert_eq!(place.views.list()[0].id, id);
    place.views.remove(me.identity()).unwrap().unwrap();
}

#[test]
fn names_of_one_file_share_its_number_and_links_lead_nowhere_for_the_service() {
    require!(is_root(), "needs root to mount");
    let place = Place::new();
    let layer = place.layer("layer", &[("one", "x"), ("sub/plain", "y")]);
    fs::hard_link(layer.join("one"), layer.join("sub/two")).unwrap();
    symlink("/etc/passwd", layer.join("absolute")).unwrap();
    symlink("../../../../etc", layer.join("sub/up")).unwrap();
    mknod(&layer.join("device"), SFlag::S_IFCHR, Mode::S_IRUSR, makedev(260, 0x12345)).unwrap();
    mknod(&layer.join("pipe"), SFlag::S_IFIFO, Mode::S_IRUSR, 0).unwrap();
    let at = place.folder().join("alone");
    fs::create_dir(&at).unwrap();
    let _mount = Mount::of_layers(&at, std::slice::from_ref(&layer), MountOptions::default()).unwrap();

    let told = |path: &str| {
        let of = |base: &Path| fs::symlink_metadata(base.join(path)).unwrap();
        (of(&at), of(&layer))
    };
    for path in ["one", "sub/two", "sub/plain", "absolute", "sub/up", "device", "pipe", "sub"] {
        let (shown, there) = told(path);
        let facts = |of: &fs::Metadata| {
            (
                of.mode(),
                of.nlink(),
                of.uid(),
                of.gid(),
                of.rdev(),
                of.size(),
                of.mtime_nsec(),
                of.mtime(),
                of.blocks(),
            )
        };
        assert_eq!(facts(&shown), facts(&there), "{path}");
    }
    let number = |path: &str| told(path).0.ino();
    assert_eq!(number("one"), number("sub/two"));
    assert_ne!(number("one"), number("sub/plain"));
    // What a listing says is what stat says
    for directory in [at.clone(), at.join("sub")] {
        for entry in fs::read_dir(directory).unwrap() {
            use std::os::unix::fs::DirEntryExt;
            let entry = entry.unwrap();
            assert_eq!(entry.ino(), fs::symlink_metadata(entry.path()).unwrap().ino(), "{entry:?}");
        }
    }
    assert_eq!(fs::read_link(at.join("absolute")).unwrap().to_str(), Some("/etc/passwd"));
    assert_eq!(fs::read_link(at.join("sub/up")).unwrap().to_str(), Some("../../../../etc"));
    // nodev: what it would be, it is not
    assert_eq!(fs::File::open(at.join("device")).unwrap_err().raw_os_error(), Some(libc_eacces()));
}

fn libc_eacces() -> i32 {
    nix::errno::Errno::EACCES as i32
}

/// A directory of a layer that becomes a link is not followed, and a file that becomes another one is not read in its place.
#[test]
fn a_layer_that_changes_leads_nobody_astray() {
    let folder = tempfile::tempdir().unwrap();
    let (layer, secret) = (folder.path().join("layer"), folder.path().join("secret"));
    fs::create_dir_all(layer.join("sub")).unwrap();
    fs::create_dir(&secret).unwrap();
    fs::write(layer.join("sub/file"), "layer").unwrap();
    fs::write(secret.join("file"), "secret").unwrap();
    let stack = Stack::open(&[&layer]).unwrap();
    let root = stack.root().unwrap();
    let find = |name: &str, directory| stack.lookup(directory, name.as_ref()).unwrap().unwrap().0;
    let spfs_vfs::layers::Found::Directory(sub) = find("sub", &root) else { panic!("a directory") };
    let spfs_vfs::layers::Found::Leaf(file) = find("file", &sub) else { panic!("a file") };
    assert_eq!(std::io::read_to_string(stack.open_file(&file).unwrap()).unwrap(), "layer");

    fs::rename(layer.join("sub"), layer.join("moved")).unwrap();
    symlink(&secret, layer.join("sub")).unwrap();
    let stale = |error: std::io::Error| error.raw_os_error() == Some(nix::errno::Errno::ESTALE as i32);
    assert!(stale(stack.open_file(&file).unwrap_err()));
    assert!(stale(stack.leaf_attributes(&file).unwrap_err()));
    assert!(stale(stack.list(&sub).unwrap_err()));
    assert!(stale(stack.lookup(&sub, "file".as_ref()).unwrap_err()));

    fs::remove_file(layer.join("sub")).unwrap();
    fs::create_dir(layer.join("sub")).unwrap();
    fs::write(layer.join("sub/file"), "another file").unwrap();
    assert!(stale(stack.open_file(&file).unwrap_err()));
}
