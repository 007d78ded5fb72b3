//! Improved distribution matching distillation (Yin et al. 2024, "DMD2"): the student's pictures are noised again, and moved
//! from where a denoiser of its own pictures (the fake score, which learns along) takes them to where the guided teacher does.
//! A discriminator on the fake score's middle block, that sees real latents too, adds what the teacher does not know. Several
//! steps are trained on what the student itself makes of the steps before (backward simulation).

use super::{PaintingStudent, check_renoised};
use crate::config::TrainConfig;
use crate::draws::{noise, purpose, uniform};
use crate::error::{Error, Result};
use crate::networks::{denoise, denoise_with_blocks};
use crate::noising::Noising;
use crate::objective::{Batch, Loss, Objective, Player, Turn};
use crate::objectives::discriminator::{Heads, mean_softplus};
use crate::objectives::{Drawn, Guidance, StageConfig, TextLatents, Trainee};
use crate::params::{Component, prefixed};
use crate::trained;
use crate::trainer::LoopConfig;
use prima_models::{Unet2dCondition, UnetBlock, UnetCond};
use prima_picture::Picture;
use prima_schedulers::SchedulerKind;
use prima_tensor::{Tensor, add, affine, combine_per_sample, no_grad, weighted_mse};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Dmd2Config {
    #[serde(rename = "loop")]
    training: LoopConfig,
    batch_size: usize,
    /// The teacher's guidance, baked into the student.
    guidance_scale: f32,
    /// The timesteps that the student paints from, the noisiest first: one for one step.
    timesteps: Vec<usize>,
    /// Updates of the fake score for each of the student.
    fake_updates: usize,
    /// Its learning rate, relative to the student's.
    fake_learning_rate: f32,
    /// Timesteps to which pictures are noised again, as shares of all.
    renoised: [f32; 2],
    /// What the discriminator's judgement counts for the student; 0 does without a discriminator.
    gan_weight: f32,
    /// What telling real from painted counts beside denoising for the fake score.
    discriminator_weight: f32,
    /// How the distributions are compared.
    divergence: Divergence,
}

/// What is made least between the student's distribution and the teacher's (Xu et al. 2025, "f-distill"), by how much likelier
/// the discriminator finds a picture real than painted: all but the first cover more of what the teacher paints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Divergence {
    /// As in DMD2: all pictures count alike.
    ReverseKl,
    ForwardKl,
    JensenShannon,
    SquaredHellinger,
}

impl Divergence {
    /// What a picture counts whose `ratio` is real over painted.
    fn weight(self, ratio: f32) -> f32 {
        match self {
            Self::ReverseKl => 1.0,
            Self::ForwardKl => ratio,
            Self::JensenShannon => ratio / (1.0 + ratio),
            Self::SquaredHellinger => ratio.sqrt(),
        }
    }

    /// Of each sample, one on average, from the discriminator's logits `[B, 1]`.
    fn weights(self, logits: &Tensor) -> Vec<f32> {
        let ratio = |logit: &f32| logit.clamp(-10.0, 10.0).exp().clamp(0.1, 20.0);
        let weights: Vec<f32> = logits.data().iter().map(|logit| self.weight(ratio(logit))).collect();
        let mean = weights.iter().sum::<f32>() / weights.len() as f32;
        weights.iter().map(|weight| weight / mean).collect()
    }
}

impl Default for Dmd2Config {
    fn default() -> Self {
        Self {
            training: LoopConfig::default(),
            batch_size: 24,
            guidance_scale: 2.0,
            timesteps: vec![999],
            fake_updates: 5,
            fake_learning_rate: 1.0,
            renoised: [0.02, 0.98],
            gan_weight: 3e-3,
            discriminator_weight: 1e-2,
            divergence: Divergence::ReverseKl,
        }
    }
}

impl Dmd2Config {
    fn check(&self, noising: &Noising) -> Result<()> {
        noising.check_falling(Self::NAME, &self.timesteps)?;
        check_renoised(Self::NAME, self.renoised)?;
        if self.divergence != Divergence::ReverseKl && self.gan_weight <= 0.0 {
            let message =
                "dmd2.divergence asks the discriminator, but dmd2.gan_weight is 0: set it above 0, or take reverse_kl";
            return Err(Error::Config(message.into()));
        }
        if self.fake_updates == 0 {
            let message = "dmd2.fake_updates is 0, but the fake score has to learn along: give it 1 or more";
            return Err(Error::Config(message.into()));
        }
        Ok(())
    }
}

impl StageConfig for Dmd2Config {
    const NAME: &'static str = "dmd2";
    const ABOUT: &'static str = "Distill the teacher to one to four steps by distribution matching";
    const SHIPS_WITH: Option<SchedulerKind> = Some(SchedulerKind::Lcm);

    fn training(&self) -> &LoopConfig {
        &self.training
    }

    fn objective(self, config: &TrainConfig) -> Result<Box<dyn Objective>> {
        let noising = Noising::for_lcm_students(&config.scheduler()?, Self::NAME)?;
        let [fake, teacher] = [trained::teacher_unet(config)?, trained::teacher_unet(config)?];
        let (student, data) = Trainee::student(config, 6)?;
        Ok(Box::new(Dmd2::new(
            self,
            student,
            fake,
            teacher.network,
            data,
            noising,
        )?))
    }
}

const STUDENT: usize = 0;
const FAKE: usize = 1;

/// `student` and `fake` start as copies of `teacher`; the text encoders stay frozen.
pub(crate) struct Dmd2 {
    config: Dmd2Config,
    student: Trainee,
    /// Denoises what the student paints, and with the head tells it from what is real.
    fake: Component<Unet2dCondition>,
    heads: Heads,
    teacher: Unet2dCondition,
    data: TextLatents,
    noising: Noising,
}

impl Dmd2 {
    pub(crate) fn new(
        config: Dmd2Config,
        student: Trainee,
        fake: Component<Unet2dCondition>,
        teacher: Unet2dCondition,
        data: TextLatents,
        noising: Noising,
    ) -> Result<Self> {
        config.check(&noising)?;
        Ok(Self {
            heads: Heads::new(&teacher, &[UnetBlock::Mid], data.seed)?,
            config,
            student,
            fake,
            teacher,
            data,
            noising,
        })
    }

    fn drawn(&self, number: u64) -> Drawn {
        self.data
            .drawn(self.student.text_encoders(), number, self.config.batch_size)
    }

    fn painted(&self, drawn: &Drawn, number: u64) -> Result<Tensor> {
        let student = PaintingStudent {
            unet: self.student.unet(),
            timesteps: &self.config.timesteps,
            noising: &self.noising,
            seed: self.data.seed,
        };
        student.painted(drawn, number)
    }

    /// What it paints in one step for the captions of batch `number`.
    #[cfg(test)]
    pub(crate) fn painted_from_noise(&self, number: u64) -> Result<Tensor> {
        let drawn = self.drawn(number);
        let timesteps = vec![self.config.timesteps[0]; self.config.batch_size];
        let noise = noise(self.data.seed, purpose::SAMPLE, number, drawn.real.shape());
        let x = self.noising.noised(&timesteps, &Tensor::zeros(noise.shape()), &noise);
        let output = denoise(self.student.unet(), &x, &timesteps, &drawn.cond)?;
        Ok(self.noising.denoised(&timesteps, &x, &output))
    }

    /// Timesteps and noise by which pictures of batch `number` are noised again.
    fn renoising(&self, number: u64, shape: &[usize]) -> (Vec<usize>, Tensor) {
        let (seed, n) = (self.data.seed, self.config.batch_size);
        let ([low, high], last) = (self.config.renoised, self.noising.last() as f32);
        let draws = uniform(seed, purpose::TIMESTEP, number, n);
        let timesteps = draws
            .iter()
            .map(|u| ((low + u * (high - low)) * last) as usize)
            .collect();
        (timesteps, noise(seed, purpose::RENOISE, number, shape))
    }

    /// The guided teacher's x0.
    fn guided(&self, x: &Tensor, timesteps: &[usize], cond: &UnetCond) -> Result<Tensor> {
        let guidance = Guidance::new(self.config.guidance_scale, &self.student, &self.data, cond);
        let output = guidance.output(&self.teacher, x, timesteps, cond)?;
        Ok(self.noising.denoised(timesteps, x, &output))
    }

    /// The fake score's output, and what the discriminator judges by.
    fn seen_by_fake(&self, x: &Tensor, timesteps: &[usize], cond: &UnetCond) -> Result<(Tensor, Vec<Tensor>)> {
        denoise_with_blocks(&self.fake.network, x, timesteps, cond, &self.heads.blocks)
    }

    fn has_discriminator(&self) -> bool {
        self.config.gan_weight > 0.0
    }

    /// Distribution matching's gradient, as a squared distance that has it, and the discriminator's judgement.
    fn student_loss(&self, number: u64) -> Result<Loss> {
        let n = self.config.batch_size;
        let drawn = self.drawn(number);
        let painted = self.painted(&drawn, number)?;
        let (timesteps, noise) = self.renoising(number, painted.shape());
        let x = self.noising.noised(&timesteps, &painted, &noise);
        let judged = if self.has_discriminator() {
            self.seen_by_fake(&x, &timesteps, &drawn.cond)?
        } else {
            let output = no_grad(|| denoise(&self.fake.network, &x, &timesteps, &drawn.cond))?;
            (output, Vec::new())
        };
        let (output, middle) = judged;
        let (still, noised) = (painted.detach(), x.detach());
        let of_fake = self.noising.denoised(&timesteps, &noised, &output.detach());
        let of_teacher = no_grad(|| self.guided(&noised, &timesteps, &drawn.cond))?;
        let (target, size) = matched(&still, &of_fake, &of_teacher);
        let mut metrics = vec![("gradient", size)];
        let matching = |weights: &[f32]| {
            let halves: Vec<f32> = weights.iter().map(|weight| 0.5 * weight).collect();
            weighted_mse(&painted, &target, &halves)
        };
        let total = if self.has_discriminator() {
            let logits = self.heads.logits(&middle);
            let judged = mean_softplus(&logits, true);
            metrics.push(("judged", judged.item()));
            let weights = self.config.divergence.weights(&logits);
            add(&matching(&weights), &affine(&judged, self.config.gan_weight, 0.0))
        } else {
            matching(&vec![1.0; n])
        };
        Ok(Loss::new(total, metrics))
    }

    /// Denoising of what the student paints, and telling it from what is real.
    fn fake_loss(&self, number: u64) -> Result<Loss> {
        let n = self.config.batch_size;
        let drawn = self.drawn(number);
        let painted = no_grad(|| self.painted(&drawn, number))?;
        let (timesteps, noise) = self.renoising(number, painted.shape());
        let x = self.noising.noised(&timesteps, &painted, &noise);
        let (output, middle) = self.seen_by_fake(&x, &timesteps, &drawn.cond)?;
        let wanted = self.noising.target(&timesteps, &painted, &noise);
        let denoising = weighted_mse(&output, &wanted, &vec![1.0; n]);
        let mut metrics = vec![("mse", denoising.item())];
        if !self.has_discriminator() {
            return Ok(Loss::new(denoising, metrics));
        }
        let real = self.noising.noised(&timesteps, &drawn.real, &noise);
        let (_, of_real) = self.seen_by_fake(&real, &timesteps, &drawn.cond)?;
        let [real, fake] = [&of_real, &middle].map(|middle| self.heads.logits(middle));
        let told = add(&mean_softplus(&real, true), &mean_softplus(&fake, false));
        let mean = |logits: &Tensor| logits.data().iter().sum::<f32>() / n as f32;
        metrics.extend([("told", told.item()), ("apart", mean(&real) - mean(&fake))]);
        let total = add(&denoising, &affine(&told, self.config.discriminator_weight, 0.0));
        Ok(Loss::new(total, metrics))
    }
}

/// Where the pictures `x` are to go, `x - (fake - teacher) / mean |x - teacher|` (a mean a sample), and the mean absolute
/// value of that step.
fn matched(x: &Tensor, fake: &Tensor, teacher: &Tensor) -> (Tensor, f32) {
    let each = x.numel() / x.dim(0);
    let mut steps = Vec::with_capacity(x.numel());
    let samples = x.data().chunks_exact(each).zip(fake.data().chunks_exact(each));
    for ((x, fake), teacher) in samples.zip(teacher.data().chunks_exact(each)) {
        let away = x.iter().zip(teacher).map(|(x, t)| (x - t).abs()).sum::<f32>() / each as f32;
        steps.extend(fake.iter().zip(teacher).map(|(f, t)| (f - t) / away.max(1e-6)));
    }
    let size = steps.iter().map(|s| s.abs()).sum::<f32>() / steps.len() as f32;
    let ones = vec![1.0; x.dim(0)];
    let minus: Vec<f32> = ones.iter().map(|one| -one).collect();
    (
        combine_per_sample(&ones, x, &minus, &Tensor::from_vec(steps, x.shape())),
        size,
    )
}

impl Objective for Dmd2 {
    fn name(&self) -> &'static str {
        Dmd2Config::NAME
    }

    fn players(&self) -> Vec<Player> {
        let student = Player::main("student", self.student.unet_params.clone(), &self.config.training);
        let mut params = prefixed("fake", &self.fake.params);
        if self.has_discriminator() {
            params.extend(self.heads.params.clone());
        }
        let fake = Player::beside("fake", params, &self.config.training, self.config.fake_learning_rate);
        vec![student, fake]
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn turns(&mut self, _step: u64, _progress: f32) -> Result<Vec<Turn>> {
        let mut turns = vec![Turn::of(FAKE); self.config.fake_updates];
        turns.push(Turn::of(STUDENT));
        Ok(turns)
    }

    fn loss(&self, batch: Batch) -> Result<Loss> {
        match batch.player {
            FAKE => self.fake_loss(batch.number),
            _ => self.student_loss(batch.number),
        }
    }

    fn samples(&self) -> Result<Option<Picture>> {
        self.student.draw(SchedulerKind::Lcm, self.config.timesteps.len(), 1.0)
    }
}
