//! What is optimised, one file an objective.

mod autoencoder;
mod decoder;
mod lcm;
mod linear_start;
mod picture_loss;
mod teacher;

pub use autoencoder::Autoencoder;
pub use decoder::{Decoder, Painter};
pub use lcm::ConsistencyDistillation;
pub use linear_start::linear_start;
pub use teacher::{Teacher, network_params};

use crate::config::TrainConfig;
use crate::error::Result;
use crate::latent_cache::LatentCache;
use crate::networks::{TextEncoders, decode};
use crate::noise_schedule::NoiseSchedule;
use crate::sample_grid::grid;
use crate::sampling::{Sampler, noise, purpose, sample, uniform};
use crate::tokens::Tokens;
use image::RgbImage;
use prima_models::{AutoencoderKl, Unet2dCondition, UnetCond};
use prima_tensor::{Tensor, no_grad};

/// Latents and tokens to draw batches from.
pub struct TextLatents {
    pub cache: LatentCache,
    /// Token ids of each row.
    pub tokens: Tokens,
    pub seed: u64,
}

impl TextLatents {
    /// Rows of batch `step`: independent draws.
    pub fn rows(&self, step: u64, batch_size: usize) -> Vec<usize> {
        let n = self.cache.len();
        let draws = uniform(self.seed, purpose::ROW, step, batch_size);
        draws
            .iter()
            .map(|u| ((f64::from(*u) * n as f64) as usize).min(n - 1))
            .collect()
    }
}

/// What the sample grids need: prompts, and the decoder.
pub struct SamplePrompts {
    pub vae: AutoencoderKl,
    /// `[prompts, L]`.
    pub ids: Vec<u32>,
    pub count: usize,
    pub size_px: [f32; 2],
    /// `[h, w, c]`.
    pub latent_shape: [usize; 3],
    pub seed: u64,
}

impl SamplePrompts {
    /// One picture a prompt, eight to a row.
    pub fn draw(
        &self,
        unet: &Unet2dCondition,
        text: &TextEncoders,
        steps: usize,
        guidance_scale: f32,
        sampler: Sampler,
    ) -> Result<Option<RgbImage>> {
        if self.count == 0 {
            return Ok(None);
        }
        let cond: UnetCond = no_grad(|| text.encode(&self.ids, &vec![1.0; self.count], self.size_px));
        let [h, w, c] = self.latent_shape;
        let latents = sample(
            unet,
            &cond,
            noise(self.seed, purpose::SAMPLE, 0, &[self.count, h, w, c]),
            &NoiseSchedule::trailing(steps),
            guidance_scale,
            sampler,
            self.seed,
        )?;
        self.pictures(&latents).map(Some)
    }

    fn pictures(&self, latents: &Tensor) -> Result<RgbImage> {
        no_grad(|| Ok(grid(&decode(&self.vae, &self.vae.unscale_latents(latents))?, 8)))
    }
}

/// Height and width of a whole picture in pixels.
pub fn picture_size(config: &TrainConfig) -> [f32; 2] {
    let side = config.networks.vae["sample_size"]
        .as_f64()
        .unwrap_or(f64::from(prima_data::SIZE_PX)) as f32;
    [side, side]
}
