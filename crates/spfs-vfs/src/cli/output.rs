//! Lines on standard output, for people and for programs.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use pidigree::Identity;
use serde::Serialize;
use spfs_vfs::failure::{Failure, Kind};
use spfs_vfs::proto::{self, StatusResponse};

/// Why a command ends otherwise than with an answer.
#[derive(Debug)]
pub(super) enum Outcome {
    /// To be told.
    Failed(Failure),
    /// Nobody reads our output any more.
    Unread,
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Outcome {
        Outcome::Failed(failure)
    }
}

impl From<io::Error> for Outcome {
    /// Of writing to standard output.
    fn from(error: io::Error) -> Outcome {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Outcome::Unread,
            _ => Failure::new(Kind::Error, format!("cannot write to standard output: {error}")).into(),
        }
    }
}

/// Says one line on standard error.
pub(super) fn report(line: &str) {
    // Red and bold, where a terminal wants that; where standard error is closed there is nobody to tell
    let _ = writeln!(anstream::stderr(), "\x1b[1;31mspfs-fuse:\x1b[0m {}", printable(line));
}

pub(super) fn line(line: fmt::Arguments<'_>) -> Result<(), Outcome> {
    Ok(writeln!(anstream::stdout(), "{}", printable(&line.to_string()))?)
}

pub(super) fn json(object: &impl Serialize) -> Result<(), Outcome> {
    // At once, so that lines of several programs on one pipe stay whole
    let mut line = serde_json::to_vec(object).map_err(io::Error::from)?;
    line.push(b'\n');
    Ok(io::stdout().write_all(&line)?)
}

/// Replaces what would move the cursor, change colours or reverse the text by what Rust writes for it.
fn printable(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::new(), |mut safe, c| {
        if harmful(c) {
            safe.extend(c.escape_default())
        } else {
            safe.push(c)
        }
        safe
    }))
}

/// What clap says over several paragraphs: the error and its tips, not the usage.
pub(super) fn one_line(message: &str) -> String {
    let told: Vec<String> = message
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter_map(|line| {
            let error = line.strip_prefix("error: ").map(str::to_owned);
            error.or_else(|| line.starts_with("tip: ").then_some(line))
        })
        .collect();
    format!("{} (spfs-fuse --help tells more)", told.join("; "))
}

fn path(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A view, for programs.
#[derive(Debug, Serialize)]
pub(super) struct View {
    pub(super) id: u64,
    root: String,
    layers: Vec<String>,
    uid: Option<u32>,
    gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<Vec<String>>,
}

/// What an unmount found, for programs.
#[derive(Debug, Serialize)]
pub(super) struct Unmounted {
    pub(super) unmounted: bool,
    pub(super) view: Option<View>,
}

impl View {
    pub(super) fn of(view: proto::View) -> View {
        View {
            id: view.id,
            root: view.root,
            layers: view.layers.into_iter().map(|layer| shown(&path(layer))).collect(),
            uid: view.owner.map(|owner| owner.uid),
            gid: view.owner.map(|owner| owner.gid),
            members: view.members,
            member: (!view.member.is_empty()).then_some(view.member),
        }
    }

    /// The root's, as it is in its token.
    pub(super) fn pid(&self) -> String {
        pid(&self.root)
    }

    pub(super) fn layers(&self) -> String {
        self.layers.join(" over ")
    }
}

fn pid(token: &str) -> String {
    token.parse::<Identity>().map_or_else(|_| token.to_owned(), |identity| identity.pid().to_string())
}

/// Prints a view of a list.
pub(super) fn listed(mut view: View, members: bool, as_json: bool) -> Result<(), Outcome> {
    if as_json {
        if members {
            view.member.get_or_insert_default();
        }
        return json(&view);
    }
    let count = match view.members {
        Some(1) => "1 process".to_owned(),
        Some(count) => format!("{count} processes"),
        None => "processes unknown".to_owned(),
    };
    let owner = view.uid.map_or_else(|| "?".to_owned(), |uid| uid.to_string());
    line(format_args!("{}  root {}  user {owner}  {count}  {}", view.id, view.pid(), view.layers()))?;
    for member in view.member.iter().flatten() {
        line(format_args!("    {}  {member}", pid(member)))?;
    }
    Ok(())
}

/// The service, for programs.
#[derive(Debug, Serialize)]
struct Status<'a> {
    serving: bool,
    mountpoint: String,
    socket: String,
    pid: Option<u32>,
    token: &'a str,
    version: &'a str,
    uptime_seconds: f64,
    views: u64,
    descriptors: Option<u64>,
    descriptor_limit: Option<u64>,
}

/// Prints what a service says about itself.
pub(super) fn status(
    socket: &Path,
    status: StatusResponse,
    serving: bool,
    as_json: bool,
) -> Result<(), Outcome> {
    let mountpoint = shown(&path(status.mountpoint));
    if as_json {
        return json(&Status {
            serving,
            mountpoint,
            socket: shown(socket),
            pid: status.process.parse::<Identity>().ok().map(|identity| identity.pid().get()),
            token: &status.process,
            version: &status.version,
            uptime_seconds: status.uptime_ms as f64 / 1000.0,
            views: status.views,
            descriptors: status.descriptors,
            descriptor_limit: status.descriptor_limit,
        });
    }
    let state = if serving { "serves" } else { "does not serve yet" };
    let number = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
    line(format_args!("{state} {mountpoint}"))?;
    line(format_args!("process      {}  {}", pid(&status.process), status.process))?;
    line(format_args!("version      {}", status.version))?;
    line(format_args!("up           {} s", status.uptime_ms / 1000))?;
    line(format_args!("socket       {}", socket.display()))?;
    line(format_args!("views        {}", status.views))?;
    line(format_args!("descriptors  {} of {}", number(status.descriptors), number(status.descriptor_limit)))
}
