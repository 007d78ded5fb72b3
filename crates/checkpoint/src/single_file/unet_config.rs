//! The config of a file's UNet. Which blocks it has, how many layers and how deep their transformers are all follows from
//! which tensors exist, under diffusers' names.

use super::network::{Network, is_square};
use super::{Family, HEAD_CHANNELS, NORM_GROUPS, leading_number};
use crate::Error;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Heads of every attention in the UNets of Stable Diffusion 1.x.
const HEADS_1: usize = 8;

/// An LCM's guidance embedding.
pub(super) const COND_PROJ: &str = "time_embedding.cond_proj.weight";

/// The JSON that diffusers would write of it.
pub(super) fn unet_config(unet: &Network, family: Family, sample_size: usize) -> Result<Value, Error> {
    let down = blocks(unet, "down_blocks")?;
    let up = blocks(unet, "up_blocks")?;
    let widths = down
        .iter()
        .map(|block| width(unet, block))
        .collect::<Result<Vec<_>, _>>()?;
    let layers: Vec<usize> = down.iter().map(|block| block.depths.len()).collect();
    let first_attention = down.iter().chain(&up).find_map(|block| block.cross_attention_dim);
    let mut config = json!({
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": heads(unet, family, &down, &widths)?,
        "block_out_channels": widths,
        "cross_attention_dim": first_attention,
        "down_block_types": down.iter().map(|block| block.kind(["DownBlock2D", "CrossAttnDownBlock2D"])).collect::<Vec<_>>(),
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "in_channels": unet.size("conv_in.weight", 1)?,
        "layers_per_block": one_or_many(&layers),
        "mid_block_type": mid_block_type(unet),
        "norm_eps": 1e-5,
        "norm_num_groups": NORM_GROUPS,
        // A ControlNet has no way up.
        "out_channels": unet.has("conv_out.weight").then(|| unet.size("conv_out.weight", 0)).transpose()?.unwrap_or(4),
        "sample_size": sample_size,
        "time_cond_proj_dim": unet.has(COND_PROJ).then(|| unet.size(COND_PROJ, 1)).transpose()?,
        "up_block_types": up.iter().map(|block| block.kind(["UpBlock2D", "CrossAttnUpBlock2D"])).collect::<Vec<_>>(),
        "use_linear_projection": has_linear_projections(unet),
    });
    if let Some(object) = config.as_object_mut() {
        object.extend(depths(&down, &up, mid_depth(unet)));
        object.extend(added_conditioning(unet, family)?);
        if down.iter().any(|block| block.only_cross_attention) {
            let only: Vec<bool> = down.iter().map(|block| block.only_cross_attention).collect();
            object.insert("only_cross_attention".to_owned(), json!(only));
        }
    }
    Ok(config)
}

/// The blocks of one side of the UNet, in diffusers' order.
fn blocks(unet: &Network, side: &str) -> Result<Vec<BlockShapes>, Error> {
    let start = format!("{side}.");
    let numbers = |prefix: &str| -> BTreeSet<usize> {
        let numbers = unet.keys(prefix).filter_map(|key| Some(leading_number(key)?.0));
        numbers.collect()
    };
    let mut blocks = Vec::new();
    for i in numbers(&start) {
        let layers = numbers(&format!("{side}.{i}.resnets."));
        if layers.is_empty() {
            continue;
        }
        let transformers = |layer: &usize| format!("{side}.{i}.attentions.{layer}.transformer_blocks.");
        let first = layers.iter().map(transformers).find(|start| unet.has_any(start));
        let read_by = |attention: &str| Some(format!("{}0.{attention}.to_k.weight", first.as_ref()?));
        let (own, cross) = (read_by("attn1"), read_by("attn2"));
        let cross = cross.filter(|key| unet.has(key));
        blocks.push(BlockShapes {
            depths: layers.iter().map(|layer| unet.count(&transformers(layer))).collect(),
            cross_attention_dim: cross.map(|key| unet.size(&key, 1)).transpose()?,
            only_cross_attention: own
                .and_then(|key| unet.shape(&key))
                .is_some_and(|shape| !is_square(&shape)),
            first: format!("{side}.{i}.resnets.{}", layers.first().unwrap_or(&0)),
        });
    }
    Ok(blocks)
}

fn width(unet: &Network, block: &BlockShapes) -> Result<usize, Error> {
    let width = unet.size(&format!("{}.conv1.weight", block.first), 0)?;
    unet.divide("channels of the UNet's group norms", width, NORM_GROUPS)?;
    Ok(width)
}

/// `attention_head_dim`, which diffusers named so and which is the number of heads.
fn heads(unet: &Network, family: Family, down: &[BlockShapes], widths: &[usize]) -> Result<Value, Error> {
    let is_1 = family == Family::StableDiffusion1;
    let unit = if is_1 { HEADS_1 } else { HEAD_CHANNELS };
    let heads = down.iter().zip(widths).map(|(block, &width)| {
        if block.has_attention() {
            unet.divide("channels of the UNet's attention", width, unit)
        } else {
            Ok((width / unit).max(1))
        }
    });
    let heads = heads.collect::<Result<Vec<_>, _>>()?;
    Ok(if is_1 { json!(HEADS_1) } else { json!(heads) })
}

fn mid_block_type(unet: &Network) -> Option<&'static str> {
    if unet.has_any("mid_block.attentions.0.transformer_blocks.") || unet.has_any("mid_block.attentions.0.proj_in.") {
        Some("UNetMidBlock2DCrossAttn")
    } else {
        unet.has_any("mid_block.resnets.0.").then_some("UNetMidBlock2D")
    }
}

/// Whether the layers around the transformers are matrices, not 1x1 convolutions.
fn has_linear_projections(unet: &Network) -> bool {
    let mut projections = unet.keys("").filter(|key| key.ends_with(".proj_in.weight"));
    let first = projections.next().and_then(|key| unet.shape(key));
    first.is_none_or(|shape| shape.len() == 2)
}

/// The fields of SDXL's pooled prompt and sizes.
fn added_conditioning(unet: &Network, family: Family) -> Result<Map<String, Value>, Error> {
    if family != Family::Sdxl {
        return Ok(Map::new());
    }
    let addition = unet.size("add_embedding.linear_1.weight", 1)?;
    Ok(fields([
        ("addition_embed_type", json!("text_time")),
        ("addition_time_embed_dim", json!(256)),
        ("projection_class_embeddings_input_dim", json!(addition)),
    ]))
}

/// What the tensors say about one block of a UNet.
struct BlockShapes {
    /// Where its first residual block lies.
    first: String,
    /// Transformer blocks after each residual block.
    depths: Vec<usize>,
    cross_attention_dim: Option<usize>,
    only_cross_attention: bool,
}

impl BlockShapes {
    fn has_attention(&self) -> bool {
        self.depths.iter().any(|&depth| depth > 0)
    }

    fn kind(&self, [plain, cross]: [&'static str; 2]) -> &'static str {
        if self.has_attention() { cross } else { plain }
    }

    /// One number where all layers have the same; blocks without transformers have 1 in diffusers.
    fn depth(&self) -> Value {
        if self.has_attention() {
            one_or_many(&self.depths)
        } else {
            json!(1)
        }
    }
}

/// Transformer blocks of the middle's transformer; none where it has none.
fn mid_depth(unet: &Network) -> Option<usize> {
    let depth = unet.count("mid_block.attentions.0.transformer_blocks.");
    (depth > 0).then_some(depth)
}

/// The number of transformer blocks on the way down and, where it is not the mirror of that, on the way up. The middle has
/// as many as the smallest level: where that has none itself, as in SDXL's refiner, its number is the middle's.
fn depths(down: &[BlockShapes], up: &[BlockShapes], mid: Option<usize>) -> Map<String, Value> {
    let [mut there, mut back] = [down, up].map(|blocks| blocks.iter().map(BlockShapes::depth).collect::<Vec<_>>());
    let smallest = [(down.last(), there.last_mut()), (up.first(), back.first_mut())];
    for (block, depth) in smallest {
        if let (Some(block), Some(depth), Some(mid)) = (block, depth, mid)
            && !block.has_attention()
        {
            *depth = json!(mid);
        }
    }
    let mut config = fields([("transformer_layers_per_block", json!(there))]);
    if up.is_empty() {
        return config;
    }
    let is_nested = there.iter().any(Value::is_array);
    if is_nested || !there.iter().rev().eq(&back) {
        config.insert("reverse_transformer_layers_per_block".to_owned(), json!(back));
    }
    config
}

/// The number that all are, or all of them.
fn one_or_many(values: &[usize]) -> Value {
    match values {
        [first, rest @ ..] if rest.iter().all(|value| value == first) => json!(first),
        _ => json!(values),
    }
}

fn fields<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs.map(|(key, value)| (key.to_owned(), value)).into_iter().collect()
}
