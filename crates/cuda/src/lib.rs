//! prima's ops on an NVIDIA GPU: kernels of our own (`*.cu`, compiled at run time), the launchers beside them, and the
//! libraries that do products and convolutions where they are found. It answers [`prima_tensor::gpu`]; docs/gpu.md tells
//! the whole story.
//!
//! It compiles and its kernels are tested on the CPU by emulation; it has never run on a GPU.

mod attention;
mod backend;
mod compiler;
mod cublaslt;
mod cudnn;
mod driver;
mod dry_run;
mod elementwise;
mod error;
mod gpu;
mod group;
mod layout;
mod libraries;
mod memory;
mod nccl;
mod noise;
mod norm;
mod optimizer;
mod products;
mod recording;
mod reduce;
mod report;

pub use backend::{Backend, Capacity, Direction, KernelId, Product, Then};
pub use compiler::{Compiler, KERNEL_FILES};
pub use error::CudaError;
pub use libraries::{Library, look_in};
pub use nccl::Communicator;
pub use report::{GpuInfo, LibraryInfo, Report, report};

use driver::Driver;
use gpu::CudaGpu;
use prima_tensor::{DType, Device, DeviceChoice, DeviceError};
use std::sync::Arc;

/// Opens what was asked for. On a GPU activations are stored as `dtype`, f32 or bf16; with `tf32` it may round the f32 factors of
/// products to TF32 (10 bits of mantissa) for its tensor cores. [`DeviceChoice::Auto`] falls back to the CPU and says why.
pub fn open(choice: DeviceChoice, dtype: DType, tf32: bool) -> Result<(Device, Option<DeviceError>), DeviceError> {
    Ok(match choice {
        DeviceChoice::Cpu => (Device::cpu(), None),
        DeviceChoice::Cuda(index) => (device(Driver::open(index)?, dtype, tf32), None),
        DeviceChoice::Auto => match Driver::open(0) {
            Ok(driver) => (device(driver, dtype, tf32), None),
            Err(why) => (Device::cpu(), Some(why)),
        },
    })
}

/// A device whose memory and kernels are `backend`'s.
pub fn device(backend: impl Backend + 'static, dtype: DType, tf32: bool) -> Device {
    let dtype = if dtype == DType::F32 { dtype } else { DType::BF16 };
    Device::of(Arc::new(CudaGpu::new(Box::new(backend), dtype, tf32)))
}
