//! One-file SDXL models in the original layout: which stored tensor is which parameter of the
//! diffusers form (after diffusers `loaders/single_file_utils.py`), and what kind of file it is.

use crate::reader::{Stored, View};
use crate::tensor_file::TensorFile;
use crate::{Error, Reader};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub(crate) const UNET: &str = "model.diffusion_model.";
pub(crate) const VAE: &str = "first_stage_model.";
pub(crate) const CLIP_L: &str = "conditioner.embedders.0.transformer.";
pub(crate) const BIG_G: &str = "conditioner.embedders.1.model.";

/// What a safetensors file holds, told by its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// SDXL with both text encoders, in the original layout.
    Sdxl,
    /// The same with an LCM UNet (`time_embedding.cond_proj`).
    SdxlLcm,
    /// The SDXL refiner: other text encoder, other conditioning.
    Refiner,
    /// An inpainting UNet: 9 input channels.
    Inpaint,
    /// Stable Diffusion 1.x or 2.x in the original layout.
    StableDiffusion1Or2,
    /// A UNet on its own, with diffusers' keys (as SDXL-Lightning and DMD2 are published).
    DiffusersUnet,
    /// A LoRA or a relative of it.
    Lora,
    Unknown,
}

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
    } else if any(UNET) && any(BIG_G) {
        let lcm = any("model.diffusion_model.time_embedding.cond_proj.");
        if lcm { FileKind::SdxlLcm } else { FileKind::Sdxl }
    } else if any("cond_stage_model.") {
        FileKind::StableDiffusion1Or2
    } else if any("down_blocks.0.") && any("time_embedding.") {
        FileKind::DiffusersUnet
    } else {
        FileKind::Unknown
    }
}

/// A whole model in one file, known to be of a kind that prima runs.
pub(crate) struct SingleFile {
    pub file: Arc<TensorFile>,
    pub kind: FileKind,
}

impl SingleFile {
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = Arc::new(TensorFile::open(path)?);
        let kind = what_is_it(&file);
        let refusal = match kind {
            FileKind::Sdxl | FileKind::SdxlLcm => return Ok(Self { file, kind }),
            FileKind::Refiner => ("SDXL refiner", "use the base model"),
            FileKind::Inpaint => ("inpainting model (9 input channels)", "use the text-to-image model"),
            FileKind::StableDiffusion1Or2 => ("Stable Diffusion 1.x/2.x", "convert it to a diffusers folder"),
            FileKind::DiffusersUnet => (
                "UNet without text encoders and VAE",
                "put it into a diffusers folder's `unet`",
            ),
            FileKind::Lora => ("LoRA", "load it on top of a model"),
            FileKind::Unknown => (
                "unknown",
                "an SDXL file has `model.diffusion_model.` and `conditioner.` keys",
            ),
        };
        Err(Error::Unsupported {
            file: path.display().to_string(),
            field: "kind of model".to_owned(),
            found: refusal.0.to_owned(),
            fix: refusal.1.to_owned(),
        })
    }

    /// The shape of a stored tensor.
    pub fn shape(&self, key: &str) -> Option<&[usize]> {
        self.file.tensors().get(key).map(|entry| entry.shape.as_slice())
    }

    /// Stored keys that start with `prefix`, without it.
    pub fn keys<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.file
            .tensors()
            .keys()
            .filter_map(move |key| key.strip_prefix(prefix))
    }

    /// The prefix of a component's keys.
    pub fn prefix(component: &str) -> Option<&'static str> {
        Some(match component {
            "unet" => UNET,
            "vae" => VAE,
            "text_encoder" => CLIP_L,
            "text_encoder_2" => BIG_G,
            _ => return None,
        })
    }

    /// A reader of one component under its diffusers keys. A key of the component with no known
    /// counterpart keeps its name, so that `finish` reports it.
    pub fn reader(&self, component: &str) -> Result<Reader, Error> {
        let hint = " (a single file holds unet, vae, text_encoder and text_encoder_2)".to_owned();
        let none = Error::NoFile {
            model: self.file.name().to_owned(),
            path: component.to_owned(),
            hint,
        };
        let Some(prefix) = Self::prefix(component) else {
            return Err(none);
        };
        let unet = UnetLayout::of(self);
        let up_blocks = count(self.keys(VAE), "decoder.up.");
        let mut entries = BTreeMap::new();
        for rest in self.keys(prefix) {
            let stored = |view| Stored {
                file: 0,
                key: format!("{prefix}{rest}"),
                view,
            };
            let renamed = match component {
                "unet" => unet.rename(rest),
                "vae" => rename_vae(rest, up_blocks),
                "text_encoder" => Some(rest.to_owned()),
                _ => {
                    for (key, view) in rename_open_clip(rest) {
                        entries.insert(key, stored(view));
                    }
                    continue;
                }
            };
            entries.insert(
                renamed.unwrap_or_else(|| format!("{prefix}{rest}")),
                stored(View::Whole),
            );
        }
        if entries.is_empty() {
            return Err(none);
        }
        let name = format!("{} ({component})", self.file.name());
        let reader = Reader::from_entries(name, vec![self.file.clone()], entries);
        // OpenCLIP's similarity scale and SDXL training's EMA counters belong to no network here.
        Ok(reader.ignoring(&["logit_scale", "model_ema."]))
    }
}

/// One more than the largest number that follows `start` in the keys.
pub(crate) fn count<'a>(keys: impl Iterator<Item = &'a str>, start: &str) -> usize {
    keys.filter_map(|key| leading_number(key.strip_prefix(start)?))
        .map(|(n, _)| n + 1)
        .max()
        .unwrap_or(0)
}

/// `12.rest` to (12, `rest`); a bare number has an empty rest.
fn leading_number(text: &str) -> Option<(usize, &str)> {
    let (number, rest) = text.split_once('.').unwrap_or((text, ""));
    Some((number.parse().ok()?, rest))
}

/// Which block and layer each of the original UNet's numbered blocks is. It follows from where
/// the down- and upsamplers are, so any number of layers per block is understood.
pub(crate) struct UnetLayout {
    /// (block, layer) of `input_blocks.i`; entry 0 is `conv_in`.
    pub input: Vec<(usize, usize)>,
    /// (block, layer) of `output_blocks.i`.
    pub output: Vec<(usize, usize)>,
}

impl UnetLayout {
    pub fn of(file: &SingleFile) -> Self {
        let has = |key: String| file.file.tensors().contains_key(&format!("{UNET}{key}"));
        let walk = |len: usize, from: usize, ends_block: &dyn Fn(usize) -> bool| {
            let (mut block, mut layer) = (0, 0);
            let mut places = vec![(0, 0); from];
            for i in from..len {
                places.push((block, layer));
                if ends_block(i) {
                    (block, layer) = (block + 1, 0);
                } else {
                    layer += 1;
                }
            }
            places
        };
        let inputs = count(file.keys(UNET), "input_blocks.");
        let outputs = count(file.keys(UNET), "output_blocks.");
        let down = |i: usize| has(format!("input_blocks.{i}.0.op.weight"));
        let up = |i: usize| (1..3).any(|sub| has(format!("output_blocks.{i}.{sub}.conv.weight")));
        Self {
            input: walk(inputs, 1, &down),
            output: walk(outputs, 0, &up),
        }
    }

    /// The diffusers key of a UNet key (without its prefix).
    fn rename(&self, key: &str) -> Option<String> {
        const WHOLE: [(&str, &str); 8] = [
            ("time_embed.0.", "time_embedding.linear_1."),
            ("time_embed.2.", "time_embedding.linear_2."),
            ("label_emb.0.0.", "add_embedding.linear_1."),
            ("label_emb.0.2.", "add_embedding.linear_2."),
            ("input_blocks.0.0.", "conv_in."),
            ("out.0.", "conv_norm_out."),
            ("out.2.", "conv_out."),
            ("time_embedding.cond_proj.", "time_embedding.cond_proj."),
        ];
        if let Some((rest, new)) = WHOLE.iter().find_map(|(old, new)| Some((key.strip_prefix(old)?, new))) {
            return Some(format!("{new}{rest}"));
        }
        if let Some(rest) = key.strip_prefix("middle_block.") {
            let (sub, leaf) = leading_number(rest)?;
            return Some(match rename_resnet(leaf) {
                Some(leaf) => format!("mid_block.resnets.{}.{leaf}", usize::from(sub > 0)),
                None => format!("mid_block.attentions.0.{leaf}"),
            });
        }
        let (blocks, places, rest) = match key.strip_prefix("input_blocks.") {
            Some(rest) => ("down_blocks", &self.input, rest),
            None => ("up_blocks", &self.output, key.strip_prefix("output_blocks.")?),
        };
        let (index, rest) = leading_number(rest)?;
        let (_, leaf) = leading_number(rest)?;
        let &(block, layer) = places.get(index)?;
        Some(if let Some(leaf) = rename_resnet(leaf) {
            format!("{blocks}.{block}.resnets.{layer}.{leaf}")
        } else if let Some(leaf) = leaf.strip_prefix("op.") {
            format!("{blocks}.{block}.downsamplers.0.conv.{leaf}")
        } else if let Some(leaf) = leaf.strip_prefix("conv.") {
            format!("{blocks}.{block}.upsamplers.0.conv.{leaf}")
        } else {
            format!("{blocks}.{block}.attentions.{layer}.{leaf}")
        })
    }
}

/// The layers of a UNet's resnet; None for anything else.
fn rename_resnet(leaf: &str) -> Option<String> {
    const LAYERS: [(&str, &str); 6] = [
        ("in_layers.0.", "norm1."),
        ("in_layers.2.", "conv1."),
        ("emb_layers.1.", "time_emb_proj."),
        ("out_layers.0.", "norm2."),
        ("out_layers.3.", "conv2."),
        ("skip_connection.", "conv_shortcut."),
    ];
    LAYERS
        .iter()
        .find_map(|(old, new)| Some(format!("{new}{}", leaf.strip_prefix(old)?)))
}

/// The diffusers key of a VAE key (without its prefix). The original numbers the decoder's blocks
/// from the picture's side, diffusers from the latents'.
fn rename_vae(key: &str, up_blocks: usize) -> Option<String> {
    if key.starts_with("quant_conv.") || key.starts_with("post_quant_conv.") {
        return Some(key.to_owned());
    }
    let (half, rest) = key
        .split_once('.')
        .filter(|(half, _)| matches!(*half, "encoder" | "decoder"))?;
    if let Some(rest) = rest.strip_prefix("norm_out.") {
        return Some(format!("{half}.conv_norm_out.{rest}"));
    }
    if rest.starts_with("conv_in.") || rest.starts_with("conv_out.") {
        return Some(key.to_owned());
    }
    if let Some(rest) = rest.strip_prefix("mid.") {
        let (module, leaf) = rest.split_once('.')?;
        return match module {
            "block_1" => Some(format!("{half}.mid_block.resnets.0.{leaf}")),
            "block_2" => Some(format!("{half}.mid_block.resnets.1.{leaf}")),
            "attn_1" => Some(format!("{half}.mid_block.attentions.0.{}", rename_vae_attention(leaf)?)),
            _ => None,
        };
    }
    let (blocks, sampler, index, rest) = if let Some(rest) = rest.strip_prefix("down.") {
        let (index, rest) = leading_number(rest)?;
        ("down_blocks", "downsample", index, rest)
    } else {
        let (index, rest) = leading_number(rest.strip_prefix("up.")?)?;
        ("up_blocks", "upsample", up_blocks.checked_sub(index + 1)?, rest)
    };
    if let Some(rest) = rest.strip_prefix("block.") {
        let rest = rest.replace("nin_shortcut.", "conv_shortcut.");
        return Some(format!("{half}.{blocks}.{index}.resnets.{rest}"));
    }
    let leaf = rest.strip_prefix(sampler)?.strip_prefix('.')?;
    Some(format!("{half}.{blocks}.{index}.{sampler}rs.0.{leaf}"))
}

fn rename_vae_attention(leaf: &str) -> Option<String> {
    let (module, kind) = leaf.split_once('.')?;
    let module = match module {
        "norm" => "group_norm",
        "q" => "to_q",
        "k" => "to_k",
        "v" => "to_v",
        "proj_out" => "to_out.0",
        _ => return None,
    };
    Some(format!("{module}.{kind}"))
}

/// The transformers keys (one, or three for `in_proj`) of an OpenCLIP key without its prefix.
fn rename_open_clip(key: &str) -> Vec<(String, View)> {
    let one = |name: String| vec![(name, View::Whole)];
    match key {
        "token_embedding.weight" => return one("text_model.embeddings.token_embedding.weight".to_owned()),
        "positional_embedding" => return one("text_model.embeddings.position_embedding.weight".to_owned()),
        // Used as `x @ text_projection`, so it is a Linear's weight the other way round.
        "text_projection" => return vec![("text_projection.weight".to_owned(), View::Transposed)],
        _ => {}
    }
    if let Some(kind) = key.strip_prefix("ln_final.") {
        return one(format!("text_model.final_layer_norm.{kind}"));
    }
    let layer = key.strip_prefix("transformer.resblocks.").and_then(leading_number);
    let Some((layer, leaf)) = layer else {
        return one(key.to_owned());
    };
    let layer = format!("text_model.encoder.layers.{layer}");
    if let Some(kind) = leaf.strip_prefix("attn.in_proj_") {
        let part = |(index, name)| {
            (
                format!("{layer}.self_attn.{name}.{kind}"),
                View::Rows { index, parts: 3 },
            )
        };
        return ["q_proj", "k_proj", "v_proj"]
            .into_iter()
            .enumerate()
            .map(part)
            .collect();
    }
    const MODULES: [(&str, &str); 5] = [
        ("attn.out_proj.", "self_attn.out_proj."),
        ("ln_1.", "layer_norm1."),
        ("ln_2.", "layer_norm2."),
        ("mlp.c_fc.", "mlp.fc1."),
        ("mlp.c_proj.", "mlp.fc2."),
    ];
    let renamed = MODULES
        .iter()
        .find_map(|(old, new)| Some(format!("{layer}.{new}{}", leaf.strip_prefix(old)?)));
    one(renamed.unwrap_or_else(|| key.to_owned()))
}
