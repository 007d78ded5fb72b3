//! Prompts to what the UNet is conditioned on, remembered by the exact prompt.

use crate::Error;
use crate::known_words::{KnownWords, UnknownWord};
use crate::prompts::chunks::{Chunk, chunks};
use crate::prompts::{PromptSyntax, WeightedPrompt};
use prima_models::adapters::text_identity;
use prima_models::{ClipTextModel, HiddenState, Tokenizer};
use prima_tensor::{Device, Tensor, concat_channels, take_batch};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A prompt as the UNet sees it.
#[derive(Clone, Debug)]
pub struct Conditioning {
    /// Hidden states of all text encoders side by side, `[1, L, cross_attention_dim]` (L is 77 in CLIP for each chunk of 75
    /// tokens).
    pub prompt_embeds: Tensor,
    /// The last encoder's projected end token, `[1, projection_dim]`.
    pub pooled_prompt_embeds: Option<Tensor>,
    /// The end of the prompt that did not fit.
    pub dropped: String,
    /// Its words that the model saw no picture of, where the model says which it did.
    pub unknown_words: Vec<UnknownWord>,
}

impl Conditioning {
    /// Tokens that the UNet reads.
    pub(crate) fn length(&self) -> usize {
        self.prompt_embeds.dim(1)
    }

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

/// A prompt and how it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reading {
    pub prompt: String,
    /// What the second text encoder reads instead.
    pub prompt_2: Option<String>,
    pub syntax: PromptSyntax,
    /// Layers that are left out before the family's own hidden state.
    pub clip_skip: usize,
}

impl Reading {
    fn text(&self, encoder: usize) -> &str {
        match &self.prompt_2 {
            Some(second) if encoder > 0 => second,
            _ => &self.prompt,
        }
    }
}

/// And what the text encoders' LoRAs are ([`text_identity`]).
type Key = (Reading, u64);

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

fn size((key, _): &Key, value: &Conditioning) -> usize {
    let pooled = value.pooled_prompt_embeds.as_ref().map_or(0, Tensor::numel);
    4 * (value.prompt_embeds.numel() + pooled) + 2 * (key.prompt.len() + key.text(1).len())
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

    /// Layers that are not run where `clip_skip` is 0: one in SDXL.
    pub fn skipped_layers(&self) -> usize {
        self.hidden_state.skipped_layers
    }

    /// Width of `pooled_prompt_embeds`.
    pub(crate) fn pooled_width(&self) -> Option<usize> {
        let config = self.encoders.last()?.model.config();
        config.with_projection().then_some(config.projection_dim)
    }

    /// Tokens that `prompt` takes, start and end included, before any cutting.
    pub fn count_tokens(&self, prompt: &str, syntax: PromptSyntax) -> usize {
        let text = WeightedPrompt::parse(prompt, syntax).text();
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

    /// Encodes a prompt, or returns what it was encoded to before and `true`.
    pub fn encode(&self, reading: &Reading) -> Result<(Arc<Conditioning>, bool), Error> {
        let most = self
            .encoders
            .iter()
            .map(|e| e.model.config().num_hidden_layers)
            .min()
            .unwrap_or(0)
            .saturating_sub(self.hidden_state.skipped_layers);
        if reading.clip_skip > most {
            return Err(Error::request(
                "clip_skip",
                reading.clip_skip,
                format!("use 0 to {most}"),
            ));
        }
        let key = (reading.clone(), text_identity());
        if let Some(found) = self.cache().recall(&key) {
            return Ok((found, true));
        }
        let fresh = Arc::new(self.encode_afresh(reading)?);
        self.cache().remember(key, fresh.clone());
        Ok((fresh, false))
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn encode_afresh(&self, reading: &Reading) -> Result<Conditioning, Error> {
        let mut dropped = String::new();
        let mut read = Vec::new();
        for (i, encoder) in self.encoders.iter().enumerate() {
            let (chunks, rest) = read_chunks(reading.text(i), reading.syntax, &encoder.tokenizer)?;
            read.push(chunks);
            if rest.len() > dropped.len() {
                dropped = rest;
            }
        }
        // Hidden states stand side by side: the shorter of two prompts is filled up.
        let count = read.iter().map(Vec::len).max().unwrap_or(1);
        let mut hidden = Vec::new();
        let mut pooled_prompt_embeds = None;
        for (encoder, mut chunks) in self.encoders.iter().zip(read) {
            chunks.resize_with(count, Chunk::default);
            let ids: Vec<u32> = chunks.iter().flat_map(|c| encoder.tokenizer.framed(&c.ids)).collect();
            let state = self.hidden_state.earlier(reading.clip_skip);
            let output = encoder.model.forward(&ids, count, state);
            let states = emphasized(output.hidden_states, &chunks);
            let (length, width) = (states.dim(1), states.dim(2));
            hidden.push(states.reshape(&[1, count * length, width]));
            // The first chunk's, as in the web UI.
            pooled_prompt_embeds = output.pooled.map(|pooled| take_batch(&pooled, 0, 1));
        }
        let prompt_embeds = concat_channels(&hidden.iter().collect::<Vec<_>>());
        let unknown_words = match (&self.known_words, self.encoders.last()) {
            (Some(known), Some(encoder)) => {
                let text = WeightedPrompt::parse(reading.text(self.encoders.len() - 1), reading.syntax).text();
                known.unknown(&text, &|word| encoder.pooled_direction(word))?
            }
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

/// What a text encoder reads, and the end of the prompt that it does not.
fn read_chunks(text: &str, syntax: PromptSyntax, tokenizer: &Tokenizer) -> Result<(Vec<Chunk>, String), Error> {
    if syntax != PromptSyntax::Plain {
        return Ok(chunks(&WeightedPrompt::parse(text, syntax), tokenizer)?);
    }
    let ids: Vec<u32> = tokenizer.tokens(text)?.iter().map(|token| token.id).collect();
    let fitting = ids.len().min(tokenizer.room());
    let chunk = Chunk {
        weights: vec![1.0; fitting],
        ids: ids[..fitting].to_vec(),
    };
    Ok((vec![chunk], tokenizer.encode(text)?.dropped))
}

/// Hidden states `[N, L, C]` of chunks times the weights of their tokens, each chunk brought back to the mean it had
/// (A1111 `modules/sd_emphasis.py`, `EmphasisOriginal`; the start token comes first). A mean near
/// zero says nothing about scale: where restoring it would change the scale by more than half, it is
/// left alone.
fn emphasized(hidden: Tensor, chunks: &[Chunk]) -> Tensor {
    if !chunks.iter().any(Chunk::is_weighted) {
        return hidden;
    }
    let shape = hidden.shape().to_vec();
    let width = hidden.dim(-1);
    let mut values = hidden.into_vec();
    let mean = |values: &[f32]| values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
    let length = values.len() / chunks.len();
    for (values, chunk) in values.chunks_mut(length).zip(chunks).filter(|(_, c)| c.is_weighted()) {
        let before = mean(values);
        for (row, &weight) in values.chunks_mut(width).skip(1).zip(&chunk.weights) {
            for v in row {
                *v *= weight;
            }
        }
        let ratio = before / mean(values);
        if (0.5..=2.0).contains(&ratio) {
            for v in values {
                *v *= ratio as f32;
            }
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
        let key = |prompt: String| {
            let reading = Reading {
                prompt,
                ..Reading::default()
            };
            (reading, 0)
        };
        for i in 0..CACHED_PROMPTS + 10 {
            cache.remember(key(format!("{i}")), conditioning(1));
            assert!(cache.recall(&key("0".to_owned())).is_some(), "what is used stays");
        }
        assert_eq!(cache.entries.len(), CACHED_PROMPTS);
        assert!(cache.recall(&key("1".to_owned())).is_none());
        for i in 0..20 {
            cache.remember(key(format!("big {i}")), conditioning(CACHE_BYTES / 40));
            assert!(cache.bytes <= CACHE_BYTES, "{} bytes", cache.bytes);
        }
        let counted: usize = cache.entries.iter().map(|(k, v)| size(k, v)).sum();
        assert_eq!(counted, cache.bytes);
    }

    #[test]
    fn weights_scale_their_tokens_and_keep_the_mean() {
        let hidden = Tensor::from_vec(vec![1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0], &[1, 4, 2]);
        let chunk = |weights: &[f32]| Chunk {
            ids: vec![0; weights.len()],
            weights: weights.to_vec(),
        };
        let out = emphasized(hidden.clone(), &[chunk(&[1.0, 1.5])]).into_vec();
        // Mean 2.5 before, (1 + 2 + 4.5 + 4) / 4 = 2.875 after.
        let scale = 2.5 / 2.875;
        let expected = [1.0, 1.0, 2.0, 2.0, 4.5, 4.5, 4.0, 4.0].map(|v| v * scale);
        for (a, b) in out.iter().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
        let plain = emphasized(hidden.clone(), &[chunk(&[1.0, 1.0])]);
        assert_eq!(plain.into_vec(), hidden.into_vec());
    }
}
