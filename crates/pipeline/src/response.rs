//! What a request gives, and what its pictures say of their making.

use crate::control::{Control, MAX_CONTROLS};
use crate::mask::Mask;
use crate::request::Request;
use crate::{Parameters, Picture, PromptSyntax, UsedLora};
use prima_schedulers::SchedulerKind;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Wall-clock times of one request.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Timings {
    /// Prompts to conditioning; next to nothing when they were in the cache.
    pub text: Duration,
    /// Whether the prompts were in the cache.
    pub text_cached: bool,
    /// The initial picture to latents.
    pub init_image: Duration,
    /// Each step: network (asked twice by some schedulers) and scheduler, all pictures of the request.
    pub steps: Vec<Duration>,
    /// Latents to pictures, all of them.
    pub decode: Duration,
    /// From the call to the return.
    pub total: Duration,
}

/// The pictures and how they came about, every default filled in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Response {
    pub pictures: Vec<Picture>,
    pub seed: u64,
    pub num_inference_steps: usize,
    pub guidance_scale: f64,
    pub scheduler: SchedulerKind,
    /// A name of `--timestep-spacing`, or `explicit`.
    pub timestep_spacing: String,
    /// Only where an initial picture was given.
    pub strength: Option<f64>,
    /// The refiner that took the last steps.
    #[serde(default)]
    pub refiner: Option<String>,
    /// The timestep at which each step began, in order.
    pub timesteps: Vec<f64>,
    /// The noise level before each of them, in units of the data's standard deviation.
    pub sigmas: Vec<f64>,
    pub timings: Timings,
    #[serde(default)]
    pub loras: Vec<UsedLora>,
    /// What was asked and does not do what one might think, one sentence each.
    pub warnings: Vec<String>,
}

/// As the web UI numbers them.
const CONTROL_KEYS: [&str; MAX_CONTROLS] = [
    "ControlNet 0",
    "ControlNet 1",
    "ControlNet 2",
    "ControlNet 3",
    "ControlNet 4",
    "ControlNet 5",
    "ControlNet 6",
    "ControlNet 7",
];

/// What else there is than one prompt: another on the way, and those of regions.
fn other_prompts(request: &Request) -> Vec<(&'static str, String)> {
    let mut fields = Vec::new();
    if let Some(blend) = &request.blend {
        fields.extend(blend.seed.map(|seed| ("Variation seed", seed.to_string())));
        fields.push(("Variation seed strength", blend.share.to_string()));
        fields.extend(blend.prompt.clone().map(|prompt| ("Blend prompt", prompt)));
    }
    if !request.regions.is_empty() {
        let json = serde_json::to_string(&request.regions).ok();
        fields.extend(json.map(|json| ("Regions", json)));
    }
    fields
}

impl Response {
    /// What other networks had a part in it.
    fn others(&self, request: &Request) -> Vec<(&'static str, String)> {
        let mut fields = Vec::new();
        if let (Some(refiner), Some(switch)) = (&self.refiner, request.refiner_switch_at) {
            fields.push(("Refiner", refiner.clone()));
            fields.push(("Refiner switch at", switch.to_string()));
        }
        for (i, control) in request.controls.iter().enumerate().take(CONTROL_KEYS.len()) {
            let Control {
                name,
                preprocessor,
                scale,
                start,
                end,
                ..
            } = control;
            let preprocessor = preprocessor.name();
            let told = format!(
                "Module: {preprocessor}, Model: {name}, Weight: {scale}, Guidance Start: {start}, Guidance End: {end}"
            );
            fields.push((CONTROL_KEYS[i], told));
        }
        fields
    }

    /// What picture number `index` says of its own making: that `model` of this name painted it for `request`.
    pub fn parameters(&self, request: &Request, model: &str, index: usize) -> Parameters {
        let (width, height) = self.pictures.get(index).map_or((0, 0), |p| (p.width, p.height));
        let mut fields = vec![
            ("Steps", self.num_inference_steps.to_string()),
            ("Sampler", self.scheduler.a1111_name().to_owned()),
            ("Schedule type", self.timestep_spacing.clone()),
            ("CFG scale", self.guidance_scale.to_string()),
            ("Seed", self.seed.to_string()),
            ("Size", format!("{width}x{height}")),
            ("Model", model.to_owned()),
            ("RNG", request.rng.name().to_owned()),
        ];
        if let Some(timesteps) = &request.schedule.timesteps {
            let timesteps: Vec<String> = timesteps.iter().map(f64::to_string).collect();
            fields.push(("Timesteps", timesteps.join(" ")));
        }
        if let Some(strength) = self.strength {
            fields.push(("Denoising strength", strength.to_string()));
        }
        fields.extend(other_prompts(request));
        fields.extend(self.others(request));
        fields.extend(request.mask.iter().flat_map(Mask::fields));
        if request.clip_skip > 0 {
            // The web UI counts the last layer too.
            fields.push(("Clip skip", (request.clip_skip + 1).to_string()));
        }
        if request.guidance_rescale > 0.0 {
            fields.push(("Guidance rescale", request.guidance_rescale.to_string()));
        }
        for (key, text) in [
            ("Prompt 2", &request.prompt_2),
            ("Negative prompt 2", &request.negative_prompt_2),
        ] {
            fields.extend(text.clone().map(|text| (key, text)));
        }
        if request.prompt_syntax != PromptSyntax::default() {
            fields.push(("Prompt syntax", request.prompt_syntax.to_string()));
        }
        for (key, share) in [
            ("Denoising start", request.denoising_start),
            ("Denoising end", request.denoising_end),
        ] {
            fields.extend(share.map(|share| (key, share.to_string())));
        }
        if let Some([height, width]) = request.original_size {
            fields.push(("Original size", format!("{width}x{height}")));
        }
        let [top, left] = request.crops_coords_top_left;
        if (top, left) != (0, 0) {
            fields.push(("Crop top left", format!("{top} {left}")));
        }
        if let Some([height, width]) = request.target_size {
            fields.push(("Target size", format!("{width}x{height}")));
        }
        let hashes = self
            .loras
            .iter()
            .filter_map(|lora| Some(format!("{}: {}", lora.choice.name, lora.hash.get()?)));
        let hashes: Vec<String> = hashes.collect();
        if !hashes.is_empty() {
            fields.push(("Lora hashes", hashes.join(", ")));
        }
        if self.pictures.len() > 1 {
            fields.push(("Image index", index.to_string()));
            fields.push(("Batch size", self.pictures.len().to_string()));
        }
        fields.push(("Version", format!("prima {}", env!("CARGO_PKG_VERSION"))));
        // Those that were asked for in another way are written where other programs look for them.
        let tags = self.loras.iter().filter(|lora| !lora.in_prompt);
        let prompt = tags.fold(request.prompt.clone(), |prompt, lora| {
            format!("{prompt} {}", lora.choice.tag())
        });
        Parameters {
            prompt,
            negative_prompt: request.negative_prompt.clone().unwrap_or_default(),
            fields: fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        }
    }
}
