#![no_main]

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::sync::Mutex;

/// What the last panic said.
static SAID: Mutex<String> = Mutex::new(String::new());

// libFuzzer's own hook ends the process at any panic. This one leaves those of the tokenizers library to prima, which makes
// errors of them: a finding is what gets past it.
libfuzzer_sys::fuzz_target!(
    init: set_hook(Box::new(|panic| *SAID.lock().unwrap() = panic.to_string())),
    |data: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| prima_fuzz::tokenizer(data))).is_err() {
            eprintln!("{}", SAID.lock().unwrap());
            std::process::abort();
        }
    }
);
