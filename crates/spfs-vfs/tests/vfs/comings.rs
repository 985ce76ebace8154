//! Views come and go: their numbers do not come back, and nothing of them stays.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use pidigree::{Process, State};
use pidigree_testkit::{eventually, is_root, require, rounds};

use crate::common::{Place, Shell, alone, words};

#[test]
fn the_end_of_a_tree_is_the_end_of_its_view() {
    require!(is_root(), "needs root to mount");
    let place = Place::new();
    let layer = place.layer("layer", &[("file", "x")]);
    let mut shell = Shell::new();
    let id = place.add(&shell.process(), &layer);
    assert_eq!(shell.route(&place.link()), format!("views/{id}"));
    let members = place.views.members(shell.process().identity()).unwrap().unwrap();
    assert!(members.contains(shell.process().identity()), "{members:?}");
    let root = *shell.process().identity();
    let daemon = "while kill -0 $1 2>/dev/null; do :; done; echo daemon $$; readlink -v \"$2\"; read end";
    shell.say(&format!("exec 3<&0; setsid sh -c '{daemon}' sh $$ '{}' <&3 & exit", place.link().display()));
    shell.reap();
    let daemon = shell.hear_of("daemon").parse().unwrap();
    let daemon = Process::open(daemon).unwrap();
    // The root has ended, and its daemon has the view
    assert_eq!(shell.hear(), format!("views/{id}"));
    let early = place.views.next_emptied(Some(std::time::Duration::ZERO)).unwrap();
    assert_eq!((early, daemon.state().unwrap()), (None, State::Running));
    shell.end();
    let gone = place.emptied();
    assert_eq!((gone.id, gone.root), (id, root));
    assert_eq!(fs::metadata(place.directory(id)).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert!(place.views.list().is_empty());
    assert_eq!(place.views.members(&root).unwrap(), None);
    assert!(place.views.remove(&root).unwrap().is_none());
}

#[test]
fn a_root_that_has_ended_or_has_a_view_is_refused() {
    require!(is_root(), "needs root to mount");
    let place = Place::new();
    let layer = place.layer("layer", &[("file", "x")]);
    let shell = Shell::new();
    let process = shell.process();
    place.add(&process, &layer);
    let again = place.views.add(&process, std::slice::from_ref(&layer), crate::common::ROOT).unwrap_err();
    assert!(again.is_already_routed(), "{again}");
    assert_eq!(place.views.list().len(), 1);
    shell.end();
    place.emptied();
    let gone = place.views.add(&process, std::slice::from_ref(&layer), crate::common::ROOT).unwrap_err();
    assert!(gone.is_gone(), "{gone}");
    for layers in [vec![], vec![layer.join("missing")], vec![layer.join("file")], vec![place.at.clone()]] {
        let me = Process::current().unwrap();
        let error = place.views.add(&me, &layers, crate::common::ROOT).unwrap_err();
        assert!(error.is_invalid(), "{error}");
    }
    assert!(place.views.list().is_empty());
}

#[test]
fn what_holds_a_view_that_is_gone_gets_errors_and_never_another_view() {
    require!(is_root(), "needs root to mount");
    let place = Place::new();
    let text = "once".repeat(100_000);
    let old = place.layer("old", &[("sub/file", &text)]);
    let new = place.layer("new", &[("sub/file", "another")]);
    let me = Process::current().unwrap();
    let id = place.add(&me, &old);
    let view = place.directory(id);
    let mut holder = Shell::new();
    assert_eq!(
        holder.ask(&format!("cd '{}' && pwd -P", view.join("sub").display())),
        view.join("sub").to_str().unwrap()
    );
    let mut file = File::open(view.join("sub/file")).unwrap();
    let directory = File::open(&view).unwrap();
    let numbers: HashSet<u64> = [&view, &view.join("sub"), &view.join("sub/file")]
        .map(|path| fs::metadata(path).unwrap().ino())
        .into();

    place.views.remove(me.identity()).unwrap().unwrap();
    // That there is no view of the next number is not remembered
    let next = place.at.join(format!("views/{}", id.get() + 1));
    assert_eq!(fs::metadata(&next).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    let again = place.add(&me, &new);
    assert_eq!(again.get(), id.get() + 1);
    fs::metadata(&next).unwrap();
    let stale = |error: std::io::Error| {
        matches!(Errno::from_raw(error.raw_os_error().unwrap()), Errno::ESTALE | Errno::ENOENT)
    };
    assert!(stale(fs::metadata(view.join("sub/file")).unwrap_err()));
    // Nothing of it was in the page cache yet
    assert!(stale(file.read(&mut [0; 10]).unwrap_err()));
    let opened =
        nix::fcntl::openat(&directory, "sub", nix::fcntl::OFlag::O_RDONLY, nix::sys::stat::Mode::empty());
    assert!(matches!(opened, Err(Errno::ESTALE | Errno::ENOENT)), "{opened:?}");
    assert_eq!(holder.ask("cat file 2>/dev/null || echo nothing"), "nothing");
    assert_eq!(holder.ask("cat ../sub/file 2>/dev/null || echo nothing"), "nothing");
    let fresh = place.directory(again);
    for path in [&fresh, &fresh.join("sub"), &fresh.join("sub/file")] {
        assert!(
            !numbers.contains(&fs::metadata(path).unwrap().ino()),
            "{path:?} has the number of another file"
        );
    }
    assert_eq!(fs::read_to_string(place.link().join("sub/file")).unwrap(), "another");
}

/// What a service costs that 1,000 trees have come to and gone from, each of which has read something.
#[test]
fn a_thousand_views_leave_nothing_behind() {
    require!(is_root(), "needs root to mount");
    if words().is_none() {
        // In a process of its own: others open and allocate meanwhile
        alone("comings::a_thousand_views_leave_nothing_behind");
        return;
    }
    let place = Place::new();
    let names: Vec<String> = (0..20).map(|number| format!("sub/{number}")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "text")).collect();
    let (upper, lower) = (place.layer("upper", &files), place.layer("lower", &files));
    // As in a service: with its last tree a program gives up what it follows trees by, and would have to get it anew each time
    let other = Shell::new();
    place.add(&other.process(), &upper);
    let mut seen = HashSet::new();
    let mut round = || {
        let mut shell = Shell::new();
        let layers = [upper.clone(), lower.clone()];
        let id = place.views.add(&shell.process(), &layers, crate::common::ROOT).unwrap();
        assert!(seen.insert(id), "{id} came back");
        let read = shell.ask(&format!("cd '{}' && cat sub/* | wc -c", place.link().display()));
        assert_eq!(read, "80");
        shell.end();
        assert_eq!(place.emptied().id, id);
    };
    // Descriptors that threads and allocators keep are there after a few
    for _ in 0..50 {
        round();
    }
    let before = settled();
    let rounds = rounds(1_000);
    for _ in 0..rounds {
        round();
    }
    let after = settled();
    println!("descriptors and KiB: {before:?} before, {after:?} after {rounds}");
    // The router holds some callers that have ended, until others come; one a view would be far more
    assert!(after.0 <= before.0 + 128, "descriptors: {before:?} before, {after:?} after {rounds}");
    // A kilobyte a view would be lost noise in the second, and is not in this
    assert!(after.1 <= before.1 + 1024, "KiB of memory: {before:?} before, {after:?} after {rounds}");
}

/// Open descriptors and resident KiB, once the kernel has said what it forgot.
fn settled() -> (usize, u64) {
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let mut last = usize::MAX;
    let mut equal = 0;
    let descriptors = eventually("the number of open descriptors stands still", || {
        let now = descriptors();
        equal = if now == last { equal + 1 } else { 0 };
        last = now;
        (equal == 50).then_some(now)
    });
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    (descriptors, anonymous.trim().trim_end_matches(" kB").parse().unwrap())
}

/// One walks the path as fast as it can, by way of its own view, while the other has its cwd below the same path.
#[test]
fn getcwd_holds_while_another_tree_walks_the_same_path() {
    require!(is_root(), "needs root to mount");
    let place = Place::new();
    let (mine, other) =
        (place.layer("mine", &[("a/b/c", "mine")]), place.layer("other", &[("a/b/c", "other")]));
    let mut walker = Shell::new();
    let walked = place.add(&walker.process(), &other);
    let me = Process::current().unwrap();
    let id = place.add(&me, &mine);
    let mut sitter = Shell::new();
    let inside = place.directory(id).join("a/b");
    // The walker is a child of this process, too: its own view is the nearer one
    assert_eq!(walker.route(&place.link()), format!("views/{walked}"));
    let walk = format!(
        "while test -e '{0}/a/b/c'; do cat '{0}/a/b/c' >/dev/null; done; echo lost",
        place.link().display()
    );
    walker.say(&walk);
    sitter.say(&format!("cd '{}/a/b'", place.link().display()));
    for _ in 0..rounds(2_000) {
        assert_eq!(sitter.ask("/bin/pwd -P"), inside.to_str().unwrap());
        assert_eq!(fs::read_to_string(place.link().join("a/b/c")).unwrap(), "mine");
    }
    walker.kill();
}
