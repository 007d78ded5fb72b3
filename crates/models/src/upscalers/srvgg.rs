//! The compact network of Real-ESRGAN's small models (`realesrgan/archs/srvgg_arch.py`, v0.3.0): convolutions at the picture's
//! own size, whose last one predicts what is added to the picture enlarged by repetition.

use super::pixels::shuffle;
use crate::config::invalid;
use crate::layers::{Conv, Start};
use crate::{Cancelled, check};
use prima_checkpoint::{Error, Init, ParamSource};
use prima_tensor::{Param, Tensor, prelu};

/// The arguments of `SRVGGNetCompact`, whose `act_type` is `prelu`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvggNetCompactConfig {
    pub num_feat: usize,
    /// Convolutions between the first and the last.
    pub num_conv: usize,
    pub upscale: usize,
}

const NUM_CH: usize = 3;

impl SrvggNetCompactConfig {
    /// What the shapes of a file's tensors say; `None` where they are of another network.
    pub fn of_shapes(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Self> {
        let [num_feat, NUM_CH, 3, 3] = shape("body.0.weight")?[..] else {
            return None;
        };
        let is_there = |layer: &usize| shape(&format!("body.{layer}.weight")).is_some();
        // First, middle and last convolutions, with activations between them.
        let last = (0..).step_by(2).take_while(is_there).last()?;
        let places = shape(&format!("body.{last}.weight"))?.first()? / NUM_CH;
        Some(Self {
            num_feat,
            num_conv: (last / 2).checked_sub(1)?,
            upscale: places.isqrt(),
        })
    }
}

/// `SRVGGNetCompact`: `[B, H, W, 3]` to `[B, upscale·H, upscale·W, 3]`.
pub struct SrvggNetCompact {
    layers: Vec<(Conv, Param)>,
    last: Conv,
    config: SrvggNetCompactConfig,
}

impl SrvggNetCompact {
    pub fn new(config: &SrvggNetCompactConfig, source: &mut dyn ParamSource) -> Result<Self, Error> {
        let &SrvggNetCompactConfig {
            num_feat,
            num_conv,
            upscale,
        } = config;
        if num_feat == 0 || !(1..=8).contains(&upscale) {
            return Err(invalid(format!(
                "a network of {num_feat} features that enlarges {upscale} times is not possible"
            )));
        }
        let mut layers = Vec::new();
        for layer in 0..=num_conv {
            let inputs = if layer == 0 { NUM_CH } else { num_feat };
            let conv = Conv::same(
                source,
                &format!("body.{}", 2 * layer),
                [inputs, num_feat, 3],
                Start::Default,
            )?;
            let name = format!("body.{}.weight", 2 * layer + 1);
            layers.push((conv, source.param(&name, &[num_feat], Init::Ones)?));
        }
        let name = format!("body.{}", 2 * num_conv + 2);
        let outputs = NUM_CH * upscale * upscale;
        Ok(Self {
            layers,
            last: Conv::same(source, &name, [num_feat, outputs, 3], Start::Default)?,
            config: config.clone(),
        })
    }

    /// How many times larger the result is, each way.
    pub fn scale(&self) -> usize {
        self.config.upscale
    }

    /// Pixels around one that have a say in what becomes of it.
    pub fn reach_px(&self) -> usize {
        self.config.num_conv + 2
    }

    pub fn forward(&self, x: &Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<Tensor, Cancelled> {
        let mut h = x.clone();
        for (conv, slope) in &self.layers {
            check(keep_going)?;
            h = prelu(conv.forward(&h), slope);
        }
        let predicted = self.last.forward(&h);
        let (batch, width, scale) = (x.dim(0), x.dim(2), self.scale());
        let mut out = shuffle(&predicted, scale).into_vec();
        let row = width * scale * NUM_CH;
        for (i, row) in out.chunks_exact_mut(row).enumerate() {
            let from = &x.data()[i / scale * width * NUM_CH..][..width * NUM_CH];
            for (pixels, pixel) in row.chunks_exact_mut(scale * NUM_CH).zip(from.chunks_exact(NUM_CH)) {
                for (value, base) in pixels.iter_mut().zip(pixel.iter().cycle()) {
                    *value += base;
                }
            }
        }
        Ok(Tensor::from_vec(out, &[batch, x.dim(1) * scale, width * scale, NUM_CH]))
    }
}
