//! `pidigree run --trace`

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::{pidigree, pidigree_as_nobody};
use pidigree_testkit::{is_root, require};
use serde_json::{Value, json};

/// A slice: where it is, and from when to when.
#[derive(Debug)]
struct Slice<'t> {
    event: &'t Value,
    from: f64,
    to: f64,
}

/// What a viewer must find in a trace: slices by their tracks, one for each.
#[track_caller]
fn slices(trace: &Value) -> HashMap<u64, Slice<'_>> {
    let mut slices = HashMap::new();
    for event in events(trace).filter(|event| event["ph"] == "X") {
        let from = event["ts"].as_f64().expect("a time");
        let slice = Slice { event, from, to: from + event["dur"].as_f64().expect("a length") };
        let track = event["tid"].as_u64().expect("a track");
        assert!(slices.insert(track, slice).is_none(), "two slices on a track: {event}");
    }
    slices
}

fn events(trace: &Value) -> impl Iterator<Item = &Value> {
    trace["traceEvents"].as_array().expect("a list of events").iter()
}

#[track_caller]
fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("it was written");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// Times are rounded to a nanosecond.
const ROUNDING: f64 = 0.002;

#[test]
fn a_track_for_each_process_within_its_parents_time_and_in_the_order_of_the_tree() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, told) = (folder.path().join("trace.json"), folder.path().join("told"));
    let script = "sh -c 'sleep 0.1; sleep 0.05; :'; sh -c 'exit 4'; sleep 0.2 & exit 3";
    let line = ["run", "--json", "-o", told.to_str().unwrap(), "--trace", file.to_str().unwrap()];
    let ran = pidigree(&[&line[..], &["--", "sh", "-c", script]].concat());
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let told = std::fs::read_to_string(told).expect("it was written");
    let summary = crate::common::object(told.lines().last().expect("a summary"));

    let trace = read(&file);
    let slices = slices(&trace);
    assert_eq!(json!(slices.len()), summary["processes"]);
    require!(summary["complete"] == true, "not every member is seen here");
    assert_eq!(slices.len(), 6, "{trace}");
    let names: HashMap<u64, &str> = events(&trace)
        .filter(|event| event["name"] == "thread_name")
        .map(|event| (event["tid"].as_u64().unwrap(), event["args"]["name"].as_str().unwrap()))
        .collect();
    let ranks: HashMap<u64, u64> = events(&trace)
        .filter(|event| event["name"] == "thread_sort_index")
        .map(|event| (event["tid"].as_u64().unwrap(), event["args"]["sort_index"].as_u64().unwrap()))
        .collect();
    let root = &slices[&1];
    assert_eq!((ranks[&1], &root.event["args"]["status"]), (0, &json!("exit code 3")));
    for (track, slice) in &slices {
        let pid = slice.event["args"]["pid"].to_string();
        assert!(names[track].ends_with(&pid), "{names:?}");
        assert!(ranks.contains_key(track) && slice.from <= slice.to, "{slice:?}");
    }
    let mut forks = 0;
    for start in events(&trace).filter(|event| event["ph"] == "s") {
        let end = events(&trace).find(|event| event["ph"] == "f" && event["id"] == start["id"]);
        let end = end.expect("an arrow has an end");
        let (parent, child) = (start["tid"].as_u64().unwrap(), end["tid"].as_u64().unwrap());
        let at = start["ts"].as_f64().unwrap();
        // It was forked while its parent ran, at its own beginning, and stands below it.
        let (above, below) = (&slices[&parent], &slices[&child]);
        assert!(above.from <= at + ROUNDING && at <= above.to + ROUNDING, "{above:?} {below:?}");
        assert!((below.from - at).abs() < ROUNDING, "{start} {below:?}");
        assert!(ranks[&parent] < ranks[&child], "{ranks:?}");
        let depth = |track| names[&track].matches("· ").count();
        assert_eq!(depth(child), depth(parent) + 1, "{names:?}");
        forks += 1;
    }
    assert_eq!(forks, slices.len() - 1);
    for event in events(&trace).filter(|event| event["ph"] == "i") {
        let (slice, at) = (&slices[&event["tid"].as_u64().unwrap()], event["ts"].as_f64().unwrap());
        assert!(slice.from <= at + ROUNDING && at <= slice.to + ROUNDING, "{event} {slice:?}");
    }
}

#[test]
fn it_takes_the_files_place_and_leaves_nothing_beside_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, link) = (folder.path().join("trace.json"), folder.path().join("link"));
    std::fs::write(&file, "an older one").expect("our own file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("our own file");
    std::os::unix::fs::symlink(&file, &link).expect("our own folder");
    // Whole at every moment: during the run it is the older one.
    let script = format!("cat {}; kill -9 $$", file.display());
    let ran = pidigree(&["run", "-q", "--trace", link.to_str().unwrap(), "--", "sh", "-c", &script]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(137), "an older one"), "{ran:?}");
    let slices = read(&file);
    assert_eq!(self::slices(&slices)[&1].event["args"]["status"], "signal 9 (SIGKILL)");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(link.is_symlink());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);

    let ran = pidigree(&["run", "--trace", file.to_str().unwrap(), "pidigree-no-such"]);
    assert_eq!(ran.code, Some(127));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "something was left");
}

#[test]
fn where_it_cannot_be_written_nothing_is_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let witness = folder.path().join("ran");
    let mut places = vec!["/nonexistent/trace.json".to_owned(), "/dev/full".to_owned()];
    places.push(folder.path().to_str().unwrap().to_owned());
    for place in places {
        let ran = pidigree(&["run", "--trace", &place, "touch", witness.to_str().unwrap()]);
        assert_eq!(ran.code, Some(125), "{ran:?}");
        assert!(ran.stderr.contains(&place), "{ran:?} does not name {place}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        assert!(!witness.exists(), "{place}: it was run nevertheless");
    }
}

#[test]
fn in_a_folder_of_others_nothing_is_run() {
    require!(is_root(), "needs root");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("our own folder");
    let file = folder.path().join("trace.json");
    let file = file.to_str().unwrap();
    let ran = pidigree_as_nobody(&["run", "--trace", file, "echo", "it ran"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(125), ""), "{ran:?}");
    assert!(ran.stderr.contains(file), "{ran:?}");
}
