//! The first and only process of the emulated machine: runs every program in /tests one after the other, says how each
//! ended on the serial console, and switches the machine off.

use std::ffi::{c_char, c_int, c_ulong, c_void};
use std::process::Command;

unsafe extern "C" {
    fn mount(from: *const c_char, to: *const c_char, kind: *const c_char, flags: c_ulong, data: *const c_void) -> c_int;
    fn reboot(what: c_int) -> c_int;
}

/// One test a time, with what it prints. The one left out sums series in f64 for minutes and runs no vector code.
const ARGUMENTS: [&str; 4] = [
    "--test-threads=1",
    "--show-output",
    "--skip",
    "tanh_and_the_normal_distribution_are_accurate",
];

const POWER_OFF: c_int = 0x4321_fedc;

fn main() {
    for (what, place) in [(c"proc", c"/proc"), (c"devtmpfs", c"/dev"), (c"tmpfs", c"/tmp")] {
        // SAFETY: three C strings, no flags, no data.
        unsafe { mount(what.as_ptr(), place.as_ptr(), what.as_ptr(), 0, std::ptr::null()) };
    }
    let mut programs: Vec<_> = std::fs::read_dir("/tests").into_iter().flatten().flatten().map(|e| e.path()).collect();
    programs.sort();
    let mut failed = 0;
    for program in &programs {
        println!("==== {}", program.display());
        let status = Command::new(program).args(ARGUMENTS).status();
        let passed = status.as_ref().is_ok_and(|status| status.success());
        failed += usize::from(!passed);
        println!("==== {}: {}", program.display(), if passed { "passed" } else { "FAILED" });
    }
    println!("==== {} programs, {failed} failed", programs.len());
    // The serial port is slower than this program.
    std::thread::sleep(std::time::Duration::from_secs(3));
    // SAFETY: nothing is mounted that could lose data.
    unsafe { reboot(POWER_OFF) };
}
