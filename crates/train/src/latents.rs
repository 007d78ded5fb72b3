//! The stage `latents`: composes pictures and encodes them once; later stages read only these.

use crate::config::{Origin, TrainConfig};
use crate::error::{Error, Result};
use crate::latent_cache::LatentCache;
use crate::picture_source::{Sample, to_tensor};
use crate::stage_folder::StageFolder;
use crate::trained;
use crate::trainer::{Budget, Summary};
use prima_data::ComposerOptions;
use prima_tensor::{Tensor, no_grad};
use rayon::prelude::*;
use serde::Deserialize;
use std::time::Instant;

/// The folder below `run_dir` and the section of the configuration.
pub(crate) const NAME: &str = "latents";

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LatentsConfig {
    /// Pictures to compose and encode.
    pub(crate) count: usize,
    pub(crate) batch_size: usize,
    /// Share of captions in English; the data set's own where absent.
    pub(crate) english: Option<f32>,
    /// Share of captions that name the style; the data set's own where absent.
    pub(crate) style: Option<f32>,
    /// Share of objects moved off the centre; the data set's own where absent. With 0 a caption has
    /// one placement, so that the mean over all its pictures, which is what one step paints, is sharp.
    pub(crate) jitter: Option<f32>,
    /// Show every object in this style, where its noun has it.
    pub(crate) only_style: Option<String>,
    /// The style that a caption without a style means ...
    pub(crate) unnamed_style: Option<String>,
    /// ... which is left out of this share of the captions that end with it.
    pub(crate) unnamed_share: f32,
    /// Share of captions with words around them that no picture shows ([`crate::captions::loose`]).
    pub(crate) reworded_share: f32,
}

impl Default for LatentsConfig {
    fn default() -> Self {
        Self {
            count: 24_000,
            batch_size: 16,
            english: None,
            style: None,
            jitter: None,
            only_style: None,
            unnamed_style: None,
            unnamed_share: 0.7,
            reworded_share: 0.0,
        }
    }
}

impl LatentsConfig {
    /// How the run composes its pictures.
    pub(crate) fn adjust(&self, options: &mut ComposerOptions) {
        // Captions are dropped while training, row by row; the cache keeps them all.
        options.empty_caption = 0.0;
        if let Some(english) = self.english {
            options.english = english;
        }
        if let Some(style) = self.style {
            options.style = style;
        }
        if let Some(jitter) = self.jitter {
            options.jitter = jitter;
        }
    }
}

/// Composes and encodes pictures until there are enough of them or the budget is spent.
pub fn latents(config: &TrainConfig, budget: Budget) -> Result<Summary> {
    let started = Instant::now();
    let source = config.pictures(|options| {
        options.favoured_style = config.latents.only_style.clone().map(|style| (style, 1.0));
    })?;
    let encoder = Encoder::open(config)?;
    let dir = config.stage_dir(NAME);
    let _folder = StageFolder::hold(&dir)?;
    LatentCache::check_writable(&dir)?;
    if source.size_px() != [encoder.side; 2] {
        let ([width, height], side) = (source.size_px(), encoder.side);
        let message = format!("the data's pictures are {width}x{height}, the autoencoder's sample_size is {side}");
        return Err(Error::Config(message));
    }
    let (mut values, mut captions) = (Vec::new(), Vec::new());
    let mut index = 0u64;
    let in_time = || budget.deadline.is_none_or(|d| Instant::now() < d);
    while captions.len() < config.latents.count && in_time() {
        let range = index..index + config.latents.batch_size as u64;
        index = range.end;
        let samples = range
            .into_par_iter()
            .map(|i| source.sample(i))
            .collect::<Result<Vec<_>>>()?;
        values.extend_from_slice(encoder.latents(&samples)?.data());
        let before = captions.len();
        captions.extend(samples.into_iter().map(|s| s.caption.replace(['\n', '\r'], " ")));
        if captions.len() / 2048 != before / 2048 {
            let rate = captions.len() as f64 / started.elapsed().as_secs_f64();
            let (done, count) = (captions.len(), config.latents.count);
            tracing::info!("latents: {done} of {count}, {rate:.1} pictures/s");
        }
    }
    let cache = if encoder.is_normal {
        LatentCache::of_normal(encoder.shape, values, captions)
    } else {
        LatentCache::new(encoder.shape, values, captions)
    };
    cache.save(&dir)?;
    let summary = Summary {
        steps: index,
        samples: cache.len() as u64,
        seconds: started.elapsed().as_secs_f64(),
        loss: 0.0,
        stopped: false,
    };
    trained::write_summary(config, NAME, &summary)?;
    Ok(summary)
}

/// What makes latents of pictures.
struct Encoder {
    vae: prima_models::Vae,
    side: usize,
    /// Of one sample's latents.
    shape: [usize; 3],
    /// The model's own scale makes its latents what its UNet knows; those of an autoencoder that was trained here are
    /// measured first.
    is_normal: bool,
}

impl Encoder {
    fn open(config: &TrainConfig) -> Result<Self> {
        let is_normal = matches!(config.origin()?, Origin::Model(_));
        let vae = trained::vae(config)?.network;
        let side = config.picture_size_px()[0] as usize;
        let factor = vae.scale_factor();
        if !side.is_multiple_of(factor) {
            let message = format!("pictures of {side} pixels do not divide into the autoencoder's cells of {factor}");
            return Err(Error::Config(message));
        }
        Ok(Self {
            shape: [side / factor, side / factor, vae.latent_channels()],
            vae,
            side,
            is_normal,
        })
    }

    /// As the cache takes them.
    fn latents(&self, samples: &[Sample]) -> Result<Tensor> {
        let pictures = to_tensor(samples);
        let latents = no_grad(|| self.vae.encode(&pictures, &mut || true))?.mode();
        Ok(if self.is_normal {
            self.vae.scale_latents(&latents)
        } else {
            latents
        })
    }
}
