//! Adaptive instance normalisation (Huang and Belongie 2017) as naoto0804/pytorch-AdaIN has it (`net.py`, `function.py`): VGG up
//! to `relu4_1`, features given the mean and spread of another picture's, and a decoder that turns them back. Layers have the
//! numbers of that code's `nn.Sequential`.

use crate::config::invalid;
use crate::layers::{Conv, Start};
use crate::{Cancelled, check};
use prima_checkpoint::{Error, ParamSource};
use prima_tensor::{Activation, Conv2d, Tensor, upsample_nearest_2x};

/// Added to variances.
const EPS: f64 = 1e-5;
/// Convolutions of 3x3 of the encoder by stage; a pooling by two stands between stages.
const ENCODER: [&[usize]; 4] = [&[2, 5], &[9, 12], &[16, 19, 22, 25], &[29]];
/// Of the decoder; a doubling stands between stages.
const DECODER: [&[usize]; 4] = [&[1], &[5, 8, 11, 14], &[18, 21], &[25, 28]];
/// What lies behind `relu4_1` in a file of VGG, and is not used.
pub const UNUSED_VGG_KEYS: [&str; 8] = ["32.", "35.", "38.", "42.", "45.", "48.", "51.", "54."];

/// Channels of the four stages: 64, 128, 256 and 512 in the published files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdainConfig {
    pub channels: [usize; 4],
}

impl AdainConfig {
    /// By the encoder's tensors; `None` where they are of another network.
    pub fn of_shapes(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Self> {
        let outputs = |stage: &[usize]| shape(&format!("{}.weight", stage[0]))?.first().copied();
        let [a, b, c, d] = ENCODER.map(outputs);
        (shape("0.weight")? == [3, 3, 1, 1]).then_some(())?;
        Some(Self {
            channels: [a?, b?, c?, d?],
        })
    }

    fn check(&self) -> Result<(), Error> {
        if self.channels.iter().all(|channels| (1..=4096).contains(channels)) {
            return Ok(());
        }
        Err(invalid(format!("{:?} are not the channels of a VGG", self.channels)))
    }
}

/// A picture `[B, H, W, C]` with its second and its last but one rows and columns once more around it.
fn reflected(x: &Tensor) -> Tensor {
    let &[batch, height, width, channels] = x.shape() else {
        panic!("a picture is [B, H, W, C], not {:?}", x.shape());
    };
    let inner = |i: usize, length: usize| match i {
        0 => 1.min(length - 1),
        i if i == length + 1 => length.saturating_sub(2),
        i => i - 1,
    };
    let row = width * channels;
    let mut out = Vec::with_capacity(batch * (height + 2) * (width + 2) * channels);
    for sample in x.data().chunks_exact(height * row) {
        for y in 0..height + 2 {
            let from = &sample[inner(y, height) * row..][..row];
            let pixel = |x: usize| &from[inner(x, width) * channels..][..channels];
            out.extend_from_slice(pixel(0));
            out.extend_from_slice(from);
            out.extend_from_slice(pixel(width + 1));
        }
    }
    Tensor::from_vec(out, &[batch, height + 2, width + 2, channels])
}

/// The largest of each square of four; of what is left at the edges too.
fn pooled(x: &Tensor) -> Tensor {
    let &[batch, height, width, channels] = x.shape() else {
        panic!("a picture is [B, H, W, C], not {:?}", x.shape());
    };
    let (rows, columns) = (height.div_ceil(2), width.div_ceil(2));
    let mut out = vec![f32::NEG_INFINITY; batch * rows * columns * channels];
    for (i, row) in x.data().chunks_exact(width * channels).enumerate() {
        let (sample, y) = (i / height, i % height);
        let into = &mut out[(sample * rows + y / 2) * columns * channels..][..columns * channels];
        for (x, pixel) in row.chunks_exact(channels).enumerate() {
            for (most, value) in into[x / 2 * channels..][..channels].iter_mut().zip(pixel) {
                *most = most.max(*value);
            }
        }
    }
    Tensor::from_vec(out, &[batch, rows, columns, channels])
}

type Stages = Vec<Vec<Conv>>;

fn stages(
    source: &mut dyn ParamSource,
    layers: [&[usize]; 4],
    outputs: impl Fn(usize, usize) -> usize,
    mut inputs: usize,
) -> Result<Stages, Error> {
    let mut all = Vec::new();
    for (stage, layers) in layers.iter().enumerate() {
        let mut convs = Vec::new();
        for (i, layer) in layers.iter().enumerate() {
            let out = outputs(stage, i);
            let sizes = [inputs, out, 3];
            convs.push(Conv::new(
                source,
                &layer.to_string(),
                sizes,
                Conv2d::padded(0),
                true,
                Start::Default,
            )?);
            inputs = out;
        }
        all.push(convs);
    }
    Ok(all)
}

/// VGG-19 with normalised weights, up to `relu4_1`.
pub struct VggEncoder {
    colours: Conv,
    stages: Stages,
}

impl VggEncoder {
    pub fn new(config: &AdainConfig, source: &mut dyn ParamSource) -> Result<Self, Error> {
        config.check()?;
        let colours = Conv::new(source, "0", [3, 3, 1], Conv2d::padded(0), true, Start::Default)?;
        let stages = stages(source, ENCODER, |stage, _| config.channels[stage], 3)?;
        Ok(Self { colours, stages })
    }

    /// `[B, H, W, 3]` in 0..1 to features `[B, H / 8, W / 8, C]`, each division rounded up.
    pub fn forward(&self, picture: &Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<Tensor, Cancelled> {
        let mut h = self.colours.forward(picture);
        for (stage, convs) in self.stages.iter().enumerate() {
            if stage > 0 {
                h = pooled(&h);
            }
            for conv in convs {
                check(keep_going)?;
                h = conv.activated(&reflected(&h), Activation::Relu);
            }
        }
        Ok(h)
    }
}

/// Features back to a picture.
pub struct AdainDecoder {
    stages: Stages,
}

impl AdainDecoder {
    pub fn new(config: &AdainConfig, source: &mut dyn ParamSource) -> Result<Self, Error> {
        config.check()?;
        let [a, b, c, d] = config.channels;
        // The last convolution of a stage narrows to the next one's width.
        let outputs = |stage: usize, i: usize| match (stage, i + 1 == DECODER[stage].len()) {
            (0, _) | (1, false) => c,
            (1, true) | (2, false) => b,
            (2, true) | (3, false) => a,
            _ => 3,
        };
        Ok(Self {
            stages: stages(source, DECODER, outputs, d)?,
        })
    }

    /// `[B, h, w, C]` to `[B, 8h, 8w, 3]`, about in 0..1.
    pub fn forward(&self, features: &Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<Tensor, Cancelled> {
        let mut h = features.clone();
        for (stage, convs) in self.stages.iter().enumerate() {
            if stage > 0 {
                h = upsample_nearest_2x(&h);
            }
            for (i, conv) in convs.iter().enumerate() {
                check(keep_going)?;
                let is_last = stage + 1 == self.stages.len() && i + 1 == convs.len();
                let activation = if is_last { Activation::None } else { Activation::Relu };
                h = conv.activated(&reflected(&h), activation);
            }
        }
        Ok(h)
    }
}

/// Mean and spread of each channel of one picture's features.
fn statistics(features: &Tensor) -> Vec<[f64; 2]> {
    let channels = features.dim(3);
    let count = (features.numel() / channels) as f64;
    let mut sums = vec![[0.0; 2]; channels];
    for pixel in features.data().chunks_exact(channels) {
        for (sum, value) in sums.iter_mut().zip(pixel) {
            sum[0] += f64::from(*value);
        }
    }
    for sum in &mut sums {
        sum[0] /= count;
    }
    for pixel in features.data().chunks_exact(channels) {
        for (sum, value) in sums.iter_mut().zip(pixel) {
            sum[1] += (f64::from(*value) - sum[0]).powi(2);
        }
    }
    for sum in &mut sums {
        // As torch's `var`: over one value less than there are.
        sum[1] = (sum[1] / (count - 1.0).max(1.0) + EPS).sqrt();
    }
    sums
}

/// `content` with the statistics of the styles, by their weights, which sum to 1, and `strength` of that over the rest of its
/// own: all of one picture each, `[1, h, w, C]`.
pub fn restyled(content: &Tensor, styles: &[(Tensor, f64)], strength: f64) -> Tensor {
    let channels = content.dim(3);
    let own = statistics(content);
    // Every style gives a channel a factor and a shift, and so does their mixture.
    let mut lines = vec![[1.0 - strength, 0.0]; channels];
    for (style, weight) in styles {
        for ((line, [mean, spread]), [to_mean, to_spread]) in lines.iter_mut().zip(&own).zip(statistics(style)) {
            let factor = to_spread / spread;
            line[0] += strength * weight * factor;
            line[1] += strength * weight * (to_mean - factor * mean);
        }
    }
    let values = content.data().chunks_exact(channels).flat_map(|pixel| {
        let values = pixel.iter().zip(&lines);
        values.map(|(value, [factor, shift])| (f64::from(*value) * factor + shift) as f32)
    });
    Tensor::from_vec(values.collect(), content.shape())
}
