//! NVRTC for `crates/cuda/tests/kernels_compile.rs`: NVIDIA's Python wheel, unpacked below the target folder.

use crate::python_or_default;
use std::path::Path;
use std::process::{Command, Stdio};

/// Pinned: another version is another compiler.
const WHEEL: &str = "nvidia-cuda-nvrtc==13.0.88";

/// Puts the wheel in place; says why the kernels will not be compiled where it cannot be had.
pub fn install(target: &Path) -> Option<String> {
    let folder = target.join("nvrtc");
    // pip unpacks in one go at the end: the library's presence means that all of it is there.
    if folder.join("nvidia/cu13/lib/libnvrtc.so.13").exists() {
        return None;
    }
    let status = Command::new(python_or_default(None))
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
        .arg(&folder)
        .arg(WHEEL)
        .stdout(Stdio::null())
        .status();
    if status.is_ok_and(|status| status.success()) {
        return None;
    }
    Some(format!(
        "Compiling the kernels for GPUs: `python3 -m pip install {WHEEL}` failed, and it brings the compiler."
    ))
}
