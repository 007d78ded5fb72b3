//! `SamPromptEncoder`: points, bounds and earlier masks to tokens and to what is added to a picture's embedding.

use super::sam_config::{SamConfig, SamPrompt};
use crate::layers::{Conv, LayerNorm, Start};
use prima_checkpoint::{Error, Init, ParamSource};
use prima_tensor::{Activation, Conv2d, Param, Tensor, activation};
use std::f32::consts::TAU;

const EPS: f32 = 1e-6;
/// Embeddings of a point: outside of what is meant, inside of it, the first corner of bounds, and the last.
const OUTSIDE: usize = 0;
const INSIDE: usize = 1;
const FIRST_CORNER: usize = 2;
const LAST_CORNER: usize = 3;

pub(super) struct PromptEncoder {
    /// `[2, C / 2]`
    positional_embedding: Param,
    point_embed: Vec<Param>,
    not_a_point_embed: Param,
    no_mask_embed: Param,
    mask_embed: MaskEmbed,
    grid: usize,
    image_size: f32,
}

/// `SamMaskEmbedding`
struct MaskEmbed {
    convs: [Conv; 3],
    norms: [LayerNorm; 2],
}

impl PromptEncoder {
    pub fn new(config: &SamConfig, source: &mut dyn ParamSource) -> Result<Self, Error> {
        let width = config.output_channels;
        let mut row =
            |name: &str, shape: &[usize]| source.param(&format!("prompt_encoder.{name}"), shape, Init::Normal(1.0));
        let positional_embedding = row("shared_embedding.positional_embedding", &[2, width / 2])?;
        let point_embed = (0..4).map(|i| row(&format!("point_embed.{i}.weight"), &[1, width]));
        let point_embed = point_embed.collect::<Result<_, _>>()?;
        let not_a_point_embed = row("not_a_point_embed.weight", &[1, width])?;
        let no_mask_embed = row("no_mask_embed.weight", &[1, width])?;
        let (few, many) = (config.mask_input_channels / 4, config.mask_input_channels);
        let mut conv = |i: usize, sizes, geometry| {
            let name = format!("prompt_encoder.mask_embed.conv{i}");
            Conv::new(source, &name, sizes, geometry, true, Start::Default)
        };
        let halved = Conv2d::strided(2, 0);
        let convs = [
            conv(1, [1, few, 2], halved)?,
            conv(2, [few, many, 2], halved)?,
            conv(3, [many, width, 1], Conv2d::padded(0))?,
        ];
        let mut norm = |i: usize, channels| {
            LayerNorm::new(
                source,
                &format!("prompt_encoder.mask_embed.layer_norm{i}"),
                channels,
                EPS,
            )
        };
        let norms = [norm(1, few)?, norm(2, many)?];
        Ok(Self {
            positional_embedding,
            point_embed,
            not_a_point_embed,
            no_mask_embed,
            mask_embed: MaskEmbed { convs, norms },
            grid: config.image_embedding_size,
            image_size: config.image_size() as f32,
        })
    }

    /// Sines and cosines of a place whose coordinates are in 0..1: `C` values.
    fn position(&self, [x, y]: [f32; 2]) -> Vec<f32> {
        let table = self.positional_embedding.tensor();
        let (of_x, of_y) = table.data().split_at(table.dim(1));
        let angles = of_x.iter().zip(of_y);
        let angles: Vec<f32> = angles
            .map(|(a, b)| TAU * ((2.0 * x - 1.0) * a + (2.0 * y - 1.0) * b))
            .collect();
        let sines = angles.iter().map(|angle| angle.sin());
        sines.chain(angles.iter().map(|angle| angle.cos())).collect()
    }

    /// Of each patch: `[1, grid², C]`.
    pub fn grid_positions(&self) -> Tensor {
        let centre = |i: usize| (i as f32 + 0.5) / self.grid as f32;
        let patches = 0..self.grid * self.grid;
        let values: Vec<f32> = patches
            .flat_map(|i| self.position([centre(i % self.grid), centre(i / self.grid)]))
            .collect();
        let width = values.len() / (self.grid * self.grid);
        Tensor::from_vec(values, &[1, self.grid * self.grid, width])
    }

    /// Of points and bounds: `[1, N, C]`; `None` where nothing is pointed at.
    pub fn tokens(&self, prompt: &SamPrompt) -> Option<Tensor> {
        let mut tokens = Vec::new();
        let mut put = |[x, y]: [f32; 2], kind: usize| {
            let place = [(x + 0.5) / self.image_size, (y + 0.5) / self.image_size];
            let own = self.point_embed[kind].tensor();
            tokens.extend(self.position(place).iter().zip(own.data()).map(|(a, b)| a + b));
        };
        for (point, is_inside) in &prompt.points {
            put(*point, if *is_inside { INSIDE } else { OUTSIDE });
        }
        if let Some([left, top, right, bottom]) = prompt.bounds {
            put([left, top], FIRST_CORNER);
            put([right, bottom], LAST_CORNER);
        } else if !prompt.points.is_empty() {
            tokens.extend_from_slice(self.not_a_point_embed.tensor().data());
        }
        let width = self.no_mask_embed.shape()[1];
        (!tokens.is_empty()).then(|| {
            let count = tokens.len() / width;
            Tensor::from_vec(tokens, &[1, count, width])
        })
    }

    /// Of an earlier mask, or what stands for none: `[1, grid², C]`.
    pub fn dense(&self, mask: Option<&Tensor>) -> Tensor {
        let (patches, width) = (self.grid * self.grid, self.no_mask_embed.shape()[1]);
        match mask {
            Some(mask) => self.mask_embed.forward(mask).reshape(&[1, patches, width]),
            None => Tensor::from_vec(self.no_mask_embed.tensor().data().repeat(patches), &[1, patches, width]),
        }
    }
}

impl MaskEmbed {
    fn forward(&self, mask: &Tensor) -> Tensor {
        let [conv1, conv2, conv3] = &self.convs;
        let h = activation(&self.norms[0].forward(&conv1.forward(mask)), Activation::Gelu);
        let h = activation(&self.norms[1].forward(&conv2.forward(&h)), Activation::Gelu);
        conv3.forward(&h)
    }
}
