#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| prima_fuzz::lora(data));
