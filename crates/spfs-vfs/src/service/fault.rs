//! Panics on request, in debug builds: that no dead mount is left behind has to be seen, and none is known to be reachable.

/// Panics if the environment asks for it by the name of this place: `SPFS_FUSE_PANIC=request`.
pub(super) fn point(name: &str) {
    if cfg!(debug_assertions) && std::env::var_os("SPFS_FUSE_PANIC").is_some_and(|wanted| wanted == name) {
        panic!("as SPFS_FUSE_PANIC={name} asks for");
    }
}
