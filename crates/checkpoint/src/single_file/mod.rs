//! Files of weights as people have them: whole models in one file, in the original layouts of Stable Diffusion 1.x, 2.x and
//! SDXL, and networks on their own; what kind of file it is, and which stored tensor is which parameter of the diffusers form
//! (after diffusers `loaders/single_file_utils.py`). ComfyUI, A1111 and kohya's scripts write the same layouts.

mod config;
mod controlnet;
mod network;
mod part;
mod rename;
mod stored_keys;
mod unet_config;
mod unet_layout;

use crate::tensor_file::TensorFile;
use crate::{Error, Reader};
use config::text_layers;
use network::{Network, TextLayout};
use std::path::Path;
use std::sync::Arc;
use stored_keys::has_any;

pub use controlnet::ControlNetFile;
pub(crate) use part::Part;

const UNET: &str = "model.diffusion_model.";

/// Channels of one attention head in every network but the UNets of Stable Diffusion 1.x.
const HEAD_CHANNELS: usize = 64;
/// Groups of all group norms.
const NORM_GROUPS: usize = 32;

/// What a file of weights holds, told by its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// Stable Diffusion 1.x: CLIP-L.
    StableDiffusion1,
    /// Stable Diffusion 2.x: OpenCLIP-H.
    StableDiffusion2,
    /// SDXL with both text encoders.
    Sdxl,
    /// The SDXL refiner: one text encoder, other conditioning.
    Refiner,
    /// A UNet of inpainting, which has 9 input channels, with the rest of a model or without.
    Inpaint,
    /// A UNet without text encoders (as SDXL-Lightning and DMD2 are published), with a VAE or without.
    Unet,
    /// An autoencoder on its own.
    Vae,
    /// A text encoder on its own.
    TextEncoder,
    /// What reads a picture beside a UNet.
    ControlNet,
    /// A LoRA or a relative of it.
    Lora,
    Unknown,
}

/// Whose habits a file's networks have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    StableDiffusion1,
    StableDiffusion2,
    Sdxl,
}

const CLIP_1: &str = "cond_stage_model.transformer.";
const OPEN_CLIP_2: &str = "cond_stage_model.model.";
const CLIP_XL: &str = "conditioner.embedders.0.transformer.";
const OPEN_CLIP_XL: &str = "conditioner.embedders.1.model.";
/// The refiner's only one, which is the second of SDXL.
const OPEN_CLIP_REFINER: &str = "conditioner.embedders.0.model.";
/// The second of SDXL as stable-diffusion.cpp writes it.
const CLIP_XL_2: &str = "cond_stage_model.1.transformer.";

/// Where a whole model has a text encoder, the likeliest first.
fn text_prefixes(family: Family, component: &str) -> &'static [(&'static str, TextLayout)] {
    use TextLayout::{OpenClip, Transformers};
    match (family, component) {
        (Family::StableDiffusion1, "text_encoder") => &[(CLIP_1, Transformers)],
        (Family::StableDiffusion2, "text_encoder") => &[(OPEN_CLIP_2, OpenClip), (CLIP_1, Transformers)],
        (Family::Sdxl, "text_encoder") => &[(CLIP_XL, Transformers), (CLIP_1, Transformers)],
        (Family::Sdxl, "text_encoder_2") => &[
            (OPEN_CLIP_XL, OpenClip),
            (OPEN_CLIP_REFINER, OpenClip),
            (CLIP_XL_2, Transformers),
        ],
        _ => &[],
    }
}

/// Tells what kind of file this is from its keys and a few shapes.
pub fn what_is_it(file: &TensorFile) -> FileKind {
    let any = |start: &str| has_any(file, start);
    let shape = |key: &str| file.tensors().get(key).map(|entry| entry.shape.as_slice());
    let inputs = [
        "model.diffusion_model.input_blocks.0.0.weight",
        "input_blocks.0.0.weight",
        "conv_in.weight",
    ];
    let input_channels = inputs
        .into_iter()
        .find_map(shape)
        .and_then(|shape| shape.get(1).copied());
    let has_unet = any(UNET) || any("input_blocks.0.0.") || (any("down_blocks.0.") && any("time_embedding."));
    let is_lora = |key: &String| {
        [".lora_down.", ".lora_A.", "_lora.down.", ".hada_w1_a", ".lokr_w"]
            .iter()
            .any(|part| key.contains(part))
    };
    let tokens = shape("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight");
    if file.tensors().keys().any(is_lora) {
        FileKind::Lora
    } else if any("controlnet_cond_embedding.") || any("control_model.") || any("input_hint_block.") {
        FileKind::ControlNet
    } else if has_unet && input_channels == Some(9) {
        FileKind::Inpaint
    } else if any("conditioner.embedders.0.model.transformer.resblocks.") {
        FileKind::Refiner
    } else if has_unet && (any(OPEN_CLIP_XL) || any(CLIP_XL_2)) {
        FileKind::Sdxl
    } else if has_unet && (any(OPEN_CLIP_2) || (any(CLIP_1) && tokens.is_some_and(|shape| shape.get(1) == Some(&1024))))
    {
        FileKind::StableDiffusion2
    } else if has_unet && any(CLIP_1) {
        FileKind::StableDiffusion1
    } else if has_unet && (input_channels.is_some() || any("down_blocks.0.")) {
        FileKind::Unet
    } else if any("first_stage_model.decoder.")
        || any("decoder.conv_in.")
        || any("vae.decoder.")
        || any("decoder.layers.")
    {
        FileKind::Vae
    } else if any("text_model.") || any("transformer.resblocks.") || any(OPEN_CLIP_XL) || any(CLIP_XL) || any(CLIP_1) {
        FileKind::TextEncoder
    } else {
        FileKind::Unknown
    }
}

impl FileKind {
    /// What the file is and what to do about it; `None` if prima runs it.
    fn refusal(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::StableDiffusion1
            | Self::StableDiffusion2
            | Self::Sdxl
            | Self::Refiner
            | Self::Inpaint
            | Self::Unet => None,
            Self::Vae => Some(("VAE alone", "give the model with --model, and this file with --vae")),
            Self::TextEncoder => Some((
                "text encoder alone",
                "give the model with --model, and this file with --text-encoder or --text-encoder-2",
            )),
            Self::ControlNet => Some((
                "ControlNet alone",
                "give the model with --model, and this file with --controlnet",
            )),
            Self::Lora => Some(("LoRA", "give its base model with --model, and this file with --lora")),
            Self::Unknown => Some((
                "unknown",
                "a Stable Diffusion file has `model.diffusion_model.` keys, and `cond_stage_model.` or `conditioner.` keys",
            )),
        }
    }

    /// Whether the file has all networks of a model that prima runs, but perhaps the autoencoder.
    pub(crate) fn is_model(self) -> bool {
        self.refusal().is_none() && self != Self::Unet
    }
}

/// A model in one file, known to be of a kind that prima runs. Parts of it may be missing.
pub(crate) struct SingleFile {
    file: Arc<TensorFile>,
    kind: FileKind,
    family: Family,
    /// Its UNet: many questions are of it.
    unet: Option<Network>,
}

impl SingleFile {
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = Arc::new(TensorFile::open(path)?);
        let kind = what_is_it(&file);
        if let Some((found, fix)) = kind.refusal() {
            return Err(Error::Unsupported {
                file: path.display().to_string(),
                field: "kind of model".to_owned(),
                found: found.to_owned(),
                fix: fix.to_owned(),
            });
        }
        let unet = Network::unet(&file);
        let family = match kind {
            FileKind::StableDiffusion1 => Family::StableDiffusion1,
            FileKind::StableDiffusion2 => Family::StableDiffusion2,
            FileKind::Unet | FileKind::Inpaint => unet.as_ref().map_or(Family::Sdxl, Network::unet_family),
            _ => Family::Sdxl,
        };
        Ok(Self {
            file,
            kind,
            family,
            unet,
        })
    }

    pub fn family(&self) -> Family {
        self.family
    }

    fn has(&self, key: &str) -> bool {
        self.file.tensors().contains_key(key)
    }

    fn unet(&self) -> Result<&Network, Error> {
        self.unet.as_ref().ok_or_else(|| self.without("unet", "--unet"))
    }

    fn vae(&self) -> Result<Network, Error> {
        Network::vae(&self.file).ok_or_else(|| self.without("vae", "--vae"))
    }

    fn text_encoder(&self, component: &str) -> Result<(Network, TextLayout), Error> {
        let flag = format!("--{}", component.replace('_', "-"));
        let mut prefixes = text_prefixes(self.family, component).iter();
        let found =
            prefixes.find_map(|&(prefix, layout)| Some((Network::text_encoder(&self.file, prefix, layout)?, layout)));
        found.ok_or_else(|| self.without(component, &flag))
    }

    /// A reader of one component under its diffusers keys. A key of the component with no known
    /// counterpart keeps its name, so that `finish` reports it.
    pub fn reader(&self, component: &str) -> Result<Reader, Error> {
        match component {
            "unet" => Ok(self.unet()?.clone().reader(component)),
            "vae" => Ok(self.vae()?.reader(component)),
            "text_encoder" | "text_encoder_2" => {
                let (encoder, layout) = self.text_encoder(component)?;
                Ok(text_reader(encoder, layout, component, self.family))
            }
            _ => Err(Error::NoFile {
                model: self.file.name().to_owned(),
                path: component.to_owned(),
                hint: " (a single file holds unet, vae and text encoders)".to_owned(),
            }),
        }
    }

    fn without(&self, component: &str, flag: &str) -> Error {
        if self.kind == FileKind::Unet {
            return Error::Unsupported {
                file: self.file.name().to_owned(),
                field: "kind of model".to_owned(),
                found: format!("UNet without {component}"),
                fix: format!(
                    "give the model that it belongs to with --model, and this file with --unet; or {component} with {flag}"
                ),
            };
        }
        Error::NoFile {
            model: self.file.name().to_owned(),
            path: component.to_owned(),
            hint: format!("; give a file that has it with {flag}"),
        }
    }
}

/// A reader of a text encoder, which may have more than its family reads.
fn text_reader(encoder: Network, layout: TextLayout, component: &str, family: Family) -> Reader {
    let last = format!("text_model.encoder.layers.{}.", text_layers(&encoder, layout, family));
    let reader = encoder.reader(component);
    match component {
        "text_encoder" => reader.ignoring(&[&last, "text_projection"]),
        _ => reader,
    }
}

/// `12.rest` to (12, `rest`); a bare number has an empty rest.
fn leading_number(text: &str) -> Option<(usize, &str)> {
    let (number, rest) = text.split_once('.').unwrap_or((text, ""));
    Some((number.parse().ok()?, rest))
}
