//! The JSON of the live protocol.

use crate::loras::Wanted;
use crate::options::Limits;
use crate::refusal::Refusal;
use axum::body::Bytes;
use prima_engine::LoadProgress;
use prima_picture::Format;
use prima_pipeline::{Blend, Pipeline, Region, SchedulerKind, WordGroup};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum ClientMessage {
    Paint(Paint),
    Variants(Variants),
    Sensitivity(Paint),
    /// What this session paints with from now on.
    Model {
        name: String,
    },
    Cancel {
        rev: u64,
    },
    Ping {
        #[serde(default)]
        id: Value,
    },
}

/// What is to be painted; what is absent or null is the model's choice.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Paint {
    pub rev: u64,
    pub prompt: String,
    pub negative_prompt: Option<String>,
    pub seed: Option<u64>,
    pub steps: Option<usize>,
    pub guidance_scale: Option<f64>,
    pub width: Option<usize>,
    pub height: Option<usize>,
    pub strength: Option<f64>,
    pub scheduler: Option<String>,
    pub format: Option<Format>,
    pub preview: Option<bool>,
    pub loras: Option<Vec<Wanted>>,
    pub blend: Option<Blend>,
    pub regions: Option<Vec<Region>>,
    pub layers: Option<Layers>,
    pub control: Option<Steering>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Variants {
    #[serde(flatten)]
    pub paint: Paint,
    pub seeds: Option<Vec<u64>>,
    pub prompts: Option<Vec<String>>,
}

/// A refusal of the revision that was asked for, as far as it is known.
pub(super) type Refused = (Option<u64>, Refusal);

/// The header and the picture of a binary message.
pub(super) fn unpacked(message: &Bytes, limits: &Limits) -> Result<(Bytes, Bytes), Refused> {
    let wrong = |what: &str| (None, Refusal::bad(format!("the binary message {what}")));
    let length = message.get(..4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    let Some(length) = length.map(|length| length as usize) else {
        return Err(wrong("is shorter than its length field"));
    };
    if length > limits.message_bytes || length > message.len() - 4 {
        return Err(wrong("is shorter than the header that it announces"));
    }
    Ok((message.slice(4..4 + length), message.slice(4 + length..)))
}

/// A text message, or a binary one's header.
pub(super) fn understood(json: &[u8], limits: &Limits) -> Result<ClientMessage, Refused> {
    if json.len() > limits.message_bytes {
        let message = format!("the message has more than {} bytes", limits.message_bytes);
        return Err((None, Refusal::bad(message)));
    }
    serde_json::from_slice(json).map_err(|e| {
        let message = format!("the message is not understood: {e}");
        (revision(json), Refusal::bad(message))
    })
}

/// The revision of a message that is not understood otherwise.
fn revision(json: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Value>(json).ok()?.get("rev")?.as_u64()
}

/// How many bytes of the payload are whose file, in this order; without it all of them are `image`'s.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Layers {
    pub image: usize,
    pub mask: usize,
    pub control: usize,
}

/// What a message says of the ControlNet that reads its picture.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Steering {
    pub name: String,
    pub scale: Option<f64>,
    pub start: Option<f64>,
    pub end: Option<f64>,
    pub preprocessor: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Hello {
    #[serde(rename = "type")]
    kind: &'static str,
    protocol: u32,
    version: &'static str,
    model: ModelInfo,
    /// All that can be chosen, by name; the chosen one is `chosen`.
    models: Vec<String>,
    chosen: String,
    limits: LimitInfo,
}

#[derive(Serialize)]
struct ModelInfo {
    name: String,
    width: usize,
    height: usize,
    size_multiple: usize,
    sizes: Vec<[usize; 2]>,
    num_inference_steps: usize,
    guidance_scale: f64,
    strength: f64,
    uses_guidance: bool,
    styles: Vec<String>,
    schedulers: Vec<&'static str>,
    loras: Vec<String>,
    controlnets: Vec<String>,
    /// Prompts to begin with, and words to browse: the model's own.
    prompts: Vec<String>,
    vocabulary: Vec<WordGroup>,
}

/// What a prompt may end with, of a model that says nothing of its words: what such models are known to have seen much of.
const STYLES: [&str; 8] = [
    "photo",
    "oil painting",
    "watercolor",
    "pencil drawing",
    "anime",
    "pixel art",
    "3d render",
    "line art",
];

/// A model's own words for styles, where it says which words it knows.
fn styles(vocabulary: &[WordGroup]) -> Vec<String> {
    if vocabulary.is_empty() {
        return STYLES.map(str::to_owned).to_vec();
    }
    let own = vocabulary.iter().find(|group| group.name == "styles");
    own.map_or_else(Vec::new, |group| group.words.clone())
}

#[derive(Serialize)]
struct LimitInfo {
    prompt_chars: usize,
    image_bytes: usize,
    image_pixels: usize,
    max_steps: usize,
    max_side_px: usize,
    variants: usize,
}

impl Hello {
    pub fn new(pipeline: &Pipeline, (models, chosen): (Vec<String>, String), limits: &Limits) -> Self {
        let defaults = pipeline.defaults();
        Self {
            kind: "hello",
            protocol: 1,
            version: env!("CARGO_PKG_VERSION"),
            model: ModelInfo {
                name: pipeline.name().to_owned(),
                width: defaults.width,
                height: defaults.height,
                size_multiple: pipeline.size_multiple(),
                sizes: defaults.sizes.clone(),
                num_inference_steps: defaults.num_inference_steps,
                guidance_scale: defaults.guidance_scale,
                strength: defaults.strength,
                uses_guidance: !defaults.guidance_free,
                styles: styles(&pipeline.parts().card.vocabulary),
                schedulers: SchedulerKind::ALL.iter().map(|k| k.short_name()).collect(),
                loras: pipeline.loras().into_iter().map(|lora| lora.name).collect(),
                controlnets: pipeline.controlnets(),
                prompts: pipeline.parts().card.prompts.clone(),
                vocabulary: pipeline.parts().card.vocabulary.clone(),
            },
            models,
            chosen,
            limits: LimitInfo {
                prompt_chars: limits.prompt_chars,
                image_bytes: limits.image_bytes,
                image_pixels: limits.image_pixels,
                max_steps: limits.max_steps,
                max_side_px: limits.max_side_px,
                variants: limits.variants,
            },
        }
    }
}

/// How far a model is read.
#[derive(Serialize)]
pub(super) struct Loading<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    /// The name that the client chose; null for the server's own.
    model: Option<&'a str>,
    part: &'static str,
    bytes: usize,
    total: usize,
}

impl<'a> Loading<'a> {
    pub fn new(model: Option<&'a str>, progress: LoadProgress) -> Self {
        Self {
            kind: "loading",
            model,
            part: progress.part,
            bytes: progress.bytes,
            total: progress.total,
        }
    }
}

/// The header of a frame.
#[derive(Serialize)]
pub(super) struct FrameHeader<'a> {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub rev: u64,
    pub index: usize,
    pub count: usize,
    pub tier: usize,
    #[serde(rename = "final")]
    pub last: bool,
    pub step: usize,
    pub steps: usize,
    pub width: usize,
    pub height: usize,
    pub format: Format,
    pub seed: u64,
    pub timings: &'a FrameTimings,
    pub cold: bool,
    pub text_cached: bool,
    pub dropped: u64,
    pub cancelled: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub warnings: &'a [String],
}

/// In milliseconds.
#[expect(clippy::struct_field_names, reason = "the protocol's names carry their unit")]
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct FrameTimings {
    pub queue_ms: f64,
    pub text_ms: f64,
    pub init_image_ms: f64,
    pub steps_ms: Vec<f64>,
    pub decode_ms: f64,
    pub encode_ms: f64,
}

/// A word of the prompt and what the picture owes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct WordChange {
    pub word: String,
    pub start: usize,
    pub end: usize,
    pub change: f64,
}
