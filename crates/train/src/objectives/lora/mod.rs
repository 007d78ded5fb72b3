//! A LoRA of a person's own subject or style (Hu et al. 2021; Ruiz et al. 2023, "DreamBooth", for the prior): the model learns what
//! its scheduler's prediction type asks for, from a few pictures, with its weights frozen.
//!
//! A model of few steps is trained at the timesteps that it paints with, and by the squared error of the picture that it answers
//! with: it knows no others.

mod layers;
mod prior;
mod timesteps;

pub(crate) use layers::{LoraParams, LoraSize};
pub(crate) use prior::PriorConfig;
pub(crate) use timesteps::Timesteps;

use crate::captions::{Tokens, conditioning};
use crate::config::TrainConfig;
use crate::draws::{noise, purpose, uniform};
use crate::error::{Error, Result};
use crate::latent_cache::LatentCache;
use crate::latents;
use crate::networks::denoise;
use crate::noising::Noising;
use crate::objective::{Batch, Loss, Objective, Player};
use crate::objectives::{StageConfig, TextLatents, Trainee};
use crate::params::NamedParams;
use crate::trained::Painter;
use crate::trainer::{AdamWConfig, Budget, LoopConfig};
use prima_picture::Picture;
use prima_tensor::{Tensor, add, affine, no_grad, weighted_mse};
use serde::Deserialize;
use std::path::Path;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LoraConfig {
    #[serde(rename = "loop")]
    pub(crate) training: LoopConfig,
    /// Of own pictures; as many of the prior come beside them.
    pub(crate) batch_size: usize,
    pub(crate) size: LoraSize,
    /// Do they get LoRAs too?
    pub(crate) trains_text_encoders: bool,
    /// Share of captions replaced by the empty prompt, for models that are sampled with guidance.
    pub(crate) caption_dropout: f32,
    /// The timesteps to train at; those that the model paints with, if they are few, or else all, where absent.
    pub(crate) timesteps: Option<Vec<usize>>,
    /// What the model is not to forget.
    pub(crate) prior: Option<PriorConfig>,
    /// Keep the frozen weights in bf16, for half their memory.
    pub(crate) bf16_base: bool,
}

impl Default for LoraConfig {
    fn default() -> Self {
        let training = LoopConfig {
            optimizer: AdamWConfig {
                learning_rate: 5e-4,
                lr_warmup_steps: 10,
                lr_final_fraction: 0.1,
                ..AdamWConfig::default()
            },
            ema_decay: 0.99,
            sample_every: 100,
            save_every_s: 60,
            ..LoopConfig::default()
        };
        Self {
            training,
            batch_size: 4,
            size: LoraSize::default(),
            trains_text_encoders: false,
            caption_dropout: 0.0,
            timesteps: None,
            prior: None,
            bf16_base: false,
        }
    }
}

/// Streams of draws beside those of the other stages.
const OWN_STREAM: u64 = 10;
const PRIOR_STREAM: u64 = 11;

impl StageConfig for LoraConfig {
    const NAME: &'static str = "lora";
    const ABOUT: &'static str = "Train a LoRA on a few pictures of a subject or a style";

    fn training(&self) -> &LoopConfig {
        &self.training
    }

    /// A person's pictures are encoded first, and what stands for the prior is painted.
    fn objective(self, config: &TrainConfig) -> Result<Box<dyn Objective>> {
        if config.pictures.is_some() {
            latents::latents(config, Budget::default())?;
        }
        if let Some(prior) = &self.prior {
            prior.prepare(config)?;
        }
        let painter = Painter::teacher(config)?;
        let data = |folder: &Path, stream: u64| -> Result<TextLatents> {
            let cache = LatentCache::open(folder)?;
            let tokens = Tokens::new(&painter.texts, &cache.captions)?;
            let seed = config.seed + stream;
            Ok(TextLatents { cache, tokens, seed })
        };
        let own = data(&config.stage_dir(latents::NAME), OWN_STREAM)?;
        let prior_dir = config.stage_dir(prior::NAME);
        let prior = self
            .prior
            .as_ref()
            .map(|_| data(&prior_dir, PRIOR_STREAM))
            .transpose()?;
        let noising = Noising::new(&config.scheduler()?)?;
        let model = Trainee::as_it_paints(config, painter)?;
        Ok(Box::new(Lora::new(self, model, own, prior, noising)?))
    }
}

/// Removes the latents of own pictures and of the prior: what a run that begins anew makes again. Painted pictures stay.
pub fn discard_lora_latents(config: &TrainConfig) -> Result<()> {
    [latents::NAME, prior::NAME]
        .iter()
        .try_for_each(|stage| latents::discard(&config.stage_dir(stage)))
}

pub(crate) struct Lora {
    config: LoraConfig,
    model: Trainee,
    pub(crate) layers: LoraParams,
    own: TextLatents,
    prior: Option<TextLatents>,
    noising: Noising,
    timesteps: Timesteps,
}

impl Lora {
    pub(crate) fn new(
        config: LoraConfig,
        model: Trainee,
        own: TextLatents,
        prior: Option<TextLatents>,
        noising: Noising,
    ) -> Result<Self> {
        if config.batch_size == 0 {
            return Err(Error::Config("lora.batch_size is 0, expected 1 or more".into()));
        }
        let timesteps = Timesteps::of(config.timesteps.as_deref(), model.pipeline(), &noising)?;
        let layers = LoraParams::new(&config.size, &beside(&model, config.trains_text_encoders), own.seed)?;
        for (_, param) in &model.unet_params {
            param.set_bf16_products(config.training.bf16_products);
            if config.bf16_base {
                param.narrow_to_bf16();
            }
        }
        Ok(Self {
            config,
            model,
            layers,
            own,
            prior,
            noising,
            timesteps,
        })
    }

    /// The loss of `n` pictures of `data`, of whose captions `dropout` are left out.
    fn part(&self, data: &TextLatents, number: u64, dropout: f32) -> Result<Tensor> {
        let n = self.config.batch_size;
        let rows = data.rows(number, n);
        let x0 = data.cache.batch(&rows);
        let keep = uniform(data.seed, purpose::DROPOUT, number, n);
        let keep = keep.iter().map(|u| f32::from(*u >= dropout)).collect();
        let tokens = data.tokens.rows(&rows, keep);
        let read = || conditioning(self.model.text_encoders(), &tokens, data.cache.time_ids(&rows));
        let timesteps = self.timesteps.draw(&self.noising, data.seed, number, n);
        let noise = noise(data.seed, purpose::NOISE, number, x0.shape());
        let x = self.noising.noised(&timesteps, &x0, &noise);
        let output = self.layers.adapters.within(|| {
            let cond = if self.config.trains_text_encoders {
                read()
            } else {
                no_grad(read)
            };
            denoise(self.model.unet(), &x, &timesteps, &cond)
        })?;
        let (answer, wanted) = match self.timesteps {
            Timesteps::Few(_) => (self.noising.denoised(&timesteps, &x, &output), x0),
            Timesteps::All => (output, self.noising.target(&timesteps, &x0, &noise)),
        };
        Ok(weighted_mse(&answer, &wanted, &vec![1.0; n]))
    }
}

/// What may get LoRAs.
fn beside(model: &Trainee, with_text_encoders: bool) -> NamedParams {
    let mut frozen = model.unet_params.clone();
    if with_text_encoders {
        frozen.extend(model.text_params.clone());
    }
    frozen
}

impl Objective for Lora {
    fn name(&self) -> &'static str {
        LoraConfig::NAME
    }

    fn players(&self) -> Vec<Player> {
        let params = self.layers.params.clone();
        vec![Player::main("lora", params, &self.config.training)]
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn loss(&self, batch: Batch) -> Result<Loss> {
        let own = self.part(&self.own, batch.number, self.config.caption_dropout)?;
        let (Some(data), Some(PriorConfig { weight, .. })) = (&self.prior, &self.config.prior) else {
            return Ok(Loss::new(own, Vec::new()));
        };
        let prior = self.part(data, batch.number, 0.0)?;
        let metrics = vec![("mse_own", own.item()), ("mse_prior", prior.item())];
        Ok(Loss::new(add(&own, &affine(&prior, *weight, 0.0)), metrics))
    }

    fn samples(&self) -> Result<Option<Picture>> {
        self.layers.adapters.within(|| self.model.draw_as_it_paints())
    }
}
