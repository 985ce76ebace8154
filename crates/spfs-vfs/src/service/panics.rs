//! A panic, in any thread, ends the service: what it left half done is not known, and a mount that does not answer
//! stops whoever looks at it.

use std::panic::{self, PanicHookInfo};
use std::path::PathBuf;
use std::process;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::error;

use super::sys;
use crate::failure::Kind;

/// How long the orderly end may take after a panic, which may have taken away who was to carry it out.
const PATIENCE: Duration = Duration::from_secs(20);

/// What has panicked, told to whoever waits for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Panics(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    told: Notify,
    first: Mutex<Option<String>>,
    mountpoint: OnceLock<PathBuf>,
}

impl Panics {
    /// Hears of every panic of this process from now on.
    pub(super) fn watch() -> Panics {
        let panics = Panics::default();
        let hearing = panics.clone();
        panic::set_hook(Box::new(move |info| hearing.hear(info)));
        panics
    }

    /// Says what is to be unmounted, whatever else fails.
    pub(super) fn mounting_at(&self, mountpoint: PathBuf) {
        let _ = self.0.mountpoint.set(mountpoint);
    }

    /// Waits for a panic.
    pub(super) async fn next(&self) {
        self.0.told.notified().await;
    }

    /// What was said at the first one.
    pub(super) fn first(&self) -> Option<String> {
        self.0.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hear(&self, info: &PanicHookInfo<'_>) {
        let thread = thread::current();
        let place = info.location().map_or_else(String::new, |place| format!(" at {place}"));
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let what =
            text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        let said = format!("thread {} panicked{place}: {what}", thread.name().unwrap_or("without a name"));
        error!("{said}");
        let first = self.0.first.lock().unwrap_or_else(PoisonError::into_inner).replace(said).is_none();
        self.0.told.notify_one();
        if first {
            let panics = self.clone();
            let _ = thread::Builder::new().name("last-resort".to_owned()).spawn(move || panics.give_up());
        }
    }

    fn give_up(&self) {
        thread::sleep(PATIENCE);
        if let Some(mountpoint) = self.0.mountpoint.get() {
            error!("the service does not end after a panic; {} is detached", mountpoint.display());
            let _ = sys::abandon(mountpoint);
        }
        process::exit(Kind::Panicked as i32);
    }
}
