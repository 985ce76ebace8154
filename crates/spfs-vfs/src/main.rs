//! The `spfs-fuse` command: the service of the file system of SPFS, and its controls.
#![deny(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
