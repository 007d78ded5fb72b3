//! The configs that a diffusers folder would hold, from the shapes of a one-file model. Shapes do not tell the number
//! of attention heads or norm groups: those of the family (64 channels a head, in Stable Diffusion 1.x 8 heads; 32
//! groups) are given where they fit, and where they do not the file needs a `config` folder beside it.

use super::{
    COND_PROJ, FileKind, HEAD_CHANNELS, NORM_GROUPS, SingleFile, TextEncoderKeys, TextLayout, UNET, VAE, leading_number,
};
use crate::Error;
use serde_json::{Value, json};
use std::collections::BTreeMap;

impl SingleFile {
    /// The JSON that a diffusers folder of this model would have as `component/file`.
    pub fn config(&self, component: &str, file: &str) -> Result<Value, Error> {
        let text_encoder = self.text_encoders().iter().find(|keys| keys.component == component);
        match (component, file, text_encoder) {
            ("", "model_index.json", _) => Ok(self.model_index()),
            ("scheduler", "scheduler_config.json", _) => self.scheduler_config(),
            ("unet", "config.json", _) => self.unet_config(),
            ("vae", "config.json", _) if self.keys(VAE).next().is_none() => Err(self.without("vae", VAE)),
            ("vae", "config.json", _) if self.has_taesd() => self.taesd_config(),
            ("vae", "config.json", _) => self.vae_config(),
            (_, "config.json", Some(keys)) => self.text_config(keys),
            _ => Err(Error::NoFile {
                model: self.file.name().to_owned(),
                path: format!("{component}/{file}"),
                hint: "; put it in a `config` folder beside the file".to_owned(),
            }),
        }
    }

    /// Size `axis` of a tensor that the config cannot do without.
    pub(super) fn size(&self, key: &str, axis: usize) -> Result<usize, Error> {
        let file = || self.file.name().to_owned();
        let shape = self.shape(key).ok_or_else(|| Error::Missing {
            file: file(),
            key: key.to_owned(),
            expected: Vec::new(),
        })?;
        shape.get(axis).copied().ok_or_else(|| Error::Axes {
            file: file(),
            key: key.to_owned(),
            axis,
            found: shape.to_vec(),
        })
    }

    /// `channels / unit`, or the sentence that says why the family's convention does not fit.
    pub(super) fn divide(&self, what: &str, channels: usize, unit: usize) -> Result<usize, Error> {
        if channels >= unit && channels.is_multiple_of(unit) {
            return Ok(channels / unit);
        }
        Err(Error::Unsupported {
            file: self.file.name().to_owned(),
            field: what.to_owned(),
            found: channels.to_string(),
            fix: format!(
                "models of its family have multiples of {unit}; put its configs in a `config` folder beside the file"
            ),
        })
    }

    fn model_index(&self) -> Value {
        let mut index = json!({
            "_class_name": match self.kind {
                FileKind::Sdxl => "StableDiffusionXLPipeline",
                _ if self.has(COND_PROJ) => "LatentConsistencyModelPipeline",
                _ => "StableDiffusionPipeline",
            },
            "scheduler": ["diffusers", self.scheduler_class()],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", if self.has_taesd() { "AutoencoderTiny" } else { "AutoencoderKL" }],
        });
        if self.kind == FileKind::Sdxl {
            index["force_zeros_for_empty_prompt"] = json!(true);
            index["text_encoder_2"] = json!(["transformers", "CLIPTextModelWithProjection"]);
            index["tokenizer_2"] = json!(["transformers", "CLIPTokenizer"]);
        }
        index
    }

    fn scheduler_class(&self) -> &'static str {
        if self.has(COND_PROJ) {
            "LCMScheduler"
        } else {
            "EulerDiscreteScheduler"
        }
    }

    fn scheduler_config(&self) -> Result<Value, Error> {
        // Playground 2.5's, and CosXL's.
        let markers = ["edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min"];
        if let Some(marker) = markers.into_iter().find(|marker| self.has(marker)) {
            return Err(Error::Unsupported {
                file: self.file.name().to_owned(),
                field: "noise schedule".to_owned(),
                found: format!("EDM (`{marker}`)"),
                fix: "models trained with SDXL's own schedule are".to_owned(),
            });
        }
        Ok(json!({
            "_class_name": self.scheduler_class(),
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000,
            "prediction_type": self.prediction_type(),
            "rescale_betas_zero_snr": self.has("ztsnr"),
            "steps_offset": 1,
            // SDXS takes one step, from pure noise.
            "timestep_spacing": if self.is_sdxs() { "trailing" } else { "leading" },
        }))
    }

    /// By the marker that v-prediction models carry (diffusers reads it too), or what the metadata say (the ModelSpec
    /// standard). Else as diffusers has it: Stable Diffusion 2.x predicts v, everything else epsilon. The 512-pixel
    /// models of Stable Diffusion 2 predict epsilon as well: without metadata they need a `config` folder.
    fn prediction_type(&self) -> &'static str {
        let metadata = |key: &str| self.file.metadata().get(key).map_or("", String::as_str);
        let architecture = metadata("modelspec.architecture");
        let is_v2 = self.kind == FileKind::StableDiffusion2;
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
        let has_mid = self.has_any(&format!("{UNET}middle_block."));
        let attention = format!("{UNET}input_blocks.1.1.transformer_blocks.0.attn1.to_k.weight");
        let self_attention = self.shape(&attention).is_some_and(is_square);
        self.kind != FileKind::Sdxl && !has_mid && !self_attention
    }

    pub(super) fn sample_size(&self) -> usize {
        match self.kind {
            FileKind::Sdxl => 128,
            FileKind::StableDiffusion2 if self.prediction_type() == "v_prediction" => 96,
            _ => 64,
        }
    }

    fn vae_config(&self) -> Result<Value, Error> {
        let blocks = self.count(&format!("{VAE}encoder.down."));
        let width = |i| self.size(&format!("{VAE}encoder.down.{i}.block.0.conv1.weight"), 0);
        let channels = (0..blocks).map(width).collect::<Result<Vec<_>, _>>()?;
        for &width in &channels {
            self.divide("channels of the VAE's group norms", width, NORM_GROUPS)?;
        }
        let (sample_size, scaling_factor) = match self.kind {
            FileKind::Sdxl => (1024, 0.13025),
            _ => (8 * self.sample_size(), 0.18215),
        };
        Ok(json!({
            "_class_name": "AutoencoderKL",
            "act_fn": "silu",
            "block_out_channels": channels,
            "down_block_types": vec!["DownEncoderBlock2D"; blocks],
            "force_upcast": true,
            "in_channels": self.size(&format!("{VAE}encoder.conv_in.weight"), 1)?,
            "latent_channels": self.size(&format!("{VAE}decoder.conv_in.weight"), 1)?,
            "layers_per_block": self.count(&format!("{VAE}encoder.down.0.block.")),
            "norm_num_groups": NORM_GROUPS,
            "out_channels": self.size(&format!("{VAE}decoder.conv_out.weight"), 0)?,
            "sample_size": sample_size,
            "scaling_factor": scaling_factor,
            "up_block_types": vec!["UpDecoderBlock2D"; blocks],
        }))
    }

    /// Of an `AutoencoderTiny`: stages are the blocks between two convolutions.
    fn taesd_config(&self) -> Result<Value, Error> {
        let stages = |half: &str| -> Vec<usize> {
            let mut kinds = BTreeMap::new();
            for (layer, leaf) in self.keys(&format!("{VAE}{half}.")).filter_map(leading_number) {
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
        let (encoder, decoder) = (stages("taesd_encoder"), stages("taesd_decoder"));
        let channels = |blocks: &[usize], key: &str| -> Result<Vec<usize>, Error> {
            Ok(vec![self.size(&format!("{VAE}{key}.weight"), 0)?; blocks.len()])
        };
        // The decoder begins with a clamp and ends with a convolution to the picture.
        let decoder_keys = format!("{VAE}taesd_decoder.");
        let layers = self.keys(&decoder_keys).filter_map(|key| Some(leading_number(key)?.0));
        let last = layers.max().unwrap_or(0);
        Ok(json!({
            "_class_name": "AutoencoderTiny",
            "act_fn": "relu",
            "in_channels": self.size(&format!("{VAE}taesd_encoder.0.weight"), 1)?,
            "out_channels": self.size(&format!("{VAE}taesd_decoder.{last}.weight"), 0)?,
            "latent_channels": self.size(&format!("{VAE}taesd_decoder.1.weight"), 1)?,
            "encoder_block_out_channels": channels(&encoder, "taesd_encoder.0")?,
            "decoder_block_out_channels": channels(&decoder, "taesd_decoder.1")?,
            "num_encoder_blocks": encoder,
            "num_decoder_blocks": decoder,
            "scaling_factor": 1.0,
        }))
    }

    fn text_config(&self, encoder: &TextEncoderKeys) -> Result<Value, Error> {
        let (root, names) = match encoder.layout {
            TextLayout::Transformers => (
                self.text_root(encoder),
                [
                    "embeddings.token_embedding.weight",
                    "embeddings.position_embedding.weight",
                    "encoder.layers.0.mlp.fc1.weight",
                ],
            ),
            TextLayout::OpenClip => (
                "",
                [
                    "token_embedding.weight",
                    "positional_embedding",
                    "transformer.resblocks.0.mlp.c_fc.weight",
                ],
            ),
        };
        let key = |rest: &str| format!("{}{root}{rest}", encoder.prefix);
        let [token, position, fc1] = names.map(key);
        let hidden = self.size(&token, 1)?;
        let with_projection = encoder.component == "text_encoder_2";
        let projection = if with_projection {
            self.size(&key("text_projection"), 1)?
        } else {
            hidden
        };
        let is_open_clip = encoder.layout == TextLayout::OpenClip;
        Ok(json!({
            "architectures": [if with_projection { "CLIPTextModelWithProjection" } else { "CLIPTextModel" }],
            "model_type": "clip_text_model",
            "bos_token_id": 0,
            // The old CLIP convention: 2 means "pool at the largest id", see conventions of CLIPTextModel.
            "eos_token_id": 2,
            "pad_token_id": 1,
            "hidden_act": if is_open_clip { "gelu" } else { "quick_gelu" },
            "hidden_size": hidden,
            "intermediate_size": self.size(&fc1, 0)?,
            "layer_norm_eps": 1e-5,
            "max_position_embeddings": self.size(&position, 0)?,
            "num_attention_heads": self.divide("width of a text encoder", hidden, HEAD_CHANNELS)?,
            "num_hidden_layers": self.text_layers(encoder),
            "projection_dim": projection,
            "vocab_size": self.size(&token, 0)?,
        }))
    }
}

/// Whether the first two axes are as long as each other.
pub(super) fn is_square(shape: &[usize]) -> bool {
    matches!(shape, [rows, columns, ..] if rows == columns)
}
