//! The configs that a diffusers folder would hold, from the shapes of a one-file SDXL model.
//! Shapes do not tell the number of attention heads or norm groups: SDXL's values (64 channels a
//! head, 32 groups) are given where they fit, and where they do not the file needs a `config`
//! folder beside it.

use crate::Error;
use crate::single_file::{BIG_G, CLIP_L, FileKind, SingleFile, UNET, UnetLayout, VAE, count};
use serde_json::{Value, json};

/// Channels of one attention head in every network of SDXL.
const HEAD_CHANNELS: usize = 64;
/// Groups of SDXL's group norms.
const NORM_GROUPS: usize = 32;

impl SingleFile {
    /// The JSON that a diffusers folder of this model would have as `component/file`.
    pub fn config(&self, component: &str, file: &str) -> Result<Value, Error> {
        match (component, file) {
            ("", "model_index.json") => Ok(model_index()),
            ("scheduler", "scheduler_config.json") => self.scheduler_config(),
            ("unet", "config.json") => self.unet_config(),
            ("vae", "config.json") => self.vae_config(),
            ("text_encoder", "config.json") => self.clip_l_config(),
            ("text_encoder_2", "config.json") => self.big_g_config(),
            _ => Err(Error::NoFile {
                model: self.file.name().to_owned(),
                path: format!("{component}/{file}"),
                hint: "; put it in a `config` folder beside the file".to_owned(),
            }),
        }
    }

    /// Size `axis` of a tensor that the config cannot do without.
    fn size(&self, key: &str, axis: usize) -> Result<usize, Error> {
        self.shape(key)
            .and_then(|shape| shape.get(axis).copied())
            .ok_or_else(|| Error::Missing {
                file: self.file.name().to_owned(),
                key: key.to_owned(),
                expected: Vec::new(),
            })
    }

    /// `channels / unit`, or the sentence that says why SDXL's convention does not fit.
    fn divide(&self, what: &str, channels: usize, unit: usize) -> Result<usize, Error> {
        if channels >= unit && channels.is_multiple_of(unit) {
            return Ok(channels / unit);
        }
        Err(Error::Unsupported {
            file: self.file.name().to_owned(),
            field: what.to_owned(),
            found: channels.to_string(),
            fix: format!("SDXL has multiples of {unit}; put the model's configs in a `config` folder beside the file"),
        })
    }

    fn scheduler_config(&self) -> Result<Value, Error> {
        let has = |key: &str| self.file.tensors().contains_key(key);
        if has("edm_mean") || has("edm_std") {
            return Err(Error::Unsupported {
                file: self.file.name().to_owned(),
                field: "noise schedule".to_owned(),
                found: "EDM (`edm_mean`, `edm_std`)".to_owned(),
                fix: "models trained with SDXL's own schedule are".to_owned(),
            });
        }
        let lcm = self.kind == FileKind::SdxlLcm;
        Ok(json!({
            "_class_name": if lcm { "LCMScheduler" } else { "EulerDiscreteScheduler" },
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000,
            // The markers that v-prediction models carry (diffusers reads the first one too).
            "prediction_type": if has("v_pred") { "v_prediction" } else { "epsilon" },
            "rescale_betas_zero_snr": has("ztsnr"),
            "steps_offset": 1,
            "timestep_spacing": "leading",
        }))
    }

    fn unet_config(&self) -> Result<Value, Error> {
        let layout = UnetLayout::of(self);
        let blocks = layout.input.iter().map(|(block, _)| block + 1).max().unwrap_or(0);
        let (mut channels, mut layers, mut depths, mut heads) = (vec![], vec![], vec![], vec![]);
        let (mut down_types, mut up_types, mut cross_dim) = (vec![], vec![], None);
        for block in 0..blocks {
            let indices: Vec<usize> = (1..layout.input.len())
                .filter(|&i| layout.input[i].0 == block)
                .collect();
            let is_resnet = |i: &&usize| {
                self.shape(&format!("{UNET}input_blocks.{i}.0.in_layers.2.weight"))
                    .is_some()
            };
            let resnets: Vec<usize> = indices.iter().filter(is_resnet).copied().collect();
            let first = *resnets.first().unwrap_or(&0);
            let width = self.size(&format!("{UNET}input_blocks.{first}.0.in_layers.2.weight"), 0)?;
            let attention = format!("{UNET}input_blocks.{first}.1.transformer_blocks.");
            let depth = count(self.keys(UNET), attention.trim_start_matches(UNET));
            if depth > 0 {
                heads.push(self.divide("channels of the UNet's attention", width, HEAD_CHANNELS)?);
                cross_dim = Some(self.size(&format!("{attention}0.attn2.to_k.weight"), 1)?);
            } else {
                heads.push((width / HEAD_CHANNELS).max(1));
            }
            self.divide("channels of the UNet's group norms", width, NORM_GROUPS)?;
            channels.push(width);
            layers.push(resnets.len());
            depths.push(depth.max(1));
            down_types.push(if depth > 0 {
                "CrossAttnDownBlock2D"
            } else {
                "DownBlock2D"
            });
            up_types.insert(0, if depth > 0 { "CrossAttnUpBlock2D" } else { "UpBlock2D" });
        }
        let addition = self.size(&format!("{UNET}label_emb.0.0.weight"), 1)?;
        let cond_proj = self
            .shape(&format!("{UNET}time_embedding.cond_proj.weight"))
            .map(|shape| shape[1]);
        let mid_attention = self.shape(&format!("{UNET}middle_block.1.proj_in.weight")).is_some();
        let projection = self
            .shape(&format!("{UNET}middle_block.1.proj_in.weight"))
            .is_none_or(|s| s.len() == 2);
        Ok(json!({
            "_class_name": "UNet2DConditionModel",
            "act_fn": "silu",
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "attention_head_dim": heads,
            "block_out_channels": channels,
            "cross_attention_dim": cross_dim,
            "down_block_types": down_types,
            "flip_sin_to_cos": true,
            "freq_shift": 0,
            "in_channels": self.size(&format!("{UNET}input_blocks.0.0.weight"), 1)?,
            "layers_per_block": layers.first().copied().filter(|n| layers.iter().all(|m| m == n))
                .map_or(json!(layers), |n| json!(n)),
            "mid_block_type": if mid_attention { "UNetMidBlock2DCrossAttn" } else { "UNetMidBlock2D" },
            "norm_eps": 1e-5,
            "norm_num_groups": NORM_GROUPS,
            "out_channels": self.size(&format!("{UNET}out.2.weight"), 0)?,
            "projection_class_embeddings_input_dim": addition,
            "sample_size": 128,
            "time_cond_proj_dim": cond_proj,
            "transformer_layers_per_block": depths,
            "up_block_types": up_types,
            "use_linear_projection": projection,
        }))
    }

    fn vae_config(&self) -> Result<Value, Error> {
        let blocks = count(self.keys(VAE), "encoder.down.");
        let width = |i| self.size(&format!("{VAE}encoder.down.{i}.block.0.conv1.weight"), 0);
        let channels = (0..blocks).map(width).collect::<Result<Vec<_>, _>>()?;
        for &width in &channels {
            self.divide("channels of the VAE's group norms", width, NORM_GROUPS)?;
        }
        Ok(json!({
            "_class_name": "AutoencoderKL",
            "act_fn": "silu",
            "block_out_channels": channels,
            "down_block_types": vec!["DownEncoderBlock2D"; blocks],
            "force_upcast": true,
            "in_channels": self.size(&format!("{VAE}encoder.conv_in.weight"), 1)?,
            "latent_channels": self.size(&format!("{VAE}decoder.conv_in.weight"), 1)?,
            "layers_per_block": count(self.keys(VAE), "encoder.down.0.block."),
            "norm_num_groups": NORM_GROUPS,
            "out_channels": self.size(&format!("{VAE}decoder.conv_out.weight"), 0)?,
            "sample_size": 1024,
            "scaling_factor": 0.13025,
            "up_block_types": vec!["UpDecoderBlock2D"; blocks],
        }))
    }

    fn clip_l_config(&self) -> Result<Value, Error> {
        let embeddings = format!("{CLIP_L}text_model.embeddings");
        let token = format!("{embeddings}.token_embedding.weight");
        let hidden = self.size(&token, 1)?;
        let mlp = format!("{CLIP_L}text_model.encoder.layers.0.mlp.fc1.weight");
        self.text_config(&TextShapes {
            class: "CLIPTextModel",
            act: "quick_gelu",
            hidden,
            vocab: self.size(&token, 0)?,
            positions: self.size(&format!("{embeddings}.position_embedding.weight"), 0)?,
            layers: count(self.keys(CLIP_L), "text_model.encoder.layers."),
            intermediate: self.size(&mlp, 0)?,
            projection: hidden,
        })
    }

    fn big_g_config(&self) -> Result<Value, Error> {
        let token = format!("{BIG_G}token_embedding.weight");
        self.text_config(&TextShapes {
            class: "CLIPTextModelWithProjection",
            act: "gelu",
            hidden: self.size(&token, 1)?,
            vocab: self.size(&token, 0)?,
            positions: self.size(&format!("{BIG_G}positional_embedding"), 0)?,
            layers: count(self.keys(BIG_G), "transformer.resblocks."),
            intermediate: self.size(&format!("{BIG_G}transformer.resblocks.0.mlp.c_fc.weight"), 0)?,
            projection: self.size(&format!("{BIG_G}text_projection"), 1)?,
        })
    }

    fn text_config(&self, shapes: &TextShapes) -> Result<Value, Error> {
        let heads = self.divide("width of a text encoder", shapes.hidden, HEAD_CHANNELS)?;
        Ok(json!({
            "architectures": [shapes.class],
            "model_type": "clip_text_model",
            "bos_token_id": 0,
            // The old CLIP convention: 2 means "pool at the largest id", see conventions of CLIPTextModel.
            "eos_token_id": 2,
            "pad_token_id": 1,
            "hidden_act": shapes.act,
            "hidden_size": shapes.hidden,
            "intermediate_size": shapes.intermediate,
            "layer_norm_eps": 1e-5,
            "max_position_embeddings": shapes.positions,
            "num_attention_heads": heads,
            "num_hidden_layers": shapes.layers,
            "projection_dim": shapes.projection,
            "vocab_size": shapes.vocab,
        }))
    }
}

/// What the tensors say about a text encoder.
struct TextShapes {
    class: &'static str,
    act: &'static str,
    hidden: usize,
    vocab: usize,
    positions: usize,
    layers: usize,
    intermediate: usize,
    projection: usize,
}

fn model_index() -> Value {
    json!({
        "_class_name": "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": true,
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })
}
