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
pub mod device;
mod dtype;
mod error;
pub mod gpu;
mod mapped;
pub mod ops;
mod param;
mod random;
mod repeatable;
mod tensor;
mod trial;

pub use allocator::{give_back_memory, keep_large_buffers};
pub use autograd::{Gradients, is_recomputing, is_recording, no_grad, recompute, recomputing};
pub use cpu::int4::{GROUP as INT4_GROUP, Int4Rows};
pub use cpu::level::check_processor_limit;
pub use cpu::packed::FormKind;
pub use cpu::peak::{bf16_peak_gflops, int8_peak_gops, peak_gflops};
pub use cpu::weights::{Keep, Values, quantize_row};
pub use cpu::winograd::summed_values;
pub use device::{Device, DeviceChoice};
pub use dtype::DType;
pub use error::DeviceError;
pub use gpu::{RecordingCounts, Usage};
pub use mapped::{MappedBytes, MappedFile, Residency};
pub use ops::*;
pub use param::{FormTag, Param, ParamId, layout};
pub use random::{Philox, TorchCpuRng};
pub use repeatable::Repeatable;
pub use tensor::Tensor;
pub use trial::Trial;

/// Name of the matrix kernel chosen for this machine.
pub fn kernel_name() -> &'static str {
    cpu::kernel::kernel().name
}

/// The features of this processor that kernels are chosen by.
pub fn cpu_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let features = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avxvnni", is_x86_feature_detected!("avxvnni")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let features = [("neon", cfg!(target_feature = "neon"))];
    features
        .into_iter()
        .filter_map(|(name, has)| has.then_some(name))
        .collect()
}
