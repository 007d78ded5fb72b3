//! What tells real latents from painted ones by what a UNet's middle block makes of them, noised.

use crate::error::Result;
use crate::params::{NamedParams, prefixed};
use prima_checkpoint::{Init, ParamSource, RandomInit};
use prima_models::Unet2dConditionConfig;
use prima_tensor::{
    Activation, Conv2d, Param, Tensor, activation, affine, avg_pool_global, conv2d, group_norm, linear,
    mean_absolute_error,
};

/// Channels of a group of the head's norm.
const GROUP: usize = 16;

/// A convolution, a norm, the mean over all places, one number a sample.
pub(super) struct Head {
    conv: [Param; 2],
    norm: [Param; 2],
    groups: usize,
    out: [Param; 2],
    pub(super) params: NamedParams,
}

impl Head {
    /// For the middle block of such a UNet.
    pub(super) fn new(unet: &Unet2dConditionConfig, seed: u64) -> Result<Self> {
        let width = unet.block_out_channels.last().copied().unwrap_or(1);
        let mut source = RandomInit::new(seed);
        let mut param = |key: &str, shape: &[usize], init| source.param(key, shape, init);
        let conv = [
            param("conv.weight", &[width, width, 3, 3], Init::FanIn(9 * width))?,
            param("conv.bias", &[width], Init::Zeros)?,
        ];
        let norm = [
            param("norm.weight", &[width], Init::Ones)?,
            param("norm.bias", &[width], Init::Zeros)?,
        ];
        let out = [
            param("out.weight", &[1, width], Init::FanIn(width))?,
            param("out.bias", &[1], Init::Zeros)?,
        ];
        Ok(Self {
            conv,
            norm,
            groups: if width.is_multiple_of(GROUP) { width / GROUP } else { 1 },
            out,
            params: prefixed("head", &source.into_params()),
        })
    }

    /// Of what the middle block made, `[B, h, w, C]`: `[B, 1]`, greater for what looks real.
    pub(super) fn logits(&self, middle: &Tensor) -> Tensor {
        let [weight, bias] = &self.conv;
        let x = conv2d(middle, weight, Some(bias), Conv2d::padded(1), Activation::None, None);
        let [gamma, beta] = &self.norm;
        let x = group_norm(&x, gamma, beta, self.groups, 1e-5, true);
        let [weight, bias] = &self.out;
        linear(&avg_pool_global(&x), weight, Some(bias), Activation::None, None)
    }
}

/// The mean of `ln(1 + e^x)` where these logits should be small, of `ln(1 + e^-x)` where they should be great.
pub(super) fn mean_softplus(logits: &Tensor, should_be_great: bool) -> Tensor {
    let sign = if should_be_great { -1.0 } else { 1.0 };
    let each = activation(&affine(logits, sign, 0.0), Activation::Softplus);
    mean_absolute_error(&each, &Tensor::zeros(each.shape()))
}
