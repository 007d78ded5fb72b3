//! The stages of a run that train something, as a table: a new objective is a line here and a file of its own. (`latents` and
//! `export` are no training, and have their own functions.)

use crate::config::TrainConfig;
use crate::error::Result;
use crate::objective::Objective;
use crate::objectives::{
    AddConfig, AutoencoderConfig, DecoderConfig, Dmd2Config, EctConfig, GanConfig, LaddConfig, LcmConfig,
    LcmLoraConfig, LightningConfig, LoraConfig, MeanFlowConfig, ProgressiveConfig, RdmConfig, StageConfig,
    TeacherConfig, TextConfig,
};
use crate::trained::write_summary;
use crate::trainer::{LoopConfig, RunOptions, Summary, run};
use prima_schedulers::SchedulerKind;

/// In the order in which a run usually takes them.
pub const STAGES: &[Stage] = &[
    Stage::of::<AutoencoderConfig>(),
    Stage::of::<DecoderConfig>(),
    Stage::of::<TextConfig>(),
    Stage::of::<TeacherConfig>(),
    Stage::of::<ProgressiveConfig>(),
    Stage::of::<LightningConfig>(),
    Stage::of::<LcmConfig>(),
    Stage::of::<LcmLoraConfig>(),
    Stage::of::<EctConfig>(),
    Stage::of::<MeanFlowConfig>(),
    Stage::of::<AddConfig>(),
    Stage::of::<LaddConfig>(),
    Stage::of::<Dmd2Config>(),
    Stage::of::<RdmConfig>(),
    Stage::of::<GanConfig>(),
    Stage::of::<LoraConfig>(),
];

/// A stage that trains something and can go on where it stopped.
pub struct Stage {
    /// Of the command, of the folder below `run_dir`, and of the section in the configuration.
    pub name: &'static str,
    /// What it was called before; still read.
    pub old_name: Option<&'static str>,
    /// One line for the command's help.
    pub about: &'static str,
    /// The scheduler that its network is shipped with; `None` where it paints nothing.
    pub(crate) ships_with: Option<SchedulerKind>,
    check: fn(&TrainConfig) -> Result<()>,
    make: fn(&TrainConfig) -> Result<Made>,
}

type Made = (LoopConfig, Box<dyn Objective>);

impl Stage {
    const fn of<C: StageConfig>() -> Self {
        Self {
            name: C::NAME,
            old_name: C::OLD_NAME,
            about: C::ABOUT,
            ships_with: C::SHIPS_WITH,
            check: |config| config.section::<C>().map(|_| ()),
            make: |config| {
                let stage = config.section::<C>()?;
                Ok((stage.training().clone(), stage.objective(config)?))
            },
        }
    }

    /// Is the section of this stage one that it can read?
    pub(crate) fn check(&self, config: &TrainConfig) -> Result<()> {
        (self.check)(config)
    }

    /// Trains in the stage's folder.
    pub fn run(&self, config: &TrainConfig, options: &mut RunOptions) -> Result<Summary> {
        let (training, mut objective) = (self.make)(config)?;
        let summary = run(&mut *objective, &training, &config.stage_dir(self.name), options)?;
        if options.group.is_first() {
            write_summary(config, self.name, &summary)?;
        }
        Ok(summary)
    }
}

pub(crate) fn named(name: &str) -> Option<&'static Stage> {
    STAGES.iter().find(|stage| stage.name == name)
}
