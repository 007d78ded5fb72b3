//! LoRAs in requests: a list of `{"name", "weight"}`, or of names.

use crate::refusal::Refusal;
use prima_pipeline::LoraChoice;
use serde::Deserialize;

/// Most LoRAs of one request.
const MOST: usize = 16;

/// A LoRA as a client asks for it.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Wanted {
    Name(String),
    Weighted {
        #[serde(alias = "path", alias = "model")]
        name: String,
        #[serde(alias = "scale", alias = "strength", alias = "multiplier")]
        weight: Option<f32>,
        /// Of the text encoders, where it is another.
        #[serde(alias = "clip_weight")]
        text_weight: Option<f32>,
    },
}

/// What these come to; a name is looked up among those of the server, whatever it looks like.
pub(crate) fn choices(wanted: Option<Vec<Wanted>>) -> Result<Vec<LoraChoice>, Refusal> {
    let wanted = wanted.unwrap_or_default();
    if wanted.len() > MOST {
        let message = format!("loras has {} entries: use at most {MOST}", wanted.len());
        return Err(Refusal::field("loras", message));
    }
    let choice = |wanted| match wanted {
        Wanted::Name(name) => LoraChoice::new(name, 1.0),
        Wanted::Weighted {
            name,
            weight,
            text_weight,
        } => LoraChoice {
            name,
            unet: weight.unwrap_or(1.0),
            text: text_weight.or(weight).unwrap_or(1.0),
        },
    };
    Ok(wanted.into_iter().map(choice).collect())
}
