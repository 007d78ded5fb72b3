//! Sums of tensors over the GPUs of several processes.

use crate::gpu::CudaGpu;
use crate::memory::tensor;
use crate::nccl::Communicator;
use prima_tensor::device::fail;
use prima_tensor::gpu::{DeviceArray, Peers};
use prima_tensor::{DType, Tensor};
use std::sync::Arc;

/// The GPUs of several processes, each of which computes on one.
pub(crate) struct Group {
    gpu: Arc<CudaGpu>,
    communicator: Communicator,
}

impl Group {
    pub fn new(gpu: Arc<CudaGpu>, communicator: Communicator) -> Self {
        Self { gpu, communicator }
    }
}

impl Peers for Group {
    fn sum(&self, values: &Tensor) -> Tensor {
        let from = self.gpu.array(values, DType::F32);
        let out = self.gpu.empty(from.len(), DType::F32);
        // SAFETY: both arrays have this many values and outlive the call; the pool hands them out again in the order of the
        // stream only.
        let done = unsafe { self.communicator.sum(from.address(), out.address(), from.len()) };
        done.unwrap_or_else(|error| fail(error));
        tensor(out, values.shape())
    }
}
