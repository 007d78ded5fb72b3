//! The variational autoencoder between pictures and latents (diffusers
//! `models/autoencoders/autoencoder_kl.py`, `vae.py`, 0.42.1).

use crate::bands::{self, Bands};
use crate::config::{CONFIG, Check, MAX_LAYERS, Neutral, OneOrMany, Plain, Ranges, invalid};
use crate::layers::{Conv, GroupNorm, Linear, Start};
use crate::resnet::{Downsample2D, ResnetBlock2D, ResnetShape, Upsample2D};
use crate::{Cancelled, check};
use prima_checkpoint::{Error, ParamSource};
use prima_tensor::{Device, Tensor, add, affine, attention_in, is_recording, mul, narrow_channels};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const NORM_EPS: f32 = 1e-6;

/// Larger tensors of the decoder, in values, are not made whole: see [`Bands`].
const WHOLE: usize = 96 << 20;

/// `AutoencoderKL`'s `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderKlConfig {
    pub in_channels: usize,
    pub out_channels: usize,
    pub down_block_types: Vec<String>,
    pub up_block_types: Vec<String>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub latent_channels: usize,
    pub norm_num_groups: usize,
    pub sample_size: OneOrMany<usize>,
    pub scaling_factor: f64,
    pub shift_factor: Option<f64>,
    pub latents_mean: Option<Vec<f64>>,
    pub latents_std: Option<Vec<f64>>,
    pub force_upcast: bool,
    pub use_quant_conv: bool,
    pub use_post_quant_conv: bool,
    pub mid_block_add_attention: bool,
}

impl Default for AutoencoderKlConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec!["DownEncoderBlock2D".into()],
            up_block_types: vec!["UpDecoderBlock2D".into()],
            block_out_channels: vec![64],
            layers_per_block: 1,
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: OneOrMany::One(32),
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

const NEUTRAL: &[Neutral] = &[("act_fn", &[Plain::Str("silu"), Plain::Str("swish")])];
const CLASS_NAME: &str = "AutoencoderKL";

impl AutoencoderKlConfig {
    /// Reads a `config.json`; `file` names it in errors.
    pub fn from_json(json: &str, file: &str) -> Result<Self, Error> {
        crate::config::read(json, file, &[CLASS_NAME], NEUTRAL)
    }

    /// The `config.json` that diffusers reads back.
    pub fn to_json(&self) -> Value {
        crate::config::write(self, &[("_class_name", CLASS_NAME)])
    }

    /// Pixels per latent, each way.
    pub fn scale_factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    fn check(&self) -> Result<(), Error> {
        self.check_ranges(&Check { file: CONFIG })?;
        let blocks = self.block_out_channels.len();
        let kinds = [
            ("down_block_types", &self.down_block_types, "DownEncoderBlock2D"),
            ("up_block_types", &self.up_block_types, "UpDecoderBlock2D"),
        ];
        for (field, found, supported) in kinds {
            if found.len() != blocks || found.iter().any(|kind| kind != supported) {
                let message = format!("{field} = {found:?} is not supported, only {blocks} times {supported}");
                return Err(invalid(message));
            }
        }
        for (field, values) in [("latents_mean", &self.latents_mean), ("latents_std", &self.latents_std)] {
            if let Some(values) = values
                && values.len() != self.latent_channels
            {
                let expected = self.latent_channels;
                return Err(invalid(format!(
                    "{field} has {} entries, latent_channels is {expected}",
                    values.len()
                )));
            }
        }
        Ok(())
    }

    fn resnet_shape(&self) -> ResnetShape {
        ResnetShape {
            groups: self.norm_num_groups,
            eps: NORM_EPS,
            temb_channels: None,
        }
    }
}

impl Ranges for AutoencoderKlConfig {
    fn check_ranges(&self, check: &Check) -> Result<(), Error> {
        check.blocks("block_out_channels", &self.block_out_channels)?;
        check.channels(&[
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("latent_channels", self.latent_channels),
            ("norm_num_groups", self.norm_num_groups),
        ])?;
        check.within("layers_per_block", self.layers_per_block, 1..=MAX_LAYERS)?;
        check.factor("scaling_factor", self.scaling_factor)?;
        if let Some(shift) = self.shift_factor {
            check.within("shift_factor", shift, -1e6..=1e6)?;
        }
        let list = |values: &Option<Vec<f64>>| values.clone().unwrap_or_default();
        check.each("latents_mean", &list(&self.latents_mean), -1e6..=1e6)?;
        check.each("latents_std", &list(&self.latents_std), 1e-6..=1e6)
    }
}

/// Single-head self-attention over the pixels.
struct MidAttention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl MidAttention {
    fn new(source: &mut dyn ParamSource, name: &str, channels: usize, groups: usize) -> Result<Self, Error> {
        let group_norm = GroupNorm::new(source, &format!("{name}.group_norm"), channels, groups, NORM_EPS)?;
        let mut linear = |layer: &str, start: Start| {
            Linear::new(source, &format!("{name}.{layer}"), channels, channels, true, start)
        };
        Ok(Self {
            group_norm,
            to_q: linear("to_q", Start::Default)?,
            to_k: linear("to_k", Start::Default)?,
            to_v: linear("to_v", Start::Default)?,
            to_out: linear("to_out.0", Start::Zero)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let [b, h, w, c] = [x.dim(0), x.dim(1), x.dim(2), x.dim(3)];
        let residual = x.reshape(&[b, h * w, c]);
        let normed = self.group_norm.forward(&residual);
        let (q, k, v) = (
            self.to_q.forward(&normed),
            self.to_k.forward(&normed),
            self.to_v.forward(&normed),
        );
        self.to_out
            .plus(
                &attention_in(self.to_q.products_dtype(), &q, &k, &v, 1, false),
                &residual,
            )
            .reshape(&[b, h, w, c])
    }
}

/// Residual block, attention (if configured), residual block.
struct MidBlock {
    resnets: [ResnetBlock2D; 2],
    attention: Option<MidAttention>,
}

impl MidBlock {
    fn new(
        source: &mut dyn ParamSource,
        name: &str,
        channels: usize,
        config: &AutoencoderKlConfig,
    ) -> Result<Self, Error> {
        let shape = config.resnet_shape();
        let attention = config
            .mid_block_add_attention
            .then(|| MidAttention::new(source, &format!("{name}.attentions.0"), channels, shape.groups))
            .transpose()?;
        let mut resnet =
            |i: usize| ResnetBlock2D::new(source, &format!("{name}.resnets.{i}"), channels, channels, shape);
        Ok(Self {
            resnets: [resnet(0)?, resnet(1)?],
            attention,
        })
    }

    fn forward(&self, x: Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<Tensor, Cancelled> {
        check(keep_going)?;
        let mut x = self.resnets[0].forward(x, None);
        if let Some(attention) = &self.attention {
            check(keep_going)?;
            x = attention.forward(&x);
        }
        check(keep_going)?;
        Ok(self.resnets[1].forward(x, None))
    }
}

fn resnets(
    source: &mut dyn ParamSource,
    block: &str,
    [inputs, outputs, count]: [usize; 3],
    shape: ResnetShape,
) -> Result<Vec<ResnetBlock2D>, Error> {
    (0..count)
        .map(|i| {
            let inputs = if i == 0 { inputs } else { outputs };
            ResnetBlock2D::new(source, &format!("{block}.resnets.{i}"), inputs, outputs, shape)
        })
        .collect()
}

/// Picture to moments.
struct Encoder {
    conv_in: Conv,
    down_blocks: Vec<(Vec<ResnetBlock2D>, Option<Downsample2D>)>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv,
}

impl Encoder {
    fn new(source: &mut dyn ParamSource, config: &AutoencoderKlConfig) -> Result<Self, Error> {
        let channels = &config.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let in_shape = [config.in_channels, first, 3];
        let conv_in = Conv::same(source, "encoder.conv_in", in_shape, Start::Default)?;
        let mut down_blocks = Vec::new();
        for (i, &outputs) in channels.iter().enumerate() {
            let name = format!("encoder.down_blocks.{i}");
            let sizes = [channels[i.saturating_sub(1)], outputs, config.layers_per_block];
            let resnets = resnets(source, &name, sizes, config.resnet_shape())?;
            // Zeros below and to the right only.
            let downsampler = (i + 1 < channels.len())
                .then(|| Downsample2D::new(source, &format!("{name}.downsamplers.0"), outputs, [0, 1, 0, 1]))
                .transpose()?;
            down_blocks.push((resnets, downsampler));
        }
        Ok(Self {
            conv_in,
            down_blocks,
            mid_block: MidBlock::new(source, "encoder.mid_block", last, config)?,
            conv_norm_out: GroupNorm::new(source, "encoder.conv_norm_out", last, config.norm_num_groups, NORM_EPS)?,
            conv_out: Conv::same(
                source,
                "encoder.conv_out",
                [last, 2 * config.latent_channels, 3],
                Start::Default,
            )?,
        })
    }

    fn forward(&self, image: &Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<Tensor, Cancelled> {
        let mut x = self.conv_in.forward(image);
        for (resnets, downsampler) in &self.down_blocks {
            for resnet in resnets {
                check(keep_going)?;
                x = resnet.forward(x, None);
            }
            if let Some(downsampler) = downsampler {
                x = downsampler.forward(&x);
            }
        }
        x = self.mid_block.forward(x, keep_going)?;
        Ok(self.conv_out.forward(&self.conv_norm_out.silu_within(x)))
    }
}

/// Latents to picture.
struct Decoder {
    conv_in: Conv,
    mid_block: MidBlock,
    up_blocks: Vec<(Vec<ResnetBlock2D>, Option<Upsample2D>)>,
    conv_norm_out: GroupNorm,
    conv_out: Conv,
}

impl Decoder {
    fn new(source: &mut dyn ParamSource, config: &AutoencoderKlConfig) -> Result<Self, Error> {
        let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let in_shape = [config.latent_channels, first, 3];
        let conv_in = Conv::same(source, "decoder.conv_in", in_shape, Start::Default)?;
        let mid_block = MidBlock::new(source, "decoder.mid_block", first, config)?;
        let mut up_blocks = Vec::new();
        for (i, &outputs) in channels.iter().enumerate() {
            let name = format!("decoder.up_blocks.{i}");
            let sizes = [channels[i.saturating_sub(1)], outputs, config.layers_per_block + 1];
            let resnets = resnets(source, &name, sizes, config.resnet_shape())?;
            let upsampler = (i + 1 < channels.len())
                .then(|| Upsample2D::new(source, &format!("{name}.upsamplers.0"), outputs))
                .transpose()?;
            up_blocks.push((resnets, upsampler));
        }
        Ok(Self {
            conv_in,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::new(source, "decoder.conv_norm_out", last, config.norm_num_groups, NORM_EPS)?,
            conv_out: Conv::same(
                source,
                "decoder.conv_out",
                [last, config.out_channels, 3],
                Start::Default,
            )?,
        })
    }

    fn forward(&self, latents: &Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<Tensor, Cancelled> {
        self.forward_within(latents, [WHOLE, bands::BAND], keep_going)
    }

    /// Tensors of more than `whole` values in bands of about `band`.
    fn forward_within(
        &self,
        latents: &Tensor,
        [whole, band]: [usize; 2],
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Tensor, Cancelled> {
        let mut x = self.mid_block.forward(self.conv_in.forward(latents), keep_going)?;
        let is_banded = x.dim(0) == 1 && !is_recording(&[latents]) && !Device::current().is_gpu();
        for (i, (resnets, upsampler)) in self.up_blocks.iter().enumerate() {
            for resnet in resnets {
                check(keep_going)?;
                x = resnet.forward(x, None);
            }
            let Some(upsampler) = upsampler else { continue };
            check(keep_going)?;
            if is_banded && 4 * x.dim(1) * x.dim(2) * upsampler.outputs() > whole {
                return self.forward_bands(upsampler.forward_bands(Bands::cut(&x, band)), i + 1, keep_going);
            }
            x = upsampler.forward(&x);
        }
        check(keep_going)?;
        Ok(self.conv_out.forward(&self.conv_norm_out.silu_within(x)))
    }

    /// The blocks from number `first` on.
    fn forward_bands(
        &self,
        mut x: Bands,
        first: usize,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Tensor, Cancelled> {
        for (resnets, upsampler) in &self.up_blocks[first..] {
            for resnet in resnets {
                check(keep_going)?;
                x = resnet.forward_bands(x);
            }
            if let Some(upsampler) = upsampler {
                check(keep_going)?;
                x = upsampler.forward_bands(x);
            }
        }
        check(keep_going)?;
        Ok(x.norm_conv(&self.conv_norm_out, &self.conv_out, None, |_, _| {})
            .joined())
    }
}

/// What the encoder says of a picture: an independent normal per latent value.
#[derive(Clone, Debug)]
pub struct DiagonalGaussian {
    /// `[B, h, w, latent_channels]`.
    pub mean: Tensor,
    /// The natural logarithm of the variance, `[B, h, w, latent_channels]`, not yet clamped.
    pub logvar: Tensor,
}

impl DiagonalGaussian {
    /// The most likely latents (on the tape).
    pub fn mode(&self) -> Tensor {
        self.mean.clone()
    }

    /// `mean + exp(clamp(logvar, -30, 20) / 2) * noise`; gradients reach the mean only.
    pub fn sample(&self, noise: &Tensor) -> Tensor {
        let std = self
            .logvar
            .data()
            .iter()
            .map(|&logvar| (0.5 * logvar.clamp(-30.0, 20.0)).exp())
            .collect();
        add(&self.mean, &mul(&Tensor::from_vec(std, self.logvar.shape()), noise))
    }
}

/// `AutoencoderKL`.
pub struct AutoencoderKl {
    config: AutoencoderKlConfig,
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv>,
    post_quant_conv: Option<Conv>,
}

impl AutoencoderKl {
    pub fn new(config: AutoencoderKlConfig, source: &mut dyn ParamSource) -> Result<Self, Error> {
        config.check()?;
        let latent = config.latent_channels;
        let encoder = Encoder::new(source, &config)?;
        let decoder = Decoder::new(source, &config)?;
        let mut conv = |used: bool, name: &str, channels: usize| {
            used.then(|| Conv::same(source, name, [channels, channels, 1], Start::Default))
                .transpose()
        };
        let quant_conv = conv(config.use_quant_conv, "quant_conv", 2 * latent)?;
        let post_quant_conv = conv(config.use_post_quant_conv, "post_quant_conv", latent)?;
        Ok(Self {
            config,
            encoder,
            decoder,
            quant_conv,
            post_quant_conv,
        })
    }

    pub fn config(&self) -> &AutoencoderKlConfig {
        &self.config
    }

    /// About what decoding one picture of so many pixels takes beside the weights, in bytes: at its end the decoder has pictures
    /// of full size, one that comes from the level below, its norm, and what a convolution makes of that; in bands little more
    /// than the first.
    pub fn decode_bytes(&self, pixels: usize) -> usize {
        let channels = &self.config.block_out_channels;
        let (wide, last) = (channels.get(1).unwrap_or(&channels[0]), channels[0]);
        let values = if pixels * wide > WHOLE {
            pixels * wide + 6 * bands::BAND
        } else {
            pixels * (2 * wide + last)
        };
        values * size_of::<f32>()
    }

    /// `image` `[B, H, W, in_channels]` in [-1, 1], sides multiples of
    /// [`scale_factor`](AutoencoderKlConfig::scale_factor), to raw (unscaled) latents.
    pub fn encode(&self, image: &Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<DiagonalGaussian, Cancelled> {
        let mut moments = self.encoder.forward(image, keep_going)?;
        if let Some(conv) = &self.quant_conv {
            moments = conv.forward(&moments);
        }
        let latent = self.config.latent_channels;
        Ok(DiagonalGaussian {
            mean: narrow_channels(&moments, 0, latent),
            logvar: narrow_channels(&moments, latent, latent),
        })
    }

    /// Raw latents `[B, h, w, latent_channels]` to a picture `[B, H, W, out_channels]`,
    /// about [-1, 1], not clamped.
    pub fn decode(&self, latents: &Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<Tensor, Cancelled> {
        match &self.post_quant_conv {
            Some(conv) => self.decoder.forward(&conv.forward(latents), keep_going),
            None => self.decoder.forward(latents, keep_going),
        }
    }

    /// Raw latents to those that the UNet sees, about unit variance:
    /// `(z - latents_mean) * scaling_factor / latents_std`, or `(z - shift_factor) * scaling_factor`.
    pub fn scale_latents(&self, latents: &Tensor) -> Tensor {
        let scale = self.config.scaling_factor;
        let Some((mean, std)) = self.statistics() else {
            return affine(latents, scale as f32, (-self.shift() * scale) as f32);
        };
        let factor: Vec<f64> = std.iter().map(|std| scale / std).collect();
        let shift: Vec<f64> = mean.iter().zip(&factor).map(|(mean, factor)| -mean * factor).collect();
        per_channel(latents, &factor, &shift)
    }

    /// The inverse of [`Self::scale_latents`].
    pub fn unscale_latents(&self, latents: &Tensor) -> Tensor {
        let scale = self.config.scaling_factor;
        let Some((mean, std)) = self.statistics() else {
            return affine(latents, (1.0 / scale) as f32, self.shift() as f32);
        };
        let factor: Vec<f64> = std.iter().map(|std| std / scale).collect();
        per_channel(latents, &factor, mean)
    }

    fn shift(&self) -> f64 {
        self.config.shift_factor.unwrap_or(0.0)
    }

    fn statistics(&self) -> Option<(&[f64], &[f64])> {
        Some((
            self.config.latents_mean.as_deref()?,
            self.config.latents_std.as_deref()?,
        ))
    }
}

/// `factor[c] * x[..., c] + shift[c]`.
fn per_channel(x: &Tensor, factor: &[f64], shift: &[f64]) -> Tensor {
    let spread = |values: &[f64]| {
        Tensor::from_vec(
            values.iter().map(|&v| v as f32).cycle().take(x.numel()).collect(),
            x.shape(),
        )
    };
    add(&mul(x, &spread(factor)), &spread(shift))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prima_checkpoint::RandomInit;
    use prima_tensor::no_grad;

    #[test]
    fn a_picture_in_bands_is_the_whole_one_to_the_bit() {
        let config = AutoencoderKlConfig {
            down_block_types: vec!["DownEncoderBlock2D".into(); 3],
            up_block_types: vec!["UpDecoderBlock2D".into(); 3],
            block_out_channels: vec![16, 32, 64],
            norm_num_groups: 8,
            ..AutoencoderKlConfig::default()
        };
        let mut source = RandomInit::new(1);
        let vae = AutoencoderKl::new(config, &mut source).unwrap();
        for (_, param) in source.params() {
            // Where a network in training begins with zeros or ones, so that every layer counts.
            let values = (0..param.numel()).map(|i| (i as f32 * 0.7).sin() * 0.2 + 0.1).collect();
            param.set(&Tensor::from_vec(values, &param.shape()));
        }
        let values = (0..40 * 32 * 4).map(|i| (i as f32 * 0.37).cos()).collect();
        let latents = Tensor::from_vec(values, &[1, 40, 32, 4]);
        for dtype in ["f32", "bf16"] {
            if dtype == "bf16" {
                source.params().iter().for_each(|(_, param)| param.narrow_to_bf16());
            }
            let decode = |within| no_grad(|| vae.decoder.forward_within(&latents, within, &mut || true).unwrap());
            let whole = decode([usize::MAX, 1]);
            assert_eq!(whole.shape(), [1, 160, 128, 3]);
            for band in [1, 128 * 16 * 40, usize::MAX] {
                assert_eq!(
                    decode([0, band]).data(),
                    whole.data(),
                    "{dtype}, bands of {band} values"
                );
            }
        }
    }
}
