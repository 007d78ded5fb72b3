//! CLIP's text encoder (transformers `models/clip/modeling_clip.py`, 5.23.0): the hidden state
//! that the caller names and, of an encoder with projection, the projected EOS token.

use super::clip_layer::{EncoderLayer, Layers, activation, check_heads};
use crate::config::{CONFIG, Check, MAX_CHANNELS, MAX_LAYERS, Neutral, Plain, Ranges};
use crate::layers::{LayerNorm, Linear, Start};
use prima_checkpoint::{Error, Init, ParamSource};
use prima_tensor::{Param, Tensor, add_positions, embedding, gather_rows};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ops::Range;

/// `CLIPTextConfig`, the `config.json` of a text encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    /// `["CLIPTextModel"]` or `["CLIPTextModelWithProjection"]`.
    pub architectures: Option<Vec<String>>,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub projection_dim: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub max_position_embeddings: usize,
    /// `quick_gelu` or `gelu`.
    pub hidden_act: String,
    pub layer_norm_eps: f64,
    pub pad_token_id: Option<u32>,
    pub bos_token_id: Option<u32>,
    pub eos_token_id: u32,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            architectures: None,
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
            pad_token_id: Some(1),
            bos_token_id: Some(49406),
            eos_token_id: 49407,
        }
    }
}

/// Training-time settings and bookkeeping of transformers: none changes the result.
const NEUTRAL: &[Neutral] = &[
    ("model_type", &[Plain::Str("clip_text_model")]),
    ("attention_dropout", &[Plain::Any]),
    ("dropout", &[Plain::Any]),
    ("initializer_factor", &[Plain::Any]),
    ("initializer_range", &[Plain::Any]),
    ("torch_dtype", &[Plain::Any]),
    ("dtype", &[Plain::Any]),
    ("transformers_version", &[Plain::Any]),
    ("output_attentions", &[Plain::Any]),
    ("output_hidden_states", &[Plain::Any]),
    ("return_dict", &[Plain::Any]),
    ("use_cache", &[Plain::Any]),
    ("id2label", &[Plain::Any]),
    ("label2id", &[Plain::Any]),
    ("problem_type", &[Plain::Any]),
    ("chunk_size_feed_forward", &[Plain::Any]),
];

/// Most tokens that an encoder knows.
const MAX_VOCAB: usize = 1 << 22;
/// Longest prompt in tokens.
const MAX_POSITIONS: usize = 1 << 13;

pub(crate) const WITH_PROJECTION: &str = "CLIPTextModelWithProjection";

impl ClipTextConfig {
    /// Reads a `config.json`; `file` names it in errors.
    pub fn from_json(json: &str, file: &str) -> Result<Self, Error> {
        crate::config::read(json, file, &[], NEUTRAL)
    }

    /// The `config.json` that transformers reads back.
    pub fn to_json(&self) -> Value {
        crate::config::write(self, &[("model_type", "clip_text_model")])
    }

    /// Does this encoder end in a text projection (`CLIPTextModelWithProjection`)?
    pub fn with_projection(&self) -> bool {
        self.architectures.iter().flatten().any(|name| name == WITH_PROJECTION)
    }

    fn layers(&self) -> Result<Layers, Error> {
        Ok(Layers {
            width: self.hidden_size,
            inner: self.intermediate_size,
            count: self.num_hidden_layers,
            heads: self.num_attention_heads,
            eps: self.layer_norm_eps as f32,
            activation: activation(&self.hidden_act)?,
            is_causal: true,
        })
    }

    fn check(&self) -> Result<(), Error> {
        self.check_ranges(&Check { file: CONFIG })?;
        check_heads(self.hidden_size, self.num_attention_heads)
    }
}

impl Ranges for ClipTextConfig {
    fn check_ranges(&self, check: &Check) -> Result<(), Error> {
        check.channels(&[
            ("hidden_size", self.hidden_size),
            ("projection_dim", self.projection_dim),
            ("num_attention_heads", self.num_attention_heads),
        ])?;
        check.within("vocab_size", self.vocab_size, 1..=MAX_VOCAB)?;
        check.within("intermediate_size", self.intermediate_size, 1..=4 * MAX_CHANNELS)?;
        check.within("num_hidden_layers", self.num_hidden_layers, 1..=MAX_LAYERS)?;
        check.within(
            "max_position_embeddings",
            self.max_position_embeddings,
            2..=MAX_POSITIONS,
        )?;
        check.epsilon("layer_norm_eps", self.layer_norm_eps)
    }
}

/// Which of an encoder's hidden states a denoiser was trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HiddenState {
    /// Layers left out at the end.
    pub skipped_layers: usize,
    /// Whether the final norm follows.
    pub final_layer_norm: bool,
}

impl HiddenState {
    /// `last_hidden_state` of transformers: Stable Diffusion 1.x and 2.x.
    pub const LAST: Self = Self {
        skipped_layers: 0,
        final_layer_norm: true,
    };
    /// `hidden_states[-2]`: SDXL.
    pub const PENULTIMATE: Self = Self {
        skipped_layers: 1,
        final_layer_norm: false,
    };

    /// The one `clip_skip` layers earlier (diffusers' argument of this name).
    #[must_use]
    pub fn earlier(self, clip_skip: usize) -> Self {
        Self {
            skipped_layers: self.skipped_layers + clip_skip,
            ..self
        }
    }
}

/// What a denoiser is told of a prompt.
#[derive(Clone, Debug)]
pub struct TextOutput {
    /// The hidden state asked for, `[B, L, hidden_size]`.
    pub hidden_states: Tensor,
    /// `text_embeds`, `[B, projection_dim]`, of an encoder with projection.
    pub pooled: Option<Tensor>,
}

/// `CLIPTextModel`, or `CLIPTextModelWithProjection` where the config's `architectures` say so.
pub struct ClipTextModel {
    config: ClipTextConfig,
    token_embedding: Param,
    position_embedding: Param,
    layers: Vec<EncoderLayer>,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
    /// Embeddings of ids beyond the vocabulary, `hidden_size` values each.
    added: Vec<f32>,
}

impl ClipTextModel {
    /// Keys carry the `text_model.` prefix; a file without it is the source's concern.
    pub fn new(config: ClipTextConfig, source: &mut dyn ParamSource) -> Result<Self, Error> {
        config.check()?;
        let dim = config.hidden_size;
        let embeddings = "text_model.embeddings";
        Ok(Self {
            token_embedding: source.param(
                &format!("{embeddings}.token_embedding.weight"),
                &[config.vocab_size, dim],
                Init::Normal(0.02),
            )?,
            position_embedding: source.param(
                &format!("{embeddings}.position_embedding.weight"),
                &[config.max_position_embeddings, dim],
                Init::Normal(0.02),
            )?,
            layers: config.layers()?.read(source, "text_model.encoder.layers")?,
            final_layer_norm: LayerNorm::new(source, "text_model.final_layer_norm", dim, config.layer_norm_eps as f32)?,
            text_projection: config
                .with_projection()
                .then(|| {
                    let start = Start::Normal((dim as f32).powf(-0.5));
                    Linear::new(source, "text_projection", dim, config.projection_dim, false, start)
                })
                .transpose()?,
            added: Vec::new(),
            config,
        })
    }

    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// Gives ids beyond the vocabulary to these embeddings, `[vectors, hidden_size]`.
    ///
    /// # Panics
    /// If they have another width.
    pub fn add_embeddings(&mut self, vectors: &Tensor) -> Range<u32> {
        assert_eq!(vectors.dim(1), self.config.hidden_size, "embeddings of another width");
        let first = self.config.vocab_size + self.added.len() / self.config.hidden_size;
        self.added.extend_from_slice(vectors.data());
        first as u32..(first + vectors.dim(0)) as u32
    }

    /// The embeddings of `ids`, `[batch, L, hidden_size]`.
    fn embedded(&self, ids: &[u32], batch: usize) -> Tensor {
        let (vocabulary, width) = (self.config.vocab_size as u32, self.config.hidden_size);
        if ids.iter().all(|id| *id < vocabulary) {
            return embedding(&self.token_embedding, ids, batch);
        }
        let known: Vec<u32> = ids.iter().map(|id| if *id < vocabulary { *id } else { 0 }).collect();
        let embedded = embedding(&self.token_embedding, &known, batch);
        let shape = embedded.shape().to_vec();
        let mut values = embedded.into_vec();
        for (row, id) in values
            .chunks_exact_mut(width)
            .zip(ids)
            .filter(|(_, id)| **id >= vocabulary)
        {
            row.copy_from_slice(&self.added[(*id - vocabulary) as usize * width..][..width]);
        }
        Tensor::from_vec(values, &shape)
    }

    /// Encodes `batch` rows of token ids (`ids.len() == batch * L`, `L` at most
    /// `max_position_embeddings`). Layers past the hidden state asked for run only where the
    /// pooled token needs them, which does not depend on it.
    ///
    /// # Panics
    /// If `ids` do not fill the rows or a row is too long.
    pub fn forward(&self, ids: &[u32], batch: usize, wanted: HiddenState) -> TextOutput {
        let length = ids.len() / batch.max(1);
        assert_eq!(
            ids.len(),
            batch * length,
            "{} token ids do not fill {batch} rows",
            ids.len()
        );
        assert!(
            length <= self.config.max_position_embeddings,
            "a row of {length} tokens is too long"
        );
        let kept = self.layers.len().saturating_sub(wanted.skipped_layers);
        let mut x = add_positions(&self.embedded(ids, batch), &self.position_embedding);
        for layer in &self.layers[..kept] {
            x = layer.forward(&x);
        }
        let hidden_states = if wanted.final_layer_norm {
            self.final_layer_norm.forward(&x)
        } else {
            x.clone()
        };
        let pooled = self.text_projection.as_ref().map(|projection| {
            for layer in &self.layers[kept..] {
                x = layer.forward(&x);
            }
            let rows: Vec<usize> = ids.chunks(length).map(|row| self.pooled_position(row)).collect();
            projection.forward(&self.final_layer_norm.forward(&gather_rows(&x, &rows)))
        });
        TextOutput { hidden_states, pooled }
    }

    /// Where the pooled token of a row is: the first `eos_token_id`. Configs written before
    /// transformers 4.31 say 2, which no prompt contains; there it is the first of the
    /// highest id, which is `<|endoftext|>` in CLIP's vocabulary, or an added embedding, as in transformers.
    fn pooled_position(&self, row: &[u32]) -> usize {
        let target = match self.config.eos_token_id {
            2 => row.iter().max().copied().unwrap_or(0),
            eos => eos,
        };
        row.iter().position(|&id| id == target).unwrap_or(0)
    }
}
