//! What a denoiser knows of its step, as one vector a sample: the timestep, and what the config adds to it (diffusers
//! `models/unets/unet_2d_condition.py`, `get_time_embed` and `get_aug_embed`).

use super::embeddings::{TimestepEmbedding, sinusoids};
use super::unet_2d_condition_config::Unet2dConditionConfig;
use crate::config::invalid;
use prima_checkpoint::{Error, ParamSource};
use prima_tensor::{Tensor, add, concat_channels};

/// What the UNet is conditioned on beside the timestep.
#[derive(Clone, Debug)]
pub struct UnetCond {
    /// `[B, L, cross_attention_dim]`.
    pub encoder_hidden_states: Tensor,
    /// Pooled prompt embedding `[B, P]`; needed by `addition_embed_type = "text_time"`.
    pub text_embeds: Option<Tensor>,
    /// Per sample, in pixels: original height, width, crop top, left, target height, width. SDXL's refiner reads five: the
    /// last is an aesthetic score.
    pub time_ids: Vec<[f32; 6]>,
    /// `[B, time_cond_proj_dim]`, see [`guidance_scale_embedding`](crate::guidance_scale_embedding).
    pub timestep_cond: Option<Tensor>,
}

/// Every number of it a tensor already.
#[derive(Clone)]
pub(super) struct StepInputs {
    /// The timesteps' sinusoids, `[B, block_out_channels[0]]`.
    timesteps: Tensor,
    /// Where the config asks for them: the pooled text and the sinusoids of `time_ids`.
    added: Option<AddedInputs>,
    /// `[B, time_cond_proj_dim]`.
    timestep_cond: Option<Tensor>,
}

#[derive(Clone)]
struct AddedInputs {
    text_embeds: Tensor,
    /// `[B, N addition_time_embed_dim]`, of as many ids as the network reads.
    time_ids: Tensor,
}

impl StepInputs {
    /// Every tensor, in one fixed order.
    pub fn tensors_mut(&mut self) -> Vec<&mut Tensor> {
        let mut all = vec![&mut self.timesteps];
        if let Some(added) = &mut self.added {
            all.extend([&mut added.text_embeds, &mut added.time_ids]);
        }
        all.extend(&mut self.timestep_cond);
        all
    }
}

/// `time_embedding` and `add_embedding`.
pub(super) struct StepEmbedding {
    time_embedding: TimestepEmbedding,
    add_embedding: Option<TimestepEmbedding>,
}

impl StepEmbedding {
    pub fn new(source: &mut dyn ParamSource, config: &Unet2dConditionConfig) -> Result<Self, Error> {
        let (first, temb) = (config.block_out_channels[0], config.time_embed_dim());
        Ok(Self {
            time_embedding: TimestepEmbedding::new(source, "time_embedding", first, temb, config.time_cond_proj_dim)?,
            add_embedding: add_embedding(config, source)?,
        })
    }

    pub fn inputs(&self, config: &Unet2dConditionConfig, timesteps: &[f32], cond: &UnetCond) -> StepInputs {
        let (flip, shift) = (config.flip_sin_to_cos, config.freq_shift as f32);
        let added_dim = self.add_embedding.as_ref().and(config.addition_time_embed_dim);
        StepInputs {
            timesteps: sinusoids(timesteps, config.block_out_channels[0], flip, shift),
            added: added_dim.map(|dim| {
                let Some(text_embeds) = &cond.text_embeds else {
                    panic!("addition_embed_type = text_time needs text_embeds");
                };
                let samples = timesteps.len();
                assert_eq!(cond.time_ids.len(), samples, "time_ids and timesteps are per sample");
                let count = config.time_id_count(text_embeds.dim(-1)).unwrap_or(0).min(6);
                let ids: Vec<f32> = cond.time_ids.iter().flat_map(|ids| &ids[..count]).copied().collect();
                AddedInputs {
                    text_embeds: text_embeds.clone(),
                    time_ids: sinusoids(&ids, dim, flip, shift).reshape(&[samples, count * dim]),
                }
            }),
            timestep_cond: cond.timestep_cond.clone(),
        }
    }

    /// The sum of the timestep's and the added embeddings, `[B, time_embed_dim]`.
    pub fn forward(&self, inputs: &StepInputs) -> Tensor {
        let embedded = self
            .time_embedding
            .forward(&inputs.timesteps, inputs.timestep_cond.as_ref());
        let (Some(add_embedding), Some(added)) = (&self.add_embedding, &inputs.added) else {
            return embedded;
        };
        let joined = concat_channels(&[&added.text_embeds, &added.time_ids]);
        add(&embedded, &add_embedding.forward(&joined, None))
    }
}

fn add_embedding(
    config: &Unet2dConditionConfig,
    source: &mut dyn ParamSource,
) -> Result<Option<TimestepEmbedding>, Error> {
    let Some(kind) = &config.addition_embed_type else {
        return Ok(None);
    };
    if kind != "text_time" {
        return Err(invalid(format!(
            "addition_embed_type = {kind:?} is not supported, only null or \"text_time\""
        )));
    }
    let (Some(inputs), Some(_)) = (
        config.projection_class_embeddings_input_dim,
        config.addition_time_embed_dim,
    ) else {
        let needs = "projection_class_embeddings_input_dim and addition_time_embed_dim";
        return Err(invalid(format!("addition_embed_type = \"text_time\" needs {needs}")));
    };
    TimestepEmbedding::new(source, "add_embedding", inputs, config.time_embed_dim(), None).map(Some)
}
