//! The decoder alone, on whole pictures: from the encoder's latents, and from what the trained painter (the teacher,
//! or its student) makes of a picture's caption in a few steps. The second teaches it to make a good picture of the
//! painter's errors.

use super::picture_loss::{PictureLoss, PictureWeights};
use super::reconstructions;
use crate::captions::{TokenRows, conditioning, time_ids};
use crate::config::TrainConfig;
use crate::draws::{noise, purpose, uniform};
use crate::error::{Error, Result};
use crate::networks::{decode, denoise, encode, kl};
use crate::objective::{Batch, Loss, Objective, Player};
use crate::objectives::StageConfig;
use crate::params::{Component, NamedParams};
use crate::picture_source::{PictureSource, Sample, to_tensor};
use crate::trained::{self, Painter, decoder_params};
use crate::trainer::LoopConfig;
use prima_models::{AutoencoderKl, Unet2dCondition, UnetCond};
use prima_picture::Picture;
use prima_pipeline::{Sampling, TextEncoders, sample};
use prima_schedulers::{Schedule, ScheduleOptions, SchedulerConfig, SchedulerKind};
use prima_tensor::{Tensor, add, affine, combine_per_sample, no_grad};
use rayon::prelude::*;
use serde::Deserialize;

/// The decoder's further training, on whole pictures: the latents, and what was trained on them, stay valid.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DecoderConfig {
    #[serde(rename = "loop")]
    training: LoopConfig,
    batch_size: usize,
    /// Standard deviation of the noise added to latents.
    latent_noise: f32,
    weights: PictureWeights,
    /// Share of pictures in `latents.only_style`, where that is set: what the decoder is shipped for.
    style_share: f32,
    /// Of those, the share whose latents are what the network of `export.stage` paints for their caption, so that the
    /// decoder learns to make a good picture of its errors too. Needs that stage trained where it is not 0.
    painter_share: f32,
    /// The timesteps of each way it paints, taken in turn batch by batch.
    painter_timesteps: Vec<Vec<usize>>,
}

impl Default for DecoderConfig {
    fn default() -> Self {
        Self {
            training: LoopConfig::default(),
            batch_size: 4,
            latent_noise: 0.05,
            weights: PictureWeights::default(),
            style_share: 0.8,
            painter_share: 0.0,
            painter_timesteps: vec![vec![999]],
        }
    }
}

impl StageConfig for DecoderConfig {
    const NAME: &'static str = "decoder";
    const ABOUT: &'static str = "Train the autoencoder's decoder further; latents stay valid";

    fn training(&self) -> &LoopConfig {
        &self.training
    }

    /// The state is of its own; the first time it starts from the autoencoder's average.
    fn objective(self, config: &TrainConfig) -> Result<Box<dyn Objective>> {
        let painter = match &config.latents.only_style {
            _ if self.painter_share <= 0.0 => None,
            Some(style) => Some(LatentPainter::shipped(config, style, &self.painter_timesteps)?),
            None => {
                let message = "decoder.painter_share needs latents.only_style: the style that is painted";
                return Err(Error::Config(message.into()));
            }
        };
        let source = config.pictures(|options| {
            options.favoured_style = config.latents.only_style.clone().map(|style| (style, self.style_share));
        })?;
        let vae = kl(trained::vae(config)?)?;
        let picture_loss = PictureLoss::of(&self.weights, config)?;
        Ok(Box::new(Decoder::new(
            self,
            vae,
            source,
            painter,
            picture_loss,
            config.seed + 1,
        )))
    }
}

/// What paints latents for captions in one style.
pub(crate) struct LatentPainter {
    pub(crate) unet: Unet2dCondition,
    pub(crate) text_encoders: TextEncoders,
    /// The ways it paints, taken in turn batch by batch.
    pub(crate) schedules: Vec<Schedule>,
    /// The style it was trained on ...
    pub(crate) style: String,
    /// ... and the share of captions that leave it unsaid.
    pub(crate) unnamed_share: f32,
    pub(crate) size_px: [f32; 2],
}

impl LatentPainter {
    /// The network to ship, and how it is sampled.
    fn shipped(config: &TrainConfig, style: &str, timesteps: &[Vec<usize>]) -> Result<Self> {
        let painter = Painter::shipped(config)?;
        Ok(Self {
            unet: painter.unet.network,
            text_encoders: painter.texts.encoders,
            schedules: schedules(&config.scheduler()?, config.export.scheduler()?, timesteps)?,
            unnamed_share: match &config.latents.unnamed_style {
                Some(unnamed) if unnamed == style => config.latents.unnamed_share,
                _ => 0.0,
            },
            style: style.to_owned(),
            size_px: config.picture_size_px(),
        })
    }

    /// Does it know the style that this caption names?
    fn paints(&self, caption: &str) -> bool {
        caption.ends_with(self.style.as_str())
    }

    /// Its normalised latents `[B, h, w, c]` for `captions`, those it does not paint among them, over the schedule whose turn
    /// batch `number` is.
    fn latents(&self, captions: &[&str], shape: &[usize], seed: u64, number: u64) -> Result<Tensor> {
        let suffix = format!(", {}", self.style);
        let draws = uniform(seed, purpose::DROPOUT, number, captions.len());
        let said: Vec<&str> = captions
            .iter()
            .zip(draws)
            .map(|(caption, u)| match caption.strip_suffix(&suffix) {
                Some(bare) if u < self.unnamed_share => bare,
                _ => caption,
            })
            .collect();
        let rows = TokenRows::of(&self.text_encoders, &said)?;
        let cond = conditioning(&self.text_encoders, &rows, vec![time_ids(self.size_px); captions.len()]);
        let schedule = &self.schedules[number as usize % self.schedules.len()];
        let start = noise(seed, purpose::SAMPLE, number, shape);
        let mut rollout = Rollout {
            unet: &self.unet,
            cond: &cond,
            shape,
            seed: seed ^ number,
        };
        sample(
            schedule,
            affine(&start, schedule.init_noise_sigma as f32, 0.0),
            &mut rollout,
        )
    }
}

/// The scheduler's table for each list of timesteps, as the shipped model is sampled.
pub(crate) fn schedules(
    noise: &SchedulerConfig,
    scheduler: SchedulerKind,
    timesteps: &[Vec<usize>],
) -> Result<Vec<Schedule>> {
    if timesteps.is_empty() {
        return Err(Error::Config("decoder.painter_timesteps is empty".into()));
    }
    let schedule = |timesteps: &Vec<usize>| {
        let options = ScheduleOptions {
            scheduler: Some(scheduler),
            timesteps: Some(timesteps.iter().map(|&t| t as f64).collect()),
            ..ScheduleOptions::default()
        };
        Schedule::new(noise, &options).map_err(|e| Error::Config(format!("decoder.painter_timesteps: {e}")))
    };
    timesteps.iter().map(schedule).collect()
}

/// One batch on its way through a schedule.
struct Rollout<'a> {
    unet: &'a Unet2dCondition,
    cond: &'a UnetCond,
    shape: &'a [usize],
    seed: u64,
}

impl Sampling for Rollout<'_> {
    type Error = Error;

    fn model_output(&mut self, model_input: &Tensor, timestep: f32) -> Result<Tensor> {
        denoise(
            self.unet,
            model_input,
            &vec![timestep as usize; self.shape[0]],
            self.cond,
        )
    }

    fn noise(&mut self, row: usize) -> Tensor {
        noise(self.seed, purpose::RENOISE, row as u64, self.shape)
    }
}

pub(crate) struct Decoder {
    config: DecoderConfig,
    vae: AutoencoderKl,
    params: NamedParams,
    source: Box<dyn PictureSource>,
    painter: Option<LatentPainter>,
    seed: u64,
    picture_loss: PictureLoss,
}

impl Decoder {
    pub(crate) fn new(
        config: DecoderConfig,
        vae: Component<AutoencoderKl>,
        source: Box<dyn PictureSource>,
        painter: Option<LatentPainter>,
        picture_loss: PictureLoss,
        seed: u64,
    ) -> Self {
        Self {
            params: decoder_params(&vae.params),
            vae: vae.network,
            source,
            painter,
            picture_loss,
            config,
            seed,
        }
    }

    fn samples_of(&self, number: u64) -> Result<Vec<Sample>> {
        let size = self.config.batch_size as u64;
        (number * size..(number + 1) * size)
            .into_par_iter()
            .map(|i| self.source.sample(i))
            .collect()
    }

    /// Raw latents of `pictures`: the encoder's, or the painter's where it is asked.
    fn latents(&self, samples: &[Sample], pictures: &Tensor, number: u64) -> Result<Tensor> {
        let encoded = encode(&self.vae, pictures)?.mean;
        let Some(painter) = &self.painter else {
            return Ok(encoded);
        };
        let draws = uniform(self.seed, purpose::ROW, number, samples.len());
        let from_painter: Vec<f32> = samples
            .iter()
            .zip(draws)
            .map(|(s, u)| f32::from(painter.paints(&s.caption) && u < self.config.painter_share))
            .collect();
        if from_painter.iter().all(|f| *f == 0.0) {
            return Ok(encoded);
        }
        let captions: Vec<&str> = samples.iter().map(|s| s.caption.as_str()).collect();
        let painted = painter.latents(&captions, encoded.shape(), self.seed, number)?;
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
        DecoderConfig::NAME
    }

    fn players(&self) -> Vec<Player> {
        vec![Player::main("decoder", self.params.clone(), &self.config.training)]
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn loss(&self, batch: Batch) -> Result<Loss> {
        let samples = self.samples_of(batch.number)?;
        let pictures = to_tensor(&samples);
        let z = no_grad(|| self.latents(&samples, &pictures, batch.number))?;
        let noise = noise(self.seed, purpose::LATENT, batch.number, z.shape());
        let noisy = add(&z, &affine(&noise, self.config.latent_noise, 0.0));
        Ok(self.picture_loss.between(&decode(&self.vae, &noisy)?, &pictures))
    }

    fn samples(&self) -> Result<Option<Picture>> {
        reconstructions(&self.vae, &*self.source).map(Some)
    }
}
