//! The answers to requests.

use std::error::Error as _;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use pidigree::{Identity, Process, State};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::{debug, info, warn};

use super::fault;
use super::mountpoint::Mountpoint;
use super::peers::Caller;
use crate::failure::status_of;
use crate::proto::fuse_server::Fuse;
use crate::proto::{
    ListRequest, MountRequest, MountResponse, Owner, StatusRequest, StatusResponse, StopRequest,
    StopResponse, UnmountRequest, UnmountResponse, View,
};
use crate::{ViewId, ViewInfo, Views};

/// How many views of a list wait for a slow reader.
const LISTED_AHEAD: usize = 64;

/// For how long to try what others make impossible, well within the patience of a client.
const INSISTENCE: Duration = Duration::from_secs(10);

/// How long to wait before that is tried again.
const PAUSE: Duration = Duration::from_millis(5);

/// In which part of its life the service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Starting,
    Serving,
    Ending,
}

/// What requests need; what they tell the service.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) views: Views,
    pub(super) mountpoint: Arc<Mountpoint>,
    /// This process.
    pub(super) process: Identity,
    pub(super) begun: Instant,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) stop: Arc<Notify>,
    /// The mount is not where it was any more.
    pub(super) lost: Arc<Notify>,
}

impl Control {
    fn check_serving(&self) -> Result<(), Status> {
        match *self.phase.borrow() {
            Phase::Serving => Ok(()),
            Phase::Starting => Err(Status::unavailable("the service is starting; try again")),
            Phase::Ending => Err(Status::unavailable("the service is ending")),
        }
    }

    /// A mount that was detached lazily while something of it is in use ends with that use, which can be long after.
    async fn check_mounted(&self) -> Result<(), Status> {
        self.check_serving()?;
        let mountpoint = self.mountpoint.clone();
        let at = self.mountpoint.path().display();
        match blocking(move || Ok(mountpoint.is_covered())).await? {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.lost.notify_one();
                Err(Status::unavailable(format!("somebody has unmounted {at}; the service is ending")))
            }
            Err(error) => Err(Status::internal(format!("cannot look at {at}: {error}"))),
        }
    }
}

#[tonic::async_trait]
impl Fuse for Control {
    type ListStream = ReceiverStream<Result<View, Status>>;

    async fn mount(&self, request: Request<MountRequest>) -> Result<Response<MountResponse>, Status> {
        self.check_mounted().await?;
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let root = identity(&request.root)?;
        let owner = owner(&caller, request.owner)?;
        let layers = layers(request.layers)?;
        let views = self.views.clone();
        let view = blocking(move || {
            let process = pin(&root)?;
            let id = add(&views, &process, &layers, owner).map_err(|error| status(&error))?;
            info!(view = id.get(), root = %root, caller = caller.name(), "mounted");
            Ok(View { id: id.get(), ..message(&root, &layers, owner) })
        });
        Ok(Response::new(MountResponse { view: Some(view.await?) }))
    }

    async fn unmount(&self, request: Request<UnmountRequest>) -> Result<Response<UnmountResponse>, Status> {
        self.check_serving()?;
        let caller = caller_of(&request)?;
        let root = identity(&request.into_inner().root)?;
        let views = self.views.clone();
        let view = blocking(move || {
            fault::point("request");
            let removed = views.remove(&root).map_err(|error| status(&error))?;
            info!(root = %root, caller = caller.name(), found = removed.is_some(), "unmounted");
            Ok(removed.as_ref().map(view_of))
        });
        Ok(Response::new(UnmountResponse { view: view.await? }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.check_mounted().await?;
        Ok(Response::new(StatusResponse {
            mountpoint: self.mountpoint.path().as_os_str().as_bytes().to_vec(),
            process: self.process.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            views: self.views.list().len() as u64,
            descriptors: descriptors(),
            descriptor_limit: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        self.check_serving()?;
        let with_members = request.into_inner().members;
        let views = self.views.clone();
        let (tell, hear) = mpsc::channel(LISTED_AHEAD);
        spawn_blocking(move || {
            for info in views.list() {
                let mut view = view_of(&info);
                match views.members(&info.root) {
                    Ok(Some(members)) => {
                        view.members = Some(members.len() as u64);
                        if with_members {
                            view.member = members.iter().map(Identity::to_string).collect();
                        }
                    }
                    // It has gone since it was listed
                    Ok(None) => continue,
                    Err(error) => warn!(view = view.id, "its members cannot be told: {error}"),
                }
                // Whoever asked has left
                if tell.blocking_send(Ok(view)).is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(hear)))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        info!(caller = caller_of(&request)?.name(), "told to stop");
        self.stop.notify_one();
        Ok(Response::new(StopResponse {}))
    }
}

/// Runs what may wait where it holds nobody up. It is done as a whole, even if the caller is not there any more.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    spawn_blocking(work).await.map_err(|_| Status::internal("the service has panicked and is ending"))?
}

fn caller_of<T>(request: &Request<T>) -> Result<Arc<Caller>, Status> {
    let caller = request.extensions().get::<Arc<Caller>>().cloned();
    caller.ok_or_else(|| Status::internal("a request that came over no connection"))
}

fn identity(token: &str) -> Result<Identity, Status> {
    token.parse().map_err(|error: pidigree::Error| Status::invalid_argument(error.to_string()))
}

/// Pins the process itself: it was another process that the client had in hand.
fn pin(root: &Identity) -> Result<Process, Status> {
    let process = Process::reopen(root).map_err(|error| status_of(&error))?;
    if process.state().map_err(|error| status_of(&error))? != State::Running {
        return Err(Status::failed_precondition(format!("process {} has ended", root.pid())));
    }
    if process.is_kernel_thread().map_err(|error| status_of(&error))? {
        return Err(Status::invalid_argument(format!(
            "process {} is a thread of the kernel's own, which never looks at a mount",
            root.pid()
        )));
    }
    Ok(process)
}

/// Asks again where processes are started faster than it can be told in which trees the root is: there is a pause at some time,
/// and nothing has changed before.
fn add(
    views: &Views,
    root: &Process,
    layers: &[PathBuf],
    owner: crate::Owner,
) -> Result<ViewId, crate::Error> {
    let begun = Instant::now();
    loop {
        match views.add(root, layers, owner) {
            Err(error)
                if error.as_process().is_some_and(pidigree::Error::is_unstable)
                    && begun.elapsed() < INSISTENCE =>
            {
                debug!("tried again: {error}");
                thread::sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
}

fn owner(caller: &Caller, wanted: Option<Owner>) -> Result<crate::Owner, Status> {
    match wanted {
        None => Ok(crate::Owner { uid: caller.uid, gid: caller.gid }),
        Some(Owner { uid, gid }) if caller.uid == 0 || (caller.uid, caller.gid) == (uid, gid) => {
            Ok(crate::Owner { uid, gid })
        }
        Some(Owner { uid, .. }) => Err(Status::permission_denied(format!(
            "user {} cannot make a view for user {uid}; only root can",
            caller.uid
        ))),
    }
}

fn layers(paths: Vec<Vec<u8>>) -> Result<Vec<PathBuf>, Status> {
    if paths.is_empty() {
        return Err(Status::invalid_argument("no layer: a view shows one directory at least"));
    }
    let paths = paths.into_iter().map(|path| PathBuf::from(OsString::from_vec(path)));
    paths.map(|path| if path.is_absolute() { Ok(path) } else { Err(relative(&path)) }).collect()
}

fn relative(path: &std::path::Path) -> Status {
    Status::invalid_argument(format!("layer {}: not an absolute path", path.display()))
}

fn view_of(info: &ViewInfo) -> View {
    View { id: info.id.get(), ..message(&info.root, &info.layers, info.owner) }
}

fn message(root: &Identity, layers: &[PathBuf], owner: crate::Owner) -> View {
    View {
        root: root.to_string(),
        layers: layers.iter().map(|layer| layer.as_os_str().as_bytes().to_vec()).collect(),
        owner: Some(Owner { uid: owner.uid, gid: owner.gid }),
        ..View::default()
    }
}

fn status(error: &crate::Error) -> Status {
    let said = error.to_string();
    let denied = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|source| source.kind() == io::ErrorKind::PermissionDenied);
    if error.is_already_routed() {
        Status::already_exists(said)
    } else if let Some(process) = error.as_process() {
        Status::new(status_of(process).code(), said)
    } else if error.is_invalid() {
        Status::invalid_argument(said)
    } else if error.is_limit() {
        Status::resource_exhausted(said)
    } else if error.is_unsupported() {
        Status::unimplemented(said)
    } else if denied {
        Status::permission_denied(said)
    } else {
        Status::internal(said)
    }
}

/// How many descriptors this process has; one of them is the listing's own.
fn descriptors() -> Option<u64> {
    let listed = std::fs::read_dir("/dev/fd").ok()?.count() as u64;
    Some(listed.saturating_sub(1))
}
