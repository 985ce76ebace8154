//! `spfs-fuse serve`.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use pidigree::{Identity, Pid};
use serde::{Deserialize, Serialize};
use spfs_vfs::failure::{Failure, Kind};
use spfs_vfs::service::{self, Options, Started, Starter};

use super::args::Serve;
use super::output::{self, Outcome};
use super::{log, socket};

/// What is said when the mount answers.
#[derive(Debug, Deserialize, Serialize)]
struct Ready {
    mountpoint: String,
    socket: String,
    pid: Pid,
    token: Identity,
}

impl Ready {
    fn of(options: &Options, mountpoint: &Path) -> io::Result<Ready> {
        let token = Identity::of(Pid::current()).map_err(io::Error::other)?;
        Ok(Ready {
            mountpoint: mountpoint.to_string_lossy().into_owned(),
            socket: options.socket.to_string_lossy().into_owned(),
            pid: token.pid(),
            token,
        })
    }

    fn print(&self, json: bool) -> Result<(), Outcome> {
        if json {
            return output::json(self);
        }
        output::line(format_args!(
            "ready: {} by process {} ({}), socket {}",
            self.mountpoint, self.pid, self.token, self.socket
        ))
    }
}

/// Returns when the service is ready (in the background), or has ended.
pub(super) fn serve(args: Serve) -> Result<bool, Outcome> {
    // Nobody else's names: the service is in another folder
    let options = Options {
        mountpoint: absolute(&args.mountpoint)?,
        socket: absolute(&args.service.socket.unwrap_or_else(socket::default_path))?,
    };
    let log = args.log.as_deref().map(absolute).transpose()?;
    let json = args.service.json;
    if args.foreground {
        log::start(log.as_deref())?;
        let end = service::serve(&options, |mountpoint| {
            // Whoever does not read this may still want the service
            let _ = Ready::of(&options, mountpoint)?.print(json);
            Ok(())
        })?;
        end.follow()?;
        return Ok(true);
    }
    match service::start()? {
        Started::Ready(words) => {
            let ready: Ready = serde_json::from_str(&words).map_err(io::Error::from)?;
            ready.print(json)?;
            Ok(true)
        }
        Started::Service(starter) => in_background(&options, log.as_deref(), starter),
    }
}

/// In the process of the service: its failures are told to whoever has started it, while that one waits.
fn in_background(options: &Options, log: Option<&Path>, starter: Starter) -> Result<bool, Outcome> {
    let starter = RefCell::new(Some(starter));
    let logging = if let Some(log) = log { log::start(Some(log)) } else { Ok(()) };
    let served = logging.and_then(|()| {
        service::serve(options, |mountpoint| {
            let words = serde_json::to_string(&Ready::of(options, mountpoint)?)?;
            match starter.take() {
                Some(starter) => starter.ready(&words),
                None => Ok(()),
            }
        })
    });
    match served {
        Ok(end) => {
            if let Some(starter) = starter.take() {
                starter.failed(&Failure::new(Kind::Error, "the service was told to end before it was ready"));
            }
            end.follow()?;
            Ok(true)
        }
        Err(failure) => {
            if let Some(starter) = starter.take() {
                starter.failed(&failure);
            }
            Err(failure.into())
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::new(Kind::Error, format!("{}: {error}", path.display())))
}
