//! What a long life costs, and what happens where there is nothing left.

use std::os::unix::net::UnixStream;
use std::process::Command;

use pidigree::{Pid, Process};
use pidigree_testkit::{idle_children, is_root, require, rounds};
use spfs_vfs::client::Client;

use crate::world::{BINARY, World, until};

#[test]
fn a_thousand_mounts_and_ends_leave_nothing() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let service = world.serve();
    let layers = [world.layer("upper"), world.path("base")];
    let mut client = Client::connect(&world.socket()).unwrap();
    let batch = 50;
    let batches = rounds(1000).div_ceil(batch).max(2);
    let mut before = (0, 0);
    for done in 0..batches {
        let mut roots = idle_children(batch);
        for index in 0..batch {
            let root = Process::open(Pid::new(roots.pids()[index]).unwrap()).unwrap();
            let view = client.mount(&root, &layers, None).unwrap();
            if index % 2 == 0 {
                assert_eq!(client.unmount(root.identity()).unwrap().map(|gone| gone.id), Some(view.id));
            }
            roots.reap_one(index);
        }
        until("the views leave", || client.status().unwrap().views == 0);
        // The first ones make room for what is used again
        if done == batches / 4 {
            before = (service.descriptors(), service.resident());
        }
    }
    until("descriptors are as before", || service.descriptors() <= before.0);
    let (resident, was) = (service.resident(), before.1);
    // An allocator gives back in its own time; 1,000 mounts of 4 KiB each would be twice this
    assert!(resident <= was + 2048, "{was} KiB became {resident} KiB");
    client.stop(pidigree_testkit::DEADLINE).unwrap();
    world.is_clean();
}

#[test]
fn without_descriptors_it_goes_on_when_there_are_some() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let mut command = Command::new(pidigree_testkit::binary());
    command.args(["nofile", "64", "64", "--", BINARY, "serve", "--json", "--socket"]).arg(world.socket());
    let ran: crate::world::Ran = command.arg(world.mountpoint()).output().unwrap().into();
    let service = crate::world::Service::of(&ran.ended_with(0).json()[0]);
    let family = pidigree_testkit::Family::spawn("say root pause");
    let root = Process::open(Pid::new(family.fact("root").pid).unwrap()).unwrap();
    let mut client = Client::connect(&world.socket()).unwrap();
    client.status().unwrap();
    let held: Vec<UnixStream> = (0..80).map_while(|_| UnixStream::connect(world.socket()).ok()).collect();
    until("its descriptors are used up", || service.descriptors() >= 63);
    // Of the connection that it has
    let refused = client.mount(&root, &[world.path("base")], None).unwrap_err();
    assert!(refused.to_string().contains("file"), "{refused}");
    assert!(client.status().unwrap().views == 0, "nothing is done by halves");
    drop(held);
    until("it accepts again", || world.run(&["status"]).code == Some(0));
    until("it mounts again", || client.mount(&root, &[world.path("base")], None).is_ok());
    world.run(&["stop"]).ended_with(0);
    service.has_ended();
    world.is_clean();
}
