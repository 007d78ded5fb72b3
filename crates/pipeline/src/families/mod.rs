//! Families of models: what a `model_index.json` (or a single file that is recognised) leaves unsaid about the networks
//! beside it. A family is a row of constants in a file of its own; the configs say everything else.

mod components;
mod refusals;
mod stable_diffusion;
mod stable_diffusion_xl;

pub use components::{Replaced, known_scheduler, load_text_encoder, load_unet, load_vae, read, scheduler_config};
pub use stable_diffusion::STABLE_DIFFUSION;
pub use stable_diffusion_xl::STABLE_DIFFUSION_XL;

pub(crate) use components::{
    Listing, Weights, is_multiplied, network_bytes, path, text, text_encoders, unet, vae, weight_bytes,
};

use crate::Error;
use prima_checkpoint::ModelSource;
use prima_models::HiddenState;
use serde_json::Value;

/// What sets a family apart.
#[derive(Debug)]
pub struct Family {
    /// As the field calls it.
    pub name: &'static str,
    /// The `_class_name`s of its `model_index.json`.
    pub pipelines: &'static [&'static str],
    /// Its text encoders in the order in which their hidden states are put side by side.
    pub text_encoders: &'static [TextComponents],
    /// What its UNets read of each.
    pub hidden_state: HiddenState,
    /// `force_zeros_for_empty_prompt` where the index does not say: whether an absent negative prompt is zeros, or the
    /// empty text.
    pub force_zeros_for_empty_prompt: bool,
    /// `sample_size` of its UNets in latents, where their config does not say.
    pub sample_size: usize,
    /// For its models of many steps.
    pub guidance_scale: f64,
    /// Few-step models of the Euler scheduler with trailing timesteps: steps that they take by themselves, and all that
    /// they were distilled for.
    pub euler_trailing_steps: (usize, &'static [usize]),
}

/// The names of a text encoder's components in a model.
#[derive(Debug)]
pub struct TextComponents {
    pub tokenizer: &'static str,
    pub text_encoder: &'static str,
    /// Small models may go without it.
    pub is_optional: bool,
}

/// Every family that prima paints with.
pub const FAMILIES: [&Family; 2] = [&STABLE_DIFFUSION, &STABLE_DIFFUSION_XL];

impl Family {
    /// The family of a model; a model that belongs to none, or was made for another task, is refused by name.
    pub fn of(source: &ModelSource) -> Result<&'static Self, Error> {
        Self::of_index(source, &source.json("", "model_index.json")?)
    }

    /// [`of`](Self::of), where the model's index has been read.
    pub(crate) fn of_index(source: &ModelSource, index: &Value) -> Result<&'static Self, Error> {
        // Without a class it is taken for the layout of our own models.
        let class = index["_class_name"]
            .as_str()
            .unwrap_or(STABLE_DIFFUSION_XL.pipelines[0]);
        let family = FAMILIES.into_iter().find(|family| family.pipelines.contains(&class));
        let family = family.ok_or_else(|| refusals::unknown_pipeline(source, class))?;
        refusals::check_task(source)?;
        Ok(family)
    }
}
