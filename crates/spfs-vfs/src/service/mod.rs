//! The service: one mount, and a socket to say who sees what in it.
//!
//! The order of a start, each step of which is undone by an end at any later one:
//!
//! 1. Signals are caught, so that from here on none of them leaves anything behind.
//! 2. The socket's lock, for the whole life. Of two services on one socket the second learns here who has it.
//! 3. The folder to mount on, locked as well: two services with sockets of their own do not stack their mounts.
//! 4. The socket is bound; requests are answered from here on ("it is starting"), and health says NOT_SERVING.
//! 5. The mount. When it answers: SERVING, and whoever has started the service is told.

mod control;
mod fault;
mod mountpoint;
mod panics;
mod peers;
mod signals;
mod start;
mod sys;

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use pidigree::{Identity, Pid};
use tokio::net::UnixListener;
use tokio::runtime;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tracing::{error, info, warn};

use self::control::{Control, Phase};
use self::mountpoint::Mountpoint;
use self::panics::Panics;
use self::signals::Signals;
use crate::failure::{Failure, Kind};
use crate::proto::fuse_server::{FuseServer, SERVICE_NAME};
use crate::socket::{Bound, Lock};
use crate::{Mount, MountOptions, Views};

pub use self::start::{Started, Starter, start};

/// How long a mount may take to answer for the first time.
const FIRST_ANSWER: Duration = Duration::from_secs(20);

/// How long each part of the end may take.
const GRACE: Duration = Duration::from_secs(5);

/// How long those who are connected may take to read their answers, and to leave.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How many requests may wait for something at the same time; others queue up.
const WAITING: usize = 16;

/// How long to leave the kernel alone when it could not be waited on.
const PAUSE: Duration = Duration::from_secs(1);

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// An empty folder.
    pub mountpoint: PathBuf,
    /// Where the socket is to be.
    pub socket: PathBuf,
}

/// How a service ended that was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A request.
    Stopped,
    /// This signal.
    Signalled(i32),
}

impl End {
    /// Ends this process as whatever ended the service would have: returns after a request, and dies of a signal.
    ///
    /// # Errors
    ///
    /// The signal could not be raised.
    pub fn follow(self) -> io::Result<()> {
        match self {
            End::Stopped => Ok(()),
            End::Signalled(signal) => sys::die_of(signal),
        }
    }
}

/// Mounts, serves until told to end, and unmounts. Calls `ready`, with the mount point's true path, once the mount answers;
/// if that fails, there is nobody who wants the service, and it ends.
///
/// The calling process has no other threads. Its panic hook is replaced, and its signals are caught.
///
/// # Errors
///
/// [`Kind::Taken`] if the socket or the folder is another service's; [`Kind::MountLost`] if somebody else unmounted;
/// [`Kind::Panicked`]. Whatever it is, the mount is gone when this returns, and so is the socket.
pub fn serve(options: &Options, ready: impl FnOnce(&Path) -> io::Result<()>) -> Result<End, Failure> {
    let panics = Panics::watch();
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(WAITING)
        .build()
        .map_err(|error| Failure::error(format!("cannot start: no reactor: {error}")))?;
    let served = catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(options, ready, &panics))));
    // A request may hang for ever in what it was asked for
    runtime.shutdown_timeout(GRACE);
    let outcome = served.unwrap_or_else(|_| Err(panicked(&panics)));
    match &outcome {
        Ok(end) => info!("ended: {end:?}"),
        Err(failure) => error!("ended: {failure}"),
    }
    outcome
}

fn panicked(panics: &Panics) -> Failure {
    Failure::new(Kind::Panicked, panics.first().unwrap_or_else(|| "a panic".to_owned()))
}

async fn run(
    options: &Options,
    ready: impl FnOnce(&Path) -> io::Result<()>,
    panics: &Panics,
) -> Result<End, Failure> {
    let failed =
        |what: &'static str| move |error: io::Error| Failure::error(format!("cannot {what}: {error}"));
    let begun = Instant::now();
    let mut signals = Signals::catch().map_err(failed("catch signals"))?;
    let mut lock = Lock::take(&options.socket)?;
    let mountpoint = Arc::new(Mountpoint::claim(&options.mountpoint)?);
    lock.sign(Some(mountpoint.path())).map_err(failed("write to the lock's file"))?;
    let bound = Bound::bind(&options.socket, &lock)?;
    let process = Identity::of(Pid::current())?;
    let views = Views::new().map_err(|error| Failure::error(error.to_string()))?;

    let service = Service {
        process,
        begun,
        mountpoint,
        views,
        phase: watch::channel(Phase::Starting).0,
        health: HealthReporter::new(),
        stop: Arc::default(),
        lost: Arc::default(),
        panics,
    };
    service.enter(Phase::Starting).await;
    let server = service.listen(&bound).map_err(failed("listen"))?;
    panics.mounting_at(service.mountpoint.path().to_owned());
    let mut mounting = service.mount();
    let (mounted, signal) = tokio::select! {
        mounted = &mut mounting => (mounted, None),
        // What is under way cannot be called off
        signal = signals.next() => (mounting.await, Some(signal)),
    };
    let mount = mounted.map_err(|_| panicked(panics))?.map_err(|error| of_mount(&error))?;
    // From here on the end is the same, whatever it comes from
    let outcome = match signal {
        Some(signal) => Ok(End::Signalled(signal)),
        None => service.attend(&mount, &mut signals, ready).await,
    };
    service.enter(Phase::Ending).await;
    if matches!(outcome, Ok(End::Stopped)) {
        fault::point("main");
    }
    let unmounted = service.unmount(mount).await;
    // Those that have asked are answered; those that only listen are not waited for
    let aborting = server.abort_handle();
    if timeout(LAST_WORDS, server).await.is_err() {
        aborting.abort();
    }
    outcome.and_then(|end| unmounted.map(|()| end))
}

/// What all parts of a life have to do with.
struct Service<'a> {
    process: Identity,
    begun: Instant,
    mountpoint: Arc<Mountpoint>,
    views: Views,
    phase: watch::Sender<Phase>,
    health: HealthReporter,
    stop: Arc<Notify>,
    lost: Arc<Notify>,
    panics: &'a Panics,
}

impl Service<'_> {
    async fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
        let status = match phase {
            Phase::Serving => ServingStatus::Serving,
            Phase::Starting | Phase::Ending => ServingStatus::NotServing,
        };
        for name in ["", SERVICE_NAME] {
            self.health.set_service_status(name, status).await;
        }
    }

    fn listen(&self, bound: &Bound) -> io::Result<JoinHandle<()>> {
        let listener = UnixListener::from_std(bound.listener()?)?;
        let control = Control {
            views: self.views.clone(),
            mountpoint: self.mountpoint.clone(),
            process: self.process,
            begun: self.begun,
            phase: self.phase.subscribe(),
            stop: self.stop.clone(),
            lost: self.lost.clone(),
        };
        let health = HealthService::from_health_reporter(self.health.clone());
        let mut phase = self.phase.subscribe();
        let ending = async move {
            let _ = phase.wait_for(|phase| *phase == Phase::Ending).await;
        };
        let server = Server::builder()
            .add_service(HealthServer::new(health))
            .add_service(FuseServer::new(control))
            .serve_with_incoming_shutdown(peers::accept(listener), ending);
        Ok(tokio::spawn(async move {
            if let Err(error) = server.await {
                error!("requests are not answered any more: {error}");
            }
        }))
    }

    fn mount(&self) -> JoinHandle<Result<Mount, crate::Error>> {
        let (path, views) = (self.mountpoint.path().to_owned(), self.views.clone());
        // Others may ask for that only where the machine's configuration has it
        let options = MountOptions { allow_other: geteuid().is_root(), ..MountOptions::default() };
        spawn_blocking(move || Mount::new(&path, views, options))
    }

    /// Serves, from the mount's first answer until something ends it.
    async fn attend(
        &self,
        mount: &Mount,
        signals: &mut Signals,
        ready: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<End, Failure> {
        let at = self.mountpoint.path();
        self.hear_of_end(mount)?;
        tokio::select! {
            answer = self.first_answer() => answer?,
            signal = signals.next() => return Ok(End::Signalled(signal)),
            () = self.panics.next() => return Err(panicked(self.panics)),
        }
        self.withdraw_emptied()?;
        self.enter(Phase::Serving).await;
        info!(mountpoint = %at.display(), "ready");
        ready(at).map_err(|error| {
            Failure::error(format!("whoever has started the service has left before it was ready: {error}"))
        })?;
        let by_others =
            || Failure::new(Kind::MountLost, format!("somebody else has unmounted {}", at.display()));
        tokio::select! {
            signal = signals.next() => Ok(End::Signalled(signal)),
            () = self.stop.notified() => Ok(End::Stopped),
            () = self.panics.next() => Err(panicked(self.panics)),
            () = self.lost.notified() => Err(by_others()),
        }
    }

    /// Waits until what is found at the mount point is the mount, and answers.
    async fn first_answer(&self) -> Result<(), Failure> {
        let mountpoint = self.mountpoint.clone();
        let at = self.mountpoint.path().display();
        let look = spawn_blocking(move || {
            fs::read_link(mountpoint.path().join("self"))?;
            mountpoint.is_covered()
        });
        let why = match timeout(FIRST_ANSWER, look).await {
            Ok(Ok(Ok(true))) => return Ok(()),
            Ok(Ok(Ok(false))) => "it is not there".to_owned(),
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(_)) => return Err(panicked(self.panics)),
            Err(_) => format!("not within {} s", FIRST_ANSWER.as_secs()),
        };
        Err(Failure::error(format!("the mount at {at} does not answer: {why}")))
    }

    /// The mount may be ended by whoever has the right to. The thread ends with it.
    fn hear_of_end(&self, mount: &Mount) -> Result<(), Failure> {
        let (ended, lost) = (mount.ended(), self.lost.clone());
        in_thread("mount-ended", move || {
            ended.wait(None);
            lost.notify_one();
        })
    }

    /// Views leave with the last process of their tree. The thread ends with the process.
    fn withdraw_emptied(&self) -> Result<(), Failure> {
        let views = self.views.clone();
        in_thread("emptied", move || {
            loop {
                match views.next_emptied(None) {
                    Ok(Some(view)) => {
                        fault::point("emptied");
                        info!(view = view.id.get(), root = %view.root, "all of its processes have ended");
                    }
                    Ok(None) => {}
                    Err(error) => {
                        error!("ends of processes are not told now: {error}");
                        thread::sleep(PAUSE);
                    }
                }
            }
        })
    }

    async fn unmount(&self, mount: Mount) -> Result<(), Failure> {
        let at = self.mountpoint.path();
        let why = match timeout(GRACE, spawn_blocking(move || mount.unmount())).await {
            Ok(Ok(Ok(()))) => return Ok(()),
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(_)) => "a panic".to_owned(),
            Err(_) => format!("not within {} s", GRACE.as_secs()),
        };
        warn!("the mount at {} was not ended in order ({why}); it is detached", at.display());
        match self.mountpoint.is_covered() {
            Ok(false) => Ok(()),
            _ => sys::abandon(at).map_err(|error| {
                Failure::error(format!("the mount at {} cannot be ended: {why}; {error}", at.display()))
            }),
        }
    }
}

fn in_thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).map_err(|error| Failure::error(format!("cannot start a thread: {error}")))
}

fn of_mount(error: &crate::Error) -> Failure {
    let kind = if error.is_busy() { Kind::Taken } else { Kind::Error };
    Failure::new(kind, error.to_string())
}
