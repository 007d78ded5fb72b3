//! A prompt to pictures: the loop over steps (diffusers `pipeline_stable_diffusion_xl.py`).

use crate::adapters::Active;
use crate::guidance::Guidance;
use crate::noise::{NoiseSource, Purpose};
use crate::sampling::{Sampling, sample};
use crate::settings::Settings;
use crate::vae::{self, check_finite};
use crate::{Error, Picture, Pipeline, Progress, Request, Response, Timings, image_to_image};
use prima_schedulers::Schedule;
use prima_tensor::{Device, Tensor, affine, device, no_grad, take_batch};
use std::ops::ControlFlow;
use std::time::Instant;

/// The caller's callback: told of each part of the work done, and asked whether to go on.
pub(crate) type OnProgress<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

impl Pipeline {
    /// Paints what `request` asks for. `on_progress` ends the work with [`Error::Cancelled`] by
    /// returning `Break`.
    pub fn paint(&self, request: &Request, on_progress: OnProgress) -> Result<Response, Error> {
        let start = Instant::now();
        let (request, active) = self.active(request)?;
        let adapters = active.adapters.clone();
        let paint = || no_grad(|| self.paint_off_the_tape(&request, active, start, on_progress));
        adapters.within(|| device::catch(paint))?
    }

    fn paint_off_the_tape(
        &self,
        request: &Request,
        active: Active,
        start: Instant,
        on_progress: OnProgress,
    ) -> Result<Response, Error> {
        let mut timings = Timings::default();
        let settings = Settings::new(self, request)?;
        let mut warnings = [settings.warnings.clone(), active.warnings.clone()].concat();

        let text = Instant::now();
        let keep_going = &mut || !stops(on_progress, Progress::Tick);
        let guidance = Guidance::new(self, request, &settings, &mut warnings, keep_going)?;
        timings.text = text.elapsed();
        timings.text_cached = guidance.text_cached();
        tell(on_progress, Progress::Text)?;

        let mut noise = NoiseSource::new(request.rng, request.seed);
        let latents = self.first_latents(request, &settings, &mut noise, &mut timings, on_progress)?;
        let mut steps = Steps {
            schedule: &settings.schedule,
            guidance: &guidance,
            evaluations: 0,
            noise: &mut noise,
            shape: [latents.dim(0), latents.dim(1), latents.dim(2), latents.dim(3)],
            timings: &mut timings,
            on_progress,
            started: Instant::now(),
        };
        let latents = sample(&settings.schedule, latents, &mut steps)?;

        let decode = Instant::now();
        let total = settings.num_images;
        let mut pictures = Vec::with_capacity(total);
        for i in 0..total {
            let one = take_batch(&latents, i, 1);
            let keep_going = &mut || !stops(on_progress, Progress::Tick);
            let painted = vae::decode(&self.parts.vae, &one, keep_going)?;
            pictures.extend(painted.into_iter().map(|picture| finished(picture, request, &settings)));
            tell(on_progress, Progress::Decode { done: i + 1, total })?;
        }
        timings.decode = decode.elapsed();
        timings.total = start.elapsed();
        Ok(Response {
            loras: active.used(),
            ..response(request, settings, pictures, timings, warnings)
        })
    }

    /// Whether [`paint`](Self::paint) would take this request on; costs next to nothing.
    pub fn check(&self, request: &Request) -> Result<(), Error> {
        let request = self.with_tags_read(request)?;
        Settings::new(self, &request).map(|_| ())
    }

    /// What a picture looks like on its way: the `denoised` of [`Progress::Step`], decoded.
    pub fn preview(&self, denoised: &Tensor) -> Result<Vec<Picture>, Error> {
        device::catch(|| no_grad(|| vae::decode(&self.parts.vae, denoised, &mut || true)))?
    }

    /// Where sampling starts: noise, or a noised picture. `[images, h, w, C]`.
    fn first_latents(
        &self,
        request: &Request,
        settings: &Settings,
        noise: &mut NoiseSource,
        timings: &mut Timings,
        on_progress: OnProgress,
    ) -> Result<Tensor, Error> {
        let vae = &self.parts.vae;
        let factor = vae.scale_factor();
        let shape = [
            settings.num_images,
            settings.height / factor,
            settings.width / factor,
            vae.latent_channels(),
        ];
        let Some(init_image) = &request.init_image else {
            let noise = noise.normal(Purpose::Latents, 0, shape);
            return Ok(affine(&noise, settings.schedule.init_noise_sigma as f32, 0.0));
        };
        let started = Instant::now();
        let picture = init_image.picture.resized(settings.width, settings.height);
        let keep_going = &mut || !stops(on_progress, Progress::Tick);
        let adds_noise = request.denoising_start.is_none();
        let latents = image_to_image::noised(vae, &picture, &settings.schedule, shape, adds_noise, noise, keep_going)?;
        timings.init_image = started.elapsed();
        Ok(latents)
    }
}

/// What was painted, at the size that was asked for: one that was painted over a picture was stretched with it.
fn finished(picture: Picture, request: &Request, settings: &Settings) -> Picture {
    let (width, height) = settings.finished;
    match &request.init_image {
        _ if (width, height) == (picture.width, picture.height) => picture,
        Some(_) => picture.resized(width, height),
        None => picture.covering(width, height),
    }
}

/// A request's steps: what [`sample`](crate::sampling::sample) asks for, timed and told.
struct Steps<'a, 'b> {
    schedule: &'a Schedule,
    guidance: &'a Guidance<'a>,
    /// Of the network, until now.
    evaluations: usize,
    noise: &'a mut NoiseSource,
    shape: [usize; 4],
    timings: &'a mut Timings,
    on_progress: OnProgress<'b>,
    started: Instant,
}

impl Sampling for Steps<'_, '_> {
    type Error = Error;

    fn model_output(&mut self, model_input: &Tensor, timestep: f32) -> Result<Tensor, Error> {
        let keep_going = &mut || !stops(self.on_progress, Progress::Tick);
        self.evaluations += 1;
        self.guidance
            .model_output(self.evaluations - 1, model_input, timestep, keep_going)
    }

    fn noise(&mut self, row: usize) -> Tensor {
        self.noise.normal(Purpose::Step, row, self.shape)
    }

    fn after_step(&mut self, latents: &Tensor, denoised: &Tensor) -> Result<(), Error> {
        self.timings.steps.push(self.started.elapsed());
        let (done, total) = (self.timings.steps.len(), self.schedule.len());
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
        tell(self.on_progress, step)?;
        self.started = Instant::now();
        Ok(())
    }
}

fn stops(on_progress: OnProgress, progress: Progress) -> bool {
    on_progress(progress).is_break()
}

fn tell(on_progress: OnProgress, progress: Progress) -> Result<(), Error> {
    if stops(on_progress, progress) {
        Err(Error::Cancelled)
    } else {
        Ok(())
    }
}

fn response(
    request: &Request,
    settings: Settings,
    pictures: Vec<Picture>,
    timings: Timings,
    warnings: Vec<String>,
) -> Response {
    let Settings {
        schedule,
        guidance_scale,
        strength,
        num_inference_steps,
        ..
    } = settings;
    Response {
        pictures,
        seed: request.seed,
        num_inference_steps,
        guidance_scale,
        scheduler: schedule.kind,
        timestep_spacing: schedule
            .spacing
            .map_or("explicit", prima_schedulers::TimestepSpacing::as_str)
            .to_owned(),
        strength,
        sigmas: schedule.sigmas[..schedule.timesteps.len()].to_vec(),
        timesteps: schedule.timesteps,
        timings,
        loras: Vec::new(),
        warnings,
    }
}
