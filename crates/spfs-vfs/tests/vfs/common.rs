//! A place with layers and a mount, and processes that read from it.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pidigree::Process;
use pidigree_testkit::DEADLINE;
use spfs_vfs::{Mount, MountOptions, Owner, ViewId, ViewInfo, Views};

/// Who runs the tests.
pub(crate) const ROOT: Owner = Owner { uid: 0, gid: 0 };

/// A folder of layers, and a mount. Everything is removed on drop.
pub(crate) struct Place {
    pub(crate) views: Views,
    pub(crate) mount: Option<Mount>,
    pub(crate) at: PathBuf,
    folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place::with(MountOptions::default())
    }

    pub(crate) fn with(options: MountOptions) -> Place {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Other users pass
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
            .expect("our own folder takes a mode");
        let at = folder.path().canonicalize().expect("it is there").join("at");
        fs::create_dir(&at).expect("a mount point");
        let views = Views::new().expect("processes can be followed");
        let mount = Mount::new(&at, views.clone(), options).expect("root mounts, where there is /dev/fuse");
        Place { views, mount: Some(mount), at, folder }
    }

    /// A folder beside the mount.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new layer with these files.
    pub(crate) fn layer(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let layer = self.folder.path().join(name);
        fs::create_dir_all(&layer).expect("a layer");
        for (path, text) in files {
            let path = layer.join(path);
            fs::create_dir_all(path.parent().expect("it is in the layer")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        layer
    }

    pub(crate) fn link(&self) -> PathBuf {
        self.at.join("self")
    }

    pub(crate) fn directory(&self, id: ViewId) -> PathBuf {
        self.at.join("views").join(id.to_string())
    }

    pub(crate) fn add(&self, root: &Process, layer: &Path) -> ViewId {
        self.views.add(root, &[layer.to_owned()], ROOT).expect("a view can be added")
    }

    /// The next view that left because its tree had ended.
    pub(crate) fn emptied(&self) -> ViewInfo {
        let emptied = self.views.next_emptied(Some(DEADLINE)).expect("ends can be waited for");
        emptied.expect("the tree has ended")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Before its folder
        self.mount = None;
    }
}

/// A process that does what its standard input says, and ends with it; killed and reaped on drop.
pub(crate) struct Shell {
    child: Child,
    output: BufReader<PipeReader>,
}

impl Shell {
    /// Runs a script of sh(1).
    pub(crate) fn run(script: &str, arguments: &[&OsStr]) -> Shell {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).args(arguments);
        Shell::start(command)
    }

    /// Runs lines of sh(1) as they are said.
    pub(crate) fn new() -> Shell {
        Shell::start(Command::new("sh"))
    }

    pub(crate) fn start(mut command: Command) -> Shell {
        let (read, write) = std::io::pipe().expect("a pipe");
        // What fails says so here, where it is heard
        let errors = write.try_clone().expect("a descriptor");
        command.stdin(Stdio::piped()).stdout(write).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        Shell { child, output: BufReader::new(read) }
    }

    pub(crate) fn process(&self) -> Process {
        Process::from_child(&self.child).expect("a child can be opened")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn say(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("it listens");
        writeln!(input, "{line}").expect("it listens");
    }

    /// The next line that it, or what it has started, writes.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        assert!(line.ends_with('\n'), "it ended, and said {line:?}");
        line.trim_end().to_owned()
    }

    /// Skips lines until one begins with this word, and returns the rest of it.
    pub(crate) fn hear_of(&mut self, word: &str) -> String {
        loop {
            let line = self.hear();
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Says a line, and returns what comes back.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    /// Where the link leads this process.
    pub(crate) fn route(&mut self, link: &Path) -> String {
        self.ask(&format!("readlink -v '{}'", link.display()))
    }

    /// Waits until it has ended, its input still open for those whom it has left.
    pub(crate) fn reap(&mut self) {
        let input = self.child.stdin.take();
        self.child.wait().expect("a child can be waited for");
        self.child.stdin = input;
    }

    /// Ends it, by the end of its input, and reaps it.
    pub(crate) fn end(mut self) {
        self.finish();
    }

    /// Kills it and reaps it.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        self.finish();
    }

    fn finish(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        self.finish();
    }
}

/// The test executable anew, with one of its tests alone, which finds these words in `WORDS`.
pub(crate) fn again(test: &str, words: &[&OsStr]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test knows its own executable"));
    command.args(["--exact", test, "--nocapture", "--include-ignored"]);
    for (index, word) in words.iter().enumerate() {
        command.env(format!("{WORDS}_{index}"), word);
    }
    command
}

/// Runs a test in a process of its own, where it finds [`words`].
pub(crate) fn alone(test: &str) {
    let output = again(test, &["alone".as_ref()]).output().expect("the test runs again");
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && text.contains("1 passed");
    assert!(passed, "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

const WORDS: &str = "SPFS_VFS_TEST_WORD";

/// The words that this process was started with by [`again`]; `None` for one that tests.
pub(crate) fn words() -> Option<Vec<PathBuf>> {
    let words: Vec<PathBuf> =
        (0..).map_while(|index| std::env::var_os(format!("{WORDS}_{index}"))).map(PathBuf::from).collect();
    (!words.is_empty()).then_some(words)
}

/// What a mount table says of a path: how many mounts are there.
pub(crate) fn mounts_at(path: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mounts").expect("a table");
    let at = path.to_str().expect("a plain name");
    table.lines().filter(|line| line.split(' ').nth(1) == Some(at)).count()
}

/// Long enough for anything that has to come.
pub(crate) const PATIENCE: Duration = DEADLINE;
