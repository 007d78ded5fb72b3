//! Networks that say which pixels belong together.

pub mod sam;
mod sam_config;
mod sam_mask_decoder;
mod sam_prompt_encoder;
mod sam_vision_encoder;

pub use sam::Sam;
pub use sam_config::{SamConfig, SamMasks, SamPrompt};
