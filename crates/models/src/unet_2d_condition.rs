//! The denoiser (diffusers `models/unets/unet_2d_condition.py`, 0.42.1).

use crate::config::{Neutral, OneOrMany, Plain, TransformerLayers, invalid};
use crate::embeddings::{TimestepEmbedding, sinusoids};
use crate::layers::{Conv, GroupNorm, Start};
use crate::resnet::ResnetShape;
use crate::transformer_2d::TransformerShape;
use crate::unet_2d_blocks::{BlockContext, BlockShape, DownBlock, MidBlock, UpBlock};
use crate::{Cancelled, check};
use prima_checkpoint::{Error, ParamSource};
use prima_tensor::{Activation, Repeatable, Tensor, activation, add, concat_channels};
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
const NEUTRAL: &[Neutral] = &[
    ("center_input_sample", &[Plain::Bool(false)]),
    ("only_cross_attention", &[Plain::Bool(false)]),
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
    ("mid_block_only_cross_attention", &[Plain::Null, Plain::Bool(false)]),
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

    fn time_embed_dim(&self) -> usize {
        self.time_embedding_dim.unwrap_or(4 * self.block_out_channels[0])
    }

    fn resnet_shape(&self) -> ResnetShape {
        ResnetShape {
            groups: self.norm_num_groups,
            eps: self.norm_eps as f32,
            temb_channels: Some(self.time_embed_dim()),
        }
    }

    fn levels(&self) -> Result<Levels, Error> {
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
            transformers,
            reversed,
        })
    }

    fn transformer(&self, levels: &Levels, level: usize, layers: usize) -> TransformerShape {
        TransformerShape {
            channels: self.block_out_channels[level],
            heads: levels.heads[level],
            cross_attention_dim: levels.context[level],
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

    fn down_shape(&self, levels: &Levels, level: usize) -> Result<BlockShape, Error> {
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
    fn up_shape(&self, levels: &Levels, i: usize) -> Result<BlockShape, Error> {
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

/// Per-block values, from the largest resolution down; `reversed` from the smallest up.
struct Levels {
    layers: Vec<usize>,
    heads: Vec<usize>,
    context: Vec<usize>,
    transformers: Vec<OneOrMany<usize>>,
    reversed: Vec<OneOrMany<usize>>,
}

/// What the UNet is conditioned on beside the timestep.
#[derive(Clone, Debug)]
pub struct UnetCond {
    /// `[B, L, cross_attention_dim]`.
    pub encoder_hidden_states: Tensor,
    /// Pooled prompt embedding `[B, P]`; needed by `addition_embed_type = "text_time"`.
    pub text_embeds: Option<Tensor>,
    /// Per sample, in pixels: original height, width, crop top, left, target height, width.
    pub time_ids: Vec<[f32; 6]>,
    /// `[B, time_cond_proj_dim]`, see [`guidance_scale_embedding`](crate::guidance_scale_embedding).
    pub timestep_cond: Option<Tensor>,
}

/// Feature maps of a forward pass, for discriminators and for looking inside.
#[derive(Clone, Debug)]
pub struct UnetFeatures {
    /// The output of each down block, `[B, H, W, C]`.
    pub down: Vec<Tensor>,
    /// The output of the mid block (of the last down block if there is none).
    pub mid: Tensor,
}

/// `UNet2DConditionModel`.
pub struct Unet2dCondition {
    config: Unet2dConditionConfig,
    conv_in: Conv,
    time_embedding: TimestepEmbedding,
    add_embedding: Option<TimestepEmbedding>,
    down_blocks: Vec<DownBlock>,
    mid_block: Option<MidBlock>,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv,
    steps: Repeatable,
}

impl Unet2dCondition {
    pub fn new(config: Unet2dConditionConfig, source: &mut dyn ParamSource) -> Result<Self, Error> {
        let levels = config.levels()?;
        for (field, kernel) in [
            ("conv_in_kernel", config.conv_in_kernel),
            ("conv_out_kernel", config.conv_out_kernel),
        ] {
            if kernel % 2 == 0 {
                return Err(invalid(format!("{field} = {kernel} is not supported, only odd sizes")));
            }
        }
        let first = config.block_out_channels[0];
        let temb = config.time_embed_dim();
        let blocks = config.block_out_channels.len();
        let in_shape = [config.in_channels, first, config.conv_in_kernel];
        let out_shape = [first, config.out_channels, config.conv_out_kernel];
        Ok(Self {
            conv_in: Conv::same(source, "conv_in", in_shape, Start::Default)?,
            time_embedding: TimestepEmbedding::new(source, "time_embedding", first, temb, config.time_cond_proj_dim)?,
            add_embedding: add_embedding(&config, source)?,
            down_blocks: (0..blocks)
                .map(|i| {
                    let (name, shape) = (format!("down_blocks.{i}"), config.down_shape(&levels, i)?);
                    DownBlock::new(source, &name, &shape, config.downsample_padding)
                })
                .collect::<Result<_, _>>()?,
            mid_block: mid_block(&config, &levels, source)?,
            up_blocks: (0..blocks)
                .map(|i| UpBlock::new(source, &format!("up_blocks.{i}"), &config.up_shape(&levels, i)?))
                .collect::<Result<_, _>>()?,
            conv_norm_out: GroupNorm::new(
                source,
                "conv_norm_out",
                first,
                config.norm_num_groups,
                config.norm_eps as f32,
            )?,
            conv_out: Conv::same(source, "conv_out", out_shape, Start::Zero)?,
            steps: Repeatable::default(),
            config,
        })
    }

    pub fn config(&self) -> &Unet2dConditionConfig {
        &self.config
    }

    /// The model output `[B, H, W, out_channels]` for the scaled noisy latents `sample`
    /// `[B, H, W, in_channels]`. `keep_going` is asked between layers; once it returns
    /// `false` the pass ends with [`Cancelled`].
    ///
    /// # Panics
    /// If `cond` lacks what the config asks for, or a shape does not fit.
    pub fn forward(
        &self,
        sample: &Tensor,
        timesteps: &[f32],
        cond: &UnetCond,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Tensor, Cancelled> {
        self.pass(&self.inputs(sample, timesteps, cond), keep_going)
    }

    /// [`forward`](Self::forward), which a GPU may replay instead of launching it anew: for the steps of a sampler, off the
    /// tape. A replay cannot be interrupted: `keep_going` is asked before it.
    pub fn step(
        &self,
        sample: &Tensor,
        timesteps: &[f32],
        cond: &UnetCond,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Tensor, Cancelled> {
        check(keep_going)?;
        let inputs = self.inputs(sample, timesteps, cond);
        self.steps.run(&inputs.iter().collect::<Vec<_>>(), |inputs| {
            self.pass(inputs, keep_going)
        })
    }

    /// The first half of a forward pass only (arguments as in [`Self::forward`]): what a
    /// discriminator on the teacher's features needs.
    pub fn features(
        &self,
        sample: &Tensor,
        timesteps: &[f32],
        cond: &UnetCond,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<UnetFeatures, Cancelled> {
        let inputs = self.inputs(sample, timesteps, cond);
        let temb = activation(&self.time_embed(&inputs), Activation::Silu);
        let mut context = BlockContext {
            temb_silu: &temb,
            encoder_hidden_states: &inputs[1],
            keep_going,
        };
        self.down_and_mid(&inputs[0], &mut context, &mut Vec::new())
    }

    /// All that a pass reads beside the parameters: the sample, the text's hidden states, the timesteps' sinusoids; then, where
    /// the config asks for it, the pooled text and the sinusoids of `time_ids`; last the `timestep_cond` if there is one.
    fn inputs(&self, sample: &Tensor, timesteps: &[f32], cond: &UnetCond) -> Vec<Tensor> {
        let config = &self.config;
        let (flip, shift) = (config.flip_sin_to_cos, config.freq_shift as f32);
        let time = sinusoids(timesteps, config.block_out_channels[0], flip, shift);
        let mut inputs = vec![sample.clone(), cond.encoder_hidden_states.clone(), time];
        if let Some(dim) = self.added_time_dim() {
            let Some(text_embeds) = &cond.text_embeds else {
                panic!("addition_embed_type = text_time needs text_embeds");
            };
            assert_eq!(
                cond.time_ids.len(),
                timesteps.len(),
                "time_ids and timesteps are per sample"
            );
            let ids = sinusoids(cond.time_ids.as_flattened(), dim, flip, shift);
            inputs.extend([text_embeds.clone(), ids.reshape(&[timesteps.len(), 6 * dim])]);
        }
        inputs.extend(cond.timestep_cond.clone());
        inputs
    }

    /// Width of the sinusoids of each time id, where they are added.
    fn added_time_dim(&self) -> Option<usize> {
        self.add_embedding.as_ref()?;
        self.config.addition_time_embed_dim
    }

    fn pass(&self, inputs: &[Tensor], keep_going: &mut dyn FnMut() -> bool) -> Result<Tensor, Cancelled> {
        let temb = activation(&self.time_embed(inputs), Activation::Silu);
        let mut context = BlockContext {
            temb_silu: &temb,
            encoder_hidden_states: &inputs[1],
            keep_going,
        };
        let mut skips = Vec::new();
        let features = self.down_and_mid(&inputs[0], &mut context, &mut skips)?;
        let mut x = features.mid;
        for block in &self.up_blocks {
            x = block.forward(&x, &mut context, &mut skips)?;
        }
        check(context.keep_going)?;
        Ok(self.conv_out.forward(&self.conv_norm_out.silu(&x)))
    }

    fn down_and_mid(
        &self,
        sample: &Tensor,
        context: &mut BlockContext,
        skips: &mut Vec<Tensor>,
    ) -> Result<UnetFeatures, Cancelled> {
        let mut x = self.conv_in.forward(sample);
        skips.push(x.clone());
        let mut down = Vec::new();
        for block in &self.down_blocks {
            x = block.forward(&x, context, skips)?;
            down.push(x.clone());
        }
        if let Some(mid) = &self.mid_block {
            x = mid.forward(&x, context)?;
        }
        Ok(UnetFeatures { down, mid: x })
    }

    /// The sum of the timestep's and the added embeddings, `[B, time_embed_dim]`, from [`inputs`](Self::inputs).
    fn time_embed(&self, inputs: &[Tensor]) -> Tensor {
        let added = self.added_time_dim().and(self.add_embedding.as_ref());
        let timestep_cond = inputs.get(if added.is_some() { 5 } else { 3 });
        let embedded = self.time_embedding.forward(&inputs[2], timestep_cond);
        let Some(add_embedding) = added else {
            return embedded;
        };
        add(
            &embedded,
            &add_embedding.forward(&concat_channels(&[&inputs[3], &inputs[4]]), None),
        )
    }
}

fn add_embedding(
    config: &Unet2dConditionConfig,
    source: &mut dyn ParamSource,
) -> Result<Option<TimestepEmbedding>, Error> {
    let Some(kind) = &config.addition_embed_type else {
        return Ok(None);
    };
    if kind != "text_time" {
        return Err(invalid(format!(
            "addition_embed_type = {kind:?} is not supported, only null or \"text_time\""
        )));
    }
    let (Some(inputs), Some(_)) = (
        config.projection_class_embeddings_input_dim,
        config.addition_time_embed_dim,
    ) else {
        let needs = "projection_class_embeddings_input_dim and addition_time_embed_dim";
        return Err(invalid(format!("addition_embed_type = \"text_time\" needs {needs}")));
    };
    TimestepEmbedding::new(source, "add_embedding", inputs, config.time_embed_dim(), None).map(Some)
}

fn mid_block(
    config: &Unet2dConditionConfig,
    levels: &Levels,
    source: &mut dyn ParamSource,
) -> Result<Option<MidBlock>, Error> {
    let last = config.block_out_channels.len() - 1;
    let transformers = match config.mid_block_type.as_deref() {
        None => return Ok(None),
        Some("UNetMidBlock2D") => Vec::new(),
        Some("UNetMidBlock2DCrossAttn") => {
            let depth = levels.transformers[last].per_block(1, "transformer_layers_per_block of the mid block")?[0];
            vec![config.transformer(levels, last, depth)]
        }
        Some(other) => {
            let supported = "null, \"UNetMidBlock2D\" or \"UNetMidBlock2DCrossAttn\"";
            return Err(invalid(format!(
                "mid_block_type = {other:?} is not supported, only {supported}"
            )));
        }
    };
    let channels = config.block_out_channels[last];
    MidBlock::new(source, "mid_block", channels, config.resnet_shape(), &transformers).map(Some)
}
