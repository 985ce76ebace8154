//! What stands behind each number that the kernel asks about.
//!
//! Numbers 1 to 4 are the mount's own; every other one is a directory or file of one view, for as long as the mount is there. So
//! what is asked by number is answered for that number, whoever asks. Only the reading of `self` looks at the caller.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo};
use nix::errno::Errno;
use pidigree::{Caller, Pid};

use super::handles::Handles;
use super::nodes::{Node, Nodes};
use crate::layers::{Attributes, Found, Kind, Stack};
use crate::mount::Shown;
use crate::views::{View, ViewId, Views};

pub(super) const ROOT: u64 = 1;
pub(super) const SELF: u64 = 2;
pub(super) const VIEWS: u64 = 3;
pub(super) const DEFAULT: u64 = 4;

const SELF_NAME: &str = "self";
const VIEWS_NAME: &str = "views";
const DEFAULT_NAME: &str = "default";

/// Names and attributes mean the same for ever, so the kernel may remember them: a day is longer than it will.
pub(super) const LONG: Duration = Duration::from_secs(24 * 60 * 60);
/// What may be different the next time.
pub(super) const NOT: Duration = Duration::ZERO;

/// How often the router is asked about a caller that cannot be told while others fork, and how long it is left alone in between at
/// most: a second in all. That one waits is better than that it fails.
const TRIES: u32 = 24;
const PAUSE: Duration = Duration::from_millis(50);

/// A name for tests of what becomes of a panic.
#[cfg(test)]
pub(super) const PANICS: &str = "panic on purpose";

const NAME_MAX: usize = 255;

/// What is asked about.
pub(super) enum Target {
    Root,
    SelfLink,
    Views,
    Default,
    Node(Arc<Node>),
}

/// What a name is.
pub(super) enum Answer {
    /// The kernel counts it as told.
    Here(FileAttr),
    /// Nothing, and for how long that will be so.
    Nothing(Duration),
}

pub(super) struct OpenFile {
    view: Arc<View>,
    file: File,
}

pub(super) struct OpenDirectory {
    target: Target,
    /// Read when it is first asked for: most often the kernel remembers it.
    lines: Mutex<Option<Arc<[Line]>>>,
}

/// A name in an open directory.
pub(super) struct Line {
    pub(super) name: OsString,
    pub(super) number: u64,
    pub(super) kind: FileType,
}

pub(super) struct Answers {
    shown: Shown,
    nodes: Nodes,
    pub(super) files: Handles<OpenFile>,
    pub(super) directories: Handles<OpenDirectory>,
    asked: Arc<AtomicU64>,
    born: SystemTime,
    uid: u32,
    gid: u32,
}

impl Answers {
    /// Counts in `asked` what it is asked.
    pub(super) fn new(shown: Shown, asked: Arc<AtomicU64>) -> io::Result<Answers> {
        let nodes = Nodes::new();
        if let Shown::Alone(view) = &shown {
            nodes.tell(ROOT, view, Found::Directory(view.root()?));
        }
        Ok(Answers {
            shown,
            nodes,
            files: Handles::new(),
            directories: Handles::new(),
            asked,
            born: SystemTime::now(),
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
        })
    }

    pub(super) fn count(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn target(&self, number: INodeNo) -> io::Result<Target> {
        let own = match number.0 {
            ROOT => Target::Root,
            SELF => Target::SelfLink,
            VIEWS => Target::Views,
            DEFAULT => Target::Default,
            _ => return self.node(number.0),
        };
        match self.shown {
            Shown::Views(_) => Ok(own),
            Shown::Alone(_) => self.node(number.0),
        }
    }

    fn node(&self, number: u64) -> io::Result<Target> {
        self.nodes.find(number).map(Target::Node).ok_or_else(|| Errno::ESTALE.into())
    }

    pub(super) fn lookup(&self, parent: &Target, name: &OsStr) -> io::Result<Answer> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG.into());
        }
        #[cfg(test)]
        assert!(name != PANICS, "on purpose");
        match parent {
            Target::Root if name == SELF_NAME => Ok(Answer::Here(self.own(SELF))),
            Target::Root if name == VIEWS_NAME => Ok(Answer::Here(self.own(VIEWS))),
            Target::Root | Target::Default => Ok(Answer::Nothing(LONG)),
            Target::Views if name == DEFAULT_NAME => Ok(Answer::Here(self.own(DEFAULT))),
            Target::Views => self.lookup_view(name),
            Target::SelfLink => Err(Errno::ENOTDIR.into()),
            Target::Node(node) => {
                let Found::Directory(directory) = &node.found else { return Err(Errno::ENOTDIR.into()) };
                let stack = node.view.stack()?;
                Ok(match stack.lookup(directory, name)? {
                    Some((found, attributes)) => {
                        Answer::Here(self.tell(&node.view, &stack, found, &attributes))
                    }
                    None => Answer::Nothing(LONG),
                })
            }
        }
    }

    fn lookup_view(&self, name: &OsStr) -> io::Result<Answer> {
        let id: Option<ViewId> = name.to_str().and_then(|name| name.parse().ok());
        let Some(view) = id.and_then(|id| self.views()?.find(id)) else {
            // There may be one tomorrow
            return Ok(Answer::Nothing(NOT));
        };
        let stack = view.stack()?;
        let root = stack.root()?;
        let attributes = stack.directory_attributes(&root)?;
        Ok(Answer::Here(self.tell(&view, &stack, Found::Directory(root), &attributes)))
    }

    fn tell(&self, view: &Arc<View>, stack: &Stack, found: Found, attributes: &Attributes) -> FileAttr {
        let number = self.number(view, stack, &found);
        let attr = attr(view, number, &found, attributes);
        self.nodes.tell(number, view, found);
        attr
    }

    pub(super) fn forget(&self, number: INodeNo, lookups: u64) {
        // The mount's own are for ever, and so is the root of a view that is shown alone
        if number.0 > DEFAULT {
            self.nodes.forget(number.0, lookups);
        }
    }

    pub(super) fn attributes(&self, target: &Target) -> io::Result<FileAttr> {
        match target {
            Target::Root => Ok(self.own(ROOT)),
            Target::SelfLink => Ok(self.own(SELF)),
            Target::Views => Ok(self.own(VIEWS)),
            Target::Default => Ok(self.own(DEFAULT)),
            Target::Node(node) => {
                let stack = node.view.stack()?;
                let attributes = match &node.found {
                    Found::Directory(directory) => stack.directory_attributes(directory)?,
                    Found::Leaf(leaf) => stack.leaf_attributes(leaf)?,
                };
                Ok(attr(&node.view, node.number, &node.found, &attributes))
            }
        }
    }

    pub(super) fn read_link(&self, target: &Target, caller: u32) -> io::Result<OsString> {
        match target {
            Target::SelfLink => {
                let view = self.route(caller)?;
                let name =
                    view.and_then(|view| view.id()).map_or(DEFAULT_NAME.to_owned(), |id| id.to_string());
                Ok(format!("{VIEWS_NAME}/{name}").into())
            }
            Target::Node(node) => match &node.found {
                Found::Leaf(leaf) => node.view.stack()?.read_link(leaf),
                Found::Directory(_) => Err(Errno::EINVAL.into()),
            },
            Target::Root | Target::Views | Target::Default => Err(Errno::EINVAL.into()),
        }
    }

    /// A caller of whom nothing can be said gets an error: neither the view of another tree, nor the empty one, in which a build
    /// would miss its files.
    fn route(&self, caller: u32) -> io::Result<Option<Arc<View>>> {
        let caller = Pid::new(caller).map_or(Caller::Kernel, Caller::Thread);
        let mut tries = 0;
        loop {
            tries += 1;
            match self.views().map_or(Ok(None), |views| views.of(caller)) {
                Ok(view) => return Ok(view),
                // Where trees are polled it takes a moment in which nobody is started
                Err(error) if error.is_unstable() && tries < TRIES => {
                    std::thread::sleep(PAUSE.min(Duration::from_micros(100 << tries)));
                }
                // It was killed while it asked, and takes no answer
                Err(error) if error.is_gone() => {
                    tracing::debug!(?caller, %error, "a caller is gone");
                    return Err(Errno::EIO.into());
                }
                Err(error) => {
                    tracing::warn!(?caller, %error, tries, "cannot tell whose view a caller sees: it gets EIO");
                    return Err(Errno::EIO.into());
                }
            }
        }
    }

    pub(super) fn open(&self, target: &Target) -> io::Result<u64> {
        let Target::Node(node) = target else { return Err(Errno::EISDIR.into()) };
        let Found::Leaf(leaf) = &node.found else { return Err(Errno::EISDIR.into()) };
        let file = node.view.stack()?.open_file(leaf)?;
        Ok(self.files.insert(OpenFile { view: node.view.clone(), file }))
    }

    /// The directory, and whether it always has the same names.
    pub(super) fn open_directory(&self, target: Target) -> io::Result<(u64, bool)> {
        let lasting = !matches!(target, Target::Views);
        match &target {
            Target::SelfLink => return Err(Errno::ENOTDIR.into()),
            Target::Node(node) if matches!(node.found, Found::Leaf(_)) => return Err(Errno::ENOTDIR.into()),
            Target::Node(node) => drop(node.view.stack()?),
            Target::Root | Target::Views | Target::Default => {}
        }
        Ok((self.directories.insert(OpenDirectory { target, lines: Mutex::default() }), lasting))
    }

    pub(super) fn lines(&self, directory: &OpenDirectory) -> io::Result<Arc<[Line]>> {
        let mut lines = directory.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lines) = &*lines {
            return Ok(lines.clone());
        }
        let read: Arc<[Line]> = self.list(&directory.target)?.into();
        *lines = Some(read.clone());
        Ok(read)
    }

    fn list(&self, target: &Target) -> io::Result<Vec<Line>> {
        let directory = |name: &str, number| Line { name: name.into(), number, kind: FileType::Directory };
        match target {
            Target::Root => Ok(vec![
                directory(".", ROOT),
                directory("..", ROOT),
                Line { name: SELF_NAME.into(), number: SELF, kind: FileType::Symlink },
                directory(VIEWS_NAME, VIEWS),
            ]),
            Target::Views => {
                let mut lines =
                    vec![directory(".", VIEWS), directory("..", ROOT), directory(DEFAULT_NAME, DEFAULT)];
                for id in self.views().map(Views::ids).unwrap_or_default() {
                    if let Some(view) = self.views().and_then(|views| views.find(id)) {
                        lines.push(directory(&id.to_string(), self.directory_number(&view, Path::new(""))));
                    }
                }
                Ok(lines)
            }
            Target::Default => Ok(vec![directory(".", DEFAULT), directory("..", VIEWS)]),
            Target::SelfLink => Err(Errno::ENOTDIR.into()),
            Target::Node(node) => {
                let Found::Directory(listed) = &node.found else { return Err(Errno::ENOTDIR.into()) };
                let stack = node.view.stack()?;
                let above = match listed.path().parent() {
                    Some(above) => self.directory_number(&node.view, above),
                    None => {
                        if self.views().is_some() {
                            VIEWS
                        } else {
                            ROOT
                        }
                    }
                };
                let mut lines = vec![directory(".", node.number), directory("..", above)];
                for entry in stack.list(listed)? {
                    let number = match entry.kind {
                        Kind::Directory => {
                            self.directory_number(&node.view, &listed.path().join(&entry.name))
                        }
                        _ => node.view.leaf_number(&stack, (entry.dev, entry.ino)),
                    };
                    lines.push(Line { name: entry.name, number, kind: file_type(entry.kind) });
                }
                Ok(lines)
            }
        }
    }

    /// The attributes of a name in an open directory, of which the kernel is about to be told; `None` if it has vanished.
    pub(super) fn tell_line(&self, directory: &OpenDirectory, line: &Line) -> io::Result<Option<FileAttr>> {
        if line.name == "." || line.name == ".." {
            // The kernel takes the number, and counts neither
            let mut attr = self.own(DEFAULT);
            attr.ino = INodeNo(line.number);
            return Ok(Some(attr));
        }
        Ok(match self.lookup(&directory.target, &line.name)? {
            Answer::Here(attr) => Some(attr),
            Answer::Nothing(_) => None,
        })
    }

    /// What the kernel is told of a name that nothing has, to remember that.
    pub(super) fn nothing(&self) -> FileAttr {
        let mut attr = self.own(DEFAULT);
        attr.ino = INodeNo(0);
        attr
    }

    pub(super) fn found<'a>(&self, target: &'a Target) -> Option<&'a Node> {
        match target {
            Target::Node(node) => Some(node),
            _ => None,
        }
    }

    fn number(&self, view: &View, stack: &Stack, found: &Found) -> u64 {
        match found {
            Found::Directory(directory) => self.directory_number(view, directory.path()),
            Found::Leaf(leaf) => view.leaf_number(stack, leaf.id()),
        }
    }

    fn directory_number(&self, view: &View, path: &Path) -> u64 {
        match self.shown {
            Shown::Alone(_) if path.as_os_str().is_empty() => ROOT,
            _ => view.directory_number(path),
        }
    }

    fn views(&self) -> Option<&Views> {
        match &self.shown {
            Shown::Views(views) => Some(views),
            Shown::Alone(_) => None,
        }
    }

    /// What the mount itself has: nobody can list `views` but who mounted, so that nobody sees who else is there.
    fn own(&self, number: u64) -> FileAttr {
        let (kind, perm, nlink) = match number {
            SELF => (FileType::Symlink, 0o777, 1),
            VIEWS => (FileType::Directory, 0o711, 1),
            _ => (FileType::Directory, 0o555, 2),
        };
        FileAttr {
            ino: INodeNo(number),
            size: 0,
            blocks: 0,
            atime: self.born,
            mtime: self.born,
            ctime: self.born,
            crtime: self.born,
            kind,
            perm,
            nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl OpenFile {
    /// The file; `ESTALE` once its view is gone.
    pub(super) fn file(&self) -> io::Result<&File> {
        self.view.stack()?;
        Ok(&self.file)
    }
}

fn attr(view: &View, number: u64, found: &Found, attributes: &Attributes) -> FileAttr {
    let mut attr = FileAttr {
        ino: INodeNo(number),
        size: attributes.size,
        blocks: attributes.blocks,
        atime: attributes.accessed,
        mtime: attributes.modified,
        ctime: attributes.changed,
        crtime: attributes.changed,
        kind: file_type(attributes.kind),
        perm: attributes.permissions,
        nlink: attributes.nlink,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: device(attributes.rdev),
        blksize: attributes.block_size,
        flags: 0,
    };
    if let Found::Directory(directory) = found {
        if directory.is_merged() {
            // How many directories are in it, no layer says: 1 is the usual way not to
            attr.nlink = 1;
        }
        if let (true, Some(owner)) = (directory.path().as_os_str().is_empty(), view.owner()) {
            (attr.uid, attr.gid, attr.perm) = (owner.uid, owner.gid, 0o700);
        }
    }
    attr
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// As the kernel encodes it (`new_encode_dev`).
fn device((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}
