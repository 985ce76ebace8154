//! A folder to mount on, a socket, and whatever serves there; nothing of it outlives the test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use pidigree::{Identity, Process, Signal};
use pidigree_testkit::{DEADLINE, eventually};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_spfs-fuse");

/// What a run of the command came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("standard output is text"),
            stderr: String::from_utf8(output.stderr).expect("standard error is text"),
        }
    }
}

impl Ran {
    /// Asserts the exit code, and that an error is told in one line and nothing else is.
    #[track_caller]
    pub(crate) fn ended_with(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "{self:?}");
        let told = usize::from(!matches!(code, 0 | 1));
        assert_eq!(self.stderr.lines().count(), told, "{self:?}");
        assert_eq!(self.stderr.starts_with("spfs-fuse: "), told == 1, "{self:?}");
        self
    }

    /// Asserts an error, and that it names this.
    #[track_caller]
    pub(crate) fn failed_naming(self, code: i32, what: &str) -> Ran {
        let ran = self.ended_with(code);
        assert!(ran.stderr.contains(what), "{ran:?} does not name {what:?}");
        assert_eq!(ran.stdout, "", "half an answer: {ran:?}");
        ran
    }

    /// Asserts that this is JSON, an object a line.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        self.stdout.lines().map(object).collect()
    }
}

#[track_caller]
pub(crate) fn object(line: &str) -> Value {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
    assert!(value.is_object(), "{line}");
    value
}

pub(crate) struct World {
    folder: TempDir,
}

impl World {
    pub(crate) fn new() -> World {
        let folder = TempDir::new().expect("a temporary folder");
        // Others are to be refused by the service, not by this
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("our own folder");
        for name in ["mnt", "base"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        fs::write(folder.path().join("base/name"), "base").expect("a file");
        World { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn mountpoint(&self) -> PathBuf {
        self.path("mnt")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("s")
    }

    /// A layer: a folder with one file, `name`, in which its name is.
    pub(crate) fn layer(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("a folder");
        fs::write(path.join("name"), name).expect("a file");
        path
    }

    /// The command, to be talked to through this socket.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(args).arg("--socket").arg(self.socket()).stdin(Stdio::null());
        command.env_remove("RUST_LOG");
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().expect("the command runs").into()
    }

    /// Mounts a layer for a process.
    pub(crate) fn mount(&self, root: &str, layer: &Path) -> Ran {
        self.run(&["mount", "--root", root, layer.to_str().expect("text"), "--json"])
    }

    pub(crate) fn serving(&self) -> Command {
        let mut command = self.command(&["serve", "--json"]);
        command.arg(self.mountpoint());
        command
    }

    /// A service in the background.
    #[track_caller]
    pub(crate) fn serve(&self) -> Service {
        let ran = Ran::from(self.serving().output().expect("the command runs")).ended_with(0);
        Service::of(&ran.json()[0])
    }

    /// A service in the foreground, once it is ready.
    pub(crate) fn foreground(&self) -> Foreground {
        self.foreground_of(self.serving())
    }

    pub(crate) fn foreground_of(&self, mut command: Command) -> Foreground {
        let log = fs::File::create(self.path("log")).expect("a file");
        command.arg("--foreground").stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the command runs");
        let out = child.stdout.take().expect("a pipe");
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line)
            .expect("a pipe can be read");
        assert!(!line.is_empty(), "{:?}: {}", child.wait(), self.log());
        Foreground { service: Service::of(&object(&line)), child }
    }

    /// What the service in the foreground said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// A copy of the command, where everybody can execute it.
    pub(crate) fn public_binary(&self) -> PathBuf {
        let copy = self.path("spfs-fuse");
        if !copy.exists() {
            // By another process: a descriptor that writes would be inherited by whatever another test forks meanwhile
            let copied = Command::new("cp").arg(BINARY).arg(&copy).status();
            assert!(copied.is_ok_and(|status| status.success()), "the command can be copied");
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("our own file");
        }
        copy
    }

    /// How many mounts stand on our folder.
    pub(crate) fn mounts(&self) -> usize {
        mounts_at(&self.mountpoint())
    }

    /// Asserts that nothing is left of any service.
    #[track_caller]
    pub(crate) fn is_clean(&self) {
        assert_eq!(self.mounts(), 0, "a mount is left behind");
        assert!(!self.socket().exists(), "a socket is left behind");
        assert!(!self.path("s.lock").exists(), "a lock's file is left behind");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        while mounts_at(&self.mountpoint()) > 0 && umount2(&self.mountpoint(), MntFlags::MNT_DETACH).is_ok() {
        }
    }
}

pub(crate) fn mounts_at(path: &Path) -> usize {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("a table of mounts");
    text.lines().filter(|line| line.split(' ').nth(4) == path.to_str()).count()
}

/// A service, pinned. It is killed with this, if nothing else has ended it.
pub(crate) struct Service {
    pub(crate) process: Process,
}

impl Service {
    #[track_caller]
    pub(crate) fn of(ready: &Value) -> Service {
        let token: Identity = ready["token"].as_str().expect("a token").parse().expect("a token");
        assert_eq!(ready["pid"], token.pid().get());
        Service { process: Process::reopen(&token).expect("whoever is ready runs") }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid().get()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal).expect("the service can be signalled");
    }

    #[track_caller]
    pub(crate) fn has_ended(&self) {
        assert!(self.process.wait(Some(DEADLINE)).expect("a wait").is_some(), "the service has not ended");
    }

    /// From its status in the table of processes, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the service's status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the service's descriptors").count()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.process.signal(Signal::KILL).is_ok() {
            let _ = self.process.wait(Some(DEADLINE));
        }
    }
}

/// A service that is our child.
pub(crate) struct Foreground {
    pub(crate) service: Service,
    child: Child,
}

impl Foreground {
    #[track_caller]
    pub(crate) fn status(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    eventually("the end of a child", || child.try_wait().expect("a child can be waited for"))
}

/// Has the deadline that tests have, for what is asked again and again.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
