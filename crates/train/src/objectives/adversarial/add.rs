//! Adversarial diffusion distillation (Sauer et al. 2023, "ADD"): what the student answers is decoded to pixels, and heads on a frozen
//! feature network's maps of it, told the caption and the real picture, tell it from real ones; beside that the frozen teacher says
//! what it would make of it, noised again.
//!
//! Other than in the paper the feature network is EfficientNet-lite0 and the heads are convolutions on its maps; real pictures are
//! decoded from their latents, as the answers are.

use super::game::{self, DISCRIMINATOR, Ladder};
use crate::captions::{TokenRows, conditioning, unconditional};
use crate::config::TrainConfig;
use crate::draws::{check_shares, noise, purpose, uniform};
use crate::error::{Error, Result};
use crate::networks::{self, denoise, feature_network};
use crate::noising::Noising;
use crate::objective::{Batch, Loss, Objective, Player, Turn};
use crate::objectives::discriminator::ConditionedHeads;
use crate::objectives::{Drawn, Guidance, StageConfig, TextLatents, Trainee};
use crate::trained::{self, Painter};
use crate::trainer::LoopConfig;
use prima_models::{EfficientNetLite, Unet2dCondition, UnetCond};
use prima_picture::Picture;
use prima_schedulers::SchedulerKind;
use prima_tensor::{Tensor, add, affine, avg_pool_global, combine_per_sample, no_grad, sub, weighted_mse};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AddConfig {
    #[serde(rename = "loop")]
    training: LoopConfig,
    batch_size: usize,
    /// The timesteps that the student paints from, the noisiest first ...
    timesteps: Vec<usize>,
    /// ... and how often each of them is trained, relative to the others.
    shares: Vec<f32>,
    /// Updates of the discriminator for each of the student, and its learning rate relative to the student's.
    discriminator_updates: usize,
    discriminator_learning_rate: f32,
    /// Weight of the squared gradient of the heads towards what they judge, by finite differences (1e-5 in the paper).
    gradient_penalty: f32,
    /// What the heads are told.
    told: Told,
    /// Weight of the discriminator in the student's loss; at 0 there is none.
    adversarial_weight: f32,
    /// Weight of the distillation beside the discriminator (2.5 in the paper).
    distillation_weight: f32,
    weighting: Weighting,
    /// Between which shares of the noise's timesteps answers are noised again for the teacher.
    renoised: [f32; 2],
    /// The teacher's guidance.
    guidance_scale: f32,
    /// What `nfsd` takes the teacher away from where there is much noise.
    negative_prompt: String,
    /// What the student is at first.
    start: Start,
}

/// The paper's table 1b.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Nothing,
    Caption,
    /// What the feature network sees in the real picture.
    Picture,
    Both,
}

/// The paper's table 1c.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Start {
    Teacher,
    Random,
}

/// How much the teacher's word counts at each noise level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Weighting {
    /// By how much of the picture is left.
    Exponential,
    /// As score distillation weighs it (Poole et al. 2022).
    Sds,
    /// The same, without the noise that is in a teacher's score (Katzir et al. 2023): what the paper's models were trained with.
    Nfsd,
}

impl Default for AddConfig {
    fn default() -> Self {
        Self {
            training: LoopConfig::default(),
            batch_size: 16,
            timesteps: vec![999, 749, 499, 249],
            shares: vec![1.0; 4],
            discriminator_updates: 1,
            discriminator_learning_rate: 2.0,
            gradient_penalty: 1e-5,
            told: Told::Both,
            adversarial_weight: 1.0,
            distillation_weight: 2.5,
            weighting: Weighting::Exponential,
            renoised: [0.02, 0.98],
            guidance_scale: 2.0,
            negative_prompt: "blurry, low quality, out of focus, dull".into(),
            start: Start::Teacher,
        }
    }
}

/// The share of timesteps below which NFSD takes a teacher's word without a prompt for what is wrong with the picture.
const CLEAN_SHARE: f32 = 0.2;

impl AddConfig {
    fn check(&self, noising: &Noising) -> Result<()> {
        noising.check_falling(Self::NAME, &self.timesteps)?;
        check_shares("add.shares", &self.shares, self.timesteps.len())?;
        let [low, high] = self.renoised;
        if !(0.0 < low && low < high && high < 1.0) {
            let message = format!(
                "add.renoised is {:?}, expected two shares between 0 and 1, the lower first",
                self.renoised
            );
            return Err(Error::Config(message));
        }
        if self.discriminator_updates == 0 {
            let message = "add.discriminator_updates is 0, but it has to learn along: give it 1 or more";
            return Err(Error::Config(message.into()));
        }
        let weights = [self.adversarial_weight, self.distillation_weight];
        if weights.iter().any(|weight| *weight < 0.0) || weights.iter().sum::<f32>() == 0.0 {
            let message =
                "add.adversarial_weight and distillation_weight want numbers of at least 0, one of them above";
            return Err(Error::Config(message.into()));
        }
        Ok(())
    }
}

impl StageConfig for AddConfig {
    const NAME: &'static str = "add";
    const ABOUT: &'static str = "Distill the teacher to one to four steps by a discriminator on pictures' features";
    const SHIPS_WITH: Option<SchedulerKind> = Some(SchedulerKind::Lcm);

    fn training(&self) -> &LoopConfig {
        &self.training
    }

    fn objective(self, config: &TrainConfig) -> Result<Box<dyn Objective>> {
        let noising = Noising::for_lcm_students(&config.scheduler()?, Self::NAME)?;
        self.check(&noising)?;
        let (teacher, features) = (trained::teacher_unet(config)?.network, feature_network(config)?);
        let mut painter = Painter::teacher(config)?;
        if self.start == Start::Random {
            painter.unet = networks::unet_at_random(config, config.seed + 16)?;
        }
        let (student, data) = Trainee::starting_as(painter, config, 12)?;
        Ok(Box::new(Add::new(self, student, teacher, features, data, noising)?))
    }
}

/// `student` starts as a copy of `teacher`; the text encoders, the autoencoder and the feature network stay frozen.
pub(crate) struct Add {
    config: AddConfig,
    student: Trainee,
    teacher: Unet2dCondition,
    features: EfficientNetLite,
    heads: ConditionedHeads,
    negative: TokenRows,
    data: TextLatents,
    noising: Noising,
}

impl Add {
    pub(crate) fn new(
        config: AddConfig,
        student: Trainee,
        teacher: Unet2dCondition,
        features: EfficientNetLite,
        data: TextLatents,
        noising: Noising,
    ) -> Result<Self> {
        config.check(&noising)?;
        let negative = TokenRows::of(
            student.text_encoders(),
            &vec![&config.negative_prompt; config.batch_size],
        )?;
        let shown = data.drawn(student.text_encoders(), 0, 1);
        let maps = no_grad(|| Ok::<_, Error>(features.maps(&decoded(&student, &shown.real)?)))?;
        let widths: Vec<usize> = maps.iter().map(|map| map.dim(3)).collect();
        let told = conditions(Told::Both, &shown, &maps).map(|condition| condition.dim(1));
        Ok(Self {
            heads: ConditionedHeads::new(&widths, told, data.seed)?,
            config,
            student,
            teacher,
            features,
            negative,
            data,
            noising,
        })
    }

    /// The student's x0 for batch `number`.
    fn answered(&self, drawn: &Drawn, number: u64) -> Result<Tensor> {
        let ladder = Ladder {
            timesteps: &self.config.timesteps,
            shares: &self.config.shares,
        };
        let answered = ladder.answered(&self.student, &self.noising, drawn, [self.data.seed, number])?;
        Ok(answered.2)
    }

    /// What is seen in the real pictures of `drawn`.
    fn real_maps(&self, drawn: &Drawn) -> Result<Vec<Tensor>> {
        no_grad(|| Ok(self.features.maps(&decoded(&self.student, &drawn.real)?)))
    }

    /// What the guided teacher makes of answers noised again, and how much that counts, a number a sample.
    fn taught(&self, x0: &Tensor, cond: &UnetCond, number: u64) -> Result<(Tensor, Vec<f32>)> {
        let (n, seed) = (self.config.batch_size, self.data.seed);
        let [low, high] = self.config.renoised;
        let last = self.noising.last() as f32;
        let draws = uniform(seed, purpose::TIMESTEP, number, n);
        let timesteps: Vec<usize> = draws
            .iter()
            .map(|u| ((low + (high - low) * u) * last) as usize)
            .collect();
        let noise = noise(seed, purpose::RENOISE, number, x0.shape());
        let x = self.noising.noised(&timesteps, x0, &noise);
        let levels: Vec<(f32, f32)> = timesteps.iter().map(|&t| self.noising.level(Some(t))).collect();
        let score_weight = |&(alpha, sigma): &(f32, f32)| 0.5 * alpha * sigma;
        if self.config.weighting == Weighting::Nfsd {
            let target = self.without_noise(x0, &x, &timesteps, cond)?;
            return Ok((target, levels.iter().map(score_weight).collect()));
        }
        let guidance = Guidance::new(self.config.guidance_scale, &self.student, &self.data, cond);
        let output = guidance.output(&self.teacher, &x, &timesteps, cond)?;
        let weights = levels.iter().map(|level| match self.config.weighting {
            Weighting::Exponential => level.0,
            _ => score_weight(level),
        });
        Ok((self.noising.denoised(&timesteps, &x, &output), weights.collect()))
    }

    /// `x0 - sigma / alpha (d + g c)`: `c` is where the caption leads, `d` what the teacher without one finds wrong, or where it leads
    /// away from the negative prompt.
    fn without_noise(&self, x0: &Tensor, x: &Tensor, timesteps: &[usize], cond: &UnetCond) -> Result<Tensor> {
        let n = timesteps.len();
        let score = |cond: &UnetCond| -> Result<Tensor> {
            let output = denoise(&self.teacher, x, timesteps, cond)?;
            Ok(self.noising.noise_of(timesteps, x, &output))
        };
        let empty = unconditional(self.student.text_encoders(), &self.data.tokens, cond);
        let negative = conditioning(self.student.text_encoders(), &self.negative, cond.time_ids.clone());
        let (with, without, away) = (score(cond)?, score(&empty)?, score(&negative)?);
        let is_clean = |&t: &usize| (t as f32) < CLEAN_SHARE * self.noising.last() as f32;
        let of_away: Vec<f32> = timesteps.iter().map(|t| if is_clean(t) { 0.0 } else { -1.0 }).collect();
        let domain = combine_per_sample(&vec![1.0; n], &without, &of_away, &away);
        let caption = sub(&with, &without);
        let step = add(&domain, &affine(&caption, self.config.guidance_scale, 0.0));
        let ratios = timesteps
            .iter()
            .map(|&t| -self.noising.sigma_of(t))
            .collect::<Vec<f32>>();
        Ok(combine_per_sample(&vec![1.0; n], x0, &ratios, &step))
    }

    fn student_loss(&self, number: u64) -> Result<Loss> {
        let drawn = self
            .data
            .drawn(self.student.text_encoders(), number, self.config.batch_size);
        let x0 = self.answered(&drawn, number)?;
        let painted = decoded(&self.student, &x0)?;
        let distance = || {
            let (target, weights) = no_grad(|| {
                let (target, weights) = self.taught(&x0.detach(), &drawn.cond, number)?;
                Ok::<_, Error>((decoded(&self.student, &target)?, weights))
            })?;
            Ok(weighted_mse(&painted, &target, &weights))
        };
        let weights = [self.config.adversarial_weight, self.config.distillation_weight];
        if weights[0] == 0.0 {
            let distance = distance()?;
            let metrics = vec![("distance", distance.item())];
            return Ok(Loss::new(affine(&distance, weights[1], 0.0), metrics));
        }
        let told = conditions(self.config.told, &drawn, &self.real_maps(&drawn)?);
        let logits = self.heads.logits(&self.features.maps(&painted), &told);
        game::fooling(&logits, weights, distance)
    }

    fn discriminator_loss(&self, number: u64) -> Result<Loss> {
        let drawn = self
            .data
            .drawn(self.student.text_encoders(), number, self.config.batch_size);
        // Only the heads are on the tape.
        let of_fake = no_grad(|| {
            let x0 = self.answered(&drawn, number)?;
            Ok::<_, Error>(self.features.maps(&decoded(&self.student, &x0)?))
        })?;
        let of_real = self.real_maps(&drawn)?;
        let told = conditions(self.config.told, &drawn, &of_real);
        let logits = |maps: &[Tensor]| self.heads.logits(maps, &told);
        let seen = [&of_real[..], &of_fake[..]];
        Ok(game::judging(
            logits,
            seen,
            self.config.gradient_penalty,
            [self.data.seed, number],
        ))
    }
}

/// Pictures `[B, H, W, 3]` in [-1, 1] of latents.
fn decoded(model: &Trainee, latents: &Tensor) -> Result<Tensor> {
    let vae = &model.pipeline().parts().vae;
    Ok(vae.decode(&vae.unscale_latents(latents), &mut || true)?)
}

/// What heads are told: the caption, and what is seen in the real picture; zeros in the place of what they are not.
fn conditions(told: Told, drawn: &Drawn, real: &[Tensor]) -> [Tensor; 2] {
    let text = drawn.cond.text_embeds.clone().unwrap_or_else(|| {
        let hidden = &drawn.cond.encoder_hidden_states;
        avg_pool_global(&hidden.reshape(&[hidden.dim(0), hidden.dim(1), 1, hidden.dim(2)]))
    });
    let picture = real.last().map_or_else(|| text.clone(), avg_pool_global);
    let withheld = |condition: Tensor| Tensor::zeros(condition.shape());
    match told {
        Told::Both => [text, picture],
        Told::Caption => [text, withheld(picture)],
        Told::Picture => [withheld(text), picture],
        Told::Nothing => [withheld(text), withheld(picture)],
    }
}

impl Objective for Add {
    fn name(&self) -> &'static str {
        AddConfig::NAME
    }

    fn players(&self) -> Vec<Player> {
        let (heads, rate) = (&self.heads.params, self.config.discriminator_learning_rate);
        game::players(&self.student, heads, rate, &self.config.training)
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn turns(&mut self, _step: u64, _progress: f32) -> Result<Vec<Turn>> {
        let updates = self.config.discriminator_updates;
        let learns = self.config.adversarial_weight > 0.0;
        Ok(game::turns(if learns { updates } else { 0 }))
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
