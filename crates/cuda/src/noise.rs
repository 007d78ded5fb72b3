//! Launcher of noise.cu.

use crate::gpu::{CudaGpu, args};
use crate::memory::tensor;
use prima_tensor::gpu::Noise;
use prima_tensor::{DType, Philox, Tensor};

impl Noise for CudaGpu {
    fn philox_normal(&self, first: Philox, images: usize, len: usize, shape: &[usize]) -> Tensor {
        let out = self.empty(images * len, DType::F32);
        let blocks = len.div_ceil(4);
        let total = images * blocks;
        let args = args![
            &out,
            len,
            blocks,
            total,
            first.seed as u32,
            (first.seed >> 32) as u32,
            first.image,
            first.purpose,
            first.step
        ];
        self.each("noise", "philox_normal", DType::F32, total, args);
        tensor(out, shape)
    }
}
