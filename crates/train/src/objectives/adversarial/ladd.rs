//! Latent adversarial diffusion distillation (Sauer et al. 2024, "LADD"): what the student answers is noised again and judged by
//! small heads on what the frozen teacher makes of it, beside real latents noised alike. No pixels, no squared error.

use super::game::{self, DISCRIMINATOR, Ladder};
use crate::config::TrainConfig;
use crate::draws::{check_shares, noise, normal, purpose};
use crate::error::{Error, Result};
use crate::networks::denoise_with_blocks;
use crate::noising::Noising;
use crate::objective::{Batch, Loss, Objective, Player, Turn};
use crate::objectives::discriminator::{Heads, judging_blocks};
use crate::objectives::{Drawn, Guidance, StageConfig, TextLatents, Trainee};
use crate::trained;
use crate::trainer::LoopConfig;
use prima_models::{Unet2dCondition, UnetCond};
use prima_picture::Picture;
use prima_schedulers::SchedulerKind;
use prima_tensor::{Tensor, no_grad, weighted_mse};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LaddConfig {
    #[serde(rename = "loop")]
    training: LoopConfig,
    batch_size: usize,
    /// The timesteps that the student paints from, the noisiest first ...
    timesteps: Vec<usize>,
    /// ... and how often each of them is trained, relative to the others.
    shares: Vec<f32>,
    /// Both are noised again to timesteps whose share of all has a logit of this mean and deviation.
    logit_mean: f32,
    logit_std: f32,
    /// Updates of the discriminator for each of the student, and its learning rate relative to the student's.
    discriminator_updates: usize,
    discriminator_learning_rate: f32,
    /// Weight of the squared change of the discriminator's answers under a little noise: R1 by finite differences.
    gradient_penalty: f32,
    /// Weight of the squared error towards the guided teacher's answer, 0 in the paper for data that the teacher painted.
    distillation_weight: f32,
    /// The teacher's guidance in that.
    guidance_scale: f32,
}

impl Default for LaddConfig {
    fn default() -> Self {
        Self {
            training: LoopConfig::default(),
            batch_size: 24,
            timesteps: vec![999, 749, 499, 249],
            shares: vec![0.7, 0.1, 0.1, 0.1],
            logit_mean: 1.0,
            logit_std: 1.0,
            discriminator_updates: 1,
            discriminator_learning_rate: 2.0,
            gradient_penalty: 1.0,
            distillation_weight: 0.0,
            guidance_scale: 2.0,
        }
    }
}

impl LaddConfig {
    fn check(&self, noising: &Noising) -> Result<()> {
        noising.check_falling(Self::NAME, &self.timesteps)?;
        check_shares("ladd.shares", &self.shares, self.timesteps.len())?;
        if self.discriminator_updates == 0 {
            let message = "ladd.discriminator_updates is 0, but there is nothing else to learn from: give it 1 or more";
            return Err(Error::Config(message.into()));
        }
        Ok(())
    }
}

impl StageConfig for LaddConfig {
    const NAME: &'static str = "ladd";
    const ABOUT: &'static str = "Distill the teacher to one to four steps by a discriminator on its features";
    const SHIPS_WITH: Option<SchedulerKind> = Some(SchedulerKind::Lcm);

    fn training(&self) -> &LoopConfig {
        &self.training
    }

    fn objective(self, config: &TrainConfig) -> Result<Box<dyn Objective>> {
        let noising = Noising::for_lcm_students(&config.scheduler()?, Self::NAME)?;
        let teacher = trained::teacher_unet(config)?.network;
        let (student, data) = Trainee::student(config, 8)?;
        Ok(Box::new(Ladd::new(self, student, teacher, data, noising)?))
    }
}

/// `student` starts as a copy of `teacher`; the text encoders stay frozen.
pub(crate) struct Ladd {
    config: LaddConfig,
    student: Trainee,
    teacher: Unet2dCondition,
    heads: Heads,
    data: TextLatents,
    noising: Noising,
}

impl Ladd {
    pub(crate) fn new(
        config: LaddConfig,
        student: Trainee,
        teacher: Unet2dCondition,
        data: TextLatents,
        noising: Noising,
    ) -> Result<Self> {
        config.check(&noising)?;
        Ok(Self {
            heads: Heads::new(&teacher, &judging_blocks(&teacher), data.seed)?,
            config,
            student,
            teacher,
            data,
            noising,
        })
    }

    /// The student's input, and its answer to it.
    fn answered(&self, drawn: &Drawn, number: u64) -> Result<(Tensor, Vec<usize>, Tensor)> {
        let ladder = Ladder {
            timesteps: &self.config.timesteps,
            shares: &self.config.shares,
        };
        ladder.answered(&self.student, &self.noising, drawn, [self.data.seed, number])
    }

    /// What it answers to batch `number`.
    #[cfg(test)]
    pub(crate) fn answer(&self, number: u64) -> Result<Tensor> {
        let drawn = self
            .data
            .drawn(self.student.text_encoders(), number, self.config.batch_size);
        Ok(self.answered(&drawn, number)?.2)
    }

    /// Timesteps and noise by which latents of batch `number` are noised again.
    fn renoising(&self, number: u64, shape: &[usize]) -> (Vec<usize>, Tensor) {
        let seed = self.data.seed;
        let (config, draws) = (
            &self.config,
            normal(seed, purpose::TIMESTEP, number, self.config.batch_size),
        );
        let timestep = |z: f32| self.noising.timestep_at(config.logit_mean + config.logit_std * z);
        let timesteps = draws.into_iter().map(timestep).collect();
        (timesteps, noise(seed, purpose::RENOISE, number, shape))
    }

    /// What the heads judge of `x0` noised again.
    fn seen(&self, x: &Tensor, timesteps: &[usize], cond: &UnetCond) -> Result<Vec<Tensor>> {
        Ok(denoise_with_blocks(&self.teacher, x, timesteps, cond, &self.heads.blocks)?.1)
    }

    fn student_loss(&self, number: u64) -> Result<Loss> {
        let n = self.config.batch_size;
        let drawn = self.data.drawn(self.student.text_encoders(), number, n);
        let (x, timesteps, x0) = self.answered(&drawn, number)?;
        let (levels, noise) = self.renoising(number, x0.shape());
        let noised = self.noising.noised(&levels, &x0, &noise);
        let logits = self.heads.logits(&self.seen(&noised, &levels, &drawn.cond)?);
        game::fooling(&logits, [1.0, self.config.distillation_weight], || {
            let taught = no_grad(|| self.taught(&x, &timesteps, &drawn.cond))?;
            Ok(weighted_mse(&x0, &taught, &vec![1.0; n]))
        })
    }

    /// The guided teacher's x0.
    fn taught(&self, x: &Tensor, timesteps: &[usize], cond: &UnetCond) -> Result<Tensor> {
        let guidance = Guidance::new(self.config.guidance_scale, &self.student, &self.data, cond);
        let output = guidance.output(&self.teacher, x, timesteps, cond)?;
        Ok(self.noising.denoised(timesteps, x, &output))
    }

    fn discriminator_loss(&self, number: u64) -> Result<Loss> {
        let n = self.config.batch_size;
        let drawn = self.data.drawn(self.student.text_encoders(), number, n);
        let (_, _, x0) = no_grad(|| self.answered(&drawn, number))?;
        let (levels, noise_again) = self.renoising(number, x0.shape());
        // The teacher is frozen: only the heads are on the tape.
        let seen = |x0: &Tensor| {
            let x = self.noising.noised(&levels, x0, &noise_again);
            no_grad(|| self.seen(&x, &levels, &drawn.cond))
        };
        let (of_real, of_fake) = (seen(&drawn.real)?, seen(&x0)?);
        let seen = [&of_real[..], &of_fake[..]];
        Ok(game::judging(
            |seen| self.heads.logits(seen),
            seen,
            self.config.gradient_penalty,
            [self.data.seed, number],
        ))
    }
}

impl Objective for Ladd {
    fn name(&self) -> &'static str {
        LaddConfig::NAME
    }

    fn players(&self) -> Vec<Player> {
        let (heads, rate) = (&self.heads.params, self.config.discriminator_learning_rate);
        game::players(&self.student, heads, rate, &self.config.training)
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
            _ => self.student_loss(batch.number),
        }
    }

    fn samples(&self) -> Result<Option<Picture>> {
        self.student.draw(SchedulerKind::Lcm, self.config.timesteps.len(), 1.0)
    }
}
