//! LoRAs as requests name them, and as pictures' recipes do.

use serde::{Deserialize, Serialize};

/// A LoRA that a request wants, by its name, and how strongly it acts on the UNet and on the text encoders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraChoice {
    pub name: String,
    pub unet: f32,
    pub text: f32,
}

impl LoraChoice {
    /// Largest weight, to either side of 0.
    pub const MOST: f32 = 100.0;

    /// Whether this can be a weight.
    pub fn is_weight(weight: f32) -> bool {
        weight.is_finite() && weight.abs() <= Self::MOST
    }

    pub fn new(name: impl Into<String>, weight: f32) -> Self {
        Self {
            name: name.into(),
            unet: weight,
            text: weight,
        }
    }

    /// As it is written in a prompt.
    pub fn tag(&self) -> String {
        let Self { name, unet, text } = self;
        if unet == text {
            format!("<lora:{name}:{unet}>")
        } else {
            format!("<lora:{name}:{text}:{unet}>")
        }
    }
}

/// A LoRA that a picture was painted with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UsedLora {
    #[serde(flatten)]
    pub choice: LoraChoice,
    /// The web UI's 12 digits.
    pub hash: Option<String>,
    /// Whether the prompt says it.
    pub in_prompt: bool,
}
