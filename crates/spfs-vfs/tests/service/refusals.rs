//! What a service does not start with; nothing is left behind then.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

use pidigree_testkit::{is_root, require};

use crate::world::{BINARY, Ran, World};

fn serve(mountpoint: &str, socket: &str) -> Ran {
    let mut command = Command::new(BINARY);
    command.args(["serve", mountpoint, "--socket", socket]);
    command.output().expect("the command runs").into()
}

#[test]
fn a_folder_that_cannot_be_mounted_on() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let socket = world.socket();
    let socket = socket.to_str().unwrap();
    fs::write(world.path("file"), "").unwrap();
    symlink(world.path("nowhere"), world.path("dangling")).unwrap();
    for (name, why) in
        [("missing", "mkdir"), ("file", "no folder"), ("base", "such as name"), ("dangling", "mkdir")]
    {
        let path = world.path(name);
        let path = path.to_str().unwrap();
        let ran = serve(path, socket).failed_naming(2, path);
        assert!(ran.stderr.contains(why), "{ran:?}");
        world.is_clean();
    }
    serve("/", socket).failed_naming(2, "root folder");
    world.is_clean();
}

#[test]
fn a_link_to_the_folder_is_followed_once_and_for_all() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    symlink(world.mountpoint(), world.path("link")).unwrap();
    let link = world.path("link");
    serve(link.to_str().unwrap(), world.socket().to_str().unwrap()).ended_with(0);
    assert_eq!(world.mounts(), 1);
    fs::remove_file(link).unwrap();
    world.run(&["stop"]).ended_with(0);
    world.is_clean();
}

#[test]
fn a_socket_that_cannot_be_had() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let mnt = world.mountpoint();
    let mnt = mnt.to_str().unwrap();
    let long = world.path(&"s".repeat(120));
    serve(mnt, long.to_str().unwrap()).failed_naming(2, "shorter --socket");
    let missing = world.path("missing/s");
    serve(mnt, missing.to_str().unwrap()).failed_naming(2, "make it first");
    let in_file = world.path("base/name/s");
    serve(mnt, in_file.to_str().unwrap()).failed_naming(2, "name");

    fs::create_dir(world.path("open")).unwrap();
    fs::set_permissions(world.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    serve(mnt, world.path("open/s").to_str().unwrap()).failed_naming(2, "anyone may write");
    fs::set_permissions(world.path("open"), fs::Permissions::from_mode(0o1777)).unwrap();
    serve(mnt, world.path("open/s").to_str().unwrap()).ended_with(0);
    let stopped = Command::new(BINARY).args(["stop", "--socket"]).arg(world.path("open/s")).output().unwrap();
    Ran::from(stopped).ended_with(0);

    fs::write(world.socket(), "a file").unwrap();
    serve(mnt, world.socket().to_str().unwrap()).failed_naming(2, "no socket");
    assert_eq!(fs::read_to_string(world.socket()).unwrap(), "a file", "it is somebody's");
    fs::remove_file(world.socket()).unwrap();

    let _other = UnixListener::bind(world.socket()).unwrap();
    serve(mnt, world.socket().to_str().unwrap()).failed_naming(4, "listens");
    fs::remove_file(world.socket()).expect("another program's socket is not removed");
    world.is_clean();
}

#[test]
fn a_log_that_cannot_be_opened() {
    let world = World::new();
    let ran: Ran = world.serving().arg("--log").arg(world.path("missing/log")).output().unwrap().into();
    ran.failed_naming(2, "missing/log");
    world.is_clean();
}

#[test]
fn the_socket_goes_when_the_mount_fails() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    // Everything is theirs, but the right to mount
    let folder = world.path("theirs");
    fs::create_dir_all(folder.join("mnt")).unwrap();
    for path in [&folder, &folder.join("mnt")] {
        chown(path, Some(65534), Some(65534)).unwrap();
    }
    let public = world.public_binary();
    let mut command = Command::new(&public);
    command.args(["serve", "--socket"]).arg(folder.join("s")).arg(folder.join("mnt"));
    let ran: Ran = command.uid(65534).gid(65534).current_dir("/").output().unwrap().into();
    ran.failed_naming(2, folder.join("mnt").to_str().unwrap());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "only the folder to mount on");
    // And nothing of it stands in the way of the next
    let _service = world.serve();
    world.run(&["stop"]).ended_with(0);
    world.is_clean();
}

#[test]
fn a_folder_that_another_service_has() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let _service = world.serve();
    let mnt = world.mountpoint();
    let mnt = mnt.to_str().unwrap();
    serve(mnt, world.path("other").to_str().unwrap()).failed_naming(4, mnt);
    assert!(!world.path("other").exists() && !world.path("other.lock").exists());
    assert_eq!(world.mounts(), 1);
    world.run(&["status"]).ended_with(0);
    world.run(&["stop"]).ended_with(0);
    world.is_clean();
}
