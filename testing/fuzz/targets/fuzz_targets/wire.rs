//! Runs `todo_fuzz::wire`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| todo_fuzz::wire::check(data));
