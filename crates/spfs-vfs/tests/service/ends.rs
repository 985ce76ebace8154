//! The ends of those who have views, and of those who ask.

use std::fs;
use std::process::{Command, Stdio};

use pidigree_testkit::{Family, is_root, require, rounds};

use crate::world::{World, until};

fn views(world: &World) -> usize {
    world.run(&["list"]).ended_with(0).stdout.lines().count()
}

#[test]
fn a_view_leaves_with_its_root() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let _service = world.serve();
    let family = Family::spawn("say root pause");
    let root = family.fact("root").pid.to_string();
    world.mount(&root, &world.path("base")).ended_with(0);
    assert_eq!(views(&world), 1);
    drop(family);
    until("the view leaves", || views(&world) == 0);
    assert_eq!(fs::read_dir(world.path("mnt/views")).unwrap().count(), 1, "the default one");
}

#[test]
fn a_view_stays_for_orphans_and_daemons() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let _service = world.serve();
    let mut family =
        Family::spawn("say root await fork [ say orphan pause ] double-fork [ say daemon pause ] exit 0");
    let root = family.fact("root").pid;
    world.mount(&root.to_string(), &world.path("base")).ended_with(0);
    family.poke(root);
    let (orphan, daemon) = (family.fact("orphan").pid, family.fact("daemon").pid);
    family.child().wait().unwrap();
    let listed = world.run(&["list", "--members", "--json"]).ended_with(0).json();
    assert_eq!(listed.len(), 1, "the root has ended, its tree has not");
    let members: Vec<u64> = listed[0]["member"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token.as_str().unwrap().split(':').nth(1).unwrap().parse().unwrap())
        .collect();
    assert!(members.len() == 2 && members.contains(&orphan.into()) && members.contains(&daemon.into()));
    family.signal(orphan, 9);
    family.wait_ended(orphan);
    assert_eq!(views(&world), 1, "the daemon is still there");
    family.signal(daemon, 9);
    until("the view leaves", || views(&world) == 0);
}

#[test]
fn a_client_that_is_killed_has_done_all_or_nothing() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let service = world.serve();
    let layer = world.layer("layer");
    let family = Family::spawn("say root pause");
    let root = family.fact("root").pid.to_string();
    // What the first requests leave open for good
    for _ in 0..4 {
        world.mount(&root, &layer).ended_with(0);
        world.run(&["unmount", "--root", &root]).ended_with(0);
    }
    let before = service.descriptors();
    for round in 0..rounds(60) {
        let mut command = world.command(&["mount", "--root", &root]);
        command.arg(&layer).stdout(Stdio::null()).stderr(Stdio::null());
        let mut client = command.spawn().expect("the command runs");
        // At another point of its life each time: not at an event, but it is no event that is waited for
        std::thread::sleep(std::time::Duration::from_micros(150 * round as u64));
        let _ = client.kill();
        let _ = client.wait();
        // Its request may still be under way. Once this one is through, so is that
        until("the view is there as a whole, or not at all", || {
            match world.run(&["unmount", "--root", &root]).code {
                Some(0) => true,
                Some(1) => views(&world) == 0,
                code => panic!("{code:?}"),
            }
        });
    }
    until("nothing is kept of them", || {
        // One of the killed may have been late
        let _ = world.run(&["unmount", "--root", &root]);
        service.descriptors() <= before
    });
    world.run(&["stop"]).ended_with(0);
    world.is_clean();
}

#[test]
fn a_service_in_the_tree_of_its_own_view_ends_with_it() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    // The shell is the root, and what it has started serves it
    let script = r#"
        "$0" serve --foreground --socket "$1" "$2" >/dev/null 2>&1 & service=$!
        until "$0" status --socket "$1" >/dev/null 2>&1; do :; done
        "$0" mount --root $$ "$3" --socket "$1" && cat "$2/self/name" && "$0" stop --socket "$1" && wait $service"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script, crate::world::BINARY]);
    let output = shell.arg(world.socket()).arg(world.mountpoint()).arg(world.path("base")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("\nbase"), "{output:?}");
    world.is_clean();
}
