//! The socket of a service: where it is, who may have it, and how to reach it.
//!
//! A service has its socket for as long as it holds the lock beside it, `SOCKET.lock`. The file in the file system proves
//! nothing: it outlives a service that was killed.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;
use pidigree::{Identity, Process, State};

use crate::failure::{Failure, Kind};

const NAME: &str = "spfs-fuse.sock";

/// How long a lock may outlive the process that its file names, or be without a name.
const LETTING_GO: Duration = Duration::from_secs(5);

/// Returns where the socket of this user's service is, unless told otherwise: `spfs-fuse.sock` in `$XDG_RUNTIME_DIR`, else in
/// `/run/user/UID`, else in `spfs-fuse-UID` in the folder for temporary files. Each has to be the user's own; the last
/// is made by the service, for nobody else to enter.
pub fn default_path() -> PathBuf {
    let uid = geteuid();
    let named = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let user = PathBuf::from(format!("/run/user/{uid}"));
    let found = named
        .into_iter()
        .chain([user])
        .find(|folder| fs::metadata(folder).is_ok_and(|found| found.is_dir() && found.uid() == uid.as_raw()));
    found.unwrap_or_else(private_folder).join(NAME)
}

fn private_folder() -> PathBuf {
    env::temp_dir().join(format!("spfs-fuse-{}", geteuid()))
}

/// Makes the folder of the default path where that is one of ours, and refuses a folder that others can write to.
pub(crate) fn prepare_folder(socket: &Path) -> Result<(), Failure> {
    check_length(socket)?;
    let folder = socket.parent().unwrap_or(Path::new("/"));
    if folder == private_folder() {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(Failure::error(format!("cannot make {}: {error}", folder.display())));
            }
            _ => check_private(folder)?,
        }
    }
    let found = fs::metadata(folder).map_err(|error| {
        Failure::error(format!("the folder of the socket, {}: {error}; make it first", folder.display()))
    })?;
    if !found.is_dir() {
        return Err(Failure::error(format!("the folder of the socket, {}, is no folder", folder.display())));
    }
    // A sticky folder, as /tmp is, lets nobody replace what is another's
    if found.mode() & 0o002 != 0 && found.mode() & 0o1000 == 0 {
        let folder = folder.display();
        return Err(Failure::error(format!(
            "anyone may write to {folder}, and could replace the socket there; chmod o-w {folder}, or take another --socket"
        )));
    }
    Ok(())
}

/// The folder with a name that anybody could have taken.
fn check_private(folder: &Path) -> Result<(), Failure> {
    let found = fs::symlink_metadata(folder)
        .map_err(|error| Failure::error(format!("{}: {error}", folder.display())))?;
    if found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Denied,
        format!(
            "{} is not a folder of ours that nobody else can enter; take another --socket",
            folder.display()
        ),
    ))
}

fn check_length(socket: &Path) -> Result<(), Failure> {
    if socket.file_name().is_none() {
        return Err(Failure::error(format!("{}: no name for a socket", socket.display())));
    }
    match SocketAddr::from_pathname(socket) {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::error(format!(
            "a socket's path has about a hundred bytes at most, and {} has {}; take a shorter --socket",
            socket.display(),
            socket.as_os_str().len()
        ))),
    }
}

/// Connects to the service. Whose it is has to be asked of the connection.
pub(crate) fn connect(socket: &Path) -> Result<UnixStream, Failure> {
    check_length(socket)?;
    if socket.parent() == Some(private_folder().as_path()) && socket.exists() {
        check_private(&private_folder())?;
    }
    let at = socket.display();
    UnixStream::connect(socket).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Failure::new(
            Kind::NotServing,
            format!("no service at {at}; start one: spfs-fuse serve MOUNTPOINT --socket {at}"),
        ),
        ErrorKind::ConnectionRefused if !is_socket(socket) => Failure::error(format!("{at} is not a socket")),
        ErrorKind::ConnectionRefused => Failure::new(
            Kind::NotServing,
            format!("the service of {at} has ended; start one: spfs-fuse serve MOUNTPOINT --socket {at}"),
        ),
        ErrorKind::PermissionDenied => Failure::new(Kind::Denied, denied(socket)),
        _ => Failure::error(format!("cannot connect to {at}: {error}")),
    })
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn denied(socket: &Path) -> String {
    let at = socket.display();
    match fs::metadata(socket) {
        Ok(found) => {
            format!("the service of {at} is user {}'s, and talks to root and to that user only", found.uid())
        }
        Err(error) => format!("cannot reach {at}: {error}"),
    }
}

/// The right to have a socket, for as long as this lives. The file goes with it.
#[derive(Debug)]
pub(crate) struct Lock {
    file: Flock<File>,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock, or says who has it.
    pub(crate) fn take(socket: &Path) -> Result<Lock, Failure> {
        prepare_folder(socket)?;
        let mut path = OsString::from(socket);
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |error: io::Error| Failure::error(format!("cannot lock {}: {error}", path.display()));
        let deadline = Instant::now() + LETTING_GO;
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(OFlag::O_NOFOLLOW.bits())
                .open(&path)
                .map_err(failed)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => {
                    let mut lock = Lock { file, path: path.clone() };
                    // Whoever had it may have removed the file since we opened it
                    if lock.is_in_place() {
                        lock.sign(None).map_err(failed)?;
                        return Ok(lock);
                    }
                }
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    let holder = Holder::read(&mut file);
                    if !holder.is_passing() || Instant::now() > deadline {
                        return Err(Failure::new(Kind::Taken, holder.describe(socket)));
                    }
                    // A lock that is let go announces it by no event, unless one waits for it and so may get it
                    thread::sleep(Duration::from_millis(5));
                }
                Err((_, error)) => return Err(failed(error.into())),
            }
        }
    }

    /// Writes who holds it, for others to read, and where it mounts.
    pub(crate) fn sign(&mut self, mountpoint: Option<&Path>) -> io::Result<()> {
        let token = Identity::of(pidigree::Pid::current()).map_err(io::Error::other)?;
        let mut text = format!("{token}\n").into_bytes();
        if let Some(mountpoint) = mountpoint {
            text.extend_from_slice(mountpoint.as_os_str().as_bytes());
        }
        self.file.rewind()?;
        self.file.set_len(0)?;
        self.file.write_all(&text)
    }

    fn is_in_place(&self) -> bool {
        match (self.file.metadata(), fs::symlink_metadata(&self.path)) {
            (Ok(held), Ok(found)) => (held.dev(), held.ino()) == (found.dev(), found.ino()),
            _ => false,
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.is_in_place() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whoever a lock's file names.
struct Holder {
    identity: Option<Identity>,
    mountpoint: Option<PathBuf>,
}

impl Holder {
    fn read(file: &mut File) -> Holder {
        let mut text = Vec::new();
        // What cannot be read names nobody
        let _ = file.rewind().and_then(|()| file.read_to_end(&mut text));
        let (token, mountpoint) = match text.iter().position(|byte| *byte == b'\n') {
            Some(end) => (&text[..end], &text[end + 1..]),
            None => (&[][..], &[][..]),
        };
        let identity = std::str::from_utf8(token).ok().and_then(|token| token.parse().ok());
        let mountpoint = (!mountpoint.is_empty()).then(|| OsString::from_vec(mountpoint.to_vec()).into());
        Holder { identity, mountpoint }
    }

    /// Whether the file does not (yet) name the process that holds the lock.
    fn is_passing(&self) -> bool {
        match self.identity.as_ref().map(Process::reopen) {
            None => true,
            Some(Err(error)) => error.is_gone(),
            Some(Ok(process)) => matches!(process.state(), Ok(State::Zombie | State::Gone)),
        }
    }

    fn describe(&self, socket: &Path) -> String {
        let at = socket.display();
        let who = match &self.identity {
            Some(identity) => format!("process {} ({identity})", identity.pid()),
            None => "a process that did not write its name".to_owned(),
        };
        let serves = match &self.mountpoint {
            Some(mountpoint) => format!(" and serves {}", mountpoint.display()),
            None => " and is starting".to_owned(),
        };
        format!(
            "{who} has the socket {at}{serves}; stop it (spfs-fuse stop --socket {at}), or take another --socket"
        )
    }
}

/// A bound socket, which is removed with this.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: UnixListener,
    path: PathBuf,
    id: (u64, u64),
}

impl Bound {
    /// Binds the socket, for root and this user only. One that a killed service has left behind is replaced.
    ///
    /// This sets the umask of the process for a moment: there are no other threads yet.
    pub(crate) fn bind(path: &Path, _ours: &Lock) -> Result<Bound, Failure> {
        let at = path.display();
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(Failure::error(format!("{at} is there and is no socket; it is not replaced")));
            }
            Ok(_) => remove_stale(path)?,
            Err(_) => {}
        }
        let failed = |error: io::Error| Failure::error(format!("cannot bind {at}: {error}"));
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(path);
        umask(before);
        let listener = bound.map_err(failed)?;
        let found = fs::symlink_metadata(path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Bound { listener, path: path.to_owned(), id: (found.dev(), found.ino()) })
    }

    pub(crate) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

/// Only a refused connection proves that nobody listens any more.
fn remove_stale(path: &Path) -> Result<(), Failure> {
    let at = path.display();
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Failure::error(format!(
                "nobody listens at {at} any more, and it cannot be removed: {error}"
            ))),
            _ => Ok(()),
        },
        Ok(_) => Err(Failure::new(
            Kind::Taken,
            format!(
                "a process that does not hold its lock listens at {at}; end it, or take another --socket"
            ),
        )),
        Err(error) => {
            Err(Failure::new(Kind::Taken, format!("cannot tell whether somebody listens at {at}: {error}")))
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Not one that somebody has put in its place
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.id);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}
