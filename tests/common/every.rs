//! Each test on every backend.

/// Makes of each function of a backend four tests, `NAME::cgroup` and so on.
macro_rules! on_every_backend {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            on_every_backend!($test: cgroup Cgroup, proc_connector ProcConnector, subreaper Subreaper, poll Poll);
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
