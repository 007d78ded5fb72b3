//! The networks of a run with their parameters by name: built at random from the configuration's `config.json` sections, or
//! those of a model.

use crate::config::{Origin, TrainConfig};
use crate::error::{Error, Result};
use crate::latent_cache::LatentStatistics;
use crate::params::{Component, NamedParams, prefixed};
use prima_checkpoint::{Init, ModelSource, ParamSource, RandomInit, Reader};
use prima_models::{
    AutoencoderKl, ClipTextConfig, ClipTextModel, EfficientNetLite, Tokenizer, Unet2dCondition, Unet2dConditionConfig,
    UnetBlock, UnetCond, Vae,
};
use prima_pipeline::families::TextComponents;
use prima_pipeline::{Family, TextEncoder, TextEncoders, families};
use prima_tensor::{Param, Tensor};
use std::collections::HashMap;

/// A model's text encoders, and the parameters of each under its component's name.
pub(crate) struct Texts {
    pub(crate) encoders: TextEncoders,
    pub(crate) params: Vec<(&'static str, NamedParams)>,
    /// An empty prompt is zeros, not what the encoders make of it.
    pub(crate) force_zeros: bool,
}

impl Texts {
    /// The parameters of all, `text_encoder.KEY` and `text_encoder_2.KEY`.
    pub(crate) fn named_params(&self) -> NamedParams {
        self.params
            .iter()
            .flat_map(|(name, params)| prefixed(name, params))
            .collect()
    }

    /// Longest caption in tokens.
    pub(crate) fn max_length(&self) -> usize {
        let lengths = self.encoders.encoders().iter().map(|e| e.tokenizer.model_max_length());
        lengths.min().unwrap_or(0)
    }
}

/// A network at random, with the parameters it asked for.
fn at_random<N>(
    seed: u64,
    make: impl FnOnce(&mut RandomInit) -> std::result::Result<N, prima_checkpoint::Error>,
) -> Result<Component<N>> {
    let mut source = RandomInit::new(seed);
    let network = make(&mut source)?;
    let params = source.into_params();
    Ok(Component { network, params })
}

/// A model's component with its weights, each of which has to be read.
fn of_model<N>(
    model: &ModelSource,
    component: &str,
    load: impl FnOnce(&mut Reader) -> std::result::Result<N, prima_pipeline::Error>,
) -> Result<Component<N>> {
    Ok(families::read(model, component, |reader| {
        let network = load(reader)?;
        let params = reader.params().to_vec();
        Ok(Component { network, params })
    })?)
}

/// The autoencoder; `networks` is the configuration's section, `statistics` those of the latents, where training chose them.
pub(crate) fn vae(config: &TrainConfig, statistics: Option<&LatentStatistics>, seed: u64) -> Result<Component<Vae>> {
    let networks = match config.origin()? {
        Origin::Model(model) => return of_model(model, "vae", |params| families::load_vae(model, params)),
        Origin::Networks(networks) => networks,
    };
    let mut json = networks.vae.clone();
    if let Some(LatentStatistics { mean, std }) = statistics {
        json["latents_mean"] = serde_json::json!(mean);
        json["latents_std"] = serde_json::json!(std);
        json["scaling_factor"] = serde_json::json!(1.0);
    }
    at_random(seed, |source| Vae::new(&json.to_string(), "networks.vae", source))
}

/// What the run measures pictures with.
pub(crate) fn feature_network(config: &TrainConfig) -> Result<EfficientNetLite> {
    let Some(weights) = &config.feature_network else {
        let message = "feature_network is not set: the file of an EfficientNet-lite0, as docs/evaluation.md makes it";
        return Err(Error::Config(message.into()));
    };
    Ok(EfficientNetLite::lite0(weights)?)
}

/// The one kind that is trained.
pub(crate) fn kl(vae: Component<Vae>) -> Result<Component<AutoencoderKl>> {
    let Vae::Kl(network) = vae.network else {
        let message = "the model's autoencoder is no AutoencoderKL, and only such are trained";
        return Err(Error::Config(message.into()));
    };
    let params = vae.params;
    Ok(Component { network, params })
}

pub(crate) fn unet(config: &TrainConfig, seed: u64) -> Result<Component<Unet2dCondition>> {
    let unet = match config.origin()? {
        Origin::Model(model) => of_model(model, "unet", |params| families::load_unet(model, params))?,
        Origin::Networks(networks) => {
            let config = Unet2dConditionConfig::from_json(&networks.unet.to_string(), "networks.unet")?;
            at_random(seed, |source| Unet2dCondition::new(config, source))?
        }
    };
    if unet.network.config().time_cond_proj_dim.is_some() {
        let message = "a UNet that takes its guidance as an input (time_cond_proj_dim) is no teacher: take the model that it was distilled from";
        return Err(Error::Config(message.into()));
    }
    Ok(unet)
}

/// Such a UNet at random, where the run starts from a model too.
pub(crate) fn unet_at_random(config: &TrainConfig, seed: u64) -> Result<Component<Unet2dCondition>> {
    let json = match config.origin()? {
        Origin::Model(model) => model.json("unet", "config.json")?,
        Origin::Networks(networks) => networks.unet.clone(),
    };
    let config = Unet2dConditionConfig::from_json(&json.to_string(), "unet")?;
    at_random(seed, |source| Unet2dCondition::new(config, source))
}

/// The same UNet with an input for the guidance scale, `dim` wide, whose weights are zero: it says nothing yet.
pub(crate) fn with_guidance_input(unet: Component<Unet2dCondition>, dim: usize) -> Result<Component<Unet2dCondition>> {
    let config = Unet2dConditionConfig {
        time_cond_proj_dim: Some(dim),
        ..unet.network.config().clone()
    };
    let mut source = Widened {
        known: unet.params.into_iter().collect(),
        fresh: RandomInit::new(0),
        params: Vec::new(),
    };
    let network = Unet2dCondition::new(config, &mut source)?;
    let params = source.params;
    Ok(Component { network, params })
}

/// The parameters of a network, and those that it did not have at their start.
struct Widened {
    known: HashMap<String, Param>,
    fresh: RandomInit,
    params: NamedParams,
}

impl ParamSource for Widened {
    fn param(&mut self, key: &str, shape: &[usize], init: Init) -> std::result::Result<Param, prima_checkpoint::Error> {
        let param = match self.known.get(key) {
            Some(param) => param.clone(),
            None => self.fresh.param(key, shape, init)?,
        };
        self.params.push((key.to_owned(), param.clone()));
        Ok(param)
    }
}

/// The text encoders that there are, one or two.
pub(crate) fn texts(config: &TrainConfig, seed: u64) -> Result<Texts> {
    let mut built: Vec<(&'static str, Component<ClipTextModel>)> = Vec::new();
    match config.origin()? {
        Origin::Model(model) => {
            for TextComponents { text_encoder: name, .. } in Family::of(model)?.text_encoders {
                if model.exists(&format!("{name}/config.json")) {
                    built.push((
                        name,
                        of_model(model, name, |params| families::load_text_encoder(model, name, params))?,
                    ));
                }
            }
        }
        Origin::Networks(networks) => {
            let sections = [
                ("text_encoder", &networks.text_encoder),
                ("text_encoder_2", &networks.text_encoder_2),
            ];
            for ((name, json), seed) in sections.into_iter().zip([seed, seed ^ 1]) {
                let config = ClipTextConfig::from_json(&json.to_string(), &format!("networks.{name}"))?;
                built.push((name, at_random(seed, |source| ClipTextModel::new(config, source))?));
            }
        }
    }
    // All encoders read rows of one length.
    let lengths = built.iter().map(|(_, c)| c.network.config().max_position_embeddings);
    let length = lengths.min().unwrap_or(0);
    let (mut encoders, mut params) = (Vec::new(), Vec::new());
    for (name, component) in built {
        encoders.push(TextEncoder {
            tokenizer: tokenizer(config, name, length)?,
            model: component.network,
        });
        params.push((name, component.params));
    }
    let family = config.family()?;
    Ok(Texts {
        encoders: TextEncoders::new(encoders, family.hidden_state),
        params,
        force_zeros: config.force_zeros_for_empty_prompt()?,
    })
}

/// The tokenizer of a text encoder: the model's, or the data set's own.
fn tokenizer(config: &TrainConfig, text_encoder: &str, length: usize) -> Result<Tokenizer> {
    Ok(match config.origin()? {
        Origin::Model(model) => Tokenizer::load(model, &text_encoder.replace("text_encoder", "tokenizer"), length)?,
        Origin::Networks(_) => Tokenizer::load(&ModelSource::Folder(config.data_dir.clone()), "tokenizer", length)?,
    })
}

/// `unet(sample, timesteps)` without a way to interrupt it.
pub(crate) fn denoise(unet: &Unet2dCondition, sample: &Tensor, timesteps: &[usize], cond: &UnetCond) -> Result<Tensor> {
    let timesteps: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
    Ok(unet.forward(sample, &timesteps, cond, &mut || true)?)
}

/// [`denoise`], and what these blocks made on the way, in the order of the pass.
pub(crate) fn denoise_with_blocks(
    unet: &Unet2dCondition,
    sample: &Tensor,
    timesteps: &[usize],
    cond: &UnetCond,
    blocks: &[UnetBlock],
) -> Result<(Tensor, Vec<Tensor>)> {
    let timesteps: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
    Ok(unet.forward_with_blocks(sample, &timesteps, cond, blocks, &mut || true)?)
}

pub(crate) fn encode(vae: &AutoencoderKl, pictures: &Tensor) -> Result<prima_models::DiagonalGaussian> {
    Ok(vae.encode(pictures, &mut || true)?)
}

pub(crate) fn decode(vae: &AutoencoderKl, latents: &Tensor) -> Result<Tensor> {
    Ok(vae.decode(latents, &mut || true)?)
}
