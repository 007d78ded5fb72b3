//! The diffusion teacher: UNet and both text encoders from scratch, v-prediction under the
//! zero-terminal-SNR schedule, so that its first step from pure noise is well posed.

use super::{SamplePrompts, TextLatents};
use crate::config::{TeacherStage, TimestepSampling};
use crate::error::Result;
use crate::networks::{Component, NamedParams, TextEncoders, denoise, prefixed};
use crate::noise_schedule::{NUM_TRAIN_TIMESTEPS, NoiseSchedule};
use crate::sampling::{Sampler, noise, purpose, uniform};
use crate::trainer::{Loss, Objective};
use image::RgbImage;
use prima_models::Unet2dCondition;
use prima_tensor::{Param, Philox, Tensor, combine_per_sample, weighted_mse};

pub struct Teacher {
    unet: Component<Unet2dCondition>,
    text: TextEncoders,
    params: NamedParams,
    data: TextLatents,
    prompts: SamplePrompts,
    config: TeacherStage,
    schedule: NoiseSchedule,
}

impl Teacher {
    pub fn new(
        unet: Component<Unet2dCondition>,
        text: TextEncoders,
        data: TextLatents,
        prompts: SamplePrompts,
        config: TeacherStage,
    ) -> Self {
        let params = network_params(&unet, &text);
        Self {
            unet,
            text,
            params,
            data,
            prompts,
            config,
            schedule: NoiseSchedule::default(),
        }
    }
}

/// The parameters of all three networks, by component.
pub fn network_params(unet: &Component<Unet2dCondition>, text: &TextEncoders) -> NamedParams {
    let mut params = prefixed("unet", &unet.params);
    params.extend(prefixed("text_encoder", &text.first.params));
    params.extend(prefixed("text_encoder_2", &text.second.params));
    params
}

impl Objective for Teacher {
    fn name(&self) -> &'static str {
        "teacher"
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
        let keep: Vec<f32> = uniform(data.seed, purpose::DROPOUT, step, n)
            .iter()
            .map(|u| f32::from(*u >= self.config.caption_dropout))
            .collect();
        let cond = self.text.encode(&data.tokens.rows(&rows), &keep, self.prompts.size_px);
        let timesteps = draw_timesteps(&self.config.timesteps, &self.schedule, data.seed, step, n);
        let eps = noise(data.seed, purpose::NOISE, step, x0.shape());
        let (alpha, sigma) = self.schedule.coefficients(&timesteps);
        let minus: Vec<f32> = sigma.iter().map(|s| -s).collect();
        let x = combine_per_sample(&alpha, &x0, &sigma, &eps);
        let v = combine_per_sample(&alpha, &eps, &minus, &x0);
        let output = denoise(&self.unet.network, &x, &timesteps, &cond)?;
        let total = weighted_mse(&output, &v, &vec![1.0; n]);
        let metrics = by_noise_level(&output, &v, &timesteps);
        Ok(Loss { total, metrics })
    }

    fn samples(&self) -> Result<Option<RgbImage>> {
        let draw = |steps, scale| {
            self.prompts
                .draw(&self.unet.network, &self.text, steps, scale, Sampler::Ddim)
        };
        // What one step can do, above what the teacher is for.
        let (Some(one), Some(many)) = (
            draw(1, 1.0)?,
            draw(self.config.sample_steps, self.config.sample_guidance_scale)?,
        ) else {
            return Ok(None);
        };
        let mut both = RgbImage::new(one.width(), one.height() + many.height());
        image::imageops::replace(&mut both, &one, 0, 0);
        image::imageops::replace(&mut both, &many, 0, i64::from(one.height()));
        Ok(Some(both))
    }
}

/// The last timestep for `max_noise_share` of the batch, a log-normal noise level for the rest.
pub fn draw_timesteps(
    config: &TimestepSampling,
    schedule: &NoiseSchedule,
    seed: u64,
    step: u64,
    n: usize,
) -> Vec<usize> {
    let share = uniform(seed, purpose::TIMESTEP, step, n);
    let normal = Philox {
        seed,
        image: 1,
        purpose: purpose::TIMESTEP,
        step: step as u32,
    }
    .normal(n);
    share
        .iter()
        .zip(normal)
        .map(|(u, z)| {
            if *u < config.max_noise_share {
                NUM_TRAIN_TIMESTEPS - 1
            } else {
                schedule.timestep_of(config.log_sigma_mean + config.log_sigma_std * z)
            }
        })
        .collect()
}

/// Mean squared error at pure noise (what one step can do) and elsewhere.
fn by_noise_level(output: &Tensor, target: &Tensor, timesteps: &[usize]) -> Vec<(&'static str, f32)> {
    let each = output.numel() / timesteps.len();
    let mut sums = [(0.0f32, 0usize); 2];
    for (i, &t) in timesteps.iter().enumerate() {
        let range = i * each..(i + 1) * each;
        let squares: f32 = output.data()[range.clone()]
            .iter()
            .zip(&target.data()[range])
            .map(|(a, b)| (a - b).powi(2))
            .sum();
        let (sum, count) = &mut sums[usize::from(t < NUM_TRAIN_TIMESTEPS - 1)];
        *sum += squares / each as f32;
        *count += 1;
    }
    ["mse_pure_noise", "mse_other"]
        .into_iter()
        .zip(sums)
        .filter(|(_, (_, count))| *count > 0)
        .map(|(name, (sum, count))| (name, sum / count as f32))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timesteps_have_the_share_of_pure_noise_asked_for() {
        let config = TimestepSampling {
            max_noise_share: 0.5,
            log_sigma_mean: 0.0,
            log_sigma_std: 1.0,
        };
        let schedule = NoiseSchedule::default();
        let t = draw_timesteps(&config, &schedule, 3, 9, 4000);
        let share = t.iter().filter(|t| **t == 999).count() as f32 / 4000.0;
        assert!((share - 0.5).abs() < 0.03, "{share}");
        let mut rest: Vec<f32> = t
            .iter()
            .filter(|t| **t < 999)
            .map(|&t| (schedule.sigma[t] / schedule.alpha[t]).ln())
            .collect();
        rest.sort_by(f32::total_cmp);
        assert!(rest[rest.len() / 2].abs() < 0.1, "median {}", rest[rest.len() / 2]);
        assert_eq!(t, draw_timesteps(&config, &schedule, 3, 9, 4000));
    }
}
