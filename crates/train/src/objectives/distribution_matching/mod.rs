//! Students whose pictures are distributed as the teacher's or the data's, whichever noise each of them comes from.

mod dmd2;
mod moments;
mod rdm;

pub(crate) use dmd2::Dmd2Config;
pub(crate) use rdm::RdmConfig;
#[cfg(test)]
pub(crate) use {dmd2::Dmd2, rdm::Rdm};

use crate::draws::{noise, purpose, uniform};
use crate::error::{Error, Result};
use crate::networks::denoise;
use crate::noising::Noising;
use crate::objectives::Drawn;
use prima_models::Unet2dCondition;
use prima_tensor::{Tensor, no_grad};

/// A student that is trained on what it makes itself of the steps before (backward simulation).
struct PaintingStudent<'a> {
    unet: &'a Unet2dCondition,
    /// That it paints from, the noisiest first.
    timesteps: &'a [usize],
    noising: &'a Noising,
    seed: u64,
}

impl PaintingStudent<'_> {
    /// What it paints in a number of its steps that batch `number` draws; only the last is on the tape.
    fn painted(&self, drawn: &Drawn, number: u64) -> Result<Tensor> {
        let (shape, rungs) = (drawn.real.shape(), self.timesteps);
        let u = uniform(self.seed, purpose::RUNG, number, 1)[0];
        let last = ((u * rungs.len() as f32) as usize).min(rungs.len() - 1);
        let mut x0 = Tensor::zeros(shape);
        for (i, &t) in rungs[..=last].iter().enumerate() {
            let timesteps = vec![t; shape[0]];
            let noise = noise(self.seed, purpose::NOISE, number * rungs.len() as u64 + i as u64, shape);
            let x = self.noising.noised(&timesteps, &x0, &noise);
            let step = || -> Result<Tensor> {
                let output = denoise(self.unet, &x, &timesteps, &drawn.cond)?;
                Ok(self.noising.denoised(&timesteps, &x, &output))
            };
            x0 = if i == last { step()? } else { no_grad(step)? };
        }
        Ok(x0)
    }
}

/// Refuses shares of `stage` that are none.
fn check_renoised(stage: &str, [low, high]: [f32; 2]) -> Result<()> {
    if 0.0 <= low && low < high && high <= 1.0 {
        return Ok(());
    }
    let message = format!("{stage}.renoised is [{low}, {high}], expected two shares, the smaller first");
    Err(Error::Config(message))
}
