//! Launcher of noise.cu.

use super::gpu::{Gpu, args};
use crate::{DType, Philox, Tensor};

impl Gpu {
    /// Standard normal values in f32: `len` of each of `images` streams, `first` and those of the images after it.
    pub fn philox_normal(&self, first: Philox, images: usize, len: usize, shape: &[usize]) -> Tensor {
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
        Tensor::from_array(out, shape)
    }
}
