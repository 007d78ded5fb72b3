//! A model's own settings: its `prima.json`, or a preset chosen by what its configs say it is.

use crate::Error;
use crate::families::Family;
use crate::request::{MAX_SIDE_PX, MAX_STEPS};
use prima_checkpoint::in_range;
use prima_schedulers::{SchedulerKind, TimestepSpacing};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The optional file `prima.json` in a model folder. Every field is optional; what is absent is
/// taken from the preset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelCard {
    /// What the model is called in PNG files and lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_inference_steps: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_scale: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<usize>,
    /// Width and height of every picture that the model was trained on: other sizes are painted at the nearest and enlarged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<[usize; 2]>,
    /// For image-to-image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// The step counts that the model was distilled for; others warn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub step_counts: Vec<usize>,
    /// Explicit timesteps by step count, where the scheduler's own are not those of the distillation.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub timesteps: BTreeMap<usize, Vec<f64>>,
    /// Distilled without classifier-free guidance: `guidance_scale > 1` warns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_free: Option<bool>,
    /// Prompts that show what the model can do, for somebody who does not know yet what to type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<String>,
    /// What it learnt to paint, in groups, for browsing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vocabulary: Vec<WordGroup>,
}

/// Words of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WordGroup {
    /// Such as "things" or "places".
    pub name: String,
    pub words: Vec<String>,
}

impl ModelCard {
    /// Reads the text of `file`.
    pub fn parse(text: &str, file: &str) -> Result<Self, Error> {
        let message = |e: serde_json::Error| Error::Model {
            model: file.to_owned(),
            message: e.to_string(),
        };
        let card: Self = serde_json::from_str(text).map_err(message)?;
        card.check(file)?;
        Ok(card)
    }

    /// Numbers that no request could ask for either.
    fn check(&self, file: &str) -> Result<(), Error> {
        if let Some(steps) = self.num_inference_steps {
            in_range(file, "num_inference_steps", steps, 1..=MAX_STEPS)?;
        }
        if let Some(scale) = self.guidance_scale {
            in_range(file, "guidance_scale", scale, 0.0..=100.0)?;
        }
        for (field, side) in [("width", self.width), ("height", self.height)] {
            if let Some(side) = side {
                in_range(file, field, side, 8..=MAX_SIDE_PX)?;
            }
        }
        for side in self.sizes.iter().flatten() {
            in_range(file, "sizes", *side, 8..=MAX_SIDE_PX)?;
        }
        if let Some(strength) = self.strength {
            in_range(file, "strength", strength, 0.0..=1.0)?;
        }
        for &steps in &self.step_counts {
            in_range(file, "step_counts", steps, 1..=MAX_STEPS)?;
        }
        for (&steps, timesteps) in &self.timesteps {
            in_range(file, "timesteps' number of steps", steps, 1..=MAX_STEPS)?;
            in_range(
                file,
                &format!("length of timesteps[{steps}]"),
                timesteps.len(),
                steps..=steps,
            )?;
            for &timestep in timesteps {
                in_range(file, &format!("timesteps[{steps}]"), timestep, 0.0..=MAX_TIMESTEP)?;
            }
        }
        Ok(())
    }
}

/// More than any training process has.
const MAX_TIMESTEP: f64 = 1e5;

/// What the presets are chosen by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traits {
    pub family: &'static Family,
    pub scheduler: SchedulerKind,
    /// `timestep_spacing` of the scheduler config.
    pub spacing: Option<TimestepSpacing>,
    /// The network predicts the picture itself.
    pub predicts_sample: bool,
    /// The UNet takes the guidance scale as an input (`time_cond_proj_dim`).
    pub guidance_embedding: bool,
    /// Trained on EDM's noise.
    pub is_edm: bool,
    /// The UNet has SDXS's shape, which is distilled to one step.
    pub is_sdxs: bool,
    /// `sample_size` of the UNet in pixels.
    pub native_px: usize,
}

/// A model's settings with nothing left open.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    pub num_inference_steps: usize,
    pub guidance_scale: f64,
    pub width: usize,
    pub height: usize,
    /// Sizes (width, height) that the model can paint; any where this is empty.
    pub sizes: Vec<[usize; 2]>,
    pub strength: f64,
    pub step_counts: Vec<usize>,
    pub timesteps: BTreeMap<usize, Vec<f64>>,
    pub guidance_free: bool,
    /// Whether it was distilled for few steps, as its configs say or what it is known by.
    pub few_steps: bool,
    /// Stochasticity, of models that were distilled with another than their scheduler's own.
    pub eta: Option<f64>,
}

impl Defaults {
    pub(crate) fn new(card: &ModelCard, traits: Traits) -> Self {
        let preset = Preset::of(traits);
        Self {
            num_inference_steps: card.num_inference_steps.unwrap_or(preset.steps),
            guidance_scale: card.guidance_scale.unwrap_or(preset.guidance_scale),
            width: card.width.unwrap_or(traits.native_px),
            height: card.height.unwrap_or(traits.native_px),
            sizes: card.sizes.clone(),
            strength: card.strength.unwrap_or(0.5),
            step_counts: if card.step_counts.is_empty() {
                preset.step_counts.to_vec()
            } else {
                card.step_counts.clone()
            },
            timesteps: card.timesteps.clone(),
            guidance_free: card.guidance_free.unwrap_or(preset.guidance_free),
            few_steps: preset.is_distilled || card.num_inference_steps.is_some(),
            eta: None,
        }
    }
}

/// Of Playground 2.5 (its model card).
const EDM_GUIDANCE: f64 = 3.0;

/// What few-step models want (docs of SD-Turbo, SDXL-Turbo, SDXL-Lightning, LCM, Hyper-SD, SDXS).
struct Preset {
    steps: usize,
    guidance_scale: f64,
    step_counts: &'static [usize],
    guidance_free: bool,
    is_distilled: bool,
}

impl Preset {
    fn of(traits: Traits) -> Self {
        let few = |steps, step_counts| Self {
            steps,
            guidance_scale: 0.0,
            step_counts,
            guidance_free: true,
            is_distilled: true,
        };
        match (traits.scheduler, traits.spacing) {
            // LCM with its own UNet: guidance is an input.
            _ if traits.guidance_embedding => Self {
                steps: 4,
                guidance_scale: 8.0,
                step_counts: &[],
                guidance_free: false,
                is_distilled: true,
            },
            // SDXL-Lightning's one-step UNet predicts the picture.
            _ if traits.predicts_sample => few(1, &[1]),
            // SDXL-Turbo.
            (SchedulerKind::EulerAncestral, Some(TimestepSpacing::Trailing)) => few(1, &[1, 2, 3, 4]),
            _ if traits.is_sdxs => few(1, &[1]),
            (SchedulerKind::Euler, Some(TimestepSpacing::Trailing)) => {
                let (steps, step_counts) = traits.family.euler_trailing_steps;
                few(steps, step_counts)
            }
            // LCM-LoRA merged: weak guidance is allowed.
            (SchedulerKind::Lcm, _) => Self {
                steps: 4,
                guidance_scale: 1.0,
                step_counts: &[],
                guidance_free: false,
                is_distilled: true,
            },
            (SchedulerKind::Tcd, _) => few(4, &[]),
            _ => Self {
                steps: 30,
                guidance_scale: if traits.is_edm {
                    EDM_GUIDANCE
                } else {
                    traits.family.guidance_scale
                },
                step_counts: &[],
                guidance_free: false,
                is_distilled: false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::{STABLE_DIFFUSION, STABLE_DIFFUSION_XL};

    const BASE: Traits = Traits {
        family: &STABLE_DIFFUSION_XL,
        scheduler: SchedulerKind::Euler,
        spacing: Some(TimestepSpacing::Leading),
        predicts_sample: false,
        guidance_embedding: false,
        is_edm: false,
        is_sdxs: false,
        native_px: 1024,
    };

    #[test]
    fn presets_follow_from_the_configs() {
        let of = |traits| {
            let d = Defaults::new(&ModelCard::default(), traits);
            (d.num_inference_steps, d.guidance_scale, d.guidance_free)
        };
        assert_eq!(of(BASE), (30, 5.0, false));
        assert_eq!(
            of(Traits {
                spacing: Some(TimestepSpacing::Trailing),
                ..BASE
            }),
            (4, 0.0, true)
        );
        let sd = Traits {
            family: &STABLE_DIFFUSION,
            ..BASE
        };
        assert_eq!(of(sd), (30, 7.5, false));
        assert_eq!(
            of(Traits {
                spacing: Some(TimestepSpacing::Trailing),
                ..sd
            }),
            (1, 0.0, true),
            "SD-Turbo"
        );
        assert_eq!(of(Traits { is_sdxs: true, ..sd }), (1, 0.0, true));
        assert_eq!(
            of(Traits {
                scheduler: SchedulerKind::EulerAncestral,
                spacing: Some(TimestepSpacing::Trailing),
                ..BASE
            }),
            (1, 0.0, true)
        );
        assert_eq!(
            of(Traits {
                guidance_embedding: true,
                ..BASE
            }),
            (4, 8.0, false)
        );
        assert_eq!(
            of(Traits {
                predicts_sample: true,
                ..BASE
            }),
            (1, 0.0, true)
        );
    }

    #[test]
    fn the_card_outranks_the_preset() {
        let card = ModelCard::parse(
            r#"{"num_inference_steps": 4, "guidance_scale": 1, "width": 128, "height": 96, "timesteps": {"1": [399]}}"#,
            "prima.json",
        )
        .unwrap();
        let defaults = Defaults::new(&card, BASE);
        assert_eq!((defaults.num_inference_steps, defaults.guidance_scale), (4, 1.0));
        assert_eq!((defaults.width, defaults.height), (128, 96));
        assert_eq!(defaults.timesteps[&1], [399.0]);
    }

    #[test]
    fn a_misspelt_field_is_named() {
        let error = ModelCard::parse(r#"{"steps": 4}"#, "m/prima.json")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("m/prima.json: unknown field `steps`"), "{error}");
    }
}
