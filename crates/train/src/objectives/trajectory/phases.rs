//! What distillations step by step share: phases, in each of which the student learns to go in one DDIM step where the student of
//! the phase before, which is now its teacher, arrives in several.

use crate::error::{Error, Result};
use crate::networks::denoise;
use crate::noising::{Noising, trailing};
use crate::objectives::{Drawn, Guidance, TextLatents, Trainee};
use crate::params::{Component, NamedParams, prefixed};
use prima_models::{Unet2dCondition, UnetCond};
use prima_schedulers::SchedulerConfig;
use prima_tensor::{Param, Tensor, combine_per_sample, no_grad};

pub(in crate::objectives) struct Phases {
    /// The student of the phase before, or the guided teacher.
    pub(in crate::objectives) teacher: Component<Unet2dCondition>,
    pub(in crate::objectives) noising: Noising,
    guidance_scale: f32,
    /// The phase that runs.
    number: Param,
    /// Steps of the first teacher, then of each phase's student.
    steps: Vec<usize>,
    /// Of each phase, every timestep that its teacher or its student is at.
    grids: Vec<Vec<usize>>,
    /// No student learns from fewer timesteps than this.
    least_starts: usize,
}

/// Refuses `steps` of `stage` unless each divides the one before, the first those of the teacher.
pub(in crate::objectives) fn check_steps(stage: &str, teacher_steps: usize, steps: &[usize]) -> Result<()> {
    let mut before = teacher_steps;
    for &steps in steps {
        if steps == 0 || steps >= before || !before.is_multiple_of(steps) {
            let message = format!("{stage}.steps: {steps} after {before} is no smaller number that divides it");
            return Err(Error::Config(message));
        }
        before = steps;
    }
    if steps.is_empty() {
        return Err(Error::Config(format!(
            "{stage}.steps is empty: name at least one phase"
        )));
    }
    Ok(())
}

/// From where samples of a batch go, and to where their teacher takes them.
pub(in crate::objectives) struct Way {
    pub(in crate::objectives) from: Vec<usize>,
    /// `from`, noised.
    pub(in crate::objectives) x: Tensor,
    /// None is no noise.
    pub(in crate::objectives) to: Vec<Option<usize>>,
    pub(in crate::objectives) there: Tensor,
}

impl Way {
    /// The output of `student` where it goes from.
    pub(in crate::objectives) fn output(&self, student: &Trainee, cond: &UnetCond) -> Result<Tensor> {
        denoise(student.unet(), &self.x, &self.from, cond)
    }
}

impl Phases {
    pub(in crate::objectives) fn new(
        stage: &str,
        teacher: Component<Unet2dCondition>,
        scheduler: &SchedulerConfig,
        guidance_scale: f32,
        steps: Vec<usize>,
        least_starts: usize,
    ) -> Result<Self> {
        check_steps(stage, steps[0], &steps[1..])?;
        let noising = Noising::new(scheduler)?;
        if noising.is_flow() {
            let message = format!("{stage}: its steps are DDIM's, which flow_prediction does not take");
            return Err(Error::Config(message));
        }
        let grid = |pair: &[usize]| trailing(scheduler, grid_len(pair[0], least_starts));
        Ok(Self {
            teacher,
            noising,
            guidance_scale,
            number: Param::new(Tensor::zeros(&[1])),
            grids: steps.windows(2).map(grid).collect::<Result<_>>()?,
            steps,
            least_starts,
        })
    }

    pub(in crate::objectives) fn buffers(&self) -> NamedParams {
        let mut buffers = prefixed("teacher", &self.teacher.params);
        buffers.push(("phase".into(), self.number.clone()));
        buffers
    }

    pub(in crate::objectives) fn number(&self) -> usize {
        self.number.tensor().item() as usize
    }

    /// Steps of the student of the phase that runs.
    pub(in crate::objectives) fn student_steps(&self) -> usize {
        self.steps[self.number() + 1]
    }

    /// The fraction of the running phase that is spent, all sharing the budget evenly, and whether it begins now, taught by
    /// `student`.
    pub(in crate::objectives) fn advance(&mut self, progress: f32, student: &NamedParams) -> (f32, bool) {
        let count = self.grids.len();
        let due = ((progress * count as f32) as usize).min(count - 1);
        // One phase at a time: each student is taught by the one before.
        let begins = due > self.number();
        if begins {
            for ((_, teacher), (_, student)) in self.teacher.params.iter().zip(student) {
                teacher.set(&student.tensor());
            }
            self.number.set(&Tensor::full((self.number() + 1) as f32, &[1]));
        }
        ((progress * count as f32 - self.number() as f32).clamp(0.0, 1.0), begins)
    }

    /// The way of each sample from the start that `draws`, each in [0, 1), choose.
    pub(in crate::objectives) fn way(
        &self,
        draws: &[f32],
        drawn: &Drawn,
        noise: &Tensor,
        student: &Trainee,
        data: &TextLatents,
    ) -> Result<Way> {
        let grid = &self.grids[self.number()];
        let starts = self.student_steps().max(self.least_starts);
        let every = grid.len() / starts;
        let start = |u: &f32| ((u * starts as f32) as usize).min(starts - 1) * every;
        let places: Vec<usize> = draws.iter().map(start).collect();
        let from: Vec<usize> = places.iter().map(|&place| grid[place]).collect();
        let x = self.noising.noised(&from, &drawn.real, noise);
        let (there, to) = no_grad(|| self.arrived(&x, places, &drawn.cond, student, data))?;
        Ok(Way { from, x, to, there })
    }

    /// Where the teacher arrives from `x` at these places of the grid, and at which timesteps.
    fn arrived(
        &self,
        x: &Tensor,
        mut places: Vec<usize>,
        cond: &UnetCond,
        student: &Trainee,
        data: &TextLatents,
    ) -> Result<(Tensor, Vec<Option<usize>>)> {
        let phase = self.number();
        let grid = &self.grids[phase];
        let [fine, coarse] = [self.steps[phase], self.steps[phase + 1]];
        // Only the first teacher needs it.
        let scale = if phase == 0 { self.guidance_scale } else { 1.0 };
        let guidance = Guidance::new(scale, student, data, cond);
        let mut x = x.clone();
        for _ in 0..fine / coarse {
            // What has arrived at no noise stays there.
            let is_there: Vec<f32> = places.iter().map(|&place| f32::from(place >= grid.len())).collect();
            let timesteps: Vec<usize> = places
                .iter()
                .map(|&place| grid.get(place).copied().unwrap_or(0))
                .collect();
            let output = guidance.output(&self.teacher.network, &x, &timesteps, cond)?;
            for place in &mut places {
                *place += grid.len() / fine;
            }
            let next = self.ddim(&timesteps, &x, &output, &ends(grid, &places));
            let is_not: Vec<f32> = is_there.iter().map(|there| 1.0 - there).collect();
            x = combine_per_sample(&is_there, &x, &is_not, &next);
        }
        Ok((x, ends(grid, &places)))
    }

    /// Where a DDIM step by the network's `output` arrives.
    pub(in crate::objectives) fn ddim(
        &self,
        from: &[usize],
        x: &Tensor,
        output: &Tensor,
        to: &[Option<usize>],
    ) -> Tensor {
        let x0 = self.noising.denoised(from, x, output);
        let noise = self.noising.noise_of(from, x, output);
        self.noising.noised_or_clean(to, &x0, &noise)
    }
}

/// As many timesteps as hold `steps` and `starts` evenly spaced ones.
fn grid_len(steps: usize, starts: usize) -> usize {
    let multiples = (1..=starts).map(|k| k * steps);
    let mut fitting = multiples.filter(|len| len.is_multiple_of(starts));
    fitting.next().unwrap_or(steps)
}

fn ends(grid: &[usize], places: &[usize]) -> Vec<Option<usize>> {
    places.iter().map(|&place| grid.get(place).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_holds_both_ladders() {
        assert_eq!(
            [(128, 1), (8, 4), (4, 4), (2, 4), (6, 4)].map(|(a, b)| grid_len(a, b)),
            [128, 8, 4, 4, 12]
        );
    }

    #[test]
    fn steps_that_do_not_divide_are_refused() {
        assert!(check_steps("lightning", 128, &[32, 8, 4, 2, 1]).is_ok());
        for steps in [&[][..], &[128], &[48], &[32, 0], &[32, 32]] {
            assert!(check_steps("lightning", 128, steps).is_err(), "{steps:?}");
        }
    }
}
