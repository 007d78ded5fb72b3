//! What training draws at random: a function of the seed, of what it is for, and of the batch's number.

use crate::error::{Error, Result};
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
    pub(crate) const GUIDANCE: u32 = 12;
}

/// Standard normal noise of `shape`, sample `i` of the first axis from its own stream.
pub(crate) fn noise(seed: u64, purpose: u32, batch: u64, shape: &[usize]) -> Tensor {
    let each: usize = shape[1..].iter().product();
    let values = (0..shape[0] as u32).flat_map(|image| stream(seed, image, purpose, batch).normal(each));
    Tensor::from_vec(values.collect(), shape)
}

/// Uniform values in [0, 1).
pub(crate) fn uniform(seed: u64, purpose: u32, batch: u64, len: usize) -> Vec<f32> {
    stream(seed, 0, purpose, batch).uniform(len)
}

/// Standard normal values, beside the uniform ones of the same purpose.
pub(crate) fn normal(seed: u64, purpose: u32, batch: u64, len: usize) -> Vec<f32> {
    stream(seed, 1, purpose, batch).normal(len)
}

fn stream(seed: u64, image: u32, purpose: u32, batch: u64) -> Philox {
    Philox {
        seed: seed ^ (batch >> 32) << 32,
        image,
        purpose,
        step: batch as u32,
    }
}

/// Refuses the `shares` that the configuration calls `name`, unless [`chosen`] can choose one of `count` by them.
pub(crate) fn check_shares(name: &str, shares: &[f32], count: usize) -> Result<()> {
    let is_negative = shares.iter().any(|share| *share < 0.0);
    if shares.len() == count && !is_negative && shares.iter().sum::<f32>() > 0.0 {
        return Ok(());
    }
    Err(Error::Config(format!("{name} wants {count} numbers, none below 0")))
}

/// Which of several a draw `u` in [0, 1) falls to, each as often as its share says, relative to the others.
pub(crate) fn chosen(shares: &[f32], u: f32) -> usize {
    let mut left = u * shares.iter().sum::<f32>();
    let found = shares.iter().position(|share| {
        left -= share;
        left < 0.0
    });
    found.unwrap_or(0)
}
