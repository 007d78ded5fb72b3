//! The decoder alone, on whole pictures: from the encoder's latents, and from what the trained painter (the teacher,
//! or its student) makes of a picture's caption in a few steps. The second teaches it to make a good picture of the
//! painter's errors.

use super::autoencoder::{pictures, reconstructions};
use super::picture_loss::PictureLoss;
use crate::config::DecoderStage;
use crate::error::{Error, Result};
use crate::networks::{Component, NamedParams, TextEncoders, decode, encode};
use crate::sampling::{Sampler, noise, purpose, sample, uniform};
use crate::tokens::CaptionTokenizer;
use crate::trainer::{Loss, Objective};
use image::RgbImage;
use prima_data::{Composer, Sample};
use prima_models::{AutoencoderKl, Unet2dCondition};
use prima_tensor::{Param, Tensor, add, affine, combine_per_sample, no_grad};
use rayon::prelude::*;
use std::sync::Mutex;

/// What paints latents for captions in one style.
pub struct Painter {
    pub unet: Unet2dCondition,
    pub text: TextEncoders,
    pub tokenizer: Mutex<CaptionTokenizer>,
    /// The style it was trained on ...
    pub style: String,
    /// ... and the share of captions that leave it unsaid.
    pub unnamed_share: f32,
    pub size_px: [f32; 2],
    pub sampler: Sampler,
}

impl Painter {
    /// Does it know the style that this caption names?
    fn paints(&self, caption: &str) -> bool {
        caption.ends_with(self.style.as_str())
    }

    /// Its normalised latents `[B, h, w, c]` for `captions`, those it does not paint among them, over `timesteps`.
    fn latents(&self, captions: &[&str], shape: &[usize], timesteps: &[usize], seed: u64, step: u64) -> Result<Tensor> {
        let suffix = format!(", {}", self.style);
        let draws = uniform(seed, purpose::DROPOUT, step, captions.len());
        let said: Vec<String> = captions
            .iter()
            .zip(draws)
            .map(|(caption, u)| match caption.strip_suffix(&suffix) {
                Some(bare) if u < self.unnamed_share => bare.to_owned(),
                _ => (*caption).to_owned(),
            })
            .collect();
        let ids = {
            let mut tokenizer = self.tokenizer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            tokenizer.encode_all(&said, self.text.max_length())?.ids
        };
        let cond = self.text.encode(&ids, &vec![1.0; said.len()], self.size_px);
        let start = noise(seed, purpose::SAMPLE, step, shape);
        sample(&self.unet, &cond, start, timesteps, 1.0, self.sampler, seed ^ step)
    }
}

pub struct Decoder {
    vae: AutoencoderKl,
    params: NamedParams,
    composer: Composer,
    painter: Option<Painter>,
    config: DecoderStage,
    seed: u64,
    picture_loss: PictureLoss,
}

impl Decoder {
    pub fn new(
        vae: Component<AutoencoderKl>,
        composer: Composer,
        painter: Option<Painter>,
        config: DecoderStage,
        seed: u64,
    ) -> Self {
        let mut params = vae.params;
        params.retain(|(key, _)| key.starts_with("decoder.") || key.starts_with("post_quant_conv."));
        Self {
            vae: vae.network,
            params,
            composer,
            painter,
            picture_loss: PictureLoss::new(config.weights.clone()),
            config,
            seed,
        }
    }

    fn samples_of(&self, step: u64) -> Result<Vec<Sample>> {
        let size = self.config.batch_size as u64;
        (step * size..(step + 1) * size)
            .into_par_iter()
            .map(|i| self.composer.sample(i).map_err(|e| Error::Data(e.to_string())))
            .collect()
    }

    /// Raw latents of `pictures`: the encoder's, or the painter's where it is asked.
    fn latents(&self, samples: &[Sample], pictures: &Tensor, step: u64) -> Result<Tensor> {
        let encoded = encode(&self.vae, pictures)?.mean;
        let Some(painter) = &self.painter else {
            return Ok(encoded);
        };
        let draws = uniform(self.seed, purpose::ROW, step, samples.len());
        let from_painter: Vec<f32> = samples
            .iter()
            .zip(draws)
            .map(|(s, u)| f32::from(painter.paints(&s.caption) && u < self.config.painter_share))
            .collect();
        if from_painter.iter().all(|f| *f == 0.0) {
            return Ok(encoded);
        }
        let captions: Vec<&str> = samples.iter().map(|s| s.caption.as_str()).collect();
        let choices = &self.config.painter_timesteps;
        let timesteps = &choices[step as usize % choices.len()];
        let painted = painter.latents(&captions, encoded.shape(), timesteps, self.seed, step)?;
        let from_encoder: Vec<f32> = from_painter.iter().map(|f| 1.0 - f).collect();
        Ok(combine_per_sample(
            &from_painter,
            &self.vae.unscale_latents(&painted),
            &from_encoder,
            &encoded,
        ))
    }
}

impl Objective for Decoder {
    fn name(&self) -> &'static str {
        "decoder"
    }

    fn params(&self) -> &[(String, Param)] {
        &self.params
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn loss(&self, step: u64, _progress: f32) -> Result<Loss> {
        let samples = self.samples_of(step)?;
        let pictures = pictures(samples.iter().map(|s| s.rgb.as_slice()));
        let z = no_grad(|| self.latents(&samples, &pictures, step))?;
        let jitter = affine(
            &noise(self.seed, purpose::LATENT, step, z.shape()),
            self.config.latent_noise,
            0.0,
        );
        let decoded = decode(&self.vae, &add(&z, &jitter))?;
        Ok(self.picture_loss.between(&decoded, &pictures))
    }

    fn samples(&self) -> Result<Option<RgbImage>> {
        reconstructions(&self.vae, &self.composer).map(Some)
    }
}
