//! Models that look like those of a family and are for something else: what they are, in one sentence.

use super::FAMILIES;
use crate::Error;
use prima_checkpoint::ModelSource;
use serde_json::Value;

/// Where a config does not say.
const LATENT_CHANNELS: u64 = 4;

pub(super) fn unknown_pipeline(source: &ModelSource, class: &str) -> Error {
    let families = FAMILIES.map(|family| family.name).join(", ");
    let message = format!("its pipeline is {class}; only models of these families are supported: {families}");
    refuse(source, message)
}

/// Refuses refiners and UNets that read more than noisy latents.
pub(super) fn check_task(source: &ModelSource, index: &Value) -> Result<(), Error> {
    if index["requires_aesthetics_score"] == true {
        let message = "it is an SDXL refiner, which only finishes pictures of another model; use the base model";
        return Err(refuse(source, message.to_owned()));
    }
    let channels = |component: &str, field: &str| {
        let config = source.json(component, "config.json").ok()?;
        config[field].as_u64()
    };
    let read = channels("unet", "in_channels").unwrap_or(LATENT_CHANNELS);
    if read == channels("vae", "latent_channels").unwrap_or(LATENT_CHANNELS) {
        return Ok(());
    }
    let task = match read {
        9 => "inpainting (9 input channels), and painting with a mask is not there yet",
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
