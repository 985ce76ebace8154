//! Real tools in a view: the same bytes and status as on the layer itself.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pidigree::Process;
use pidigree_testkit::{is_root, require};

use crate::common::Place;

fn run(directory: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(directory).env("LC_ALL", "C");
    command.output().unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// The same on both, and how it ended.
fn same(layer: &Path, view: &Path, words: &[&str]) -> Output {
    let (there, here) = (run(layer, words), run(view, words));
    assert_eq!(here.status, there.status, "{words:?}: {}", String::from_utf8_lossy(&here.stderr));
    assert!(
        here.stdout == there.stdout,
        "{words:?} differs:\n{}\n{}",
        String::from_utf8_lossy(&there.stdout),
        String::from_utf8_lossy(&here.stdout)
    );
    assert_eq!(String::from_utf8_lossy(&here.stderr), String::from_utf8_lossy(&there.stderr), "{words:?}");
    here
}

/// A layer with something of everything below `tree`.
fn varied(place: &Place) -> PathBuf {
    let layer = place.layer(
        "layer",
        &[
            ("tree/readme", "needle in the first line\nand more\n"),
            ("tree/deep/er/still/needle.txt", "no\nneedle\n"),
            ("tree/empty", ""),
            ("tree/script.py", "import module.part\nprint(module.part.answer())\n"),
            ("tree/module/__init__.py", ""),
            ("tree/module/part.py", "def answer():\n    return 6 * 7\n"),
        ],
    );
    let tree = layer.join("tree");
    let noise: Vec<u8> =
        (0..3_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(tree.join("large"), &noise).unwrap();
    fs::hard_link(tree.join("large"), tree.join("deep/large-too")).unwrap();
    symlink("deep/er", tree.join("link")).unwrap();
    symlink("/nowhere", tree.join("broken")).unwrap();
    nix::unistd::mkfifo(&tree.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for index in 0..700 {
        fs::write(
            tree.join(format!("deep/many-{index:04}-with-a-rather-long-name-for-several-replies")),
            "x",
        )
        .unwrap();
    }
    // A hole between two ends
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"end", 5_000_000).unwrap();
    for program in ["cat", "ls"] {
        let found = ["/bin", "/usr/bin"].map(|folder| Path::new(folder).join(program));
        let found = found.iter().find(|path| path.exists()).expect("coreutils");
        fs::copy(found, tree.join(program)).unwrap();
    }
    fs::set_permissions(tree.join("readme"), fs::Permissions::from_mode(0o4640)).unwrap();
    std::os::unix::fs::chown(tree.join("empty"), Some(1234), Some(4321)).unwrap();
    layer
}

#[test]
fn tar_grep_find_and_python_see_the_layer() {
    require!(is_root(), "needs root to mount");
    let place = Place::new();
    let layer = varied(&place);
    place.add(&Process::current().unwrap(), &layer);
    let view = place.link();
    let tar = same(&layer, &view, &["tar", "--sort=name", "-c", "tree"]);
    assert!(tar.status.success() && tar.stdout.len() > 3_000_000);
    // Sparse maps come of SEEK_HOLE and SEEK_DATA
    let sparse = same(
        &layer,
        &view,
        &["tar", "--sort=name", "--sparse", "--hole-detection=seek", "-c", "tree/sparse"],
    );
    assert!(sparse.stdout.len() < 1_000_000, "the hole was read: {}", sparse.stdout.len());
    let sorted = |words: &str| format!("{words} | sort");
    let grep = same(&layer, &view, &["sh", "-c", &sorted("grep -r needle tree -D skip")]);
    assert_eq!(String::from_utf8_lossy(&grep.stdout).lines().count(), 2);
    same(&layer, &view, &["sh", "-c", &sorted("find tree -printf '%p %y %s %b %m %U %G %T@ %n %l\\n'")]);
    same(&layer, &view, &["sh", "-c", &sorted("find tree -links +1 -type f")]);
    same(&layer, &view, &["find", "tree/deep", "-maxdepth", "1", "-name", "many-0333*"]);
    same(&layer, &view, &["grep", "-r", "not to be found", "tree/module"]);
    same(&layer, &view, &["cat", "tree/missing"]);
    same(&layer, &view, &["sha256sum", "tree/large", "tree/deep/large-too", "tree/sparse"]);
    let python = same(&layer, &view, &["python3", "-B", "tree/script.py"]);
    assert_eq!(python.stdout, b"42\n");
    // Again, now that the kernel remembers it
    same(&layer, &view, &["tar", "--sort=name", "-c", "tree"]);
}

#[test]
fn programs_run_from_a_view_and_files_can_be_mapped() {
    require!(is_root(), "needs root to mount");
    let place = Place::new();
    let layer = varied(&place);
    place.add(&Process::current().unwrap(), &layer);
    let view = place.link();
    same(&layer, &view, &["./tree/cat", "tree/readme"]);
    same(&layer, &view, &["./tree/ls", "tree/deep"]);
    let map = r#"
import hashlib, mmap
with open("tree/large", "rb") as file:
    with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        print(hashlib.sha256(mapped).hexdigest(), mapped[2_000_000:2_000_010].hex())
"#;
    same(&layer, &view, &["python3", "-c", map]);
}

/// The interpreter itself, its shared library and its modules, from the mount.
#[test]
fn an_interpreter_runs_from_a_view() {
    require!(is_root(), "needs root to mount");
    let find = "import os, sys; print(os.path.realpath(sys.executable)); print(os.path.realpath(sys.prefix))";
    let found = Command::new("python3").args(["-c", find]).output().expect("python3");
    let found = String::from_utf8(found.stdout).unwrap();
    let (executable, prefix) = found.trim_end().split_once('\n').expect("two lines");
    let place = Place::new();
    let id = place.add(&Process::current().unwrap(), Path::new(prefix));
    let inside = Path::new(executable).strip_prefix(prefix).expect("it is in its prefix");
    let work = r#"
import json, decimal, sqlite3, ssl, hashlib, email, xml.dom.minidom, sys
print(sorted(name for name in sys.modules if name.startswith(("json", "email", "xml"))))
print(json.dumps({"pi": str(decimal.Decimal(1) / 7)}), sqlite3.connect(":memory:").execute("select 6*7").fetchone())
print([file for file in (module.__file__ for module in (json, decimal, email)) if not file.startswith(sys.prefix)])
print(open("/proc/self/exe", "rb").read(4), len(open("/proc/self/maps").read().split(sys.prefix)) > 1)
"#;
    let run = |base: &Path| {
        let output = Command::new(base.join(inside))
            .args(["-B", "-I", "-c", work])
            .env("LD_LIBRARY_PATH", base.join("lib"))
            .output()
            .unwrap();
        (output.status, String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let there = run(Path::new(prefix));
    assert!(there.0.success(), "{there:?}");
    // By its own name: the kernel says where a mapped file is, and `self` leads there
    assert_eq!(run(&place.directory(id)), there);
}

/// What the layer says beside its contents, by the calls for it.
#[test]
fn extended_attributes_and_space_are_the_layers() {
    require!(is_root(), "needs root to mount");
    let place = Place::new();
    let layer = place.layer("layer", &[("file", "x"), ("sub/x", "y")]);
    let set =
        "import os\nos.setxattr('file', b'user.one', b'1' * 3000)\nos.setxattr('sub', b'trusted.two', b'')\n";
    let output = run(&layer, &["python3", "-c", set]);
    assert!(output.status.success(), "{output:?}");
    place.add(&Process::current().unwrap(), &layer);
    let tell = r#"
import os
for path in ["file", "sub", "sub/x", "."]:
    names = sorted(os.listxattr(path))
    print(path, [(name, os.getxattr(path, name)) for name in names])
try:
    os.getxattr("file", b"user.none")
except OSError as error:
    print(error.errno)
space = os.statvfs("file")
print(space.f_blocks, space.f_bsize, space.f_frsize, space.f_files, space.f_namemax)
"#;
    same(&layer, &place.link(), &["python3", "-c", tell]);
}
