//! How a service starts and ends, and that nothing of it is left behind.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use pidigree::Signal;
use pidigree_testkit::{DEADLINE, Family, is_root, require, rounds};

use crate::world::{BINARY, Ran, Service, World, mounts_at, until};

#[test]
fn it_is_ready_when_serve_returns_and_gone_when_stop_does() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    for _ in 0..rounds(10) {
        let service = world.serve();
        assert_eq!(world.mounts(), 1);
        assert_eq!(fs::read_dir(world.path("mnt/self")).expect("an empty default view").count(), 0);
        let socket = fs::symlink_metadata(world.socket()).expect("a socket");
        assert!(socket.file_type().is_socket());
        assert_eq!(socket.permissions().mode() & 0o7777, 0o600);
        let status = world.run(&["status", "--json"]).ended_with(0).json().remove(0);
        assert_eq!(status["serving"], true);
        assert_eq!(status["pid"], service.pid());
        assert_eq!(status["mountpoint"], world.mountpoint().to_str().unwrap());
        assert_eq!(status["views"], 0);
        assert!(status["descriptors"].as_u64() < status["descriptor_limit"].as_u64());
        world.run(&["stop"]).ended_with(0);
        service.has_ended();
        world.is_clean();
    }
}

#[test]
fn each_signal_unmounts_and_then_ends_it() {
    require!(is_root(), "needs root to mount");
    pidigree_testkit::default_signals();
    let world = World::new();
    for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2), (Signal::HUP, 1), (Signal::QUIT, 3)] {
        let mut foreground = world.foreground();
        assert_eq!(world.mounts(), 1);
        foreground.service.signal(signal);
        assert_eq!(foreground.status().signal(), Some(number), "{}", world.log());
        world.is_clean();
        let background = world.serve();
        background.signal(signal);
        background.has_ended();
        world.is_clean();
    }
}

#[test]
fn a_stopped_foreground_service_ends_well() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let mut foreground = world.foreground();
    world.run(&["stop", "--json"]).ended_with(0);
    assert_eq!(foreground.status().code(), Some(0), "{}", world.log());
    world.is_clean();
}

#[test]
fn what_a_killed_service_left_behind_is_replaced() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let layer = world.layer("layer");
    for _ in 0..rounds(5) {
        let mut killed = world.foreground();
        let member = Family::spawn("say ready pause");
        let root = member.fact("ready").pid.to_string();
        world.mount(&root, &layer).ended_with(0);
        let view = world.path("mnt/views").join(list_one(&world)["id"].to_string());
        let mut open = File::open(view.join("name")).expect("the view's file");
        // One of whom is in there
        let mut inside = Command::new("sleep").arg("1000").current_dir(&view).spawn().expect("a child");
        killed.service.signal(Signal::KILL);
        assert_eq!(killed.status().signal(), Some(9));
        assert!(world.socket().exists(), "it had no time to remove it");
        assert_eq!(
            fs::read_dir(world.mountpoint()).map(drop).map_err(|error| error.raw_os_error()),
            Err(Some(Errno::ENOTCONN as i32)),
            "the mount is dead"
        );
        world.run(&["status"]).failed_naming(3, world.socket().to_str().unwrap());

        let service = world.serve();
        assert_eq!(world.mounts(), 1, "the dead one is gone");
        assert_eq!(fs::read_dir(world.path("mnt/self")).expect("the default view").count(), 0);
        let read = open.read(&mut [0; 8]);
        assert!(read.as_ref().is_err() || read.is_ok_and(|read| read <= 8), "what was open does not hang");
        // Its root lives on, and can have a view again
        world.mount(&root, &layer).ended_with(0);
        world.run(&["stop"]).ended_with(0);
        service.has_ended();
        world.is_clean();
        let _ = inside.kill();
        let _ = inside.wait();
    }
}

fn list_one(world: &World) -> serde_json::Value {
    let mut views = world.run(&["list", "--json"]).ended_with(0).json();
    assert_eq!(views.len(), 1, "{views:?}");
    views.remove(0)
}

#[test]
fn it_ends_when_somebody_else_unmounts() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let mut foreground = world.foreground();
    umount2(&world.mountpoint(), MntFlags::empty()).expect("nobody uses it");
    assert_eq!(foreground.status().code(), Some(7), "{}", world.log());
    world.is_clean();
}

#[test]
fn a_mount_that_was_detached_in_use_is_missed_at_the_next_request() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let mut foreground = world.foreground();
    let _use = File::open(world.mountpoint()).expect("the root of the mount");
    umount2(&world.mountpoint(), MntFlags::MNT_DETACH).expect("a lazy unmount");
    world.run(&["status"]).failed_naming(3, "unmounted");
    assert_eq!(foreground.status().code(), Some(7), "{}", world.log());
    world.is_clean();
}

// The fault is built in only then
#[cfg(debug_assertions)]
#[test]
fn a_panic_in_any_thread_unmounts() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    for place in ["request", "emptied", "main"] {
        let mut command = world.serving();
        command.env("SPFS_FUSE_PANIC", place);
        let mut foreground = world.foreground_of(command);
        let member = Family::spawn("say ready pause");
        let root = member.fact("ready").pid.to_string();
        world.mount(&root, &world.layer("layer")).ended_with(0);
        let said = match place {
            "request" => world.run(&["unmount", "--root", &root]).code,
            "main" => world.run(&["stop"]).code,
            _ => {
                drop(member);
                Some(2)
            }
        };
        // It may have ended before the answer was read
        assert!(matches!(said, Some(2 | 3)), "{place}: {said:?}");
        assert_eq!(foreground.status().code(), Some(101), "{place}: {}", world.log());
        assert!(world.log().contains(&format!("SPFS_FUSE_PANIC={place}")), "{}", world.log());
        world.is_clean();
    }
}

/// Starts them all at once, and returns who is ready and what the others say.
fn herd(commands: Vec<Command>) -> (Vec<Service>, Vec<Ran>) {
    let children: Vec<_> = commands
        .into_iter()
        .map(|mut command| {
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command runs")
        })
        .collect();
    let ran = children.into_iter().map(|child| Ran::from(child.wait_with_output().expect("a child")));
    let (ready, others): (Vec<Ran>, Vec<Ran>) = ran.partition(|ran| ran.code == Some(0));
    (ready.iter().map(|ran| Service::of(&ran.json()[0])).collect(), others)
}

#[test]
fn of_a_herd_one_serves_and_the_others_say_who() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    for _ in 0..rounds(5) {
        let (ready, others) = herd((0..16).map(|_| world.serving()).collect());
        assert_eq!(ready.len(), 1, "{others:?}");
        let winner = format!("process {} ", ready[0].pid());
        for other in others {
            other.failed_naming(4, &winner);
        }
        assert_eq!(world.mounts(), 1);
        world.run(&["status"]).ended_with(0);
        world.run(&["stop"]).ended_with(0);
        world.is_clean();
    }
}

#[test]
fn services_with_sockets_of_their_own_do_not_stack_their_mounts() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    for _ in 0..rounds(5) {
        let serving = |index: usize| {
            let mut command = Command::new(BINARY);
            command.args(["serve", "--json", "--socket"]).arg(world.path(&format!("s{index}")));
            command.arg(world.mountpoint());
            command
        };
        let (ready, others) = herd((0..8).map(serving).collect());
        assert_eq!(ready.len(), 1, "{others:?}");
        for other in others {
            other.failed_naming(4, world.mountpoint().to_str().unwrap());
        }
        assert_eq!(world.mounts(), 1);
        ready[0].signal(Signal::TERM);
        ready[0].has_ended();
        assert_eq!(world.mounts(), 0);
        assert!((0..8).all(|index| !world.path(&format!("s{index}")).exists()), "a socket is left behind");
    }
}

#[test]
fn a_socket_has_one_service_wherever_it_mounts() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let folders: Vec<PathBuf> = (0..8).map(|index| world.path(&format!("mnt{index}"))).collect();
    for folder in &folders {
        fs::create_dir(folder).expect("a folder");
    }
    let serving = |folder: &PathBuf| {
        let mut command = world.command(&["serve", "--json"]);
        command.arg(folder);
        command
    };
    let (ready, others) = herd(folders.iter().map(serving).collect());
    assert_eq!((ready.len(), others.len()), (1, 7), "{others:?}");
    assert_eq!(folders.iter().map(|folder| mounts_at(folder)).sum::<usize>(), 1);
    world.run(&["stop"]).ended_with(0);
    assert_eq!(folders.iter().map(|folder| mounts_at(folder)).sum::<usize>(), 0);
    world.is_clean();
}

#[test]
fn nothing_of_the_caller_is_held_open() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let mut shell = Command::new("sh");
    // Its output ends, for us, when everybody has closed it
    shell.args(["-c", "exec \"$@\" 9>&1 8>&2", "sh", BINARY, "serve", "--socket"]).arg(world.socket());
    shell.arg(world.mountpoint()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let shell = shell.spawn().expect("a shell");
    let (told, output) = std::sync::mpsc::channel();
    std::thread::spawn(move || told.send(shell.wait_with_output()));
    let output = output.recv_timeout(DEADLINE).expect("everybody has closed it");
    let ran = Ran::from(output.expect("a shell")).ended_with(0);
    assert!(ran.stdout.starts_with("ready: "), "{ran:?}");
    world.run(&["stop"]).ended_with(0);
    world.is_clean();
}

#[test]
fn the_log_is_where_it_was_asked_for() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let log = world.path("service.log");
    for round in 1..=2 {
        let ran: Ran = world.serving().arg("--log").arg(&log).output().expect("the command runs").into();
        let service = Service::of(&ran.ended_with(0).json()[0]);
        world.run(&["stop"]).ended_with(0);
        service.has_ended();
        let text = fs::read_to_string(&log).expect("the log");
        assert_eq!(text.matches(" ready ").count(), round, "{text}");
        assert_eq!(text.matches("told to stop").count(), round, "{text}");
        assert!(!text.contains('\x1b'), "colours in a file: {text}");
    }
    assert_eq!(fs::metadata(&log).expect("the log").permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_full_disk_takes_the_log_and_not_the_service() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let ran: Ran = world.serving().args(["--log", "/dev/full"]).output().expect("the command runs").into();
    let service = Service::of(&ran.ended_with(0).json()[0]);
    world.run(&["status"]).ended_with(0);
    world.run(&["stop"]).ended_with(0);
    service.has_ended();
    world.is_clean();
    // In the foreground, standard error is the log
    let full = File::options().write(true).open("/dev/full").expect("a full disk");
    let mut foreground =
        world.serving().arg("--foreground").stderr(full).stdout(Stdio::null()).spawn().unwrap();
    until("it serves", || world.run(&["status"]).code == Some(0));
    world.run(&["stop"]).ended_with(0);
    assert_eq!(crate::world::wait(&mut foreground).code(), Some(0));
    world.is_clean();
}
