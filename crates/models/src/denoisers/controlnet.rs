//! ControlNet: a copy of the UNet's way down that reads a picture beside the latents and adds to what the UNet's hands on
//! (Zhang et al. 2023; diffusers `models/controlnets/controlnet.py`, 0.42.1).

use super::step_embedding::{StepEmbedding, UnetCond};
use super::unet_2d_blocks::{BlockContext, DownBlock, MidBlock};
use super::unet_2d_condition::{Residuals, mid_block};
use super::unet_2d_condition_config::{NEUTRAL, Unet2dConditionConfig};
use crate::config::{Check, Neutral, Plain, Ranges, invalid};
use crate::layers::{Conv, Start};
use crate::{Cancelled, check};
use prima_checkpoint::{Error, ParamSource};
use prima_tensor::{Activation, Conv2d, Tensor, activation, add, affine, stack_batch};
use serde::{Deserialize, Serialize};

/// `ControlNetModel`'s `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControlNetConfig {
    /// The fields that are the UNet's; those of the way up have no meaning.
    #[serde(flatten)]
    pub unet: Unet2dConditionConfig,
    pub conditioning_channels: usize,
    /// Widths of the network that makes latents of the picture: all but the first halve its sides.
    pub conditioning_embedding_out_channels: Vec<usize>,
    /// `rgb` or `bgr`.
    pub controlnet_conditioning_channel_order: String,
}

impl Default for ControlNetConfig {
    fn default() -> Self {
        Self {
            unet: Unet2dConditionConfig::default(),
            conditioning_channels: 3,
            conditioning_embedding_out_channels: vec![16, 32, 96, 256],
            controlnet_conditioning_channel_order: "rgb".to_owned(),
        }
    }
}

/// Fields that must be off, beside the UNet's.
const OFF: &[Neutral] = &[("global_pool_conditions", &[Plain::Bool(false)])];

impl ControlNetConfig {
    /// Reads a `config.json`; `file` names it in errors.
    pub fn from_json(json: &str, file: &str) -> Result<Self, Error> {
        let neutral = [NEUTRAL, OFF].concat();
        let mut config: Self = crate::config::read(json, file, &["ControlNetModel"], &neutral)?;
        // The way up is none, and the blocks' shapes are asked of a whole UNet.
        config.unet.up_block_types = vec!["UpBlock2D".to_owned(); config.unet.block_out_channels.len()];
        Ok(config)
    }
}

impl Ranges for ControlNetConfig {
    fn check_ranges(&self, check: &Check) -> Result<(), Error> {
        check.channels(&[("conditioning_channels", self.conditioning_channels)])?;
        check.blocks(
            "conditioning_embedding_out_channels",
            &self.conditioning_embedding_out_channels,
        )?;
        let order = &self.controlnet_conditioning_channel_order;
        if !["rgb", "bgr"].contains(&order.as_str()) {
            return Err(invalid(format!(
                "controlnet_conditioning_channel_order = {order:?} is not supported, only \"rgb\" or \"bgr\""
            )));
        }
        self.unet.check_ranges(check)
    }
}

/// `ControlNetModel`.
pub struct ControlNet {
    config: ControlNetConfig,
    conv_in: Conv,
    step_embedding: StepEmbedding,
    embedding: Vec<Conv>,
    down_blocks: Vec<DownBlock>,
    mid_block: Option<MidBlock>,
    /// One for each tensor that the way down hands on.
    controlnet_down_blocks: Vec<Conv>,
    controlnet_mid_block: Conv,
}

impl ControlNet {
    pub fn new(config: ControlNetConfig, source: &mut dyn ParamSource) -> Result<Self, Error> {
        let unet = &config.unet;
        unet.check()?;
        let levels = unet.levels()?;
        let widths = &unet.block_out_channels;
        let blocks = widths.len();
        let mut handed_on = vec![widths[0]];
        for (i, &width) in widths.iter().enumerate() {
            let downsampler = usize::from(i + 1 < blocks);
            handed_on.extend(vec![width; levels.layers[i] + downsampler]);
        }
        let out =
            |source: &mut dyn ParamSource, name: &str, width| Conv::same(source, name, [width, width, 1], Start::Zero);
        Ok(Self {
            conv_in: Conv::same(source, "conv_in", [unet.in_channels, widths[0], 3], Start::Default)?,
            step_embedding: StepEmbedding::new(source, unet)?,
            embedding: embedding(&config, source)?,
            down_blocks: (0..blocks)
                .map(|i| {
                    let (name, shape) = (format!("down_blocks.{i}"), unet.down_shape(&levels, i)?);
                    DownBlock::new(source, &name, &shape, unet.downsample_padding)
                })
                .collect::<Result<_, _>>()?,
            mid_block: mid_block(unet, &levels, source)?,
            controlnet_down_blocks: handed_on
                .into_iter()
                .enumerate()
                .map(|(i, width)| out(source, &format!("controlnet_down_blocks.{i}"), width))
                .collect::<Result<_, _>>()?,
            controlnet_mid_block: out(source, "controlnet_mid_block", widths[blocks - 1])?,
            config,
        })
    }

    pub fn config(&self) -> &ControlNetConfig {
        &self.config
    }

    /// What the network makes of a picture `[1, H, W, 3]` in 0..1, `[1, h, w, block_out_channels[0]]`: the same in every step.
    pub fn embed(&self, picture: &Tensor) -> Tensor {
        let mut x = match self.config.controlnet_conditioning_channel_order.as_str() {
            "bgr" => reversed(picture),
            _ => picture.clone(),
        };
        let last = self.embedding.len() - 1;
        for (i, conv) in self.embedding.iter().enumerate() {
            x = conv.forward(&x);
            if i < last {
                x = activation(&x, Activation::Silu);
            }
        }
        x
    }

    /// What the network adds to a UNet's pass over `sample` `[B, h, w, C]`, times `scale`; `embedded` is of
    /// [`embed`](Self::embed).
    pub fn forward(
        &self,
        sample: &Tensor,
        timesteps: &[f32],
        cond: &UnetCond,
        (embedded, scale): (&Tensor, f64),
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Residuals, Cancelled> {
        let inputs = self.step_embedding.inputs(&self.config.unet, timesteps, cond);
        let temb = activation(&self.step_embedding.forward(&inputs), Activation::Silu);
        let mut context = BlockContext {
            temb_silu: &temb,
            encoder_hidden_states: &cond.encoder_hidden_states,
            keep_going,
        };
        let pictures = stack_batch(&vec![embedded; sample.dim(0)]);
        let mut x = add(&self.conv_in.forward(sample), &pictures);
        let mut handed_on = vec![x.clone()];
        for block in &self.down_blocks {
            x = block.forward(&x, &mut context, &mut handed_on)?;
        }
        if let Some(mid) = &self.mid_block {
            x = mid.forward(&x, &mut context)?;
        }
        check(context.keep_going)?;
        let scaled = |conv: &Conv, x: &Tensor| affine(&conv.forward(x), scale as f32, 0.0);
        let down = self.controlnet_down_blocks.iter().zip(&handed_on);
        Ok(Residuals {
            down: down.map(|(conv, x)| scaled(conv, x)).collect(),
            mid: scaled(&self.controlnet_mid_block, &x),
        })
    }
}

impl Residuals {
    /// The sum of both.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let down = self.down.iter().zip(&other.down);
        Self {
            down: down.map(|(a, b)| add(a, b)).collect(),
            mid: add(&self.mid, &other.mid),
        }
    }
}

/// `ControlNetConditioningEmbedding`: convolutions in the order of the pass.
fn embedding(config: &ControlNetConfig, source: &mut dyn ParamSource) -> Result<Vec<Conv>, Error> {
    const NAME: &str = "controlnet_cond_embedding";
    let widths = &config.conditioning_embedding_out_channels;
    let same = |source: &mut dyn ParamSource, name: String, from, to| {
        Conv::same(source, &format!("{NAME}.{name}"), [from, to, 3], Start::Default)
    };
    let mut convs = vec![same(
        source,
        "conv_in".to_owned(),
        config.conditioning_channels,
        widths[0],
    )?];
    for (i, pair) in widths.windows(2).enumerate() {
        convs.push(same(source, format!("blocks.{}", 2 * i), pair[0], pair[0])?);
        let name = format!("{NAME}.blocks.{}", 2 * i + 1);
        let halved = Conv2d {
            stride: 2,
            ..Conv2d::padded(1)
        };
        convs.push(Conv::new(
            source,
            &name,
            [pair[0], pair[1], 3],
            halved,
            true,
            Start::Default,
        )?);
    }
    let last = widths[widths.len() - 1];
    convs.push(same(
        source,
        "conv_out".to_owned(),
        last,
        config.unet.block_out_channels[0],
    )?);
    Ok(convs)
}

/// The channels in the opposite order.
fn reversed(picture: &Tensor) -> Tensor {
    let values = picture.data().chunks_exact(3).flat_map(|rgb| [rgb[2], rgb[1], rgb[0]]);
    Tensor::from_vec(values.collect(), picture.shape())
}
