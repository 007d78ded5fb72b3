//! What can go wrong between the engine and a device.

use std::error::Error;
use std::sync::Arc;

/// One sentence each: the thing, and the fix.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("device {given:?} is not known: use auto, cpu, cuda or cuda:N")]
    UnknownDevice { given: String },
    #[error("this binary was built without CUDA: use --device cpu, or build it with the feature cuda")]
    WithoutCuda,
    #[error("there is no GPU {index}: this machine has {count}, numbered from 0")]
    NoSuchGpu { index: usize, count: usize },
    #[error(
        "the GPU has no room for {wanted_mib} MiB more ({free_mib} of {total_mib} MiB are free): paint smaller pictures or \
         fewer at once, or use --dtype bf16"
    )]
    OutOfMemory {
        wanted_mib: usize,
        free_mib: usize,
        total_mib: usize,
    },
    #[error("{what} is not possible in work that is recorded for replay")]
    NotRecordable { what: &'static str },
    /// What the crate that drives the GPU says.
    #[error(transparent)]
    Gpu(Arc<dyn Error + Send + Sync>),
}

impl DeviceError {
    /// Whether the command line asks for what does not exist, rather than something being broken.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::UnknownDevice { .. } | Self::NoSuchGpu { .. })
    }
}
