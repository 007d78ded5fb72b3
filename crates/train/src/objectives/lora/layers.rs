//! Which layers get a LoRA, and what it is made of: beside a frozen weight `W` two trained matrices, `y = W x + alpha / rank · B A x`
//! (Hu et al. 2021). `A` starts at random and `B` at zero, so that the model starts as it is.
//!
//! Parameters are called as peft calls them, `unet.MODULE.lora_A.weight`; the layers add them as they add a LoRA from a file
//! ([`prima_models::Adapters`]).

use crate::error::{Error, Result};
use crate::params::NamedParams;
use prima_checkpoint::{Init, ParamSource, RandomInit};
use prima_models::{Adapters, Term};
use prima_tensor::Param;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Kinds of layers, each with those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LoraLayers {
    /// The products of attention: to_q, to_k, to_v, to_out.
    Attention,
    /// All of the transformer blocks, as kohya's trainer has it.
    #[default]
    Transformer,
    /// The convolutions and the time projections of the residual blocks too (LoCon).
    All,
}

const ATTENTION: [&str; 7] = [".to_q", ".to_k", ".to_v", ".to_out.0", ".q_proj", ".k_proj", ".v_proj"];
const TRANSFORMER: [&str; 7] = [
    ".proj_in",
    ".proj_out",
    ".ff.net.0.proj",
    ".ff.net.2",
    ".fc1",
    ".fc2",
    ".out_proj",
];
const RESIDUAL: [&str; 5] = [".conv1", ".conv2", ".conv_shortcut", ".time_emb_proj", ".conv"];

impl LoraLayers {
    fn have(self, module: &str) -> bool {
        let ends = |endings: &[&str]| endings.iter().any(|ending| module.ends_with(ending));
        // A text encoder's attention is of no use to some readers without its last layer.
        let attention = ends(&ATTENTION) || module.ends_with(".self_attn.out_proj");
        match self {
            Self::Attention => attention,
            Self::Transformer => attention || ends(&TRANSFORMER),
            Self::All => attention || ends(&TRANSFORMER) || ends(&RESIDUAL),
        }
    }
}

/// How large the LoRAs are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LoraSize {
    pub(crate) rank: usize,
    /// The product counts `alpha / rank`; 1 where absent.
    pub(crate) alpha: Option<f32>,
    pub(crate) layers: LoraLayers,
    /// Ranks of layers whose names begin so (`down_blocks.1`, `text_encoder_2`), the longest such name deciding; 0: none.
    pub(crate) block_ranks: BTreeMap<String, usize>,
}

impl Default for LoraSize {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: None,
            layers: LoraLayers::default(),
            block_ranks: BTreeMap::new(),
        }
    }
}

impl LoraSize {
    fn rank_of(&self, module: &str) -> usize {
        let named = self.block_ranks.iter().filter(|(start, _)| begins(module, start));
        let longest = named.max_by_key(|(start, _)| start.len());
        longest.map_or(self.rank, |(_, rank)| *rank)
    }

    /// What a layer's product counts.
    pub(crate) fn scale(&self, rank: usize) -> f32 {
        self.alpha.map_or(1.0, |alpha| alpha / rank as f32)
    }
}

/// Is `module` (`unet.down_blocks.0...`) within the block `start`, whose `unet.` may be left out?
fn begins(module: &str, start: &str) -> bool {
    let is_in = |module: &str| {
        let rest = module.strip_prefix(start);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    is_in(module) || module.strip_prefix("unet.").is_some_and(is_in)
}

/// The LoRAs of a model in training.
pub(crate) struct LoraParams {
    pub(crate) params: NamedParams,
    pub(crate) adapters: Arc<Adapters>,
}

impl LoraParams {
    /// Beside the weights among `frozen`, whose keys begin with their component's name.
    pub(crate) fn new(size: &LoraSize, frozen: &NamedParams, seed: u64) -> Result<Self> {
        let mut source = RandomInit::new(seed);
        let mut adapters = fresh_adapters();
        let modules = || {
            frozen
                .iter()
                .filter_map(|(key, weight)| Some((key.strip_suffix(".weight")?, weight)))
        };
        for (module, weight) in modules().filter(|(module, _)| size.layers.have(module)) {
            let (shape, rank) = (weight.shape(), size.rank_of(module));
            if rank == 0 || shape.len() < 2 {
                continue;
            }
            let factors = factors(&mut source, module, &shape, rank)?;
            adapters.layer(weight).terms.push(Term {
                factors: factors.into(),
                scale: size.scale(rank),
            });
        }
        if let Some(unknown) = size
            .block_ranks
            .keys()
            .find(|start| !modules().any(|(module, _)| begins(module, start)))
        {
            let message = format!(
                "lora.block_ranks names {unknown:?}, and nothing that is trained begins so: use names such as down_blocks.1 or mid_block"
            );
            return Err(Error::Config(message));
        }
        let params = source.into_params();
        if params.is_empty() {
            let message = "lora.rank and lora.block_ranks leave nothing to train: give some layers a rank of 1 or more";
            return Err(Error::Config(message.into()));
        }
        Ok(Self {
            params,
            adapters: Arc::new(adapters),
        })
    }

    /// The same layers with other parameters of the same values.
    pub(crate) fn copy(&self, size: &LoraSize, frozen: &NamedParams) -> Result<Self> {
        let copy = Self::new(size, frozen, 0)?;
        for ((_, to), (_, from)) in copy.params.iter().zip(&self.params) {
            to.set(&from.tensor());
        }
        Ok(copy)
    }
}

/// `A` `[rank, inputs, ...]` and `B` `[outputs, rank, ...]` of a layer; of a convolution `B` is one of 1x1.
fn factors(source: &mut RandomInit, module: &str, shape: &[usize], rank: usize) -> Result<[Param; 2]> {
    let [outputs, inputs, kernel @ ..] = shape else {
        return Err(Error::Config(format!(
            "{module} is no layer that a LoRA can be added to"
        )));
    };
    let fan_in = inputs * kernel.iter().product::<usize>();
    let down = [&[rank, *inputs], kernel].concat();
    let up = [&[*outputs, rank][..], &vec![1; kernel.len()]].concat();
    Ok([
        source.param(&format!("{module}.lora_A.weight"), &down, Init::FanIn(fan_in))?,
        source.param(&format!("{module}.lora_B.weight"), &up, Init::Zeros)?,
    ])
}

fn fresh_adapters() -> Adapters {
    /// Above all that pipelines number their sets with hashes of.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Adapters::new(number, number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prima_tensor::Tensor;

    fn frozen() -> NamedParams {
        [
            ("unet.down_blocks.0.resnets.0.conv1", vec![4, 2, 3, 3]),
            (
                "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
                vec![4, 6],
            ),
            ("unet.down_blocks.10.attentions.0.proj_in", vec![4, 6]),
            ("unet.conv_in", vec![4, 2, 3, 3]),
            (
                "text_encoder.text_model.encoder.layers.0.self_attn.out_proj",
                vec![4, 4],
            ),
        ]
        .map(|(module, shape)| (format!("{module}.weight"), Param::new(Tensor::zeros(&shape))))
        .into()
    }

    fn shapes(size: &LoraSize) -> Vec<(String, Vec<usize>)> {
        let lora = LoraParams::new(size, &frozen(), 1).unwrap();
        lora.params
            .iter()
            .map(|(key, param)| (key.clone(), param.shape()))
            .collect()
    }

    #[test]
    fn layers_are_chosen_by_their_kind_and_ranks_by_their_block() {
        let all = shapes(&LoraSize {
            rank: 3,
            layers: LoraLayers::All,
            ..LoraSize::default()
        });
        let conv = "unet.down_blocks.0.resnets.0.conv1.lora_";
        assert_eq!(all[0], (format!("{conv}A.weight"), vec![3, 2, 3, 3]));
        assert_eq!(all[1], (format!("{conv}B.weight"), vec![4, 3, 1, 1]));
        assert_eq!(all.len(), 8);
        let size = LoraSize {
            rank: 3,
            layers: LoraLayers::Attention,
            ..LoraSize::default()
        };
        assert_eq!(shapes(&size).len(), 4);
        let blocks = |ranks: &[(&str, usize)]| LoraSize {
            block_ranks: ranks.iter().map(|(name, rank)| ((*name).to_owned(), *rank)).collect(),
            ..LoraSize::default()
        };
        let found = shapes(&blocks(
            &[("down_blocks.1", 5), ("down_blocks", 2), ("text_encoder", 0)][1..],
        ));
        assert_eq!(
            found.iter().map(|(_, shape)| shape[0]).collect::<Vec<_>>(),
            [2, 4, 2, 4]
        );
        for (ranks, words) in [
            (vec![("down_blocks.1", 5)], "down_blocks.1"),
            (vec![("unet", 0), ("text_encoder", 0)], "nothing to train"),
        ] {
            let error = LoraParams::new(&blocks(&ranks), &frozen(), 1)
                .err()
                .unwrap()
                .to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
