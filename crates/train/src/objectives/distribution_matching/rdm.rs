//! Distribution matching by moments ("RDM", 2026): what frozen blocks of the teacher make of the student's pictures is distributed
//! as what they make of real ones, by the maximum mean discrepancy of a batch. No critic learns along, so that there is one player
//! and nothing to balance; the greater the batch, the better the gradient. The kernels (Gaussian, of three widths, times one over
//! the captions), and the features (mean and mean square of each channel, of latents noised alike) are our choice.

use super::moments::{Rows, discrepancy, likeness};
use super::{PaintingStudent, check_renoised};
use crate::config::TrainConfig;
use crate::draws::{noise, purpose, uniform};
use crate::error::{Error, Result};
use crate::networks::denoise_with_blocks;
use crate::noising::Noising;
use crate::objective::{Batch, Loss, Objective, Player};
use crate::objectives::discriminator::judging_blocks;
use crate::objectives::off_tape::with_gradient;
use crate::objectives::{StageConfig, TextLatents, Trainee};
use crate::trained;
use crate::trainer::LoopConfig;
use prima_models::{Unet2dCondition, UnetBlock, UnetCond};
use prima_picture::Picture;
use prima_schedulers::SchedulerKind;
use prima_tensor::{Tensor, avg_pool_global, concat_channels, mul, no_grad};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RdmConfig {
    #[serde(rename = "loop")]
    training: LoopConfig,
    /// Pictures that are compared with as many real ones.
    batch_size: usize,
    /// The timesteps that the student paints from, the noisiest first: one for one step.
    timesteps: Vec<usize>,
    /// Timesteps to which both are noised again, as shares of all.
    renoised: [f32; 2],
    /// What the distance of two captions counts beside that of their pictures; 0 compares pictures alone.
    caption_weight: f32,
}

impl Default for RdmConfig {
    fn default() -> Self {
        Self {
            training: LoopConfig::default(),
            batch_size: 64,
            timesteps: vec![999],
            renoised: [0.02, 0.6],
            caption_weight: 1.0,
        }
    }
}

impl RdmConfig {
    fn check(&self, noising: &Noising) -> Result<()> {
        noising.check_falling(Self::NAME, &self.timesteps)?;
        check_renoised(Self::NAME, self.renoised)?;
        if self.batch_size < 2 {
            let message = "rdm.batch_size is below 2, but a distribution has more samples than one: give it 16 or more";
            return Err(Error::Config(message.into()));
        }
        Ok(())
    }
}

impl StageConfig for RdmConfig {
    const NAME: &'static str = "rdm";
    const ABOUT: &'static str = "Distill the teacher to one to four steps by matching moments of frozen features";
    const SHIPS_WITH: Option<SchedulerKind> = Some(SchedulerKind::Lcm);

    fn training(&self) -> &LoopConfig {
        &self.training
    }

    fn objective(self, config: &TrainConfig) -> Result<Box<dyn Objective>> {
        let noising = Noising::for_lcm_students(&config.scheduler()?, Self::NAME)?;
        let teacher = trained::teacher_unet(config)?.network;
        let (student, data) = Trainee::student(config, 10)?;
        Ok(Box::new(Rdm::new(self, student, teacher, data, noising)?))
    }
}

/// `student` starts as a copy of `teacher`; the text encoders stay frozen.
pub(crate) struct Rdm {
    config: RdmConfig,
    student: Trainee,
    /// Whose blocks make the features.
    teacher: Unet2dCondition,
    blocks: Vec<UnetBlock>,
    data: TextLatents,
    noising: Noising,
}

impl Rdm {
    pub(crate) fn new(
        config: RdmConfig,
        student: Trainee,
        teacher: Unet2dCondition,
        data: TextLatents,
        noising: Noising,
    ) -> Result<Self> {
        config.check(&noising)?;
        Ok(Self {
            blocks: judging_blocks(&teacher),
            config,
            student,
            teacher,
            data,
            noising,
        })
    }

    /// Mean and mean square of each channel of each block, `[B, F]`.
    fn features(&self, x: &Tensor, timesteps: &[usize], cond: &UnetCond) -> Result<Tensor> {
        let (_, seen) = denoise_with_blocks(&self.teacher, x, timesteps, cond, &self.blocks)?;
        let moments = |seen: &Tensor| [avg_pool_global(seen), avg_pool_global(&mul(seen, seen))];
        let moments: Vec<Tensor> = seen.iter().flat_map(moments).collect();
        Ok(concat_channels(&moments.iter().collect::<Vec<_>>()))
    }

    /// The timestep of batch `number`, one for all, so that only pictures differ.
    fn level(&self, number: u64) -> usize {
        let ([low, high], last) = (self.config.renoised, self.noising.last() as f32);
        let u = uniform(self.data.seed, purpose::TIMESTEP, number, 1)[0];
        ((low + u * (high - low)) * last) as usize
    }
}

/// What captions are compared by: the pooled text, or what the encoders made of it where there is none.
fn caption_rows(cond: &UnetCond) -> (Vec<f32>, usize) {
    let text = cond.text_embeds.as_ref().unwrap_or(&cond.encoder_hidden_states);
    (text.data().to_vec(), text.numel() / text.dim(0))
}

impl Objective for Rdm {
    fn name(&self) -> &'static str {
        RdmConfig::NAME
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
        let drawn = data.drawn(self.student.text_encoders(), number, n);
        let student = PaintingStudent {
            unet: self.student.unet(),
            timesteps: &self.config.timesteps,
            noising: &self.noising,
            seed: data.seed,
        };
        let painted = student.painted(&drawn, number)?;
        let timesteps = vec![self.level(number); n];
        let noise = noise(data.seed, purpose::RENOISE, number, painted.shape());
        let seen = |x0: &Tensor| self.features(&self.noising.noised(&timesteps, x0, &noise), &timesteps, &drawn.cond);
        let (fake, real) = (seen(&painted)?, no_grad(|| seen(&drawn.real))?);
        let (captions, len) = caption_rows(&drawn.cond);
        let rows = |values, len| Rows { values, len };
        let alike = likeness(&rows(&captions, len), self.config.caption_weight);
        let len = fake.dim(1);
        let (value, gradient) = discrepancy(&rows(fake.data(), len), &rows(real.data(), len), &alike);
        Ok(Loss::new(with_gradient(&fake, value as f32, gradient), Vec::new()))
    }

    fn samples(&self) -> Result<Option<Picture>> {
        self.student.draw(SchedulerKind::Lcm, self.config.timesteps.len(), 1.0)
    }
}
