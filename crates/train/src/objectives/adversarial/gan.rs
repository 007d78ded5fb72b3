//! A one-step generator against a discriminator, both from nothing: no teacher, what distillation has to beat. The loss is
//! relativistic (Huang et al. 2024, "R3GAN"): real latents should look more real than painted ones of the same captions. The
//! discriminator is the encoder of such a UNet with a head on its middle block; R1 and R2 are by finite differences, and at first
//! the generator is drawn to where its noise is (Lin et al. 2025, "Adversarial Flow Models").

use super::game::{self, DISCRIMINATOR};
use crate::config::TrainConfig;
use crate::draws::{noise, purpose};
use crate::error::{Error, Result};
use crate::networks::{self, denoise, denoise_with_blocks};
use crate::noising::Noising;
use crate::objective::{Batch, Loss, Objective, Player, Turn};
use crate::objectives::discriminator::{Heads, encoder_params, mean, mean_softplus};
use crate::objectives::{Drawn, StageConfig, TextLatents, Trainee};
use crate::params::{Component, NamedParams, prefixed};
use crate::trained::Painter;
use crate::trainer::LoopConfig;
use prima_models::{Unet2dCondition, UnetBlock, UnetCond};
use prima_picture::Picture;
use prima_schedulers::SchedulerKind;
use prima_tensor::{Tensor, add, affine, no_grad, sub, weighted_mse};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GanConfig {
    #[serde(rename = "loop")]
    training: LoopConfig,
    batch_size: usize,
    /// Updates of the discriminator for each of the generator, and its learning rate relative to the generator's.
    discriminator_updates: usize,
    discriminator_learning_rate: f32,
    /// Weight of R1 and R2: of the squared change of the discriminator's answers under a little noise.
    gradient_penalty: f32,
    /// Weight of the squared distance between a picture and the noise that it is painted from, which falls to nothing.
    transport_weight: f32,
}

impl Default for GanConfig {
    fn default() -> Self {
        Self {
            training: LoopConfig::default(),
            batch_size: 24,
            discriminator_updates: 1,
            discriminator_learning_rate: 1.0,
            gradient_penalty: 0.25,
            transport_weight: 0.2,
        }
    }
}

impl StageConfig for GanConfig {
    const NAME: &'static str = "gan";
    const ABOUT: &'static str =
        "Train a one-step generator by a discriminator, without a teacher: what distillation has to beat";
    const SHIPS_WITH: Option<SchedulerKind> = Some(SchedulerKind::Lcm);

    fn training(&self) -> &LoopConfig {
        &self.training
    }

    fn objective(self, config: &TrainConfig) -> Result<Box<dyn Objective>> {
        let noising = Noising::for_lcm_students(&config.scheduler()?, Self::NAME)?;
        let painter = Painter {
            unet: networks::unet_at_random(config, config.seed + 14)?,
            ..Painter::teacher(config)?
        };
        let judge = networks::unet_at_random(config, config.seed + 15)?;
        let (generator, data) = Trainee::starting_as(painter, config, 13)?;
        Ok(Box::new(Gan::new(self, generator, judge, data, noising)?))
    }
}

/// The text encoders stay frozen.
pub(crate) struct Gan {
    config: GanConfig,
    generator: Trainee,
    judge: Component<Unet2dCondition>,
    head: Heads,
    data: TextLatents,
    noising: Noising,
}

impl Gan {
    pub(crate) fn new(
        config: GanConfig,
        generator: Trainee,
        judge: Component<Unet2dCondition>,
        data: TextLatents,
        noising: Noising,
    ) -> Result<Self> {
        if config.discriminator_updates == 0 {
            let message = "gan.discriminator_updates is 0, but there is nothing else to learn from: give it 1 or more";
            return Err(Error::Config(message.into()));
        }
        Ok(Self {
            head: Heads::new(&judge.network, &[UnetBlock::Mid], data.seed)?,
            config,
            generator,
            judge,
            data,
            noising,
        })
    }

    fn drawn(&self, number: u64) -> Drawn {
        let encoders = self.generator.text_encoders();
        self.data.drawn(encoders, number, self.config.batch_size)
    }

    /// Noise, and the latents that the generator makes of it in one step.
    fn painted(&self, drawn: &Drawn, number: u64) -> Result<[Tensor; 2]> {
        let z = noise(self.data.seed, purpose::NOISE, number, drawn.real.shape());
        let timesteps = vec![self.noising.last(); self.config.batch_size];
        let output = denoise(self.generator.unet(), &z, &timesteps, &drawn.cond)?;
        let x0 = self.noising.denoised(&timesteps, &z, &output);
        Ok([z, x0])
    }

    /// How real latents look.
    fn logits(&self, x: &Tensor, cond: &UnetCond) -> Result<Tensor> {
        let timesteps = vec![0; self.config.batch_size];
        let (_, seen) = denoise_with_blocks(&self.judge.network, x, &timesteps, cond, &self.head.blocks)?;
        Ok(self.head.logits(&seen))
    }

    fn generator_loss(&self, batch: &Batch) -> Result<Loss> {
        let drawn = self.drawn(batch.number);
        let [z, painted] = self.painted(&drawn, batch.number)?;
        let real = no_grad(|| self.logits(&drawn.real, &drawn.cond))?;
        let fake = self.logits(&painted, &drawn.cond)?;
        let fooled = mean_softplus(&sub(&fake, &real), true);
        let mut metrics = vec![("judged", mean(&fake).item() - mean(&real).item())];
        let weight = self.config.transport_weight * (1.0 - batch.progress);
        if weight == 0.0 {
            return Ok(Loss::new(fooled, metrics));
        }
        let distance = weighted_mse(&painted, &z, &vec![1.0; self.config.batch_size]);
        metrics.push(("distance", distance.item()));
        Ok(Loss::new(add(&fooled, &affine(&distance, weight, 0.0)), metrics))
    }

    fn discriminator_loss(&self, number: u64) -> Result<Loss> {
        let drawn = self.drawn(number);
        let [_, painted] = no_grad(|| self.painted(&drawn, number))?;
        let both = [&drawn.real, &painted];
        let [real, fake] = both.map(|x| self.logits(x, &drawn.cond));
        let (real, fake) = (real?, fake?);
        let mut total = mean_softplus(&sub(&real, &fake), true);
        let mut metrics = vec![("apart", mean(&real).item() - mean(&fake).item())];
        if self.config.gradient_penalty > 0.0 {
            let mut penalty = 0.0;
            for (i, (x, logits)) in both.into_iter().zip([&real, &fake]).enumerate() {
                let nudged = game::nudged(x, [self.data.seed + i as u64, number]);
                let nudged = self.logits(&nudged, &drawn.cond)?;
                let changed = game::change(&nudged, logits);
                penalty += changed.item();
                total = add(&total, &affine(&changed, self.config.gradient_penalty, 0.0));
            }
            metrics.push(("penalty", penalty));
        }
        Ok(Loss::new(total, metrics))
    }

    fn judge_params(&self) -> NamedParams {
        let mut params = prefixed("judge", &encoder_params(&self.judge.params));
        params.extend(prefixed("head", &self.head.params));
        params
    }
}

impl Objective for Gan {
    fn name(&self) -> &'static str {
        GanConfig::NAME
    }

    fn players(&self) -> Vec<Player> {
        let rate = self.config.discriminator_learning_rate;
        game::players(&self.generator, &self.judge_params(), rate, &self.config.training)
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn turns(&mut self, _step: u64, _progress: f32) -> Result<Vec<Turn>> {
        Ok(game::turns(self.config.discriminator_updates))
    }

    fn loss(&self, batch: Batch) -> Result<Loss> {
        match batch.player {
            DISCRIMINATOR => self.discriminator_loss(batch.number),
            _ => self.generator_loss(&batch),
        }
    }

    fn samples(&self) -> Result<Option<Picture>> {
        self.generator.draw(SchedulerKind::Lcm, 1, 1.0)
    }
}
