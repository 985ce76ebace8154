//! The scripted child: see the documentation of the library, or `pidigree-testkit --help`.

fn main() -> std::process::ExitCode {
    pidigree_testkit::main()
}
