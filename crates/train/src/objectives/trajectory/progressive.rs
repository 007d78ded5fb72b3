//! Progressive distillation (Salimans and Ho 2022) by squared error: in each phase the student learns to reach in one DDIM step
//! where its teacher arrives in several, then is the teacher of the next phase. The first teacher is guided, so that no student
//! needs guidance (Meng et al. 2023; with phases 32 and 8 steps apart it is the first stage of SDXL-Lightning, Lin et al. 2024).

use crate::config::TrainConfig;
use crate::draws::{noise, purpose, uniform};
use crate::error::{Error, Result};
use crate::networks::denoise;
use crate::noising::{Noising, trailing};
use crate::objective::{Batch, Loss, Objective, Player, Turn};
use crate::objectives::{Drawn, Guidance, StageConfig, TextLatents, Trainee};
use crate::params::{Component, NamedParams, prefixed};
use crate::trained::{self, Painter};
use crate::trainer::LoopConfig;
use prima_models::{Unet2dCondition, UnetCond};
use prima_picture::Picture;
use prima_schedulers::{SchedulerConfig, SchedulerKind};
use prima_tensor::{Param, Tensor, no_grad, weighted_mse};
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

impl ProgressiveConfig {
    fn check(&self) -> Result<()> {
        let mut before = self.teacher_steps;
        for &steps in &self.steps {
            if steps == 0 || steps >= before || !before.is_multiple_of(steps) {
                let message = format!("progressive.steps: {steps} after {before} is no smaller number that divides it");
                return Err(Error::Config(message));
            }
            before = steps;
        }
        if self.steps.is_empty() {
            return Err(Error::Config(
                "progressive.steps is empty: name at least one phase".into(),
            ));
        }
        Ok(())
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
        let student = Painter::teacher(config)?;
        let teacher = trained::teacher_unet(config)?;
        let data = trained::text_latents(config, &student.texts, config.seed + 7)?;
        let student = Trainee::new(config, student)?;
        Ok(Box::new(Progressive::new(self, student, teacher, data, &scheduler)?))
    }
}

/// `student` starts as a copy of `teacher`; the text encoders stay frozen.
pub(crate) struct Progressive {
    config: ProgressiveConfig,
    student: Trainee,
    /// The student of the phase before, or the guided teacher.
    teacher: Component<Unet2dCondition>,
    /// The phase that runs.
    phase: Param,
    data: TextLatents,
    noising: Noising,
    /// The timesteps of each phase's students, the teacher's before them.
    ladders: Vec<Vec<usize>>,
}

impl Progressive {
    pub(crate) fn new(
        config: ProgressiveConfig,
        student: Trainee,
        teacher: Component<Unet2dCondition>,
        data: TextLatents,
        scheduler: &SchedulerConfig,
    ) -> Result<Self> {
        config.check()?;
        let noising = Noising::new(scheduler)?;
        if noising.is_flow() {
            let message = "progressive: its steps are DDIM's, which flow_prediction does not take";
            return Err(Error::Config(message.into()));
        }
        let all = std::iter::once(&config.teacher_steps).chain(&config.steps);
        let ladders = all.map(|&steps| trailing(scheduler, steps)).collect::<Result<_>>()?;
        Ok(Self {
            config,
            student,
            teacher,
            phase: Param::new(Tensor::zeros(&[1])),
            data,
            noising,
            ladders,
        })
    }

    fn phase(&self) -> usize {
        self.phase.tensor().item() as usize
    }

    /// Where the teacher arrives from `x` at these rungs of the student's ladder, and at which timesteps.
    fn arrived(&self, x: &Tensor, rungs: &[usize], cond: &UnetCond) -> Result<(Tensor, Vec<Option<usize>>)> {
        let phase = self.phase();
        let (fine, coarse) = (&self.ladders[phase], &self.ladders[phase + 1]);
        let several = fine.len() / coarse.len();
        // Only the first teacher needs it.
        let scale = if phase == 0 { self.config.guidance_scale } else { 1.0 };
        let guidance = Guidance::new(scale, &self.student, &self.data, cond);
        let mut x = x.clone();
        let mut end = Vec::new();
        for step in 0..several {
            let timesteps: Vec<usize> = rungs.iter().map(|r| fine[r * several + step]).collect();
            let output = guidance.output(&self.teacher.network, &x, &timesteps, cond)?;
            let x0 = self.noising.denoised(&timesteps, &x, &output);
            let noise = self.noising.noise_of(&timesteps, &x, &output);
            end = rungs
                .iter()
                .map(|r| fine.get(r * several + step + 1).copied())
                .collect();
            x = self.noising.noised_or_clean(&end, &x0, &noise);
        }
        Ok((x, end))
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
        let mut buffers = prefixed("teacher", &self.teacher.params);
        buffers.push(("phase".into(), self.phase.clone()));
        buffers
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn turns(&mut self, _step: u64, progress: f32) -> Result<Vec<Turn>> {
        let phases = self.config.steps.len() as f32;
        let due = ((progress * phases) as usize).min(self.config.steps.len() - 1);
        let mut turn = Turn::of(0);
        // One phase at a time: each student is taught by the one before.
        if due > self.phase() {
            for ((_, teacher), (_, student)) in self.teacher.params.iter().zip(&self.student.unet_params) {
                teacher.set(&student.tensor());
            }
            self.phase.set(&Tensor::full((self.phase() + 1) as f32, &[1]));
            turn.restart = true;
        }
        turn.lr_progress = Some((progress * phases - self.phase() as f32).clamp(0.0, 1.0));
        Ok(vec![turn])
    }

    fn loss(&self, batch: Batch) -> Result<Loss> {
        let (data, number, n) = (&self.data, batch.number, self.config.batch_size);
        let Drawn { real: x0, cond } = data.drawn(self.student.text_encoders(), number, n);
        let ladder = &self.ladders[self.phase() + 1];
        let draws = uniform(data.seed, purpose::TIMESTEP, number, n);
        let rungs: Vec<usize> = draws
            .iter()
            .map(|u| ((u * ladder.len() as f32) as usize).min(ladder.len() - 1))
            .collect();
        let timesteps: Vec<usize> = rungs.iter().map(|&r| ladder[r]).collect();
        let noise = noise(data.seed, purpose::NOISE, number, x0.shape());
        let x = self.noising.noised(&timesteps, &x0, &noise);
        let target = no_grad(|| {
            let (there, end) = self.arrived(&x, &rungs, &cond)?;
            Ok::<_, Error>(self.noising.output_that_leads(&timesteps, &x, &end, &there))
        })?;
        let output = denoise(self.student.unet(), &x, &timesteps, &cond)?;
        let total = weighted_mse(&output, &target, &vec![1.0; n]);
        Ok(Loss::new(total, vec![("steps", ladder.len() as f32)]))
    }

    fn samples(&self) -> Result<Option<Picture>> {
        let steps = self.ladders[self.phase() + 1].len();
        self.student.draw(SchedulerKind::Euler, steps, 1.0)
    }
}
