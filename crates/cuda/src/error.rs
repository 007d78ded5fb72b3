//! What can go wrong between prima and an NVIDIA GPU.

use crate::libraries::Library;
use prima_tensor::DeviceError;
use std::sync::Arc;

/// One sentence each: the thing, and the fix.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CudaError {
    #[error("no NVIDIA driver was found ({names}): install one, or use --device cpu", names = Library::Driver.names())]
    NoDriver,
    #[error("the NVIDIA driver supports CUDA {found}, prima needs {needed}: update the driver, or use --device cpu")]
    DriverTooOld { found: String, needed: String },
    #[error("the NVIDIA driver found no GPU: use --device cpu")]
    NoGpu,
    #[error("{name} has compute capability {found}, prima needs 8.0: use --device cpu")]
    GpuTooOld { name: String, found: String },
    #[error(
        "{library} was not found ({names}), and prima's kernels are compiled with it: install it, for example the Python \
         package nvidia-cuda-nvrtc, and name its folder in PRIMA_CUDA_LIBRARIES if it lies in an unusual place",
        library = library.title(), names = library.names()
    )]
    MissingLibrary { library: Library },
    #[error(
        "NCCL was not found ({names}), and several GPUs need it: install it, for example the Python package \
         nvidia-nccl-cu13, and name its folder in PRIMA_CUDA_LIBRARIES if it lies in an unusual place",
        names = Library::Nccl.names()
    )]
    NoNccl,
    #[error("the kernels of {file} do not compile for {arch}: {log}")]
    Compile { file: String, arch: String, log: String },
    #[error("{call} failed: {message}")]
    Call { call: String, message: String },
}

impl CudaError {
    pub fn call(call: impl Into<String>, message: impl std::fmt::Debug) -> Self {
        Self::Call {
            call: call.into(),
            message: format!("{message:?}"),
        }
    }
}

/// For `map_err` of what a library was asked by `call`.
pub(crate) fn failed<E: std::fmt::Debug>(call: &'static str) -> impl Fn(E) -> CudaError {
    move |error| CudaError::call(call, error)
}

impl From<CudaError> for DeviceError {
    fn from(error: CudaError) -> Self {
        Self::Gpu(Arc::new(error))
    }
}
