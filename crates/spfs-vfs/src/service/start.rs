//! A service in a process of its own, and the wait for it to be ready.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};

use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use super::sys::{self, Fork};
use crate::failure::{Failure, Kind};

/// What became of a start, told over the pipe: this and the words of whoever is ready, or the exit code and the words of
/// a failure.
const READY: u8 = 0;

/// One of the two processes that [`start`] returns in.
#[derive(Debug)]
pub enum Started {
    /// The new one, in a session of its own, in the root folder, with nothing but `/dev/null` on the three standard
    /// descriptors. It has to serve, and to tell the other one.
    Service(Starter),
    /// The one that has called: the service is ready, and has said this.
    Ready(String),
}

/// The way to whoever has started the service and waits.
#[derive(Debug)]
pub struct Starter(PipeWriter);

impl Starter {
    /// Tells that the service is ready.
    ///
    /// # Errors
    ///
    /// Nobody is there any more.
    pub fn ready(mut self, words: &str) -> io::Result<()> {
        self.tell(READY, words)
    }

    /// Tells why it will not be. There may be nobody to tell.
    pub fn failed(mut self, failure: &Failure) {
        let _ = self.tell(failure.exit_code(), &failure.to_string());
    }

    fn tell(&mut self, code: u8, words: &str) -> io::Result<()> {
        let mut message = vec![code];
        message.extend_from_slice(words.as_bytes());
        self.0.write_all(&message)
    }

    /// A second way, for what goes wrong once the first is used up.
    ///
    /// # Errors
    ///
    /// No descriptor is free.
    pub fn try_clone(&self) -> io::Result<Starter> {
        self.0.try_clone().map(Starter)
    }
}

/// Starts a process for the service, and waits in this one until the service has told that it is ready.
///
/// This returns in both. It is called before anything else: descriptors beyond the standard ones are closed, and there is
/// no other thread.
///
/// # Errors
///
/// In the calling process only: what the service has told, or that it has ended without a word.
pub fn start() -> Result<Started, Failure> {
    let failed =
        |what: &'static str| move |error: io::Error| Failure::error(format!("cannot {what}: {error}"));
    sys::close_inherited();
    let (hear, tell) = io::pipe().map_err(failed("make a pipe"))?;
    match sys::fork().map_err(failed("start a process"))? {
        Fork::Parent(child) => {
            drop(tell);
            listen(hear, child)
        }
        Fork::Child => {
            drop(hear);
            let starter = Starter(tell);
            if let Err(error) = leave() {
                starter.failed(&failed("leave the terminal")(error));
                std::process::exit(Kind::Error as i32);
            }
            Ok(Started::Service(starter))
        }
    }
}

/// Waits for the word of the service, and for its end if there is none.
fn listen(mut hear: PipeReader, child: Pid) -> Result<Started, Failure> {
    let mut message = Vec::new();
    hear.read_to_end(&mut message)
        .map_err(|error| Failure::error(format!("the service was started, and cannot be heard: {error}")))?;
    let words = || String::from_utf8_lossy(message.get(1..).unwrap_or_default()).into_owned();
    match message.first() {
        Some(&READY) => Ok(Started::Ready(words())),
        Some(&code) => {
            // It is cleaning up: whoever tries again is not to meet it
            let _ = reap(child);
            Err(Failure::of_exit_code(code, words()))
        }
        None => Err(match reap(child) {
            Ok(WaitStatus::Exited(_, code)) => Failure::of_exit_code(
                u8::try_from(code).unwrap_or(Kind::Error as u8),
                format!("the service has ended before it was ready, with exit code {code}"),
            ),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                Failure::error(format!("the service was ended by {signal} before it was ready"))
            }
            Ok(_) => Failure::error("the service has ended before it was ready"),
            Err(error) => {
                Failure::error(format!("the service said nothing, and cannot be waited for: {error}"))
            }
        }),
    }
}

fn reap(child: Pid) -> Result<WaitStatus, Errno> {
    loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
}

/// Leaves whatever would end the service with the caller: its session, its folder, its output.
fn leave() -> io::Result<()> {
    setsid()?;
    umask(Mode::from_bits_truncate(0o077));
    env::set_current_dir("/")?;
    let null: File = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}
