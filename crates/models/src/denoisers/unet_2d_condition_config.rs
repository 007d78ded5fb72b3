//! The denoiser's `config.json` and the sizes that follow from it (diffusers
//! `models/unets/unet_2d_condition.py`, 0.42.1).

use super::transformer_2d::TransformerShape;
use super::unet_2d_blocks::BlockShape;
use crate::config::{
    CONFIG, Check, MAX_CHANNELS, MAX_LAYERS, Neutral, OneOrMany, Plain, Ranges, TransformerLayers, invalid,
};
use crate::resnet::ResnetShape;
use prima_checkpoint::Error;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Largest side in latents.
const MAX_SAMPLE_SIZE: usize = 4096;

/// `UNet2DConditionModel`'s `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unet2dConditionConfig {
    pub sample_size: Option<OneOrMany<usize>>,
    pub in_channels: usize,
    pub out_channels: usize,
    pub flip_sin_to_cos: bool,
    pub freq_shift: f64,
    pub down_block_types: Vec<String>,
    pub mid_block_type: Option<String>,
    pub up_block_types: Vec<String>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: OneOrMany<usize>,
    pub downsample_padding: usize,
    pub norm_num_groups: usize,
    pub norm_eps: f64,
    /// In these blocks both attentions of a transformer read the text, none the picture (SDXS).
    pub only_cross_attention: OneOrMany<bool>,
    pub cross_attention_dim: OneOrMany<usize>,
    /// Transformer blocks after each residual block.
    pub transformer_layers_per_block: TransformerLayers,
    /// The same for the up blocks where it is not the mirror image.
    pub reverse_transformer_layers_per_block: Option<Vec<OneOrMany<usize>>>,
    /// In fact the number of heads: diffusers named it so, and files keep the name.
    pub attention_head_dim: OneOrMany<usize>,
    pub use_linear_projection: bool,
    /// `None` or `"text_time"` (SDXL).
    pub addition_embed_type: Option<String>,
    pub addition_time_embed_dim: Option<usize>,
    pub time_embedding_dim: Option<usize>,
    /// Width of an LCM's guidance embedding.
    pub time_cond_proj_dim: Option<usize>,
    pub conv_in_kernel: usize,
    pub conv_out_kernel: usize,
    pub projection_class_embeddings_input_dim: Option<usize>,
}

impl Default for Unet2dConditionConfig {
    fn default() -> Self {
        let names = |names: [&str; 4]| names.map(String::from).to_vec();
        let (cross_down, cross_up) = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D");
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: names([cross_down, cross_down, cross_down, "DownBlock2D"]),
            mid_block_type: Some("UNetMidBlock2DCrossAttn".into()),
            up_block_types: names(["UpBlock2D", cross_up, cross_up, cross_up]),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: OneOrMany::One(2),
            downsample_padding: 1,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            only_cross_attention: OneOrMany::One(false),
            cross_attention_dim: OneOrMany::One(1280),
            transformer_layers_per_block: TransformerLayers::One(1),
            reverse_transformer_layers_per_block: None,
            attention_head_dim: OneOrMany::One(8),
            use_linear_projection: false,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            time_embedding_dim: None,
            time_cond_proj_dim: None,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
            projection_class_embeddings_input_dim: None,
        }
    }
}

/// Fields that must be off. Dropout and upcasting do not change f32 inference.
pub(super) const NEUTRAL: &[Neutral] = &[
    ("center_input_sample", &[Plain::Bool(false)]),
    ("mid_block_scale_factor", &[Plain::Num(1.0)]),
    ("dropout", &[Plain::Any]),
    ("act_fn", &[Plain::Str("silu"), Plain::Str("swish")]),
    ("encoder_hid_dim", &[Plain::Null]),
    ("encoder_hid_dim_type", &[Plain::Null]),
    ("num_attention_heads", &[Plain::Null]),
    ("dual_cross_attention", &[Plain::Bool(false)]),
    ("class_embed_type", &[Plain::Null]),
    ("num_class_embeds", &[Plain::Null]),
    ("upcast_attention", &[Plain::Any]),
    ("resnet_time_scale_shift", &[Plain::Str("default")]),
    ("resnet_skip_time_act", &[Plain::Bool(false)]),
    ("resnet_out_scale_factor", &[Plain::Num(1.0)]),
    ("time_embedding_type", &[Plain::Str("positional")]),
    ("time_embedding_act_fn", &[Plain::Null]),
    ("timestep_post_act", &[Plain::Null]),
    ("attention_type", &[Plain::Str("default")]),
    ("class_embeddings_concat", &[Plain::Bool(false)]),
    // `UNetMidBlock2DCrossAttn` never reads it.
    ("mid_block_only_cross_attention", &[Plain::Any]),
    ("cross_attention_norm", &[Plain::Null]),
    ("addition_embed_type_num_heads", &[Plain::Any]),
];

const CLASS_NAME: &str = "UNet2DConditionModel";

impl Unet2dConditionConfig {
    /// Reads a `config.json`; `file` names it in errors.
    pub fn from_json(json: &str, file: &str) -> Result<Self, Error> {
        crate::config::read(json, file, &[CLASS_NAME], NEUTRAL)
    }

    /// The `config.json` that diffusers reads back.
    pub fn to_json(&self) -> Value {
        crate::config::write(self, &[("_class_name", CLASS_NAME)])
    }

    /// Refuses numbers out of range, as [`from_json`](Self::from_json) does.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.check_ranges(&Check { file: CONFIG })
    }

    /// Whether this is the shape of SDXS's UNets, which no other model has: no mid block,
    /// and no self-attention at the largest resolution.
    pub fn is_sdxs(&self) -> bool {
        let only_cross = match &self.only_cross_attention {
            OneOrMany::One(only) => *only,
            OneOrMany::Many(blocks) => blocks.first() == Some(&true),
        };
        let first = self.down_block_types.first();
        let no_self_attention = only_cross || first.is_some_and(|kind| kind == "DownBlock2D");
        self.mid_block_type.is_none() && self.addition_embed_type.is_none() && no_self_attention
    }

    /// How many time ids it reads beside a pooled prompt of this width, where that comes out even.
    pub fn time_id_count(&self, pooled_width: usize) -> Option<usize> {
        let inputs = self.projection_class_embeddings_input_dim?.checked_sub(pooled_width)?;
        let dim = self.addition_time_embed_dim.filter(|dim| *dim > 0)?;
        inputs.is_multiple_of(dim).then_some(inputs / dim)
    }

    pub(super) fn time_embed_dim(&self) -> usize {
        self.time_embedding_dim.unwrap_or(4 * self.block_out_channels[0])
    }

    pub(super) fn resnet_shape(&self) -> ResnetShape {
        ResnetShape {
            groups: self.norm_num_groups,
            eps: self.norm_eps as f32,
            temb_channels: Some(self.time_embed_dim()),
        }
    }

    pub(super) fn levels(&self) -> Result<Levels, Error> {
        let blocks = self.block_out_channels.len();
        let counts = [
            ("down_block_types", self.down_block_types.len()),
            ("up_block_types", self.up_block_types.len()),
        ];
        for (field, found) in counts {
            if found != blocks || blocks == 0 {
                let expected = format!("block_out_channels has {blocks}, and both must be equal and not 0");
                return Err(invalid(format!("{field} has {found} entries, {expected}")));
            }
        }
        let transformers = self.transformer_layers_per_block.per_block(blocks)?;
        let reversed = match &self.reverse_transformer_layers_per_block {
            Some(layers) => {
                OneOrMany::Many(layers.clone()).per_block(blocks, "reverse_transformer_layers_per_block")?
            }
            None if transformers.iter().any(|layers| matches!(layers, OneOrMany::Many(_))) => {
                let message =
                    "reverse_transformer_layers_per_block is needed where transformer_layers_per_block is nested";
                return Err(invalid(message.into()));
            }
            None => transformers.iter().rev().cloned().collect(),
        };
        Ok(Levels {
            layers: self.layers_per_block.per_block(blocks, "layers_per_block")?,
            heads: self.attention_head_dim.per_block(blocks, "attention_head_dim")?,
            context: self.cross_attention_dim.per_block(blocks, "cross_attention_dim")?,
            only_cross: self.only_cross_attention.per_block(blocks, "only_cross_attention")?,
            transformers,
            reversed,
        })
    }

    pub(super) fn transformer(&self, levels: &Levels, level: usize, layers: usize) -> TransformerShape {
        TransformerShape {
            channels: self.block_out_channels[level],
            heads: levels.heads[level],
            cross_attention_dim: levels.context[level],
            only_cross_attention: levels.only_cross[level],
            layers,
            groups: self.norm_num_groups,
            use_linear_projection: self.use_linear_projection,
        }
    }

    /// The transformers of a block of `layers` residual blocks, by the block's type.
    fn transformers(
        &self,
        levels: &Levels,
        level: usize,
        layers: usize,
        depth: &OneOrMany<usize>,
        block_type: &str,
        [plain, cross]: [&str; 2],
    ) -> Result<Vec<Option<TransformerShape>>, Error> {
        if block_type == plain {
            return Ok(vec![None; layers]);
        }
        if block_type != cross {
            return Err(invalid(format!(
                "block type {block_type} is not supported, only {plain} or {cross}"
            )));
        }
        let depths = depth.per_block(layers, "transformer_layers_per_block of one block")?;
        Ok(depths
            .into_iter()
            .map(|depth| Some(self.transformer(levels, level, depth)))
            .collect())
    }

    pub(super) fn down_shape(&self, levels: &Levels, level: usize) -> Result<BlockShape, Error> {
        let names = ["DownBlock2D", "CrossAttnDownBlock2D"];
        let (layers, depth) = (levels.layers[level], &levels.transformers[level]);
        Ok(BlockShape {
            inputs: self.block_out_channels[level.saturating_sub(1)],
            outputs: self.block_out_channels[level],
            previous: 0,
            resnet: self.resnet_shape(),
            transformers: self.transformers(levels, level, layers, depth, &self.down_block_types[level], names)?,
            resample: level + 1 < self.block_out_channels.len(),
        })
    }

    /// Up block `i`, counted from the smallest resolution.
    pub(super) fn up_shape(&self, levels: &Levels, i: usize) -> Result<BlockShape, Error> {
        let names = ["UpBlock2D", "CrossAttnUpBlock2D"];
        let last = self.block_out_channels.len() - 1;
        let level = last - i;
        let (layers, depth) = (levels.layers[level] + 1, &levels.reversed[i]);
        Ok(BlockShape {
            inputs: self.block_out_channels[level.saturating_sub(1)],
            outputs: self.block_out_channels[level],
            previous: self.block_out_channels[(level + 1).min(last)],
            resnet: self.resnet_shape(),
            transformers: self.transformers(levels, level, layers, depth, &self.up_block_types[i], names)?,
            resample: level > 0,
        })
    }
}

impl Ranges for Unet2dConditionConfig {
    fn check_ranges(&self, check: &Check) -> Result<(), Error> {
        check.blocks("block_out_channels", &self.block_out_channels)?;
        check.channels(&[
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("norm_num_groups", self.norm_num_groups),
        ])?;
        let optional = [
            ("addition_time_embed_dim", self.addition_time_embed_dim),
            ("time_embedding_dim", self.time_embedding_dim),
            ("time_cond_proj_dim", self.time_cond_proj_dim),
            (
                "projection_class_embeddings_input_dim",
                self.projection_class_embeddings_input_dim,
            ),
        ];
        for (field, value) in optional {
            check.channels(&value.map(|value| (field, value)).into_iter().collect::<Vec<_>>())?;
        }
        check.each(
            "cross_attention_dim",
            self.cross_attention_dim.values(),
            1..=MAX_CHANNELS,
        )?;
        check.each("attention_head_dim", self.attention_head_dim.values(), 1..=MAX_CHANNELS)?;
        check.each("layers_per_block", self.layers_per_block.values(), 1..=MAX_LAYERS)?;
        let transformers = self.transformer_layers_per_block.values();
        check.each("transformer_layers_per_block", &transformers, 0..=MAX_LAYERS)?;
        for block in self.reverse_transformer_layers_per_block.iter().flatten() {
            check.each("reverse_transformer_layers_per_block", block.values(), 0..=MAX_LAYERS)?;
        }
        if let Some(size) = &self.sample_size {
            check.each("sample_size", size.values(), 1..=MAX_SAMPLE_SIZE)?;
        }
        check.epsilon("norm_eps", self.norm_eps)?;
        check.within("freq_shift", self.freq_shift, 0.0..=1.0)?;
        check.within("downsample_padding", self.downsample_padding, 0..=1)?;
        check.within("conv_in_kernel", self.conv_in_kernel, 1..=15)?;
        check.within("conv_out_kernel", self.conv_out_kernel, 1..=15)
    }
}

/// Per-block values, from the largest resolution down; `reversed` from the smallest up.
pub(super) struct Levels {
    pub layers: Vec<usize>,
    heads: Vec<usize>,
    context: Vec<usize>,
    only_cross: Vec<bool>,
    pub transformers: Vec<OneOrMany<usize>>,
    reversed: Vec<OneOrMany<usize>>,
}
