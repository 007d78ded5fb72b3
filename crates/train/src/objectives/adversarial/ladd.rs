//! Latent adversarial diffusion distillation (Sauer et al. 2024, "LADD"): what the student answers is noised again and judged by
//! small heads on what the frozen teacher makes of it, beside real latents noised alike. No pixels, no squared error.

use crate::config::TrainConfig;
use crate::draws::{check_shares, chosen, noise, normal, purpose, uniform};
use crate::error::{Error, Result};
use crate::networks::{denoise, denoise_with_blocks};
use crate::noising::Noising;
use crate::objective::{Batch, Loss, Objective, Player, Turn};
use crate::objectives::discriminator::{Heads, judging_blocks, mean, mean_hinge};
use crate::objectives::{Drawn, Guidance, StageConfig, TextLatents, Trainee};
use crate::trained;
use crate::trainer::LoopConfig;
use prima_models::{Unet2dCondition, UnetCond};
use prima_picture::Picture;
use prima_schedulers::SchedulerKind;
use prima_tensor::{Tensor, add, affine, no_grad, sub, weighted_mse};
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

/// Standard deviation of the noise under which answers should not change.
const NUDGE: f32 = 0.1;

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

const STUDENT: usize = 0;
const DISCRIMINATOR: usize = 1;

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

    /// The student's input, and its answer to it: real latents noised to one of its timesteps, and their x0.
    fn answered(&self, drawn: &Drawn, number: u64) -> Result<(Tensor, Vec<usize>, Tensor)> {
        let (n, seed) = (self.config.batch_size, self.data.seed);
        let rung = |u: &f32| self.config.timesteps[chosen(&self.config.shares, *u)];
        let timesteps: Vec<usize> = uniform(seed, purpose::RUNG, number, n).iter().map(rung).collect();
        let noise = noise(seed, purpose::NOISE, number, drawn.real.shape());
        let x = self.noising.noised(&timesteps, &drawn.real, &noise);
        let output = denoise(self.student.unet(), &x, &timesteps, &drawn.cond)?;
        let x0 = self.noising.denoised(&timesteps, &x, &output);
        Ok((x, timesteps, x0))
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
        let fooled = affine(&mean(&logits), -1.0, 0.0);
        let mut metrics = vec![("judged", -fooled.item())];
        if self.config.distillation_weight == 0.0 {
            return Ok(Loss::new(fooled, metrics));
        }
        let taught = no_grad(|| self.taught(&x, &timesteps, &drawn.cond))?;
        let distance = weighted_mse(&x0, &taught, &vec![1.0; n]);
        metrics.push(("distance", distance.item()));
        let total = add(&fooled, &affine(&distance, self.config.distillation_weight, 0.0));
        Ok(Loss::new(total, metrics))
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
        let [real, fake] = [&of_real, &of_fake].map(|seen| self.heads.logits(seen));
        let mut total = add(&mean_hinge(&real, true), &mean_hinge(&fake, false));
        let mut metrics = vec![
            ("hinge", total.item()),
            ("apart", mean(&real).item() - mean(&fake).item()),
        ];
        if self.config.gradient_penalty > 0.0 {
            let nudged: Vec<Tensor> = of_real
                .iter()
                .enumerate()
                .map(|(i, seen)| self.nudged(seen, number, i))
                .collect();
            let change = affine(&sub(&self.heads.logits(&nudged), &real), 1.0 / NUDGE, 0.0);
            let penalty = weighted_mse(&change, &Tensor::zeros(change.shape()), &vec![1.0; n]);
            metrics.push(("penalty", penalty.item()));
            total = add(&total, &affine(&penalty, self.config.gradient_penalty, 0.0));
        }
        Ok(Loss::new(total, metrics))
    }

    /// With a little noise: of the heads' inputs, as in ADD, so that the teacher is not asked again.
    fn nudged(&self, seen: &Tensor, number: u64, which: usize) -> Tensor {
        let stream = self.data.seed + which as u64;
        add(
            seen,
            &affine(&noise(stream, purpose::NUDGE, number, seen.shape()), NUDGE, 0.0),
        )
    }
}

impl Objective for Ladd {
    fn name(&self) -> &'static str {
        LaddConfig::NAME
    }

    fn players(&self) -> Vec<Player> {
        let student = Player::main("student", self.student.unet_params.clone(), &self.config.training);
        let (params, rate) = (self.heads.params.clone(), self.config.discriminator_learning_rate);
        let discriminator = Player::beside("discriminator", params, &self.config.training, rate);
        vec![student, discriminator]
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn turns(&mut self, _step: u64, _progress: f32) -> Result<Vec<Turn>> {
        let mut turns = vec![Turn::of(DISCRIMINATOR); self.config.discriminator_updates];
        turns.push(Turn::of(STUDENT));
        Ok(turns)
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
