//! SDXL and what was distilled from it: SDXL-Turbo, Lightning, LCM, SSD-1B, Segmind-Vega, KOALA (diffusers
//! `pipeline_stable_diffusion_xl.py`, 0.42.1).

use super::{Family, TextComponents};
use prima_models::HiddenState;

pub const STABLE_DIFFUSION_XL: Family = Family {
    name: "SDXL",
    pipelines: &[
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
    ],
    text_encoders: &[
        TextComponents {
            tokenizer: "tokenizer",
            text_encoder: "text_encoder",
            is_optional: true,
        },
        TextComponents {
            tokenizer: "tokenizer_2",
            text_encoder: "text_encoder_2",
            is_optional: false,
        },
    ],
    hidden_state: HiddenState::PENULTIMATE,
    force_zeros_for_empty_prompt: true,
    sample_size: 128,
    guidance_scale: 5.0,
    // SDXL-Lightning.
    euler_trailing_steps: (4, &[1, 2, 3, 4, 8]),
};
