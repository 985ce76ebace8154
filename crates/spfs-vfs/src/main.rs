//! The `spfs-fuse` command: the service of the file system of SPFS, and its controls.

fn main() {}
