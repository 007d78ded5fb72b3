//! A request with every choice made, and what is to be said about the choices.

use crate::known_models::{KnownBy, Recognised};
use crate::prompts::composed;
use crate::request::{MAX_SIDE_PX, check_area, check_side};
use crate::{Defaults, Error, Parts, Picture, Pipeline, Request};
use prima_schedulers::{Schedule, ScheduleOptions, SchedulerKind, TimestepSpacing};

/// What a request comes to on one model.
pub(crate) struct Settings {
    pub schedule: Schedule,
    pub guidance_scale: f64,
    /// What the network paints, in pixels ...
    pub width: usize,
    pub height: usize,
    /// ... and what becomes of it: width and height.
    pub finished: (usize, usize),
    pub num_images: usize,
    /// Only where there is an initial picture.
    pub strength: Option<f64>,
    /// Steps before `strength` took some away.
    pub num_inference_steps: usize,
    pub warnings: Vec<String>,
}

impl Settings {
    /// Of a whole request, or of what comes before its refiner.
    pub fn new(pipeline: &Pipeline, request: &Request) -> Result<Self, Error> {
        request.validate()?;
        if let (Some(switch), None) = (request.refiner_switch_at, &pipeline.refiner) {
            let fix = "no refiner is loaded: give one with --refiner";
            return Err(Error::request("refiner_switch_at", switch, fix));
        }
        for control in &request.controls {
            pipeline.controlnets.path(&control.name)?;
        }
        let end = request.refiner_switch_at.or(request.denoising_end);
        let mut settings = Self::between(pipeline, request, [request.denoising_start, end])?;
        if let Some(end) = request.denoising_end.filter(|end| *end < 1.0) {
            settings.warnings.push(format!(
                "denoising_end {end} leaves the picture noisy: go on from it with denoising_start {end}"
            ));
        }
        if pipeline.parts.is_refiner() && request.init_image.is_none() {
            let text = "this model is a refiner, which finishes pictures: give one to start from, or a base model";
            settings.warnings.push(text.to_owned());
        }
        if pipeline.parts.reads_picture() && request.mask.is_none() {
            let text = "this is an inpainting model: without a picture and its mask all of it is painted, as if all were masked";
            settings.warnings.push(text.to_owned());
        }
        Ok(settings)
    }

    /// Of the steps that are left to `refiner`, where `base` settled those before.
    pub fn of_refiner(refiner: &Pipeline, request: &Request, base: &Self) -> Result<Self, Error> {
        let rest = Request {
            width: Some(base.width),
            height: Some(base.height),
            guidance_scale: Some(base.guidance_scale),
            schedule: ScheduleOptions {
                num_inference_steps: Some(base.num_inference_steps),
                ..request.schedule.clone()
            },
            init_image: None,
            mask: None,
            loras: Vec::new(),
            ..request.clone()
        };
        Self::between(refiner, &rest, [request.refiner_switch_at, request.denoising_end])
    }

    fn between(pipeline: &Pipeline, request: &Request, [start, end]: [Option<f64>; 2]) -> Result<Self, Error> {
        let parts = &pipeline.parts;
        refuse_unknown_scheduler(parts, &request.schedule)?;
        // A name is a hint, and guidance that it does not allow says that it misleads.
        let by_lora = pipeline.known_lora(request);
        let hinted = by_lora.as_ref().or(parts.known.as_ref());
        let known = hinted.filter(|known| known.allows(request.guidance_scale));
        let of_lora = by_lora
            .as_ref()
            .map(|known| known.defaults(pipeline.own_defaults.clone()));
        let of_known = of_lora.as_ref().unwrap_or(&pipeline.defaults);
        let (config, defaults) = match known {
            Some(known) => (known.scheduler_config(&parts.scheduler_config), of_known),
            None => (parts.scheduler_config.clone(), &pipeline.own_defaults),
        };
        let strength = request.init_image.as_ref().map(|image| {
            image
                .strength
                .unwrap_or(if request.mask.is_some() { 1.0 } else { defaults.strength })
        });
        let only_step = strength
            .filter(|_| start.is_none())
            .and_then(|s| only_step(defaults, &request.schedule, s, config.num_train_timesteps()));
        let mut options = match &only_step {
            Some(options) => options.clone(),
            None => schedule_options(defaults, &request.schedule, strength.is_some()),
        };
        // Only SDXL's kind of UNet takes a pooled prompt and sizes.
        if pipeline.parts.unet.config().addition_embed_type.is_some() {
            options.spacing = options.spacing.map(TimestepSpacing::for_sdxl);
        }
        let mut schedule = Schedule::new(&config, &options).map_err(Error::Schedule)?;
        let num_inference_steps = schedule.len();
        match (strength, only_step) {
            (Some(_), None) if start.is_some() => {}
            (Some(strength), None) => schedule = schedule.truncate(strength).map_err(Error::Schedule)?,
            _ => {}
        }
        if start.is_some() || end.is_some() {
            let train = config.num_train_timesteps();
            schedule = schedule.between(start, end, train).map_err(Error::Schedule)?;
        }
        let finished = size(pipeline, request)?;
        let (width, height) = painted(&defaults.sizes, finished, pipeline.size_multiple());
        let mut settings = Self {
            guidance_scale: request.guidance_scale.unwrap_or(defaults.guidance_scale),
            width,
            height,
            finished,
            num_images: request.num_images,
            strength: strength.filter(|_| start.is_none()),
            num_inference_steps,
            warnings: schedule.warnings().to_vec(),
            schedule,
        };
        if let (Some(replaced), None) = (&parts.replaced_scheduler, request.schedule.scheduler) {
            let (kind, class) = (settings.schedule.kind, &replaced.class);
            settings.warnings.push(format!(
                "the model names {class}, which prima does not have: {kind} takes the steps"
            ));
        }
        settings.warnings.extend(hint(hinted, known.is_some(), request));
        settings.warn(defaults, request, pipeline.guidance_embedding_dim().is_some());
        Ok(settings)
    }

    /// Says what few-step models are commonly asked for in vain.
    fn warn(&mut self, defaults: &Defaults, request: &Request, guidance_embedding: bool) {
        let ((w, h), (width, height)) = (self.finished, (self.width, self.height));
        if (w, h) != (width, height) {
            self.warnings.push(if w.abs_diff(width).max(h.abs_diff(height)) < 32 {
                format!("pictures are painted in whole blocks: that of {w}x{h} is made from one of {width}x{height}")
            } else {
                format!(
                    "this model paints {width}x{height}: the picture of {w}x{h} is made from that, without more detail"
                )
            });
        }
        let g = self.guidance_scale;
        let guided = g > 1.0 && !guidance_embedding;
        let negative = request
            .negative_prompt
            .as_deref()
            .is_some_and(|text| !text.trim().is_empty());
        if guided && defaults.guidance_free {
            // Not "use 0" to whoever was told that a negative prompt needs more than 1.
            let fix = if negative {
                "the negative prompt needs some: stay little above 1, or say in the prompt what there should be instead"
            } else {
                "use 0"
            };
            self.warnings.push(format!(
                "this model was distilled to work without guidance: guidance_scale {g} doubles the work and spoils the colours; {fix}"
            ));
        }
        if request.negative_prompt_2.is_some() && request.negative_prompt.is_none() {
            let text = "negative_prompt_2 has no effect without a negative prompt";
            self.warnings.push(text.to_owned());
        }
        if negative && !guided && !composed_unevenly(request) {
            self.warnings.push(if guidance_embedding {
                "the negative prompt has no effect: this model takes its guidance as an input".to_owned()
            } else if defaults.guidance_free {
                "the negative prompt has no effect: this model was distilled to work without guidance, through which it would act; say in the prompt what there should be instead".to_owned()
            } else {
                format!("the negative prompt has no effect at guidance_scale {g}: it needs more than 1")
            });
        }
        let counts = &defaults.step_counts;
        if !counts.is_empty() && !counts.contains(&self.num_inference_steps) {
            let known: Vec<String> = counts.iter().map(usize::to_string).collect();
            self.warnings.push(format!(
                "this model was distilled for {} steps, not {}",
                known.join(", "),
                self.num_inference_steps
            ));
        }
    }
}

impl Pipeline {
    /// Width and height in pixels at which an initial picture is painted over where the request does
    /// not say: its own, if the model can be expected to cope, else the same shape at the model's area.
    pub fn fit(&self, picture: &Picture) -> (usize, usize) {
        self.fit_size(picture.width, picture.height)
    }

    /// [`fit`](Self::fit), of a picture of that size.
    pub fn fit_size(&self, width: usize, height: usize) -> (usize, usize) {
        let defaults = self.defaults();
        fit((width, height), defaults.width * defaults.height, self.size_multiple())
    }
}

/// A scheduler of another noise can only be replaced by who asks.
fn refuse_unknown_scheduler(parts: &Parts, asked: &ScheduleOptions) -> Result<(), Error> {
    let unknown = parts
        .replaced_scheduler
        .as_ref()
        .filter(|replaced| !replaced.same_noise);
    let (Some(replaced), None) = (unknown, asked.scheduler) else {
        return Ok(());
    };
    Err(match replaced.class.parse::<SchedulerKind>() {
        Err(source) => Error::SchedulerConfig {
            file: format!(
                "scheduler_config.json of {} (or choose one with --scheduler)",
                parts.name
            ),
            source,
        },
        Ok(_) => return Ok(()),
    })
}

/// What a name was taken to say, where something was left to it.
fn hint(known: Option<&Recognised>, is_followed: bool, request: &Request) -> Option<String> {
    let known = known?;
    if let (false, Some(scale)) = (is_followed, request.guidance_scale) {
        return Some(known.contradicted(scale));
    }
    let asked = &request.schedule;
    let is_scheduled = asked.timesteps.is_some() || (asked.scheduler.is_some() && asked.spacing.is_some());
    let leaves_open = asked.num_inference_steps.is_none() || request.guidance_scale.is_none() || !is_scheduled;
    (known.by == KnownBy::FileName && leaves_open).then(|| known.sentence())
}

/// The request's choices over the model's: explicit timesteps of the model's card stand only where
/// the request leaves scheduler and spacing alone, and starts from noise: they may all lie where little of an initial
/// picture is left.
fn schedule_options(defaults: &Defaults, request: &ScheduleOptions, init_image: bool) -> ScheduleOptions {
    let mut options = request.clone();
    if options.timesteps.is_none() {
        let steps = options.num_inference_steps.unwrap_or(defaults.num_inference_steps);
        options.num_inference_steps = Some(steps);
        if options.scheduler.is_none() && options.spacing.is_none() && !init_image {
            options.timesteps = defaults.timesteps.get(&steps).cloned();
        }
    }
    if options.scheduler.is_none() {
        options.eta = options.eta.or(defaults.eta);
    }
    options
}

/// For a model that by itself takes fewer than `1 / strength` steps, where the request leaves the schedule to it: one step from
/// just as much noise as `strength` says. diffusers would take none; a step from pure noise would lose the picture.
fn only_step(
    defaults: &Defaults,
    request: &ScheduleOptions,
    strength: f64,
    train_timesteps: usize,
) -> Option<ScheduleOptions> {
    let untouched = *request == ScheduleOptions::default();
    if !untouched || defaults.num_inference_steps as f64 * strength >= 1.0 {
        return None;
    }
    Some(ScheduleOptions {
        num_inference_steps: Some(1),
        timesteps: Some(vec![(train_timesteps as f64 * strength - 1.0).round().max(0.0)]),
        ..ScheduleOptions::default()
    })
}

/// Width and height in pixels: the request's, else the initial picture's, else the model's.
fn size(pipeline: &Pipeline, request: &Request) -> Result<(usize, usize), Error> {
    let defaults = pipeline.defaults();
    let is_cut_out = request.mask.as_ref().is_some_and(|mask| mask.padding_px.is_some());
    let (width, height) = match &request.init_image {
        Some(image) if !is_cut_out => pipeline.fit(&image.picture),
        _ => (defaults.width, defaults.height),
    };
    let (width, height) = (request.width.unwrap_or(width), request.height.unwrap_or(height));
    check_side("width", width, MAX_SIDE_PX)?;
    check_side("height", height, MAX_SIDE_PX)?;
    check_area(width, height)?;
    Ok((width, height))
}

/// Whether the negative prompt has a share in what `AND` joins without guidance.
fn composed_unevenly(request: &Request) -> bool {
    let parts = composed(&request.prompt, request.prompt_syntax);
    (parts.iter().map(|(_, weight)| weight).sum::<f64>() - 1.0).abs() > 1e-9
}

/// Of the `sizes` that a model paints, the one to make a picture of another size from: the nearest in shape, then in area.
/// A model without such sizes paints all whose sides are multiples of `multiple`.
fn painted(sizes: &[[usize; 2]], (width, height): (usize, usize), multiple: usize) -> (usize, usize) {
    let distance = |&&[w, h]: &&[usize; 2]| {
        let shape = ((w * height) as f64 / (h * width) as f64).ln().abs();
        let area = ((w * h) as f64 / (width * height) as f64).ln().abs();
        // Shapes that differ by less than a rounded side are the same.
        ((shape * 50.0).round() as usize, (area * 1000.0) as usize)
    };
    if let Some(&[w, h]) = sizes.iter().min_by_key(distance) {
        return (w, h);
    }
    let most = MAX_SIDE_PX / multiple * multiple;
    let side = |px: usize| px.next_multiple_of(multiple).min(most);
    // Up, but not beyond what is painted at most.
    let (w, h) = (side(width), side(height));
    if check_area(w, h).is_ok() {
        (w, h)
    } else {
        (width / multiple * multiple, height / multiple * multiple)
    }
}

/// The size at which an initial picture is painted over: its own, if the model can be expected to
/// cope (twice its own area), else the same shape at the model's area.
fn fit((width, height): (usize, usize), native_area: usize, multiple: usize) -> (usize, usize) {
    let area = (width * height).max(1) as f64;
    let native = native_area as f64;
    let scale = if area > 2.0 * native {
        (native / area).sqrt()
    } else {
        1.0
    };
    let side = |px: usize| {
        let px = (px as f64 * scale) as usize / multiple * multiple;
        px.clamp(multiple, MAX_SIDE_PX / multiple * multiple)
    };
    (side(width), side(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_initial_picture_keeps_its_shape() {
        let of = |width, height| fit((width, height), 512 * 512, 8);
        assert_eq!(of(515, 401), (512, 400));
        assert_eq!(of(4000, 3000), (584, 440));
        assert_eq!(of(3, 9000), (8, 4096));
    }

    #[test]
    fn a_size_that_the_model_does_not_paint_is_made_from_the_nearest_shape() {
        let sizes = [[256, 256], [320, 208], [208, 320], [128, 128]];
        let of = |width, height| painted(&sizes, (width, height), 8);
        assert_eq!(of(512, 512), (256, 256));
        assert_eq!(of(64, 64), (128, 128));
        assert_eq!(of(320, 208), (320, 208));
        assert_eq!(of(1920, 1080), (320, 208));
        assert_eq!(of(600, 900), (208, 320));
        assert_eq!(painted(&[], (600, 904), 8), (600, 904));
        assert_eq!(painted(&[], (601, 500), 8), (608, 504));
        assert_eq!(painted(&[], (2047, 2049), 64), (1984, 2048));
    }

    fn defaults(card: &str) -> Defaults {
        let traits = crate::model_card::Traits {
            family: &crate::families::STABLE_DIFFUSION_XL,
            scheduler: prima_schedulers::SchedulerKind::Lcm,
            spacing: None,
            predicts_sample: false,
            guidance_embedding: false,
            is_edm: false,
            is_sdxs: false,
            native_px: 64,
        };
        Defaults::new(&crate::ModelCard::parse(card, "p").unwrap(), traits)
    }

    #[test]
    fn the_cards_timesteps_yield_to_the_request() {
        let defaults = defaults(r#"{"timesteps": {"1": [399], "4": [999, 749, 499, 249]}}"#);
        let of = |options| schedule_options(&defaults, &options, false);
        assert_eq!(
            of(ScheduleOptions::default()).timesteps,
            Some(vec![999.0, 749.0, 499.0, 249.0])
        );
        assert_eq!(of(ScheduleOptions::steps(1)).timesteps, Some(vec![399.0]));
        assert_eq!(
            schedule_options(&defaults, &ScheduleOptions::steps(1), true).timesteps,
            None
        );
        assert_eq!(of(ScheduleOptions::steps(2)).timesteps, None);
        let lcm = Some(prima_schedulers::TimestepSpacing::Lcm);
        assert_eq!(
            of(ScheduleOptions {
                spacing: lcm,
                ..ScheduleOptions::default()
            })
            .timesteps,
            None
        );
        let own = Some(vec![5.0]);
        assert_eq!(
            of(ScheduleOptions {
                timesteps: own.clone(),
                ..ScheduleOptions::default()
            })
            .timesteps,
            own
        );
    }

    #[test]
    fn a_picture_painted_over_in_one_step_keeps_as_much_as_strength_says() {
        let defaults = defaults(r#"{"num_inference_steps": 2}"#);
        let of = |options: ScheduleOptions, strength| only_step(&defaults, &options, strength, 1000);
        let untouched = ScheduleOptions::default;
        assert_eq!(of(untouched(), 0.3).and_then(|o| o.timesteps), Some(vec![299.0]));
        assert_eq!(of(untouched(), 0.0).and_then(|o| o.timesteps), Some(vec![0.0]));
        assert!(of(untouched(), 0.5).is_none(), "diffusers' rule leaves a step");
        assert!(of(ScheduleOptions::steps(1), 0.3).is_none(), "the steps were asked for");
    }
}
