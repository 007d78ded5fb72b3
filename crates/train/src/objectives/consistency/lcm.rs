//! Latent consistency distillation (Luo et al. 2023): the student's answer at a noise level
//! equals its average's answer one DDIM step of the guided teacher further down. A constant guidance scale
//! (Chen et al. 2024 found it better than an embedding), few segments, and half of the samples
//! at pure noise, where one-step sampling starts (Chen et al. 2025, SANA-Sprint).

use crate::config::TrainConfig;
use crate::draws::{noise, purpose, uniform};
use crate::error::Result;
use crate::networks::denoise;
use crate::noising::{Noising, trailing};
use crate::objective::{Batch, Loss, Objective, Player};
use crate::objectives::{Drawn, Guidance, StageConfig, TextLatents, Trainee};
use crate::params::{Component, NamedParams, prefixed};
use crate::trained;
use crate::trainer::LoopConfig;
use prima_models::{Unet2dCondition, UnetCond};
use prima_picture::Picture;
use prima_schedulers::SchedulerKind;
use prima_tensor::{Tensor, combine_per_sample, ema_update, no_grad, weighted_pseudo_huber};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LcmConfig {
    #[serde(rename = "loop")]
    training: LoopConfig,
    batch_size: usize,
    /// The teacher's guidance, baked into the student.
    guidance_scale: f32,
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
    /// The timesteps of the consistency targets, from the noisiest down.
    fn ladder(&self, config: &TrainConfig, noising: &Noising) -> Result<Vec<usize>> {
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
        let [target, teacher] = [trained::teacher_unet(config)?, trained::teacher_unet(config)?];
        let (student, data) = Trainee::student(config, 5)?;
        let noising = Noising::for_lcm_students(&config.scheduler()?, Self::NAME)?;
        let ladder = self.ladder(config, &noising)?;
        let teacher = teacher.network;
        Ok(Box::new(Lcm {
            config: self,
            student,
            target,
            teacher,
            data,
            noising,
            ladder,
        }))
    }
}

/// `student` and `target` start as copies of `teacher`; the text encoders stay frozen.
pub(crate) struct Lcm {
    pub(crate) config: LcmConfig,
    pub(crate) student: Trainee,
    /// A slow average of the student, which answers for the target.
    pub(crate) target: Component<Unet2dCondition>,
    pub(crate) teacher: Unet2dCondition,
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

    /// The consistency target: the average's x0 one teacher step down the ladder, or the
    /// teacher's own x0 from the lowest rung.
    fn target(&self, x: &Tensor, rungs: &[usize], cond: &UnetCond) -> Result<Tensor> {
        let timesteps: Vec<usize> = rungs.iter().map(|&r| self.ladder[r]).collect();
        let guidance = Guidance::new(self.config.guidance_scale, &self.student, &self.data, cond);
        let output = guidance.output(&self.teacher, x, &timesteps, cond)?;
        let x0 = self.noising.denoised(&timesteps, x, &output);
        let noise = self.noising.noise_of(&timesteps, x, &output);
        // Rungs below the last are timestep 0, where the answer is the input itself.
        let next: Vec<usize> = rungs
            .iter()
            .map(|&r| self.ladder.get(r + 1).copied().unwrap_or(0))
            .collect();
        let lower = self.noising.noised(&next, &x0, &noise);
        let answer = self.answer(&self.target.network, &lower, &next, cond)?;
        let is_last: Vec<f32> = next.iter().map(|&t| f32::from(t == 0)).collect();
        let is_not: Vec<f32> = is_last.iter().map(|l| 1.0 - l).collect();
        Ok(combine_per_sample(&is_last, &x0, &is_not, &answer))
    }

    /// The x0 of one network.
    fn answer(&self, unet: &Unet2dCondition, x: &Tensor, timesteps: &[usize], cond: &UnetCond) -> Result<Tensor> {
        let output = denoise(unet, x, timesteps, cond)?;
        Ok(self.noising.denoised(timesteps, x, &output))
    }
}

impl Objective for Lcm {
    fn name(&self) -> &'static str {
        LcmConfig::NAME
    }

    fn players(&self) -> Vec<Player> {
        vec![Player::main(
            "student",
            self.student.unet_params.clone(),
            &self.config.training,
        )]
    }

    fn buffers(&self) -> NamedParams {
        prefixed("target", &self.target.params)
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn loss(&self, batch: Batch) -> Result<Loss> {
        let (data, number, n) = (&self.data, batch.number, self.config.batch_size);
        let Drawn { real: x0, cond } = data.drawn(self.student.text_encoders(), number, n);
        let rungs = self.rungs(number, n);
        let timesteps: Vec<usize> = rungs.iter().map(|&r| self.ladder[r]).collect();
        let noise = noise(data.seed, purpose::NOISE, number, x0.shape());
        let x = self.noising.noised(&timesteps, &x0, &noise);
        let target = no_grad(|| self.target(&x, &rungs, &cond))?;
        let answer = self.answer(self.student.unet(), &x, &timesteps, &cond)?;
        let total = weighted_pseudo_huber(&answer, &target, &vec![1.0; n], self.config.huber_c);
        Ok(Loss::new(total, Vec::new()))
    }

    /// Moves the target network towards the student.
    fn updated(&mut self, _player: usize, _observed: &[f32]) {
        let decay = self.config.target_decay;
        for ((_, slow), (_, fast)) in self.target.params.iter().zip(&self.student.unet_params) {
            let fast = fast.tensor();
            slow.change(|slow| ema_update(slow, &fast, decay));
        }
    }

    fn samples(&self) -> Result<Option<Picture>> {
        self.student.draw(SchedulerKind::Lcm, self.config.sample_steps, 1.0)
    }
}
