//! Consistency tuning (Geng et al. 2024, "ECT"): the student's answers at two noise levels of one picture under one noise agree, at
//! first far apart, where that is denoising, then ever closer. No other network is kept: the answer at the lower level is its own,
//! the picture itself where no noise is left.

use crate::config::TrainConfig;
use crate::draws::{noise, purpose};
use crate::error::{Error, Result};
use crate::networks::denoise;
use crate::noising::Noising;
use crate::objective::{Batch, Loss, Objective, Player};
use crate::objectives::off_tape::weighted_norm;
use crate::objectives::timesteps::TimestepSampling;
use crate::objectives::{Drawn, Guidance, StageConfig, TextLatents, Trainee};
use crate::trained;
use crate::trainer::LoopConfig;
use prima_models::{Unet2dCondition, UnetCond};
use prima_picture::Picture;
use prima_schedulers::SchedulerKind;
use prima_tensor::{Tensor, combine_per_sample, no_grad};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EctConfig {
    #[serde(rename = "loop")]
    training: LoopConfig,
    batch_size: usize,
    /// Of the teacher, one of whose DDIM steps leads to the lower level; 1 does without a teacher: the level's noise is the same,
    /// its picture the real one.
    guidance_scale: f32,
    /// Share of samples at the last timestep: what one-step sampling sees.
    max_noise_share: f32,
    /// The others have `ln(sigma / alpha)` normal with this mean and deviation (-1.1 and 2 in the paper, for pictures of half the
    /// deviation).
    log_sigma_mean: f32,
    log_sigma_std: f32,
    /// The levels close in stage by stage, by this factor each; stages share the budget evenly (256 and 1 close in at once).
    q: f32,
    stages: usize,
    weighting: Weighting,
    /// Constant of the pseudo-Huber norm.
    huber_c: f32,
    sample_steps: usize,
}

/// What a sample's error counts.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Weighting {
    /// One over the levels' distance, as in the paper: high noise counts little.
    InverseStep,
    /// All alike, for students of one step.
    Uniform,
}

impl Default for EctConfig {
    fn default() -> Self {
        Self {
            training: LoopConfig::default(),
            batch_size: 48,
            guidance_scale: 1.0,
            max_noise_share: 0.25,
            log_sigma_mean: -0.4,
            log_sigma_std: 2.0,
            q: 2.0,
            stages: 6,
            weighting: Weighting::Uniform,
            huber_c: 1e-3,
            sample_steps: 1,
        }
    }
}

/// Pure noise counts as this `sigma / alpha`, the greatest in the paper.
const SIGMA_MAX: f32 = 80.0;
/// How much closer levels are where there is little noise.
const CLOSER: f32 = 8.0;

impl EctConfig {
    fn check(&self) -> Result<()> {
        if self.q > 1.0 && self.stages > 0 {
            return Ok(());
        }
        let message = format!(
            "ect.q is {} and ect.stages {}, expected more than 1 and at least 1",
            self.q, self.stages
        );
        Err(Error::Config(message))
    }
}

impl StageConfig for EctConfig {
    const NAME: &'static str = "ect";
    const ABOUT: &'static str = "Tune the teacher to one to four steps by consistency, without a second network";
    const SHIPS_WITH: Option<SchedulerKind> = Some(SchedulerKind::Lcm);

    fn training(&self) -> &LoopConfig {
        &self.training
    }

    fn objective(self, config: &TrainConfig) -> Result<Box<dyn Objective>> {
        let noising = Noising::for_lcm_students(&config.scheduler()?, Self::NAME)?;
        let teacher = trained::guiding_unet(config, self.guidance_scale)?;
        let (student, data) = Trainee::student(config, 9)?;
        Ok(Box::new(Ect::new(self, student, teacher, data, noising)?))
    }
}

/// `student` starts as a copy of the teacher; the text encoders stay frozen.
pub(crate) struct Ect {
    config: EctConfig,
    student: Trainee,
    teacher: Option<Unet2dCondition>,
    data: TextLatents,
    noising: Noising,
}

/// Two noise levels of a sample.
struct Levels {
    upper: usize,
    /// None is no noise.
    lower: Option<usize>,
    weight: f32,
}

impl Ect {
    pub(crate) fn new(
        config: EctConfig,
        student: Trainee,
        teacher: Option<Unet2dCondition>,
        data: TextLatents,
        noising: Noising,
    ) -> Result<Self> {
        config.check()?;
        Ok(Self {
            config,
            student,
            teacher,
            data,
            noising,
        })
    }

    /// Those of batch `number`, when `progress` of the budget is spent.
    fn levels(&self, number: u64, progress: f32) -> Vec<Levels> {
        let (config, seed, n) = (&self.config, self.data.seed, self.config.batch_size);
        let stage = ((progress * config.stages as f32) as usize).min(config.stages - 1);
        let apart = config.q.powi(-(stage as i32 + 1));
        let sampling = TimestepSampling {
            max_noise_share: config.max_noise_share,
            log_sigma_mean: config.log_sigma_mean,
            log_sigma_std: config.log_sigma_std,
        };
        let upper = sampling.draw(&self.noising, seed, number, n);
        // Below the first there is no other.
        upper.into_iter().map(|upper| self.pair(upper.max(1), apart)).collect()
    }

    /// `upper` and the level below it, which at high noise has `1 - apart` of its sigma.
    fn pair(&self, upper: usize, apart: f32) -> Levels {
        let sigma = self.noising.sigma_of(upper).min(SIGMA_MAX);
        let closer = 1.0 + CLOSER / (1.0 + sigma.exp());
        let below = sigma * (1.0 - apart * closer);
        let is_noise = below >= self.noising.sigma_of(0);
        let lower = is_noise.then(|| self.noising.timestep_of(below.ln()).min(upper - 1));
        let reached = if is_noise { below } else { 0.0 };
        let weight = match self.config.weighting {
            Weighting::InverseStep => 1.0 / (sigma - reached),
            Weighting::Uniform => 1.0,
        };
        Levels { upper, lower, weight }
    }

    /// The x0 of the student.
    fn answer(&self, x: &Tensor, timesteps: &[usize], cond: &UnetCond) -> Result<Tensor> {
        let output = denoise(self.student.unet(), x, timesteps, cond)?;
        Ok(self.noising.denoised(timesteps, x, &output))
    }

    /// By how much the answers to batch `number` are above the real latents, on average.
    #[cfg(test)]
    pub(crate) fn offset(&self, number: u64) -> Result<f32> {
        let Drawn { real, cond } = self
            .data
            .drawn(self.student.text_encoders(), number, self.config.batch_size);
        let upper: Vec<usize> = self.levels(number, 0.0).iter().map(|level| level.upper).collect();
        let noise = noise(self.data.seed, purpose::NOISE, number, real.shape());
        let answer = no_grad(|| self.answer(&self.noising.noised(&upper, &real, &noise), &upper, &cond))?;
        let sum = |x: &Tensor| x.data().iter().sum::<f32>();
        Ok((sum(&answer) - sum(&real)) / real.numel() as f32)
    }

    /// Picture and noise on the way down from `x`: the guided teacher's, or those that `x` was made of.
    fn way_down(
        &self,
        x: &Tensor,
        upper: &[usize],
        cond: &UnetCond,
        [real, noise]: [&Tensor; 2],
    ) -> Result<[Tensor; 2]> {
        let Some(teacher) = &self.teacher else {
            return Ok([real.clone(), noise.clone()]);
        };
        let guidance = Guidance::new(self.config.guidance_scale, &self.student, &self.data, cond);
        let output = guidance.output(teacher, x, upper, cond)?;
        Ok([
            self.noising.denoised(upper, x, &output),
            self.noising.noise_of(upper, x, &output),
        ])
    }

    /// What the student should answer at the upper levels.
    fn target(&self, levels: &[Levels], [x0, noise]: &[Tensor; 2], cond: &UnetCond) -> Result<Tensor> {
        let lower: Vec<usize> = levels.iter().map(|level| level.lower.unwrap_or(0)).collect();
        let answer = self.answer(&self.noising.noised(&lower, x0, noise), &lower, cond)?;
        let is_clean: Vec<f32> = levels.iter().map(|l| f32::from(l.lower.is_none())).collect();
        let is_not: Vec<f32> = is_clean.iter().map(|clean| 1.0 - clean).collect();
        Ok(combine_per_sample(&is_clean, x0, &is_not, &answer))
    }
}

impl Objective for Ect {
    fn name(&self) -> &'static str {
        EctConfig::NAME
    }

    fn players(&self) -> Vec<Player> {
        let student = self.student.unet_params.clone();
        vec![Player::main("student", student, &self.config.training)]
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn loss(&self, batch: Batch) -> Result<Loss> {
        let (data, number, n) = (&self.data, batch.number, self.config.batch_size);
        let Drawn { real, cond } = data.drawn(self.student.text_encoders(), number, n);
        let levels = self.levels(number, batch.progress);
        let upper: Vec<usize> = levels.iter().map(|level| level.upper).collect();
        let noise = noise(data.seed, purpose::NOISE, number, real.shape());
        let x = self.noising.noised(&upper, &real, &noise);
        let target = no_grad(|| {
            let down = self.way_down(&x, &upper, &cond, [&real, &noise])?;
            self.target(&levels, &down, &cond)
        })?;
        let answer = self.answer(&x, &upper, &cond)?;
        let weights: Vec<f32> = levels.iter().map(|level| level.weight).collect();
        let total = weighted_norm(&answer, &target, &weights, self.config.huber_c);
        Ok(Loss::new(total, Vec::new()))
    }

    fn samples(&self) -> Result<Option<Picture>> {
        self.student.draw(SchedulerKind::Lcm, self.config.sample_steps, 1.0)
    }
}
