//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args as Arguments, Parser, Subcommand};
use spfs_vfs::proto::Owner;

use super::help;
use super::target::Target;

/// One mount, and a view of its own for every process tree
#[derive(Debug, Parser)]
#[command(name = "spfs-fuse", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(arg_required_else_help = true, subcommand_required = true, propagate_version = true)]
#[command(long_about = help::ABOUT, after_long_help = help::SPFS_FUSE)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Serve(Serve),
    Mount(Mount),
    Unmount(Unmount),
    Status(Status),
    List(List),
    Stop(Stop),
}

/// Which service, and how it is to answer.
#[derive(Debug, Arguments)]
pub(super) struct Service {
    /// The service's socket [default: spfs-fuse.sock in $XDG_RUNTIME_DIR, /run/user/UID or TMPDIR/spfs-fuse-UID]
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// Print JSON, one object a line
    #[arg(long)]
    pub(super) json: bool,
}

/// Mount at a folder, and serve requests on a socket
#[derive(Debug, Arguments)]
#[command(after_long_help = help::SERVE)]
pub(super) struct Serve {
    /// An empty folder
    pub(super) mountpoint: PathBuf,
    /// Stay in the foreground, and log to standard error
    #[arg(short, long)]
    pub(super) foreground: bool,
    /// Append the log to this file [default: none, in the background]
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
    #[command(flatten)]
    pub(super) service: Service,
}

/// Give a process, and all that it starts from now on, a view of layers
#[derive(Debug, Arguments)]
#[command(after_long_help = help::MOUNT)]
pub(super) struct Mount {
    /// The process whose tree is to see the layers
    #[arg(long, value_name = "PID|TOKEN", allow_negative_numbers = true)]
    pub(super) root: Target,
    /// Whom the view belongs to; only root may name somebody else [default: who asks]
    #[arg(long, value_name = "UID[:GID]", value_parser = owner)]
    pub(super) owner: Option<Owner>,
    /// The layers, upper first: of a name that is in several, the first one is seen
    #[arg(value_name = "LAYER_DIR", required = true)]
    pub(super) layers: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) service: Service,
}

/// Take the view of a process away
#[derive(Debug, Arguments)]
#[command(after_long_help = help::UNMOUNT)]
pub(super) struct Unmount {
    /// The process that was named as root
    #[arg(long, value_name = "PID|TOKEN", allow_negative_numbers = true)]
    pub(super) root: Target,
    #[command(flatten)]
    pub(super) service: Service,
}

/// Say where the mount is, who serves it, and what it takes
#[derive(Debug, Arguments)]
#[command(after_long_help = help::STATUS)]
pub(super) struct Status {
    #[command(flatten)]
    pub(super) service: Service,
}

/// List the views
#[derive(Debug, Arguments)]
#[command(after_long_help = help::LIST)]
pub(super) struct List {
    /// Name the processes that see each view
    #[arg(short, long)]
    pub(super) members: bool,
    #[command(flatten)]
    pub(super) service: Service,
}

/// Unmount, end the service, and wait until it has ended
#[derive(Debug, Arguments)]
#[command(after_long_help = help::STOP)]
pub(super) struct Stop {
    #[command(flatten)]
    pub(super) service: Service,
}

/// `1000` or `1000:100`; the group is the user's number if it is left out.
fn owner(text: &str) -> Result<Owner, String> {
    let number = |part: &str| {
        // As the kernel has it, the last one is nobody's
        let parsed = part.parse().ok().filter(|number| *number != u32::MAX);
        parsed.ok_or_else(|| format!("{text}: an owner is UID or UID:GID, in numbers"))
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok(Owner { uid: number(uid)?, gid: number(gid)? }),
        None => Ok(Owner { uid: number(text)?, gid: number(text)? }),
    }
}
