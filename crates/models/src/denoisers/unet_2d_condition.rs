//! The denoiser (diffusers `models/unets/unet_2d_condition.py`, 0.42.1).

use super::step_embedding::{StepEmbedding, StepInputs, UnetCond};
use super::transformer_2d::TransformerShape;
use super::unet_2d_blocks::{BlockContext, DownBlock, MidBlock, UpBlock};
use super::unet_2d_condition_config::{Levels, Unet2dConditionConfig};
use crate::adapters;
use crate::config::invalid;
use crate::layers::{Conv, GroupNorm, Start};
use crate::{Cancelled, check};
use prima_checkpoint::{Error, ParamSource};
use prima_tensor::{Activation, Repeatable, Tensor, activation, add};

/// A block of the UNet, in the order of the pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnetBlock {
    Down(usize),
    Mid,
    Up(usize),
}

/// All that a pass reads beside the parameters: a [`UnetCond`] and its sample with every number already a tensor, which
/// is what a GPU that replays a recorded pass needs.
#[derive(Clone)]
struct Inputs {
    /// `[B, H, W, in_channels]`.
    sample: Tensor,
    /// `[B, L, cross_attention_dim]`.
    encoder_hidden_states: Tensor,
    step: StepInputs,
}

impl Inputs {
    /// Every tensor, in one fixed order.
    fn tensors_mut(&mut self) -> Vec<&mut Tensor> {
        let mut all = vec![&mut self.sample, &mut self.encoder_hidden_states];
        all.extend(self.step.tensors_mut());
        all
    }
}

/// What a ControlNet adds to a pass.
#[derive(Clone, Debug)]
pub struct Residuals {
    /// To what each layer of the way down hands to the way up, `[B, h, w, C]`, the first layer first.
    pub down: Vec<Tensor>,
    /// To what the middle makes.
    pub mid: Tensor,
}

/// `UNet2DConditionModel`.
pub struct Unet2dCondition {
    config: Unet2dConditionConfig,
    conv_in: Conv,
    step_embedding: StepEmbedding,
    down_blocks: Vec<DownBlock>,
    mid_block: Option<MidBlock>,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv,
    steps: Repeatable,
}

impl Unet2dCondition {
    pub fn new(config: Unet2dConditionConfig, source: &mut dyn ParamSource) -> Result<Self, Error> {
        config.check()?;
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
        let blocks = config.block_out_channels.len();
        let in_shape = [config.in_channels, first, config.conv_in_kernel];
        let out_shape = [first, config.out_channels, config.conv_out_kernel];
        Ok(Self {
            conv_in: Conv::same(source, "conv_in", in_shape, Start::Default)?,
            step_embedding: StepEmbedding::new(source, &config)?,
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
        self.pass(&self.inputs(sample, timesteps, cond), None, keep_going, &mut |_, _| ())
    }

    /// [`forward`](Self::forward), and what these blocks made on the way, `[B, h, w, C]` each, in the order of the pass.
    pub fn forward_with_blocks(
        &self,
        sample: &Tensor,
        timesteps: &[f32],
        cond: &UnetCond,
        blocks: &[UnetBlock],
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<(Tensor, Vec<Tensor>), Cancelled> {
        let mut seen = Vec::new();
        let inputs = self.inputs(sample, timesteps, cond);
        let output = self.pass(&inputs, None, keep_going, &mut |block, x| {
            if blocks.contains(&block) {
                seen.push(x.clone());
            }
        })?;
        Ok((output, seen))
    }

    /// The channels of what a block makes; `None` where there is no such block.
    pub fn channels_of(&self, block: UnetBlock) -> Option<usize> {
        let widths = &self.config.block_out_channels;
        match block {
            UnetBlock::Down(i) => widths.get(i).copied(),
            UnetBlock::Mid => self.mid_block.as_ref().and(widths.last().copied()),
            UnetBlock::Up(i) => widths.iter().rev().nth(i).copied(),
        }
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
        let mut inputs = self.inputs(sample, timesteps, cond);
        if adapters::are_active() {
            // A recording has the layers as they were without them.
            return self.pass(&inputs, None, keep_going, &mut |_, _| ());
        }
        let tensors: Vec<Tensor> = inputs.tensors_mut().into_iter().map(|tensor| tensor.clone()).collect();
        self.steps.run(&tensors.iter().collect::<Vec<_>>(), |tensors| {
            for (input, tensor) in inputs.tensors_mut().into_iter().zip(tensors) {
                *input = tensor.clone();
            }
            self.pass(&inputs, None, keep_going, &mut |_, _| ())
        })
    }

    /// [`step`](Self::step) with what ControlNets add, launched anew each time.
    pub fn step_with(
        &self,
        sample: &Tensor,
        timesteps: &[f32],
        cond: &UnetCond,
        residuals: &Residuals,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Tensor, Cancelled> {
        let inputs = self.inputs(sample, timesteps, cond);
        self.pass(&inputs, Some(residuals), keep_going, &mut |_, _| ())
    }

    fn inputs(&self, sample: &Tensor, timesteps: &[f32], cond: &UnetCond) -> Inputs {
        Inputs {
            sample: sample.clone(),
            encoder_hidden_states: cond.encoder_hidden_states.clone(),
            step: self.step_embedding.inputs(&self.config, timesteps, cond),
        }
    }

    /// `after` is shown what each block makes.
    fn pass(
        &self,
        inputs: &Inputs,
        residuals: Option<&Residuals>,
        keep_going: &mut dyn FnMut() -> bool,
        after: &mut dyn FnMut(UnetBlock, &Tensor),
    ) -> Result<Tensor, Cancelled> {
        let temb = activation(&self.step_embedding.forward(&inputs.step), Activation::Silu);
        let mut context = BlockContext {
            temb_silu: &temb,
            encoder_hidden_states: &inputs.encoder_hidden_states,
            keep_going,
        };
        let mut x = self.conv_in.forward(&inputs.sample);
        let mut skips = vec![x.clone()];
        for (i, block) in self.down_blocks.iter().enumerate() {
            x = block.forward(&x, &mut context, &mut skips)?;
            after(UnetBlock::Down(i), &x);
        }
        if let Some(residuals) = residuals {
            for (skip, residual) in skips.iter_mut().zip(&residuals.down) {
                *skip = add(skip, residual);
            }
        }
        if let Some(mid) = &self.mid_block {
            x = mid.forward(&x, &mut context)?;
            after(UnetBlock::Mid, &x);
        }
        if let Some(residuals) = residuals {
            x = add(&x, &residuals.mid);
        }
        for (i, block) in self.up_blocks.iter().enumerate() {
            x = block.forward(&x, &mut context, &mut skips)?;
            after(UnetBlock::Up(i), &x);
        }
        check(context.keep_going)?;
        Ok(self.conv_out.forward(&self.conv_norm_out.silu(&x)))
    }
}

pub(super) fn mid_block(
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
            let shape = config.transformer(levels, last, depth);
            vec![TransformerShape {
                only_cross_attention: false,
                ..shape
            }]
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
