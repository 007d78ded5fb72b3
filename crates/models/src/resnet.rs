//! Residual blocks and the resamplers between resolutions (diffusers `models/resnet.py`,
//! `downsampling.py`, `upsampling.py`).

use crate::adapters::kept;
use crate::bands::Bands;
use crate::layers::{Conv, GroupNorm, Linear, Start};
use prima_checkpoint::{Error, ParamSource};
use prima_tensor::{
    Conv2d, Tensor, add_per_sample_channel, is_recomputing, narrow_channels, recompute, upsample_nearest_2x,
};

/// What all residual blocks of a network share.
#[derive(Clone, Copy)]
pub(crate) struct ResnetShape {
    pub groups: usize,
    pub eps: f32,
    /// Width of the time embedding; `None` in autoencoders.
    pub temb_channels: Option<usize>,
}

/// GroupNorm, SiLU, convolution, twice, with the time embedding added between them.
#[derive(Clone)]
pub(crate) struct ResnetBlock2D {
    norm1: GroupNorm,
    conv1: Conv,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv,
    conv_shortcut: Option<Conv>,
}

impl ResnetBlock2D {
    pub fn new(
        source: &mut dyn ParamSource,
        name: &str,
        inputs: usize,
        outputs: usize,
        shape: ResnetShape,
    ) -> Result<Self, Error> {
        let ResnetShape {
            groups,
            eps,
            temb_channels,
        } = shape;
        Ok(Self {
            norm1: GroupNorm::new(source, &format!("{name}.norm1"), inputs, groups, eps)?,
            conv1: Conv::same(source, &format!("{name}.conv1"), [inputs, outputs, 3], Start::Default)?.of_one_size(),
            time_emb_proj: temb_channels
                .map(|temb| {
                    Linear::new(
                        source,
                        &format!("{name}.time_emb_proj"),
                        temb,
                        outputs,
                        true,
                        Start::Default,
                    )
                })
                .transpose()?,
            norm2: GroupNorm::new(source, &format!("{name}.norm2"), outputs, groups, eps)?,
            conv2: Conv::same(source, &format!("{name}.conv2"), [outputs, outputs, 3], Start::Zero)?.of_one_size(),
            conv_shortcut: (inputs != outputs)
                .then(|| {
                    Conv::same(
                        source,
                        &format!("{name}.conv_shortcut"),
                        [inputs, outputs, 1],
                        Start::Default,
                    )
                })
                .transpose()?,
        })
    }

    /// `x` `[B, H, W, inputs]`; `temb_silu` `[B, temb_channels]`, the time embedding after
    /// SiLU (computed once for all blocks).
    /// `x` is worked on in its place if nobody else has it.
    pub fn forward(&self, x: Tensor, temb_silu: Option<&Tensor>) -> Tensor {
        if !is_recomputing() {
            return self.run(x, temb_silu);
        }
        let (block, temb_silu) = (self.clone(), temb_silu.cloned());
        recompute(kept(move || block.run(x.clone(), temb_silu.as_ref())))
    }

    fn run(&self, x: Tensor, temb_silu: Option<&Tensor>) -> Tensor {
        let (normed, residual) = match &self.conv_shortcut {
            Some(shortcut) => {
                let residual = shortcut.forward(&x);
                (self.norm1.silu_within(x), residual)
            }
            None => (self.norm1.silu(&x), x),
        };
        let mut hidden = self.conv1.forward(&normed);
        drop(normed);
        if let (Some(proj), Some(temb)) = (&self.time_emb_proj, temb_silu) {
            hidden = add_per_sample_channel(&hidden, &proj.forward(temb));
        }
        self.conv2.plus(&self.norm2.silu_within(hidden), &residual)
    }
}

impl ResnetBlock2D {
    /// [`forward`](Self::forward) without a time embedding, off the tape.
    pub fn forward_bands(&self, x: Bands) -> Bands {
        let mut residual = Bands::empty(x.values());
        let hidden = x.norm_conv(&self.norm1, &self.conv1, None, |x, rows| {
            let band = x.rows(rows);
            residual.push(match &self.conv_shortcut {
                Some(shortcut) => shortcut.forward(&band),
                None => band,
            });
        });
        hidden.norm_conv(&self.norm2, &self.conv2, Some(residual), |_, _| {})
    }
}

/// Halves height and width with a strided convolution.
pub(crate) struct Downsample2D {
    conv: Conv,
}

impl Downsample2D {
    /// `padding` `[top, bottom, left, right]`: one all round in the UNet, `[0, 1, 0, 1]` in
    /// the autoencoder.
    pub fn new(source: &mut dyn ParamSource, name: &str, channels: usize, padding: [usize; 4]) -> Result<Self, Error> {
        let geometry = Conv2d { stride: 2, padding };
        let conv = Conv::new(
            source,
            &format!("{name}.conv"),
            [channels, channels, 3],
            geometry,
            true,
            Start::Default,
        )?;
        Ok(Self { conv })
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.conv.forward(x)
    }
}

/// Doubles height and width (nearest neighbour), then convolves.
pub(crate) struct Upsample2D {
    conv: Conv,
}

impl Upsample2D {
    pub fn new(source: &mut dyn ParamSource, name: &str, channels: usize) -> Result<Self, Error> {
        let conv = Conv::same(source, &format!("{name}.conv"), [channels, channels, 3], Start::Default)?;
        Ok(Self { conv })
    }

    /// To `size` `[height, width]`: twice that of `x`, or one less where the skip connection
    /// came from an odd size.
    pub fn forward_to(&self, x: &Tensor, size: [usize; 2]) -> Tensor {
        if size == [2 * x.dim(1), 2 * x.dim(2)] {
            return self.forward(x);
        }
        self.conv.forward(&crop(&upsample_nearest_2x(x), size))
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.conv.of_doubled(x)
    }

    pub fn forward_bands(&self, x: Bands) -> Bands {
        x.doubled_conv(&self.conv)
    }

    /// Channels of the result.
    pub fn outputs(&self) -> usize {
        self.conv.outputs()
    }
}

/// The top left `[height, width]` of `[B, H, W, C]`. Nearest-neighbour doubling to an odd
/// size is doubling, then dropping the last row or column.
fn crop(x: &Tensor, [height, width]: [usize; 2]) -> Tensor {
    let [b, h, w, c] = [x.dim(0), x.dim(1), x.dim(2), x.dim(3)];
    let mut x = x.clone();
    if w != width {
        x = narrow_channels(&x.reshape(&[b, h, w * c]), 0, width * c);
    }
    if h != height {
        x = narrow_channels(&x.reshape(&[b, h * width * c]), 0, height * width * c);
    }
    x.reshape(&[b, height, width, c])
}
