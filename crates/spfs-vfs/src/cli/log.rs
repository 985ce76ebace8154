//! Where the service's log goes.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::OFlag;
use spfs_vfs::failure::{Failure, Kind};
use tracing_subscriber::EnvFilter;

/// Begins to log to a file, or to standard error. `RUST_LOG` says what; `info` by default.
pub(super) fn start(file: Option<&Path>) -> Result<(), Failure> {
    let file = file.map(open).transpose()?;
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into()).from_env_lossy();
    let log = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false);
    match file {
        Some(file) => {
            let file = Arc::new(file);
            log.with_ansi(false).with_writer(move || Lossy(file.clone())).init();
        }
        None => {
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            log.with_ansi(colours).with_writer(|| LossyError).init();
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        // A terminal is not to become the service's own
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(path);
    opened.map_err(|error| Failure::new(Kind::Error, format!("cannot log to {}: {error}", path.display())))
}

/// A full disk is no reason to stop what is served: what cannot be written is lost.
#[derive(Debug)]
struct Lossy(Arc<File>);

impl Write for Lossy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = (&*self.0).write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The same of standard error.
#[derive(Debug)]
struct LossyError;

impl Write for LossyError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
