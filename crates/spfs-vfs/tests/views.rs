//! Views through a mount.
use pidigree::Process;
use spfs_vfs::{Mount, MountOptions, Owner, Views};
use std::fs;

#[test]
fn thin() {
    let place = tempfile::tempdir().unwrap();
    let (layer, at) = (place.path().join("layer"), place.path().join("at"));
    fs::create_dir_all(layer.join("sub")).unwrap();
    fs::create_dir(&at).unwrap();
    fs::write(layer.join("sub/file"), "hello").unwrap();
    let views = Views::new().unwrap();
    let mount = Mount::new(&at, views.clone(), MountOptions::default()).unwrap();
    let id = views
        .add(&Process::current().unwrap(), std::slice::from_ref(&layer), Owner { uid: 0, gid: 0 })
        .unwrap();
    assert_eq!(fs::read_link(at.join("self")).unwrap().to_str().unwrap(), format!("views/{id}"));
    assert_eq!(fs::read_to_string(at.join("self/sub/file")).unwrap(), "hello");
    println!("{:?}", fs::read_dir(at.join("self")).unwrap().collect::<Vec<_>>());
    println!("{:?}", fs::read_dir(at.join("views")).unwrap().collect::<Vec<_>>());
    assert!(fs::write(at.join("self/sub/file"), "x").is_err());
    views.remove(Process::current().unwrap().identity()).unwrap().unwrap();
    assert_eq!(fs::read_link(at.join("self")).unwrap().to_str().unwrap(), "views/default");
    assert!(fs::read_to_string(at.join(format!("views/{id}/sub/file"))).is_err());
    mount.unmount().unwrap();
    assert!(!at.join("self").exists());
}
