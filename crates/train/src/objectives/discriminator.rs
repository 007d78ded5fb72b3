//! What tells real latents from painted ones: small heads on what blocks of a UNet make of them, noised.

use crate::error::{Error, Result};
use crate::params::NamedParams;
use prima_checkpoint::{Init, ParamSource, RandomInit};
use prima_models::{Unet2dCondition, UnetBlock};
use prima_tensor::{
    Activation, Conv2d, Param, Tensor, activation, affine, avg_pool_global, concat_channels, conv2d, group_norm,
    linear, mean_absolute_error, mul,
};

/// Channels of a group of a head's norm.
const GROUP: usize = 16;

/// The blocks of a UNet that pictures are judged by: all on the way down but the finest, where noise is seen, the middle, and the
/// first on the way up.
pub(super) fn judging_blocks(unet: &Unet2dCondition) -> Vec<UnetBlock> {
    let levels = unet.config().block_out_channels.len();
    let down = (1..levels).map(UnetBlock::Down);
    down.chain([UnetBlock::Mid, UnetBlock::Up(0)]).collect()
}

/// Those of a UNet's parameters that have a part in what its middle block makes.
pub(super) fn encoder_params(unet: &NamedParams) -> NamedParams {
    let rest = ["up_blocks.", "conv_norm_out.", "conv_out."];
    let is_used = |key: &str| !rest.iter().any(|start| key.starts_with(start));
    unet.iter().filter(|(key, _)| is_used(key)).cloned().collect()
}

/// A head a block.
pub(super) struct Heads {
    /// None where what they judge is no block's.
    pub(super) blocks: Vec<UnetBlock>,
    widths: Vec<usize>,
    each: Vec<Head>,
    pub(super) params: NamedParams,
}

/// A convolution, a norm, the mean over all places, one number a sample.
struct Head {
    conv: [Param; 2],
    norm: [Param; 2],
    groups: usize,
    out: [Param; 2],
}

impl Heads {
    /// On these blocks of such a UNet, in the order of its pass.
    pub(super) fn new(unet: &Unet2dCondition, blocks: &[UnetBlock], seed: u64) -> Result<Self> {
        let width = |&block: &UnetBlock| {
            let width = unet.channels_of(block);
            width.ok_or_else(|| Error::Config(format!("the UNet has no block {block:?} to judge by")))
        };
        let widths: Vec<usize> = blocks.iter().map(width).collect::<Result<_>>()?;
        Ok(Self {
            blocks: blocks.to_vec(),
            ..Self::of_widths(&widths, seed)?
        })
    }

    /// On maps of these channels.
    pub(super) fn of_widths(widths: &[usize], seed: u64) -> Result<Self> {
        let mut source = RandomInit::new(seed);
        let heads = widths.iter().enumerate();
        let heads = heads.map(|(i, &width)| Head::new(&mut source, &format!("heads.{i}"), width));
        Ok(Self {
            each: heads.collect::<Result<_>>()?,
            widths: widths.to_vec(),
            blocks: Vec::new(),
            params: source.into_params(),
        })
    }

    /// As [`of_widths`](Self::of_widths) made them.
    pub(super) fn begin_anew(&self, seed: u64) -> Result<()> {
        for ((_, param), (_, fresh)) in self.params.iter().zip(&Self::of_widths(&self.widths, seed)?.params) {
            param.set(&fresh.tensor());
        }
        Ok(())
    }

    /// Of what the blocks made, `[B, h, w, C]` each: `[B, heads]`, greater for what looks real.
    pub(super) fn logits(&self, seen: &[Tensor]) -> Tensor {
        let each: Vec<Tensor> = self
            .each
            .iter()
            .zip(seen)
            .map(|(head, seen)| head.logits(seen))
            .collect();
        concat_channels(&each.iter().collect::<Vec<_>>())
    }
}

impl Head {
    fn new(source: &mut RandomInit, name: &str, width: usize) -> Result<Self> {
        let mut param = |key: &str, shape: &[usize], init| source.param(&format!("{name}.{key}"), shape, init);
        Ok(Self {
            conv: [
                param("conv.weight", &[width, width, 3, 3], Init::FanIn(9 * width))?,
                param("conv.bias", &[width], Init::Zeros)?,
            ],
            norm: [
                param("norm.weight", &[width], Init::Ones)?,
                param("norm.bias", &[width], Init::Zeros)?,
            ],
            groups: if width.is_multiple_of(GROUP) { width / GROUP } else { 1 },
            out: [
                param("out.weight", &[1, width], Init::FanIn(width))?,
                param("out.bias", &[1], Init::Zeros)?,
            ],
        })
    }

    /// `[B, 1]`
    fn logits(&self, seen: &Tensor) -> Tensor {
        self.judged(&self.pooled(seen))
    }

    /// `[B, C]` before the last layer.
    fn pooled(&self, seen: &Tensor) -> Tensor {
        let [weight, bias] = &self.conv;
        let x = conv2d(seen, weight, Some(bias), Conv2d::padded(1), Activation::None, None);
        let [gamma, beta] = &self.norm;
        avg_pool_global(&group_norm(&x, gamma, beta, self.groups, 1e-5, true))
    }

    fn judged(&self, pooled: &Tensor) -> Tensor {
        let [weight, bias] = &self.out;
        linear(pooled, weight, Some(bias), Activation::None, None)
    }
}

/// Heads that are told what a picture should be (Miyato and Koyama 2018, "cGANs with projection discriminator"): each adds the
/// product of what it makes of its map with a projection of the conditions.
pub(super) struct ConditionedHeads {
    heads: Heads,
    /// Of each head, a projection of each condition.
    told: Vec<[Param; 2]>,
    pub(super) params: NamedParams,
}

impl ConditionedHeads {
    /// On maps of these channels and conditions of these lengths.
    pub(super) fn new(widths: &[usize], conditions: [usize; 2], seed: u64) -> Result<Self> {
        let heads = Heads::of_widths(widths, seed)?;
        let mut source = RandomInit::new(seed);
        let mut told = Vec::new();
        for (i, &width) in widths.iter().enumerate() {
            let mut param = |name: &str, length: usize| {
                source.param(
                    &format!("heads.{i}.{name}.weight"),
                    &[width, length],
                    Init::FanIn(length),
                )
            };
            told.push([
                param("told_text", conditions[0])?,
                param("told_picture", conditions[1])?,
            ]);
        }
        let mut params = heads.params.clone();
        params.extend(source.into_params());
        Ok(Self { heads, told, params })
    }

    /// Of maps `[B, h, w, C]` and conditions `[B, length]`: `[B, heads]`.
    pub(super) fn logits(&self, seen: &[Tensor], conditions: &[Tensor; 2]) -> Tensor {
        let one = |((head, seen), told): ((&Head, &Tensor), &[Param; 2])| {
            let pooled = head.pooled(seen);
            let project = |which: usize, sum: Option<&Tensor>| {
                linear(&conditions[which], &told[which], None, Activation::None, sum)
            };
            let wanted = project(1, Some(&project(0, None)));
            let width = pooled.dim(1);
            let share = Param::new(Tensor::from_vec(vec![(width as f32).powf(-0.5); width], &[1, width]));
            let judged = head.judged(&pooled);
            linear(&mul(&pooled, &wanted), &share, None, Activation::None, Some(&judged))
        };
        let each: Vec<Tensor> = self.heads.each.iter().zip(seen).zip(&self.told).map(one).collect();
        concat_channels(&each.iter().collect::<Vec<_>>())
    }
}

/// The mean of `ln(1 + e^-x)` where these logits should be great, of `ln(1 + e^x)` where they should be small.
pub(super) fn mean_softplus(logits: &Tensor, should_be_great: bool) -> Tensor {
    mean_of(logits, should_be_great, 0.0, Activation::Softplus)
}

/// The mean of `max(0, 1 - x)` where these logits should be great, of `max(0, 1 + x)` where they should be small.
pub(super) fn mean_hinge(logits: &Tensor, should_be_great: bool) -> Tensor {
    mean_of(logits, should_be_great, 1.0, Activation::Relu)
}

fn mean_of(logits: &Tensor, should_be_great: bool, margin: f32, kind: Activation) -> Tensor {
    let sign = if should_be_great { -1.0 } else { 1.0 };
    let each = activation(&affine(logits, sign, margin), kind);
    mean_absolute_error(&each, &Tensor::zeros(each.shape()))
}

/// The mean of logits, on the tape.
pub(super) fn mean(logits: &Tensor) -> Tensor {
    let n = logits.numel();
    avg_pool_global(&logits.reshape(&[1, n, 1, 1])).reshape(&[])
}
