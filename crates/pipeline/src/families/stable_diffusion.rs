//! Stable Diffusion 1.x and 2.x and what was distilled from them: SD-Turbo, SDXS, LCM, BK-SDM, TinySD (diffusers
//! `pipeline_stable_diffusion.py`, `pipeline_latent_consistency_text2img.py`, 0.42.1). 1.x and 2.x differ in their
//! configs only: CLIP-L or OpenCLIP-H without its last layer, epsilon or v.

use super::{Family, TextComponents};
use prima_models::HiddenState;

pub const STABLE_DIFFUSION: Family = Family {
    name: "Stable Diffusion 1.x/2.x",
    pipelines: &[
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "LatentConsistencyModelPipeline",
        "LatentConsistencyModelImg2ImgPipeline",
    ],
    text_encoders: &[TextComponents {
        tokenizer: "tokenizer",
        text_encoder: "text_encoder",
        is_optional: false,
    }],
    hidden_state: HiddenState::LAST,
    force_zeros_for_empty_prompt: false,
    sample_size: 64,
    guidance_scale: 7.5,
    // SD-Turbo.
    euler_trailing_steps: (1, &[1, 2, 3, 4]),
};
