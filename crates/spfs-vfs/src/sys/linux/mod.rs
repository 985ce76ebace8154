//! Linux: openat2(2) for layers, `/dev/fuse` for the mount.

mod answers;
mod beneath;
mod filesystem;
mod handles;
mod mountinfo;
mod nodes;
mod session;

pub(crate) use beneath::{attributes, attributes_at, open_beneath, open_directory, xattr, xattr_names};
pub(crate) use session::{Session, raise_file_limit};
