//! What training draws at random: a function of the seed, of what it is for, and of the batch's number.

use prima_tensor::{Philox, Tensor};

/// Keys of the streams.
pub(crate) mod purpose {
    pub(crate) const TIMESTEP: u32 = 1;
    pub(crate) const NOISE: u32 = 2;
    pub(crate) const ROW: u32 = 3;
    pub(crate) const DROPOUT: u32 = 4;
    pub(crate) const CROP: u32 = 5;
    pub(crate) const LATENT: u32 = 6;
    pub(crate) const SAMPLE: u32 = 7;
    pub(crate) const RENOISE: u32 = 8;
    pub(crate) const PADDING: u32 = 9;
    pub(crate) const RUNG: u32 = 10;
    pub(crate) const NUDGE: u32 = 11;
}

/// Standard normal noise of `shape`, sample `i` of the first axis from its own stream.
pub(crate) fn noise(seed: u64, purpose: u32, batch: u64, shape: &[usize]) -> Tensor {
    let each: usize = shape[1..].iter().product();
    let seed = seed ^ (batch >> 32) << 32;
    let values = (0..shape[0] as u32).flat_map(|image| {
        Philox {
            seed,
            image,
            purpose,
            step: batch as u32,
        }
        .normal(each)
    });
    Tensor::from_vec(values.collect(), shape)
}

/// Uniform values in [0, 1).
pub(crate) fn uniform(seed: u64, purpose: u32, batch: u64, len: usize) -> Vec<f32> {
    Philox {
        seed: seed ^ (batch >> 32) << 32,
        image: 0,
        purpose,
        step: batch as u32,
    }
    .uniform(len)
}
