//! Where the binary is, built and never stale.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names the binary to use, instead of building it.
pub(crate) const BINARY: &str = "PIDIGREE_TESTKIT";

/// Returns the path of the binary `pidigree-testkit`, after building it beside the running test.
///
/// This runs `cargo build` once per process (cargo's own lock orders test binaries that do so at the same time), so that
/// `cargo test -p pidigree` alone works. The environment variable `PIDIGREE_TESTKIT` names another binary instead.
///
/// # Panics
///
/// When cargo cannot build it.
pub fn binary() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| match std::env::var_os(BINARY) {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

fn build() -> PathBuf {
    let here = std::env::current_exe().expect("a test knows its own executable");
    let (target, profile) = target_and_profile(&here);
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "pidigree-testkit", "--bin", "pidigree-testkit"]);
    cargo.arg("--manifest-path").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    cargo.arg("--target-dir").arg(&target);
    match profile.as_str() {
        "debug" => {}
        profile => {
            cargo.args(["--profile", profile]);
        }
    }
    let output = cargo.output().unwrap_or_else(|error| panic!("cannot run {cargo:?}: {error}"));
    assert!(output.status.success(), "{cargo:?}: {}", String::from_utf8_lossy(&output.stderr));
    let binary = target.join(&profile).join("pidigree-testkit");
    assert!(binary.is_file(), "{cargo:?} did not make {}", binary.display());
    binary
}

/// `TARGET/PROFILE/deps/test-0123` or `TARGET/PROFILE/examples/name` gives `(TARGET, PROFILE)`; a doctest, which lives
/// elsewhere, gets the workspace's target directory.
fn target_and_profile(exe: &Path) -> (PathBuf, String) {
    let folder = exe.parent().filter(|folder| folder.ends_with("deps") || folder.ends_with("examples"));
    let profile = folder.and_then(Path::parent);
    let name = profile.and_then(Path::file_name).and_then(|name| name.to_str());
    match (profile.and_then(Path::parent), name) {
        (Some(target), Some(name)) => (target.to_owned(), name.to_owned()),
        _ => {
            let target = std::env::var_os("CARGO_TARGET_DIR")
                .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
            (target, "debug".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::target_and_profile;

    #[test]
    fn the_profile_is_read_off_the_executable() {
        for (exe, profile) in [
            ("/t/debug/deps/x-1", "debug"),
            ("/t/release/deps/x-1", "release"),
            ("/t/debug/examples/x", "debug"),
        ] {
            assert_eq!(target_and_profile(Path::new(exe)), (PathBuf::from("/t"), profile.to_owned()));
        }
    }
}
