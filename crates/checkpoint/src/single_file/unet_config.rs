//! The config of a one-file model's UNet. Which blocks it has, how many layers and how deep their transformers are all
//! follows from which tensors exist.

use super::config::is_square;
use super::unet_layout::{Slot, UnetLayout};
use super::{COND_PROJ, FileKind, HEAD_CHANNELS, NORM_GROUPS, SingleFile, UNET};
use crate::Error;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Heads of every attention in the UNets of Stable Diffusion 1.x.
const HEADS_1: usize = 8;

impl SingleFile {
    pub(super) fn unet_config(&self) -> Result<Value, Error> {
        let layout = UnetLayout::of(self);
        let down = self.blocks("input_blocks", &layout.input)?;
        let up = self.blocks("output_blocks", &layout.output)?;
        let widths = down
            .iter()
            .map(|block| self.width(block))
            .collect::<Result<Vec<_>, _>>()?;
        let layers: Vec<usize> = down.iter().map(|block| block.depths.len()).collect();
        let first_attention = down.iter().chain(&up).find_map(|block| block.cross_attention_dim);
        let mut config = json!({
            "_class_name": "UNet2DConditionModel",
            "act_fn": "silu",
            "attention_head_dim": self.heads(&down, &widths)?,
            "block_out_channels": widths,
            "cross_attention_dim": first_attention,
            "down_block_types": down.iter().map(|block| block.kind(["DownBlock2D", "CrossAttnDownBlock2D"])).collect::<Vec<_>>(),
            "flip_sin_to_cos": true,
            "freq_shift": 0,
            "in_channels": self.size(&format!("{UNET}input_blocks.0.0.weight"), 1)?,
            "layers_per_block": one_or_many(&layers),
            "mid_block_type": self.mid_block_type(),
            "norm_eps": 1e-5,
            "norm_num_groups": NORM_GROUPS,
            "out_channels": self.size(&format!("{UNET}out.2.weight"), 0)?,
            "sample_size": self.sample_size(),
            "time_cond_proj_dim": self.has(COND_PROJ).then(|| self.size(COND_PROJ, 1)).transpose()?,
            "up_block_types": up.iter().map(|block| block.kind(["UpBlock2D", "CrossAttnUpBlock2D"])).collect::<Vec<_>>(),
            "use_linear_projection": self.has_linear_projections(),
        });
        if let Some(object) = config.as_object_mut() {
            object.extend(depths(&down, &up));
            object.extend(self.added_conditioning()?);
            if down.iter().any(|block| block.only_cross_attention) {
                let only: Vec<bool> = down.iter().map(|block| block.only_cross_attention).collect();
                object.insert("only_cross_attention".to_owned(), json!(only));
            }
        }
        Ok(config)
    }

    /// The blocks of one side of the UNet, in the file's order.
    fn blocks(&self, side: &str, slots: &BTreeMap<usize, Slot>) -> Result<Vec<BlockShapes>, Error> {
        let mut blocks: Vec<BlockShapes> = Vec::new();
        for (&i, slot) in slots.iter().filter(|(_, slot)| slot.has_resnet) {
            let first = format!("{side}.{i}");
            let depth = self.count(&format!("{UNET}{first}.1.transformer_blocks."));
            if let Some(block) = blocks.get_mut(slot.block) {
                block.depths.push(depth);
                continue;
            }
            let transformer = format!("{UNET}{first}.1.transformer_blocks.0");
            let read_by = |attention: &str| format!("{transformer}.{attention}.to_k.weight");
            let [own, cross] = [read_by("attn1"), read_by("attn2")];
            blocks.push(BlockShapes {
                depths: vec![depth],
                cross_attention_dim: self.has(&cross).then(|| self.size(&cross, 1)).transpose()?,
                only_cross_attention: self.shape(&own).is_some_and(|shape| !is_square(shape)),
                first,
            });
        }
        Ok(blocks)
    }

    fn width(&self, block: &BlockShapes) -> Result<usize, Error> {
        let width = self.size(&format!("{UNET}{}.0.in_layers.2.weight", block.first), 0)?;
        self.divide("channels of the UNet's group norms", width, NORM_GROUPS)?;
        Ok(width)
    }

    /// `attention_head_dim`, which diffusers named so and which is the number of heads.
    fn heads(&self, down: &[BlockShapes], widths: &[usize]) -> Result<Value, Error> {
        let is_1 = self.kind == FileKind::StableDiffusion1;
        let unit = if is_1 { HEADS_1 } else { HEAD_CHANNELS };
        let heads = down.iter().zip(widths).map(|(block, &width)| {
            if block.has_attention() {
                self.divide("channels of the UNet's attention", width, unit)
            } else {
                Ok((width / unit).max(1))
            }
        });
        let heads = heads.collect::<Result<Vec<_>, _>>()?;
        Ok(if is_1 { json!(HEADS_1) } else { json!(heads) })
    }

    fn mid_block_type(&self) -> Option<&'static str> {
        let has = |start: &str| self.has_any(&format!("{UNET}{start}"));
        if has("middle_block.1.transformer_blocks.") || has("middle_block.1.proj_in.") {
            Some("UNetMidBlock2DCrossAttn")
        } else {
            has("middle_block.0.").then_some("UNetMidBlock2D")
        }
    }

    /// Whether the layers around the transformers are matrices, not 1x1 convolutions.
    fn has_linear_projections(&self) -> bool {
        let mut projections = self.keys(UNET).filter(|key| key.ends_with(".1.proj_in.weight"));
        let first = projections.next().and_then(|key| self.shape(&format!("{UNET}{key}")));
        first.is_none_or(|shape| shape.len() == 2)
    }

    /// The fields of SDXL's pooled prompt and sizes.
    fn added_conditioning(&self) -> Result<Map<String, Value>, Error> {
        if self.kind != FileKind::Sdxl {
            return Ok(Map::new());
        }
        let addition = self.size(&format!("{UNET}label_emb.0.0.weight"), 1)?;
        Ok(fields([
            ("addition_embed_type", json!("text_time")),
            ("addition_time_embed_dim", json!(256)),
            ("projection_class_embeddings_input_dim", json!(addition)),
        ]))
    }
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

/// The number of transformer blocks on the way down and, where it is not the mirror of that, on the way up.
fn depths(down: &[BlockShapes], up: &[BlockShapes]) -> Map<String, Value> {
    let [there, back] = [down, up].map(|blocks| blocks.iter().map(BlockShapes::depth).collect::<Vec<_>>());
    let mut config = fields([("transformer_layers_per_block", json!(there))]);
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
