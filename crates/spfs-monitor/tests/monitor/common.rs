//! A runtime and its monitor, as a test has them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use pidigree::{ExitStatus, Pid, Process, Signal};
use pidigree_testkit::Family;
use spfs_monitor::Record;
use tempfile::TempDir;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_spfs-monitor");

/// How long a monitor may take to hear of the end: one that polls, as long as anybody on the machine forks.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Long enough for whoever polls to look more than once.
pub(crate) const WHILE: Duration = Duration::from_millis(25);

/// So many rounds, some of them side by side: most of the time, each waits.
pub(crate) fn side_by_side(rounds: usize, round: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..rounds.min(6) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= rounds {
                        break;
                    }
                    round(number);
                }
            });
        }
    });
}

/// A folder with a runtime file to be, and what the cleanup writes down.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) _folder: Arc<TempDir>,
    pub(crate) file: PathBuf,
    pub(crate) log: PathBuf,
    /// Before the monitor and its arguments.
    pub(crate) launcher: Vec<OsString>,
    pub(crate) binary: PathBuf,
    pub(crate) uid: Option<u32>,
}

impl Runtime {
    /// Where all others are: a successor takes for a suspect who was started meanwhile, and knows of monitors whose files lie
    /// beside its own. Two in different folders can wait for each other for ever.
    pub(crate) fn new() -> Runtime {
        static SHARED: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = shared.upgrade().unwrap_or_else(|| Arc::new(TempDir::new().expect("a folder")));
        *shared = Arc::downgrade(&folder);
        Runtime::at(folder, NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    fn at(folder: Arc<TempDir>, number: usize) -> Runtime {
        let file = folder.path().join(format!("runtime-{number}"));
        let log = file.with_extension("log");
        Runtime { _folder: folder, file, log, launcher: Vec::new(), binary: BINARY.into(), uid: None }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.file.parent().expect("it is in a folder")
    }

    /// Whose monitor is another user's, from that copy.
    pub(crate) fn of_user(uid: u32, binary: &Public) -> Runtime {
        let mut runtime = Runtime::at(Arc::new(TempDir::new().expect("a folder")), 0);
        fs::set_permissions(runtime.folder(), fs::Permissions::from_mode(0o755)).expect("our folder");
        std::os::unix::fs::chown(runtime.folder(), Some(uid), Some(uid)).expect("root gives it away");
        runtime.binary = binary.0.path().join("spfs-monitor");
        runtime.uid = Some(uid);
        runtime
    }

    /// Whose monitor cannot have the kernel's word, and looks at the processes again and again.
    #[cfg(target_os = "linux")] // elsewhere it does not poll
    pub(crate) fn polled() -> Runtime {
        let mut runtime = Runtime::new();
        let testkit = pidigree_testkit::binary().as_os_str().to_owned();
        let words = ["deny", "EPERM", "socket:AF_NETLINK", "--"].map(OsString::from);
        runtime.launcher = std::iter::once(testkit).chain(words).collect();
        runtime
    }

    /// The monitor, with these arguments beside the runtime file.
    pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Command {
        let mut words = self.launcher.iter().cloned().chain([self.binary.clone().into_os_string()]);
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).arg("--runtime").arg(&self.file).args(args).stdin(Stdio::null());
        if let Some(uid) = self.uid {
            use std::os::unix::process::CommandExt;
            command.uid(uid).gid(uid).current_dir("/");
        }
        command
    }

    /// A cleanup that writes a line down.
    pub(crate) fn logs(&self) -> Vec<OsString> {
        let script = "echo cleaned >> \"$0\"";
        ["--on-empty", "sh", "-c", script]
            .map(OsString::from)
            .into_iter()
            .chain([self.log.clone().into()])
            .collect()
    }

    /// Has the tree of the process watched, and a cleanup write a line down; the monitor.
    #[track_caller]
    pub(crate) fn watch(&self, root: u32) -> Process {
        let mut args: Vec<OsString> = vec!["--root".into(), root.to_string().into()];
        args.extend(self.logs());
        self.watching(&args)
    }

    /// Starts a monitor that has to say that it watches, and to have somebody to wait for yet.
    #[track_caller]
    pub(crate) fn watching<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Process {
        self.says_watching(args);
        let owner = self.record().owner;
        Process::reopen(&owner).unwrap_or_else(|error| panic!("the owner of the record: {error}"))
    }

    #[track_caller]
    pub(crate) fn says_watching<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) {
        let ran = Ran::from(self.command(args).output().expect("the monitor runs"));
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "watching\n", ""));
    }

    #[track_caller]
    pub(crate) fn record(&self) -> Record {
        Record::read(&self.file).unwrap_or_else(|error| panic!("{}: {error}", self.file.display()))
    }

    /// What the cleanup has written down.
    pub(crate) fn logged(&self) -> Vec<String> {
        fs::read_to_string(&self.log).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Nothing but what belongs there.
    #[track_caller]
    pub(crate) fn is_tidy(&self) {
        let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
        let ours = format!("{}.", name(&self.file));
        for entry in fs::read_dir(self.folder()).expect("our folder") {
            let path = entry.expect("our folder").path();
            // A new version to be is `.NAME.RANDOM.tmp`.
            let is_ours = name(&path).trim_start_matches('.').starts_with(&ours) && path != self.log;
            assert!(!is_ours, "{} is left", path.display());
        }
    }

    /// Somebody lives: it is not over.
    #[track_caller]
    pub(crate) fn lives(&self, monitor: &Process, why: &str) {
        assert_eq!(monitor.wait(Some(WHILE)).unwrap(), None, "{why}: {:?}", Record::read(&self.file));
        assert!(self.file.exists(), "{why}");
        assert_eq!(self.logged(), [""; 0], "{why}");
    }

    /// Nobody is left: it has been cleaned up, once, and not before.
    #[track_caller]
    pub(crate) fn is_over(&self, monitor: &Process, family: &Family) {
        self.ends(monitor);
        // Another thread's fork has copies of every descriptor until it executes something (trap 26), for a moment.
        let begun = Instant::now();
        while !family.has_ended() && begun.elapsed() < Duration::from_secs(1) {
            std::thread::yield_now();
        }
        assert!(family.has_ended(), "it was cleaned up too early");
        self.is_gone();
        assert_eq!(self.logged(), ["cleaned"]);
    }

    #[track_caller]
    pub(crate) fn ends(&self, monitor: &Process) {
        let ended = monitor.wait(Some(PATIENCE)).unwrap();
        assert!(ended.is_some(), "it still watches: {:?}", Record::read(&self.file));
    }

    #[track_caller]
    pub(crate) fn is_gone(&self) {
        assert!(!self.file.exists(), "the runtime file is left: {:?}", Record::read(&self.file));
        self.is_tidy();
    }
}

/// A copy of the monitor that everybody may execute.
#[derive(Debug)]
pub(crate) struct Public(TempDir);

impl Public {
    pub(crate) fn new() -> Public {
        let folder = TempDir::new().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("our folder");
        copy(Path::new(BINARY), &folder.path().join("spfs-monitor"));
        Public(folder)
    }
}

/// By another process: while we had it open for writing, so would each child that another thread forks.
pub(crate) fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().is_ok_and(|status| status.success()));
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).expect("our file");
}

/// What a run of the monitor came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ran {
    /// One line on standard error that names this, and nothing else.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, naming: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "half an answer: {self:?}");
        assert!(self.stderr.starts_with("spfs-monitor: "), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        for what in naming {
            assert!(self.stderr.contains(what), "{self:?} does not name {what:?}");
        }
    }
}

pub(crate) fn pid(number: u32) -> Pid {
    Pid::new(number).expect("a number that the kernel gave")
}

/// Kills it, and waits until it has ended.
pub(crate) fn kill(process: &Process) {
    process.signal(Signal::KILL).expect("it runs");
    let status = process.wait(Some(PATIENCE)).unwrap().expect("it was killed");
    assert!(matches!(status, ExitStatus::Signal(9) | ExitStatus::Unknown), "{status:?}");
}

/// A family whose root waits until it is watched, and then does this.
pub(crate) fn waiting(script: &str) -> Family {
    Family::spawn(format!("say root await {script}"))
}

/// Lets the root of such a family begin.
pub(crate) fn begin(family: &Family) {
    family.poke(family.fact("root").pid);
}
