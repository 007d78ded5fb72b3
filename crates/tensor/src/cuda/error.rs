//! What can go wrong between the engine and a GPU.

use super::libraries::Library;

/// One sentence each: the thing, and the fix.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("device {given:?} is not known: use auto, cpu, cuda or cuda:N")]
    UnknownDevice { given: String },
    #[error("no NVIDIA driver was found ({names}): install one, or use --device cpu", names = Library::Driver.names())]
    NoDriver,
    #[error("the NVIDIA driver supports CUDA {found}, prima needs {needed}: update the driver, or use --device cpu")]
    DriverTooOld { found: String, needed: String },
    #[error("the NVIDIA driver found no GPU: use --device cpu")]
    NoGpu,
    #[error("there is no GPU {index}: this machine has {count}, numbered from 0")]
    NoSuchGpu { index: usize, count: usize },
    #[error("{name} has compute capability {found}, prima needs 8.0: use --device cpu")]
    GpuTooOld { name: String, found: String },
    #[error(
        "{library} was not found ({names}), and prima's kernels are compiled with it: install it, for example the Python \
         package nvidia-cuda-nvrtc, and name its folder in PRIMA_CUDA_LIBRARIES if it lies in an unusual place",
        library = library.title(), names = library.names()
    )]
    MissingLibrary { library: Library },
    #[error(
        "the GPU has no room for {wanted_mib} MiB more ({free_mib} of {total_mib} MiB are free): paint smaller pictures or \
         fewer at once, or use --dtype bf16"
    )]
    OutOfMemory {
        wanted_mib: usize,
        free_mib: usize,
        total_mib: usize,
    },
    #[error(
        "NCCL was not found ({names}), and several GPUs need it: install it, for example the Python package \
         nvidia-nccl-cu13, and name its folder in PRIMA_CUDA_LIBRARIES if it lies in an unusual place",
        names = Library::Nccl.names()
    )]
    NoNccl,
    #[error("the kernels of {file} do not compile for {arch}: {log}")]
    Compile { file: String, arch: String, log: String },
    #[error("{what} is not possible in work that is recorded for replay")]
    NotRecordable { what: &'static str },
    #[error("{call} failed: {message}")]
    Call { call: String, message: String },
}

impl DeviceError {
    pub(crate) fn call(call: impl Into<String>, message: impl std::fmt::Debug) -> Self {
        Self::Call {
            call: call.into(),
            message: format!("{message:?}"),
        }
    }

    /// Whether the command line asks for what does not exist, rather than something being broken.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::UnknownDevice { .. } | Self::NoSuchGpu { .. })
    }
}

/// Ends the work in progress. Ops return tensors, not results: a failing device unwinds, dropping (and so giving back) what
/// the work had allocated, up to [`catch`](crate::device::catch).
pub(crate) fn fail(error: DeviceError) -> ! {
    std::panic::resume_unwind(Box::new(error))
}
