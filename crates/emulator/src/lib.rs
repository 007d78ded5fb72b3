//! The CUDA kernels on the CPU: the `.cu` files compiled by the system's C++ compiler with `emulate.h`. It shows that indices,
//! reductions, barriers, launches and the dispatch of the ops are right, not that a GPU runs them. Where there is no
//! compiler, the tests say that they did not run.
//!
//! Other crates' tests are all that uses this crate (`cargo xtask check` sees to it), so it panics where a test would.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod backend;
mod build;

pub use build::mock_driver;

use backend::Emulator;
use prima_tensor::{DType, Device};

const MEMORY_BYTES: usize = 4 << 30;

/// A device that runs the kernels here, with activations of `dtype`; `None` without a C++ compiler.
pub fn device(dtype: DType) -> Option<Device> {
    device_with(dtype, MEMORY_BYTES)
}

/// The same with that much memory.
pub fn device_with(dtype: DType, limit_bytes: usize) -> Option<Device> {
    let emulator = Emulator::open(build::kernels()?, limit_bytes);
    Some(prima_cuda::device(emulator, dtype, false))
}

/// The same, as if NVIDIA's library of products were there.
pub fn device_with_library(dtype: DType) -> Option<Device> {
    let emulator = Emulator::open(build::kernels()?, MEMORY_BYTES).with_library_products();
    Some(prima_cuda::device(emulator, dtype, false))
}
