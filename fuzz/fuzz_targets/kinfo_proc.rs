#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pidigree::fuzzing::check("kinfo_proc", input));
