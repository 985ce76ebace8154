//! The door for the targets in `fuzz/`, which cargo-fuzz builds with `--cfg fuzzing`.

/// Panics if the parser of this name breaks a promise on this input.
pub fn check(parser: &str, input: &[u8]) {
    crate::parse::check::of(parser)(input);
}

/// Panics if the machine of trees breaks a promise when it is told this.
pub fn lineage(input: &[u8]) {
    crate::tree::lineage::check::lineage(input);
}
