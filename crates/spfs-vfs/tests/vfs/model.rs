//! Random stacks against another way to say what they show: applied one after the other from the lowest, as images are unpacked.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use pidigree::Process;
use pidigree_testkit::{is_root, require};
use proptest::prelude::*;

use crate::common::{Place, ROOT, Shell};

/// What a path is, in a layer or in a view.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Thing {
    Directory,
    File(String),
    Link(String),
}

/// What a layer has at a path.
#[derive(Clone, Debug)]
enum Has {
    Thing(Thing),
    Whiteout,
    Opaque,
}

type Layer = BTreeMap<PathBuf, Has>;
type View = BTreeMap<PathBuf, Thing>;

fn path() -> impl Strategy<Value = PathBuf> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c d"), Just("é"), Just("wh.")];
    prop::collection::vec(name, 1..4).prop_map(|names| names.into_iter().collect())
}

fn has() -> impl Strategy<Value = Has> {
    prop_oneof![
        3 => Just(Has::Thing(Thing::Directory)),
        4 => any::<u8>().prop_map(|text| Has::Thing(Thing::File(text.to_string().repeat(usize::from(text))))),
        1 => prop_oneof![Just("a"), Just("../b"), Just("/nowhere")].prop_map(|to| Has::Thing(Thing::Link(to.into()))),
        3 => Just(Has::Whiteout),
        2 => Just(Has::Opaque),
    ]
}

fn layer() -> impl Strategy<Value = Layer> {
    prop::collection::btree_map(path(), has(), 0..12)
}

/// Writes a layer to the disk, and returns it as it could be written: a file is no directory, so what would be in it is not there.
fn write(at: &Path, layer: &Layer) -> Layer {
    let mut written = Layer::new();
    fs::create_dir(at).unwrap();
    for (path, has) in layer {
        let above: Vec<PathBuf> =
            path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()).map(Into::into).collect();
        let blocked =
            |above: &PathBuf| matches!(written.get(above), Some(Has::Thing(Thing::File(_) | Thing::Link(_))));
        if above.iter().any(blocked) {
            continue;
        }
        let directory = at.join(path.parent().unwrap());
        fs::create_dir_all(&directory).unwrap();
        for above in above {
            // A whiteout and a directory of the same name may stand side by side; the directory is what counts above it
            match written.get(&above) {
                None => drop(written.insert(above, Has::Thing(Thing::Directory))),
                Some(Has::Whiteout) => drop(written.insert(above, Has::Opaque)),
                Some(_) => {}
            }
        }
        let name = path.file_name().unwrap();
        match has {
            Has::Thing(Thing::Directory) | Has::Opaque => fs::create_dir_all(at.join(path)).unwrap(),
            Has::Thing(Thing::File(text)) => fs::write(at.join(path), text).unwrap(),
            Has::Thing(Thing::Link(to)) => symlink(to, at.join(path)).unwrap(),
            Has::Whiteout => {}
        }
        match has {
            Has::Whiteout => {
                let mut whiteout = std::ffi::OsString::from(".wh.");
                whiteout.push(name);
                fs::write(directory.join(whiteout), "").unwrap();
            }
            Has::Opaque => fs::write(at.join(path).join(".wh..wh..opq"), "").unwrap(),
            Has::Thing(_) => {}
        }
        written.insert(path.clone(), has.clone());
    }
    written
}

/// Unpacks a layer over what is there.
fn apply(view: &mut View, layer: &Layer) {
    // First what it removes, of the layers below it alone
    for (path, has) in layer {
        match has {
            Has::Whiteout => view.retain(|other, _| !other.starts_with(path)),
            Has::Opaque => view.retain(|other, _| other == path || !other.starts_with(path)),
            Has::Thing(_) => {}
        }
    }
    for (path, has) in layer {
        let thing = match has {
            Has::Whiteout => continue,
            Has::Opaque => Thing::Directory,
            Has::Thing(thing) => thing.clone(),
        };
        let stays = thing == Thing::Directory && view.get(path) == Some(&Thing::Directory);
        if !stays {
            view.retain(|other, _| !other.starts_with(path));
        }
        view.insert(path.clone(), thing);
    }
}

fn walk(at: &Path, below: &Path, seen: &mut View) {
    for entry in fs::read_dir(at.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        let kind = fs::symlink_metadata(at.join(&path)).unwrap().file_type();
        assert_eq!(entry.file_type().unwrap(), kind, "{path:?}: listed and looked up");
        let thing = if kind.is_dir() {
            walk(at, &path, seen);
            Thing::Directory
        } else if kind.is_symlink() {
            Thing::Link(fs::read_link(at.join(&path)).unwrap().into_os_string().into_string().unwrap())
        } else {
            Thing::File(fs::read_to_string(at.join(&path)).unwrap())
        };
        assert_eq!(seen.insert(path.clone(), thing), None, "{path:?} is listed twice");
    }
}

#[test]
fn a_view_is_its_layers_unpacked_from_the_lowest() {
    require!(is_root(), "needs root to mount");
    let place = Place::new();
    let me = Process::current().unwrap();
    // As in a service, where this is not the last tree each time
    let (other, its) = (Shell::new(), place.layer("other", &[("file", "x")]));
    place.add(&other.process(), &its);
    let cases = std::cell::Cell::new(0);
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) }, |(stack in prop::collection::vec(layer(), 1..5))| {
        cases.set(cases.get() + 1);
        // After a case that failed
        let _ = place.views.remove(me.identity());
        let folder = place.folder().join(format!("case-{}", cases.get()));
        fs::create_dir(&folder).unwrap();
        let paths: Vec<PathBuf> = (0..stack.len()).map(|index| folder.join(index.to_string())).collect();
        let written: Vec<Layer> = stack.iter().zip(&paths).map(|(layer, path)| write(path, layer)).collect();
        let mut wanted = View::new();
        for layer in written.iter().rev() {
            apply(&mut wanted, layer);
        }
        let id = place.views.add(&me, &paths, ROOT).unwrap();
        let mut seen = View::new();
        walk(&place.directory(id), Path::new(""), &mut seen);
        // And what is not listed is not there either
        let every = stack.iter().flat_map(|layer| layer.keys());
        let missing: Vec<&PathBuf> = every.filter(|path| !wanted.contains_key(*path))
            .filter(|path| fs::symlink_metadata(place.directory(id).join(path)).is_ok()).collect();
        place.views.remove(me.identity()).unwrap().unwrap();
        fs::remove_dir_all(&folder).unwrap();
        prop_assert_eq!(seen, wanted);
        // By way of a link that is shown, one may get elsewhere
        let through_links = |path: &&PathBuf| path.ancestors().skip(1).any(|above| matches!(wanted_link(&written, above), Some(true)));
        let missing: Vec<&PathBuf> = missing.into_iter().filter(|path| !through_links(path)).collect();
        prop_assert!(missing.is_empty(), "there, but not listed: {:?}", missing);
    });
}

/// Whether some layer has a link at this path.
fn wanted_link(layers: &[Layer], path: &Path) -> Option<bool> {
    Some(layers.iter().any(|layer| matches!(layer.get(path), Some(Has::Thing(Thing::Link(_))))))
}
