//! Connections, and who is at their other end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::unistd::geteuid;
use pidigree::Process;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

/// How long to wait where nothing can be accepted, for want of descriptors or of memory. Nothing tells when there is some.
const PAUSE: Duration = Duration::from_millis(100);

/// Who asks.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The process that connected, pinned; `None` where this kernel cannot tell who it is (before Linux 6.5).
    pub(super) process: Option<Process>,
}

impl Caller {
    /// Learns who is at the other end, or why nobody there is to be served.
    fn of(stream: &UnixStream) -> Result<Caller, String> {
        let credentials = stream.peer_cred().map_err(|error| format!("its user cannot be told: {error}"))?;
        let (uid, gid) = (credentials.uid(), credentials.gid());
        if uid != 0 && uid != geteuid().as_raw() {
            let pid = credentials.pid().map_or_else(|| "?".to_owned(), |pid| pid.to_string());
            return Err(format!("it is user {uid}'s (process {pid})"));
        }
        let process = match Process::from_peer(stream) {
            Ok(process) => Some(process),
            Err(error) if error.is_unsupported() => None,
            Err(error) => return Err(error.to_string()),
        };
        Ok(Caller { uid, gid, process })
    }

    /// For the log.
    pub(super) fn name(&self) -> String {
        match &self.process {
            Some(process) => process.identity().to_string(),
            None => "unknown".to_owned(),
        }
    }
}

/// A connection, and who is at its other end.
#[derive(Debug)]
pub(super) struct Peer {
    stream: UnixStream,
    caller: Arc<Caller>,
}

/// Accepts whoever is to be served. The others are closed before a byte of theirs was read.
pub(super) fn accept(listener: UnixListener) -> ReceiverStream<io::Result<Peer>> {
    let (tell, hear) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut short = false;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = tell.closed() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    short = false;
                    match Caller::of(&stream) {
                        Ok(caller) => {
                            debug!(caller = caller.name(), uid = caller.uid, "connected");
                            if tell.send(Ok(Peer { stream, caller: Arc::new(caller) })).await.is_err() {
                                return;
                            }
                        }
                        Err(why) => warn!("refused a connection: {why}"),
                    }
                }
                Err(error) => {
                    if !short {
                        warn!("cannot accept connections now: {error}");
                    }
                    short = true;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    });
    ReceiverStream::new(hear)
}

impl Connected for Peer {
    type ConnectInfo = Arc<Caller>;

    fn connect_info(&self) -> Arc<Caller> {
        self.caller.clone()
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
