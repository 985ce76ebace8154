//! What is remembered of callers.

use std::sync::Arc;

use super::cache::{As, Cache, Pin};
use crate::pid::Pid;
use crate::process::Process;

fn this() -> (Pid, Pin) {
    (Pid::current(), Pin::Process(Process::current().unwrap()))
}

#[test]
fn what_was_found_out_before_a_change_is_neither_kept_nor_given() {
    let cache: Cache<u32> = Cache::new(8);
    let value = Arc::new(7);
    let found = cache.now();
    let (pid, pin) = this();
    cache.keep(pid, pin, Some((1, Arc::clone(&value))), found);
    assert_eq!(cache.look(pid, As::Process).unwrap(), Some(Some(Arc::clone(&value))));
    // Of another route that has left, nothing was known.
    cache.forget_route(2);
    assert_eq!(cache.look(pid, As::Thread).unwrap(), Some(Some(Arc::clone(&value))));
    cache.forget_all();
    assert_eq!(cache.look(pid, As::Process).unwrap(), None);
    // Too late.
    let (pid, pin) = this();
    cache.keep(pid, pin, None, found);
    assert_eq!(cache.look(pid, As::Process).unwrap(), None);
}

#[test]
fn nothing_is_kept_of_a_route_that_has_left() {
    let cache: Cache<u32> = Cache::new(8);
    let value = Arc::new(7);
    let (pid, pin) = this();
    cache.keep(pid, pin, Some((1, Arc::clone(&value))), cache.now());
    cache.forget_all();
    assert_eq!(Arc::strong_count(&value), 2, "it is worth nothing, but it is there");
    cache.forget_route(1);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn descriptors_are_given_back_until_there_are_none() {
    let cache: Cache<u32> = Cache::new(8);
    assert!(!cache.shed());
    let (pid, pin) = this();
    cache.keep(pid, pin, None, cache.now());
    assert!(cache.shed());
    assert!(!cache.shed());
    assert_eq!(cache.look(pid, As::Process).unwrap(), None);
    // With room for nobody, nobody is kept.
    let none: Cache<u32> = Cache::new(0);
    let (pid, pin) = this();
    none.keep(pid, pin, None, none.now());
    assert_eq!(none.look(pid, As::Process).unwrap(), None);
}
