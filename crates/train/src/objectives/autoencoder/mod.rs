//! The autoencoder: picture -> latents -> picture, with a faint pull of the latents to 0.
//! Random crops for speed and variety; whole pictures towards the end.

mod decoder;
mod linear_start;
mod picture_loss;

pub(crate) use decoder::DecoderConfig;
#[cfg(test)]
pub(crate) use decoder::{Decoder, LatentPainter, schedules};

use super::StageConfig;
use crate::config::{Origin, TrainConfig};
use crate::draws::{noise, purpose, uniform};
use crate::error::{Error, Result};
use crate::networks::{self, decode, encode, kl};
use crate::objective::{Batch, Loss, Objective, Player};
use crate::params::{Component, NamedParams};
use crate::picture_source::{PictureSource, to_signed, to_tensor};
use crate::trainer::LoopConfig;
use linear_start::linear_start;
pub(crate) use picture_loss::PictureLoss;
use picture_loss::PictureWeights;
use prima_models::AutoencoderKl;
use prima_picture::{Picture, contact_sheet};
use prima_pipeline::pictures_of_tensor;
use prima_tensor::{Tensor, add, affine, no_grad, weighted_mse};
use rayon::prelude::*;
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AutoencoderConfig {
    #[serde(rename = "loop")]
    training: LoopConfig,
    batch_size: usize,
    /// Side of the random crops in pixels; whole pictures where it is no smaller.
    crop_px: usize,
    /// Crops of one picture in a batch, where pictures take longer to make than to learn from.
    crops_per_picture: usize,
    /// From this fraction of the budget on, batches are whole pictures ...
    whole_pictures_from: f32,
    /// ... of this many.
    whole_batch_size: usize,
    /// Standard deviation of the noise added to latents, which makes the decoder tolerant.
    latent_noise: f32,
    /// Weight of the mean squared latent (the KL's pull to 0).
    kl_weight: f32,
    weights: PictureWeights,
}

impl Default for AutoencoderConfig {
    fn default() -> Self {
        Self {
            training: LoopConfig::default(),
            batch_size: 16,
            crop_px: 64,
            crops_per_picture: 1,
            whole_pictures_from: 0.8,
            whole_batch_size: 4,
            latent_noise: 0.05,
            kl_weight: 1e-4,
            weights: PictureWeights::default(),
        }
    }
}

impl AutoencoderConfig {
    fn log_variance(&self) -> f32 {
        2.0 * self.latent_noise.max(1e-6).ln()
    }
}

impl StageConfig for AutoencoderConfig {
    const NAME: &'static str = "autoencoder";
    const ABOUT: &'static str = "Train the autoencoder between pictures and latents";

    fn training(&self) -> &LoopConfig {
        &self.training
    }

    fn objective(self, config: &TrainConfig) -> Result<Box<dyn Objective>> {
        if matches!(config.origin()?, Origin::Model(_)) {
            let message = "a model's UNet knows its autoencoder's latents, which stay: only the decoder is trained (stage decoder)";
            return Err(Error::Config(message.into()));
        }
        let component = kl(networks::vae(config, None, config.seed)?)?;
        if !linear_start(&component.params, component.network.config(), self.log_variance()) {
            tracing::warn!("autoencoder: this configuration starts at random, colours will take long");
        }
        let source = config.pictures(|_| {})?;
        let picture_loss = PictureLoss::of(&self.weights, config)?;
        Ok(Box::new(Autoencoder::new(
            self,
            component,
            source,
            picture_loss,
            config.seed,
        )?))
    }
}

/// Pictures of the sample grid: indices that training does not reach.
const GRID_START: u64 = 1 << 40;
const GRID_COUNT: usize = 16;

pub(crate) struct Autoencoder {
    config: AutoencoderConfig,
    vae: AutoencoderKl,
    params: NamedParams,
    source: Box<dyn PictureSource>,
    seed: u64,
    picture_loss: PictureLoss,
}

impl Autoencoder {
    pub(crate) fn new(
        config: AutoencoderConfig,
        component: Component<AutoencoderKl>,
        source: Box<dyn PictureSource>,
        picture_loss: PictureLoss,
        seed: u64,
    ) -> Result<Self> {
        let multiple = component.network.config().scale_factor().max(8);
        if !config.crop_px.is_multiple_of(multiple) {
            let message = format!("autoencoder.crop_px = {} is no multiple of {multiple}", config.crop_px);
            return Err(Error::Config(message));
        }
        if config.crops_per_picture == 0 || !config.batch_size.is_multiple_of(config.crops_per_picture) {
            let message = format!(
                "autoencoder.crops_per_picture = {} does not divide batch_size = {}",
                config.crops_per_picture, config.batch_size
            );
            return Err(Error::Config(message));
        }
        Ok(Self {
            vae: component.network,
            params: component.params,
            source,
            picture_loss,
            config,
            seed,
        })
    }

    /// Batch `number` of crops: `[batch_size, crop_px, crop_px, 3]` in [-1, 1].
    fn crops(&self, number: u64) -> Result<Tensor> {
        let (size, each) = (self.config.batch_size, self.config.crops_per_picture);
        let corners = uniform(self.seed, purpose::CROP, number, 2 * size);
        let side = self.source.size_px().into_iter().fold(self.config.crop_px, usize::min);
        let first = number * (size / each) as u64;
        let crops: Vec<Vec<f32>> = corners
            .par_chunks_exact(2 * each)
            .enumerate()
            .map(|(i, corners)| {
                let picture = self.source.sample(first + i as u64)?.picture;
                let crops = corners.as_chunks().0.iter().map(|corner| crop(&picture, *corner, side));
                Ok(crops.collect::<Vec<_>>().concat())
            })
            .collect::<Result<_>>()?;
        Ok(Tensor::from_vec(crops.concat(), &[size, side, side, 3]))
    }

    /// Whole pictures, `[whole_batch_size, H, W, 3]` in [-1, 1].
    fn whole_pictures(&self, number: u64) -> Result<Tensor> {
        let first = number * self.config.batch_size as u64;
        let samples: Vec<_> = (first..first + self.config.whole_batch_size as u64)
            .into_par_iter()
            .map(|i| self.source.sample(i))
            .collect::<Result<_>>()?;
        Ok(to_tensor(&samples))
    }
}

impl Objective for Autoencoder {
    fn name(&self) -> &'static str {
        AutoencoderConfig::NAME
    }

    fn players(&self) -> Vec<Player> {
        vec![Player::main("autoencoder", self.params.clone(), &self.config.training)]
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn loss(&self, batch: Batch) -> Result<Loss> {
        let config = &self.config;
        let pictures = if batch.progress >= config.whole_pictures_from {
            self.whole_pictures(batch.number)?
        } else {
            self.crops(batch.number)?
        };
        let posterior = encode(&self.vae, &pictures)?;
        let ones = vec![1.0; pictures.dim(0)];
        let pull = weighted_mse(&posterior.mean, &Tensor::zeros(posterior.mean.shape()), &ones);
        // The variance is fixed, and the file says so.
        let log_variance = Tensor::full(config.log_variance(), posterior.logvar.shape());
        let honest = weighted_mse(&posterior.logvar, &log_variance, &ones);
        let z = posterior.mean;
        let noise = noise(self.seed, purpose::LATENT, batch.number, z.shape());
        let noisy = add(&z, &affine(&noise, config.latent_noise, 0.0));
        let mut loss = self.picture_loss.between(&decode(&self.vae, &noisy)?, &pictures);
        loss.metrics.push(("latent_std", std(&z)));
        loss.total = add(&loss.total, &affine(&pull, config.kl_weight, 0.0));
        loss.total = add(&loss.total, &affine(&honest, 1e-4, 0.0));
        Ok(loss)
    }

    fn samples(&self) -> Result<Option<Picture>> {
        reconstructions(&self.vae, &*self.source).map(Some)
    }
}

/// Rows of pictures above their reconstructions.
fn reconstructions(vae: &AutoencoderKl, source: &dyn PictureSource) -> Result<Picture> {
    let half = GRID_COUNT / 2;
    let mut rows = Vec::new();
    for start in [0, half] {
        let samples = (start..start + half)
            .map(|i| source.sample(GRID_START + i as u64))
            .collect::<Result<Vec<_>>>()?;
        let pictures = to_tensor(&samples);
        let decoded = no_grad(|| decode(vae, &encode(vae, &pictures)?.mean))?;
        rows.extend([pictures_of_tensor(&pictures), pictures_of_tensor(&decoded)].concat());
    }
    Ok(contact_sheet(&rows, half, 2))
}

/// A square of `side` pixels, `corner` (left, top) from 0 to 1 within the room there is.
fn crop(picture: &Picture, corner: [f32; 2], side: usize) -> Vec<f32> {
    let at = |u: f32, length: usize| (u * (length - side + 1) as f32) as usize;
    let [left, top] = [at(corner[0], picture.width), at(corner[1], picture.height)];
    let row = |y: usize| {
        let start = ((top + y) * picture.width + left) * 3;
        picture.rgb[start..start + side * 3].iter().map(|&b| to_signed(b))
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
        let (width, height) = (12, 10);
        let mut rgb = vec![0u8; width * height * 3];
        rgb[(5 * width + 3) * 3] = 255;
        let picture = Picture { width, height, rgb };
        // Of the places 0 to 4 across and 0 to 2 down, those number 2 and 1.
        let got = crop(&picture, [0.45, 0.4], 8);
        assert_eq!(got[(4 * 8 + 1) * 3], 1.0);
        assert_eq!(got.iter().filter(|v| **v > -1.0).count(), 1);
    }
}
