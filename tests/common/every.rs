//! Each test on every backend.

/// Makes of each function of a backend a test on each that this system has: `NAME::cgroup` and so on.
macro_rules! on_every_backend {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            #[cfg(target_os = "linux")]
            on_every_backend!($test: cgroup Cgroup, proc_connector ProcConnector, subreaper Subreaper, poll Poll);
            #[cfg(target_os = "macos")]
            on_every_backend!($test: kqueue Kqueue);
        }
    )+};
    ($test:ident: $($name:ident $backend:ident),+) => {$(
        #[test]
        fn $name() {
            let backend = pidigree::Backend::$backend;
            pidigree_testkit::require!($crate::trees::works(backend), "{backend} cannot be had here");
            super::$test(backend);
        }
    )+};
}
