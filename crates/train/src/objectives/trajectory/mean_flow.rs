//! Mean flows (Geng et al. 2025, "MeanFlow"): the student learns the mean velocity between two noise levels, from the identity that
//! ties it to the velocity at the upper one and to its own derivative along the path, here a central difference. The path is the
//! scheduler's, by its angle: `x = cos a x0 + sin a noise`, whose velocity is what v-prediction predicts.
//!
//! What the network answers leads from the upper level to the lower in one DDIM step, so that it starts as a teacher that is good
//! for small ones. The lower level's timestep is told in place of the picture's crop, whose 0 is "without noise": sampled as any
//! other model, the student goes all the way at once. (That, and the angle, are ours.)

use crate::config::TrainConfig;
use crate::draws::{noise, normal, purpose, uniform};
use crate::error::{Error, Result};
use crate::networks::denoise;
use crate::noising::Noising;
use crate::objective::{Batch, Loss, Objective, Player};
use crate::objectives::{Drawn, Guidance, StageConfig, TextLatents, Trainee};
use crate::trained;
use crate::trainer::LoopConfig;
use prima_models::{Unet2dCondition, UnetCond};
use prima_picture::Picture;
use prima_schedulers::SchedulerKind;
use prima_tensor::{Tensor, combine_per_sample, no_grad, weighted_mse};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MeanFlowConfig {
    #[serde(rename = "loop")]
    training: LoopConfig,
    batch_size: usize,
    /// Of the teacher, whose velocity it is; 1 does without a teacher: the velocity is that of picture and noise.
    guidance_scale: f32,
    /// Share of samples from pure noise to none, which one-step sampling asks for.
    max_noise_share: f32,
    /// Share of the others whose levels are the same: the velocity itself.
    same_share: f32,
    /// Both levels' shares of all have a logit of this mean and deviation.
    logit_mean: f32,
    logit_std: f32,
    /// Timesteps to either side between which the derivative is taken.
    derivative_step: usize,
    /// A sample counts `1 / (its squared error + c)^p`.
    adaptive_c: f32,
    adaptive_p: f32,
    sample_steps: usize,
}

impl Default for MeanFlowConfig {
    fn default() -> Self {
        Self {
            training: LoopConfig::default(),
            batch_size: 48,
            guidance_scale: 2.0,
            max_noise_share: 0.25,
            same_share: 0.25,
            logit_mean: -0.4,
            logit_std: 1.0,
            derivative_step: 5,
            adaptive_c: 1e-3,
            adaptive_p: 0.75,
            sample_steps: 1,
        }
    }
}

impl StageConfig for MeanFlowConfig {
    const NAME: &'static str = "mean-flow";
    const ABOUT: &'static str = "Distill the teacher to one to four steps by the mean velocity between noise levels";
    const SHIPS_WITH: Option<SchedulerKind> = Some(SchedulerKind::Lcm);

    fn training(&self) -> &LoopConfig {
        &self.training
    }

    fn objective(self, config: &TrainConfig) -> Result<Box<dyn Objective>> {
        let noising = Noising::for_lcm_students(&config.scheduler()?, Self::NAME)?;
        let teacher = trained::guiding_unet(config, self.guidance_scale)?;
        let (student, data) = Trainee::student(config, 11)?;
        Ok(Box::new(MeanFlow::new(self, student, teacher, data, noising)?))
    }
}

/// `student` starts as a copy of the teacher; the text encoders stay frozen.
pub(crate) struct MeanFlow {
    config: MeanFlowConfig,
    student: Trainee,
    teacher: Option<Unet2dCondition>,
    data: TextLatents,
    noising: Noising,
}

/// The noise levels of a batch.
struct Levels {
    upper: Vec<usize>,
    /// 0 is no noise.
    lower: Vec<usize>,
}

impl MeanFlow {
    pub(crate) fn new(
        config: MeanFlowConfig,
        student: Trainee,
        teacher: Option<Unet2dCondition>,
        data: TextLatents,
        noising: Noising,
    ) -> Result<Self> {
        if config.derivative_step == 0 {
            let message = "mean-flow.derivative_step is 0, but a difference needs two timesteps: give it 1 or more";
            return Err(Error::Config(message.into()));
        }
        if student.unet().config().addition_embed_type.is_none() {
            let message = "mean-flow tells the UNet a second timestep in place of the picture's crop, but this one is told no \
                           sizes (addition_embed_type): take a model in SDXL's layout, or the stage ect";
            return Err(Error::Config(message.into()));
        }
        Ok(Self {
            config,
            student,
            teacher,
            data,
            noising,
        })
    }

    fn levels(&self, number: u64) -> Levels {
        let (config, seed, n) = (&self.config, self.data.seed, self.config.batch_size);
        let draws = uniform(seed, purpose::TIMESTEP, number, 2 * n);
        let normal = normal(seed, purpose::TIMESTEP, number, 2 * n);
        let last = self.noising.last();
        let timestep = |z: f32| self.noising.timestep_at(config.logit_mean + config.logit_std * z);
        let pairs = draws.chunks_exact(2).zip(normal.chunks_exact(2));
        let pair = |(u, z): (&[f32], &[f32])| {
            let (a, b) = (timestep(z[0]), timestep(z[1]));
            let upper = a.max(b).max(1);
            if u[0] < config.max_noise_share {
                (last, 0)
            } else if u[1] < config.same_share {
                (upper, upper)
            } else {
                (upper, a.min(b))
            }
        };
        let (upper, lower) = pairs.map(pair).unzip();
        Levels { upper, lower }
    }

    /// The angle of a lower level.
    fn lower_angle(&self, timestep: usize) -> f32 {
        if timestep == 0 {
            0.0
        } else {
            self.noising.angle(timestep)
        }
    }

    /// The student's mean velocity from `x` at `upper` down to `lower`.
    fn mean_velocity(&self, x: &Tensor, Levels { upper, lower }: &Levels, cond: &UnetCond) -> Result<Tensor> {
        let mut cond = cond.clone();
        for (ids, &lower) in cond.time_ids.iter_mut().zip(lower) {
            ids[2] = lower as f32;
        }
        let output = denoise(self.student.unet(), x, upper, &cond)?;
        let velocity = self.noising.velocity_of(upper, x, &output);
        // x - d u is where a DDIM step by the angle d leads: cos d x - sin d v.
        let factors = upper.iter().zip(lower).map(|(&upper, &lower)| {
            let d = self.noising.angle(upper) - self.lower_angle(lower);
            if d == 0.0 {
                (0.0, 1.0)
            } else {
                ((1.0 - d.cos()) / d, d.sin() / d)
            }
        });
        let (of_x, of_velocity): (Vec<f32>, Vec<f32>) = factors.unzip();
        Ok(combine_per_sample(&of_x, x, &of_velocity, &velocity))
    }

    /// How the mean velocity changes along `velocity` while the upper level rises.
    fn derivative(&self, x: &Tensor, levels: &Levels, velocity: &Tensor, cond: &UnetCond) -> Result<Tensor> {
        let (step, last, ones) = (self.config.derivative_step, self.noising.last(), vec![1.0; x.dim(0)]);
        let at = |side: &dyn Fn(usize) -> usize| -> Result<(Tensor, Vec<f32>)> {
            let upper: Vec<usize> = levels.upper.iter().map(|&t| side(t)).collect();
            let moved = upper.iter().zip(&levels.upper);
            let angles: Vec<f32> = moved
                .map(|(&to, &from)| self.noising.angle(to) - self.noising.angle(from))
                .collect();
            let x = combine_per_sample(&ones, x, &angles, velocity);
            let lower = levels.lower.clone();
            Ok((self.mean_velocity(&x, &Levels { upper, lower }, cond)?, angles))
        };
        let (above, up) = at(&|t| (t + step).min(last))?;
        let (below, down) = at(&|t| t.saturating_sub(step))?;
        let over: Vec<f32> = up.iter().zip(&down).map(|(up, down)| 1.0 / (up - down)).collect();
        let minus: Vec<f32> = over.iter().map(|x| -x).collect();
        Ok(combine_per_sample(&over, &above, &minus, &below))
    }

    /// The velocity at `x`: the guided teacher's, or that of picture and noise.
    fn velocity(&self, x: &Tensor, upper: &[usize], cond: &UnetCond, [real, noise]: [&Tensor; 2]) -> Result<Tensor> {
        let Some(teacher) = &self.teacher else {
            return Ok(self.noising.velocity(upper, real, noise));
        };
        let guidance = Guidance::new(self.config.guidance_scale, &self.student, &self.data, cond);
        let output = guidance.output(teacher, x, upper, cond)?;
        Ok(self.noising.velocity_of(upper, x, &output))
    }

    /// One for each sample, less where it errs much.
    fn adaptive(&self, answer: &Tensor, target: &Tensor) -> Vec<f32> {
        let each = answer.numel() / answer.dim(0);
        let samples = answer.data().chunks_exact(each).zip(target.data().chunks_exact(each));
        let weight = |(a, b): (&[f32], &[f32])| {
            let squares: f32 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
            (squares / each as f32 + self.config.adaptive_c).powf(-self.config.adaptive_p)
        };
        samples.map(weight).collect()
    }
}

impl Objective for MeanFlow {
    fn name(&self) -> &'static str {
        MeanFlowConfig::NAME
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
        let levels = self.levels(number);
        let noise = noise(data.seed, purpose::NOISE, number, real.shape());
        let x = self.noising.noised(&levels.upper, &real, &noise);
        let target = no_grad(|| {
            let velocity = self.velocity(&x, &levels.upper, &cond, [&real, &noise])?;
            let derivative = self.derivative(&x, &levels, &velocity, &cond)?;
            let angles = levels.upper.iter().zip(&levels.lower);
            let minus: Vec<f32> = angles
                .map(|(&upper, &lower)| self.lower_angle(lower) - self.noising.angle(upper))
                .collect();
            Ok::<_, Error>(combine_per_sample(&vec![1.0; n], &velocity, &minus, &derivative))
        })?;
        let answer = self.mean_velocity(&x, &levels, &cond)?;
        let plain = weighted_mse(&answer.detach(), &target, &vec![1.0; n]).item();
        let total = weighted_mse(&answer, &target, &self.adaptive(&answer, &target));
        Ok(Loss::new(total, vec![("mse", plain)]))
    }

    fn samples(&self) -> Result<Option<Picture>> {
        self.student.draw(SchedulerKind::Lcm, self.config.sample_steps, 1.0)
    }
}
