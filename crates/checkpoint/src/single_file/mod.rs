//! Whole models in one file, in the original layouts of Stable Diffusion 1.x, 2.x and SDXL: what kind of file it is,
//! and which stored tensor is which parameter of the diffusers form (after diffusers `loaders/single_file_utils.py`).
//! ComfyUI, A1111 and kohya's scripts write the same layouts.

mod config;
mod rename;
mod unet_config;
mod unet_layout;

use crate::reader::{Stored, View};
use crate::tensor_file::TensorFile;
use crate::{Error, Reader};
use rename::{rename_open_clip, rename_taesd, rename_vae};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use unet_layout::UnetLayout;

const UNET: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";
/// An LCM's guidance embedding.
const COND_PROJ: &str = "model.diffusion_model.time_embedding.cond_proj.weight";

/// Channels of one attention head in every network but the UNets of Stable Diffusion 1.x.
const HEAD_CHANNELS: usize = 64;
/// Groups of all group norms.
const NORM_GROUPS: usize = 32;

/// What a safetensors file holds, told by its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// Stable Diffusion 1.x: CLIP-L.
    StableDiffusion1,
    /// Stable Diffusion 2.x: OpenCLIP-H.
    StableDiffusion2,
    /// SDXL with both text encoders.
    Sdxl,
    /// The SDXL refiner: other text encoder, other conditioning.
    Refiner,
    /// An inpainting UNet: 9 input channels.
    Inpaint,
    /// A UNet on its own, with diffusers' keys (as SDXL-Lightning and DMD2 are published).
    DiffusersUnet,
    /// A LoRA or a relative of it.
    Lora,
    Unknown,
}

/// A text encoder inside a single file.
struct TextEncoderKeys {
    component: &'static str,
    prefix: &'static str,
    layout: TextLayout,
}

/// How a text encoder's tensors are named and laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TextLayout {
    /// As in transformers.
    Transformers,
    /// OpenCLIP's own, with q, k and v in one matrix.
    OpenClip,
}

const fn text_encoder(component: &'static str, prefix: &'static str, layout: TextLayout) -> TextEncoderKeys {
    TextEncoderKeys {
        component,
        prefix,
        layout,
    }
}

const CLIP_1: TextEncoderKeys = text_encoder(
    "text_encoder",
    "cond_stage_model.transformer.",
    TextLayout::Transformers,
);
const OPEN_CLIP_2: TextEncoderKeys = text_encoder("text_encoder", "cond_stage_model.model.", TextLayout::OpenClip);
const CLIP_XL: TextEncoderKeys = text_encoder(
    "text_encoder",
    "conditioner.embedders.0.transformer.",
    TextLayout::Transformers,
);
const OPEN_CLIP_XL: TextEncoderKeys =
    text_encoder("text_encoder_2", "conditioner.embedders.1.model.", TextLayout::OpenClip);

/// Tells what kind of file this is from its keys and one shape.
pub fn what_is_it(file: &TensorFile) -> FileKind {
    let any = |start: &str| file.tensors().keys().any(|key| key.starts_with(start));
    let input_channels = file
        .tensors()
        .get("model.diffusion_model.input_blocks.0.0.weight")
        .or_else(|| file.tensors().get("conv_in.weight"))
        .and_then(|entry| entry.shape.get(1).copied());
    let is_lora = |key: &String| {
        [".lora_down.", ".lora_A.", "_lora.down.", ".hada_w1_a", ".lokr_w"]
            .iter()
            .any(|part| key.contains(part))
    };
    if file.tensors().keys().any(is_lora) {
        FileKind::Lora
    } else if input_channels == Some(9) {
        FileKind::Inpaint
    } else if any("conditioner.embedders.0.model.transformer.resblocks.") {
        FileKind::Refiner
    } else if any(UNET) && any(OPEN_CLIP_XL.prefix) {
        FileKind::Sdxl
    } else if any(UNET) && any(CLIP_1.prefix) {
        FileKind::StableDiffusion1
    } else if any(UNET) && any(OPEN_CLIP_2.prefix) {
        FileKind::StableDiffusion2
    } else if any("down_blocks.0.") && any("time_embedding.") {
        FileKind::DiffusersUnet
    } else {
        FileKind::Unknown
    }
}

impl FileKind {
    /// What the file is and what to do about it; `None` if prima runs it.
    fn refusal(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::StableDiffusion1 | Self::StableDiffusion2 | Self::Sdxl => None,
            Self::Refiner => Some(("SDXL refiner", "use the base model")),
            Self::Inpaint => Some(("inpainting model (9 input channels)", "use the text-to-image model")),
            Self::DiffusersUnet => Some((
                "UNet without text encoders and VAE",
                "put it into a diffusers folder's `unet`",
            )),
            Self::Lora => Some(("LoRA", "merge it into its base model first")),
            Self::Unknown => Some((
                "unknown",
                "a Stable Diffusion file has `model.diffusion_model.` keys, and `cond_stage_model.` or `conditioner.` keys",
            )),
        }
    }

    /// Whether the file is a model that prima runs.
    pub(crate) fn is_model(self) -> bool {
        self.refusal().is_none()
    }
}

/// A whole model in one file, known to be of a kind that prima runs.
pub(crate) struct SingleFile {
    file: Arc<TensorFile>,
    kind: FileKind,
}

impl SingleFile {
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = Arc::new(TensorFile::open(path)?);
        let kind = what_is_it(&file);
        match kind.refusal() {
            None => Ok(Self { file, kind }),
            Some((found, fix)) => Err(Error::Unsupported {
                file: path.display().to_string(),
                field: "kind of model".to_owned(),
                found: found.to_owned(),
                fix: fix.to_owned(),
            }),
        }
    }

    fn has(&self, key: &str) -> bool {
        self.file.tensors().contains_key(key)
    }

    /// Whether the autoencoder is one of the TAESD family.
    fn has_taesd(&self) -> bool {
        self.has_any(&format!("{VAE}taesd_decoder."))
    }

    fn text_encoders(&self) -> &'static [TextEncoderKeys] {
        match self.kind {
            FileKind::StableDiffusion1 => &[CLIP_1],
            FileKind::StableDiffusion2 => &[OPEN_CLIP_2],
            _ => &[CLIP_XL, OPEN_CLIP_XL],
        }
    }

    /// What begins the names of a text encoder in transformers' layout: old merges leave it out.
    fn text_root(&self, encoder: &TextEncoderKeys) -> &'static str {
        let has_root = self.has_any(&format!("{}text_model.", encoder.prefix));
        if has_root { "text_model." } else { "" }
    }

    /// Layers of a text encoder that its family reads. Stable Diffusion 2 was trained on the penultimate hidden state
    /// of OpenCLIP: diffusers' form of it has one layer less than the original, which a file has where it is whole
    /// (with its projection), and not where it was converted back.
    fn text_layers(&self, encoder: &TextEncoderKeys) -> usize {
        match encoder.layout {
            TextLayout::Transformers => {
                self.count(&format!("{}{}encoder.layers.", encoder.prefix, self.text_root(encoder)))
            }
            TextLayout::OpenClip => {
                let layers = self.count(&format!("{}transformer.resblocks.", encoder.prefix));
                let is_whole = self.has(&format!("{}text_projection", encoder.prefix));
                let reads_all = self.kind != FileKind::StableDiffusion2 || !is_whole;
                layers.saturating_sub(usize::from(!reads_all))
            }
        }
    }

    /// The shape of a stored tensor.
    pub fn shape(&self, key: &str) -> Option<&[usize]> {
        self.file.tensors().get(key).map(|entry| entry.shape.as_slice())
    }

    /// Stored keys that start with `prefix`, without it. They are found, not searched for: a file of many keys is asked
    /// many such questions.
    pub fn keys<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let keys = self.file.tensors().range::<str, _>(from);
        keys.map_while(move |(key, _)| key.strip_prefix(prefix))
    }

    /// Whether any stored key starts with `prefix`.
    fn has_any(&self, prefix: &str) -> bool {
        self.keys(prefix).next().is_some()
    }

    /// How many different numbers follow `prefix` in the keys: never more than there are keys, whatever the numbers are.
    fn count(&self, prefix: &str) -> usize {
        let numbers = self.keys(prefix).filter_map(|key| Some(leading_number(key)?.0));
        numbers.collect::<BTreeSet<usize>>().len()
    }

    /// A reader of one component under its diffusers keys. A key of the component with no known
    /// counterpart keeps its name, so that `finish` reports it.
    pub fn reader(&self, component: &str) -> Result<Reader, Error> {
        let text_encoder = self.text_encoders().iter().find(|keys| keys.component == component);
        let (prefix, entries) = match (component, text_encoder) {
            ("unet", _) => (UNET, self.unet_entries()),
            ("vae", _) => (VAE, self.vae_entries()),
            (_, Some(keys)) => (keys.prefix, self.text_entries(keys)),
            _ => ("", BTreeMap::new()),
        };
        if entries.is_empty() {
            return Err(self.without(component, prefix));
        }
        let name = format!("{} ({component})", self.file.name());
        let reader = Reader::from_entries(name, vec![self.file.clone()], entries);
        // CLIP's similarity scale, EMA counters of training and TAESD's own scale belong to no network here.
        let reader = reader.ignoring(&["logit_scale", "model_ema.", "vae_scale", "vae_shift"]);
        let Some(keys) = text_encoder else {
            return Ok(reader);
        };
        // What a whole CLIP has beyond what its family reads.
        let last = format!("text_model.encoder.layers.{}.", self.text_layers(keys));
        Ok(match keys.component {
            "text_encoder" => reader.ignoring(&[&last, "text_projection"]),
            _ => reader,
        })
    }

    fn without(&self, component: &str, prefix: &str) -> Error {
        let hint = match prefix {
            "" => " (a single file holds unet, vae and text encoders)".to_owned(),
            _ => format!(" (its keys would begin with `{prefix}`)"),
        };
        Error::NoFile {
            model: self.file.name().to_owned(),
            path: component.to_owned(),
            hint,
        }
    }

    /// The keys under `prefix` by what `rename` makes of them.
    fn entries(&self, prefix: &str, rename: impl Fn(&str) -> Option<String>) -> BTreeMap<String, Stored> {
        let entry = |rest: &str| {
            let key = format!("{prefix}{rest}");
            (rename(rest).unwrap_or_else(|| key.clone()), stored(key, View::Whole))
        };
        self.keys(prefix).map(entry).collect()
    }

    fn unet_entries(&self) -> BTreeMap<String, Stored> {
        let layout = UnetLayout::of(self);
        self.entries(UNET, |key| layout.rename(key))
    }

    fn vae_entries(&self) -> BTreeMap<String, Stored> {
        if self.has_taesd() {
            return self.entries(VAE, rename_taesd);
        }
        let up_blocks = self.count(&format!("{VAE}decoder.up."));
        self.entries(VAE, |key| rename_vae(key, up_blocks))
    }

    fn text_entries(&self, encoder: &TextEncoderKeys) -> BTreeMap<String, Stored> {
        if encoder.layout == TextLayout::Transformers {
            return self.entries(encoder.prefix, |key| Some(key.to_owned()));
        }
        let parts = |rest: &str| {
            let key = format!("{}{rest}", encoder.prefix);
            let renamed = rename_open_clip(rest).into_iter();
            renamed.map(move |(name, view)| (name, stored(key.clone(), view)))
        };
        self.keys(encoder.prefix).flat_map(parts).collect()
    }
}

fn stored(key: String, view: View) -> Stored {
    Stored { file: 0, key, view }
}

/// `12.rest` to (12, `rest`); a bare number has an empty rest.
fn leading_number(text: &str) -> Option<(usize, &str)> {
    let (number, rest) = text.split_once('.').unwrap_or((text, ""));
    Some((number.parse().ok()?, rest))
}
