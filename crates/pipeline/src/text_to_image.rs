//! A prompt to pictures: the loop over steps (diffusers `pipeline_stable_diffusion_xl.py`).

use crate::guidance::Guidance;
use crate::noise::{NoiseSource, Purpose};
use crate::settings::Settings;
use crate::vae::{self, check_finite};
use crate::{Error, Pipeline, Progress, Request, Response, Timings, image_to_image};
use prima_schedulers::{Schedule, State};
use prima_tensor::{Device, Tensor, affine, device, no_grad, take_batch, weighted_sum};
use std::ops::ControlFlow;
use std::time::Instant;

/// The caller's callback: told of each part of the work done, and asked whether to go on.
pub(crate) type OnProgress<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

impl Pipeline {
    /// Paints what `request` asks for. `on_progress` ends the work with [`Error::Cancelled`] by
    /// returning `Break`.
    pub fn paint(&self, request: &Request, on_progress: OnProgress) -> Result<Response, Error> {
        device::catch(|| no_grad(|| self.paint_off_the_tape(request, on_progress)))?
    }

    fn paint_off_the_tape(&self, request: &Request, on_progress: OnProgress) -> Result<Response, Error> {
        let start = Instant::now();
        let mut timings = Timings::default();
        let settings = Settings::new(self, request)?;
        let mut warnings = settings.warnings.clone();

        let text = Instant::now();
        let guidance = Guidance::new(self, request, &settings, &mut warnings)?;
        timings.text = text.elapsed();
        timings.text_cached = guidance.text_cached;
        tell(on_progress, Progress::Text)?;

        let mut noise = NoiseSource::new(request.rng, request.seed);
        let latents = self.first_latents(request, &settings, &mut noise, &mut timings, on_progress)?;
        let latents = denoise(
            &settings.schedule,
            &guidance,
            latents,
            &mut noise,
            &mut timings,
            on_progress,
        )?;

        let decode = Instant::now();
        let total = settings.num_images;
        let mut pictures = Vec::with_capacity(total);
        for i in 0..total {
            let one = take_batch(&latents, i, 1);
            let keep_going = &mut || !stops(on_progress, Progress::Tick);
            pictures.extend(vae::decode(&self.parts.vae, &one, keep_going)?);
            tell(on_progress, Progress::Decode { done: i + 1, total })?;
        }
        timings.decode = decode.elapsed();
        timings.total = start.elapsed();
        Ok(response(request, settings, pictures, timings, warnings))
    }

    /// Whether [`paint`](Self::paint) would take this request on; costs next to nothing.
    pub fn check(&self, request: &Request) -> Result<(), Error> {
        Settings::new(self, request).map(|_| ())
    }

    /// What a picture looks like on its way: the `denoised` of [`Progress::Step`], decoded.
    pub fn preview(&self, denoised: &Tensor) -> Result<Vec<crate::Picture>, Error> {
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
        let latents = image_to_image::noised(vae, &picture, &settings.schedule, shape, noise, keep_going)?;
        timings.init_image = started.elapsed();
        Ok(latents)
    }
}

/// Noisy latents to clean ones: per row of the schedule one (guided) network evaluation and what
/// follows from it.
fn denoise(
    schedule: &Schedule,
    guidance: &Guidance,
    latents: Tensor,
    noise: &mut NoiseSource,
    timings: &mut Timings,
    on_progress: OnProgress,
) -> Result<Tensor, Error> {
    let total = schedule.len();
    let on_cpu = Device::current().memory()?.is_none();
    let shape = [latents.dim(0), latents.dim(1), latents.dim(2), latents.dim(3)];
    let mut state = State::new(latents);
    let mut started = Instant::now();
    for (i, row) in schedule.rows.iter().enumerate() {
        let model_input = affine(&state.sample, row.input_scale as f32, 0.0);
        let keep_going = &mut || !stops(on_progress, Progress::Tick);
        let model_output = guidance.model_output(&model_input, row.timestep as f32, keep_going)?;
        let fresh = row
            .needs_noise()
            .then(|| noise.normal(Purpose::Step, schedule.start_index + i, shape));
        let denoised = state.advance(row, &model_output, fresh.as_ref(), sum);
        if !row.ends_step {
            continue;
        }
        timings.steps.push(started.elapsed());
        let done = timings.steps.len();
        // On a GPU each look would wait for it; what is not finite stays so until the last step.
        if on_cpu || done == total {
            check_finite(&state.sample, || {
                format!("after step {done} of {total} the latents hold")
            })?;
        }
        tell(
            on_progress,
            Progress::Step {
                done,
                total,
                latents: &state.sample,
                denoised: &denoised,
            },
        )?;
        started = Instant::now();
    }
    Ok(state.sample)
}

/// `weighted_sum`, of as many terms as there are.
fn sum(terms: &[(f64, &Tensor)]) -> Tensor {
    match terms.split_at_checked(4) {
        Some((four, rest)) if !rest.is_empty() => {
            let four = weighted_sum(four);
            let terms: Vec<(f64, &Tensor)> = [(1.0, &four)].into_iter().chain(rest.iter().copied()).collect();
            sum(&terms)
        }
        _ => weighted_sum(terms),
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
    pictures: Vec<crate::Picture>,
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
        warnings,
    }
}
