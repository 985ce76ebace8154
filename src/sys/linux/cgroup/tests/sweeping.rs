//! What is swept, and what is not. The owners are processes of their own: this test again, as its environment says.

use std::os::unix::fs::MetadataExt;

use super::*;

const ROLE: &str = "PIDIGREE_CGROUP_OWNER";
const TEST: &str = "sys::backend::cgroup::tests::sweeping::only_what_dead_trackers_left_is_swept";

/// A tracker of one empty cgroup and one with a member that outlives it.
struct Owner {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Owner {
    /// With the words of a launcher, or none.
    fn start(launcher: &[&str]) -> (Owner, [PathBuf; 2]) {
        let mut command = Command::new(binary());
        let exe = std::env::current_exe().unwrap();
        if launcher.is_empty() {
            command = Command::new(&exe);
        } else {
            command.args(launcher).arg("--").arg(&exe);
        }
        command.args(["--exact", TEST, "--nocapture"]).env(ROLE, "1");
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let mut paths = Vec::new();
        while paths.len() < 2 {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "the owner ended");
            paths.extend(line.trim_end().split_once("cgroup ").map(|(_, path)| PathBuf::from(path)));
        }
        (Owner { process, lines }, paths.try_into().unwrap())
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        // In another PID namespace the owner is another one than the process that was killed, and ends with it.
        std::io::copy(&mut self.lines, &mut std::io::sink()).unwrap();
    }
}

impl Drop for Owner {
    /// It removes what it has made.
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

fn own_and_wait() {
    let (empty, populated) = (Cgroup::create().unwrap(), Cgroup::create().unwrap());
    let mut sleep = Command::new("sleep");
    sleep.arg("600").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut member = spawn_in(&populated, &mut sleep).unwrap();
    println!("cgroup {}\ncgroup {}", empty.path().display(), populated.path().display());
    // Until it is killed, or its test has died.
    let _ = std::io::stdin().read(&mut [0]);
    populated.kill().unwrap();
    member.wait().unwrap();
}

/// Ends and removes what is left in any case.
struct Leavings(Vec<PathBuf>);

impl Drop for Leavings {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::write(path.join("cgroup.kill"), "1");
            let deadline = Instant::now() + DEADLINE;
            while std::fs::remove_dir(path).is_err() && path.exists() && Instant::now() < deadline {
                std::thread::yield_now();
            }
        }
    }
}

#[test]
fn only_what_dead_trackers_left_is_swept() {
    if std::env::var_os(ROLE).is_some() {
        return own_and_wait();
    }
    let mine = cgroup_or_skip!();
    let home = mine.path().parent().unwrap().to_owned();
    let name = mine.path().file_name().unwrap().to_str().unwrap();
    let foreign = [format!("x{name}"), format!("{name}x"), "pidigree-p1.5-1-1x".to_owned()];
    let foreign = foreign.map(|name| home.join(name));

    let (mut dead, [left, running]) = Owner::start(&[]);
    let (live, [held, _]) = Owner::start(&[]);
    let namespace = ["in-ns", "pid,mount"];
    let (inside, [held_inside, _]) = Owner::start(&namespace);
    let mut leavings = Leavings(vec![left.clone(), running.clone()]);
    for path in &foreign {
        std::fs::create_dir(path).unwrap();
        leavings.0.push(path.clone());
    }
    let id = std::fs::metadata(&running).unwrap().ino();
    let kept = running.join("kept");
    std::fs::create_dir(&kept).unwrap();
    leavings.0.insert(0, kept.clone());

    dead.kill();
    // Nobody sweeps but who makes one.
    let (_next, _) = Owner::start(&[]);
    // At once, but where the sweep of another test has it in hand.
    eventually("the empty one of a dead owner is removed", || (!left.exists()).then_some(()));
    assert!(running.exists(), "its owner is dead, and its tree is not");
    assert!(kept.exists(), "what the tree has made for itself");
    assert!(held.exists() && held_inside.exists(), "empty, and their owners live");
    assert!(mine.path().exists());
    for path in &foreign {
        assert!(path.exists(), "{} is not ours", path.display());
    }

    let adopted = Cgroup::reopen(&running, id).unwrap().unwrap();
    assert!(adopted.is_populated().unwrap());
    assert!(adopted.kill().unwrap());
    wait_empty(&adopted);
    sweep::sweep(&Home::find().unwrap());
    assert!(running.exists(), "empty, and held by its successor");
    drop(adopted);
    assert!(!running.exists());
    drop((live, inside));
}

#[test]
fn sweeps_at_once_do_not_disturb_those_who_make_cgroups() {
    drop(cgroup_or_skip!());
    let end = std::sync::atomic::AtomicBool::new(false);
    let made: Vec<_> = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let home = Home::find().unwrap();
                while !end.load(Ordering::Relaxed) {
                    sweep::sweep(&home);
                }
            });
        }
        let make = || (0..100).filter(|_| Cgroup::create().unwrap().path().exists()).count();
        let makers = [scope.spawn(make), scope.spawn(make)];
        let made = makers.map(std::thread::ScopedJoinHandle::join);
        end.store(true, Ordering::Relaxed);
        made.into_iter().collect()
    });
    let made: usize = made.into_iter().map(Result::unwrap).sum();
    assert_eq!(made, 200, "each is there as long as it is held");
}
