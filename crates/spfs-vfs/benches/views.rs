//! B10: files in a view, beside the same code with one view and nobody routed. B11: the same by way of `self`, and what a file
//! system costs that routes every lookup. B12: from the end of a tree to the end of its view.
//!
//! For `scripts/bench-table` there are lines of two more kinds: how many requests the kernel made, and a latency by its
//! percentiles.

#[path = "../../../benches/common/judge.rs"]
#[expect(dead_code, reason = "each benchmark takes its part of it")]
mod judge;
#[cfg(target_os = "linux")] // nothing can be mounted elsewhere yet
mod linux;

fn main() {
    #[cfg(target_os = "linux")] // nothing can be mounted elsewhere yet
    linux::main();
}
