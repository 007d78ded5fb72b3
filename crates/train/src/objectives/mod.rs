//! What is optimised: one file an objective, with its section of the configuration.

mod adversarial;
mod autoencoder;
mod consistency;
mod discriminator;
mod distribution_matching;
mod lora;
mod off_tape;
mod teacher;
mod text;
mod timesteps;
mod trajectory;

pub(crate) use adversarial::{AddConfig, GanConfig, LaddConfig, LightningConfig};
pub(crate) use autoencoder::{AutoencoderConfig, DecoderConfig};
pub(crate) use consistency::{EctConfig, LcmConfig, LcmLoraConfig};
pub(crate) use distribution_matching::{Dmd2Config, RdmConfig};
pub use lora::discard_lora_latents;
pub(crate) use lora::{LoraConfig, LoraSize};
pub(crate) use teacher::TeacherConfig;
pub(crate) use text::TextConfig;
pub(crate) use trajectory::{MeanFlowConfig, ProgressiveConfig};
#[cfg(test)]
pub(crate) use {
    adversarial::{Add, Gan, Ladd, Lightning},
    autoencoder::{Autoencoder, Decoder, LatentPainter, PictureLoss, schedules as painter_schedules},
    consistency::{Ect, Lcm, Learns, learns_a_lora},
    distribution_matching::{Dmd2, Rdm},
    lora::Lora,
    teacher::Teacher,
    text::{Corpus, Text},
    trajectory::{MeanFlow, Progressive},
};

use crate::captions::{Tokens, conditioning, unconditional};
use crate::config::{Origin, TrainConfig};
use crate::draws::{purpose, uniform};
use crate::error::Result;
use crate::latent_cache::LatentCache;
use crate::latents;
use crate::networks::denoise;
use crate::objective::Objective;
use crate::own_pictures::model_card;
use crate::params::NamedParams;
use crate::trained::{self, Painter};
use crate::trainer::LoopConfig;
use prima_models::{Unet2dCondition, UnetCond};
use prima_picture::{Picture, contact_sheet};
use prima_pipeline::{
    ModelCard, Parts, Pipeline, Request, ScheduleOptions, TextEncoders, TimestepSpacing, classifier_free,
};
use prima_schedulers::{PredictionType, SchedulerKind};
use prima_tensor::{Tensor, combine_per_sample, no_grad};
use serde::de::DeserializeOwned;
use std::ops::ControlFlow;

/// A section of the configuration, and the objective that it makes: what a line of [`crate::stages::STAGES`] is made of.
pub(crate) trait StageConfig: DeserializeOwned + Default {
    /// Of the section, the command and the folder.
    const NAME: &'static str;
    /// What it was called before, and is still read as.
    const OLD_NAME: Option<&'static str> = None;
    /// One line for the command's help.
    const ABOUT: &'static str;
    /// The scheduler that the network is sampled with once it is shipped; `None` where it paints nothing.
    const SHIPS_WITH: Option<SchedulerKind> = None;

    fn training(&self) -> &LoopConfig;

    /// The objective, with the networks that earlier stages left.
    fn objective(self, config: &TrainConfig) -> Result<Box<dyn Objective>>;
}

/// Latents and tokens to draw batches from.
pub(crate) struct TextLatents {
    pub(crate) cache: LatentCache,
    /// Of each row.
    pub(crate) tokens: Tokens,
    pub(crate) seed: u64,
}

impl TextLatents {
    /// Rows of batch `number`: independent draws among those of one size.
    pub(crate) fn rows(&self, number: u64, batch_size: usize) -> Vec<usize> {
        self.cache
            .draw(&uniform(self.seed, purpose::ROW, number, batch_size + 1))
    }

    /// Those of batch `number`, as frozen text encoders read them.
    pub(crate) fn drawn(&self, encoders: &TextEncoders, number: u64, batch_size: usize) -> Drawn {
        let rows = self.rows(number, batch_size);
        let tokens = self.tokens.rows(&rows, vec![1.0; batch_size]);
        let cond = no_grad(|| conditioning(encoders, &tokens, self.cache.time_ids(&rows)));
        let real = self.cache.batch(&rows);
        Drawn { real, cond }
    }
}

/// Real latents, and the conditioning of their captions.
pub(crate) struct Drawn {
    pub(crate) real: Tensor,
    pub(crate) cond: UnetCond,
}

/// Classifier-free guidance of a teacher.
pub(crate) struct Guidance {
    scale: Scale,
    /// The conditioning of empty prompts, unless the scale asks for none.
    empty: Option<UnetCond>,
}

enum Scale {
    OfAll(f32),
    OfEach(Vec<f32>),
}

impl Guidance {
    /// For the captions of `cond`; a `scale` of 1 is none.
    pub(crate) fn new(scale: f32, student: &Trainee, data: &TextLatents, cond: &UnetCond) -> Self {
        let empty = (scale != 1.0).then(|| unconditional(student.text_encoders(), &data.tokens, cond));
        Self {
            scale: Scale::OfAll(scale),
            empty,
        }
    }

    /// The same with a scale for each sample.
    pub(crate) fn of_each(scales: Vec<f32>, student: &Trainee, data: &TextLatents, cond: &UnetCond) -> Self {
        Self {
            scale: Scale::OfEach(scales),
            empty: Some(unconditional(student.text_encoders(), &data.tokens, cond)),
        }
    }

    /// The output of `teacher`.
    pub(crate) fn output(
        &self,
        teacher: &Unet2dCondition,
        x: &Tensor,
        timesteps: &[usize],
        cond: &UnetCond,
    ) -> Result<Tensor> {
        let text = denoise(teacher, x, timesteps, cond)?;
        let Some(empty) = &self.empty else {
            return Ok(text);
        };
        let uncond = denoise(teacher, x, timesteps, empty)?;
        Ok(match &self.scale {
            Scale::OfAll(scale) => classifier_free(&uncond, &text, f64::from(*scale)),
            Scale::OfEach(scales) => {
                let rest: Vec<f32> = scales.iter().map(|scale| 1.0 - scale).collect();
                combine_per_sample(&rest, &uncond, scales, &text)
            }
        })
    }
}

/// A model in training as a pipeline: what losses compute with, and what draws the sample grids.
pub(crate) struct Trainee {
    pipeline: Pipeline,
    pub(crate) unet_params: NamedParams,
    pub(crate) text_params: NamedParams,
    prompts: Vec<String>,
    size_px: [f32; 2],
    seed: u64,
}

impl Trainee {
    /// A student that starts as the teacher, and what it learns from; `stream` tells the batches of one stage from another's.
    pub(crate) fn student(config: &TrainConfig, stream: u64) -> Result<(Self, TextLatents)> {
        Self::starting_as(Painter::teacher(config)?, config, stream)
    }

    /// The same of a student that starts as `painter`.
    pub(crate) fn starting_as(painter: Painter, config: &TrainConfig, stream: u64) -> Result<(Self, TextLatents)> {
        let data = trained::text_latents(config, &painter.texts, config.seed + stream)?;
        Ok((Self::new(config, painter)?, data))
    }

    /// `painter` with the run's autoencoder and scheduler.
    pub(crate) fn new(config: &TrainConfig, painter: Painter) -> Result<Self> {
        let vae = trained::vae(config)?;
        latents::check_made_by(config, &vae)?;
        Self::of(config, painter, vae.network)
    }

    pub(crate) fn of(config: &TrainConfig, painter: Painter, vae: prima_models::Vae) -> Result<Self> {
        Self::with_card(config, painter, vae, ModelCard::default())
    }

    /// A model as it is, with all that it says of how it paints.
    pub(crate) fn as_it_paints(config: &TrainConfig, painter: Painter) -> Result<Self> {
        let vae = trained::vae(config)?;
        latents::check_made_by(config, &vae)?;
        let card = match config.origin()? {
            Origin::Model(model) => model_card(model)?,
            Origin::Networks(_) => ModelCard::default(),
        };
        Self::with_card(config, painter, vae.network, card)
    }

    fn with_card(config: &TrainConfig, painter: Painter, vae: prima_models::Vae, card: ModelCard) -> Result<Self> {
        let (unet_params, text_params) = (painter.unet_params(), painter.texts.named_params());
        let parts = Parts {
            name: config.export.name.clone(),
            family: config.family()?,
            text_encoders: painter.texts.encoders,
            unet: painter.unet.network,
            vae,
            scheduler_config: config.scheduler()?,
            replaced_scheduler: None,
            known: None,
            card,
            force_zeros_for_empty_prompt: painter.texts.force_zeros,
            components: Vec::new(),
        };
        Ok(Self {
            pipeline: Pipeline::new(parts)?,
            unet_params,
            text_params,
            prompts: config.sample_prompts.clone(),
            size_px: config.picture_size_px(),
            seed: config.seed,
        })
    }

    pub(crate) fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    pub(crate) fn unet(&self) -> &Unet2dCondition {
        &self.pipeline.parts().unet
    }

    pub(crate) fn text_encoders(&self) -> &TextEncoders {
        &self.pipeline.parts().text_encoders
    }

    /// One picture a prompt, eight to a row; `None` where there is no prompt.
    pub(crate) fn draw(&self, scheduler: SchedulerKind, steps: usize, guidance_scale: f32) -> Result<Option<Picture>> {
        let config = &self.pipeline.parts().scheduler_config;
        let is_flow = config.prediction_type() == PredictionType::FlowPrediction;
        // A flow has a scheduler of its own, whose steps are trailing as they are.
        let scheduler = (!is_flow).then_some(scheduler);
        let schedule = ScheduleOptions {
            scheduler,
            spacing: (scheduler == Some(SchedulerKind::Euler)).then_some(TimestepSpacing::Trailing),
            ..ScheduleOptions::steps(steps)
        };
        self.sheet(&schedule, Some(f64::from(guidance_scale)))
    }

    /// The same with the steps and the guidance that the model says.
    pub(crate) fn draw_as_it_paints(&self) -> Result<Option<Picture>> {
        self.sheet(&ScheduleOptions::default(), None)
    }

    fn sheet(&self, schedule: &ScheduleOptions, guidance_scale: Option<f64>) -> Result<Option<Picture>> {
        if self.prompts.is_empty() {
            return Ok(None);
        }
        // What they read, they read with other weights.
        self.text_encoders().forget_prompts();
        let [height, width] = self.size_px.map(|side| side as usize);
        let mut pictures = Vec::new();
        for prompt in &self.prompts {
            let request = Request {
                prompt: prompt.clone(),
                guidance_scale,
                seed: self.seed,
                width: Some(width),
                height: Some(height),
                schedule: schedule.clone(),
                ..Request::default()
            };
            pictures.extend(
                self.pipeline
                    .paint(&request, &mut |_| ControlFlow::Continue(()))?
                    .pictures,
            );
        }
        Ok(Some(contact_sheet(&pictures, 8, 2)))
    }
}
