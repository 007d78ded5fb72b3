//! The autoencoder: picture -> latents -> picture, with a faint pull of the latents to 0.
//! Random crops for speed and variety; whole pictures towards the end.

use super::picture_loss::PictureLoss;
use crate::config::AutoencoderStage;
use crate::error::{Error, Result};
use crate::networks::{Component, NamedParams, decode, encode};
use crate::sample_grid::{grid, to_signed};
use crate::sampling::{noise, purpose, uniform};
use crate::trainer::{Loss, Objective};
use image::RgbImage;
use prima_data::{Composer, SIZE_PX};
use prima_models::AutoencoderKl;
use prima_tensor::{Param, Tensor, add, affine, no_grad, stack_batch, weighted_mse};
use rayon::prelude::*;

/// Pictures of the sample grid: indices that training does not reach.
const GRID_START: u64 = 1 << 40;
const GRID_COUNT: usize = 16;

pub struct Autoencoder {
    vae: AutoencoderKl,
    params: NamedParams,
    composer: Composer,
    config: AutoencoderStage,
    seed: u64,
    picture_loss: PictureLoss,
}

impl Autoencoder {
    pub fn new(
        component: Component<AutoencoderKl>,
        composer: Composer,
        config: AutoencoderStage,
        seed: u64,
    ) -> Result<Self> {
        let factor = component.network.config().scale_factor();
        if !config.crop_px.is_multiple_of(factor.max(8)) {
            let message = format!(
                "autoencoder.crop_px = {} is no multiple of {}",
                config.crop_px,
                factor.max(8)
            );
            return Err(Error::Config(message));
        }
        Ok(Self {
            vae: component.network,
            params: component.params,
            composer,
            picture_loss: PictureLoss::new(config.weights.clone()),
            config,
            seed,
        })
    }

    pub fn vae(&self) -> &AutoencoderKl {
        &self.vae
    }

    /// Batch `step`: `[B, side, side, 3]` in [-1, 1].
    fn batch(&self, step: u64, size: usize, side: usize) -> Result<Tensor> {
        let room = SIZE_PX as usize - side;
        let corners = uniform(self.seed, purpose::CROP, step, 2 * size);
        let crops: Vec<Vec<f32>> = (0..size)
            .into_par_iter()
            .map(|i| {
                let sample = self.composer.sample(step * self.config.batch_size as u64 + i as u64);
                let corner = |u: f32| (u * (room + 1) as f32) as usize;
                Ok(crop(
                    &sample.map_err(|e| Error::Data(e.to_string()))?.rgb,
                    corner(corners[2 * i]),
                    corner(corners[2 * i + 1]),
                    side,
                ))
            })
            .collect::<Result<_>>()?;
        Ok(Tensor::from_vec(crops.concat(), &[size, side, side, 3]))
    }
}

impl Objective for Autoencoder {
    fn name(&self) -> &'static str {
        "autoencoder"
    }

    fn params(&self) -> &[(String, Param)] {
        &self.params
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn loss(&self, step: u64, progress: f32) -> Result<Loss> {
        let config = &self.config;
        let whole = progress >= config.whole_pictures_from;
        let (size, side) = if whole {
            (config.whole_batch_size, SIZE_PX as usize)
        } else {
            (config.batch_size, config.crop_px)
        };
        let pictures = self.batch(step, size, side)?;
        let posterior = encode(&self.vae, &pictures)?;
        let ones = vec![1.0; size];
        let pull = weighted_mse(&posterior.mean, &Tensor::zeros(posterior.mean.shape()), &ones);
        // The variance is fixed, and the file says so.
        let log_variance = Tensor::full(2.0 * config.latent_noise.max(1e-6).ln(), posterior.logvar.shape());
        let honest = weighted_mse(&posterior.logvar, &log_variance, &ones);
        let z = posterior.mean;
        let jitter = affine(
            &noise(self.seed, purpose::LATENT, step, z.shape()),
            config.latent_noise,
            0.0,
        );
        let mut loss = self
            .picture_loss
            .between(&decode(&self.vae, &add(&z, &jitter))?, &pictures);
        loss.metrics.push(("latent_std", std(&z)));
        loss.total = add(&loss.total, &affine(&pull, config.kl_weight, 0.0));
        loss.total = add(&loss.total, &affine(&honest, 1e-4, 0.0));
        Ok(loss)
    }

    fn samples(&self) -> Result<Option<RgbImage>> {
        reconstructions(&self.vae, &self.composer).map(Some)
    }
}

/// Rows of pictures above their reconstructions.
pub(super) fn reconstructions(vae: &AutoencoderKl, composer: &Composer) -> Result<RgbImage> {
    let half = GRID_COUNT / 2;
    let mut rows = Vec::new();
    for start in [0, half] {
        let samples = (start..start + half)
            .map(|i| composer.sample(GRID_START + i as u64))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|e| Error::Data(e.to_string()))?;
        let pictures = pictures(samples.iter().map(|s| s.rgb.as_slice()));
        let decoded = no_grad(|| decode(vae, &encode(vae, &pictures)?.mean))?;
        rows.extend([pictures, decoded]);
    }
    Ok(grid(&stack_batch(&rows.iter().collect::<Vec<_>>()), half))
}

/// RGB bytes to `[B, SIZE_PX, SIZE_PX, 3]` in [-1, 1].
pub(super) fn pictures<'a>(rgb: impl Iterator<Item = &'a [u8]>) -> Tensor {
    let values: Vec<f32> = rgb.flatten().map(|&b| to_signed(b)).collect();
    let side = SIZE_PX as usize;
    let count = values.len() / (side * side * 3);
    Tensor::from_vec(values, &[count, side, side, 3])
}

/// A square of `side` pixels from RGB bytes `[SIZE_PX, SIZE_PX, 3]`.
fn crop(rgb: &[u8], left: usize, top: usize, side: usize) -> Vec<f32> {
    let row = |y: usize| {
        let start = ((top + y) * SIZE_PX as usize + left) * 3;
        rgb[start..start + side * 3].iter().map(|&b| to_signed(b))
    };
    (0..side).flat_map(row).collect()
}

fn std(x: &Tensor) -> f32 {
    let n = x.numel() as f32;
    let mean = x.data().iter().sum::<f32>() / n;
    (x.data().iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crop_takes_the_square_at_its_corner() {
        let side = SIZE_PX as usize;
        let mut rgb = vec![0u8; side * side * 3];
        rgb[(5 * side + 7) * 3] = 255;
        let got = crop(&rgb, 6, 4, 8);
        assert_eq!(got[(8 + 1) * 3], 1.0);
        assert_eq!(got.iter().filter(|v| **v > -1.0).count(), 1);
    }
}
