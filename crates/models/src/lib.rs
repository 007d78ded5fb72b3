//! The networks, one file per diffusers (or transformers) file of the same name.
//!
//! Every model is a config struct whose fields are those of the JSON, and
//! `Model::new(config, source)`, which asks a [`ParamSource`](prima_checkpoint::ParamSource)
//! for each parameter under diffusers' key. Activations are channels-last `[B, H, W, C]`.

pub mod autoencoder_kl;
pub mod autoencoder_tiny;
pub mod clip_text;
mod config;
pub mod efficientnet_lite;
pub mod embeddings;
mod layers;
mod resnet;
pub mod tokenizer;
mod transformer_2d;
mod unet_2d_blocks;
pub mod unet_2d_condition;

pub use autoencoder_kl::{AutoencoderKl, AutoencoderKlConfig, DiagonalGaussian};
pub use autoencoder_tiny::{AutoencoderTiny, AutoencoderTinyConfig};
pub use clip_text::{ClipTextConfig, ClipTextModel, TextOutput};
pub use config::{OneOrMany, TransformerLayers};
pub use efficientnet_lite::{EfficientNetLite, EfficientNetLiteConfig};
pub use embeddings::guidance_scale_embedding;
pub use tokenizer::{Encoded, Tokenizer, TokenizerFiles};
pub use unet_2d_condition::{Unet2dCondition, Unet2dConditionConfig, UnetCond, UnetFeatures};

/// The caller asked to stop: its `keep_going` hook returned `false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

/// Asks the hook of a long computation whether to go on.
pub(crate) fn check(keep_going: &mut dyn FnMut() -> bool) -> Result<(), Cancelled> {
    if keep_going() { Ok(()) } else { Err(Cancelled) }
}
