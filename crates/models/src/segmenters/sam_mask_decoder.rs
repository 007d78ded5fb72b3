//! `SamMaskDecoder`: tokens and the picture look at each other, and each of a few tokens then tells its mask.

use super::sam_config::{SamConfig, SamMasks};
use crate::layers::{LayerNorm, Linear, Start};
use prima_checkpoint::{Error, Init, ParamSource};
use prima_tensor::{Activation, Param, Tensor, activation, add, attention, concat_tokens, linear};

const EPS: f32 = 1e-6;
/// Where transformers gives none.
const DEFAULT_EPS: f32 = 1e-5;
/// Of all published models; no shape tells it.
const HEADS: usize = 8;

/// `SamAttention`
#[expect(clippy::struct_field_names, reason = "the files' names")]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
}

impl Attention {
    fn new(source: &mut dyn ParamSource, name: &str, width: usize, inner: usize) -> Result<Self, Error> {
        let mut linear = |part: &str, inputs, outputs| {
            Linear::new(
                source,
                &format!("{name}.{part}_proj"),
                inputs,
                outputs,
                true,
                Start::Default,
            )
        };
        Ok(Self {
            q_proj: linear("q", width, inner)?,
            k_proj: linear("k", width, inner)?,
            v_proj: linear("v", width, inner)?,
            out_proj: linear("out", inner, width)?,
        })
    }

    /// What comes of it, added to `residual`, if there is one.
    fn forward(&self, [q, k, v]: [&Tensor; 3], residual: Option<&Tensor>) -> Tensor {
        let [q, k, v] = [self.q_proj.forward(q), self.k_proj.forward(k), self.v_proj.forward(v)];
        let out = attention(&q, &k, &v, HEADS, false);
        match residual {
            Some(residual) => self.out_proj.plus(&out, residual),
            None => self.out_proj.forward(&out),
        }
    }
}

/// `SamTwoWayAttentionBlock`
struct TwoWayBlock {
    self_attn: Attention,
    cross_attn_token_to_image: Attention,
    cross_attn_image_to_token: Attention,
    mlp: [Linear; 2],
    norms: Vec<LayerNorm>,
    /// The first block's tokens are their own positions.
    is_first: bool,
}

impl TwoWayBlock {
    fn new(source: &mut dyn ParamSource, i: usize, config: &SamConfig) -> Result<Self, Error> {
        let name = format!("mask_decoder.transformer.layers.{i}");
        let (width, hidden) = (config.output_channels, config.decoder_mlp_dim);
        let inner = width / config.attention_downsample_rate;
        let mut attention = |part: &str, inner| Attention::new(source, &format!("{name}.{part}"), width, inner);
        let (self_attn, cross_attn_token_to_image, cross_attn_image_to_token) = (
            attention("self_attn", width)?,
            attention("cross_attn_token_to_image", inner)?,
            attention("cross_attn_image_to_token", inner)?,
        );
        let mut linear = |part: &str, inputs, outputs| {
            Linear::new(
                source,
                &format!("{name}.mlp.{part}"),
                inputs,
                outputs,
                true,
                Start::Default,
            )
        };
        let mlp = [linear("lin1", width, hidden)?, linear("lin2", hidden, width)?];
        let norms = (1..=4).map(|n| LayerNorm::new(source, &format!("{name}.layer_norm{n}"), width, EPS));
        let norms = norms.collect::<Result<_, _>>()?;
        Ok(Self {
            self_attn,
            cross_attn_token_to_image,
            cross_attn_image_to_token,
            mlp,
            norms,
            is_first: i == 0,
        })
    }

    fn forward(&self, queries: &Tensor, keys: &Tensor, points: &Tensor, positions: &Tensor) -> (Tensor, Tensor) {
        let attended = if self.is_first {
            self.self_attn.forward([queries; 3], None)
        } else {
            let q = add(queries, points);
            self.self_attn.forward([&q, &q, queries], Some(queries))
        };
        let queries = self.norms[0].forward(&attended);
        let (q, k) = (add(&queries, points), add(keys, positions));
        let attended = self.cross_attn_token_to_image.forward([&q, &k, keys], Some(&queries));
        let queries = self.norms[1].forward(&attended);
        let hidden = self.mlp[0].activated(&queries, Activation::Relu);
        let queries = self.norms[2].forward(&self.mlp[1].plus(&hidden, &queries));
        let q = add(&queries, points);
        let keys = self.cross_attn_image_to_token.forward([&k, &q, &queries], Some(keys));
        (queries, self.norms[3].forward(&keys))
    }
}

/// `SamFeedForward`
struct FeedForward {
    hidden: Vec<Linear>,
    proj_out: Linear,
}

impl FeedForward {
    fn new(
        source: &mut dyn ParamSource,
        name: &str,
        [width, hidden, out]: [usize; 3],
        depth: usize,
    ) -> Result<Self, Error> {
        let mut linear = |part: String, inputs, outputs| {
            Linear::new(
                source,
                &format!("mask_decoder.{name}.{part}"),
                inputs,
                outputs,
                true,
                Start::Default,
            )
        };
        let mut layers = vec![linear("proj_in".to_owned(), width, hidden)?];
        for i in 0..depth.saturating_sub(2) {
            layers.push(linear(format!("layers.{i}"), hidden, hidden)?);
        }
        Ok(Self {
            hidden: layers,
            proj_out: linear("proj_out".to_owned(), hidden, out)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let mut h = x.clone();
        for layer in &self.hidden {
            h = layer.activated(&h, Activation::Relu);
        }
        self.proj_out.forward(&h)
    }
}

/// `ConvTranspose2d` with a kernel of 2 and a stride of 2: each pixel becomes four.
struct Doubling {
    weight: Param,
    bias: Param,
}

impl Doubling {
    fn new(source: &mut dyn ParamSource, name: &str, inputs: usize, outputs: usize) -> Result<Self, Error> {
        let weight = source.param(
            &format!("{name}.weight"),
            &[inputs, outputs, 2, 2],
            Init::FanIn(4 * inputs),
        )?;
        let bias = source.param(&format!("{name}.bias"), &[outputs], Init::Zeros)?;
        Ok(Self { weight, bias })
    }

    /// `[1, H, W, in]` to `[1, 2H, 2W, out]`.
    fn forward(&self, x: &Tensor) -> Tensor {
        let (height, width) = (x.dim(1), x.dim(2));
        let (weight, bias) = (self.weight.tensor(), self.bias.tensor());
        let (inputs, outputs) = (weight.dim(0), weight.dim(1));
        // Rows by place and output, as the pixels are laid out below.
        let rows = (0..4 * outputs).flat_map(|row| {
            let (place, output) = (row / outputs, row % outputs);
            let weight = weight.data();
            (0..inputs).map(move |input| weight[(input * outputs + output) * 4 + place])
        });
        let matrix = Param::new(Tensor::from_vec(rows.collect(), &[4 * outputs, inputs]));
        let bias = Param::new(Tensor::from_vec(bias.data().repeat(4), &[4 * outputs]));
        let made = linear(x, &matrix, Some(&bias), Activation::None, None);
        let mut out = vec![0.0; made.numel()];
        for (i, pixel) in made.data().chunks_exact(4 * outputs).enumerate() {
            let (y, x) = (i / width, i % width);
            for (place, values) in pixel.chunks_exact(outputs).enumerate() {
                let at = (2 * y + place / 2) * 2 * width + 2 * x + place % 2;
                out[at * outputs..][..outputs].copy_from_slice(values);
            }
        }
        Tensor::from_vec(out, &[1, 2 * height, 2 * width, outputs])
    }
}

pub(super) struct MaskDecoder {
    iou_token: Param,
    mask_tokens: Param,
    blocks: Vec<TwoWayBlock>,
    final_attn_token_to_image: Attention,
    layer_norm_final_attn: LayerNorm,
    upscale: [Doubling; 2],
    upscale_layer_norm: LayerNorm,
    output_hypernetworks_mlps: Vec<FeedForward>,
    iou_prediction_head: FeedForward,
}

impl MaskDecoder {
    pub fn new(config: &SamConfig, source: &mut dyn ParamSource) -> Result<Self, Error> {
        let (width, masks) = (config.output_channels, config.num_mask_tokens);
        let inner = width / config.attention_downsample_rate;
        let iou_token = source.param("mask_decoder.iou_token.weight", &[1, width], Init::Normal(1.0))?;
        let mask_tokens = source.param("mask_decoder.mask_tokens.weight", &[masks, width], Init::Normal(1.0))?;
        let blocks = (0..config.decoder_layers).map(|i| TwoWayBlock::new(source, i, config));
        let blocks = blocks.collect::<Result<_, _>>()?;
        let name = "mask_decoder.transformer.final_attn_token_to_image";
        let final_attn_token_to_image = Attention::new(source, name, width, inner)?;
        let name = "mask_decoder.transformer.layer_norm_final_attn";
        let layer_norm_final_attn = LayerNorm::new(source, name, width, DEFAULT_EPS)?;
        let mut doubling = |i: usize, inputs, outputs| {
            Doubling::new(source, &format!("mask_decoder.upscale_conv{i}"), inputs, outputs)
        };
        let upscale = [doubling(1, width, width / 4)?, doubling(2, width / 4, width / 8)?];
        let upscale_layer_norm = LayerNorm::new(source, "mask_decoder.upscale_layer_norm", width / 4, EPS)?;
        let mlps = (0..masks).map(|i| {
            let name = format!("output_hypernetworks_mlps.{i}");
            FeedForward::new(source, &name, [width, width, width / 8], 3)
        });
        let output_hypernetworks_mlps = mlps.collect::<Result<_, _>>()?;
        let sizes = [width, config.iou_head_hidden_dim, masks];
        let iou_prediction_head = FeedForward::new(source, "iou_prediction_head", sizes, config.iou_head_depth)?;
        Ok(Self {
            iou_token,
            mask_tokens,
            blocks,
            final_attn_token_to_image,
            layer_norm_final_attn,
            upscale,
            upscale_layer_norm,
            output_hypernetworks_mlps,
            iou_prediction_head,
        })
    }

    /// `embedding` is `[1, grid, grid, C]`, `positions` and `dense` are `[1, grid², C]`, `tokens` `[1, N, C]`.
    pub fn forward(&self, embedding: &Tensor, positions: &Tensor, tokens: Option<&Tensor>, dense: &Tensor) -> SamMasks {
        let (grid, width) = (embedding.dim(1), embedding.dim(3));
        let row = |param: &Param| {
            let tensor = param.tensor();
            tensor.reshape(&[1, tensor.dim(0), width])
        };
        let (iou_token, mask_tokens) = (row(&self.iou_token), row(&self.mask_tokens));
        let mut all = vec![&iou_token, &mask_tokens];
        all.extend(tokens);
        let points = concat_tokens(&all);
        let mut queries = points.clone();
        let mut keys = add(&embedding.reshape(&[1, grid * grid, width]), dense);
        for block in &self.blocks {
            (queries, keys) = block.forward(&queries, &keys, &points, positions);
        }
        let (q, k) = (add(&queries, &points), add(&keys, positions));
        let attended = self.final_attn_token_to_image.forward([&q, &k, &keys], Some(&queries));
        let queries = self.layer_norm_final_attn.forward(&attended);
        let [first, second] = &self.upscale;
        let doubled = self
            .upscale_layer_norm
            .forward(&first.forward(&keys.reshape(&[1, grid, grid, width])));
        let pixels = activation(
            &second.forward(&activation(&doubled, Activation::Gelu)),
            Activation::Gelu,
        );
        let token = |i: usize| Tensor::from_vec(queries.data()[i * width..(i + 1) * width].to_vec(), &[1, 1, width]);
        let masks = self.output_hypernetworks_mlps.iter().enumerate();
        let rows: Vec<f32> = masks
            .flat_map(|(i, mlp)| mlp.forward(&token(1 + i)).into_vec())
            .collect();
        let count = self.output_hypernetworks_mlps.len();
        let matrix = Param::new(Tensor::from_vec(rows, &[count, width / 8]));
        let logits = linear(&pixels, &matrix, None, Activation::None, None);
        let side = 4 * grid;
        let logits = prima_tensor::nhwc_to_nchw(&logits).reshape(&[count, side, side]);
        SamMasks {
            logits,
            iou_scores: self.iou_prediction_head.forward(&token(0)).into_vec(),
        }
    }
}
