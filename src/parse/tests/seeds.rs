use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::parse::check;
use crate::tree::lineage::check::lineage;

/// What has a fuzz target: each parser, and the machine of trees.
fn all() -> BTreeMap<&'static str, fn(&[u8])> {
    check::ALL.into_iter().chain([("lineage", lineage as fn(&[u8]))]).collect()
}

/// What is committed for the fuzzer to start from, regressions included, is checked by every `cargo test` too.
#[test]
fn every_seed_of_the_fuzz_targets_keeps_the_promises() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    if !seeds.exists() {
        // The published package has tests, and no fuzz targets.
        eprintln!("skipped: no fuzz/seeds in this package");
        return;
    }
    let mut folders = list(&seeds);
    for (name, check) in all() {
        let folder = seeds.join(name);
        let files = list(&folder);
        assert!(!files.is_empty(), "{name} has no seeds");
        for file in files {
            // Shown by the test harness if the check panics.
            eprintln!("{}", file.display());
            check(&std::fs::read(&file).unwrap());
        }
        folders.retain(|other| *other != folder);
    }
    assert_eq!(folders, [] as [PathBuf; 0], "seeds of no parser");
}

/// A parser without a fuzz target would never be fuzzed, and nobody would notice.
#[test]
fn every_parser_has_its_fuzz_target() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    if !targets.exists() {
        eprintln!("skipped: no fuzz/fuzz_targets in this package");
        return;
    }
    let expected: Vec<PathBuf> = all().keys().map(|name| targets.join(format!("{name}.rs"))).collect();
    assert_eq!(list(&targets), expected);
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files
}
