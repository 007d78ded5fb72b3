//! The networks by what they do, one file per diffusers (or transformers) file of the same name.
//!
//! Every model is a config struct whose fields are those of the JSON, and
//! `Model::new(config, source)`, which asks a [`ParamSource`](prima_checkpoint::ParamSource)
//! for each parameter under diffusers' key. Activations are channels-last `[B, H, W, C]`.

pub mod adapters;
pub mod autoencoders;
mod bands;
mod config;
pub mod denoisers;
pub mod feature_networks;
mod layers;
mod resnet;
pub mod segmenters;
pub mod style_transfer;
pub mod text_encoders;
pub mod upscalers;

pub use adapters::{Adapter, Adapters, Term};
pub use autoencoders::{
    AutoencoderKl, AutoencoderKlConfig, AutoencoderTiny, AutoencoderTinyConfig, DiagonalGaussian, EncoderOutput, Vae,
};
pub use config::{OneOrMany, TransformerLayers};
pub use denoisers::{
    ControlNet, ControlNetConfig, Residuals, Unet2dCondition, Unet2dConditionConfig, UnetBlock, UnetCond,
    guidance_scale_embedding,
};
pub use feature_networks::{Clip, ClipVisionConfig, EfficientNetLite, EfficientNetLiteConfig, InceptionV3};
pub use segmenters::{Sam, SamConfig, SamMasks, SamPrompt};
pub use style_transfer::{AdainConfig, AdainDecoder, VggEncoder, restyled};
pub use text_encoders::{
    ClipTextConfig, ClipTextModel, Encoded, HiddenState, TextOutput, Token, Tokenizer, TokenizerFiles,
};
pub use upscalers::{RrdbNet, RrdbNetConfig, SrvggNetCompact, SrvggNetCompactConfig};

/// The caller asked to stop: its `keep_going` hook returned `false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

/// Asks the hook of a long computation whether to go on.
pub(crate) fn check(keep_going: &mut dyn FnMut() -> bool) -> Result<(), Cancelled> {
    if keep_going() { Ok(()) } else { Err(Cancelled) }
}
