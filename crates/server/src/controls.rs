//! What a request may say beside its API's own fields, under diffusers' names, in every API.

use crate::numbers::{number, whole};
use crate::refusal::Refusal;
use prima_pipeline::{PromptSyntax, RequestBuilder};
use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Controls {
    prompt_2: Option<String>,
    negative_prompt_2: Option<String>,
    /// `auto`, `a1111` or `plain`.
    prompt_syntax: Option<String>,
    #[serde(deserialize_with = "number")]
    guidance_rescale: Option<f64>,
    #[serde(deserialize_with = "whole")]
    clip_skip: Option<usize>,
    /// This and the next two in diffusers' order: height and width, top and left.
    original_size: Option<[usize; 2]>,
    crops_coords_top_left: Option<[usize; 2]>,
    target_size: Option<[usize; 2]>,
    #[serde(deserialize_with = "number")]
    denoising_start: Option<f64>,
    #[serde(deserialize_with = "number")]
    denoising_end: Option<f64>,
    #[serde(deserialize_with = "number")]
    refiner_switch_at: Option<f64>,
    #[serde(deserialize_with = "number")]
    aesthetic_score: Option<f64>,
    #[serde(deserialize_with = "number")]
    negative_aesthetic_score: Option<f64>,
}

impl Controls {
    /// `asked` with these; `syntax` is what the API's programs mean where they do not say.
    pub fn over(&self, asked: RequestBuilder, syntax: PromptSyntax) -> Result<RequestBuilder, Refusal> {
        let prompt_syntax = match self.prompt_syntax.as_deref() {
            None | Some("") => syntax,
            Some(name) => name
                .parse()
                .map_err(|e: prima_pipeline::UnknownSyntax| Refusal::field("prompt_syntax", e.to_string()))?,
        };
        Ok(RequestBuilder {
            prompt_syntax,
            prompt_2: self.prompt_2.clone(),
            negative_prompt_2: self.negative_prompt_2.clone(),
            guidance_rescale: self.guidance_rescale,
            clip_skip: self.clip_skip.or(asked.clip_skip),
            original_size: self.original_size,
            crops_coords_top_left: self.crops_coords_top_left,
            target_size: self.target_size,
            denoising_start: self.denoising_start,
            denoising_end: self.denoising_end,
            refiner_switch_at: self.refiner_switch_at,
            aesthetic_score: self.aesthetic_score,
            negative_aesthetic_score: self.negative_aesthetic_score,
            ..asked
        })
    }
}
