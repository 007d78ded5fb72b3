//! The fields of `txt2img` and `img2img`, and what they ask for. Where the web UI has defaults of its own (50 steps,
//! guidance 7), an absent field is the model's choice here: that is what few-step models need.

use super::hires::Hires;
use super::inpainting::MaskFields;
use super::names::{named, sampler_and_schedule};
use super::scripts;
use crate::app::App;
use crate::controls::Controls;
use crate::numbers::{flag, number, whole, whole_of};
use crate::refusal::{Refusal, short};
use prima_pipeline::{
    Blend, Control, Error, Mask, Picture, Pipeline, PromptSyntax, Request, RequestBuilder, ScheduleOptions,
    SchedulerKind, Spelling, without_ending,
};
use serde::Deserialize;
use serde_json::{Map, Value};

const SPELLING: Spelling = &[
    ("guidance_scale", "cfg_scale"),
    ("strength", "denoising_strength"),
    ("mask_padding", "inpaint_full_res_padding"),
    ("controlnet_conditioning_scale", "weight"),
    ("control_guidance_start", "guidance_start"),
    ("control_guidance_end", "guidance_end"),
    ("blend.share", "subseed_strength"),
];

/// What matters of a request; the rest is repeated in the answer and has no effect.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields {
    pub prompt: Option<String>,
    pub negative_prompt: Option<String>,
    styles: Option<Vec<String>>,
    #[serde(deserialize_with = "whole")]
    seed: Option<i128>,
    #[serde(deserialize_with = "number")]
    subseed_strength: Option<f64>,
    #[serde(deserialize_with = "whole")]
    subseed: Option<i128>,
    sampler_name: Option<String>,
    sampler_index: Option<String>,
    scheduler: Option<String>,
    #[serde(deserialize_with = "whole")]
    pub batch_size: Option<usize>,
    #[serde(deserialize_with = "whole")]
    pub n_iter: Option<usize>,
    #[serde(deserialize_with = "whole")]
    pub steps: Option<usize>,
    #[serde(deserialize_with = "number")]
    cfg_scale: Option<f64>,
    #[serde(deserialize_with = "whole")]
    pub width: Option<usize>,
    #[serde(deserialize_with = "whole")]
    pub height: Option<usize>,
    #[serde(deserialize_with = "number")]
    eta: Option<f64>,
    #[serde(deserialize_with = "number")]
    pub denoising_strength: Option<f64>,
    override_settings: Option<Map<String, Value>>,
    #[serde(deserialize_with = "flag")]
    restore_faces: Option<bool>,
    #[serde(deserialize_with = "flag")]
    tiling: Option<bool>,
    script_name: Option<String>,
    alwayson_scripts: Option<Map<String, Value>>,
    #[serde(deserialize_with = "flag")]
    pub send_images: Option<bool>,
    pub force_task_id: Option<String>,
    #[serde(deserialize_with = "flag")]
    pub include_init_images: Option<bool>,
    #[serde(flatten)]
    pub hires: Hires,
    #[serde(flatten)]
    pub inpainting: MaskFields,
    refiner_checkpoint: Option<String>,
    #[serde(flatten)]
    controls: Controls,
}

impl Fields {
    /// Pictures in all.
    pub fn count(&self, app: &App) -> Result<usize, Refusal> {
        let count = self.batch_size.unwrap_or(1).saturating_mul(self.n_iter.unwrap_or(1));
        let most = app.limits().variants;
        if !(1..=most).contains(&count) {
            let message = format!("batch_size times n_iter is {count}: use 1 to {most}");
            return Err(Refusal::field("batch_size", message));
        }
        Ok(count)
    }

    /// What would change the picture and does not exist here is refused by name.
    pub fn refuse_unsupported(&self, app: &App) -> Result<(), Refusal> {
        app.check_ready()?;
        let set = |flag: Option<bool>| flag.unwrap_or(false);
        let some = |name: &Option<String>| name.as_deref().is_some_and(|s| !["", "None"].contains(&s.trim()));
        let wanted = [
            ("restore_faces", set(self.restore_faces)),
            ("tiling", set(self.tiling)),
            ("styles", self.styles.as_ref().is_some_and(|s| !s.is_empty())),
            ("script_name", some(&self.script_name)),
        ];
        if let Some((name, _)) = wanted.iter().find(|(_, wanted)| *wanted) {
            return Err(Refusal::field(*name, format!("{name} is not supported: leave it out")));
        }
        if let Some(script) = self.alwayson_scripts.as_ref().and_then(scripts::wanted) {
            let script = short(script, 60);
            let message = format!("alwayson_scripts asks for {script:?}, which prima does not have: leave it out");
            return Err(Refusal::field("alwayson_scripts", message));
        }
        match self.model() {
            Some(model) if !app.engine.has_model(model) => {
                Err(Refusal::field("override_settings", app.no_model(model)))
            }
            _ => Ok(()),
        }
    }

    /// The seed on the way to which the picture is; none where its strength is nothing.
    fn variation(&self) -> Result<Option<Blend>, Refusal> {
        let share = self.subseed_strength.unwrap_or(0.0);
        if share == 0.0 {
            return Ok(None);
        }
        Ok(Some(Blend {
            share,
            seed: Some(prima_pipeline::seed(self.subseed)?),
            prompt: None,
        }))
    }

    /// The checkpoint that this request alone wants.
    pub fn model(&self) -> Option<&str> {
        let named = self.override_settings.as_ref()?.get("sd_model_checkpoint")?;
        named.as_str().filter(|name| !name.trim().is_empty())
    }

    /// The request of the first picture.
    pub fn to_request(
        &self,
        app: &App,
        start: Option<(Picture, Option<Mask>)>,
        controls: Vec<Control>,
    ) -> Result<Request, Refusal> {
        let (image, mask) = start.map_or((None, None), |(picture, mask)| (Some(picture), mask));
        // Of a masked picture the web UI paints as much anew as of others; a model's own choice is all.
        let strength = self.denoising_strength.or(mask.is_some().then_some(STRENGTH));
        let asked = RequestBuilder {
            prompt: Some(self.prompt.clone().unwrap_or_default()),
            negative_prompt: self.negative_prompt.clone(),
            guidance_scale: self.cfg_scale,
            seed: self.seed,
            blend: self.variation()?,
            width: self.width,
            height: self.height,
            schedule: self.schedule(app.pipeline()?.defaults().few_steps)?,
            clip_skip: self.clip_skip()?,
            image,
            mask,
            controls,
            strength,
            ..app.request(SPELLING)
        };
        let mut asked = self.controls.over(asked, PromptSyntax::A1111)?;
        asked.refiner_switch_at = self.refiner_switch_at(app, asked.refiner_switch_at)?;
        Ok(asked.build_for(app.pipeline()?)?)
    }

    /// When the refiner takes over: the web UI's programs send a number also where they name none.
    fn refiner_switch_at(&self, app: &App, switch_at: Option<f64>) -> Result<Option<f64>, Refusal> {
        let Some(wanted) = named(self.refiner_checkpoint.as_ref()).filter(|name| *name != "None") else {
            return Ok(None);
        };
        // A title may carry a hash.
        let plain = wanted.rsplit_once(" [").map_or(wanted, |(name, _)| name);
        match app.pipeline()?.refiner().map(Pipeline::name) {
            Some(here) if without_ending(plain) == without_ending(here) => Ok(Some(switch_at.unwrap_or(SWITCH_AT))),
            here => {
                let here = here.map_or("none".to_owned(), |here| format!("{here}, of --refiner"));
                let message = format!("there is no refiner {:?} here, but {here}", short(wanted, 60));
                Err(Refusal::field("refiner_checkpoint", message))
            }
        }
    }

    /// Layers beyond the last that are left out; the web UI counts the last one too.
    fn clip_skip(&self) -> Result<Option<usize>, Refusal> {
        let Some(value) = self.override_settings.as_ref().and_then(|s| s.get(STOP_AT)) else {
            return Ok(None);
        };
        let layer = whole_of(value).filter(|layer| (1..=12).contains(layer));
        let layer = layer.ok_or_else(|| {
            let value = short(&value.to_string(), 40);
            let message = format!("{STOP_AT} {value} is not possible: use 1 to 12");
            Refusal::field("override_settings", message)
        })?;
        Ok(Some(layer as usize - 1))
    }

    /// `few_steps`: of a model whose own timesteps no schedule of the web UI stands for.
    fn schedule(&self, few_steps: bool) -> Result<ScheduleOptions, Error> {
        let sampler = named(self.sampler_name.as_ref()).or_else(|| named(self.sampler_index.as_ref()));
        let (scheduler, spacing) = sampler_and_schedule(sampler, named(self.scheduler.as_ref()))?;
        let automatic = scheduler
            .filter(|_| !few_steps && named(self.scheduler.as_ref()).is_some())
            .and_then(SchedulerKind::automatic_spacing);
        let spacing = spacing.or(automatic);
        let takes_eta = matches!(
            scheduler,
            Some(SchedulerKind::Ddim | SchedulerKind::Tcd | SchedulerKind::EulerAncestral)
        );
        Ok(ScheduleOptions {
            num_inference_steps: self.steps,
            scheduler,
            spacing,
            eta: self.eta.filter(|_| takes_eta),
            ..ScheduleOptions::default()
        })
    }
}

/// Of `img2img`, where it does not say.
const STRENGTH: f64 = 0.75;
/// The share of the steps that the base takes.
const SWITCH_AT: f64 = 0.8;

/// The web UI's slider: of the text encoder's layers, the one from the end at which to stop.
const STOP_AT: &str = "CLIP_stop_at_last_layers";
