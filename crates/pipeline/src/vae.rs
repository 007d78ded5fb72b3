//! Pictures to scaled latents and back.

use crate::noise::{NoiseSource, Purpose};
use crate::{Error, Picture, Pipeline, picture_to_tensor, pictures_of_tensor};
use prima_checkpoint::first_not_finite;
use prima_models::Vae;
use prima_tensor::{Device, Tensor, no_grad};

/// A picture `[1, H, W, 3]` in -1..1 to latents `[1, h, w, C]` of about unit variance; a distribution is drawn from, as
/// diffusers' image-to-image pipelines do (`retrieve_latents`). `number`: which of a request's pictures it is.
pub(crate) fn encode(
    vae: &Vae,
    picture: &Tensor,
    number: usize,
    noise: &mut NoiseSource,
    keep_going: &mut dyn FnMut() -> bool,
) -> Result<Tensor, Error> {
    let latents = vae.encode(picture, keep_going)?.sample(|shape| {
        let shape = std::array::from_fn(|axis| shape[axis]);
        noise.normal(Purpose::Encode, number, shape)
    });
    Ok(vae.scale_latents(&latents))
}

/// Scaled latents `[B, h, w, C]` to pictures.
pub(crate) fn decode(vae: &Vae, latents: &Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<Vec<Picture>, Error> {
    let image = vae.decode(&vae.unscale_latents(latents), keep_going)?;
    // On a GPU the values become bytes before they come back.
    if Device::current().memory()?.is_none() {
        check_finite(&image, || "the decoded picture holds".to_owned())?;
    }
    Ok(pictures_of_tensor(&image))
}

/// Refuses a result that is not finite, which would else become a flat picture.
pub(crate) fn check_finite(x: &Tensor, what: impl FnOnce() -> String) -> Result<(), Error> {
    match first_not_finite(x.data()) {
        None => Ok(()),
        Some(_) => Err(Error::NotFinite {
            what: what(),
            fix: "use --dtype f32, a lower guidance_scale or another scheduler; if none helps, the model's files are damaged",
        }),
    }
}

impl Pipeline {
    /// A picture through the latents' mean and back: the best that any painter of these latents can hope for.
    pub fn reconstruct(&self, picture: &Picture) -> Result<Picture, Error> {
        let vae = &self.parts.vae;
        let decoded = no_grad(|| {
            let latents = vae.encode(&picture_to_tensor(picture), &mut || true)?.mode();
            vae.decode(&latents, &mut || true)
        })?;
        Ok(pictures_of_tensor(&decoded).swap_remove(0))
    }
}
