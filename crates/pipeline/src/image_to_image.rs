//! Where image-to-image starts (diffusers `pipeline_stable_diffusion_xl_img2img.py`,
//! `prepare_latents`); the rest is text-to-image with fewer steps.

use crate::noise::{NoiseSource, Purpose};
use crate::{Error, Picture, Vae, vae};
use prima_schedulers::Schedule;
use prima_tensor::{Tensor, stack_batch, weighted_sum};

/// The picture's latents at the noise level of the schedule's first step, `shape` = `[images, h, w, C]`; as they are where
/// the picture has its noise already (`denoising_start`). The picture is encoded once: all images share its draw and differ in noise.
pub(crate) fn noised(
    autoencoder: &Vae,
    picture: &Picture,
    schedule: &Schedule,
    shape: [usize; 4],
    adds_noise: bool,
    noise: &mut NoiseSource,
    keep_going: &mut dyn FnMut() -> bool,
) -> Result<Tensor, Error> {
    let one = vae::encode(autoencoder, picture, noise, keep_going)?;
    let latents = stack_batch(&vec![&one; shape[0]]);
    if !adds_noise {
        return Ok(latents);
    }
    let noise = noise.normal(Purpose::Latents, 0, shape);
    let (signal, sigma) = schedule.add_noise();
    Ok(weighted_sum(&[(signal, &latents), (sigma, &noise)]))
}
