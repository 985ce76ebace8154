//! Read-only directories stacked into one tree.
//!
//! A [`Stack`] is an ordered list of directories, its layers, upper first. What it shows:
//!
//! - A name is what the uppermost layer that has it says. A file there hides whatever is below it, and so does a directory
//!   a file; directories of the same name are merged.
//! - `.wh.NAME` in a layer removes `NAME` of the layers below that one (an OCI whiteout); `.wh..wh..opq` in a directory
//!   removes everything that the layers below have in it. No name that begins with `.wh.` is ever shown.
//!
//! Each layer is opened once, as a directory, and is never left: a symbolic link in it is shown as it is and not followed here,
//! wherever it leads. Layers must not change while they are in use, because the kernel remembers what it was told of them; if one
//! does, nobody gets one file's bytes under another's name, but errors (`ESTALE`) or what was there before.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use nix::errno::Errno;

use crate::Error;
use crate::sys::{self, Open};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// What a layer says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The device that it lies on.
    pub dev: u64,
    /// Its inode number there.
    pub ino: u64,
    /// What it is.
    pub kind: Kind,
    /// The lower twelve bits of its mode.
    pub permissions: u16,
    /// The number of its names on the layer.
    pub nlink: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Major and minor number, of a device.
    pub rdev: (u32, u32),
    /// Its size in bytes.
    pub size: u64,
    /// What it takes on the disk, in units of 512 bytes.
    pub blocks: u64,
    /// The unit in which it is best read.
    pub block_size: u32,
    /// When it was last read.
    pub accessed: SystemTime,
    /// When its contents last changed.
    pub modified: SystemTime,
    /// When anything about it last changed.
    pub changed: SystemTime,
}

/// A directory of a stack: where it is, and which layers have a part in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    path: PathBuf,
    /// Upper first, never empty.
    layers: Vec<usize>,
}

/// Anything else than a directory: which layer has it, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    path: PathBuf,
    layer: usize,
    dev: u64,
    ino: u64,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A directory, merged.
    Directory(Directory),
    /// Anything else.
    Leaf(Leaf),
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: OsString,
    /// What it is.
    pub kind: Kind,
    /// The device of the directory that has it.
    pub dev: u64,
    /// Its inode number, as the directory says.
    pub ino: u64,
}

/// Layers, opened. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stack(Arc<[Layer]>);

#[derive(Debug)]
struct Layer {
    path: PathBuf,
    root: OwnedFd,
    dev: u64,
}

impl Stack {
    /// Opens every layer, upper first. One descriptor each, as long as the stack is in use.
    ///
    /// # Errors
    ///
    /// There is none, or one that is not a directory or cannot be opened.
    pub fn open<P: AsRef<Path>>(layers: &[P]) -> Result<Stack, Error> {
        if layers.is_empty() {
            return Err(Error::invalid("a view needs at least one layer directory".to_owned()));
        }
        let open = |path: &Path| {
            let root = sys::open_directory(path)?;
            let dev = sys::attributes(root.as_fd())?.dev;
            Ok(Layer { path: path.to_owned(), root, dev })
        };
        let open =
            |path: &P| open(path.as_ref()).map_err(|error| Error::path("open layer", path.as_ref(), error));
        Ok(Stack(layers.iter().map(open).collect::<Result<_, _>>()?))
    }

    /// Returns the paths by which the layers were opened, upper first.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|layer| layer.path.as_path())
    }

    /// Returns the root of the tree.
    ///
    /// # Errors
    ///
    /// A layer cannot be read.
    pub fn root(&self) -> io::Result<Directory> {
        let mut layers = Vec::with_capacity(self.0.len());
        for (index, layer) in self.0.iter().enumerate() {
            layers.push(index);
            if sys::attributes_at(layer.root.as_fd(), OsStr::new(OPAQUE))?.is_some() {
                break;
            }
        }
        Ok(Directory { path: PathBuf::new(), layers })
    }

    /// Looks a name up, a single component; `None` if there is no such name.
    ///
    /// # Errors
    ///
    /// A layer that would decide cannot be read. The layers below it are not asked in its place.
    pub fn lookup(&self, directory: &Directory, name: &OsStr) -> io::Result<Option<(Found, Attributes)>> {
        if is_reserved(name) || name.is_empty() || name == "." || name == ".." {
            return Ok(None);
        }
        let mut whiteout = OsString::from(OsStr::from_bytes(WHITEOUT));
        whiteout.push(name);
        let mut merged: Option<(Directory, Attributes)> = None;
        for &index in &directory.layers {
            let parent = self.reach(index, &directory.path, Open::Directory)?;
            match sys::attributes_at(parent.as_fd(), name)? {
                Some(found) if found.kind == Kind::Directory => {
                    let path = directory.path.join(name);
                    let inside = self.reach(index, &path, Open::Directory)?;
                    let opaque = sys::attributes_at(inside.as_fd(), OsStr::new(OPAQUE))?.is_some();
                    merged
                        .get_or_insert((Directory { path, layers: Vec::new() }, found))
                        .0
                        .layers
                        .push(index);
                    if opaque {
                        break;
                    }
                }
                Some(found) => {
                    if merged.is_none() {
                        let (dev, ino) = (found.dev, found.ino);
                        let leaf = Leaf { path: directory.path.join(name), layer: index, dev, ino };
                        return Ok(Some((Found::Leaf(leaf), found)));
                    }
                    // It hides the directories below it, and is itself hidden
                    break;
                }
                None => {}
            }
            if sys::attributes_at(parent.as_fd(), &whiteout)?.is_some() {
                break;
            }
        }
        Ok(merged.map(|(directory, found)| (Found::Directory(directory), found)))
    }

    /// Returns the names in a directory: uppermost layer first, each once, `.` and `..` left out.
    ///
    /// # Errors
    ///
    /// A layer cannot be read. Nothing is left out instead.
    pub fn list(&self, directory: &Directory) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut settled: HashSet<OsString> = HashSet::new();
        for &index in &directory.layers {
            let mut removed = Vec::new();
            let opened = self.reach(index, &directory.path, Open::Listing)?;
            let dev = sys::attributes(opened.as_fd())?.dev;
            let mut listing = nix::dir::Dir::from_fd(opened)?;
            let mut unknown = Vec::new();
            for entry in listing.iter() {
                let entry = entry?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
                    removed.push(OsStr::from_bytes(hidden).to_owned());
                } else if name != "." && name != ".." && settled.insert(name.to_owned()) {
                    match entry.file_type() {
                        Some(kind) => {
                            let (name, ino) = (name.to_owned(), entry.ino());
                            entries.push(Entry { name, kind: kind.into(), dev, ino });
                        }
                        None => unknown.push(name.to_owned()),
                    }
                }
            }
            for name in unknown {
                if let Some(found) = sys::attributes_at(listing.as_fd(), &name)? {
                    entries.push(Entry { name, kind: found.kind, dev: found.dev, ino: found.ino });
                }
            }
            settled.extend(removed);
        }
        Ok(entries)
    }

    /// Returns what the uppermost layer says of a directory.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is not there any more (`ESTALE`).
    pub fn directory_attributes(&self, directory: &Directory) -> io::Result<Attributes> {
        let opened = self.reach(directory.layers[0], &directory.path, Open::Directory)?;
        sys::attributes(opened.as_fd())
    }

    /// Returns what the layer says of a leaf.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is not there any more (`ESTALE`).
    pub fn leaf_attributes(&self, leaf: &Leaf) -> io::Result<Attributes> {
        let opened = self.reach(leaf.layer, &leaf.path, Open::Node)?;
        leaf.check(sys::attributes(opened.as_fd())?)
    }

    /// Opens a regular file for reading; reading it does not touch its time of access, if that can be had.
    ///
    /// # Errors
    ///
    /// It cannot be opened, is no regular file (`EINVAL`), or is not there any more (`ESTALE`).
    pub fn open_file(&self, leaf: &Leaf) -> io::Result<File> {
        let opened = self.reach(leaf.layer, &leaf.path, Open::File)?;
        match leaf.check(sys::attributes(opened.as_fd())?)?.kind {
            Kind::File => Ok(opened.into()),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    /// Returns where a symbolic link leads, as the layer says it.
    ///
    /// # Errors
    ///
    /// It cannot be read, is no symbolic link (`EINVAL`), or is not there any more (`ESTALE`).
    pub fn read_link(&self, leaf: &Leaf) -> io::Result<OsString> {
        let (parent, name) = self.reach_parent(leaf.layer, &leaf.path)?;
        match sys::attributes_at(parent.as_fd(), name)? {
            Some(found) => leaf.check(found)?,
            None => return Err(Errno::ESTALE.into()),
        };
        Ok(nix::fcntl::readlinkat(parent, name)?)
    }

    /// Returns an extended attribute.
    ///
    /// # Errors
    ///
    /// There is none of that name, or it cannot be read.
    pub fn xattr(&self, found: &Found, name: &OsStr) -> io::Result<Vec<u8>> {
        let (layer, path) = found.place();
        let (parent, file) = self.reach_parent(layer, path)?;
        sys::xattr(parent.as_fd(), file, name)
    }

    /// Returns the names of all extended attributes, each followed by a NUL.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    pub fn xattr_names(&self, found: &Found) -> io::Result<Vec<u8>> {
        let (layer, path) = found.place();
        let (parent, file) = self.reach_parent(layer, path)?;
        sys::xattr_names(parent.as_fd(), file)
    }

    /// Returns what the file system below the uppermost layer says of itself.
    ///
    /// # Errors
    ///
    /// It cannot be asked.
    pub fn space(&self) -> io::Result<nix::sys::statvfs::Statvfs> {
        Ok(nix::sys::statvfs::fstatvfs(&self.0[0].root)?)
    }

    /// The first layer whose root lies on this device.
    pub(crate) fn device_index(&self, dev: u64) -> Option<usize> {
        self.0.iter().position(|layer| layer.dev == dev)
    }

    pub(crate) fn lies_on(&self, dev: u64) -> Option<&Path> {
        self.0.iter().find(|layer| layer.dev == dev).map(|layer| layer.path.as_path())
    }

    fn reach(&self, layer: usize, path: &Path, how: Open) -> io::Result<OwnedFd> {
        sys::open_beneath(self.0[layer].root.as_fd(), path, how).map_err(|error| {
            // What was looked up before was there, and was no link: the layer has changed
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => Errno::ESTALE.into(),
                _ => error,
            }
        })
    }

    fn reach_parent<'a>(&self, layer: usize, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let parent = self.reach(layer, path.parent().unwrap_or(Path::new("")), Open::Directory)?;
        Ok((parent, path.file_name().unwrap_or(OsStr::new("."))))
    }
}

impl Directory {
    /// Returns where it is, from the root of the stack.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether more than one layer has a part in it.
    pub fn is_merged(&self) -> bool {
        self.layers.len() > 1
    }
}

impl Leaf {
    /// Returns the device and inode number on the layer.
    pub fn id(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    fn check(&self, found: Attributes) -> io::Result<Attributes> {
        if (found.dev, found.ino) == (self.dev, self.ino) { Ok(found) } else { Err(Errno::ESTALE.into()) }
    }
}

impl Found {
    fn place(&self) -> (usize, &Path) {
        match self {
            Found::Directory(directory) => (directory.layers[0], &directory.path),
            Found::Leaf(leaf) => (leaf.layer, &leaf.path),
        }
    }
}

impl From<nix::dir::Type> for Kind {
    fn from(kind: nix::dir::Type) -> Kind {
        match kind {
            nix::dir::Type::Fifo => Kind::Fifo,
            nix::dir::Type::CharacterDevice => Kind::CharDevice,
            nix::dir::Type::Directory => Kind::Directory,
            nix::dir::Type::BlockDevice => Kind::BlockDevice,
            nix::dir::Type::File => Kind::File,
            nix::dir::Type::Symlink => Kind::Symlink,
            nix::dir::Type::Socket => Kind::Socket,
        }
    }
}

fn is_reserved(name: &OsStr) -> bool {
    name.as_bytes().starts_with(WHITEOUT)
}
