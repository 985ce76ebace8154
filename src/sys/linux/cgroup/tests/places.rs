//! Where a cgroup can be made, and where not, and why.

use nix::unistd::{Gid, Uid, setegid, seteuid, setgroups};
use pidigree_testkit::is_root;

use super::*;

const NOBODY: u32 = 65534;

/// A cgroup of the test's own making, with the calling process in it; only for a process that has one test to run.
struct Place(PathBuf);

impl Place {
    fn enter() -> Place {
        let place = Place(Home::find().unwrap().path.join(format!("pidigree-test-{}", std::process::id())));
        std::fs::create_dir(&place.0).unwrap();
        place.write("cgroup.procs", "0");
        place
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.0.join(file), text).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        become_user(0);
        let _ = std::fs::write(self.0.join("../cgroup.procs"), "0");
        for below in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(below.path());
        }
        std::fs::remove_dir(&self.0).unwrap();
    }
}

/// Effectively, for the time being.
fn become_user(id: u32) {
    if id == 0 {
        seteuid(Uid::from_raw(0)).unwrap();
    }
    setgroups(&[Gid::from_raw(id)]).unwrap();
    setegid(Gid::from_raw(id)).unwrap();
    seteuid(Uid::from_raw(id)).unwrap();
}

fn mount(kind: Option<&std::ffi::CStr>, target: &Path, flags: libc::c_ulong) {
    let target = std::ffi::CString::new(target.as_os_str().as_encoded_bytes()).unwrap();
    let kind = kind.map_or(std::ptr::null(), std::ffi::CStr::as_ptr);
    // SAFETY: each pointer is null or of a NUL-terminated string that outlives the call.
    let result = unsafe { libc::mount(kind, target.as_ptr(), kind, flags, std::ptr::null()) };
    Errno::result(result).unwrap_or_else(|errno| panic!("{target:?}: {errno}"));
}

fn unmount(target: &Path) {
    let target = std::ffi::CString::new(target.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the pointer is of a NUL-terminated string that outlives the call.
    let result = unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    Errno::result(result).unwrap_or_else(|errno| panic!("{target:?}: {errno}"));
}

/// The mount point of cgroup2, when the test is not in a cgroup below.
fn mount_point() -> PathBuf {
    let mounts = parse::cgroup::mounts(&std::fs::read("/proc/thread-self/mountinfo").unwrap()).unwrap();
    PathBuf::from(String::from_utf8(mounts.last().unwrap().point.clone()).unwrap())
}

macro_rules! in_a_place {
    ($test:literal, $body:expr) => {
        require!(is_root(), "needs root, to make a place and give it away");
        drop(cgroup_or_skip!());
        stage(concat!("sys::backend::cgroup::tests::places::", $test), &["in-ns", "mount"], $body);
    };
}

#[test]
fn it_is_made_below_the_cgroup_that_we_are_in() {
    in_a_place!("it_is_made_below_the_cgroup_that_we_are_in", || {
        let place = Place::enter();
        let cgroup = Cgroup::create().unwrap();
        assert_eq!(cgroup.path().parent(), Some(&*place.0));
    });
}

#[test]
fn a_tracker_leaves_its_own_tree() {
    in_a_place!("a_tracker_leaves_its_own_tree", || {
        let cgroup = Cgroup::create().unwrap();
        let before = unified_path_of("/proc/thread-self");
        cgroup.leave().unwrap();
        assert_eq!(unified_path_of("/proc/thread-self"), before, "it was not in it");
        let below = cgroup.path().join("below");
        std::fs::create_dir(&below).unwrap();
        for inside in [cgroup.path(), &below] {
            std::fs::write(inside.join("cgroup.procs"), "0").unwrap();
            assert!(cgroup.contains_self().unwrap());
            assert!(cgroup.is_populated().unwrap());
            cgroup.leave().unwrap();
            assert!(!cgroup.contains_self().unwrap());
            assert_eq!(unified_path_of("/proc/thread-self"), before);
        }
        assert!(!cgroup.is_populated().unwrap());
    });
}

#[test]
fn another_users_cgroup_is_denied_until_it_is_delegated() {
    in_a_place!("another_users_cgroup_is_denied_until_it_is_delegated", || {
        let place = Place::enter();
        let empty = || below::list(&open_directory(AT_FDCWD, &place.0).unwrap()).unwrap().is_empty();
        become_user(NOBODY);
        let error = Cgroup::create().unwrap_err();
        assert!(error.is_denied(), "{error}");
        assert!(error.to_string().contains("not delegated"), "{error}");

        // Its directory alone is not enough: nothing could be moved.
        become_user(0);
        std::os::unix::fs::chown(&place.0, Some(NOBODY), Some(NOBODY)).unwrap();
        become_user(NOBODY);
        assert!(Cgroup::create().unwrap_err().is_denied());
        assert!(empty(), "a failure leaves nothing");

        become_user(0);
        std::os::unix::fs::chown(place.0.join("cgroup.procs"), Some(NOBODY), Some(NOBODY)).unwrap();
        become_user(NOBODY);
        let cgroup = Cgroup::create().unwrap();
        let family = Members::spawn(&cgroup, Command::new("cat").stderr(Stdio::null()));
        assert_eq!(cgroup.members().unwrap(), [family.pid()]);
        drop(family);
        assert!(cgroup.remove().unwrap());
        assert!(empty());
    });
}

/// The permission is that of whoever adds it, not of whom it has become.
#[test]
fn the_root_may_be_another_user() {
    in_a_place!("the_root_may_be_another_user", || {
        use std::os::unix::process::CommandExt;
        let cgroup = Cgroup::create().unwrap();
        let mut command = Command::new("cat");
        command.uid(NOBODY).gid(NOBODY).current_dir("/").arg("/proc/self/cgroup");
        let name = cgroup.path().file_name().unwrap().to_str().unwrap();
        assert!(Members::spawn(&cgroup, &mut command).output().contains(name));
    });
}

#[test]
fn a_read_only_cgroup2_says_so() {
    in_a_place!("a_read_only_cgroup2_says_so", || {
        let point = mount_point();
        drop(Cgroup::create().unwrap());
        mount(None, &point, libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY);
        let error = Cgroup::create().unwrap_err();
        assert!(error.is_unsupported() && error.to_string().contains("read-only"), "{error}");
    });
}

#[test]
fn a_covered_cgroup2_says_so() {
    in_a_place!("a_covered_cgroup2_says_so", || {
        let point = mount_point();
        mount(Some(c"tmpfs"), &point, 0);
        let error = Cgroup::create().unwrap_err();
        assert!(error.is_unsupported() && error.to_string().contains("no cgroup2 mounted here"), "{error}");
        // Over that, it is to be seen again.
        mount(Some(c"cgroup2"), &point, 0);
        assert!(Cgroup::create().unwrap().path().starts_with(&point));
    });
}

#[test]
fn no_cgroup2_at_all_says_so() {
    in_a_place!("no_cgroup2_at_all_says_so", || {
        let cgroup = Cgroup::create().unwrap();
        unmount(&mount_point());
        let error = Cgroup::create().unwrap_err();
        assert!(error.is_unsupported() && error.to_string().contains("no cgroup2 is mounted"), "{error}");
        let error = Cgroup::reopen(cgroup.path(), cgroup.id()).unwrap_err();
        assert!(error.is_foreign(), "unseen is not gone: {error}");
    });
}

#[test]
fn a_full_cgroup_says_so() {
    in_a_place!("a_full_cgroup_says_so", || {
        let place = Place::enter();
        place.write("cgroup.max.descendants", "0");
        let error = Cgroup::create().unwrap_err();
        assert!(error.to_string().contains("cgroup.max.descendants"), "{error}");
    });
}

/// At whichever step the descriptors run out.
#[test]
fn what_fails_halfway_leaves_nothing() {
    in_a_place!("what_fails_halfway_leaves_nothing", || {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let place = Place::enter();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let mut failures = 0;
        let made = (0..20).find_map(|more| {
            let next = File::open("/").unwrap().as_raw_fd() as u64;
            setrlimit(Resource::RLIMIT_NOFILE, next + more, hard).unwrap();
            let made = Cgroup::create();
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
            if let Err(error) = &made {
                failures += 1;
                assert!(error.is_limit(), "{error}");
                assert_eq!(std::fs::read_dir(&place.0).unwrap().flatten().filter(is_directory).count(), 0);
            }
            made.ok()
        });
        assert!(made.is_some() && failures > 3, "{failures} failures");
    });
}

fn is_directory(entry: &std::fs::DirEntry) -> bool {
    entry.file_type().unwrap().is_dir()
}

#[test]
fn a_threaded_cgroup_says_so() {
    in_a_place!("a_threaded_cgroup_says_so", || {
        let place = Place::enter();
        let below = place.0.join("threaded");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join("cgroup.type"), "threaded").unwrap();
        let threaded = |error: Error| error.is_unsupported() && error.to_string().contains("threaded");
        // We are in the one above it now, which can hold no processes below but those of threads.
        assert!(threaded(Cgroup::create().unwrap_err()));
        std::fs::write(below.join("cgroup.procs"), "0").unwrap();
        assert!(threaded(Cgroup::create().unwrap_err()));
        let kept = below::list(&open_directory(AT_FDCWD, &place.0).unwrap()).unwrap();
        assert_eq!(kept, [Path::new("threaded")], "a failure leaves nothing");
        place.write("cgroup.procs", "0");
    });
}

/// What the mount shows at its top is above the root of the namespace, so that the path below it is not known.
#[test]
fn another_cgroup_namespace_needs_a_mount_of_its_own() {
    in_a_place!("another_cgroup_namespace_needs_a_mount_of_its_own", || {
        let point = mount_point();
        let outer = Cgroup::create().unwrap();
        let _member = Members::spawn(&outer, &mut Command::new("cat"));
        let place = Place::enter();
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWCGROUP).unwrap();
        let error = Cgroup::create().unwrap_err();
        assert!(error.is_unsupported() && error.to_string().contains("namespace"), "{error}");

        let hidden = place.0.clone();
        // Right over the other one it would be refused, as the same.
        mount(Some(c"tmpfs"), &point, 0);
        mount(Some(c"cgroup2"), &point, 0);
        assert!(!hidden.exists(), "the mount shows the namespace's own");
        let cgroup = Cgroup::create().unwrap();
        assert_eq!(cgroup.path().parent(), Some(&*point));
        let family = Members::spawn(&cgroup, &mut Command::new("cat"));
        assert_eq!(cgroup.members().unwrap(), [family.pid()]);
        drop(family);
        assert!(cgroup.remove().unwrap());
        assert!(Cgroup::reopen(cgroup.path(), cgroup.id()).unwrap().is_none());

        let error = Cgroup::reopen(outer.path(), outer.id()).unwrap_err();
        assert!(error.is_foreign(), "unseen is not gone: {error}");

        unmount(&point);
        unmount(&point);
    });
}
