//! A prompt to pictures: the loop over steps (diffusers `pipeline_stable_diffusion_xl.py`).

use crate::adapters::Active;
use crate::canvas::Canvas;
use crate::guidance::Guidance;
use crate::image_to_image::{Start, Starter};
use crate::noise::NoiseSource;
use crate::refiner::Refining;
use crate::settings::Settings;
use crate::steps::{OnProgress, Steps, stops, tell};
use crate::{Error, Picture, Pipeline, Progress, Request, Response, Timings, vae};
use prima_tensor::{Tensor, device, no_grad, take_batch};
use std::time::Instant;

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
        let mut guidance = Guidance::new(self, request, &settings, &mut warnings, keep_going)?;
        timings.text_cached = guidance.text_cached();
        let refining = self.refining(request, &settings, keep_going)?;
        timings.text = text.elapsed();
        tell(on_progress, Progress::Text)?;

        let mut noise = NoiseSource::new(request.rng, request.seed, request.blend.as_ref());
        let canvas = Canvas::new(request, (settings.width, settings.height));
        let Start { latents, kept, beside } = self.start(
            request,
            &settings,
            canvas.as_ref(),
            &mut noise,
            &mut timings,
            on_progress,
        )?;
        guidance.beside = beside;
        guidance.steering = self.steering(request, &settings)?;
        let total = settings.schedule.len() + refining.as_ref().map_or(0, |part| part.settings.schedule.len());
        let mut latents = Steps {
            schedule: &settings.schedule,
            guidance: &guidance,
            kept: kept.as_ref(),
            noise: &mut noise,
            timings: &mut timings,
            on_progress,
            total,
        }
        .take(latents)?;
        if let Some(part) = &refining {
            let steps = Steps {
                schedule: &part.settings.schedule,
                guidance: &part.guidance,
                kept: kept.as_ref(),
                noise: &mut noise,
                timings: &mut timings,
                on_progress,
                total,
            };
            latents = steps.take(latents)?;
        }

        let decode = Instant::now();
        let decoder = refining.as_ref().map_or(self, |part| part.pipeline);
        let pictures = decoder.decoded(&latents, canvas.as_ref(), &settings, on_progress)?;
        timings.decode = decode.elapsed();
        timings.total = start.elapsed();
        Ok(Response {
            loras: active.used(),
            ..response(request, settings, refining.as_ref(), pictures, timings, warnings)
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

    /// Where sampling starts: noise, or a noised picture.
    fn start(
        &self,
        request: &Request,
        settings: &Settings,
        canvas: Option<&Canvas>,
        noise: &mut NoiseSource,
        timings: &mut Timings,
        on_progress: OnProgress,
    ) -> Result<Start, Error> {
        let vae = &self.parts.vae;
        let factor = vae.scale_factor();
        let started = Instant::now();
        let starter = Starter {
            vae,
            schedule: &settings.schedule,
            shape: [
                settings.num_images,
                settings.height / factor,
                settings.width / factor,
                vae.latent_channels(),
            ],
            reads_picture: self.parts.reads_picture(),
            noise,
            keep_going: &mut || !stops(on_progress, Progress::Tick),
        };
        let adds_noise = request.denoising_start.is_none();
        let Some(canvas) = canvas else {
            return starter.of_noise();
        };
        let start = match &canvas.mask {
            Some(mask) => starter.of_masked(canvas, mask, adds_noise, settings.strength == Some(1.0))?,
            None => starter.of_picture(canvas, adds_noise)?,
        };
        timings.init_image = started.elapsed();
        Ok(start)
    }

    /// Each of the latents as the answer shows it.
    fn decoded(
        &self,
        latents: &Tensor,
        canvas: Option<&Canvas>,
        settings: &Settings,
        on_progress: OnProgress,
    ) -> Result<Vec<Picture>, Error> {
        let total = settings.num_images;
        let mut pictures = Vec::with_capacity(total);
        for i in 0..total {
            let one = take_batch(latents, i, 1);
            let keep_going = &mut || !stops(on_progress, Progress::Tick);
            let painted = vae::decode(&self.parts.vae, &one, keep_going)?;
            pictures.extend(painted.into_iter().map(|picture| finished(picture, canvas, settings)));
            tell(on_progress, Progress::Decode { done: i + 1, total })?;
        }
        Ok(pictures)
    }
}

/// What was painted, at the size that was asked for: one that was painted over a picture was stretched with it.
fn finished(picture: Picture, canvas: Option<&Canvas>, settings: &Settings) -> Picture {
    let (width, height) = settings.finished;
    match canvas {
        Some(canvas) => canvas.finished(picture, settings.finished),
        None if (width, height) == (picture.width, picture.height) => picture,
        None => picture.covering(width, height),
    }
}

fn response(
    request: &Request,
    settings: Settings,
    refining: Option<&Refining>,
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
    let mut sigmas = schedule.sigmas[..schedule.timesteps.len()].to_vec();
    let mut timesteps = schedule.timesteps;
    if let Some(rest) = refining.map(|part| &part.settings.schedule) {
        sigmas.extend(&rest.sigmas[..rest.timesteps.len()]);
        timesteps.extend(&rest.timesteps);
    }
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
        refiner: refining.map(|part| part.pipeline.name().to_owned()),
        sigmas,
        timesteps,
        timings,
        loras: Vec::new(),
        warnings,
    }
}
