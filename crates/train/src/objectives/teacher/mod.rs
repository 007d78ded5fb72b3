//! The diffusion teacher: UNet and text encoders learn what the scheduler's prediction type asks for, at all noise levels.
//! From scratch that is v-prediction under zero terminal SNR, so that the first step from pure noise is well posed.

mod alignment;

use super::timesteps::TimestepSampling;
use super::{StageConfig, TextLatents, Trainee};
use crate::captions::conditioning;
use crate::config::TrainConfig;
use crate::draws::{noise, purpose, uniform};
use crate::error::Result;
use crate::networks::{denoise, denoise_with_blocks};
use crate::noising::Noising;
use crate::objective::{Batch, Loss, Objective, Player};
use crate::trained::{self, Painter};
use crate::trainer::LoopConfig;
use alignment::Alignment;
use prima_picture::{Picture, contact_sheet};
use prima_schedulers::SchedulerKind;
use prima_tensor::{Tensor, add, affine, mul, no_grad, weighted_mse};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TeacherConfig {
    #[serde(rename = "loop")]
    training: LoopConfig,
    batch_size: usize,
    timesteps: TimestepSampling,
    /// Share of captions replaced by the empty prompt, for classifier-free guidance.
    caption_dropout: f32,
    /// Weight of the error where an object is seen, relative to elsewhere, where the data says so.
    object_weight: f32,
    /// What the [`Alignment`] with a feature network counts beside the denoising; 0 does without.
    alignment: f32,
    /// Are they trained too, or the UNet alone?
    pub(crate) trains_text_encoders: bool,
    sample_steps: usize,
    sample_guidance_scale: f32,
}

impl Default for TeacherConfig {
    fn default() -> Self {
        Self {
            training: LoopConfig::default(),
            batch_size: 64,
            timesteps: TimestepSampling::default(),
            caption_dropout: 0.1,
            object_weight: 1.0,
            alignment: 0.0,
            trains_text_encoders: true,
            sample_steps: 8,
            sample_guidance_scale: 2.0,
        }
    }
}

impl StageConfig for TeacherConfig {
    const NAME: &'static str = "teacher";
    const ABOUT: &'static str = "Train the many-step model and its text encoders";
    const SHIPS_WITH: Option<SchedulerKind> = Some(SchedulerKind::Euler);

    fn training(&self) -> &LoopConfig {
        &self.training
    }

    fn objective(self, config: &TrainConfig) -> Result<Box<dyn Objective>> {
        let painter = Painter::fresh(config)?;
        let data = trained::text_latents(config, &painter.texts, config.seed + 4)?;
        let noising = Noising::new(&config.scheduler()?)?;
        Ok(Box::new(Teacher::new(
            self,
            Trainee::new(config, painter)?,
            data,
            noising,
        )?))
    }
}

pub(crate) struct Teacher {
    config: TeacherConfig,
    model: Trainee,
    data: TextLatents,
    noising: Noising,
    alignment: Option<Alignment>,
}

impl Teacher {
    pub(crate) fn new(config: TeacherConfig, model: Trainee, data: TextLatents, noising: Noising) -> Result<Self> {
        let alignment = (config.alignment > 0.0)
            .then(|| Alignment::new(model.unet(), &data.cache, data.seed))
            .transpose()?;
        Ok(Self {
            config,
            model,
            data,
            noising,
            alignment,
        })
    }
}

impl Teacher {
    /// Answer and target, scaled so that their squared distance weighs objects by `object_weight`, one on average.
    fn emphasised(&self, rows: &[usize], output: &Tensor, target: &Tensor) -> (Tensor, Tensor) {
        if self.config.object_weight == 1.0 {
            return (output.clone(), target.clone());
        }
        let more = self.config.object_weight - 1.0;
        let objects = self.data.cache.objects(rows);
        let mean = objects.iter().sum::<f32>() / objects.len() as f32;
        let channels = output.numel() / objects.len();
        let factors: Vec<f32> = objects
            .iter()
            .flat_map(|share| std::iter::repeat_n(((1.0 + more * share) / (1.0 + more * mean)).sqrt(), channels))
            .collect();
        let factors = Tensor::from_vec(factors, output.shape());
        (mul(output, &factors), mul(target, &factors))
    }
}

impl Objective for Teacher {
    fn name(&self) -> &'static str {
        TeacherConfig::NAME
    }

    fn players(&self) -> Vec<Player> {
        let mut params = self.model.unet_params.clone();
        if self.config.trains_text_encoders {
            params.extend(self.model.text_params.clone());
        }
        params.extend(self.alignment.iter().flat_map(|alignment| alignment.params.clone()));
        vec![Player::main("teacher", params, &self.config.training)]
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn loss(&self, batch: Batch) -> Result<Loss> {
        let (data, noising, number, n) = (&self.data, &self.noising, batch.number, self.config.batch_size);
        let rows = data.rows(number, n);
        let x0 = data.cache.batch(&rows);
        let keep = uniform(data.seed, purpose::DROPOUT, number, n)
            .iter()
            .map(|u| f32::from(*u >= self.config.caption_dropout))
            .collect();
        let tokens = data.tokens.rows(&rows, keep);
        let conditioning = || conditioning(self.model.text_encoders(), &tokens, data.cache.time_ids(&rows));
        let cond = if self.config.trains_text_encoders {
            conditioning()
        } else {
            no_grad(conditioning)
        };
        let timesteps = self.config.timesteps.draw(noising, data.seed, number, n);
        let noise = noise(data.seed, purpose::NOISE, number, x0.shape());
        let x = noising.noised(&timesteps, &x0, &noise);
        let target = noising.target(&timesteps, &x0, &noise);
        let (output, aligned) = match &self.alignment {
            None => (denoise(self.model.unet(), &x, &timesteps, &cond)?, None),
            Some(alignment) => {
                let unet = self.model.unet();
                let (output, seen) = denoise_with_blocks(unet, &x, &timesteps, &cond, &[alignment.block])?;
                let features = data.cache.features(&rows);
                let aligned = seen.first().zip(features);
                (output, aligned.map(|(seen, features)| alignment.loss(seen, &features)))
            }
        };
        let (emphasised, wanted) = self.emphasised(&rows, &output, &target);
        let denoising = weighted_mse(&emphasised, &wanted, &vec![1.0; n]);
        let mut metrics = by_noise_level(&output, &target, &timesteps, noising.last());
        let total = match &aligned {
            None => denoising,
            Some(aligned) => {
                metrics.push(("mse_features", aligned.item()));
                add(&denoising, &affine(aligned, self.config.alignment, 0.0))
            }
        };
        Ok(Loss::new(total, metrics))
    }

    fn samples(&self) -> Result<Option<Picture>> {
        let draw = |steps, scale| self.model.draw(SchedulerKind::Euler, steps, scale);
        // What one step can do, above what the teacher is for.
        let (one, many) = (
            draw(1, 1.0)?,
            draw(self.config.sample_steps, self.config.sample_guidance_scale)?,
        );
        Ok(one.zip(many).map(|(one, many)| contact_sheet(&[one, many], 1, 0)))
    }
}

/// Mean squared error at pure noise (what one step can do) and elsewhere.
fn by_noise_level(output: &Tensor, target: &Tensor, timesteps: &[usize], last: usize) -> Vec<(&'static str, f32)> {
    let each = output.numel() / timesteps.len();
    let mut sums = [(0.0f32, 0usize); 2];
    for (i, &t) in timesteps.iter().enumerate() {
        let range = i * each..(i + 1) * each;
        let squares: f32 = output.data()[range.clone()]
            .iter()
            .zip(&target.data()[range])
            .map(|(a, b)| (a - b).powi(2))
            .sum();
        let (sum, count) = &mut sums[usize::from(t < last)];
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
