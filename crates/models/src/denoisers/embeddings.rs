//! Sinusoidal embeddings and the MLP on top of them (diffusers `models/embeddings.py`).

use crate::layers::{Linear, Start};
use prima_checkpoint::{Error, ParamSource};
use prima_tensor::{Activation, Tensor, add};

/// Longest wavelength of the sinusoids, over 2π.
const MAX_PERIOD: f32 = 10_000.0;

/// Sinusoids of `values` `[N]`; the result is `[N, dim]`. Frequency `i` of `dim / 2` is
/// `10000^(-i / (dim / 2 - freq_shift))`. Sines come first, or cosines if `flip_sin_to_cos`;
/// an odd `dim` ends with a zero.
pub fn sinusoids(values: &[f32], dim: usize, flip_sin_to_cos: bool, freq_shift: f32) -> Tensor {
    let half = dim / 2;
    let frequency = |i: usize| (-MAX_PERIOD.ln() * i as f32 / (half as f32 - freq_shift)).exp();
    let frequencies: Vec<f32> = (0..half).map(frequency).collect();
    let mut out = vec![0.0; values.len() * dim];
    for (row, &value) in out.chunks_mut(dim.max(1)).zip(values) {
        for (i, &frequency) in frequencies.iter().enumerate() {
            let (sin, cos) = (value * frequency).sin_cos();
            let (first, second) = if flip_sin_to_cos { (cos, sin) } else { (sin, cos) };
            row[i] = first;
            row[half + i] = second;
        }
    }
    Tensor::from_vec(out, &[values.len(), dim])
}

/// The `timestep_cond` of an LCM UNet for the guidance scale of each sample (diffusers'
/// `get_guidance_scale_embedding`): sinusoids of `1000 (guidance_scale - 1)`, `[samples, dim]`
/// where `dim` is the UNet's `time_cond_proj_dim`.
pub fn guidance_scale_embedding(guidance_scales: &[f32], dim: usize) -> Tensor {
    let values: Vec<f32> = guidance_scales.iter().map(|scale| (scale - 1.0) * 1000.0).collect();
    sinusoids(&values, dim, false, 1.0)
}

/// `linear_2(silu(linear_1(x + cond_proj(cond))))`.
pub(crate) struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
    cond_proj: Option<Linear>,
}

impl TimestepEmbedding {
    pub fn new(
        source: &mut dyn ParamSource,
        name: &str,
        inputs: usize,
        outputs: usize,
        cond_dim: Option<usize>,
    ) -> Result<Self, Error> {
        let linear_1 = Linear::new(
            source,
            &format!("{name}.linear_1"),
            inputs,
            outputs,
            true,
            Start::Default,
        )?;
        let linear_2 = Linear::new(
            source,
            &format!("{name}.linear_2"),
            outputs,
            outputs,
            true,
            Start::Default,
        )?;
        // Zero, so that a teacher turned into an LCM student starts as the teacher.
        let cond_proj = cond_dim
            .map(|dim| Linear::new(source, &format!("{name}.cond_proj"), dim, inputs, false, Start::Zero))
            .transpose()?;
        Ok(Self {
            linear_1,
            linear_2,
            cond_proj,
        })
    }

    /// `x` `[B, inputs]`, `cond` `[B, cond_dim]`; the result is `[B, outputs]`.
    pub fn forward(&self, x: &Tensor, cond: Option<&Tensor>) -> Tensor {
        let conditioned = match (&self.cond_proj, cond) {
            (Some(proj), Some(cond)) => Some(add(x, &proj.forward(cond))),
            _ => None,
        };
        let hidden = self
            .linear_1
            .activated(conditioned.as_ref().unwrap_or(x), Activation::Silu);
        self.linear_2.forward(&hidden)
    }
}
