//! A request's steps, timed and told to whoever asked.

use crate::guidance::Guidance;
use crate::image_to_image::Kept;
use crate::noise::{NoiseSource, Purpose};
use crate::sampling::{Sampling, sample};
use crate::vae::check_finite;
use crate::{Error, Progress, Timings};
use prima_schedulers::Schedule;
use prima_tensor::{Device, Tensor};
use std::ops::ControlFlow;
use std::time::Instant;

/// The caller's callback: told of each part of the work done, and asked whether to go on.
pub(crate) type OnProgress<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

pub(crate) fn stops(on_progress: OnProgress, progress: Progress) -> bool {
    on_progress(progress).is_break()
}

pub(crate) fn tell(on_progress: OnProgress, progress: Progress) -> Result<(), Error> {
    if stops(on_progress, progress) {
        Err(Error::Cancelled)
    } else {
        Ok(())
    }
}

/// What [`sample`] asks for.
pub(crate) struct Steps<'a, 'b> {
    pub schedule: &'a Schedule,
    pub guidance: &'a Guidance<'a>,
    /// What a mask leaves as it is.
    pub kept: Option<&'a Kept>,
    pub noise: &'a mut NoiseSource,
    pub timings: &'a mut Timings,
    pub on_progress: OnProgress<'b>,
    /// Of the request, also those that another model takes.
    pub total: usize,
}

impl Steps<'_, '_> {
    /// All steps of the schedule.
    pub fn take(self, latents: Tensor) -> Result<Tensor, Error> {
        let schedule = self.schedule;
        let mut running = Running {
            evaluations: 0,
            shape: std::array::from_fn(|axis| latents.dim(axis as isize)),
            started: Instant::now(),
            steps: self,
        };
        sample(schedule, latents, &mut running)
    }
}

struct Running<'a, 'b> {
    steps: Steps<'a, 'b>,
    /// Of the network, until now.
    evaluations: usize,
    shape: [usize; 4],
    started: Instant,
}

impl Sampling for Running<'_, '_> {
    type Error = Error;

    fn model_output(&mut self, model_input: &Tensor, timestep: f32) -> Result<Tensor, Error> {
        let on_progress = &mut *self.steps.on_progress;
        let keep_going = &mut || !stops(on_progress, Progress::Tick);
        self.evaluations += 1;
        self.steps
            .guidance
            .model_output(self.evaluations - 1, model_input, timestep, keep_going)
    }

    fn noise(&mut self, row: usize) -> Tensor {
        self.steps.noise.normal(Purpose::Step, row, self.shape)
    }

    fn settled(&mut self, row: usize, sample: Tensor) -> Tensor {
        match self.steps.kept {
            Some(kept) => kept.put_back(&sample, self.steps.schedule.rows.get(row + 1)),
            None => sample,
        }
    }

    fn after_step(&mut self, latents: &Tensor, denoised: &Tensor) -> Result<(), Error> {
        self.steps.timings.steps.push(self.started.elapsed());
        let (done, total) = (self.steps.timings.steps.len(), self.steps.total);
        // On a GPU each look would wait for it; what is not finite stays so until the last step.
        if done == total || !Device::current().is_gpu() {
            check_finite(latents, || format!("after step {done} of {total} the latents hold"))?;
        }
        let step = Progress::Step {
            done,
            total,
            latents,
            denoised,
        };
        tell(self.steps.on_progress, step)?;
        self.started = Instant::now();
        Ok(())
    }
}
