//! Pictures to latents and back, by whichever autoencoder a model's config names.

pub mod autoencoder_kl;
pub mod autoencoder_tiny;

pub use autoencoder_kl::{AutoencoderKl, AutoencoderKlConfig, DiagonalGaussian};
pub use autoencoder_tiny::{AutoencoderTiny, AutoencoderTinyConfig};

use crate::Cancelled;
use prima_checkpoint::{Error, ParamSource};
use prima_tensor::Tensor;

/// The component `vae` of a model.
#[expect(clippy::large_enum_variant, reason = "a model has one")]
pub enum Vae {
    Kl(AutoencoderKl),
    /// TAESD and its kin: small, and without a distribution to draw from.
    Tiny(AutoencoderTiny),
}

/// What an encoder makes of a picture (diffusers' `retrieve_latents` takes either).
#[derive(Clone, Debug)]
pub enum EncoderOutput {
    Distribution(DiagonalGaussian),
    Latents(Tensor),
}

impl Vae {
    /// By the `_class_name` of the config, the text of `file`; without one it is an `AutoencoderKL`.
    pub fn new(config: &str, file: &str, source: &mut dyn ParamSource) -> Result<Self, Error> {
        if class_name(config).as_deref() == Some("AutoencoderTiny") {
            let config = AutoencoderTinyConfig::from_json(config, file)?;
            return Ok(Self::Tiny(AutoencoderTiny::new(config, source)?));
        }
        let config = AutoencoderKlConfig::from_json(config, file)?;
        Ok(Self::Kl(AutoencoderKl::new(config, source)?))
    }

    /// Pixels per latent, each way.
    pub fn scale_factor(&self) -> usize {
        match self {
            Self::Kl(vae) => vae.config().scale_factor(),
            Self::Tiny(vae) => vae.config().scale_factor(),
        }
    }

    pub fn latent_channels(&self) -> usize {
        match self {
            Self::Kl(vae) => vae.config().latent_channels,
            Self::Tiny(vae) => vae.config().latent_channels,
        }
    }

    /// `image` `[B, H, W, 3]` in [-1, 1], sides multiples of [`scale_factor`](Self::scale_factor), to latents as the
    /// encoder gives them, `[B, h, w, latent_channels]`.
    pub fn encode(&self, image: &Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<EncoderOutput, Cancelled> {
        match self {
            Self::Kl(vae) => vae.encode(image, keep_going).map(EncoderOutput::Distribution),
            Self::Tiny(vae) => vae.encode(image, keep_going).map(EncoderOutput::Latents),
        }
    }

    /// Latents as the encoder gives them to a picture, about [-1, 1], not clamped.
    pub fn decode(&self, latents: &Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<Tensor, Cancelled> {
        match self {
            Self::Kl(vae) => vae.decode(latents, keep_going),
            Self::Tiny(vae) => vae.decode(latents, keep_going),
        }
    }

    /// The encoder's latents to those that the denoiser sees, about unit variance.
    pub fn scale_latents(&self, latents: &Tensor) -> Tensor {
        match self {
            Self::Kl(vae) => vae.scale_latents(latents),
            Self::Tiny(vae) => vae.scale_latents(latents),
        }
    }

    /// The inverse of [`scale_latents`](Self::scale_latents).
    pub fn unscale_latents(&self, latents: &Tensor) -> Tensor {
        match self {
            Self::Kl(vae) => vae.unscale_latents(latents),
            Self::Tiny(vae) => vae.unscale_latents(latents),
        }
    }
}

impl EncoderOutput {
    /// The most likely latents.
    pub fn mode(&self) -> Tensor {
        match self {
            Self::Distribution(gaussian) => gaussian.mode(),
            Self::Latents(latents) => latents.clone(),
        }
    }

    /// A draw from the distribution, with `noise` of the shape it is asked for; not asked where there is none.
    pub fn sample(&self, noise: impl FnOnce(&[usize]) -> Tensor) -> Tensor {
        match self {
            Self::Distribution(gaussian) => gaussian.sample(&noise(gaussian.mean.shape())),
            Self::Latents(latents) => latents.clone(),
        }
    }
}

fn class_name(config: &str) -> Option<String> {
    let config: serde_json::Value = serde_json::from_str(config).ok()?;
    Some(config.get("_class_name")?.as_str()?.to_owned())
}
