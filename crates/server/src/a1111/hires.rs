//! `enable_hr`: the picture is painted, enlarged, and painted over at that size.

use super::names::{named, sampler_and_schedule};
use crate::app::App;
use crate::jobs::{self, Painted};
use crate::numbers::{flag, number, whole};
use crate::refusal::Refusal;
use crate::upscalers::Upscaler;
use crate::watch::Watch;
use prima_pipeline::{Error, InitImage, Request, RequestBuilder, Spelling};
use serde::Deserialize;
use std::sync::Arc;

/// The web UI's own defaults where a field is absent: twice the size, 0.75 of the way painted anew, as many steps.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Hires {
    #[serde(deserialize_with = "flag")]
    enable_hr: Option<bool>,
    #[serde(deserialize_with = "number")]
    hr_scale: Option<f64>,
    #[serde(deserialize_with = "whole")]
    hr_resize_x: Option<usize>,
    #[serde(deserialize_with = "whole")]
    hr_resize_y: Option<usize>,
    #[serde(deserialize_with = "whole")]
    hr_second_pass_steps: Option<usize>,
    #[serde(deserialize_with = "number")]
    hr_cfg: Option<f64>,
    hr_upscaler: Option<String>,
    hr_prompt: Option<String>,
    hr_negative_prompt: Option<String>,
    hr_sampler_name: Option<String>,
    hr_scheduler: Option<String>,
}

const STRENGTH: f64 = 0.75;

const SPELLING: Spelling = &[
    ("width", "hr_resize_x"),
    ("height", "hr_resize_y"),
    ("steps", "hr_second_pass_steps"),
    ("guidance_scale", "hr_cfg"),
];

/// The second pass over a picture.
pub(super) struct SecondPass {
    /// Without the picture to start from.
    request: Request,
    size: (usize, usize),
    upscaler: Upscaler,
    strength: f64,
}

impl Hires {
    /// What follows the first pass, where anything does; refused before anything is painted. `strength` is the client's.
    pub fn second_pass(
        &self,
        app: &App,
        first: &Request,
        strength: Option<f64>,
    ) -> Result<Option<SecondPass>, Refusal> {
        if !self.enable_hr.unwrap_or(false) {
            return Ok(None);
        }
        let upscaler = app
            .upscalers
            .named("hr_upscaler", named(self.hr_upscaler.as_ref()).unwrap_or("Latent"))?;
        let defaults = app.pipeline()?.defaults();
        let size = self.size((
            first.width.unwrap_or(defaults.width),
            first.height.unwrap_or(defaults.height),
        ));
        let mut request = Request {
            width: Some(size.0),
            height: Some(size.1),
            ..first.clone()
        };
        if let Some(prompt) = named(self.hr_prompt.as_ref()) {
            prompt.clone_into(&mut request.prompt);
        }
        if let Some(negative) = named(self.hr_negative_prompt.as_ref()) {
            request.negative_prompt = Some(negative.to_owned());
        }
        let sampler = named(self.hr_sampler_name.as_ref()).filter(|name| *name != "Use same sampler");
        let schedule = named(self.hr_scheduler.as_ref()).filter(|name| *name != "Use same scheduler");
        let (scheduler, spacing) = sampler_and_schedule(sampler, schedule)?;
        request.schedule.scheduler = scheduler.or(request.schedule.scheduler);
        request.schedule.spacing = spacing.or(request.schedule.spacing);
        request.guidance_scale = self.hr_cfg.filter(|scale| *scale > 0.0).or(request.guidance_scale);
        let steps = self.hr_second_pass_steps.filter(|steps| *steps > 0);
        request.schedule.num_inference_steps = steps.or(request.schedule.num_inference_steps);
        let strength = strength.unwrap_or(STRENGTH);
        if !(0.0..=1.0).contains(&strength) {
            let message = format!("denoising_strength {strength} is not possible: use 0 to 1");
            return Err(Refusal::field("denoising_strength", message));
        }
        // The limits of this server, and then those of the model.
        let RequestBuilder { limits, .. } = app.request(SPELLING);
        let spelled = |error: Error| error.spelled(SPELLING);
        request.validate_within(&limits).map_err(spelled)?;
        app.pipeline()?.check(&request).map_err(spelled)?;
        Ok(Some(SecondPass {
            request,
            size,
            upscaler,
            strength,
        }))
    }

    /// A side that is not given keeps the picture's shape; without both, `hr_scale` counts.
    fn size(&self, (width, height): (usize, usize)) -> (usize, usize) {
        let scaled = |side: usize, by: f64| ((side as f64 * by).round().clamp(0.0, 1e9) as usize).next_multiple_of(8);
        let given = |side: Option<usize>| side.filter(|side| *side > 0);
        match (given(self.hr_resize_x), given(self.hr_resize_y)) {
            (Some(x), Some(y)) => (x, y),
            (Some(x), None) => (x, scaled(height, x as f64 / width as f64)),
            (None, Some(y)) => (scaled(width, y as f64 / height as f64), y),
            (None, None) => {
                let by = self.hr_scale.unwrap_or(2.0);
                (scaled(width, by), scaled(height, by))
            }
        }
    }
}

impl SecondPass {
    /// Paints over what the first pass gave, each picture with its own seed.
    pub async fn paint(
        self,
        app: &App,
        seeds: &[u64],
        first: Vec<Painted>,
        watch: &Arc<Watch>,
    ) -> Result<Vec<Painted>, Refusal> {
        watch.next_pass(seeds.len());
        let mut requests = Vec::new();
        let mut said = Vec::new();
        for (painted, seed) in first.into_iter().zip(seeds) {
            said.extend(painted.response.into_iter().flat_map(|response| response.warnings));
            for (picture, _) in painted.pictures {
                let (size, upscaler) = (self.size, self.upscaler.clone());
                let bytes = upscaler.bytes((picture.width, picture.height), size);
                let upscalers = app.upscalers.clone();
                let enlarge = move || Ok(upscalers.enlarged(&picture.into(), size, &upscaler)?.picture);
                let picture = app.workshop.run(bytes, enlarge).await?;
                let strength = Some(self.strength);
                requests.push(Request {
                    seed: *seed,
                    init_image: Some(InitImage { picture, strength }),
                    ..self.request.clone()
                });
            }
        }
        let mut painted = jobs::start(app, "a1111", requests, watch, 0)?.all().await?;
        let fields = [
            ("Hires resize", format!("{}x{}", self.size.0, self.size.1)),
            ("Hires upscaler", self.upscaler.name().to_owned()),
        ];
        for (_, recipe) in painted.iter_mut().flat_map(|painted| &mut painted.pictures) {
            recipe
                .fields
                .extend(fields.clone().map(|(key, value)| (key.to_owned(), value)));
        }
        if let Some(response) = painted.first_mut().and_then(|painted| painted.response.as_mut()) {
            response.warnings.splice(0..0, said);
            response.warnings.extend(self.upscaler.said());
        }
        Ok(painted)
    }
}
