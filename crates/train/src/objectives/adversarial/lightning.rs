//! Progressive adversarial distillation (Lin et al. 2024, "SDXL-Lightning"): phases as in progressive distillation, the first by
//! squared error with guidance baked in, the others by a discriminator that tells where the student arrives in one step from where
//! its teacher arrives in several. It is the UNet's own encoder, which learns along, with a head on its middle block: first it sees
//! where the step started too ("with trajectory"), which keeps the teacher's flow, then only where it arrived, which lets go of
//! what so few steps cannot follow. No picture is judged without noise.

use crate::config::TrainConfig;
use crate::draws::{check_shares, chosen, noise, purpose, uniform};
use crate::error::{Error, Result};
use crate::networks::denoise_with_blocks;
use crate::objective::{Batch, Loss, Objective, Player, Turn};
use crate::objectives::discriminator::{Heads, encoder_params, mean, mean_softplus};
use crate::objectives::trajectory::phases::{Phases, Way};
use crate::objectives::{Drawn, StageConfig, TextLatents, Trainee};
use crate::params::{Component, NamedParams, prefixed};
use crate::trained;
use crate::trainer::LoopConfig;
use prima_models::{Unet2dCondition, UnetBlock, UnetCond};
use prima_picture::Picture;
use prima_schedulers::{PredictionType, SchedulerConfig, SchedulerKind};
use prima_tensor::{Param, Tensor, add, combine_per_sample, concat_channels, no_grad, weighted_mse};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LightningConfig {
    #[serde(rename = "loop")]
    training: LoopConfig,
    batch_size: usize,
    /// The teacher's guidance, baked in by the first phase (6 in the paper).
    guidance_scale: f32,
    /// Steps of the teacher.
    teacher_steps: usize,
    /// Steps of the students, phase by phase, each dividing the one before (the first the teacher's). Phases share the budget
    /// evenly.
    steps: Vec<usize>,
    /// How many of the phases are by squared error, the first ones.
    mse_phases: usize,
    /// The part of each other phase in which the discriminator sees where the step started.
    trajectory_share: f32,
    /// Relative to the student's.
    discriminator_learning_rate: f32,
    /// Where a step arrives at no noise, student's and teacher's are noised again to one of these timesteps ...
    renoised: Vec<usize>,
    /// ... each as often as this says, relative to the others.
    renoised_shares: Vec<f32>,
}

impl Default for LightningConfig {
    fn default() -> Self {
        Self {
            training: LoopConfig::default(),
            batch_size: 16,
            guidance_scale: 2.0,
            teacher_steps: 128,
            steps: vec![32, 8, 4, 2, 1],
            mse_phases: 1,
            trajectory_share: 0.5,
            discriminator_learning_rate: 1.0,
            renoised: vec![10, 250, 500, 750],
            renoised_shares: vec![1.0; 4],
        }
    }
}

/// Students of fewer steps learn from as many timesteps all the same.
const LEAST_STARTS: usize = 4;

impl LightningConfig {
    fn check(&self, phases: &Phases, scheduler: &SchedulerConfig) -> Result<()> {
        check_shares("lightning.renoised_shares", &self.renoised_shares, self.renoised.len())?;
        let last = phases.noising.last();
        if let Some(t) = self.renoised.iter().find(|t| !(1..=last).contains(*t)) {
            let message = format!("lightning.renoised: there is no timestep {t} to noise to, expected 1 to {last}");
            return Err(Error::Config(message));
        }
        if self.steps.last() == Some(&1) && scheduler.prediction_type() == PredictionType::Epsilon {
            let message = "lightning.steps ends with 1, but epsilon prediction hardly says what the picture is at pure noise: \
                           end with 2, or train a teacher of v_prediction first";
            return Err(Error::Config(message.into()));
        }
        Ok(())
    }
}

impl StageConfig for LightningConfig {
    const NAME: &'static str = "lightning";
    const ABOUT: &'static str = "Distill the teacher to fewer steps, phase by phase, by a discriminator";
    const SHIPS_WITH: Option<SchedulerKind> = Some(SchedulerKind::Euler);

    fn training(&self) -> &LoopConfig {
        &self.training
    }

    fn objective(self, config: &TrainConfig) -> Result<Box<dyn Objective>> {
        let scheduler = config.scheduler()?;
        let [teacher, judge] = [trained::teacher_unet(config)?, trained::teacher_unet(config)?];
        let (student, data) = Trainee::student(config, 12)?;
        Ok(Box::new(Lightning::new(
            self, student, teacher, judge, data, &scheduler,
        )?))
    }
}

const STUDENT: usize = 0;
const DISCRIMINATOR: usize = 1;

/// `student` and `judge` start as copies of `teacher`; the text encoders stay frozen.
pub(crate) struct Lightning {
    config: LightningConfig,
    student: Trainee,
    phases: Phases,
    /// The discriminator's UNet, of which the way down and the middle are used.
    judge: Component<Unet2dCondition>,
    /// On what it makes of start and end, and of the end alone.
    with_start: Heads,
    without_start: Heads,
    /// 1 while it sees where a step started.
    trajectory: Param,
    data: TextLatents,
}

fn flag(is_set: bool) -> Tensor {
    Tensor::full(f32::from(is_set), &[1])
}

impl Lightning {
    pub(crate) fn new(
        config: LightningConfig,
        student: Trainee,
        teacher: Component<Unet2dCondition>,
        judge: Component<Unet2dCondition>,
        data: TextLatents,
        scheduler: &SchedulerConfig,
    ) -> Result<Self> {
        let steps = [&[config.teacher_steps], &config.steps[..]].concat();
        let (name, scale) = (LightningConfig::NAME, config.guidance_scale);
        let phases = Phases::new(name, teacher, scheduler, scale, steps, LEAST_STARTS)?;
        config.check(&phases, scheduler)?;
        let Some(width) = judge.network.channels_of(UnetBlock::Mid) else {
            let message = "lightning judges by the UNet's middle block, but this one has none: take the stage ladd";
            return Err(Error::Config(message.into()));
        };
        Ok(Self {
            with_start: Heads::of_widths(&[2 * width], data.seed)?,
            without_start: Heads::of_widths(&[width], data.seed)?,
            trajectory: Param::new(flag(config.trajectory_share > 0.0)),
            config,
            student,
            phases,
            judge,
            data,
        })
    }

    fn is_adversarial(&self) -> bool {
        self.phases.number() >= self.config.mse_phases
    }

    /// Does the discriminator see where a step started?
    fn sees_start(&self) -> bool {
        self.trajectory.tensor().item() > 0.0
    }

    /// The discriminator of the running phase's part, of which `spent` is over: a new one where a phase or its second part begins.
    fn judge_begins(&self, phase_begins: bool, spent: f32) -> Result<bool> {
        let sees_start = spent < self.config.trajectory_share;
        if !phase_begins && sees_start == self.sees_start() {
            return Ok(false);
        }
        self.trajectory.set(&flag(sees_start));
        self.renew_judge()?;
        Ok(true)
    }

    fn judge_params(&self) -> NamedParams {
        let mut params = prefixed("judge", &encoder_params(&self.judge.params));
        params.extend(prefixed("with_start", &self.with_start.params));
        params.extend(prefixed("without_start", &self.without_start.params));
        params
    }

    /// As it starts: the encoder of the phase's teacher, and heads that know nothing.
    fn renew_judge(&self) -> Result<()> {
        for ((_, judge), (_, teacher)) in self.judge.params.iter().zip(&self.phases.teacher.params) {
            judge.set(&teacher.tensor());
        }
        for heads in [&self.with_start, &self.without_start] {
            heads.begin_anew(self.data.seed)?;
        }
        Ok(())
    }

    fn way(&self, drawn: &Drawn, number: u64) -> Result<Way> {
        let draws = uniform(self.data.seed, purpose::TIMESTEP, number, self.config.batch_size);
        let noise = noise(self.data.seed, purpose::NOISE, number, drawn.real.shape());
        self.phases.way(&draws, drawn, &noise, &self.student, &self.data)
    }

    /// Where the student arrives in one step.
    fn arrived(&self, way: &Way, cond: &UnetCond) -> Result<Tensor> {
        let output = way.output(&self.student, cond)?;
        Ok(self.phases.ddim(&way.from, &way.x, &output, &way.to))
    }

    /// The timesteps at which ends are judged, those without noise drawn by batch `number`.
    fn judged_at(&self, to: &[Option<usize>], number: u64) -> Vec<usize> {
        let draws = uniform(self.data.seed, purpose::RUNG, number, to.len());
        let draw = |u: f32| self.config.renoised[chosen(&self.config.renoised_shares, u)];
        to.iter()
            .zip(draws)
            .map(|(to, u)| to.unwrap_or_else(|| draw(u)))
            .collect()
    }

    /// What the discriminator says of a step of `way` that arrived at `end`.
    fn logits(&self, way: &Way, end: &Tensor, cond: &UnetCond, number: u64) -> Result<Tensor> {
        let at = self.judged_at(&way.to, number);
        let noise = noise(self.data.seed, purpose::RENOISE, number, end.shape());
        // Those with noise stay as they are.
        let (keep, renoise): (Vec<f32>, Vec<f32>) = way
            .to
            .iter()
            .zip(&at)
            .map(|(to, &at)| match to {
                Some(_) => (1.0, 0.0),
                None => self.phases.noising.level(Some(at)),
            })
            .unzip();
        let end = combine_per_sample(&keep, end, &renoise, &noise);
        let of = |x: &Tensor, timesteps: &[usize]| -> Result<Tensor> {
            let (_, mut seen) = denoise_with_blocks(&self.judge.network, x, timesteps, cond, &[UnetBlock::Mid])?;
            Ok(seen.remove(0))
        };
        let of_end = of(&end, &at)?;
        if self.sees_start() {
            let both = concat_channels(&[&of_end, &of(&way.x, &way.from)?]);
            return Ok(self.with_start.logits(&[both]));
        }
        Ok(self.without_start.logits(&[of_end]))
    }

    fn student_loss(&self, number: u64, drawn: &Drawn, way: &Way) -> Result<Loss> {
        let steps = ("steps", self.phases.student_steps() as f32);
        if !self.is_adversarial() {
            let (noising, n) = (&self.phases.noising, self.config.batch_size);
            let target = no_grad(|| noising.output_that_leads(&way.from, &way.x, &way.to, &way.there));
            let output = way.output(&self.student, &drawn.cond)?;
            return Ok(Loss::new(weighted_mse(&output, &target, &vec![1.0; n]), vec![steps]));
        }
        let logits = self.logits(way, &self.arrived(way, &drawn.cond)?, &drawn.cond, number)?;
        Ok(Loss::new(mean_softplus(&logits, true), vec![steps]))
    }

    fn discriminator_loss(&self, number: u64, drawn: &Drawn, way: &Way) -> Result<Loss> {
        let end = no_grad(|| self.arrived(way, &drawn.cond))?;
        let [real, fake] = [&way.there, &end].map(|end| self.logits(way, end, &drawn.cond, number));
        let (real, fake) = (real?, fake?);
        let apart = mean(&real).item() - mean(&fake).item();
        let total = add(&mean_softplus(&real, true), &mean_softplus(&fake, false));
        Ok(Loss::new(total, vec![("apart", apart)]))
    }
}

impl Objective for Lightning {
    fn name(&self) -> &'static str {
        LightningConfig::NAME
    }

    fn players(&self) -> Vec<Player> {
        let student = Player::main("student", self.student.unet_params.clone(), &self.config.training);
        let rate = self.config.discriminator_learning_rate;
        let discriminator = Player::beside("discriminator", self.judge_params(), &self.config.training, rate);
        vec![student, discriminator]
    }

    fn buffers(&self) -> NamedParams {
        let mut buffers = self.phases.buffers();
        buffers.push(("trajectory".into(), self.trajectory.clone()));
        buffers
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn turns(&mut self, _step: u64, progress: f32) -> Result<Vec<Turn>> {
        let (spent, begins) = self.phases.advance(progress, &self.student.unet_params);
        let judge_begins = self.judge_begins(begins, spent)?;
        let turn = |player, restart| Turn {
            lr_progress: Some(spent),
            restart,
            ..Turn::of(player)
        };
        Ok(if self.is_adversarial() {
            vec![turn(DISCRIMINATOR, judge_begins), turn(STUDENT, begins)]
        } else {
            vec![turn(STUDENT, begins)]
        })
    }

    fn loss(&self, batch: Batch) -> Result<Loss> {
        let drawn = self
            .data
            .drawn(self.student.text_encoders(), batch.number, self.config.batch_size);
        let way = self.way(&drawn, batch.number)?;
        match batch.player {
            DISCRIMINATOR => self.discriminator_loss(batch.number, &drawn, &way),
            _ => self.student_loss(batch.number, &drawn, &way),
        }
    }

    fn samples(&self) -> Result<Option<Picture>> {
        let steps = self.phases.student_steps();
        self.student.draw(SchedulerKind::Euler, steps, 1.0)
    }
}
