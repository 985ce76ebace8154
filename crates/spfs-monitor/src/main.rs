//! The `spfs-monitor` command; the library beside it does the work.

fn main() -> std::process::ExitCode {
    spfs_monitor::main()
}
