//! Models that look like those of a family and are for something else: what they are, in one sentence.

use super::FAMILIES;
use crate::Error;
use prima_checkpoint::ModelSource;

/// Where a config does not say.
const LATENT_CHANNELS: u64 = 4;

pub(super) fn unknown_pipeline(source: &ModelSource, class: &str) -> Error {
    let families = FAMILIES.map(|family| family.name).join(", ");
    let message = format!("its pipeline is {class}; only models of these families are supported: {families}");
    refuse(source, message)
}

/// Refuses UNets that read other things beside noisy latents than a mask and a picture.
pub(super) fn check_task(source: &ModelSource) -> Result<(), Error> {
    let channels = |component: &str, field: &str| {
        let config = source.json(component, "config.json").ok()?;
        config[field].as_u64()
    };
    let read = channels("unet", "in_channels").unwrap_or(LATENT_CHANNELS);
    let latents = channels("vae", "latent_channels").unwrap_or(LATENT_CHANNELS);
    // The second are those of inpainting.
    if read == latents || read == 2 * latents + 1 {
        return Ok(());
    }
    let task = match read {
        8 => "editing by instructions (8 input channels)",
        5 => "pictures from depth (5 input channels)",
        7 => "upscaling (7 input channels)",
        // What does not fit for another reason is said where the parts are put together.
        _ => return Ok(()),
    };
    let message = format!("its UNet is made for {task}; use the text-to-image model that it comes from");
    Err(refuse(source, message))
}

fn refuse(source: &ModelSource, message: String) -> Error {
    Error::Model {
        model: source.name(),
        message,
    }
}
