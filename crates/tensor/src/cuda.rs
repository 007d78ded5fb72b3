//! The CUDA twin of `cpu/`: kernels of our own (`*.cu`, compiled at run time), the launchers beside them, and the libraries
//! that do products and convolutions where they are found. docs/gpu.md tells the whole story.
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
mod emulator;
mod error;
mod gpu;
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

pub(crate) use attention::LogSums;
pub(crate) use backend::{Backend, ConvolutionSizes};
pub use compiler::{Compiler, KERNEL_FILES};
pub(crate) use driver::Cuda;
pub(crate) use dry_run::DryRun;
pub(crate) use elementwise::Binary;
pub use emulator::Emulator;
pub use error::DeviceError;
#[cfg(test)]
pub(crate) use error::fail;
pub(crate) use gpu::{Form, Gpu};
pub use libraries::look_in;
pub(crate) use memory::Array;
pub use memory::Usage;
pub use nccl::Communicator;
pub(crate) use norm::Statistics;
pub use recording::{RecordingCounts, Repeatable};
pub(crate) use reduce::Loss;
pub use report::{GpuInfo, LibraryInfo, Report, report};
