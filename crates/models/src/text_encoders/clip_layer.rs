//! The layers that CLIP's text and picture encoders are made of (transformers `CLIPEncoderLayer`).

use crate::config::invalid;
use crate::layers::{LayerNorm, Linear, Start};
use prima_checkpoint::{Error, ParamSource};
use prima_tensor::{Activation, Tensor, attention_in};

/// All layers of an encoder.
pub(crate) struct Layers {
    pub(crate) width: usize,
    /// Of the MLPs.
    pub(crate) inner: usize,
    pub(crate) count: usize,
    pub(crate) heads: usize,
    pub(crate) eps: f32,
    pub(crate) activation: Activation,
    /// Does a token see only those before it?
    pub(crate) is_causal: bool,
}

/// What a config calls `hidden_act`.
pub(crate) fn activation(name: &str) -> Result<Activation, Error> {
    match name {
        "quick_gelu" => Ok(Activation::QuickGelu),
        "gelu" => Ok(Activation::Gelu),
        other => Err(invalid(format!(
            "hidden_act = {other:?} is not supported, only quick_gelu or gelu"
        ))),
    }
}

pub(crate) fn check_heads(hidden_size: usize, heads: usize) -> Result<(), Error> {
    if heads == 0 || !hidden_size.is_multiple_of(heads) {
        return Err(invalid(format!(
            "num_attention_heads = {heads} does not divide hidden_size = {hidden_size}"
        )));
    }
    Ok(())
}

impl Layers {
    /// `prefix.0` and those that follow.
    pub(crate) fn read(&self, source: &mut dyn ParamSource, prefix: &str) -> Result<Vec<EncoderLayer>, Error> {
        (0..self.count)
            .map(|i| EncoderLayer::new(source, &format!("{prefix}.{i}"), self))
            .collect()
    }
}

/// One pre-norm layer: self-attention, then an MLP.
pub(crate) struct EncoderLayer {
    layer_norm1: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    activation: Activation,
    is_causal: bool,
}

impl EncoderLayer {
    fn new(source: &mut dyn ParamSource, name: &str, layers: &Layers) -> Result<Self, Error> {
        let (dim, wide) = (layers.width, layers.inner);
        // CLIP's own initialisation: residual branches shrink with depth.
        let out_std = (dim as f32).powf(-0.5);
        let in_std = out_std * (2.0 * layers.count as f32).powf(-0.5);
        let fc_std = (2.0 * dim as f32).powf(-0.5);
        let mut linear = |layer: &str, inputs: usize, outputs: usize, std: f32| {
            Linear::new(
                source,
                &format!("{name}.{layer}"),
                inputs,
                outputs,
                true,
                Start::Normal(std),
            )
        };
        let q = linear("self_attn.q_proj", dim, dim, in_std)?;
        let k = linear("self_attn.k_proj", dim, dim, in_std)?;
        let v = linear("self_attn.v_proj", dim, dim, in_std)?;
        let out = linear("self_attn.out_proj", dim, dim, out_std)?;
        let fc1 = linear("mlp.fc1", dim, wide, fc_std)?;
        let fc2 = linear("mlp.fc2", wide, dim, in_std)?;
        let mut norm = |layer: &str| LayerNorm::new(source, &format!("{name}.{layer}"), dim, layers.eps);
        Ok(Self {
            layer_norm1: norm("layer_norm1")?,
            layer_norm2: norm("layer_norm2")?,
            q,
            k,
            v,
            out,
            fc1,
            fc2,
            heads: layers.heads,
            activation: layers.activation,
            is_causal: layers.is_causal,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let normed = self.layer_norm1.forward(x);
        let (q, k, v) = (
            self.q.forward(&normed),
            self.k.forward(&normed),
            self.v.forward(&normed),
        );
        let mixed = attention_in(self.q.products_dtype(), &q, &k, &v, self.heads, self.is_causal);
        let x = self.out.plus(&mixed, x);
        let hidden = self.fc1.activated(&self.layer_norm2.forward(&x), self.activation);
        self.fc2.plus(&hidden, &x)
    }
}
