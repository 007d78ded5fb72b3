//! One network of a file, whatever it is called there: its tensors by their diffusers keys.

use super::rename::{rename_controlnet, rename_open_clip, rename_taesd, rename_vae};
use super::stored_keys::{count, has_any, keys};
use super::unet_layout::UnetLayout;
use super::{Family, leading_number};
use crate::reader::{Stored, View, current_name};
use crate::tensor_file::TensorFile;
use crate::{Error, Reader};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// Where UNets begin in the files that people have: the original's, diffusers' and ComfyUI's parts, and both bare.
const UNET_PREFIXES: [&str; 4] = ["model.diffusion_model.", "diffusion_model.", "unet.", ""];
const VAE_PREFIXES: [&str; 3] = ["first_stage_model.", "vae.", ""];
/// Where text encoders begin in files of their own.
const TEXT_PREFIXES: [&str; 8] = [
    "conditioner.embedders.0.transformer.",
    "conditioner.embedders.1.model.",
    "cond_stage_model.transformer.",
    "cond_stage_model.model.",
    "cond_stage_model.1.transformer.",
    "clip_l.transformer.",
    "clip_g.transformer.",
    "",
];

/// How a text encoder's tensors are named and laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextLayout {
    /// As in transformers.
    Transformers,
    /// OpenCLIP's own, with q, k and v in one matrix.
    OpenClip,
}

/// A network's tensors in a file, under diffusers' names.
#[derive(Clone)]
pub(crate) struct Network {
    file: Arc<TensorFile>,
    entries: BTreeMap<String, Stored>,
}

impl Network {
    /// The UNet of the file, if there is one.
    pub fn unet(file: &Arc<TensorFile>) -> Option<Self> {
        let prefix = UNET_PREFIXES.into_iter().find(|prefix| {
            let has = |key: &str| has_any(file, &format!("{prefix}{key}"));
            let is_named = !prefix.is_empty() && has("");
            is_named || has("input_blocks.0.0.") || (has("down_blocks.0.") && has("time_embedding."))
        })?;
        let entries = if has_any(file, &format!("{prefix}down_blocks.")) {
            entries(file, prefix, |key| Some(current_name(key)))
        } else {
            let layout = UnetLayout::of(file, prefix);
            entries(file, prefix, |key| layout.rename(key))
        };
        Some(Self::new(file, entries))
    }

    /// The ControlNet of the file, if there is one.
    pub fn controlnet(file: &Arc<TensorFile>) -> Option<Self> {
        let has = |key: &str| has_any(file, key);
        if has("controlnet_cond_embedding.") {
            return Some(Self::new(file, entries(file, "", |key| Some(current_name(key)))));
        }
        let mut prefixes = ["control_model.", ""].into_iter();
        let prefix = prefixes.find(|prefix| has(&format!("{prefix}input_hint_block.")))?;
        let layout = UnetLayout::of(file, prefix);
        let convolutions = count(file, &format!("{prefix}input_hint_block."));
        let rename = |key: &str| rename_controlnet(key, convolutions).or_else(|| layout.rename(key));
        Some(Self::new(file, entries(file, prefix, rename)))
    }

    /// The autoencoder of the file, if there is one.
    pub fn vae(file: &Arc<TensorFile>) -> Option<Self> {
        let prefix = VAE_PREFIXES.into_iter().find(|prefix| {
            let has = |key: &str| has_any(file, &format!("{prefix}{key}"));
            let is_named = !prefix.is_empty() && has("");
            is_named || has("decoder.conv_in.") || has("taesd_decoder.") || has("decoder.layers.")
        })?;
        let has = |key: &str| has_any(file, &format!("{prefix}{key}"));
        let entries = if has("taesd_decoder.") {
            entries(file, prefix, rename_taesd)
        } else if has("decoder.up.") || has("encoder.down.") {
            let up_blocks = count(file, &format!("{prefix}decoder.up."));
            entries(file, prefix, |key| rename_vae(key, up_blocks))
        } else {
            entries(file, prefix, |key| Some(current_name(key)))
        };
        Some(Self::new(file, entries))
    }

    /// The text encoder of a file that holds nothing else, and how it is laid out.
    pub fn any_text_encoder(file: &Arc<TensorFile>) -> Option<(Self, TextLayout)> {
        TEXT_PREFIXES.into_iter().find_map(|prefix| {
            let has = |key: &str| has_any(file, &format!("{prefix}{key}"));
            let layout = if has("transformer.resblocks.") {
                TextLayout::OpenClip
            } else if has("text_model.embeddings.") || has("embeddings.token_embedding.") {
                TextLayout::Transformers
            } else {
                return None;
            };
            Some((Self::text_encoder(file, prefix, layout)?, layout))
        })
    }

    /// The text encoder whose keys begin with `prefix`.
    pub fn text_encoder(file: &Arc<TensorFile>, prefix: &str, layout: TextLayout) -> Option<Self> {
        let renamed = |rest: &str| match (layout, rest) {
            (TextLayout::OpenClip, _) => rename_open_clip(rest),
            // stable-diffusion.cpp's, which is OpenCLIP's under another name.
            (_, "text_model.text_projection" | "text_projection") => {
                vec![("text_projection.weight".to_owned(), View::Transposed)]
            }
            // Old merges leave the first part out.
            _ if rest.starts_with("embeddings.") || rest.starts_with("encoder.") || rest.starts_with("final_") => {
                vec![(format!("text_model.{rest}"), View::Whole)]
            }
            _ => vec![(rest.to_owned(), View::Whole)],
        };
        let parts = |rest: &str| {
            let key = format!("{prefix}{rest}");
            let renamed = renamed(rest).into_iter();
            renamed.map(move |(name, view)| (name, stored(key.clone(), view)))
        };
        let entries: BTreeMap<_, _> = keys(file, prefix).flat_map(parts).collect();
        (!entries.is_empty()).then(|| Self::new(file, entries))
    }

    fn new(file: &Arc<TensorFile>, mut entries: BTreeMap<String, Stored>) -> Self {
        entries.retain(|_, stored| !file.is_beside(&stored.key));
        Self {
            file: file.clone(),
            entries,
        }
    }

    /// A reader of the network, which errors call `component` of the file. A key with no known counterpart keeps its name,
    /// so that `finish` reports it.
    pub fn reader(self, component: &str) -> Reader {
        let name = format!("{} ({component})", self.file.name());
        Reader::from_entries(name, vec![self.file], self.entries)
    }

    /// What `key` is called in the file, if it is there.
    fn stored_as<'a>(&'a self, key: &'a str) -> &'a str {
        self.entries.get(key).map_or(key, |stored| stored.key.as_str())
    }

    /// The shape of a tensor by its diffusers key.
    pub fn shape(&self, key: &str) -> Option<Vec<usize>> {
        let stored = self.entries.get(key)?;
        let entry = self.file.tensors().get(&stored.key)?;
        let mut shape = self.file.shape_of(&stored.key, entry);
        if stored.view == View::Transposed {
            shape.reverse();
        }
        Some(shape)
    }

    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Diffusers keys that start with `prefix`, without it. They are found, not searched for: a file of many keys is asked
    /// many such questions.
    pub fn keys<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let keys = self.entries.range::<str, _>(from);
        keys.map_while(move |(key, _)| key.strip_prefix(prefix))
    }

    pub fn has_any(&self, prefix: &str) -> bool {
        self.keys(prefix).next().is_some()
    }

    /// How many different numbers follow `prefix` in the keys: never more than there are keys, whatever the numbers are.
    pub fn count(&self, prefix: &str) -> usize {
        let numbers = self.keys(prefix).filter_map(|key| Some(leading_number(key)?.0));
        numbers.collect::<BTreeSet<usize>>().len()
    }

    /// Size `axis` of a tensor that the config cannot do without.
    pub fn size(&self, key: &str, axis: usize) -> Result<usize, Error> {
        let file = || self.file.name().to_owned();
        let shape = self.shape(key).ok_or_else(|| Error::Missing {
            file: file(),
            key: key.to_owned(),
            expected: Vec::new(),
        })?;
        shape.get(axis).copied().ok_or_else(|| Error::Axes {
            file: file(),
            key: self.stored_as(key).to_owned(),
            axis,
            found: shape,
        })
    }

    /// `channels / unit`, or the sentence that says why the family's convention does not fit.
    pub fn divide(&self, what: &str, channels: usize, unit: usize) -> Result<usize, Error> {
        if channels >= unit && channels.is_multiple_of(unit) {
            return Ok(channels / unit);
        }
        Err(Error::Unsupported {
            file: self.file.name().to_owned(),
            field: what.to_owned(),
            found: channels.to_string(),
            fix: format!(
                "models of its family have multiples of {unit}; put its configs in a `config` folder beside the file"
            ),
        })
    }

    /// Which family's this UNet is: by what it is told beside the text, and the width of the text.
    pub fn unet_family(&self) -> Family {
        let text = self.keys("").find(|key| key.ends_with(".attn2.to_k.weight"));
        let width = text.and_then(|key| self.shape(key)?.get(1).copied());
        match width {
            _ if self.has_any("add_embedding.") => Family::Sdxl,
            Some(1024) => Family::StableDiffusion2,
            _ => Family::StableDiffusion1,
        }
    }
}

/// The keys under `prefix` by what `rename` makes of them.
fn entries(file: &TensorFile, prefix: &str, rename: impl Fn(&str) -> Option<String>) -> BTreeMap<String, Stored> {
    let entry = |rest: &str| {
        let key = format!("{prefix}{rest}");
        (rename(rest).unwrap_or_else(|| key.clone()), stored(key, View::Whole))
    };
    keys(file, prefix).map(entry).collect()
}

fn stored(key: String, view: View) -> Stored {
    Stored { file: 0, key, view }
}

/// Whether the first two axes are as long as each other.
pub(super) fn is_square(shape: &[usize]) -> bool {
    matches!(shape, [rows, columns, ..] if rows == columns)
}
