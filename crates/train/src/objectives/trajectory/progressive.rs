//! Progressive distillation (Salimans and Ho 2022) by squared error: in each phase the student learns to reach in one DDIM step
//! where its teacher arrives in several, then is the teacher of the next phase. The first teacher is guided, so that no student
//! needs guidance (Meng et al. 2023; with phases 32 and 8 steps apart it is the first stage of SDXL-Lightning, Lin et al. 2024).

use super::phases::Phases;
use crate::config::TrainConfig;
use crate::draws::{noise, purpose, uniform};
use crate::error::Result;
use crate::objective::{Batch, Loss, Objective, Player, Turn};
use crate::objectives::{StageConfig, TextLatents, Trainee};
use crate::params::{Component, NamedParams};
use crate::trained;
use crate::trainer::LoopConfig;
use prima_models::Unet2dCondition;
use prima_picture::Picture;
use prima_schedulers::{SchedulerConfig, SchedulerKind};
use prima_tensor::{no_grad, weighted_mse};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ProgressiveConfig {
    #[serde(rename = "loop")]
    training: LoopConfig,
    batch_size: usize,
    /// The teacher's guidance, baked into the students.
    guidance_scale: f32,
    /// Steps of the teacher.
    teacher_steps: usize,
    /// Steps of the students, phase by phase, each dividing the one before (the first the teacher's). Phases share the budget
    /// evenly.
    steps: Vec<usize>,
}

impl Default for ProgressiveConfig {
    fn default() -> Self {
        Self {
            training: LoopConfig::default(),
            batch_size: 24,
            guidance_scale: 2.0,
            teacher_steps: 32,
            steps: vec![16, 8, 4],
        }
    }
}

impl StageConfig for ProgressiveConfig {
    const NAME: &'static str = "progressive";
    const ABOUT: &'static str = "Distill the teacher to fewer steps, phase by phase, by squared error";
    const SHIPS_WITH: Option<SchedulerKind> = Some(SchedulerKind::Euler);

    fn training(&self) -> &LoopConfig {
        &self.training
    }

    fn objective(self, config: &TrainConfig) -> Result<Box<dyn Objective>> {
        let scheduler = config.scheduler()?;
        let teacher = trained::teacher_unet(config)?;
        let (student, data) = Trainee::student(config, 7)?;
        Ok(Box::new(Progressive::new(self, student, teacher, data, &scheduler)?))
    }
}

/// `student` starts as a copy of `teacher`; the text encoders stay frozen.
pub(crate) struct Progressive {
    config: ProgressiveConfig,
    student: Trainee,
    phases: Phases,
    data: TextLatents,
}

impl Progressive {
    pub(crate) fn new(
        config: ProgressiveConfig,
        student: Trainee,
        teacher: Component<Unet2dCondition>,
        data: TextLatents,
        scheduler: &SchedulerConfig,
    ) -> Result<Self> {
        let steps = [&[config.teacher_steps], &config.steps[..]].concat();
        let phases = Phases::new(
            ProgressiveConfig::NAME,
            teacher,
            scheduler,
            config.guidance_scale,
            steps,
            1,
        )?;
        Ok(Self {
            config,
            student,
            phases,
            data,
        })
    }
}

impl Objective for Progressive {
    fn name(&self) -> &'static str {
        ProgressiveConfig::NAME
    }

    fn players(&self) -> Vec<Player> {
        let student = self.student.unet_params.clone();
        vec![Player::main("student", student, &self.config.training)]
    }

    fn buffers(&self) -> NamedParams {
        self.phases.buffers()
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn turns(&mut self, _step: u64, progress: f32) -> Result<Vec<Turn>> {
        let (spent, begins) = self.phases.advance(progress, &self.student.unet_params);
        Ok(vec![Turn {
            lr_progress: Some(spent),
            restart: begins,
            ..Turn::of(0)
        }])
    }

    fn loss(&self, batch: Batch) -> Result<Loss> {
        let (data, number, n) = (&self.data, batch.number, self.config.batch_size);
        let drawn = data.drawn(self.student.text_encoders(), number, n);
        let draws = uniform(data.seed, purpose::TIMESTEP, number, n);
        let noise = noise(data.seed, purpose::NOISE, number, drawn.real.shape());
        let way = self.phases.way(&draws, &drawn, &noise, &self.student, data)?;
        let noising = &self.phases.noising;
        let target = no_grad(|| noising.output_that_leads(&way.from, &way.x, &way.to, &way.there));
        let output = way.output(&self.student, &drawn.cond)?;
        let total = weighted_mse(&output, &target, &vec![1.0; n]);
        let steps = self.phases.student_steps() as f32;
        Ok(Loss::new(total, vec![("steps", steps)]))
    }

    fn samples(&self) -> Result<Option<Picture>> {
        let steps = self.phases.student_steps();
        self.student.draw(SchedulerKind::Euler, steps, 1.0)
    }
}
