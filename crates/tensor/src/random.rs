//! Noise. Philox is keyed by what the noise is for, so a picture does not depend on the batch,
//! the thread count or the device; `TorchCpuRng` reproduces torch's CPU generator.

use crate::Tensor;

/// Counter-based generator Philox4x32-10, keyed by (seed, image index, purpose, step).
#[derive(Clone, Copy, Debug)]
pub struct Philox {
    pub seed: u64,
    pub image: u32,
    pub purpose: u32,
    pub step: u32,
}

impl Philox {
    /// Standard normal values.
    pub fn normal(&self, len: usize) -> Vec<f32> {
        let _ = len;
        todo!()
    }

    /// Uniform values in `[0, 1)`.
    pub fn uniform(&self, len: usize) -> Vec<f32> {
        let _ = len;
        todo!()
    }
}

/// torch's CPU generator (mt19937), to the digit of `torch.randn` in f32.
pub struct TorchCpuRng {}

impl TorchCpuRng {
    pub fn new(seed: u64) -> Self {
        let _ = seed;
        todo!()
    }

    /// What `torch.randn(shape, generator=...)` gives next.
    pub fn randn(&mut self, shape: &[usize]) -> Tensor {
        let _ = shape;
        todo!()
    }
}
