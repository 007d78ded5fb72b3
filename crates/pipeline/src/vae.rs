//! Pictures to scaled latents and back, by whichever autoencoder the config names.

use crate::noise::{NoiseSource, Purpose};
use crate::{Error, Picture, picture_to_tensor, pictures_of_tensor};
use prima_checkpoint::ParamSource;
use prima_models::{AutoencoderKl, AutoencoderKlConfig, AutoencoderTiny, AutoencoderTinyConfig};
use prima_tensor::{Tensor, no_grad};

/// The autoencoders of the SDXL family.
#[expect(clippy::large_enum_variant, reason = "a model has one")]
pub enum Vae {
    Kl(AutoencoderKl),
    /// TAESDXL and its kin: small, and without a distribution to draw from.
    Tiny(AutoencoderTiny),
}

impl Vae {
    /// By the `_class_name` of the config, the text of `file`.
    pub(crate) fn new(config: &str, file: &str, source: &mut dyn ParamSource) -> Result<Self, Error> {
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

    /// A picture to latents `[1, h, w, C]` of about unit variance; a distribution is drawn from, as
    /// diffusers' image-to-image pipelines do (`retrieve_latents`).
    pub(crate) fn encode(
        &self,
        picture: &Picture,
        noise: &mut NoiseSource,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Tensor, Error> {
        let image = picture_to_tensor(picture);
        match self {
            Self::Kl(vae) => {
                let gaussian = vae.encode(&image, keep_going)?;
                let m = &gaussian.mean;
                let noise = noise.normal(Purpose::Encode, 0, [m.dim(0), m.dim(1), m.dim(2), m.dim(3)]);
                Ok(vae.scale_latents(&gaussian.sample(&noise)))
            }
            Self::Tiny(vae) => Ok(vae.scale_latents(&vae.encode(&image, keep_going)?)),
        }
    }

    /// A picture through the latents' mean and back: the best that any painter of these latents can hope for.
    pub fn reconstruct(&self, picture: &Picture) -> Result<Picture, Error> {
        let image = picture_to_tensor(picture);
        let decoded = no_grad(|| match self {
            Self::Kl(vae) => vae.decode(&vae.encode(&image, &mut || true)?.mean, &mut || true),
            Self::Tiny(vae) => vae.decode(&vae.encode(&image, &mut || true)?, &mut || true),
        })?;
        Ok(pictures_of_tensor(&decoded).swap_remove(0))
    }

    /// Scaled latents `[B, h, w, C]` to pictures.
    pub(crate) fn decode(&self, latents: &Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<Vec<Picture>, Error> {
        let image = match self {
            Self::Kl(vae) => vae.decode(&vae.unscale_latents(latents), keep_going)?,
            Self::Tiny(vae) => vae.decode(&vae.unscale_latents(latents), keep_going)?,
        };
        Ok(pictures_of_tensor(&image))
    }
}

fn class_name(config: &str) -> Option<String> {
    let config: serde_json::Value = serde_json::from_str(config).ok()?;
    Some(config.get("_class_name")?.as_str()?.to_owned())
}
