//! The distilled autoencoder of the TAESD family (diffusers
//! `models/autoencoders/autoencoder_tiny.py`, `vae.py`, 0.42.1).

use crate::config::{CONFIG, Check, MAX_LAYERS, Neutral, Plain, Ranges, invalid};
use crate::layers::{Conv, Start};
use crate::{Cancelled, check};
use prima_checkpoint::{Error, ParamSource};
use prima_tensor::{Activation, Conv2d, Tensor, activation, affine, upsample_nearest_2x};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `AutoencoderTiny`'s `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderTinyConfig {
    pub in_channels: usize,
    pub out_channels: usize,
    pub encoder_block_out_channels: Vec<usize>,
    pub decoder_block_out_channels: Vec<usize>,
    pub latent_channels: usize,
    pub num_encoder_blocks: Vec<usize>,
    pub num_decoder_blocks: Vec<usize>,
    pub latent_magnitude: f64,
    pub latent_shift: f64,
    pub scaling_factor: f64,
    pub shift_factor: f64,
}

impl Default for AutoencoderTinyConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            encoder_block_out_channels: vec![64; 4],
            decoder_block_out_channels: vec![64; 4],
            latent_channels: 4,
            num_encoder_blocks: vec![1, 3, 3, 3],
            num_decoder_blocks: vec![3, 3, 3, 1],
            latent_magnitude: 3.0,
            latent_shift: 0.5,
            scaling_factor: 1.0,
            shift_factor: 0.0,
        }
    }
}

/// `block_out_channels` repeats the decoder's channels.
const NEUTRAL: &[Neutral] = &[
    ("act_fn", &[Plain::Str("relu")]),
    ("upsample_fn", &[Plain::Str("nearest")]),
    ("upsampling_scaling_factor", &[Plain::Num(2.0)]),
    ("force_upcast", &[Plain::Any]),
    ("block_out_channels", &[Plain::Any]),
];
const CLASS_NAME: &str = "AutoencoderTiny";

impl AutoencoderTinyConfig {
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
        1 << (self.num_decoder_blocks.len() - 1)
    }

    fn check(&self) -> Result<(), Error> {
        self.check_ranges(&Check { file: CONFIG })?;
        let stages = [
            ("encoder", &self.encoder_block_out_channels, &self.num_encoder_blocks),
            ("decoder", &self.decoder_block_out_channels, &self.num_decoder_blocks),
        ];
        for (part, channels, blocks) in stages {
            if channels.is_empty() || channels.len() != blocks.len() {
                let found = format!("{} and {} entries", channels.len(), blocks.len());
                let fields = format!("{part}_block_out_channels and num_{part}_blocks");
                return Err(invalid(format!(
                    "{fields} have {found}, expected equally many, at least one"
                )));
            }
            // A stage has no layer that could change the width: the file format has none either.
            if channels.iter().any(|&c| c != channels[0]) {
                return Err(invalid(format!(
                    "{part}_block_out_channels = {channels:?} must all be equal"
                )));
            }
        }
        Ok(())
    }
}

impl Ranges for AutoencoderTinyConfig {
    fn check_ranges(&self, check: &Check) -> Result<(), Error> {
        check.blocks("encoder_block_out_channels", &self.encoder_block_out_channels)?;
        check.blocks("decoder_block_out_channels", &self.decoder_block_out_channels)?;
        check.channels(&[
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("latent_channels", self.latent_channels),
        ])?;
        // The last stage of a half may have no block.
        check.each("num_encoder_blocks", &self.num_encoder_blocks, 0..=MAX_LAYERS)?;
        check.each("num_decoder_blocks", &self.num_decoder_blocks, 0..=MAX_LAYERS)?;
        check.factor("scaling_factor", self.scaling_factor)?;
        check.factor("latent_magnitude", self.latent_magnitude)?;
        check.within("latent_shift", self.latent_shift, -1e6..=1e6)?;
        check.within("shift_factor", self.shift_factor, -1e6..=1e6)
    }
}

/// Three convolutions with ReLU and a residual.
struct TinyBlock {
    convs: [Conv; 3],
}

impl TinyBlock {
    fn new(source: &mut dyn ParamSource, name: &str, channels: usize) -> Result<Self, Error> {
        let mut conv =
            |i: usize, start: Start| Conv::same(source, &format!("{name}.conv.{i}"), [channels, channels, 3], start);
        Ok(Self {
            convs: [
                conv(0, Start::Default)?,
                conv(2, Start::Default)?,
                conv(4, Start::Default)?,
            ],
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let hidden = self.convs[0].activated(x, Activation::Relu);
        let hidden = self.convs[1].activated(&hidden, Activation::Relu);
        activation(&self.convs[2].plus(&hidden, x), Activation::Relu)
    }
}

/// One entry of diffusers' `nn.Sequential`; the position gives the key.
enum Layer {
    Conv(Conv),
    Relu,
    Block(TinyBlock),
    Upsample,
}

impl Layer {
    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Conv(conv) => conv.forward(x),
            Self::Relu => activation(x, Activation::Relu),
            Self::Block(block) => block.forward(x),
            Self::Upsample => upsample_nearest_2x(x),
        }
    }
}

/// Collects layers under consecutive keys.
struct Sequential<'a> {
    source: &'a mut dyn ParamSource,
    prefix: &'static str,
    layers: Vec<Layer>,
}

impl Sequential<'_> {
    fn name(&self) -> String {
        format!("{}.layers.{}", self.prefix, self.layers.len())
    }

    fn conv(&mut self, inputs: usize, outputs: usize, stride: usize, bias: bool) -> Result<(), Error> {
        let (name, geometry) = (self.name(), Conv2d::strided(stride, 1));
        let conv = Conv::new(self.source, &name, [inputs, outputs, 3], geometry, bias, Start::Default)?;
        self.layers.push(Layer::Conv(conv));
        Ok(())
    }

    fn blocks(&mut self, channels: usize, count: usize) -> Result<(), Error> {
        for _ in 0..count {
            let name = self.name();
            self.layers
                .push(Layer::Block(TinyBlock::new(self.source, &name, channels)?));
        }
        Ok(())
    }
}

fn encoder(source: &mut dyn ParamSource, config: &AutoencoderTinyConfig) -> Result<Vec<Layer>, Error> {
    let mut seq = Sequential {
        source,
        prefix: "encoder",
        layers: Vec::new(),
    };
    let channels = config.encoder_block_out_channels[0];
    for (i, &blocks) in config.num_encoder_blocks.iter().enumerate() {
        if i == 0 {
            seq.conv(config.in_channels, channels, 1, true)?;
        } else {
            seq.conv(channels, channels, 2, false)?;
        }
        seq.blocks(channels, blocks)?;
    }
    seq.conv(channels, config.latent_channels, 1, true)?;
    Ok(seq.layers)
}

fn decoder(source: &mut dyn ParamSource, config: &AutoencoderTinyConfig) -> Result<Vec<Layer>, Error> {
    let mut seq = Sequential {
        source,
        prefix: "decoder",
        layers: Vec::new(),
    };
    let channels = config.decoder_block_out_channels[0];
    seq.conv(config.latent_channels, channels, 1, true)?;
    seq.layers.push(Layer::Relu);
    let last = config.num_decoder_blocks.len() - 1;
    for (i, &blocks) in config.num_decoder_blocks.iter().enumerate() {
        seq.blocks(channels, blocks)?;
        if i < last {
            seq.layers.push(Layer::Upsample);
            seq.conv(channels, channels, 1, false)?;
        }
    }
    seq.conv(channels, config.out_channels, 1, true)?;
    Ok(seq.layers)
}

/// `AutoencoderTiny`.
pub struct AutoencoderTiny {
    config: AutoencoderTinyConfig,
    encoder: Vec<Layer>,
    decoder: Vec<Layer>,
}

impl AutoencoderTiny {
    pub fn new(config: AutoencoderTinyConfig, source: &mut dyn ParamSource) -> Result<Self, Error> {
        config.check()?;
        let encoder = encoder(source, &config)?;
        let decoder = decoder(source, &config)?;
        Ok(Self {
            config,
            encoder,
            decoder,
        })
    }

    pub fn config(&self) -> &AutoencoderTinyConfig {
        &self.config
    }

    /// `image` `[B, H, W, in_channels]` in [-1, 1] to latents `[B, h, w, latent_channels]`.
    pub fn encode(&self, image: &Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<Tensor, Cancelled> {
        // The network was trained on [0, 1].
        run(&self.encoder, affine(image, 0.5, 0.5), keep_going)
    }

    /// Latents to a picture `[B, H, W, out_channels]`, about [-1, 1], not clamped.
    pub fn decode(&self, latents: &Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<Tensor, Cancelled> {
        let bounded = affine(
            &activation(&affine(latents, 1.0 / 3.0, 0.0), Activation::Tanh),
            3.0,
            0.0,
        );
        let image = run(&self.decoder, bounded, keep_going)?;
        Ok(affine(&image, 2.0, -1.0))
    }

    /// Raw latents to those that the UNet sees.
    pub fn scale_latents(&self, latents: &Tensor) -> Tensor {
        let (scale, shift) = (self.config.scaling_factor, self.config.shift_factor);
        affine(latents, scale as f32, (-shift * scale) as f32)
    }

    /// The inverse of [`Self::scale_latents`].
    pub fn unscale_latents(&self, latents: &Tensor) -> Tensor {
        affine(
            latents,
            (1.0 / self.config.scaling_factor) as f32,
            self.config.shift_factor as f32,
        )
    }
}

fn run(mut layers: &[Layer], mut x: Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<Tensor, Cancelled> {
    while let [layer, rest @ ..] = layers {
        check(keep_going)?;
        (x, layers) = match (layer, rest) {
            (Layer::Upsample, [Layer::Conv(conv), rest @ ..]) => (conv.of_doubled(&x), rest),
            _ => (layer.forward(&x), rest),
        };
    }
    Ok(x)
}
