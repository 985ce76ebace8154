//! The benchmarks, where there is a mount.

mod every_lookup;

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::stat::{Mode, fstatat};
use pidigree::{Process, ProcessWatcher};
use serde_json::json;
use spfs_vfs::{Mount, MountOptions, Owner, Views};

use crate::judge::{Contest, Judge, each};
use every_lookup::EveryLookup;

const DEEP: &str = "a/b/c/d/e/file";
const OWNER: Owner = Owner { uid: 0, gid: 0 };

/// How often a file is opened in one turn.
const BATCH: u64 = 64;

/// Before anything is measured the kernel has been told of every name once.
const WARM: usize = 200;

/// One layer, mounted three times: for trees, for all, and with every lookup routed.
struct Place {
    views: Views,
    mount: Option<Mount>,
    alone: Option<Mount>,
    routed: PathBuf,
    unrouted: PathBuf,
    layer: PathBuf,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let inside = |name: &str| {
            let path = folder.path().canonicalize().expect("it is there").join(name);
            fs::create_dir(&path).expect("a folder");
            path
        };
        let (layer, at, unrouted) = (inside("layer"), inside("views"), inside("alone"));
        let file = layer.join(DEEP);
        fs::create_dir_all(file.parent().expect("it is deep")).expect("folders");
        fs::write(file, vec![7; 4096]).expect("a file");
        let views = Views::new().expect("processes can be followed");
        let mount = Mount::new(&at, views.clone(), MountOptions::default()).expect("root, and /dev/fuse");
        let layers = std::slice::from_ref(&layer);
        views.add(&Process::current().expect("itself"), layers, OWNER).expect("a view");
        let alone =
            Mount::of_layers(&unrouted, layers, MountOptions::default()).expect("root, and /dev/fuse");
        let routed = at.join("self");
        Place { views, mount: Some(mount), alone: Some(alone), routed, unrouted, layer, folder }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Before their folder
        (self.mount, self.alone) = (None, None);
    }
}

pub(crate) fn main() {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
        eprintln!("not here: needs root and /dev/fuse");
        return;
    }
    stay();
    let place = Place::new();
    let mut judge = Judge::from_env();
    if let Judge::Paired { time } = judge {
        requests(&place);
        latency(&place, (time.as_millis() as u64 / 3).clamp(100, 1_000));
    }
    relative(&place, &mut judge);
    absolute(&place, &mut judge);
}

/// On one processor, as are the threads of all mounts from here on. Else the scheduler puts those of one mount beside whoever asks, and
/// those of the other where they have to be woken from sleep, for as long as it likes: the same code at 0.86 or 1.18 times itself.
fn stay() {
    let me = nix::unistd::Pid::from_raw(0);
    let allowed = sched_getaffinity(me).expect("our own processors");
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).is_ok_and(|set| set));
    let mut one = CpuSet::new();
    one.set(last.expect("we run on one")).expect("it is one");
    sched_setaffinity(me, &one).expect("one of those that we may have");
}

/// B10. By a directory that is open, nobody goes through the link.
fn relative(place: &Place, judge: &mut Judge) {
    let directory = |base: &Path| File::open(base.join("a/b")).expect("a directory");
    let (ours, other) = (directory(&place.routed), directory(&place.unrouted));
    let name = "c/d/e/file";
    let stat = |directory: &File| fstatat(directory, name, AtFlags::empty()).expect("a file").st_size;
    judge.hold(
        Contest::new("B10", "stat, relative to a directory", each(|| stat(&ours)))
            .against("unrouted", each(|| stat(&other))),
    );
    // Many in one turn, and equally many: the kernel closes behind our back, so each turn begins with what the one before it left
    let read = |directory: &File, buffer: &mut [u8; 4096]| {
        for _ in 0..BATCH {
            let file =
                openat(directory, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).expect("a file");
            File::from(file).read_exact(buffer).expect("4 KiB");
        }
    };
    let mut buffers = ([0; 4096], [0; 4096]);
    let (mine, others) = (&mut buffers.0, &mut buffers.1);
    judge.hold(
        Contest::new("B10", "open and read 4 KiB, relative", each(|| read(&ours, mine)))
            .of(BATCH)
            .against("unrouted", each(|| read(&other, others))),
    );
    let open = |base: &Path| File::open(base.join(DEEP)).expect("a file");
    let (ours, other) = (open(&place.routed), open(&place.unrouted));
    let mut buffers = ([0; 4096], [0; 4096]);
    let (mine, others) = (&mut buffers.0, &mut buffers.1);
    judge.hold(
        Contest::new(
            "B10",
            "read 4 KiB of an open file",
            each(|| ours.read_exact_at(mine, 0).expect("4 KiB")),
        )
        .against("unrouted", each(|| other.read_exact_at(others, 0).expect("4 KiB"))),
    );
}

/// B11, in time.
fn absolute(place: &Place, judge: &mut Judge) {
    let every = EveryLookup::mount(&place.folder.path().join("every"), &place.layer);
    let (ours, control) = (place.routed.join(DEEP), every.path.join(DEEP));
    let stat = |path: &Path| fs::metadata(path).expect("a file").len();
    judge.hold(
        Contest::new("B11", "stat by absolute path, depth 6", each(|| stat(&ours)))
            .against("every lookup", each(|| stat(&control))),
    );
}

/// B11, in requests: what the kernel asks for a path that it knows.
fn requests(place: &Place) {
    let (Some(routed), Some(unrouted)) = (&place.mount, &place.alone) else { return };
    for depth in [1, 3, 6] {
        let below: PathBuf = Path::new(DEEP).components().take(depth).collect();
        let asked = |mount: &Mount, path: PathBuf| {
            for _ in 0..WARM {
                fs::metadata(&path).expect("it is there");
            }
            let before = mount.requests();
            for _ in 0..WARM {
                fs::metadata(&path).expect("it is there");
            }
            (mount.requests() - before) as f64 / WARM as f64
        };
        let (ours, other) =
            (asked(routed, place.routed.join(&below)), asked(unrouted, place.unrouted.join(&below)));
        let case = format!("requests of a stat by absolute path, depth {depth}");
        println!(
            "{}",
            json!({ "kind": "requests", "table": "B11", "case": case, "ours": ours, "unrouted": other })
        );
    }
}

/// B12: in turns with the floor, which is to be told of that end at all.
fn latency(place: &Place, rounds: u64) {
    let start = || Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat");
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut child = start();
        let root = Process::from_child(&child).expect("a child");
        let id = place.views.add(&root, std::slice::from_ref(&place.layer), OWNER).expect("a view");
        let view = place.routed.parent().expect("the mount").join(format!("views/{id}"));
        // Something of it is known to the kernel
        fs::metadata(view.join(DEEP)).expect("a file");
        let begun = Instant::now();
        child.kill().expect("a child that waits");
        let gone = place.views.next_emptied(None).expect("an end").expect("no timeout was set");
        let took = begun.elapsed();
        assert!(gone.id == id && !view.exists(), "the view is gone");
        ours.push(took);
        child.wait().expect("a child");

        let mut child = start();
        let watcher = ProcessWatcher::new().expect("a watcher");
        watcher.watch(&Process::from_child(&child).expect("a child")).expect("watched");
        let mut fds = [nix::poll::PollFd::new(watcher.as_fd(), nix::poll::PollFlags::POLLIN)];
        let begun = Instant::now();
        child.kill().expect("a child that waits");
        nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).expect("an end");
        raw.push(begun.elapsed());
        child.wait().expect("a child");
    }
    ours.sort_unstable();
    raw.sort_unstable();
    let [low, p99, high] = percentile(&ours);
    println!(
        "{}",
        json!({
            "kind": "latency", "table": "B12", "case": "end of a tree to the end of its view", "rounds": ours.len(),
            "p50_ns": nanoseconds(ours[ours.len() / 2]), "p99_ns": p99, "p99_low_ns": low, "p99_high_ns": high,
            "max_ns": nanoseconds(ours[ours.len() - 1]), "floor_p50_ns": nanoseconds(raw[raw.len() / 2]),
            "floor_p99_ns": percentile(&raw)[1], "target_ns": 10_000_000,
        })
    );
}

fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos() as u64
}

/// The 99th, within its 95 % interval by rank.
fn percentile(sorted: &[Duration]) -> [u64; 3] {
    let count = sorted.len() as f64;
    let reach = 1.96 * (count * 0.99 * 0.01).sqrt();
    [-reach, 0.0, reach].map(|by| {
        let rank = (0.99 * count + by).ceil().max(1.0) as usize;
        nanoseconds(sorted[rank.min(sorted.len()) - 1])
    })
}
