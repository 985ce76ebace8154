//! A test in another world: the test executable runs itself again, through a launcher.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::{binary, launcher, sys};

/// Names the test whose body this process is here to run.
pub(crate) const STAGE: &str = "PIDIGREE_STAGE";

/// The words of the launcher, since a test may have several stages.
const WORLD: &str = "PIDIGREE_STAGE_WORLD";

static IN_BODY: AtomicBool = AtomicBool::new(false);

/// Whether this process is here for a body, and that has not begun (or has ended).
pub(crate) fn before_body() -> bool {
    std::env::var_os(STAGE).is_some() && !IN_BODY.load(Ordering::SeqCst)
}

/// How long a body may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// Runs `body` in another world, which the words of `launch` describe (a mode of `pidigree-testkit`; the final `--` may be
/// left out).
///
/// `test` is the path by which libtest knows the calling test: in an integration test, the name of its function. The test
/// executable is started again under the launcher with this test alone, where the call to `stage` runs the body; here,
/// `stage` waits for it and asserts that the body ran to its end, once, and passed. Everything it printed is in the
/// message of a failure.
///
/// A test may have several stages, of different words, one after the other. Each passes over the others' bodies, but runs what
/// stands around them: let that be nothing but [`require!`](crate::require), which is settled outside.
///
/// With `--uid` in `launch`, both executables are first copied to where that user can read them.
///
/// A world that cannot be made here skips the test, as [`require!`](crate::require) does.
///
/// # Panics
///
/// When the body panics, does not run, or takes more than five minutes.
///
/// # Example
///
/// ```no_run
/// # use pidigree_testkit::stage;
/// # fn only() {
/// stage("our_init_is_pid_1", &["in-ns", "pid,mount"], || {
///     assert_eq!(std::fs::read_to_string("/proc/1/comm").unwrap(), "pidigree-testki\n");
/// });
/// # }
/// ```
pub fn stage(test: &str, launch: &[&str], body: impl FnOnce()) {
    let marker = format!("[pidigree-stage {test} reached its end]");
    let words = launch.join(" ");
    if let Ok(staged) = std::env::var(STAGE) {
        assert!(before_body(), "stages do not nest: {test} in {staged}");
        if staged == test && std::env::var(WORLD).is_ok_and(|world| world == words) {
            IN_BODY.store(true, Ordering::SeqCst);
            body();
            IN_BODY.store(false, Ordering::SeqCst);
            println!("{marker}");
        }
        return;
    }
    let executables = Executables::find(launch.contains(&"--uid"));
    let mut command = Command::new(&executables.launcher);
    command.args(launch);
    if launch.last() != Some(&"--") {
        command.arg("--");
    }
    command.arg(&executables.test);
    command.args(["--exact", test, "--include-ignored", "--nocapture", "--test-threads=1"]);
    command
        .env(STAGE, test)
        .env(WORLD, words)
        .env(binary::BINARY, &executables.launcher)
        .stdin(Stdio::null());
    if executables.copies.is_some() {
        command.current_dir("/");
    }
    let (code, output) = run(command);
    if code == Some(i32::from(launcher::CANNOT)) {
        let _ = crate::skip(&format!("{launch:?} cannot be had here: {}", output.trim()));
        return;
    }
    assert!(code == Some(0), "{test} under {launch:?} ended with {code:?}:\n{output}");
    let passed = output.contains("test result: ok. 1 passed");
    assert!(passed, "{test} did not run under {launch:?}: is that its name?\n{output}");
    let skipped: Vec<&str> = output.lines().filter(|line| line.contains("SKIPPED ")).collect();
    for line in &skipped {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    assert!(output.contains(&marker), "{test} did not reach its end under {launch:?}:\n{output}");
}

/// Runs the command to its end; everything that it and its children printed.
fn run(mut command: Command) -> (Option<i32>, String) {
    let (read, write) = sys::pipe().expect("a pipe");
    command.stdout(write.try_clone().expect("a descriptor")).stderr(write);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    // It holds the write end that the child has
    drop(command);
    let mut output = Vec::new();
    let complete = read_all(read, &mut output);
    let output = String::from_utf8_lossy(&output).into_owned();
    if !complete {
        give_up(&mut child);
        panic!("not within {DEADLINE:?}, or something outlives the test:\n{output}");
    }
    let status = child.wait().expect("a child can be waited for");
    (status.code(), output)
}

fn read_all(pipe: OwnedFd, into: &mut Vec<u8>) -> bool {
    let deadline = Instant::now() + DEADLINE;
    let mut pipe = File::from(pipe);
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if !sys::wait_readable(&[pipe.as_fd()], Some(left)).expect("a pipe can be polled") {
            return false;
        }
        match pipe.read(&mut buffer).expect("a pipe can be read") {
            0 => return true,
            read => into.extend_from_slice(&buffer[..read]),
        }
    }
}

fn give_up(child: &mut Child) {
    // The launcher's end is the end of its PID namespace; without one, lifelines end the rest
    let _ = child.kill();
    let _ = child.wait();
}

/// The launcher and this test, where the body's user can execute them.
struct Executables {
    launcher: PathBuf,
    test: PathBuf,
    copies: Option<Copies>,
}

impl Executables {
    fn find(public: bool) -> Executables {
        let launcher = binary().to_owned();
        let test = std::env::current_exe().expect("a test knows its own executable");
        if !public {
            return Executables { launcher, test, copies: None };
        }
        let copies = Copies::new();
        Executables { launcher: copies.of(&launcher), test: copies.of(&test), copies: Some(copies) }
    }
}

/// A folder of executables that every user can read and only we can write; removed on drop.
#[derive(Debug)]
pub(crate) struct Copies(PathBuf);

impl Copies {
    pub(crate) fn new() -> Copies {
        let template = std::env::temp_dir().join("pidigree-testkit-XXXXXX");
        let copies = Copies(nix::unistd::mkdtemp(&template).expect("a temporary folder"));
        set_mode(&copies.0);
        copies
    }

    pub(crate) fn of(&self, executable: &Path) -> PathBuf {
        let copy = self.0.join(executable.file_name().expect("an executable has a name"));
        // By another process: while we had it open for writing, so would each child that another thread forks, and
        // until that one's exec ours would be refused (ETXTBSY)
        let status = Command::new("cp").arg(executable).arg(&copy).status();
        assert!(status.is_ok_and(|status| status.success()), "{} can be copied", executable.display());
        set_mode(&copy);
        copy
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn set_mode(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our own file takes a mode");
}
