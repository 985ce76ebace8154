//! Running the command, and processes to run it on.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use pidigree_testkit::Family;
use serde_json::Value;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_pidigree");

/// More than any process can have here, and still a PID.
pub(crate) const NOBODY: &str = "2147483647";

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
        let told = usize::from(matches!(code, 2 | 124));
        assert_eq!(self.stderr.lines().count(), told, "{self:?}");
        assert_eq!(self.stderr.starts_with("pidigree: "), told == 1, "{self:?}");
        self
    }

    /// Asserts an error, and that it names this.
    #[track_caller]
    pub(crate) fn failed_naming(self, what: &str) -> Ran {
        let ran = self.ended_with(2);
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

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(args).stdin(Stdio::null());
    command
}

pub(crate) fn pidigree(args: &[&str]) -> Ran {
    command(args).output().expect("the command runs").into()
}

/// Runs the command in another world: the words of a mode of `pidigree-testkit`.
pub(crate) fn pidigree_in(world: &[&str], args: &[&str]) -> Ran {
    let public = Public::new();
    let mut command = Command::new(&public.launcher);
    command.args(world).arg("--").arg(&public.binary).args(args);
    command.current_dir("/").stdin(Stdio::null());
    command.output().expect("the launcher runs").into()
}

/// Runs the command as the user and group 65534. Needs root.
pub(crate) fn pidigree_as_nobody(args: &[&str]) -> Ran {
    use std::os::unix::process::CommandExt;
    let public = Public::new();
    let mut command = Command::new(&public.binary);
    command.args(args).uid(65534).gid(65534).current_dir("/").stdin(Stdio::null());
    command.output().expect("the command runs").into()
}

/// The executables, where every user can run them.
struct Public {
    folder: PathBuf,
    launcher: PathBuf,
    binary: PathBuf,
}

impl Public {
    fn new() -> Public {
        let template = std::env::temp_dir().join("pidigree-cli-XXXXXX");
        let folder = nix::unistd::mkdtemp(&template).expect("a temporary folder");
        set_mode(&folder);
        let public =
            Public { launcher: folder.join("pidigree-testkit"), binary: folder.join("pidigree"), folder };
        copy(pidigree_testkit::binary(), &public.launcher);
        copy(Path::new(BINARY), &public.binary);
        public
    }
}

impl Drop for Public {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// By another process: one that we had open for writing could not be executed while a fork of ours holds it (ETXTBSY).
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success());
    set_mode(to);
}

fn set_mode(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .expect("our own file takes a mode");
}

/// The command while it runs; killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Running {
        Running::of(&mut command(args))
    }

    pub(crate) fn of(command: &mut Command) -> Running {
        pidigree_testkit::default_signals();
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the command runs");
        let stdout = child.stdout.take().expect("standard output is piped");
        Running { child, lines: BufReader::new(stdout) }
    }

    /// The next line; empty at the end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("lines are text");
        line
    }

    pub(crate) fn code(&mut self) -> Option<i32> {
        self.child.wait().expect("a child can be waited for").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that waits for the end of the test.
pub(crate) fn idle() -> (Family, String) {
    let family = Family::spawn("say root pause");
    let pid = family.fact("root").pid.to_string();
    (family, pid)
}

/// A zombie, and its PID. It had exited with this code.
pub(crate) fn zombie(code: i32) -> (Family, String) {
    let family = Family::spawn(format!("fork [ say zombie exit {code} ] say root pause"));
    let pid = family.fact("zombie").pid;
    let _ = family.fact("root");
    family.wait_ended(pid);
    (family, pid.to_string())
}

/// The token of a process that has been reaped.
pub(crate) fn token_of_the_dead() -> String {
    let mut family = Family::spawn("say root pause");
    let token = token(&family.fact("root").pid.to_string());
    family.end();
    family.child().wait().expect("a child can be waited for");
    token
}

pub(crate) fn token(pid: &str) -> String {
    pidigree(&["id", pid]).ended_with(0).stdout.trim_end().to_owned()
}

/// The token with the field that this letter begins replaced.
pub(crate) fn with_field(token: &str, letter: char, value: &str) -> String {
    let fields: Vec<String> = token
        .split(':')
        .enumerate()
        .map(|(index, field)| {
            if index > 1 && field.starts_with(letter) { format!("{letter}{value}") } else { field.to_owned() }
        })
        .collect();
    fields.join(":")
}

/// A token of another process that had the same PID.
pub(crate) fn of_another(token: &str) -> String {
    let letter = if token.contains(":u") { 'u' } else { 's' };
    with_field(token, letter, "1")
}

/// A kernel thread, if any can be seen.
pub(crate) fn kernel_thread() -> Option<String> {
    let all = pidigree(&["tree", "--kernel", "--json"]).json();
    all.iter().find(|row| row["kernel"] == true).map(|row| row["pid"].to_string())
}
