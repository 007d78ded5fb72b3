//! An up block of the UNet learns, through two layers that are not shipped, what a feature network sees in the clean picture
//! (Yu et al. 2024, "Representation Alignment for Generation"; here by squared error against features made normal): what a word
//! looks like is learnt sooner than from pixels alone.

use crate::error::{Error, Result};
use crate::latent_cache::LatentCache;
use crate::params::{NamedParams, prefixed};
use prima_checkpoint::{Init, ParamSource, RandomInit};
use prima_models::{Unet2dCondition, UnetBlock};
use prima_tensor::{Activation, Param, Tensor, linear, weighted_mse};

pub(super) struct Alignment {
    /// The up block whose output is as large as the features.
    pub(super) block: UnetBlock,
    pub(super) params: NamedParams,
    layers: [[Param; 2]; 2],
}

impl Alignment {
    pub(super) fn new(unet: &Unet2dCondition, cache: &LatentCache, seed: u64) -> Result<Self> {
        let Some(features) = cache.feature_channels() else {
            let message =
                "teacher.alignment needs pictures with features: set latents.features and run the stage latents";
            return Err(Error::Config(message.into()));
        };
        let blocks = unet.config().block_out_channels.len();
        let halvings = cache.feature_halvings();
        let block = halvings.and_then(|k| Some(UnetBlock::Up((blocks - 1).checked_sub(k + 1)?)));
        let Some((block, width)) = block.and_then(|block| Some((block, unet.channels_of(block)?))) else {
            let message =
                "no up block of networks.unet is as large as the pictures' features: set teacher.alignment to 0";
            return Err(Error::Config(message.into()));
        };
        let mut source = RandomInit::new(seed);
        let mut layer = |name: &str, outputs: usize| -> Result<[Param; 2]> {
            let weight = source.param(&format!("{name}.weight"), &[outputs, width], Init::FanIn(width))?;
            let bias = source.param(&format!("{name}.bias"), &[outputs], Init::Zeros)?;
            Ok([weight, bias])
        };
        let layers = [layer("0", width)?, layer("1", features)?];
        Ok(Self {
            block,
            params: prefixed("alignment", &source.into_params()),
            layers,
        })
    }

    /// Mean squared error of what the block `seen` `[B, h, w, C]` says of the `features` `[B, h, w, F]`; 1 is no better than
    /// their mean.
    pub(super) fn loss(&self, seen: &Tensor, features: &Tensor) -> Tensor {
        let [[w0, b0], [w1, b1]] = &self.layers;
        let hidden = linear(seen, w0, Some(b0), Activation::Silu, None);
        let answer = linear(&hidden, w1, Some(b1), Activation::None, None);
        weighted_mse(&answer, features, &vec![1.0; features.dim(0)])
    }
}
