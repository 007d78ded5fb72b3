//! Self-attention over the picture and cross-attention to the text (diffusers
//! `models/transformers/transformer_2d.py`, `attention.py`).

use crate::adapters::kept;
use crate::config::invalid;
use crate::layers::{Conv, GroupNorm, LayerNorm, Linear, Start};
use crate::{Cancelled, check};
use prima_checkpoint::{Error, ParamSource};
use prima_tensor::{Device, Tensor, attention_in, geglu, is_recomputing, is_recording, recompute};
use std::sync::{Arc, Mutex, PoisonError};

const GROUP_NORM_EPS: f32 = 1e-6;
const LAYER_NORM_EPS: f32 = 1e-5;

/// Sizes of one `Transformer2D`.
#[derive(Clone, Copy)]
pub(crate) struct TransformerShape {
    pub channels: usize,
    pub heads: usize,
    pub cross_attention_dim: usize,
    /// The first attention of each block reads the text too, instead of the picture.
    pub only_cross_attention: bool,
    pub layers: usize,
    pub groups: usize,
    pub use_linear_projection: bool,
}

/// Multi-head attention; keys and values come from `context`, which is `x` itself in
/// self-attention.
#[derive(Clone)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}

impl Attention {
    fn new(
        source: &mut dyn ParamSource,
        name: &str,
        channels: usize,
        context_dim: usize,
        heads: usize,
    ) -> Result<Self, Error> {
        let mut projection = |layer: &str, inputs: usize, bias: bool| {
            Linear::new(
                source,
                &format!("{name}.{layer}"),
                inputs,
                channels,
                bias,
                Start::Default,
            )
        };
        Ok(Self {
            to_q: projection("to_q", channels, false)?,
            to_k: projection("to_k", context_dim, false)?,
            to_v: projection("to_v", context_dim, false)?,
            to_out: projection("to_out.0", channels, true)?,
            heads,
        })
    }

    /// `x` and `residual` `[B, L, C]`, `context` `[B, Lc, context_dim]`.
    fn forward(&self, x: &Tensor, context: &Tensor, residual: &Tensor) -> Tensor {
        self.attend(x, self.keys_values(context), residual)
    }

    fn keys_values(&self, context: &Tensor) -> [Tensor; 2] {
        [self.to_k.forward(context), self.to_v.forward(context)]
    }

    fn attend(&self, x: &Tensor, [k, v]: [Tensor; 2], residual: &Tensor) -> Tensor {
        let q = self.to_q.forward(x);
        let mixed = attention_in(self.to_q.products_dtype(), &q, &k, &v, self.heads, false);
        self.to_out.plus(&mixed, residual)
    }
}

/// Attention to the text, whose keys and values are the same in every step of a picture and in every picture of a prompt:
/// those of the last context are kept.
#[derive(Clone)]
struct CrossAttention {
    attention: Attention,
    last: Arc<Mutex<Option<KeysValues>>>,
}

struct KeysValues {
    context: Tensor,
    /// Of the weights that they were made with.
    versions: [u64; 2],
    made: [Tensor; 2],
}

impl CrossAttention {
    fn new(attention: Attention) -> Self {
        Self {
            attention,
            last: Arc::default(),
        }
    }

    fn forward(&self, x: &Tensor, context: &Tensor, residual: &Tensor) -> Tensor {
        self.attention.attend(x, self.keys_values(context), residual)
    }

    fn keys_values(&self, context: &Tensor) -> [Tensor; 2] {
        let attention = &self.attention;
        // On a GPU a step is replayed as it was recorded, and in training the weights change.
        let frozen = [attention.to_k.frozen_version(), attention.to_v.frozen_version()];
        let elsewhere = Device::current().is_gpu() || is_recording(&[context]);
        let ([Some(k), Some(v)], false) = (frozen, elsewhere) else {
            return attention.keys_values(context);
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let found = last
            .as_ref()
            .filter(|last| last.context.shares_values(context) && last.versions == [k, v]);
        if let Some(found) = found {
            return found.made.clone();
        }
        let made = attention.keys_values(context);
        *last = Some(KeysValues {
            context: context.clone(),
            versions: [k, v],
            made: made.clone(),
        });
        made
    }
}

/// Self-attention (or another cross-attention), cross-attention and a GEGLU feed-forward of four times the width, each
/// after a LayerNorm and with a residual.
#[derive(Clone)]
struct BasicTransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    only_cross_attention: bool,
    norm2: LayerNorm,
    attn2: CrossAttention,
    norm3: LayerNorm,
    ff_in: Linear,
    ff_out: Linear,
}

impl BasicTransformerBlock {
    fn new(source: &mut dyn ParamSource, name: &str, shape: TransformerShape) -> Result<Self, Error> {
        let TransformerShape {
            channels,
            heads,
            cross_attention_dim,
            only_cross_attention,
            ..
        } = shape;
        let attn1_dim = if only_cross_attention {
            cross_attention_dim
        } else {
            channels
        };
        Ok(Self {
            norm1: LayerNorm::new(source, &format!("{name}.norm1"), channels, LAYER_NORM_EPS)?,
            attn1: Attention::new(source, &format!("{name}.attn1"), channels, attn1_dim, heads)?,
            only_cross_attention,
            norm2: LayerNorm::new(source, &format!("{name}.norm2"), channels, LAYER_NORM_EPS)?,
            attn2: CrossAttention::new(Attention::new(
                source,
                &format!("{name}.attn2"),
                channels,
                cross_attention_dim,
                heads,
            )?),
            norm3: LayerNorm::new(source, &format!("{name}.norm3"), channels, LAYER_NORM_EPS)?,
            ff_in: Linear::new(
                source,
                &format!("{name}.ff.net.0.proj"),
                channels,
                8 * channels,
                true,
                Start::Default,
            )?,
            ff_out: Linear::new(
                source,
                &format!("{name}.ff.net.2"),
                4 * channels,
                channels,
                true,
                Start::Default,
            )?,
        })
    }

    fn forward(&self, x: &Tensor, context: &Tensor) -> Tensor {
        if !is_recomputing() {
            return self.run(x, context);
        }
        let (block, x, context) = (self.clone(), x.clone(), context.clone());
        recompute(kept(move || block.run(&x, &context)))
    }

    fn run(&self, x: &Tensor, context: &Tensor) -> Tensor {
        let normed = self.norm1.forward(x);
        let attn1_context = if self.only_cross_attention { context } else { &normed };
        let x = self.attn1.forward(&normed, attn1_context, x);
        let x = self.attn2.forward(&self.norm2.forward(&x), context, &x);
        let hidden = geglu(&self.ff_in.forward(&self.norm3.forward(&x)));
        self.ff_out.plus(&hidden, &x)
    }
}

/// The projection into and out of the blocks: `Linear` or a 1x1 convolution, by
/// `use_linear_projection`. The arithmetic is the same, the file's shapes are not.
enum Projection {
    Linear(Linear),
    Conv(Conv),
}

impl Projection {
    fn new(
        source: &mut dyn ParamSource,
        name: &str,
        channels: usize,
        linear: bool,
        start: Start,
    ) -> Result<Self, Error> {
        Ok(if linear {
            Self::Linear(Linear::new(source, name, channels, channels, true, start)?)
        } else {
            Self::Conv(Conv::same(source, name, [channels, channels, 1], start)?)
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Linear(linear) => linear.forward(x),
            Self::Conv(conv) => conv.forward(x),
        }
    }

    fn plus(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        match self {
            Self::Linear(linear) => linear.plus(x, residual),
            Self::Conv(conv) => conv.plus(x, residual),
        }
    }
}

/// Transformer blocks over the pixels of a feature map, with a residual around all of them.
pub(crate) struct Transformer2D {
    norm: GroupNorm,
    proj_in: Projection,
    blocks: Vec<BasicTransformerBlock>,
    proj_out: Projection,
}

impl Transformer2D {
    pub fn new(source: &mut dyn ParamSource, name: &str, shape: TransformerShape) -> Result<Self, Error> {
        let TransformerShape {
            channels,
            heads,
            groups,
            use_linear_projection: linear,
            ..
        } = shape;
        if heads == 0 || !channels.is_multiple_of(heads) {
            let message = format!("attention_head_dim = {heads} heads do not divide the {channels} channels of {name}");
            return Err(invalid(message));
        }
        Ok(Self {
            norm: GroupNorm::new(source, &format!("{name}.norm"), channels, groups, GROUP_NORM_EPS)?,
            proj_in: Projection::new(source, &format!("{name}.proj_in"), channels, linear, Start::Default)?,
            blocks: (0..shape.layers)
                .map(|i| BasicTransformerBlock::new(source, &format!("{name}.transformer_blocks.{i}"), shape))
                .collect::<Result<_, _>>()?,
            proj_out: Projection::new(source, &format!("{name}.proj_out"), channels, linear, Start::Zero)?,
        })
    }

    /// `x` `[B, H, W, C]`, `context` `[B, L, cross_attention_dim]`.
    pub fn forward(
        &self,
        x: &Tensor,
        context: &Tensor,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Tensor, Cancelled> {
        let [b, h, w, c] = [x.dim(0), x.dim(1), x.dim(2), x.dim(3)];
        let mut hidden = self.proj_in.forward(&self.norm.forward(x)).reshape(&[b, h * w, c]);
        for block in &self.blocks {
            check(keep_going)?;
            hidden = block.forward(&hidden, context);
        }
        Ok(self.proj_out.plus(&hidden.reshape(&[b, h, w, c]), x))
    }
}
