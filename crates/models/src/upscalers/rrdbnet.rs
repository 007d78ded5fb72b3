//! ESRGAN's network (`basicsr/archs/rrdbnet_arch.py`, BasicSR 1.4.2): residual blocks of densely connected convolutions at the
//! picture's own size, then as many doublings as the file has.

use super::pixels::unshuffle;
use crate::config::invalid;
use crate::layers::{Conv, Start};
use crate::{Cancelled, check};
use prima_checkpoint::{Error, ParamSource};
use prima_tensor::bands::stack_rows;
use prima_tensor::{Device, Param, Tensor, add, combine_per_sample, concat_channels, prelu};

/// The arguments of `RRDBNet`. BasicSR's files have two doublings, older ones of other scales have one to three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RrdbNetConfig {
    /// Each way; where it is smaller than what the doublings make, the picture's pixels are packed into channels first.
    pub scale: usize,
    pub num_feat: usize,
    pub num_block: usize,
    pub num_grow_ch: usize,
    pub num_upsample: usize,
}

const NUM_CH: usize = 3;
/// Blocks, or doublings, of any file.
const MOST: usize = 1000;
/// Slope of all activations below zero.
const SLOPE: f32 = 0.2;
/// Share of a residual branch.
const SHARE: f32 = 0.2;
/// Rows before the doublings that the last layers see around a row.
const TAIL_REACH: usize = 2;
/// Pixels that the last layers make at a time: their activations are sixteen times as large as those of the blocks.
const TAIL_PIXELS: usize = 1 << 18;

impl RrdbNetConfig {
    /// What the shapes of a file's tensors say; `None` where they are of another network.
    pub fn of_shapes(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Self> {
        let [num_feat, inputs, 3, 3] = shape("conv_first.weight")?[..] else {
            return None;
        };
        let &num_grow_ch = shape("body.0.rdb1.conv1.weight")?.first()?;
        let has_block = |block: &usize| shape(&format!("body.{block}.rdb1.conv1.weight")).is_some();
        let has_up = |up: &usize| shape(&format!("conv_up{up}.weight")).is_some();
        let num_upsample = (1..MOST).take_while(has_up).count();
        let packed = (inputs / NUM_CH).isqrt().max(1);
        Some(Self {
            scale: (1 << num_upsample.min(8)) / packed,
            num_feat,
            num_block: (0..MOST).take_while(has_block).count(),
            num_grow_ch,
            num_upsample,
        })
    }

    /// Pixels of a side that become channels.
    fn packed(&self) -> usize {
        (1 << self.num_upsample) / self.scale.max(1)
    }
}

/// `ResidualDenseBlock`: five convolutions, each of which sees what all before it made.
struct DenseBlock {
    dense: Vec<Conv>,
    last: Conv,
    slope: Param,
}

impl DenseBlock {
    fn new(source: &mut dyn ParamSource, name: &str, config: &RrdbNetConfig, slope: &Param) -> Result<Self, Error> {
        let (wide, grow) = (config.num_feat, config.num_grow_ch);
        let mut conv = |i: usize, outputs: usize| {
            let sizes = [wide + (i - 1) * grow, outputs, 3];
            Conv::same(source, &format!("{name}.conv{i}"), sizes, Start::Default)
        };
        Ok(Self {
            dense: (1..5).map(|i| conv(i, grow)).collect::<Result<_, _>>()?,
            last: conv(5, wide)?,
            slope: slope.clone(),
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let mut seen = x.clone();
        for conv in &self.dense {
            let more = prelu(conv.forward(&seen), &self.slope);
            seen = concat_channels(&[&seen, &more]);
        }
        plus_share(x, &self.last.forward(&seen))
    }
}

/// `x + 0.2 branch`
fn plus_share(x: &Tensor, branch: &Tensor) -> Tensor {
    let batch = x.dim(0);
    combine_per_sample(&vec![1.0; batch], x, &vec![SHARE; batch], branch)
}

/// `RRDBNet`: `[B, H, W, 3]` to `[B, scale·H, scale·W, 3]`. Where pixels are packed, sides are multiples of how many.
pub struct RrdbNet {
    conv_first: Conv,
    /// `RRDB`: three dense blocks and a residual around them.
    body: Vec<[DenseBlock; 3]>,
    conv_body: Conv,
    conv_up: Vec<Conv>,
    conv_hr: Conv,
    conv_last: Conv,
    /// Of `num_feat` channels.
    slope: Param,
    config: RrdbNetConfig,
}

impl RrdbNet {
    pub fn new(config: &RrdbNetConfig, source: &mut dyn ParamSource) -> Result<Self, Error> {
        let wide = config.num_feat;
        let is_possible = wide > 0
            && config.num_grow_ch > 0
            && (1..=3).contains(&config.num_upsample)
            && config.scale * config.packed() == 1 << config.num_upsample;
        if !is_possible {
            return Err(invalid(format!("{config:?} is not a network that enlarges pictures")));
        }
        let inputs = NUM_CH * config.packed() * config.packed();
        let slopes = |channels: usize| Param::new(Tensor::full(SLOPE, &[channels]));
        let (slope, grow_slope) = (slopes(wide), slopes(config.num_grow_ch));
        let mut same =
            |name: &str, sizes: [usize; 2]| Conv::same(source, name, [sizes[0], sizes[1], 3], Start::Default);
        let conv_first = same("conv_first", [inputs, wide])?;
        let conv_body = same("conv_body", [wide, wide])?;
        let up = |up: usize| same(&format!("conv_up{up}"), [wide, wide]);
        let conv_up = (1..=config.num_upsample).map(up).collect::<Result<_, _>>()?;
        let conv_hr = same("conv_hr", [wide, wide])?;
        let conv_last = same("conv_last", [wide, NUM_CH])?;
        let mut body = Vec::new();
        for block in 0..config.num_block {
            let mut dense = |i: usize| DenseBlock::new(source, &format!("body.{block}.rdb{i}"), config, &grow_slope);
            body.push([dense(1)?, dense(2)?, dense(3)?]);
        }
        Ok(Self {
            conv_first,
            body,
            conv_body,
            conv_up,
            conv_hr,
            conv_last,
            slope,
            config: config.clone(),
        })
    }

    /// How many times larger the result is, each way.
    pub fn scale(&self) -> usize {
        self.config.scale
    }

    /// What the sides of a picture have to be multiples of.
    pub fn side_multiple(&self) -> usize {
        self.config.packed()
    }

    pub fn forward(&self, x: &Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<Tensor, Cancelled> {
        let packed = self.config.packed();
        let x = if packed > 1 { unshuffle(x, packed) } else { x.clone() };
        let first = self.conv_first.forward(&x);
        let mut h = first.clone();
        for block in &self.body {
            let mut inner = h.clone();
            for dense in block {
                check(keep_going)?;
                inner = dense.forward(&inner);
            }
            h = plus_share(&h, &inner);
        }
        let h = add(&first, &self.conv_body.forward(&h));
        let (rows, width, doubled) = (h.dim(1), h.dim(2), 1 << self.config.num_upsample);
        let at_once = (TAIL_PIXELS / (width * doubled * doubled)).max(1);
        if h.dim(0) > 1 || at_once >= rows || Device::current().is_gpu() {
            return self.tail(&h, keep_going);
        }
        let mut out = Vec::new();
        for start in (0..rows).step_by(at_once) {
            let end = rows.min(start + at_once);
            let seen = start.saturating_sub(TAIL_REACH)..rows.min(end + TAIL_REACH);
            let (before, len) = (start - seen.start, end - start);
            let part = self.tail(&stack_rows(&[(&h, seen)]), keep_going)?;
            let row = doubled * width * doubled * NUM_CH;
            out.extend_from_slice(&part.data()[before * row..(before + len) * row]);
        }
        Ok(Tensor::from_vec(out, &[1, rows * doubled, width * doubled, NUM_CH]))
    }

    /// The doublings and what is behind them.
    fn tail(&self, h: &Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<Tensor, Cancelled> {
        let mut h = h.clone();
        for conv in &self.conv_up {
            check(keep_going)?;
            h = prelu(conv.of_doubled(&h), &self.slope);
        }
        check(keep_going)?;
        let h = prelu(self.conv_hr.forward(&h), &self.slope);
        Ok(self.conv_last.forward(&h))
    }
}
