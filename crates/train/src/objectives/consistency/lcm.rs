//! Latent consistency distillation (Luo et al. 2023): the student's answer at a noise level
//! equals its average's answer one DDIM step of the guided teacher further down. A constant guidance scale
//! (Chen et al. 2024 found it better than an embedding) unless a range is asked for, of which the student is told in an
//! embedding, as the paper's; few segments, and half of the samples at pure noise, where one-step sampling starts (Chen et al.
//! 2025, SANA-Sprint).

use super::LcmLoraConfig;
use crate::config::TrainConfig;
use crate::draws::{noise, purpose, uniform};
use crate::error::{Error, Result};
use crate::networks::{denoise, with_guidance_input};
use crate::noising::{Noising, trailing};
use crate::objective::{Batch, Loss, Objective, Player};
use crate::objectives::lora::LoraParams;
use crate::objectives::{Drawn, Guidance, StageConfig, TextLatents, Trainee};
use crate::params::{Component, NamedParams, prefixed};
use crate::trained::{self, Painter};
use crate::trainer::LoopConfig;
use prima_models::{Unet2dCondition, UnetCond, guidance_scale_embedding};
use prima_picture::Picture;
use prima_schedulers::SchedulerKind;
use prima_tensor::{Tensor, combine_per_sample, ema_update, no_grad, weighted_pseudo_huber};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LcmConfig {
    #[serde(rename = "loop")]
    pub(super) training: LoopConfig,
    batch_size: usize,
    /// The teacher's guidance, baked into the student.
    guidance_scale: f32,
    /// Least and largest instead: each sample is guided by one between them, which the student is told in an input of its own
    /// and which its user chooses (2 and 14 in the LCM paper, counted as here).
    pub(crate) guidance_scales: Option<[f32; 2]>,
    /// How wide that input is (`time_cond_proj_dim`).
    guidance_embedding_dim: usize,
    /// Number of segments of the noise schedule (50 in the LCM paper; fewer converge sooner).
    ddim_steps: usize,
    /// The timesteps that bound the segments instead, from the noisiest down: those that the teacher is sampled with.
    timesteps: Option<Vec<usize>>,
    max_noise_share: f32,
    /// Decay of the average of the student that answers for the target (0.95 in the LCM paper).
    target_decay: f32,
    /// Constant of the pseudo-Huber loss.
    huber_c: f32,
    sample_steps: usize,
}

impl Default for LcmConfig {
    fn default() -> Self {
        Self {
            training: LoopConfig::default(),
            batch_size: 48,
            guidance_scale: 2.0,
            guidance_scales: None,
            guidance_embedding_dim: 256,
            ddim_steps: 10,
            timesteps: None,
            max_noise_share: 0.5,
            target_decay: 0.95,
            huber_c: 0.1,
            sample_steps: 1,
        }
    }
}

impl LcmConfig {
    /// Width of the student's input for the guidance scale, where it has one.
    pub(crate) fn guidance_input(&self) -> Option<usize> {
        self.guidance_scales.map(|_| self.guidance_embedding_dim)
    }

    /// For students whose weights stay the teacher's.
    pub(super) fn check_has_no_guidance_input(&self, stage: &str) -> Result<()> {
        if self.guidance_scales.is_some() {
            let message = format!(
                "{stage} has no lcm.guidance_scales: a LoRA gives the network no new input, use guidance_scale"
            );
            return Err(Error::Config(message));
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let [least, largest] = self.guidance_scales.unwrap_or([1.0; 2]);
        if !(least >= 1.0 && least <= largest && largest.is_finite()) || self.guidance_embedding_dim < 4 {
            let message = "lcm.guidance_scales wants two numbers of at least 1, the lesser first, and guidance_embedding_dim at least 4";
            return Err(Error::Config(message.into()));
        }
        Ok(())
    }

    /// The timesteps of the consistency targets, from the noisiest down.
    pub(super) fn ladder(&self, config: &TrainConfig, noising: &Noising) -> Result<Vec<usize>> {
        let timesteps = match &self.timesteps {
            Some(timesteps) => timesteps.clone(),
            None => trailing(&config.scheduler()?, self.ddim_steps)?,
        };
        noising.check_falling(Self::NAME, &timesteps)?;
        Ok(timesteps)
    }
}

impl StageConfig for LcmConfig {
    const NAME: &'static str = "lcm";
    const OLD_NAME: Option<&'static str> = Some("distill");
    const ABOUT: &'static str = "Distill the teacher to one to four steps by latent consistency";
    const SHIPS_WITH: Option<SchedulerKind> = Some(SchedulerKind::Lcm);

    fn training(&self) -> &LoopConfig {
        &self.training
    }

    fn objective(self, config: &TrainConfig) -> Result<Box<dyn Objective>> {
        self.check()?;
        let (mut painter, mut target) = (Painter::teacher(config)?, trained::teacher_unet(config)?);
        if let Some(dim) = self.guidance_input() {
            painter = painter.with_guidance_input(dim)?;
            target = with_guidance_input(target, dim)?;
        }
        let learns = Learns::Whole {
            target: Box::new(target),
            teacher: Box::new(trained::teacher_unet(config)?.network),
        };
        let (student, data) = Trainee::starting_as(painter, config, STREAM)?;
        let noising = Noising::for_lcm_students(&config.scheduler()?, Self::NAME)?;
        let ladder = self.ladder(config, &noising)?;
        Ok(Box::new(Lcm {
            config: self,
            student,
            learns,
            data,
            noising,
            ladder,
        }))
    }
}

/// Tells the batches of this from those of other stages.
pub(super) const STREAM: u64 = 5;

/// What of the student is trained, and what it is compared with: a slow average of itself, and the teacher. All start alike.
pub(crate) enum Learns {
    /// All weights.
    Whole {
        target: Box<Component<Unet2dCondition>>,
        teacher: Box<Unet2dCondition>,
    },
    /// A LoRA beside the weights, which stay the teacher's.
    Lora { student: LoraParams, target: LoraParams },
}

/// The text encoders stay frozen.
pub(crate) struct Lcm {
    pub(crate) config: LcmConfig,
    pub(crate) student: Trainee,
    pub(crate) learns: Learns,
    pub(crate) data: TextLatents,
    pub(crate) noising: Noising,
    /// Descending timesteps.
    pub(crate) ladder: Vec<usize>,
}

impl Lcm {
    /// Rungs of the ladder: 0 (the noisiest) for `max_noise_share`, uniform for the rest.
    fn rungs(&self, number: u64, n: usize) -> Vec<usize> {
        let draws = uniform(self.data.seed, purpose::TIMESTEP, number, 2 * n);
        draws
            .chunks_exact(2)
            .map(|u| {
                if u[0] < self.config.max_noise_share {
                    0
                } else {
                    (u[1] * self.ladder.len() as f32) as usize
                }
            })
            .map(|rung| rung.min(self.ladder.len() - 1))
            .collect()
    }

    /// The guidance scale of each sample, where the student is told it.
    fn scales(&self, number: u64, n: usize) -> Option<Vec<f32>> {
        let [least, largest] = self.config.guidance_scales?;
        let draws = uniform(self.data.seed, purpose::GUIDANCE, number, n);
        Some(draws.iter().map(|u| least + (largest - least) * u).collect())
    }

    /// The consistency target: the average's x0 one teacher step down the ladder, or the teacher's own x0 from the lowest rung.
    /// `cond` is the student's.
    fn target(&self, x: &Tensor, rungs: &[usize], cond: &UnetCond, scales: Option<Vec<f32>>) -> Result<Tensor> {
        let timesteps: Vec<usize> = rungs.iter().map(|&r| self.ladder[r]).collect();
        let of_teacher = UnetCond {
            timestep_cond: None,
            ..cond.clone()
        };
        let guidance = match scales {
            None => Guidance::new(self.config.guidance_scale, &self.student, &self.data, cond),
            Some(scales) => Guidance::of_each(scales, &self.student, &self.data, cond),
        };
        let teacher = match &self.learns {
            Learns::Whole { teacher, .. } => teacher,
            Learns::Lora { .. } => self.student.unet(),
        };
        let output = guidance.output(teacher, x, &timesteps, &of_teacher)?;
        let x0 = self.noising.denoised(&timesteps, x, &output);
        let noise = self.noising.noise_of(&timesteps, x, &output);
        // Rungs below the last are timestep 0, where the answer is the input itself.
        let next: Vec<usize> = rungs
            .iter()
            .map(|&r| self.ladder.get(r + 1).copied().unwrap_or(0))
            .collect();
        let lower = self.noising.noised(&next, &x0, &noise);
        let answer = match &self.learns {
            Learns::Whole { target, .. } => self.answer(&target.network, &lower, &next, cond),
            Learns::Lora { target, .. } => {
                let answer = || self.answer(self.student.unet(), &lower, &next, cond);
                target.adapters.within(answer)
            }
        }?;
        let is_last: Vec<f32> = next.iter().map(|&t| f32::from(t == 0)).collect();
        let is_not: Vec<f32> = is_last.iter().map(|l| 1.0 - l).collect();
        Ok(combine_per_sample(&is_last, &x0, &is_not, &answer))
    }

    /// The student's x0, on the tape.
    fn answer_of_student(&self, x: &Tensor, timesteps: &[usize], cond: &UnetCond) -> Result<Tensor> {
        self.as_student(|| self.answer(self.student.unet(), x, timesteps, cond))
    }

    /// `f` with the student's LoRA, where it has one.
    fn as_student<T>(&self, f: impl FnOnce() -> T) -> T {
        match &self.learns {
            Learns::Whole { .. } => f(),
            Learns::Lora { student, .. } => student.adapters.within(f),
        }
    }

    /// What is trained, and its slow average, in the same order.
    fn params(&self) -> [&NamedParams; 2] {
        match &self.learns {
            Learns::Whole { target, .. } => [&self.student.unet_params, &target.params],
            Learns::Lora { student, target } => [&student.params, &target.params],
        }
    }

    /// The x0 of one network.
    fn answer(&self, unet: &Unet2dCondition, x: &Tensor, timesteps: &[usize], cond: &UnetCond) -> Result<Tensor> {
        let output = denoise(unet, x, timesteps, cond)?;
        Ok(self.noising.denoised(timesteps, x, &output))
    }
}

impl Objective for Lcm {
    fn name(&self) -> &'static str {
        match self.learns {
            Learns::Whole { .. } => LcmConfig::NAME,
            Learns::Lora { .. } => LcmLoraConfig::NAME,
        }
    }

    fn players(&self) -> Vec<Player> {
        let [student, _] = self.params();
        vec![Player::main("student", student.clone(), &self.config.training)]
    }

    fn buffers(&self) -> NamedParams {
        prefixed("target", self.params()[1])
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn loss(&self, batch: Batch) -> Result<Loss> {
        let (data, number, n) = (&self.data, batch.number, self.config.batch_size);
        let Drawn { real: x0, mut cond } = data.drawn(self.student.text_encoders(), number, n);
        let scales = self.scales(number, n);
        let told = scales.as_deref().zip(self.config.guidance_input());
        cond.timestep_cond = told.map(|(scales, dim)| guidance_scale_embedding(scales, dim));
        let rungs = self.rungs(number, n);
        let timesteps: Vec<usize> = rungs.iter().map(|&r| self.ladder[r]).collect();
        let noise = noise(data.seed, purpose::NOISE, number, x0.shape());
        let x = self.noising.noised(&timesteps, &x0, &noise);
        let target = no_grad(|| self.target(&x, &rungs, &cond, scales))?;
        let answer = self.answer_of_student(&x, &timesteps, &cond)?;
        let total = weighted_pseudo_huber(&answer, &target, &vec![1.0; n], self.config.huber_c);
        Ok(Loss::new(total, Vec::new()))
    }

    /// Moves the target network towards the student.
    fn updated(&mut self, _player: usize, _observed: &[f32]) {
        let decay = self.config.target_decay;
        let [student, target] = self.params();
        for ((_, slow), (_, fast)) in target.iter().zip(student) {
            let fast = fast.tensor();
            slow.change(|slow| ema_update(slow, &fast, decay));
        }
    }

    fn samples(&self) -> Result<Option<Picture>> {
        let [least, largest] = self.config.guidance_scales.unwrap_or([1.0; 2]);
        let scale = f32::midpoint(least, largest);
        self.as_student(|| self.student.draw(SchedulerKind::Lcm, self.config.sample_steps, scale))
    }
}
