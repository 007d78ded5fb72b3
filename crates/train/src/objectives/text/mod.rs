//! Text encoders learn words from a sentence encoder (Reimers and Gurevych 2020, "Making Monolingual Sentence Embeddings
//! Multilingual using Knowledge Distillation"), before there is a picture: squared error against its embeddings of captions,
//! words and phrases, which `scripts/words/embed.py` writes.
//!
//! The pooled output learns the embedding of the whole text. The hidden states that the UNet reads learn, through one linear
//! layer that is not shipped, what each word means at its last token, and what the text means at the end token and in the
//! padding: the UNet attends to them one by one.

mod corpus;

use super::StageConfig;
use crate::config::TrainConfig;
use crate::draws::{purpose, uniform};
use crate::error::{Error, Result};
use crate::networks::Texts;
use crate::objective::{Batch, Loss, Objective, Player};
use crate::params::{NamedParams, prefixed};
use crate::trained;
use crate::trainer::LoopConfig;
pub(crate) use corpus::Corpus;
use corpus::Rows;
use prima_checkpoint::{Init, ParamSource, RandomInit};
use prima_picture::Picture;
use prima_tensor::{Activation, Param, Tensor, add, affine, linear, weighted_mse};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TextConfig {
    #[serde(rename = "loop")]
    training: LoopConfig,
    batch_size: usize,
    /// What the hidden states' error counts beside the pooled output's.
    hidden_weight: f32,
    /// Share of the batches with rows as long as the encoders read them. The others end soon after their longest text: nothing
    /// before the padding depends on it.
    full_length_share: f32,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            training: LoopConfig::default(),
            batch_size: 256,
            hidden_weight: 1.0,
            full_length_share: 0.1,
        }
    }
}

impl StageConfig for TextConfig {
    const NAME: &'static str = "text";
    const ABOUT: &'static str = "Train the text encoders towards a sentence encoder's embeddings";

    fn training(&self) -> &LoopConfig {
        &self.training
    }

    fn objective(self, config: &TrainConfig) -> Result<Box<dyn Objective>> {
        let texts = trained::untrained_texts(config)?;
        let corpus = Corpus::open(&config.data_dir, &texts)?;
        Ok(Box::new(Text::new(self, texts, corpus, config.seed + 5)?))
    }
}

pub(crate) struct Text {
    config: TextConfig,
    texts: Texts,
    /// From the hidden states to an embedding.
    head: Head,
    corpus: Corpus,
    seed: u64,
}

struct Head {
    weight: Param,
    bias: Param,
    params: NamedParams,
}

impl Head {
    fn new(width: usize, embedding: usize, seed: u64) -> Result<Self> {
        let mut source = RandomInit::new(seed);
        let weight = source.param("weight", &[embedding, width], Init::Normal((width as f32).powf(-0.5)))?;
        let bias = source.param("bias", &[embedding], Init::Zeros)?;
        let params = prefixed("head", &source.into_params());
        Ok(Self { weight, bias, params })
    }

    fn forward(&self, hidden: &Tensor) -> Tensor {
        linear(hidden, &self.weight, Some(&self.bias), Activation::None, None)
    }
}

impl Text {
    pub(crate) fn new(config: TextConfig, texts: Texts, corpus: Corpus, seed: u64) -> Result<Self> {
        let encoders = texts.encoders.encoders();
        let projection = encoders.last().map(|encoder| encoder.model.config());
        match projection {
            Some(last) if last.with_projection() && last.projection_dim == corpus.width() => {}
            _ => {
                let message = format!(
                    "the last text encoder needs a projection to projection_dim = {}, as wide as the embeddings in the data_dir",
                    corpus.width()
                );
                return Err(Error::Config(message));
            }
        }
        let width = encoders.iter().map(|e| e.model.config().hidden_size).sum();
        Ok(Self {
            head: Head::new(width, corpus.width(), seed)?,
            config,
            texts,
            corpus,
            seed,
        })
    }

    /// Texts of about one length, and as much padding as one of them or all that there is room for.
    fn rows(&self, number: u64) -> Rows {
        let n = self.config.batch_size;
        let draws = uniform(self.seed, purpose::ROW, number, n + 2);
        let is_full = draws[n] < self.config.full_length_share;
        let padding = uniform(self.seed, purpose::PADDING, number, n);
        self.corpus.rows(draws[n + 1], &draws[..n], &padding, is_full)
    }
}

impl Objective for Text {
    fn name(&self) -> &'static str {
        TextConfig::NAME
    }

    fn players(&self) -> Vec<Player> {
        let mut params = self.texts.named_params();
        params.extend(self.head.params.clone());
        vec![Player::main("text", params, &self.config.training)]
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn loss(&self, batch: Batch) -> Result<Loss> {
        let rows = self.rows(batch.number);
        let n = self.config.batch_size;
        let (hidden, pooled) = self.texts.encoders.forward(&rows.ids, n);
        let pooled = pooled.ok_or_else(|| Error::Config("the last text encoder has no projection".into()))?;
        let of_pooled = weighted_mse(&pooled, &rows.target, &vec![1.0; n]);
        let tokens = self.head.forward(&hidden);
        let width = self.corpus.width();
        let tokens = tokens.reshape(&[tokens.numel() / width, width]);
        let of_hidden = weighted_mse(&tokens, &rows.token_targets, &rows.token_weights);
        let metrics = vec![
            ("mse_pooled", of_pooled.item()),
            ("mse_hidden", of_hidden.item()),
            ("retrieved", retrieved(&pooled, &rows.target)),
        ];
        let total = add(&of_pooled, &affine(&of_hidden, self.config.hidden_weight, 0.0));
        Ok(Loss::new(total, metrics))
    }

    fn samples(&self) -> Result<Option<Picture>> {
        Ok(None)
    }
}

/// The share of rows whose own target has the greatest cosine with them, of all targets of the batch.
fn retrieved(pooled: &Tensor, target: &Tensor) -> f32 {
    let width = target.dim(-1);
    let targets: Vec<Vec<f32>> = target.data().chunks(width).map(unit).collect();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let right = pooled.data().chunks(width).enumerate().filter(|(i, row)| {
        let own = dot(row, &targets[*i]);
        targets.iter().all(|other| dot(row, other) <= own)
    });
    right.count() as f32 / targets.len() as f32
}

fn unit(row: &[f32]) -> Vec<f32> {
    let length = row.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-6);
    row.iter().map(|v| v / length).collect()
}
