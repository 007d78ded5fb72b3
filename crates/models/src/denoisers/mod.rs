//! The networks that predict what a scheduler needs from noisy latents.

pub mod controlnet;
pub(crate) mod embeddings;
mod step_embedding;
pub(crate) mod transformer_2d;
pub(crate) mod unet_2d_blocks;
pub mod unet_2d_condition;
mod unet_2d_condition_config;

pub use controlnet::{ControlNet, ControlNetConfig};
pub use embeddings::guidance_scale_embedding;
pub use step_embedding::UnetCond;
pub use unet_2d_condition::{Residuals, Unet2dCondition, UnetBlock};
pub use unet_2d_condition_config::Unet2dConditionConfig;
