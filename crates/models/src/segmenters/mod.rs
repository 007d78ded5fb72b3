//! Networks that say which pixels belong together.

pub mod sam;
mod sam_mask_decoder;
mod sam_prompt_encoder;
mod sam_vision_encoder;

pub use sam::{Sam, SamConfig, SamMasks, SamPrompt};
