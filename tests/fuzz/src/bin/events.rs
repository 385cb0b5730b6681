//! libFuzzer's entry to the events target: bytes in, a panic out if a promise is broken. It does
//! nothing itself.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parapet_fuzz::events::check(bytes));
