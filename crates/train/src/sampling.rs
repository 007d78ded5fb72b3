//! Sampling with a v-prediction network, for the grids drawn while training: DDIM for teachers,
//! LCM's re-noising for students. The shipped pipelines use the scheduler crate.

use crate::error::Result;
use crate::networks::{denoise, unconditional};
use crate::noise_schedule::NoiseSchedule;
use prima_models::{Unet2dCondition, UnetCond};
use prima_tensor::{Philox, Tensor, combine_per_sample, no_grad};

/// Keys of the noise streams.
pub mod purpose {
    pub const TIMESTEP: u32 = 1;
    pub const NOISE: u32 = 2;
    pub const ROW: u32 = 3;
    pub const DROPOUT: u32 = 4;
    pub const CROP: u32 = 5;
    pub const LATENT: u32 = 6;
    pub const SAMPLE: u32 = 7;
    pub const RENOISE: u32 = 8;
}

/// Standard normal noise of `shape`, sample `i` of the first axis from its own stream.
pub fn noise(seed: u64, purpose: u32, step: u64, shape: &[usize]) -> Tensor {
    let each: usize = shape[1..].iter().product();
    let seed = seed ^ (step >> 32) << 32;
    let values = (0..shape[0] as u32).flat_map(|image| {
        Philox {
            seed,
            image,
            purpose,
            step: step as u32,
        }
        .normal(each)
    });
    Tensor::from_vec(values.collect(), shape)
}

/// Uniform values in [0, 1).
pub fn uniform(seed: u64, purpose: u32, step: u64, len: usize) -> Vec<f32> {
    Philox {
        seed: seed ^ (step >> 32) << 32,
        image: 0,
        purpose,
        step: step as u32,
    }
    .uniform(len)
}

/// `x0 = alpha·x - sigma·v` and `eps = sigma·x + alpha·v`.
pub fn split_v(schedule: &NoiseSchedule, timesteps: &[usize], x: &Tensor, v: &Tensor) -> (Tensor, Tensor) {
    let (alpha, sigma) = schedule.coefficients(timesteps);
    let minus: Vec<f32> = sigma.iter().map(|s| -s).collect();
    (
        combine_per_sample(&alpha, x, &minus, v),
        combine_per_sample(&sigma, x, &alpha, v),
    )
}

/// The model output under classifier-free guidance: `u + scale·(c - u)`.
pub fn guided(
    unet: &Unet2dCondition,
    x: &Tensor,
    timesteps: &[usize],
    cond: &UnetCond,
    guidance_scale: f32,
) -> Result<Tensor> {
    let text = denoise(unet, x, timesteps, cond)?;
    if guidance_scale == 1.0 {
        return Ok(text);
    }
    let empty = denoise(unet, x, timesteps, &unconditional(cond))?;
    let n = timesteps.len();
    Ok(combine_per_sample(
        &vec![guidance_scale; n],
        &text,
        &vec![1.0 - guidance_scale; n],
        &empty,
    ))
}

/// How to go from one timestep to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampler {
    Ddim,
    Lcm,
}

/// From noise `[B, h, w, c]` to latents, over descending `timesteps`.
pub fn sample(
    unet: &Unet2dCondition,
    cond: &UnetCond,
    noise_at_start: Tensor,
    timesteps: &[usize],
    guidance_scale: f32,
    sampler: Sampler,
    seed: u64,
) -> Result<Tensor> {
    let schedule = NoiseSchedule::default();
    let mut x = noise_at_start;
    let n = x.shape()[0];
    no_grad(|| {
        for (i, &t) in timesteps.iter().enumerate() {
            let v = guided(unet, &x, &vec![t; n], cond, guidance_scale)?;
            let (x0, eps) = split_v(&schedule, &vec![t; n], &x, &v);
            let Some(&next) = timesteps.get(i + 1) else {
                return Ok(x0);
            };
            let eps = match sampler {
                Sampler::Ddim => eps,
                Sampler::Lcm => noise(seed, purpose::RENOISE, i as u64, x.shape()),
            };
            let (alpha, sigma) = schedule.coefficients(&vec![next; n]);
            x = combine_per_sample(&alpha, &x0, &sigma, &eps);
        }
        Ok(x)
    })
}
