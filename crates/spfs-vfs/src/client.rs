//! A client of the service, for programs that have no reactor of their own.

use std::error::Error as _;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use nix::unistd::geteuid;
use pidigree::{ExitStatus, Identity, Process};
use tokio::net::UnixStream;
use tokio::runtime::{self, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::failure::{Failure, Kind};
use crate::proto::fuse_client::FuseClient;
use crate::proto::{
    ListRequest, MountRequest, Owner, StatusRequest, StatusResponse, StopRequest, UnmountRequest, View,
};
use crate::socket;

/// How long a service may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the service at a socket, whose process is pinned.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    channel: Channel,
    fuse: FuseClient<Channel>,
    socket: PathBuf,
    uid: u32,
    /// `Err` where the kernel cannot tell who is at the other end.
    service: Result<Process, pidigree::Error>,
}

impl Client {
    /// Connects to the service at this socket.
    ///
    /// # Errors
    ///
    /// [`Kind::NotServing`] if none is there; [`Kind::Denied`] if it is neither root's nor this user's, and this user is not root.
    pub fn connect(socket: &Path) -> Result<Client, Failure> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
            Failure::error(format!("cannot connect to {}: no reactor: {error}", socket.display()))
        })?;
        let stream = socket::connect(socket)?;
        let failed = |error: io::Error| Failure::error(format!("connected to {}: {error}", socket.display()));
        stream.set_nonblocking(true).map_err(failed)?;
        let (stream, uid) = {
            let _inside = runtime.enter();
            let stream = UnixStream::from_std(stream).map_err(failed)?;
            let uid = stream.peer_cred().map_err(failed)?.uid();
            (stream, uid)
        };
        // Whoever may write to the folder could have put a socket of their own there
        let us = geteuid();
        if !us.is_root() && uid != 0 && uid != us.as_raw() {
            let at = socket.display();
            return Err(Failure::new(
                Kind::Denied,
                format!("user {uid} listens at {at}, and user {us} takes only root and itself for a service"),
            ));
        }
        let service = Process::from_peer(&stream);
        let once = Mutex::new(Some(stream));
        let connector = tower::service_fn(move |_| {
            let stream = once.lock().ok().and_then(|mut stream| stream.take());
            async move { stream.map(TokioIo::new).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
        });
        // The authority of a Unix socket means nothing, and has to be there
        let endpoint = Endpoint::from_static("http://localhost").timeout(PATIENCE);
        let channel = runtime.block_on(endpoint.connect_with_connector(connector));
        let channel = channel.map_err(|_| left(socket, uid))?;
        let fuse = FuseClient::new(channel.clone());
        Ok(Client { runtime, channel, fuse, socket: socket.to_owned(), uid, service })
    }

    /// Gives a process, and all that it starts from now on, a view of these layers, upper first.
    ///
    /// The view belongs to the caller, or to `owner`, which only root may name.
    ///
    /// # Errors
    ///
    /// [`Kind::Ended`] if the process has ended; [`Kind::Taken`] if it has a view of its own.
    pub fn mount(
        &mut self,
        root: &Process,
        layers: &[PathBuf],
        owner: Option<Owner>,
    ) -> Result<View, Failure> {
        let request = MountRequest {
            root: root.identity().to_string(),
            layers: layers.iter().map(|layer| layer.as_os_str().as_bytes().to_vec()).collect(),
            owner,
        };
        let answer = self.runtime.block_on(self.fuse.mount(request));
        let view = answer.map_err(|status| self.failure(status))?.into_inner().view;
        view.ok_or_else(|| self.unexpected("a mount without a view"))
    }

    /// Takes the view of a process away; `None` if there was none.
    ///
    /// # Errors
    ///
    /// As of any request: no answer.
    pub fn unmount(&mut self, root: &Identity) -> Result<Option<View>, Failure> {
        let answer = self.runtime.block_on(self.fuse.unmount(UnmountRequest { root: root.to_string() }));
        Ok(answer.map_err(|status| self.failure(status))?.into_inner().view)
    }

    /// Asks about the service.
    ///
    /// # Errors
    ///
    /// As of any request: no answer.
    pub fn status(&mut self) -> Result<StatusResponse, Failure> {
        let answer = self.runtime.block_on(self.fuse.status(StatusRequest {}));
        Ok(answer.map_err(|status| self.failure(status))?.into_inner())
    }

    /// Asks by the standard protocol whether the service serves.
    ///
    /// # Errors
    ///
    /// As of any request: no answer.
    pub fn is_serving(&mut self) -> Result<bool, Failure> {
        let mut health = HealthClient::new(self.channel.clone());
        let request = HealthCheckRequest { service: String::new() };
        let answer = self.runtime.block_on(health.check(request)).map_err(|status| self.failure(status))?;
        Ok(answer.into_inner().status() == ServingStatus::Serving)
    }

    /// Hands out each view, with the tokens of its members if they are asked for.
    ///
    /// # Errors
    ///
    /// As of any request: no answer. What `each` says ends the list, and is returned.
    pub fn list<E: From<Failure>>(
        &mut self,
        members: bool,
        mut each: impl FnMut(View) -> Result<(), E>,
    ) -> Result<(), E> {
        let answer = self.runtime.block_on(self.fuse.list(ListRequest { members }));
        let mut views = answer.map_err(|status| self.failure(status))?.into_inner();
        loop {
            match self.runtime.block_on(views.message()) {
                Ok(Some(view)) => each(view)?,
                Ok(None) => return Ok(()),
                Err(status) => return Err(self.failure(status).into()),
            }
        }
    }

    /// Has the service end, and waits until its process has: the mount is gone then, and nothing is locked any more.
    ///
    /// # Errors
    ///
    /// That it has not ended within `timeout`, or has ended in some other way than it was told to.
    pub fn stop(mut self, timeout: Duration) -> Result<(), Failure> {
        let token = match &self.service {
            Ok(process) => process.identity().to_string(),
            Err(_) => self.status()?.process,
        };
        let reopened = match &self.service {
            Ok(_) => None,
            Err(_) => Some(token.parse::<Identity>().and_then(|identity| Process::reopen(&identity))),
        };
        self.runtime.block_on(self.fuse.stop(StopRequest {})).map_err(|status| self.failure(status))?;
        // It waits for its connections to be closed, and nothing is said over this one any more
        let Client { runtime, channel, fuse, service, .. } = self;
        drop((channel, fuse, runtime));
        let process = match (&service, &reopened) {
            (Ok(process), _) | (_, Some(Ok(process))) => process,
            (_, Some(Err(error))) if error.is_gone() => return Ok(()),
            (Err(error), _) => {
                return Err(Failure::error(format!(
                    "the service was told to end, and whether it has cannot be told from here: {error}"
                )));
            }
        };
        match process.wait(Some(timeout)) {
            Ok(Some(ExitStatus::Code(0) | ExitStatus::Unknown)) => Ok(()),
            Ok(Some(status)) => {
                Err(Failure::error(format!("the service has ended with {status}; see its log")))
            }
            Ok(None) => Err(Failure::error(format!(
                "the service, process {token}, was told to end and has not within {} s",
                timeout.as_secs()
            ))),
            Err(error) if error.is_gone() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the pinned process of the service.
    ///
    /// # Errors
    ///
    /// Where the kernel cannot tell who it is; see [`Process::from_peer`].
    pub fn service(&self) -> Result<&Process, &pidigree::Error> {
        self.service.as_ref()
    }

    /// What the service said, or why it said nothing.
    fn failure(&self, status: Status) -> Failure {
        // What comes from the other end has no source here
        if status.source().is_none() {
            return status.into();
        }
        let at = self.socket.display();
        if matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded) {
            let seconds = PATIENCE.as_secs();
            return Failure::error(format!("the service at {at} has not answered within {seconds} s"));
        }
        left(&self.socket, self.uid)
    }

    fn unexpected(&self, what: &str) -> Failure {
        Failure::error(format!(
            "the service at {} answered {what}; is it of another version?",
            self.socket.display()
        ))
    }
}

/// Why the connection was closed without an answer: a service reads nothing of those whom it does not serve.
fn left(socket: &Path, service: u32) -> Failure {
    let (at, us) = (socket.display(), geteuid());
    if us.is_root() || us.as_raw() == service {
        return Failure::new(Kind::NotServing, format!("the service at {at} has ended without an answer"));
    }
    Failure::new(
        Kind::Denied,
        format!("the service at {at} is user {service}'s, and talks to root and to that user only"),
    )
}
