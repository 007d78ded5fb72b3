//! The engine: a contiguous row-major [`Tensor`], some 30 fused ops with hand-written
//! backward passes, and a [`Param`] that packs its weights once.
//!
//! Activations are channels-last: `[B, H, W, C]` for pictures, `[B, L, C]` for sequences.
//! Weights keep the layout of the file: linear `[out, in]`, convolution `[out, in, kh, kw]`.
//!
//! # Panics
//! Ops assert the shapes of their operands: a mismatch is a bug in a model, not bad input
//! (models check every tensor's shape when they load it).

mod allocator;
mod autograd;
mod cpu;
pub mod cuda;
pub mod device;
mod dtype;
pub mod ops;
mod param;
mod random;
mod tensor;

pub use allocator::keep_large_buffers;
pub use autograd::{Gradients, is_recording, no_grad};
pub use cpu::peak::peak_gflops;
pub use cuda::DeviceError;
pub use device::{Device, DeviceChoice};
pub use dtype::DType;
pub use ops::*;
pub use param::Param;
pub use random::{Philox, TorchCpuRng};
pub use tensor::Tensor;

/// Name of the matrix kernel chosen for this machine.
pub fn kernel_name() -> &'static str {
    cpu::gemm::kernel().name
}
