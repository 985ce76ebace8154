//! The runtime file on disk, and its lock: whoever holds that is the runtime's monitor.
//!
//! The lock is flock(2)'s, on the file itself. A new version is locked before it is renamed into place, so that there is no
//! moment in which a runtime file is there and unlocked while its monitor lives; and the kernel drops it however that ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use pidigree::{Identity, Process, State};

use crate::failure::{Code, Failure};
use crate::record::{Phase, Record, Slots, Written, cleaner_word};
use crate::sys::PhaseSlot;

/// How long the lock of a monitor that has ended may be held: by a child that it had forked and that has not executed its
/// program yet.
const LINGERING: Duration = Duration::from_secs(2);

/// Our runtime file.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    file: Flock<File>,
    slots: Slots,
}

impl Store {
    /// Takes over the runtime file; `None` if there is none.
    pub(crate) fn open(path: &Path) -> Result<Option<(Store, Record)>, Failure> {
        let failed = |what: &str, error: io::Error| {
            Failure::new(format!("cannot {what} runtime file {}: {error}", path.display()))
        };
        let begun = Instant::now();
        loop {
            let file = match open_file(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => {
                    return Err(Failure::new(format!(
                        "runtime file {} is a symbolic link: name the file that it leads to",
                        path.display()
                    )));
                }
                Err(error) => return Err(failed("open", error)),
            };
            let metadata = file.metadata().map_err(|error| failed("read", error))?;
            if !metadata.is_file() {
                let why = "is not a regular file: name one that is, or none yet";
                return Err(Failure::new(format!("runtime file {} {why}", path.display())));
            }
            let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((_, Errno::EWOULDBLOCK)) => {
                    if let Some(refusal) = busy(path, begun.elapsed() >= LINGERING) {
                        return Err(refusal);
                    }
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                }
                Err((_, errno)) => return Err(failed("lock", errno.into())),
            };
            // It may have been replaced or removed before it was locked.
            if !is_at(&file, path) {
                continue;
            }
            let mut bytes = Vec::new();
            (&*file).read_to_end(&mut bytes).map_err(|error| failed("read", error))?;
            let record = Record::parse(&bytes).map_err(|error| {
                let advice = "nothing was changed; remove it if it is not needed";
                Failure::new(format!("runtime file {} is {error}; {advice}", path.display()))
            })?;
            let slots = record.bytes().map_err(|error| failed("read", error))?.slots;
            let store = Store { path: path.to_owned(), file, slots };
            store.sweep();
            return Ok(Some((store, record)));
        }
    }

    /// Makes the runtime file; `None` if there is one meanwhile.
    pub(crate) fn create(path: &Path, record: &Record) -> Result<Option<Store>, Failure> {
        let failed = |error: io::Error| {
            Failure::new(format!(
                "cannot write runtime file {}: {error}; nothing was changed",
                path.display()
            ))
        };
        let written = record.bytes().map_err(failed)?;
        let (file, temporary) = write_beside(path, &written).map_err(failed)?;
        if let Err(error) = temporary.persist_noclobber(path) {
            return match fs::symlink_metadata(path) {
                Ok(_) => Ok(None),
                Err(_) => Err(failed(error.error)),
            };
        }
        let store = Store { path: path.to_owned(), file, slots: written.slots };
        if let Err(error) = sync_directory(path) {
            let _ = fs::remove_file(path);
            return Err(failed(error));
        }
        Ok(Some(store))
    }

    /// Writes the record anew. After an error the one before stands.
    pub(crate) fn replace(&mut self, record: &Record) -> io::Result<()> {
        if !is_at(&self.file, &self.path) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "somebody has removed or replaced it"));
        }
        let written = record.bytes()?;
        let (file, temporary) = write_beside(&self.path, &written)?;
        temporary.persist(&self.path).map_err(|error| error.error)?;
        self.file = file;
        self.slots = written.slots;
        sync_directory(&self.path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Says in place who is about to clean up. Takes no space: that may be what there is none of.
    pub(crate) fn set_cleaner(&self, cleaner: Option<&Identity>) -> io::Result<()> {
        self.file.write_all_at(cleaner_word(cleaner).as_bytes(), self.slots.cleaner_at)
    }

    /// Says in place how far it has come.
    pub(crate) fn set_phase(&self, phase: Phase) -> io::Result<()> {
        self.file.write_all_at(&phase.word(), self.slots.phase_at)
    }

    /// For the child that becomes the cleanup command, which says itself that it does.
    pub(crate) fn phase_slot(&self) -> PhaseSlot<'_> {
        PhaseSlot { file: self.file.as_fd(), at: self.slots.phase_at, word: Phase::Cleaning.word() }
    }

    /// Removes the runtime file, if it is still ours.
    pub(crate) fn remove(self) -> io::Result<()> {
        if !is_at(&self.file, &self.path) {
            return Ok(());
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // The directory may have been removed as well.
        let _ = sync_directory(&self.path);
        Ok(())
    }

    /// Whom other runtime files in the same folder name: their monitors, and their cleanups.
    pub(crate) fn neighbours(&self) -> Vec<Identity> {
        let entries = self.path.parent().map(fs::read_dir).into_iter().flatten().flatten().flatten();
        let paths = entries.map(|entry| entry.path()).filter(|path| *path != self.path);
        let records = paths.filter_map(|path| {
            let file = open_file(&path).ok().filter(|file| {
                file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= LONGEST)
            })?;
            let mut bytes = Vec::new();
            file.take(LONGEST).read_to_end(&mut bytes).ok()?;
            Record::parse(&bytes).ok()
        });
        records.flat_map(|record| [Some(record.owner), record.cleaner]).flatten().collect()
    }

    /// Removes what monitors left that were killed while they wrote. They had it locked.
    fn sweep(&self) {
        let (Some(directory), Some(prefix)) = (self.path.parent(), prefix(&self.path)) else {
            return;
        };
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_ours = name.to_str().is_some_and(|name| {
                let rest = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(SUFFIX));
                rest.is_some_and(|rest| rest.len() == RANDOM)
            });
            let left = is_ours.then(|| open_file(&entry.path()).ok()).flatten();
            if left.is_some_and(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Why somebody else's lock keeps us out; `None` if it may be gone in a moment.
fn busy(path: &Path, waited: bool) -> Option<Failure> {
    let record = Record::read(path).ok();
    let refuse = |whose: String| {
        let verb = match &record {
            Some(record) if record.phase == Phase::Cleaning => "is being cleaned up by",
            _ => "is watched already, by",
        };
        Some(Failure::with(Code::Watched, format!("runtime file {} {verb} {whose}", path.display())))
    };
    if let Some(record) = &record {
        let owner = record.owner;
        let runs = Process::reopen(&owner).and_then(|process| process.state());
        if matches!(runs, Ok(State::Running)) {
            return refuse(format!("spfs-monitor process {} ({owner})", owner.pid()));
        }
        if waited {
            return refuse(format!(
                "a process that has inherited the lock of spfs-monitor process {} ({owner}), or in another PID namespace",
                owner.pid()
            ));
        }
        return None;
    }
    if waited { refuse("a process that is not known: it cannot be read".to_owned()) } else { None }
}

/// To read, lock and write; a FIFO or a device does not hold us up.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    match OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(path) {
        // Nobody writes to a directory; what it is, is said then.
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => File::open(path),
        opened => opened,
    }
}

/// Whether this very file is what is found there now.
fn is_at(file: &File, path: &Path) -> bool {
    let here = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(found)) => here(ours) == here(found),
        _ => false,
    }
}

/// Longer than the record of any tree that people have; what else lies in the folder need not be read.
const LONGEST: u64 = 16 << 20;

const SUFFIX: &str = ".tmp";
const RANDOM: usize = 6;

fn prefix(path: &Path) -> Option<String> {
    path.file_name().map(|name| format!(".{}.", name.to_string_lossy()))
}

/// Locked before anybody can know of it, complete before it has its name.
fn write_beside(path: &Path, written: &Written) -> io::Result<(Flock<File>, tempfile::TempPath)> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let prefix = prefix(path).ok_or(io::ErrorKind::InvalidInput)?;
    let mut builder = tempfile::Builder::new();
    let temporary = builder.prefix(&prefix).suffix(SUFFIX).rand_bytes(RANDOM).tempfile_in(directory);
    let (file, temporary) = temporary.map_err(plain)?.into_parts();
    let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
    (&*file).write_all(&written.bytes)?;
    file.sync_all()?;
    Ok((file, temporary))
}

/// Without the name of the temporary file, which nobody has heard of.
fn plain(error: io::Error) -> io::Error {
    let number =
        error.get_ref().and_then(|inner| inner.source()?.downcast_ref::<io::Error>()?.raw_os_error());
    number.or(error.raw_os_error()).map_or(error, io::Error::from_raw_os_error)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    match File::open(directory)?.sync_all() {
        // Not every file system can.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}
