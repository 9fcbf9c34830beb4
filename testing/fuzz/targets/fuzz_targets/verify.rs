//! Runs `todo_fuzz::verify`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| todo_fuzz::verify::check(data));
