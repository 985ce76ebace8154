//! No dead mount stays behind, and none is covered.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::panic::AssertUnwindSafe;
use std::process::Stdio;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use pidigree::Process;
use pidigree_testkit::{eventually, is_root, require};
use spfs_vfs::{Mount, MountOptions, Views};

use crate::common::{PATIENCE, Place, Shell, again, mounts_at, words};

#[test]
fn a_mount_that_is_dropped_or_panicked_over_is_gone() {
    require!(is_root(), "needs root to mount");
    let mut place = Place::new();
    let at = place.at.clone();
    assert_eq!(mounts_at(&at), 1);
    let mount = place.mount.take().unwrap();
    let ended = mount.ended();
    assert!(!ended.wait(Some(Duration::ZERO)));
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(move || {
        let _mount = mount;
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(mounts_at(&at), 0);
    assert!(ended.wait(Some(PATIENCE)));

    // And again, in the same place, with the same views
    let mount = Mount::new(&at, place.views.clone(), MountOptions::default()).unwrap();
    assert_eq!(fs::read_link(place.link()).unwrap().to_str(), Some("views/default"));
    mount.unmount().unwrap();
    assert_eq!(mounts_at(&at), 0);
}

#[test]
fn a_mount_in_use_is_unmounted_all_the_same() {
    require!(is_root(), "needs root to mount");
    let mut place = Place::new();
    let layer = place.layer("layer", &[("sub/file", "text")]);
    let id = place.add(&Process::current().unwrap(), &layer);
    let mut inside = Shell::new();
    inside.ask(&format!("cd '{}' && echo in", place.directory(id).join("sub").display()));
    let mut open = File::open(place.directory(id).join("sub/file")).unwrap();
    place.mount.take().unwrap().unmount().unwrap();
    assert_eq!(mounts_at(&place.at), 0);
    assert!(open.read(&mut [0; 4]).is_err());
    assert_eq!(inside.ask("cat ./file 2>/dev/null || echo gone"), "gone");
}

#[test]
fn the_end_of_a_mount_by_others_is_told() {
    require!(is_root(), "needs root to mount");
    let mut place = Place::new();
    let mount = place.mount.take().unwrap();
    let ended = mount.ended();
    umount2(&place.at, MntFlags::empty()).unwrap();
    assert!(ended.wait(Some(PATIENCE)));
    // Somebody else's mount at the same place is not ours to take
    let other = Mount::new(&place.at, Views::new().unwrap(), MountOptions::default()).unwrap();
    mount.unmount().unwrap();
    assert_eq!(mounts_at(&place.at), 1);
    other.unmount().unwrap();
}

#[test]
fn what_works_is_not_covered() {
    require!(is_root(), "needs root to mount");
    let place = Place::new();
    let error = Mount::new(&place.at, Views::new().unwrap(), MountOptions::default()).unwrap_err();
    assert!(error.is_busy(), "{error}");
    assert!(error.to_string().contains(place.at.to_str().unwrap()), "{error}");
    assert_eq!(mounts_at(&place.at), 1);
    for wrong in [place.folder().join("missing"), place.layer("layer", &[("file", "x")]).join("file")] {
        let error = Mount::new(&wrong, Views::new().unwrap(), MountOptions::default()).unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains(wrong.to_str().unwrap()), "{error}");
    }
}

/// Mounts, says so, and waits to be killed.
#[test]
fn victim() {
    let Some(words) = words() else { return };
    let _mount = Mount::new(&words[0], Views::new().unwrap(), MountOptions::default()).unwrap();
    println!("\nmounted");
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn what_a_killed_service_left_is_cleared_away() {
    require!(is_root(), "needs root to mount");
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().canonicalize().unwrap().join("a mount");
    fs::create_dir(&at).unwrap();
    let mut victim = again("mounts::victim", &[at.as_os_str()]);
    let mut victim = victim.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "mounted"));
    // What the kernel remembers it says of a dead mount as well
    fs::metadata(&at).unwrap();
    fs::metadata(at.join("views/default")).unwrap();
    victim.kill().unwrap();
    victim.wait().unwrap();
    let dead = eventually("the kernel notices that nobody answers", || nix::sys::statvfs::statvfs(&at).err());
    assert_eq!(dead, Errno::ENOTCONN);
    fs::metadata(&at).unwrap();

    let views = Views::new().unwrap();
    let mount = Mount::new(&at, views, MountOptions::default()).unwrap();
    assert_eq!(fs::read_link(at.join("self")).unwrap().to_str(), Some("views/default"));
    mount.unmount().unwrap();
    // Neither the old one nor the new one is left below
    fs::read_dir(&at).unwrap();
    fs::remove_dir(&at).unwrap();
}
