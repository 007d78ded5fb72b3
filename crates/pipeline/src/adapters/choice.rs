//! LoRAs as requests name them, and as pictures' recipes do.

use super::prepared::Prepared;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

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
    pub hash: LoraHash,
    /// Whether the prompt says it.
    pub in_prompt: bool,
}

/// The web UI's 12 digits of a file, for recipes. All of the file is read for them, some 450 MB: not before somebody asks, and
/// once.
#[derive(Clone, Default)]
pub struct LoraHash(Source);

#[derive(Clone)]
enum Source {
    Known(Option<String>),
    File(Arc<Prepared>),
}

impl Default for Source {
    fn default() -> Self {
        Self::Known(None)
    }
}

impl LoraHash {
    pub(super) fn of(file: Arc<Prepared>) -> Self {
        Self(Source::File(file))
    }

    /// None where the file cannot be read any more.
    pub fn get(&self) -> Option<&str> {
        match &self.0 {
            Source::Known(hash) => hash.as_deref(),
            Source::File(file) => file.short_hash(),
        }
    }

    /// Whether it is known without reading the file.
    pub fn is_known(&self) -> bool {
        match &self.0 {
            Source::Known(_) => true,
            Source::File(file) => file.has_hash(),
        }
    }
}

impl fmt::Debug for LoraHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Known(hash) => hash.fmt(f),
            Source::File(_) => f.write_str("of a file"),
        }
    }
}

impl PartialEq for LoraHash {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

/// For another process, which may not have the file.
impl Serialize for LoraHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.get().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LoraHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Source::Known(Option::deserialize(deserializer)?)))
    }
}
