//! Requests: what they do, what they refuse, and how that is told.

use std::collections::HashSet;
use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use hyper_util::rt::TokioIo;
use pidigree::Identity;
use pidigree_testkit::{Family, is_root, require};
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::world::{World, until};

/// More than any process can have here, and still a PID.
const NOBODY: &str = "2147483647";

fn token(pid: u32) -> String {
    pidigree::Identity::of(pidigree::Pid::new(pid).unwrap()).unwrap().to_string()
}

/// What a member of the family sees of the view: reads the file `name` below `self`, as a child of its root would.
fn seen(world: &World) -> String {
    fs::read_to_string(world.path("mnt/self/name")).unwrap_or_default()
}

#[test]
fn a_view_is_mounted_listed_and_taken_away() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let _service = world.serve();
    let (upper, base) = (world.layer("upper"), world.path("base"));
    let family = Family::spawn("fork [ say kid pause ] say root pause");
    let (root, kid) = (family.fact("root").pid, family.fact("kid").pid);

    let mut command = world.command(&["mount", "--json", "--owner", "1234:1235"]);
    // One by its absolute path, and one that is relative to where the command runs
    command.arg("--root").arg(root.to_string()).arg(&upper).arg("base").current_dir(base.parent().unwrap());
    let view = crate::world::Ran::from(command.output().unwrap()).ended_with(0).json().remove(0);
    // Tokens may say more or less of one process.
    let whom = |token: &str| token.parse::<Identity>().unwrap();
    assert_eq!(whom(view["root"].as_str().unwrap()), whom(&token(root)));
    assert_eq!(view["layers"], serde_json::json!([upper, base]));
    assert_eq!((&view["uid"], &view["gid"]), (&1234.into(), &1235.into()));
    let id = view["id"].as_u64().expect("a number");

    let listed = world.run(&["list", "--members", "--json"]).ended_with(0).json();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["id"], id);
    assert_eq!(listed[0]["members"], 2);
    let members: HashSet<Identity> =
        listed[0]["member"].as_array().unwrap().iter().map(|member| whom(member.as_str().unwrap())).collect();
    let expected = HashSet::from([root, kid].map(|pid| whom(&token(pid))));
    assert_eq!(members, expected);
    let text = world.run(&["list"]).ended_with(0).stdout;
    assert!(text.contains(&format!("root {root}")) && text.contains("2 processes"), "{text}");
    assert!(!text.contains('\x1b'), "colours where no terminal is: {text:?}");
    assert_eq!(world.run(&["status", "--json"]).ended_with(0).json()[0]["views"], 1);
    assert_eq!(fs::read_to_string(world.path(&format!("mnt/views/{id}/name"))).unwrap(), "upper");

    // By its token, and a second time in vain
    let gone = world.run(&["unmount", "--json", "--root", &token(root)]).ended_with(0).json().remove(0);
    assert_eq!((&gone["unmounted"], &gone["view"]["id"]), (&true.into(), &id.into()));
    let none = world.run(&["unmount", "--json", "--root", &root.to_string()]).ended_with(1).json().remove(0);
    assert_eq!(none, serde_json::json!({"unmounted": false, "view": null}));
    world.run(&["unmount", "--root", &root.to_string()]).ended_with(1);
    assert_eq!(world.run(&["list", "--json"]).ended_with(0).stdout, "");
    assert_eq!(fs::read_dir(world.path("mnt/views")).unwrap().count(), 1, "the default one");
}

#[test]
fn who_is_mounted_for_sees_the_layers_through_self() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let _service = world.serve();
    assert_eq!(seen(&world), "");
    let mut shell = Command::new("sh");
    let script = r#"set -e; "$0" mount --root $$ "$1" --socket "$2" >/dev/null; cat "$3"; (cat "$3")"#;
    shell.args(["-c", script, crate::world::BINARY]).arg(world.layer("layer")).arg(world.socket());
    let output = shell.arg(world.path("mnt/self/name")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "layerlayer", "{output:?}");
    // It has ended, and we were never in it
    assert_eq!(seen(&world), "");
    until("the view leaves", || world.run(&["list"]).ended_with(0).stdout.is_empty());
}

#[test]
fn roots_that_can_have_no_view() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let _service = world.serve();
    let layer = world.layer("layer");
    for (root, code, names) in [
        ("0", 2, "\"0\""),
        ("-1", 2, "-1"),
        ("99999999999", 2, "99999999999"),
        ("one", 2, "one"),
        ("p1:1:x", 2, "p1:1:x"),
        (NOBODY, 5, NOBODY),
    ] {
        world.mount(root, &layer).failed_naming(code, names);
    }

    let threads = Family::spawn("thread [ say thread pause ] pause");
    let thread = threads.fact("thread").tid.to_string();
    world.mount(&thread, &layer).failed_naming(2, "thread");

    let mut family = Family::spawn("fork [ exit 3 ] say root fork [ say last pause ] pause");
    let (root, last) = (family.root_pid(), family.fact("last").pid);
    let ended = token(last);
    family.signal(last, 9);
    family.wait_ended(last);
    // Not reaped: a PID that names nobody who could look at a mount
    world.mount(&last.to_string(), &layer).failed_naming(5, &last.to_string());
    world.mount(&ended, &layer).failed_naming(5, &last.to_string());
    let reaped = token(root);
    family.end();
    family.child().wait().unwrap();
    world.mount(&reaped, &layer).failed_naming(5, &root.to_string());
    // What it had can still be asked for
    world.run(&["unmount", "--root", &reaped]).ended_with(1);
    assert_eq!(world.run(&["list"]).ended_with(0).stdout, "");
}

#[test]
fn a_thread_of_the_kernel_has_no_view() {
    require!(is_root(), "needs root to mount");
    // Its parent is nobody, and it is named so; in a container there is none
    let kthreadd = fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n");
    require!(kthreadd, "kernel threads cannot be seen from here");
    let world = World::new();
    let _service = world.serve();
    world.mount("2", &world.layer("layer")).failed_naming(2, "kernel");
    // Of processes whose main thread has ended the kernel has as little to tell
    let family = Family::spawn("thread [ say other pause ] thread-exit");
    let root = family.fact("other").pid.to_string();
    world.mount(&root, &world.layer("layer")).ended_with(0);
}

#[test]
fn layers_that_are_none() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let _service = world.serve();
    let family = Family::spawn("say root pause");
    let root = family.fact("root").pid.to_string();
    let missing = world.path("missing");
    world.mount(&root, &missing).failed_naming(2, missing.to_str().unwrap());
    let file = world.path("base/name");
    world.mount(&root, &file).failed_naming(2, file.to_str().unwrap());
    // A good one does not save it: nothing is done by halves
    let (base, missing) = (world.path("base"), world.path("missing"));
    let args = ["mount", "--root", &root, base.to_str().unwrap(), missing.to_str().unwrap()];
    world.run(&args).failed_naming(2, missing.to_str().unwrap());
    world.run(&["mount", "--root", &root]).failed_naming(2, "LAYER_DIR");
    assert_eq!(world.run(&["list"]).ended_with(0).stdout, "");
    world.mount(&root, &base).ended_with(0);
}

#[test]
fn a_second_view_for_the_same_root_is_refused() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let _service = world.serve();
    let family = Family::spawn("say root pause");
    let root = family.fact("root").pid.to_string();
    world.mount(&root, &world.path("base")).ended_with(0);
    world.mount(&root, &world.layer("other")).failed_naming(4, &root);
    let listed = world.run(&["list", "--json"]).ended_with(0).json();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["layers"], serde_json::json!([world.path("base")]));
    world.run(&["unmount", "--root", &root]).ended_with(0);
    world.mount(&root, &world.layer("other")).ended_with(0);
}

#[test]
fn without_a_service_every_request_says_how_to_start_one() {
    let world = World::new();
    let own = std::process::id().to_string();
    let base = world.path("base");
    let requests: [&[&str]; 5] = [
        &["mount", "--root", &own, base.to_str().unwrap()],
        &["unmount", "--root", &own],
        &["status"],
        &["list"],
        &["stop"],
    ];
    for request in requests {
        world.run(request).failed_naming(3, "spfs-fuse serve");
    }
    // One that has ended without having removed it
    drop(UnixListener::bind(world.socket()).unwrap());
    for request in requests {
        world.run(request).failed_naming(3, "spfs-fuse serve");
    }
    fs::remove_file(world.socket()).unwrap();
    fs::write(world.socket(), "").unwrap();
    world.run(&["status"]).failed_naming(2, "not a socket");
    // One that is something else, and leaves
    fs::remove_file(world.socket()).unwrap();
    let other = UnixListener::bind(world.socket()).unwrap();
    let leaving = std::thread::spawn(move || drop(other.accept().unwrap()));
    world.run(&["status"]).failed_naming(3, world.socket().to_str().unwrap());
    leaving.join().unwrap();
}

#[test]
fn health_is_told_by_the_standard_protocol() {
    require!(is_root(), "needs root to mount");
    let world = World::new();
    let service = world.serve();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = world.socket();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel =
            Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap();
        let mut health = HealthClient::new(channel);
        for name in ["", "spfs.vfs.v1.Fuse"] {
            let request = HealthCheckRequest { service: name.to_owned() };
            let answer = health.check(request).await.unwrap().into_inner();
            assert_eq!(answer.status, 1, "{name:?} is SERVING");
        }
        let unknown = health.check(HealthCheckRequest { service: "spfs.vfs.v1.Other".to_owned() }).await;
        assert_eq!(unknown.unwrap_err().code(), Code::NotFound);

        // Whoever watches is told of the end, and is not waited for
        let request = HealthCheckRequest { service: String::new() };
        let mut watched = health.watch(request).await.unwrap().into_inner();
        assert_eq!(watched.message().await.unwrap().unwrap().status, 1);
        service.signal(pidigree::Signal::TERM);
        if let Ok(Some(answer)) = watched.message().await {
            assert_eq!(answer.status, 2, "NOT_SERVING");
        }
    });
    drop(runtime);
    service.has_ended();
    world.is_clean();
}

#[test]
fn what_is_no_request_harms_nobody() {
    require!(is_root(), "needs root to mount");
    use std::io::Write;
    let world = World::new();
    let _service = world.serve();
    let mut held = Vec::new();
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0xff; 4096]] {
        let mut stream = UnixStream::connect(world.socket()).unwrap();
        let _ = stream.write_all(bytes);
        held.push(stream);
    }
    world.run(&["status"]).ended_with(0);
    // Those that are still connected do not hold the end up
    world.run(&["stop"]).ended_with(0);
    world.is_clean();
}
