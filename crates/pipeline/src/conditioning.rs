//! Prompts to what the UNet is conditioned on, remembered by the exact prompt.

use crate::Error;
use prima_models::{ClipTextModel, Tokenizer};
use prima_tensor::{Tensor, concat_channels};
use std::sync::{Arc, Mutex, PoisonError};

/// A prompt as the UNet sees it.
#[derive(Clone, Debug)]
pub struct Conditioning {
    /// Penultimate hidden states of all text encoders side by side, `[1, L, cross_attention_dim]`
    /// (L is 77 in CLIP).
    pub prompt_embeds: Tensor,
    /// The last encoder's projected end token, `[1, projection_dim]`.
    pub pooled_prompt_embeds: Option<Tensor>,
    /// The end of the prompt that did not fit.
    pub dropped: String,
}

impl Conditioning {
    /// Zeros of the same shapes: an absent negative prompt under `force_zeros_for_empty_prompt`.
    pub(crate) fn zeros_like(&self) -> Self {
        let zeros = |t: &Tensor| Tensor::zeros(t.shape());
        Self {
            prompt_embeds: zeros(&self.prompt_embeds),
            pooled_prompt_embeds: self.pooled_prompt_embeds.as_ref().map(zeros),
            dropped: String::new(),
        }
    }
}

/// One tokenizer and its encoder.
pub struct TextEncoder {
    pub tokenizer: Tokenizer,
    pub model: ClipTextModel,
}

/// A model's text encoders, one or two, and the prompts they read last.
pub struct TextEncoders {
    encoders: Vec<TextEncoder>,
    /// Most recent first.
    cache: Mutex<Vec<(Key, Arc<Conditioning>)>>,
}

/// Prompt and `clip_skip`.
type Key = (String, usize);

/// An SDXL prompt takes about 0.6 MB.
const CACHED_PROMPTS: usize = 32;

impl TextEncoders {
    /// In the order of diffusers: `text_encoder`, `text_encoder_2`.
    pub fn new(encoders: Vec<TextEncoder>) -> Self {
        Self {
            encoders,
            cache: Mutex::new(Vec::new()),
        }
    }

    /// Width of `prompt_embeds`.
    pub(crate) fn width(&self) -> usize {
        self.encoders.iter().map(|e| e.model.config().hidden_size).sum()
    }

    /// Longest prompt in tokens, start and end included.
    pub(crate) fn max_length(&self) -> usize {
        self.encoders
            .iter()
            .map(|e| e.tokenizer.model_max_length())
            .min()
            .unwrap_or(0)
    }

    /// Width of `pooled_prompt_embeds`.
    pub(crate) fn pooled_width(&self) -> Option<usize> {
        let config = self.encoders.last()?.model.config();
        config.with_projection().then_some(config.projection_dim)
    }

    /// Encodes `prompt`, or returns what it was encoded to before. Both encoders read the same text
    /// (diffusers' `prompt_2 = None`).
    pub fn encode(&self, prompt: &str, clip_skip: usize) -> Result<Arc<Conditioning>, Error> {
        let most = self
            .encoders
            .iter()
            .map(|e| e.model.config().num_hidden_layers)
            .min()
            .unwrap_or(1)
            - 1;
        if clip_skip > most {
            return Err(Error::request("clip_skip", clip_skip, format!("use 0 to {most}")));
        }
        let key = (prompt.to_owned(), clip_skip);
        if let Some(found) = self.recall(&key) {
            return Ok(found);
        }
        let fresh = Arc::new(self.encode_afresh(prompt, clip_skip)?);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(0, (key, fresh.clone()));
        cache.truncate(CACHED_PROMPTS);
        Ok(fresh)
    }

    fn recall(&self, key: &Key) -> Option<Arc<Conditioning>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let place = cache.iter().position(|(k, _)| k == key)?;
        cache[..=place].rotate_right(1);
        Some(cache[0].1.clone())
    }

    fn encode_afresh(&self, prompt: &str, clip_skip: usize) -> Result<Conditioning, Error> {
        let mut hidden = Vec::new();
        let mut pooled_prompt_embeds = None;
        let mut dropped = String::new();
        for encoder in &self.encoders {
            let encoded = encoder.tokenizer.encode(prompt)?;
            let output = encoder.model.forward_skipping(&encoded.ids, 1, clip_skip);
            hidden.push(output.penultimate);
            pooled_prompt_embeds = output.pooled;
            if encoded.dropped.len() > dropped.len() {
                dropped = encoded.dropped;
            }
        }
        let prompt_embeds = concat_channels(&hidden.iter().collect::<Vec<_>>());
        Ok(Conditioning {
            prompt_embeds,
            pooled_prompt_embeds,
            dropped,
        })
    }
}
