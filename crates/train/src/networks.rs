//! The networks of a run, built from the configuration's `config.json` sections, with their
//! parameters by name.

use crate::config::NetworkConfigs;
use crate::error::{Error, Result};
use prima_checkpoint::RandomInit;
use prima_models::{
    AutoencoderKl, AutoencoderKlConfig, ClipTextConfig, ClipTextModel, HiddenState, Unet2dCondition,
    Unet2dConditionConfig, UnetCond,
};
use prima_tensor::{Param, Tensor, combine_per_sample, concat_channels, take_batch};

pub type NamedParams = Vec<(String, Param)>;

/// A network and its parameters under diffusers' keys.
pub struct Component<N> {
    pub network: N,
    pub params: NamedParams,
}

pub fn vae(configs: &NetworkConfigs, seed: u64) -> Result<Component<AutoencoderKl>> {
    let config = AutoencoderKlConfig::from_json(&configs.vae.to_string(), "networks.vae")?;
    let mut source = RandomInit::new(seed);
    let network = AutoencoderKl::new(config, &mut source)?;
    Ok(Component {
        network,
        params: source.into_params(),
    })
}

fn text_encoder(json: &serde_json::Value, name: &str, seed: u64) -> Result<Component<ClipTextModel>> {
    let config = ClipTextConfig::from_json(&json.to_string(), name)?;
    let mut source = RandomInit::new(seed);
    let network = ClipTextModel::new(config, &mut source)?;
    Ok(Component {
        network,
        params: source.into_params(),
    })
}

pub fn unet(configs: &NetworkConfigs, seed: u64) -> Result<Component<Unet2dCondition>> {
    let config = Unet2dConditionConfig::from_json(&configs.unet.to_string(), "networks.unet")?;
    let mut source = RandomInit::new(seed);
    let network = Unet2dCondition::new(config, &mut source)?;
    Ok(Component {
        network,
        params: source.into_params(),
    })
}

/// The two text encoders of SDXL.
pub struct TextEncoders {
    pub first: Component<ClipTextModel>,
    pub second: Component<ClipTextModel>,
}

impl TextEncoders {
    pub fn new(configs: &NetworkConfigs, seed: u64) -> Result<Self> {
        let encoders = Self {
            first: text_encoder(&configs.text_encoder, "networks.text_encoder", seed)?,
            second: text_encoder(&configs.text_encoder_2, "networks.text_encoder_2", seed ^ 1)?,
        };
        if !encoders.second.network.config().with_projection() {
            let message = "networks.text_encoder_2 needs architectures = [\"CLIPTextModelWithProjection\"]";
            return Err(Error::Config(message.into()));
        }
        Ok(encoders)
    }

    /// Longest caption in tokens.
    pub fn max_length(&self) -> usize {
        let limit = |c: &Component<ClipTextModel>| c.network.config().max_position_embeddings;
        limit(&self.first).min(limit(&self.second))
    }

    /// `ids` `[batch, L]` to what the UNet is conditioned on. Rows where `keep` is 0 become
    /// zeros: SDXL's empty prompt.
    pub fn encode(&self, ids: &[u32], keep: &[f32], size_px: [f32; 2]) -> UnetCond {
        let batch = keep.len();
        let first = self.first.network.forward(ids, batch, HiddenState::PENULTIMATE);
        let second = self.second.network.forward(ids, batch, HiddenState::PENULTIMATE);
        let hidden = concat_channels(&[&first.hidden_states, &second.hidden_states]);
        let zero = vec![0.0; batch];
        let masked = |x: &Tensor| {
            if keep.iter().all(|k| *k == 1.0) {
                x.clone()
            } else {
                combine_per_sample(keep, x, &zero, &x.detach())
            }
        };
        let [height, width] = size_px;
        UnetCond {
            encoder_hidden_states: masked(&hidden),
            text_embeds: second.pooled.as_ref().map(masked),
            time_ids: vec![[height, width, 0.0, 0.0, height, width]; batch],
            timestep_cond: None,
        }
    }
}

/// The same conditioning with zeros in place of the text.
pub fn unconditional(cond: &UnetCond) -> UnetCond {
    let zeros = |t: &Tensor| Tensor::zeros(t.shape());
    UnetCond {
        encoder_hidden_states: zeros(&cond.encoder_hidden_states),
        text_embeds: cond.text_embeds.as_ref().map(zeros),
        time_ids: cond.time_ids.clone(),
        timestep_cond: None,
    }
}

/// Samples `start .. start + len`.
pub fn take_cond(cond: &UnetCond, start: usize, len: usize) -> UnetCond {
    UnetCond {
        encoder_hidden_states: take_batch(&cond.encoder_hidden_states, start, len),
        text_embeds: cond.text_embeds.as_ref().map(|t| take_batch(t, start, len)),
        time_ids: cond.time_ids[start..start + len].to_vec(),
        timestep_cond: None,
    }
}

/// `unet(sample, timesteps)` without a way to interrupt it.
pub fn denoise(unet: &Unet2dCondition, sample: &Tensor, timesteps: &[usize], cond: &UnetCond) -> Result<Tensor> {
    let timesteps: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
    unet.forward(sample, &timesteps, cond, &mut || true)
        .map_err(interrupted)
}

pub fn encode(vae: &AutoencoderKl, pictures: &Tensor) -> Result<prima_models::DiagonalGaussian> {
    vae.encode(pictures, &mut || true).map_err(interrupted)
}

pub fn decode(vae: &AutoencoderKl, latents: &Tensor) -> Result<Tensor> {
    vae.decode(latents, &mut || true).map_err(interrupted)
}

/// Cannot happen with a hook that always says yes.
fn interrupted(cancelled: prima_models::Cancelled) -> Error {
    Error::Model(cancelled.to_string())
}

/// `prefix.key` for every key.
pub fn prefixed(prefix: &str, params: &[(String, Param)]) -> NamedParams {
    params
        .iter()
        .map(|(key, param)| (format!("{prefix}.{key}"), param.clone()))
        .collect()
}
