//! LCM-LoRA (Luo et al. 2023, "LCM-LoRA: a universal acceleration module"): latent consistency distillation of which a LoRA is
//! trained and the weights stay the teacher's, so that one copy of them is teacher, student and target.

use super::lcm::{Lcm, LcmConfig, Learns, STREAM};
use crate::config::TrainConfig;
use crate::error::Result;
use crate::noising::Noising;
use crate::objective::Objective;
use crate::objectives::lora::{LoraParams, LoraSize};
use crate::objectives::{StageConfig, Trainee};
use crate::trainer::LoopConfig;
use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LcmLoraConfig {
    pub(crate) size: LoraSize,
    /// As the section of that name.
    pub(crate) lcm: LcmConfig,
}

impl StageConfig for LcmLoraConfig {
    const NAME: &'static str = "lcm-lora";
    const ABOUT: &'static str =
        "Distill a LoRA that lets the teacher paint in one to four steps, by latent consistency";

    fn training(&self) -> &LoopConfig {
        &self.lcm.training
    }

    fn objective(self, config: &TrainConfig) -> Result<Box<dyn Objective>> {
        self.lcm.check_has_no_guidance_input(Self::NAME)?;
        let (student, data) = Trainee::student(config, STREAM)?;
        let noising = Noising::for_lcm_students(&config.scheduler()?, Self::NAME)?;
        let ladder = self.lcm.ladder(config, &noising)?;
        Ok(Box::new(Lcm {
            learns: learns(&self.size, &student, data.seed)?,
            config: self.lcm,
            student,
            data,
            noising,
            ladder,
        }))
    }
}

/// A LoRA beside the weights of `student`, and its slow average.
pub(crate) fn learns(size: &LoraSize, student: &Trainee, seed: u64) -> Result<Learns> {
    let fast = LoraParams::new(size, &student.unet_params, seed)?;
    let target = fast.copy(size, &student.unet_params)?;
    Ok(Learns::Lora { student: fast, target })
}
