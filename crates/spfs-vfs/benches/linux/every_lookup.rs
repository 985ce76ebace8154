//! The control of B11: one tree of names for all, in which each lookup is answered for its caller, so that nothing may be
//! remembered.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo,
    MountOption, ReplyAttr, ReplyEntry, Request, Session, SessionACL,
};
use pidigree::{Caller, Pid, Process, Router};
use spfs_vfs::layers::{Attributes, Found, Kind, Stack};

pub(crate) struct EveryLookup {
    pub(crate) path: PathBuf,
    session: Option<BackgroundSession>,
}

impl EveryLookup {
    pub(crate) fn mount(path: &Path, layer: &Path) -> EveryLookup {
        std::fs::create_dir(path).expect("a folder");
        let stack = Stack::open(&[layer]).expect("a layer");
        let root = Found::Directory(stack.root().expect("a layer"));
        let router = Router::new();
        router.insert(&Process::current().expect("itself"), stack).expect("a route");
        let known = Known { found: vec![root], numbers: HashMap::new() };
        let system = Answers { router, known: Mutex::new(known) };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::RO, MountOption::DefaultPermissions];
        config.acl = SessionACL::All;
        config.n_threads = Some(2);
        config.clone_fd = true;
        let session =
            Session::new(system, path, &config).and_then(Session::spawn).expect("root, and /dev/fuse");
        EveryLookup { path: path.to_owned(), session: Some(session) }
    }
}

impl Drop for EveryLookup {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}

struct Answers {
    router: Router<Stack>,
    known: Mutex<Known>,
}

/// Numbers from 1, and names.
struct Known {
    found: Vec<Found>,
    numbers: HashMap<(u64, OsString), u64>,
}

impl Answers {
    fn stack(&self, request: &Request) -> Option<std::sync::Arc<Stack>> {
        self.router.resolve(Caller::Thread(Pid::new(request.pid())?)).ok()?
    }

    fn found(&self, number: INodeNo) -> Option<Found> {
        self.known.lock().expect("no panic").found.get(number.0 as usize - 1).cloned()
    }
}

impl Filesystem for Answers {
    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let look = || {
            let stack = self.stack(request)?;
            let Found::Directory(directory) = self.found(parent)? else { return None };
            let (found, attributes) = stack.lookup(&directory, name).ok()??;
            let mut known = self.known.lock().expect("no panic");
            let next = known.found.len() as u64 + 1;
            let number = *known.numbers.entry((parent.0, name.to_owned())).or_insert(next);
            if number == next {
                known.found.push(found);
            }
            Some(attr(number, &attributes))
        };
        match look() {
            Some(attr) => reply.entry(&Duration::ZERO, &attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, request: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let look = || {
            let stack = self.stack(request)?;
            let attributes = match self.found(number)? {
                Found::Directory(directory) => stack.directory_attributes(&directory).ok()?,
                Found::Leaf(leaf) => stack.leaf_attributes(&leaf).ok()?,
            };
            Some(attr(number.0, &attributes))
        };
        match look() {
            Some(attr) => reply.attr(&Duration::ZERO, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }
}

fn attr(number: u64, attributes: &Attributes) -> FileAttr {
    let kind = if attributes.kind == Kind::Directory { FileType::Directory } else { FileType::RegularFile };
    FileAttr {
        ino: INodeNo(number),
        size: attributes.size,
        blocks: attributes.blocks,
        atime: attributes.accessed,
        mtime: attributes.modified,
        ctime: attributes.changed,
        crtime: SystemTime::UNIX_EPOCH,
        kind,
        perm: attributes.permissions,
        nlink: attributes.nlink,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}
