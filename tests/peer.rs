//! Who is at the other end of a socket.

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use pidigree::{Grade, Process, State, capabilities};
use pidigree_testkit::require;

#[test]
fn the_peer_is_pinned_and_a_dead_one_is_gone() {
    require!(
        capabilities().unwrap().grade("peer") == Grade::Proven || cfg!(pidigree_force_procfs),
        "no SO_PEERPIDFD"
    );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut client = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "client", "--nocapture"])
        .env("PIDIGREE_TEST_SOCKET", &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (mut connection, _) = listener.accept().unwrap();

    if cfg!(pidigree_force_procfs) {
        assert!(Process::from_peer(&connection).unwrap_err().is_unsupported());
    } else {
        let peer = Process::from_peer(&connection).unwrap();
        assert_eq!(peer.pid().get(), client.id());
        assert_eq!(peer.state().unwrap(), State::Running);
        assert_eq!(peer.identity(), Process::from_child(&client).unwrap().identity());
    }

    drop(client.stdin.take());
    client.wait().unwrap();
    connection.read_to_end(&mut Vec::new()).unwrap();
    if !cfg!(pidigree_force_procfs) {
        let error = Process::from_peer(&connection).expect_err("it was reaped");
        assert!(error.is_gone(), "{error}");
        assert_eq!(error.pid().unwrap().get(), client.id());
    }
}

/// Run in another process: connects, and holds the connection until its input ends.
#[test]
fn client() {
    let Some(path) = std::env::var_os("PIDIGREE_TEST_SOCKET") else {
        return;
    };
    let _connection = UnixStream::connect(path).unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_socket_without_a_peer_process_says_so() {
    let error = Process::from_peer(std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .expect_err("not a Unix socket");
    assert!(error.is_unsupported(), "{error}");
    let error = Process::from_peer(std::fs::File::open("/dev/null").unwrap()).expect_err("no socket at all");
    assert!(!error.is_gone(), "{error}");
}

#[test]
fn the_peer_of_a_pair_is_who_made_it() {
    let (one, other) = UnixStream::pair().unwrap();
    for end in [one, other] {
        match Process::from_peer(&end) {
            Ok(peer) => assert_eq!(peer.pid(), Process::current().unwrap().pid()),
            Err(error) => {
                assert!(capabilities().unwrap().grade("peer") != Grade::Proven && error.is_unsupported())
            }
        }
    }
}
