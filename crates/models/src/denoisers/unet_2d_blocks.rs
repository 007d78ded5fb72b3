//! The down, mid and up blocks of the UNet (diffusers `models/unets/unet_2d_blocks.py`).
//! A block without attention is the same struct with no transformers in it.

use super::transformer_2d::{Transformer2D, TransformerShape};
use crate::resnet::{Downsample2D, ResnetBlock2D, ResnetShape, Upsample2D};
use crate::{Cancelled, check};
use prima_checkpoint::{Error, ParamSource};
use prima_tensor::{Tensor, concat_channels};

/// What every block reads beside its input.
pub(crate) struct BlockContext<'a> {
    /// `[B, temb_channels]`, after SiLU.
    pub temb_silu: &'a Tensor,
    /// `[B, L, cross_attention_dim]`.
    pub encoder_hidden_states: &'a Tensor,
    pub keep_going: &'a mut dyn FnMut() -> bool,
}

/// Sizes of one down or up block.
pub(crate) struct BlockShape {
    pub inputs: usize,
    pub outputs: usize,
    /// Channels of the block before (up blocks only).
    pub previous: usize,
    pub resnet: ResnetShape,
    /// One residual block each; `None` where no transformer follows it.
    pub transformers: Vec<Option<TransformerShape>>,
    /// Is there a down- or upsampler at the end?
    pub resample: bool,
}

/// A residual block and the transformer after it, if any.
struct Layer {
    resnet: ResnetBlock2D,
    attention: Option<Transformer2D>,
}

impl Layer {
    fn new(
        source: &mut dyn ParamSource,
        block: &str,
        index: usize,
        [inputs, outputs]: [usize; 2],
        resnet: ResnetShape,
        transformer: Option<TransformerShape>,
    ) -> Result<Self, Error> {
        let resnet = ResnetBlock2D::new(source, &format!("{block}.resnets.{index}"), inputs, outputs, resnet)?;
        let attention = transformer
            .map(|shape| Transformer2D::new(source, &format!("{block}.attentions.{index}"), shape))
            .transpose()?;
        Ok(Self { resnet, attention })
    }

    fn forward(&self, x: Tensor, context: &mut BlockContext) -> Result<Tensor, Cancelled> {
        check(context.keep_going)?;
        let hidden = self.resnet.forward(x, Some(context.temb_silu));
        match &self.attention {
            Some(attention) => attention.forward(&hidden, context.encoder_hidden_states, context.keep_going),
            None => Ok(hidden),
        }
    }
}

/// `DownBlock2D` and `CrossAttnDownBlock2D`.
pub(crate) struct DownBlock {
    layers: Vec<Layer>,
    downsampler: Option<Downsample2D>,
}

impl DownBlock {
    pub fn new(
        source: &mut dyn ParamSource,
        name: &str,
        shape: &BlockShape,
        downsample_padding: usize,
    ) -> Result<Self, Error> {
        let mut layers = Vec::new();
        for (i, &transformer) in shape.transformers.iter().enumerate() {
            let inputs = if i == 0 { shape.inputs } else { shape.outputs };
            layers.push(Layer::new(
                source,
                name,
                i,
                [inputs, shape.outputs],
                shape.resnet,
                transformer,
            )?);
        }
        let padding = [downsample_padding; 4];
        let downsampler = shape
            .resample
            .then(|| Downsample2D::new(source, &format!("{name}.downsamplers.0"), shape.outputs, padding))
            .transpose()?;
        Ok(Self { layers, downsampler })
    }

    /// The block's output; what the up path will need is pushed to `skips`.
    pub fn forward(
        &self,
        x: &Tensor,
        context: &mut BlockContext,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor, Cancelled> {
        let mut x = x.clone();
        for layer in &self.layers {
            x = layer.forward(x, context)?;
            skips.push(x.clone());
        }
        if let Some(downsampler) = &self.downsampler {
            x = downsampler.forward(&x);
            skips.push(x.clone());
        }
        Ok(x)
    }
}

/// `UNetMidBlock2DCrossAttn`: residual block, then (transformer, residual block) pairs.
/// `UNetMidBlock2D` in a UNet is the first residual block alone.
pub(crate) struct MidBlock {
    first: ResnetBlock2D,
    pairs: Vec<(Transformer2D, ResnetBlock2D)>,
}

impl MidBlock {
    pub fn new(
        source: &mut dyn ParamSource,
        name: &str,
        channels: usize,
        resnet: ResnetShape,
        transformers: &[TransformerShape],
    ) -> Result<Self, Error> {
        let first = ResnetBlock2D::new(source, &format!("{name}.resnets.0"), channels, channels, resnet)?;
        let mut pairs = Vec::new();
        for (i, &shape) in transformers.iter().enumerate() {
            let attention = Transformer2D::new(source, &format!("{name}.attentions.{i}"), shape)?;
            let after = format!("{name}.resnets.{}", i + 1);
            pairs.push((
                attention,
                ResnetBlock2D::new(source, &after, channels, channels, resnet)?,
            ));
        }
        Ok(Self { first, pairs })
    }

    pub fn forward(&self, x: &Tensor, context: &mut BlockContext) -> Result<Tensor, Cancelled> {
        check(context.keep_going)?;
        let mut x = self.first.forward(x.clone(), Some(context.temb_silu));
        for (attention, resnet) in &self.pairs {
            let attended = attention.forward(&x, context.encoder_hidden_states, context.keep_going)?;
            x = resnet.forward(attended, Some(context.temb_silu));
        }
        Ok(x)
    }
}

/// `UpBlock2D` and `CrossAttnUpBlock2D`.
pub(crate) struct UpBlock {
    layers: Vec<Layer>,
    upsampler: Option<Upsample2D>,
}

impl UpBlock {
    /// Each residual block reads the channels before it and those of one skip connection.
    /// The skips of a level are its own outputs, except the last, which came in from the
    /// level above (`shape.inputs` wide).
    pub fn new(source: &mut dyn ParamSource, name: &str, shape: &BlockShape) -> Result<Self, Error> {
        let mut layers = Vec::new();
        let last = shape.transformers.len().saturating_sub(1);
        for (i, &transformer) in shape.transformers.iter().enumerate() {
            let before = if i == 0 { shape.previous } else { shape.outputs };
            let skip = if i == last { shape.inputs } else { shape.outputs };
            layers.push(Layer::new(
                source,
                name,
                i,
                [before + skip, shape.outputs],
                shape.resnet,
                transformer,
            )?);
        }
        let upsampler = shape
            .resample
            .then(|| Upsample2D::new(source, &format!("{name}.upsamplers.0"), shape.outputs))
            .transpose()?;
        Ok(Self { layers, upsampler })
    }

    /// Takes one of `skips` per layer, the newest first.
    pub fn forward(
        &self,
        x: &Tensor,
        context: &mut BlockContext,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor, Cancelled> {
        let mut x = x.clone();
        for layer in &self.layers {
            // The UNet's constructor pairs skips and layers one to one; without a skip the
            // width would be wrong and the next op's shape assertion says so.
            let input = skips
                .pop()
                .map_or_else(|| x.clone(), |skip| concat_channels(&[&x, &skip]));
            x = layer.forward(input, context)?;
        }
        match (&self.upsampler, skips.last()) {
            (Some(upsampler), Some(next)) => Ok(upsampler.forward_to(&x, [next.dim(1), next.dim(2)])),
            (Some(upsampler), None) => Ok(upsampler.forward(&x)),
            (None, _) => Ok(x),
        }
    }
}
