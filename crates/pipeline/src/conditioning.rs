//! Prompts to what the UNet is conditioned on, remembered by the exact prompt.

use crate::Error;
use crate::known_words::{KnownWords, UnknownWord};
use crate::prompt_weights::WeightedPrompt;
use prima_models::adapters::text_identity;
use prima_models::{ClipTextModel, HiddenState, Tokenizer};
use prima_tensor::{Device, Tensor, concat_channels};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A prompt as the UNet sees it.
#[derive(Clone, Debug)]
pub struct Conditioning {
    /// Hidden states of all text encoders side by side, `[1, L, cross_attention_dim]` (L is 77 in CLIP).
    pub prompt_embeds: Tensor,
    /// The last encoder's projected end token, `[1, projection_dim]`.
    pub pooled_prompt_embeds: Option<Tensor>,
    /// The end of the prompt that did not fit.
    pub dropped: String,
    /// Its words that the model saw no picture of, where the model says which it did.
    pub unknown_words: Vec<UnknownWord>,
}

impl Conditioning {
    /// Zeros of the same shapes: an absent negative prompt under `force_zeros_for_empty_prompt`.
    pub(crate) fn zeros_like(&self) -> Self {
        // Where they are needed in every step.
        let zeros = |t: &Tensor| Device::current().hold(Tensor::zeros(t.shape()));
        Self {
            prompt_embeds: zeros(&self.prompt_embeds),
            pooled_prompt_embeds: self.pooled_prompt_embeds.as_ref().map(zeros),
            dropped: String::new(),
            unknown_words: Vec::new(),
        }
    }
}

/// One tokenizer and its encoder.
pub struct TextEncoder {
    pub tokenizer: Tokenizer,
    pub model: ClipTextModel,
}

impl TextEncoder {
    /// The pooled output for a text by itself, `projection_dim` values of length 1; `None` without a projection.
    fn pooled_direction(&self, text: &str) -> Result<Option<Vec<f32>>, Error> {
        let encoded = self.tokenizer.encode(text)?;
        // What follows the end token does not change it.
        let ids = &encoded.ids[..=encoded.eos_index];
        let pooled = self.model.forward(ids, 1, HiddenState::LAST).pooled;
        Ok(pooled.map(|pooled| {
            let values = pooled.into_vec();
            let length = values.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-9);
            values.into_iter().map(|v| v / length).collect()
        }))
    }
}

/// A model's text encoders, one or two, and the prompts they read last.
pub struct TextEncoders {
    encoders: Vec<TextEncoder>,
    hidden_state: HiddenState,
    known_words: Option<KnownWords>,
    cache: Mutex<Cache>,
}

/// Prompt and `clip_skip`, and what the text encoders' LoRAs are ([`text_identity`]).
type Key = (String, usize, u64);

/// Of the encodings; an SDXL prompt takes about 0.6 MB.
const CACHE_BYTES: usize = 64 << 20;
/// More than a typing session goes back to.
const CACHED_PROMPTS: usize = 512;

/// Bounded in number and in bytes; what was used longest ago leaves first.
#[derive(Default)]
struct Cache {
    /// Most recent first.
    entries: VecDeque<(Key, Arc<Conditioning>)>,
    bytes: usize,
}

impl Cache {
    fn recall(&mut self, key: &Key) -> Option<Arc<Conditioning>> {
        let place = self.entries.iter().position(|(k, _)| k == key)?;
        let entry = self.entries.remove(place)?;
        let found = entry.1.clone();
        self.entries.push_front(entry);
        Some(found)
    }

    fn remember(&mut self, key: Key, value: Arc<Conditioning>) {
        self.bytes += size(&key, &value);
        self.entries.push_front((key, value));
        while self.entries.len() > CACHED_PROMPTS || (self.bytes > CACHE_BYTES && self.entries.len() > 1) {
            if let Some((key, value)) = self.entries.pop_back() {
                self.bytes -= size(&key, &value);
            }
        }
    }
}

fn size(key: &Key, value: &Conditioning) -> usize {
    let pooled = value.pooled_prompt_embeds.as_ref().map_or(0, Tensor::numel);
    4 * (value.prompt_embeds.numel() + pooled) + 2 * key.0.len()
}

impl TextEncoders {
    /// In the order of diffusers: `text_encoder`, `text_encoder_2`.
    /// `hidden_state` is what the UNet reads of each.
    pub fn new(encoders: Vec<TextEncoder>, hidden_state: HiddenState) -> Self {
        Self {
            encoders,
            hidden_state,
            known_words: None,
            cache: Mutex::default(),
        }
    }

    /// The words of `captions`, for a model's folder; `None` without pooled outputs.
    pub fn known_words<'a>(&self, captions: impl Iterator<Item = &'a str>) -> Result<Option<KnownWords>, Error> {
        match self.encoders.last() {
            Some(encoder) => KnownWords::learn(captions, &|word| encoder.pooled_direction(word)),
            None => Ok(None),
        }
    }

    /// The same, and every prompt is asked for words that are none of these.
    pub(crate) fn with_known_words(self, known_words: Option<KnownWords>) -> Self {
        Self { known_words, ..self }
    }

    /// Width of `prompt_embeds`.
    pub(crate) fn width(&self) -> usize {
        self.encoders.iter().map(|e| e.model.config().hidden_size).sum()
    }

    /// Teaches each encoder a word, `[vectors, hidden_size]` for each.
    pub(crate) fn add_word(&mut self, word: &str, vectors: &[Tensor]) {
        for (encoder, vectors) in self.encoders.iter_mut().zip(vectors) {
            let ids = encoder.model.add_embeddings(vectors);
            encoder.tokenizer.add_word(word, ids);
        }
        self.forget_prompts();
    }

    pub fn encoders(&self) -> &[TextEncoder] {
        &self.encoders
    }

    /// Token ids as the UNet sees them, on the tape and not remembered: what training reads. `ids` has `batch` rows of one
    /// length for each encoder; the result is that of [`Conditioning`], `[batch, L, C]` and `[batch, P]`.
    pub fn forward(&self, ids: &[Vec<u32>], batch: usize) -> (Tensor, Option<Tensor>) {
        let encoders = self.encoders.iter().zip(ids);
        let outputs: Vec<_> = encoders
            .map(|(e, ids)| e.model.forward(ids, batch, self.hidden_state))
            .collect();
        let hidden: Vec<&Tensor> = outputs.iter().map(|output| &output.hidden_states).collect();
        let pooled = outputs.last().and_then(|output| output.pooled.clone());
        (concat_channels(&hidden), pooled)
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

    /// Tokens that `prompt` takes, start and end included, before any cutting.
    pub fn count_tokens(&self, prompt: &str) -> usize {
        let text = WeightedPrompt::parse(prompt).text;
        self.encoders
            .iter()
            .map(|e| e.tokenizer.count(&text))
            .max()
            .unwrap_or(0)
    }

    /// Empties the cache: what a speed test wants before each picture.
    pub fn forget_prompts(&self) {
        *self.cache() = Cache::default();
    }

    /// Encodes `prompt`, or returns what it was encoded to before and `true`. Both encoders read the
    /// same text (diffusers' `prompt_2 = None`), weighted as [`WeightedPrompt`] says.
    pub fn encode(&self, prompt: &str, clip_skip: usize) -> Result<(Arc<Conditioning>, bool), Error> {
        let most = self
            .encoders
            .iter()
            .map(|e| e.model.config().num_hidden_layers)
            .min()
            .unwrap_or(0)
            .saturating_sub(self.hidden_state.skipped_layers);
        if clip_skip > most {
            return Err(Error::request("clip_skip", clip_skip, format!("use 0 to {most}")));
        }
        let key = (prompt.to_owned(), clip_skip, text_identity());
        if let Some(found) = self.cache().recall(&key) {
            return Ok((found, true));
        }
        let fresh = Arc::new(self.encode_afresh(prompt, clip_skip)?);
        self.cache().remember(key, fresh.clone());
        Ok((fresh, false))
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn encode_afresh(&self, prompt: &str, clip_skip: usize) -> Result<Conditioning, Error> {
        let mut hidden = Vec::new();
        let mut pooled_prompt_embeds = None;
        let mut dropped = String::new();
        let prompt = WeightedPrompt::parse(prompt);
        for encoder in &self.encoders {
            let encoded = encoder.tokenizer.encode(&prompt.text)?;
            let output = encoder
                .model
                .forward(&encoded.ids, 1, self.hidden_state.earlier(clip_skip));
            hidden.push(emphasized(output.hidden_states, &prompt, &encoded.starts));
            pooled_prompt_embeds = output.pooled;
            if encoded.dropped.len() > dropped.len() {
                dropped = encoded.dropped;
            }
        }
        let prompt_embeds = concat_channels(&hidden.iter().collect::<Vec<_>>());
        let unknown_words = match (&self.known_words, self.encoders.last()) {
            (Some(known), Some(encoder)) => known.unknown(&prompt.text, &|word| encoder.pooled_direction(word))?,
            _ => Vec::new(),
        };
        Ok(Conditioning {
            prompt_embeds,
            pooled_prompt_embeds,
            dropped,
            unknown_words,
        })
    }
}

/// Hidden states `[1, L, C]` times the weights of their tokens, brought back to the mean they had
/// (A1111 `modules/sd_emphasis.py`, `EmphasisOriginal`; the start token comes first). A mean near
/// zero says nothing about scale: where restoring it would change the scale by more than half, it is
/// left alone.
fn emphasized(hidden: Tensor, prompt: &WeightedPrompt, starts: &[usize]) -> Tensor {
    if prompt.weights.is_empty() {
        return hidden;
    }
    let shape = hidden.shape().to_vec();
    let width = hidden.dim(-1);
    let mut values = hidden.into_vec();
    let mean = |values: &[f32]| values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
    let before = mean(&values);
    for (row, &start) in values.chunks_mut(width).skip(1).zip(starts) {
        let weight = prompt.at(start);
        for v in row {
            *v *= weight;
        }
    }
    let ratio = before / mean(&values);
    if (0.5..=2.0).contains(&ratio) {
        for v in &mut values {
            *v *= ratio as f32;
        }
    }
    Tensor::from_vec(values, &shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditioning(values: usize) -> Arc<Conditioning> {
        Arc::new(Conditioning {
            prompt_embeds: Tensor::zeros(&[1, 1, values]),
            pooled_prompt_embeds: None,
            dropped: String::new(),
            unknown_words: Vec::new(),
        })
    }

    #[test]
    fn the_cache_is_bounded_in_number_and_bytes_and_forgets_the_oldest() {
        let mut cache = Cache::default();
        for i in 0..CACHED_PROMPTS + 10 {
            cache.remember((format!("{i}"), 0, 0), conditioning(1));
            assert!(cache.recall(&("0".to_owned(), 0, 0)).is_some(), "what is used stays");
        }
        assert_eq!(cache.entries.len(), CACHED_PROMPTS);
        assert!(cache.recall(&("1".to_owned(), 0, 0)).is_none());
        for i in 0..20 {
            cache.remember((format!("big {i}"), 0, 0), conditioning(CACHE_BYTES / 40));
            assert!(cache.bytes <= CACHE_BYTES, "{} bytes", cache.bytes);
        }
        let counted: usize = cache.entries.iter().map(|(k, v)| size(k, v)).sum();
        assert_eq!(counted, cache.bytes);
    }

    #[test]
    fn weights_scale_their_tokens_and_keep_the_mean() {
        let hidden = Tensor::from_vec(vec![1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0], &[1, 4, 2]);
        let prompt = WeightedPrompt::parse("a (cat:1.5)");
        let out = emphasized(hidden.clone(), &prompt, &[0, 2]).into_vec();
        // Mean 2.5 before, (1 + 2 + 4.5 + 4) / 4 = 2.875 after.
        let scale = 2.5 / 2.875;
        let expected = [1.0, 1.0, 2.0, 2.0, 4.5, 4.5, 4.0, 4.0].map(|v| v * scale);
        for (a, b) in out.iter().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
        let plain = emphasized(hidden.clone(), &WeightedPrompt::parse("a cat"), &[0, 2]);
        assert_eq!(plain.into_vec(), hidden.into_vec());
    }
}
