//! The `pidigree` command.
fn main() {}
