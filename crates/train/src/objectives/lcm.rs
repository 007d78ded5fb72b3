//! Latent consistency distillation (Luo et al. 2023): the student's answer at a noise level
//! equals its average's answer one DDIM step of the guided teacher further down. A constant guidance scale
//! (Chen et al. 2024 found it better than an embedding), few segments, and half of the samples
//! at pure noise, where one-step sampling starts (Chen et al. 2025, SANA-Sprint).

use super::{SamplePrompts, TextLatents};
use crate::config::DistillStage;
use crate::error::Result;
use crate::networks::{Component, NamedParams, TextEncoders, denoise};
use crate::noise_schedule::NoiseSchedule;
use crate::sampling::{Sampler, guided, noise, purpose, split_v, uniform};
use crate::trainer::{Loss, Objective};
use image::RgbImage;
use prima_models::{Unet2dCondition, UnetCond};
use prima_tensor::{Param, Tensor, combine_per_sample, ema_update, no_grad, weighted_pseudo_huber};

pub struct ConsistencyDistillation {
    student: Component<Unet2dCondition>,
    /// A slow average of the student, which answers for the target.
    target: Component<Unet2dCondition>,
    teacher: Unet2dCondition,
    text: TextEncoders,
    params: NamedParams,
    data: TextLatents,
    prompts: SamplePrompts,
    config: DistillStage,
    schedule: NoiseSchedule,
    /// Descending.
    ladder: Vec<usize>,
}

impl ConsistencyDistillation {
    /// `ladder`: the timesteps of [`TrainConfig::distill_timesteps`](crate::TrainConfig::distill_timesteps).
    /// `student` and `target` start as copies of `teacher`; the text encoders stay frozen.
    pub fn new(
        student: Component<Unet2dCondition>,
        target: Component<Unet2dCondition>,
        teacher: Unet2dCondition,
        text: TextEncoders,
        data: TextLatents,
        prompts: SamplePrompts,
        config: DistillStage,
        ladder: Vec<usize>,
    ) -> Self {
        let params = crate::networks::prefixed("unet", &student.params);
        Self {
            student,
            target,
            teacher,
            text,
            params,
            data,
            prompts,
            config,
            schedule: NoiseSchedule::default(),
            ladder,
        }
    }

    /// Rungs of the ladder: 0 (the noisiest) for `max_noise_share`, uniform for the rest.
    fn rungs(&self, step: u64, n: usize) -> Vec<usize> {
        let draws = uniform(self.data.seed, purpose::TIMESTEP, step, 2 * n);
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
        let v = guided(&self.teacher, x, &timesteps, cond, self.config.guidance_scale)?;
        let (x0, eps) = split_v(&self.schedule, &timesteps, x, &v);
        // Rungs below the last are timestep 0, where the answer is the input itself.
        let next: Vec<usize> = rungs
            .iter()
            .map(|&r| self.ladder.get(r + 1).copied().unwrap_or(0))
            .collect();
        let (alpha, sigma) = self.schedule.coefficients(&next);
        let lower = combine_per_sample(&alpha, &x0, &sigma, &eps);
        let answer = self.answer(&self.target.network, &lower, &next, cond)?;
        let is_last: Vec<f32> = next.iter().map(|&t| f32::from(t == 0)).collect();
        let is_not: Vec<f32> = is_last.iter().map(|l| 1.0 - l).collect();
        Ok(combine_per_sample(&is_last, &x0, &is_not, &answer))
    }

    /// The x0 of one network.
    fn answer(&self, unet: &Unet2dCondition, x: &Tensor, timesteps: &[usize], cond: &UnetCond) -> Result<Tensor> {
        let v = denoise(unet, x, timesteps, cond)?;
        Ok(split_v(&self.schedule, timesteps, x, &v).0)
    }
}

impl Objective for ConsistencyDistillation {
    fn name(&self) -> &'static str {
        "distill"
    }

    fn params(&self) -> &[(String, Param)] {
        &self.params
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn loss(&self, step: u64, _progress: f32) -> Result<Loss> {
        let (data, n) = (&self.data, self.config.batch_size);
        let rows = data.rows(step, n);
        let x0 = data.cache.batch(&rows);
        let ids = data.tokens.rows(&rows);
        let cond = no_grad(|| self.text.encode(&ids, &vec![1.0; n], self.prompts.size_px));
        let rungs = self.rungs(step, n);
        let timesteps: Vec<usize> = rungs.iter().map(|&r| self.ladder[r]).collect();
        let (alpha, sigma) = self.schedule.coefficients(&timesteps);
        let x = combine_per_sample(&alpha, &x0, &sigma, &noise(data.seed, purpose::NOISE, step, x0.shape()));
        let target = no_grad(|| self.target(&x, &rungs, &cond))?;
        let answer = self.answer(&self.student.network, &x, &timesteps, &cond)?;
        let total = weighted_pseudo_huber(&answer, &target, &vec![1.0; n], self.config.huber_c);
        Ok(Loss {
            total,
            metrics: Vec::new(),
        })
    }

    /// Moves the target network towards the student.
    fn updated(&mut self) {
        let decay = self.config.target_decay;
        for ((_, slow), (_, fast)) in self.target.params.iter().zip(&self.student.params) {
            let fast = fast.tensor();
            slow.change(|slow| ema_update(slow, &fast, decay));
        }
    }

    fn samples(&self) -> Result<Option<RgbImage>> {
        self.prompts.draw(
            &self.student.network,
            &self.text,
            self.config.sample_steps,
            1.0,
            Sampler::Lcm,
        )
    }
}
