use proptest::prelude::*;

use crate::parse::cgroup::{Mount, below, mounts, own, procs};
use crate::parse::check;

/// Names as cgroups may have them: anything but a slash and the end of a line.
fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("/".to_owned()),
        prop::collection::vec("[a-z]{1,3}|[ :\\\\#0-9\t-]{1,4}|é", 1..4)
            .prop_map(|names| names.iter().map(|name| format!("/{name}")).collect()),
    ]
}

/// seq_escape of " \t\n\\".
fn escaped(path: &str) -> String {
    path.chars()
        .map(|letter| match letter {
            ' ' | '\t' | '\n' | '\\' => format!("\\{:03o}", letter as u32),
            letter => letter.to_string(),
        })
        .collect()
}

fn read(list: &str) -> Option<Vec<u32>> {
    let mut pids = Vec::new();
    procs(list.as_bytes(), |pid| pids.push(pid.get())).map(|()| pids)
}

proptest! {
    #[test]
    fn the_line_of_the_unified_hierarchy_is_found(
        before in prop::collection::vec("[1-9][0-9]?:[a-z,]{1,9}(=[a-z]{1,9})?:/[a-z/0:]{0,9}\n", 0..4),
        path in path(),
    ) {
        let text = format!("{}0::{path}\n", before.concat());
        prop_assert_eq!(own(text.as_bytes()), Some(path.as_bytes()));
        for cut in 0..text.len() {
            prop_assert_eq!(own(&text.as_bytes()[..cut]), None);
        }
    }

    #[test]
    fn the_mounts_of_cgroup2_are_read_as_the_kernel_writes_them(
        all in prop::collection::vec(
            (path(), path(), "( (shared|master):[0-9]{1,2}){0,2}", prop_oneof!["cgroup2", "cgroup", "ext4"]),
            0..5,
        )
    ) {
        let text: String = all
            .iter()
            .map(|(root, point, tags, kind)| {
                format!("38 31 0:37 {} {} rw,relatime{tags} - {kind} - rw\n", escaped(root), escaped(point))
            })
            .collect();
        let expected: Vec<Mount> = all
            .iter()
            .filter(|(.., kind)| kind == "cgroup2")
            .map(|(root, point, ..)| Mount { root: root.clone().into(), point: point.clone().into() })
            .collect();
        prop_assert_eq!(mounts(text.as_bytes()), Some(expected));
        for cut in 0..text.len() {
            let whole = cut == 0 || text.as_bytes()[cut - 1] == b'\n';
            prop_assert_eq!(mounts(&text.as_bytes()[..cut]).is_some(), whole);
        }
    }

    #[test]
    fn what_is_below_a_mount_is_what_was_put_there(root in path(), rest in path()) {
        let path = if root == "/" { rest.clone() } else { format!("{root}{rest}") };
        let expected = if rest == "/" { "" } else { &rest };
        let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(&path);
        prop_assert_eq!(below(root.as_bytes(), path.as_bytes()), Some(expected.as_bytes()));
    }

    #[test]
    fn members_are_read_without_the_invisible_ones(
        numbers in prop::collection::vec(prop_oneof![Just(0), 1..=i32::MAX as u32], 0..40)
    ) {
        let list: String = numbers.iter().map(|number| format!("{number}\n")).collect();
        let visible: Vec<u32> = numbers.iter().copied().filter(|&number| number != 0).collect();
        prop_assert_eq!(read(&list), Some(visible));
        for cut in 0..list.len() {
            let whole = cut == 0 || list.as_bytes()[cut - 1] == b'\n';
            prop_assert_eq!(read(&list[..cut]).is_some(), whole);
        }
    }

    #[test]
    fn any_lines_keep_the_promises(
        text in "((0|1):[a-z]{0,2}:/?[a-z./]{0,9}\n?|[0-9]{0,11}\n|(1 ){3}/[a-z.\\\\0-7/]{0,9} /m r( s:1)?( -)?( cgroup2)? r\n?){0,4}",
        paths in "(/(\\.\\.|a|b|ab)){0,4}/?\n(/(\\.\\.|a|b|ab)){0,4}/?",
    ) {
        check::cgroup(text.as_bytes());
        check::cgroup(paths.as_bytes());
    }
}

#[test]
fn a_path_that_cannot_be_told_is_not_guessed() {
    for (root, path) in [
        // Another name that starts alike.
        ("/a", "/ab"),
        ("/a/b", "/a"),
        // The process is outside its own cgroup namespace, and so is the top of the mount.
        ("/", "/.."),
        ("/", "/../a"),
        ("/..", "/../.."),
        // What stands between them has no name here.
        ("/..", "/a"),
        ("/..", "/"),
    ] {
        assert_eq!(below(root.as_bytes(), path.as_bytes()), None, "{path} below {root}");
    }
    assert_eq!(below(b"/../a", b"/../a/b"), Some(&b"/b"[..]));
    assert_eq!(below(b"/..", b"/../a"), Some(&b"/a"[..]));
    assert_eq!(below(b"/", b"/"), Some(&b""[..]));
}
