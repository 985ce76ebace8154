//! Who may talk to a service, and whom a client believes.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use pidigree_testkit::{Family, is_root, require};

use crate::world::{BINARY, Ran, World};

const NOBODY: u32 = 65534;

/// Runs the command as somebody else, from where they can read it.
fn as_nobody(world: &World, args: &[&str]) -> Ran {
    let mut command = Command::new(world.public_binary());
    command.args(args).arg("--socket").arg(world.socket()).stdin(Stdio::null());
    command.uid(NOBODY).gid(NOBODY).current_dir("/").output().expect("the command runs").into()
}

#[test]
fn another_user_gets_no_answer() {
    require!(is_root(), "needs root to become somebody else");
    let world = World::new();
    let service = world.serve();
    let theirs = Family::builder().uid(NOBODY).spawn("say root pause");
    let root = theirs.fact("root").pid.to_string();
    let base = world.path("base");
    let requests: [&[&str]; 5] = [
        &["mount", "--root", &root, base.to_str().unwrap()],
        &["unmount", "--root", &root],
        &["status"],
        &["list"],
        &["stop"],
    ];
    for request in requests {
        as_nobody(&world, request).failed_naming(6, "user 0's");
    }
    // Nor if the mode of the socket would let them
    fs::set_permissions(world.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    for request in requests {
        as_nobody(&world, request).failed_naming(6, "user 0's");
    }
    assert_eq!(world.run(&["list"]).ended_with(0).stdout, "");
    assert!(
        service.process.wait(Some(std::time::Duration::ZERO)).unwrap().is_none(),
        "nobody has stopped it"
    );
    world.run(&["stop"]).ended_with(0);
    world.is_clean();
}

#[test]
fn nothing_of_a_strangers_is_read() {
    require!(is_root(), "needs root to become somebody else");
    let world = World::new();
    let _service = world.serve();
    fs::set_permissions(world.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let mut shell = Command::new("python3");
    let script =
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(1))";
    shell.args(["-c", script]).arg(world.socket()).uid(NOBODY).gid(NOBODY).current_dir("/");
    let output = shell.output().expect("python3");
    // An HTTP/2 server speaks first, to those whom it serves
    assert_eq!(String::from_utf8_lossy(&output.stdout), "b''\n", "{output:?}");
    let mut ours = UnixStream::connect(world.socket()).unwrap();
    assert_eq!(ours.read(&mut [0]).unwrap(), 1);
}

#[test]
fn a_client_does_not_believe_a_stranger() {
    require!(is_root(), "needs root to become somebody else");
    let world = World::new();
    // A socket of another user, who is not root either, where everybody may connect
    let script = "import socket,sys,os; s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); \
                  os.chmod(sys.argv[1], 0o666); s.listen(); print(flush=True); s.accept()[0].recv(100)";
    fs::set_permissions(world.path("."), fs::Permissions::from_mode(0o1777)).unwrap();
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(world.socket()).uid(NOBODY - 1).gid(NOBODY - 1).current_dir("/");
    let mut other = python.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("python3");
    other.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    as_nobody(&world, &["status"]).failed_naming(6, &format!("user {}", NOBODY - 1));
    let _ = other.kill();
    let _ = other.wait();
}

#[test]
fn a_folder_that_others_prepared_is_not_used_for_the_default_socket() {
    require!(is_root(), "needs root to become somebody else");
    let world = World::new();
    let folder = world.path("spfs-fuse-0");
    let default = |args: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(args).env("TMPDIR", world.path(".")).env_remove("XDG_RUNTIME_DIR");
        Ran::from(command.output().unwrap())
    };
    require!(!fs::exists("/run/user/0").unwrap(), "the default is elsewhere here");
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
    default(&["serve", world.mountpoint().to_str().unwrap()]).failed_naming(6, "spfs-fuse-0");
    // Whatever listens there
    let _other = UnixListener::bind(folder.join("spfs-fuse.sock")).unwrap();
    default(&["status"]).failed_naming(6, "spfs-fuse-0");
    fs::remove_dir_all(&folder).unwrap();

    default(&["serve", world.mountpoint().to_str().unwrap()]).ended_with(0);
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    default(&["status"]).ended_with(0);
    default(&["stop"]).ended_with(0);
    assert_eq!(world.mounts(), 0);
}

#[test]
fn another_user_cannot_enter_a_view() {
    require!(is_root(), "needs root to become somebody else");
    let world = World::new();
    let _service = world.serve();
    let family = Family::spawn("say root pause");
    let root = family.fact("root").pid.to_string();
    let base = world.path("base");
    let args = ["mount", "--json", "--owner", "1234", "--root", &root, base.to_str().unwrap()];
    let id = world.run(&args).ended_with(0).json()[0]["id"].to_string();
    let view = world.path("mnt/views").join(id);
    let read = |uid: u32| {
        let mut cat = Command::new("cat");
        cat.arg(view.join("name")).uid(uid).gid(uid).current_dir("/").stderr(Stdio::null());
        cat.output().unwrap().status.success()
    };
    assert!(read(1234), "its owner");
    assert!(!read(NOBODY), "nobody else");
}
