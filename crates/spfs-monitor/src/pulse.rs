//! The heartbeat: a file whose time of modification says that the runtime is watched.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::OFlag;

use crate::record::Heartbeat;

/// Beats by the clock, whatever else happens or does not.
#[derive(Debug)]
pub(crate) struct Pulse {
    file: Heartbeat,
    next: Instant,
}

impl Pulse {
    /// Beats for the first time.
    pub(crate) fn begin(file: Heartbeat) -> io::Result<Pulse> {
        touch(&file.path)?;
        let next = Instant::now() + file.every();
        Ok(Pulse { file, next })
    }

    /// How long until the next beat.
    pub(crate) fn due_in(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Beats if it is time to. What is late is not made up for.
    pub(crate) fn beat(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if now < self.next {
            return Ok(());
        }
        let every = self.file.every();
        self.next += every;
        if self.next <= now {
            self.next = now + every;
        }
        touch(&self.file.path)
    }
}

impl Heartbeat {
    pub(crate) fn every(&self) -> Duration {
        Duration::from_millis(self.every_ms)
    }
}

/// Makes the file if there is none: the service that looks at it may have been started anew.
fn touch(path: &Path) -> io::Result<()> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().create(true).append(true).custom_flags(flags.bits()).open(path)?;
    file.set_modified(SystemTime::now())
}
