//! The configs that a diffusers folder would hold, from the shapes of a file. Shapes do not tell the number of attention
//! heads or norm groups: those of the family (64 channels a head, in Stable Diffusion 1.x 8 heads; 32 groups) are given where
//! they fit, and where they do not the file needs a `config` folder beside it.

use super::network::{Network, TextLayout, is_square};
use super::unet_config::{COND_PROJ, unet_config};
use super::{Family, FileKind, HEAD_CHANNELS, NORM_GROUPS, SingleFile, leading_number};
use crate::Error;
use serde_json::{Value, json};
use std::collections::BTreeMap;

impl SingleFile {
    /// The JSON that a diffusers folder of this model would have as `component/file`.
    pub fn config(&self, component: &str, file: &str) -> Result<Value, Error> {
        match (component, file) {
            ("", "model_index.json") => Ok(self.model_index()),
            ("scheduler", "scheduler_config.json") => self.scheduler_config(),
            ("unet", "config.json") => unet_config(self.unet()?, self.family, self.sample_size()),
            ("vae", "config.json") => self.vae_config(),
            ("text_encoder" | "text_encoder_2", "config.json") => {
                let (encoder, layout) = self.text_encoder(component)?;
                text_config(&encoder, layout, component, self.family)
            }
            _ => Err(Error::NoFile {
                model: self.file.name().to_owned(),
                path: format!("{component}/{file}"),
                hint: "; put it in a `config` folder beside the file".to_owned(),
            }),
        }
    }

    fn model_index(&self) -> Value {
        let is_lcm = self.unet().is_ok_and(|unet| unet.has(COND_PROJ));
        let has_taesd = self.vae().is_ok_and(|vae| is_tiny(&vae));
        let mut index = json!({
            "_class_name": match self.family {
                Family::Sdxl => "StableDiffusionXLPipeline",
                _ if is_lcm => "LatentConsistencyModelPipeline",
                _ => "StableDiffusionPipeline",
            },
            "scheduler": ["diffusers", self.scheduler_class()],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", if has_taesd { "AutoencoderTiny" } else { "AutoencoderKL" }],
        });
        if self.kind == FileKind::Refiner {
            index["requires_aesthetics_score"] = json!(true);
            if let Some(index) = index.as_object_mut() {
                index.remove("text_encoder");
                index.remove("tokenizer");
            }
        }
        if self.family == Family::Sdxl {
            index["force_zeros_for_empty_prompt"] = json!(self.kind != FileKind::Refiner);
            index["text_encoder_2"] = json!(["transformers", "CLIPTextModelWithProjection"]);
            index["tokenizer_2"] = json!(["transformers", "CLIPTokenizer"]);
        }
        index
    }

    /// Whether the file says how its noise has to be: what stands in no UNet's shapes.
    pub fn has_noise_markers(&self) -> bool {
        let markers = ["v_pred", "ztsnr", EDM_MEAN, EDM_STD, EDM_V_MAX, EDM_V_MIN];
        markers.into_iter().any(|marker| self.has(marker)) || self.unet().is_ok_and(|unet| unet.has(COND_PROJ))
    }

    fn scheduler_class(&self) -> &'static str {
        if self.has(EDM_V_MAX) || self.has(EDM_V_MIN) {
            "EDMEulerScheduler"
        } else if self.has(EDM_MEAN) || self.has(EDM_STD) {
            "EDMDPMSolverMultistepScheduler"
        } else if self.unet().is_ok_and(|unet| unet.has(COND_PROJ)) {
            "LCMScheduler"
        } else {
            "EulerDiscreteScheduler"
        }
    }

    fn scheduler_config(&self) -> Result<Value, Error> {
        let class = self.scheduler_class();
        Ok(match class {
            // CosXL (its model card's scheduler).
            "EDMEulerScheduler" => json!({
                "_class_name": class,
                "sigma_min": self.number(EDM_V_MIN)?.unwrap_or(0.002),
                "sigma_max": self.number(EDM_V_MAX)?.unwrap_or(120.0),
                "sigma_data": 1.0,
                "sigma_schedule": "exponential",
                "prediction_type": "v_prediction",
                "num_train_timesteps": 1000,
            }),
            // Playground 2.5.
            "EDMDPMSolverMultistepScheduler" => json!({
                "_class_name": class,
                "sigma_min": 0.002,
                "sigma_max": 80.0,
                "sigma_data": 0.5,
                "sigma_schedule": "karras",
                "prediction_type": "epsilon",
                "num_train_timesteps": 1000,
                "rho": 7.0,
                "solver_order": 2,
                "algorithm_type": "dpmsolver++",
                "solver_type": "midpoint",
                "lower_order_final": true,
                "euler_at_final": false,
                "final_sigmas_type": "zero",
            }),
            _ => json!({
                "_class_name": class,
                "beta_start": 0.00085,
                "beta_end": 0.012,
                "beta_schedule": "scaled_linear",
                "num_train_timesteps": 1000,
                "prediction_type": self.prediction_type(),
                "rescale_betas_zero_snr": self.has("ztsnr"),
                "steps_offset": 1,
                // SDXS takes one step, from pure noise.
                "timestep_spacing": if self.is_sdxs() { "trailing" } else { "leading" },
            }),
        })
    }

    /// A stored number, of one element.
    fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        if !self.has(key) {
            return Ok(None);
        }
        Ok(self.file.read(key)?.data().first().map(|&value| f64::from(value)))
    }

    /// By the marker that v-prediction models carry (diffusers reads it too), or what the metadata say (the ModelSpec
    /// standard). Else as diffusers has it: Stable Diffusion 2.x predicts v, everything else epsilon. The 512-pixel
    /// models of Stable Diffusion 2 predict epsilon as well: without metadata they need a `config` folder.
    fn prediction_type(&self) -> &'static str {
        let metadata = |key: &str| self.file.metadata().get(key).map_or("", String::as_str);
        let architecture = metadata("modelspec.architecture");
        let is_v2 = self.family == Family::StableDiffusion2;
        match metadata("modelspec.prediction_type") {
            _ if self.has("v_pred") => "v_prediction",
            "v" | "v_prediction" => "v_prediction",
            "epsilon" => "epsilon",
            _ if architecture.starts_with("stable-diffusion-v2-512") => "epsilon",
            _ if is_v2 && !self.is_sdxs() => "v_prediction",
            _ => "epsilon",
        }
    }

    /// No mid block, and no self-attention at the largest resolution.
    fn is_sdxs(&self) -> bool {
        let Ok(unet) = self.unet() else { return false };
        let has_mid = unet.has_any("mid_block.");
        let attention = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k.weight";
        let self_attention = unet.shape(attention).is_some_and(|shape| is_square(&shape));
        self.family != Family::Sdxl && !has_mid && !self_attention
    }

    fn sample_size(&self) -> usize {
        match self.family {
            Family::Sdxl => 128,
            Family::StableDiffusion2 if self.prediction_type() == "v_prediction" => 96,
            _ => 64,
        }
    }

    fn vae_config(&self) -> Result<Value, Error> {
        let mut config = vae_config(&self.vae()?, self.family, 8 * self.sample_size())?;
        let numbers = |key: &str| -> Result<Vec<f64>, Error> {
            Ok(self
                .file
                .read(key)?
                .data()
                .iter()
                .map(|&value| f64::from(value))
                .collect())
        };
        // Playground 2.5.
        if self.has(EDM_MEAN) && self.has(EDM_STD) {
            config["latents_mean"] = json!(numbers(EDM_MEAN)?);
            config["latents_std"] = json!(numbers(EDM_STD)?);
            config["scaling_factor"] = json!(0.5);
        }
        Ok(config)
    }
}

const EDM_MEAN: &str = "edm_mean";
const EDM_STD: &str = "edm_std";
const EDM_V_MAX: &str = "edm_vpred.sigma_max";
const EDM_V_MIN: &str = "edm_vpred.sigma_min";

/// Whether it is an `AutoencoderTiny`.
fn is_tiny(vae: &Network) -> bool {
    vae.has_any("decoder.layers.")
}

/// The JSON that diffusers would write of an autoencoder, which paints `sample_size` pixels.
pub(super) fn vae_config(vae: &Network, family: Family, sample_size: usize) -> Result<Value, Error> {
    if is_tiny(vae) {
        return tiny_config(vae);
    }
    let blocks = vae.count("encoder.down_blocks.");
    let width = |i| vae.size(&format!("encoder.down_blocks.{i}.resnets.0.conv1.weight"), 0);
    let channels = (0..blocks).map(width).collect::<Result<Vec<_>, _>>()?;
    for &width in &channels {
        vae.divide("channels of the VAE's group norms", width, NORM_GROUPS)?;
    }
    Ok(json!({
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": channels,
        "down_block_types": vec!["DownEncoderBlock2D"; blocks],
        "force_upcast": true,
        "in_channels": vae.size("encoder.conv_in.weight", 1)?,
        "latent_channels": vae.size("decoder.conv_in.weight", 1)?,
        "layers_per_block": vae.count("encoder.down_blocks.0.resnets."),
        "norm_num_groups": NORM_GROUPS,
        "out_channels": vae.size("decoder.conv_out.weight", 0)?,
        "sample_size": sample_size,
        "scaling_factor": if family == Family::Sdxl { 0.13025 } else { 0.18215 },
        "up_block_types": vec!["UpDecoderBlock2D"; blocks],
    }))
}

/// Of an `AutoencoderTiny`: stages are the blocks between two convolutions.
fn tiny_config(vae: &Network) -> Result<Value, Error> {
    let stages = |half: &str| -> Vec<usize> {
        let mut kinds = BTreeMap::new();
        for (layer, leaf) in vae.keys(&format!("{half}.layers.")).filter_map(leading_number) {
            kinds.insert(layer, leaf.starts_with("conv."));
        }
        let mut stages = Vec::new();
        for is_block in kinds.into_values() {
            match (is_block, stages.last_mut()) {
                (true, Some(blocks)) => *blocks += 1,
                _ => stages.push(usize::from(is_block)),
            }
        }
        // The last convolution begins no stage.
        stages.pop();
        stages
    };
    let (encoder, decoder) = (stages("encoder"), stages("decoder"));
    let channels = |blocks: &[usize], half: &str| -> Result<Vec<usize>, Error> {
        Ok(vec![vae.size(&format!("{half}.layers.0.weight"), 0)?; blocks.len()])
    };
    // The decoder ends with a convolution to the picture.
    let layers = vae
        .keys("decoder.layers.")
        .filter_map(|key| Some(leading_number(key)?.0));
    let last = layers.max().unwrap_or(0);
    Ok(json!({
        "_class_name": "AutoencoderTiny",
        "act_fn": "relu",
        "in_channels": vae.size("encoder.layers.0.weight", 1)?,
        "out_channels": vae.size(&format!("decoder.layers.{last}.weight"), 0)?,
        "latent_channels": vae.size("decoder.layers.0.weight", 1)?,
        "encoder_block_out_channels": channels(&encoder, "encoder")?,
        "decoder_block_out_channels": channels(&decoder, "decoder")?,
        "num_encoder_blocks": encoder,
        "num_decoder_blocks": decoder,
        "scaling_factor": 1.0,
    }))
}

/// Layers of a text encoder that its family reads. Stable Diffusion 2 was trained on the penultimate hidden state of OpenCLIP:
/// diffusers' form of it has one layer less than the original, which a file has where it is whole (with its projection), and
/// not where it was converted back.
pub(super) fn text_layers(encoder: &Network, layout: TextLayout, family: Family) -> usize {
    let layers = encoder.count("text_model.encoder.layers.");
    let is_whole = layout == TextLayout::OpenClip && encoder.has(PROJECTION);
    layers.saturating_sub(usize::from(is_whole && family == Family::StableDiffusion2))
}

const PROJECTION: &str = "text_projection.weight";

/// The JSON that transformers would write of a text encoder.
pub(super) fn text_config(
    encoder: &Network,
    layout: TextLayout,
    component: &str,
    family: Family,
) -> Result<Value, Error> {
    let hidden = encoder.size("text_model.embeddings.token_embedding.weight", 1)?;
    let with_projection = component == "text_encoder_2";
    let projection = if with_projection {
        encoder.size(PROJECTION, 0)?
    } else {
        hidden
    };
    // All of OpenCLIP's are of it, whoever's names they have.
    let is_open_clip = layout == TextLayout::OpenClip || with_projection || family == Family::StableDiffusion2;
    Ok(json!({
        "architectures": [if with_projection { "CLIPTextModelWithProjection" } else { "CLIPTextModel" }],
        "model_type": "clip_text_model",
        "bos_token_id": 0,
        // The old CLIP convention: 2 means "pool at the largest id", see conventions of CLIPTextModel.
        "eos_token_id": 2,
        "pad_token_id": 1,
        "hidden_act": if is_open_clip { "gelu" } else { "quick_gelu" },
        "hidden_size": hidden,
        "intermediate_size": encoder.size("text_model.encoder.layers.0.mlp.fc1.weight", 0)?,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": encoder.size("text_model.embeddings.position_embedding.weight", 0)?,
        "num_attention_heads": encoder.divide("width of a text encoder", hidden, HEAD_CHANNELS)?,
        "num_hidden_layers": text_layers(encoder, layout, family),
        "projection_dim": projection,
        "vocab_size": encoder.size("text_model.embeddings.token_embedding.weight", 0)?,
    }))
}
