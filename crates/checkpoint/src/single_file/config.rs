//! The configs that a diffusers folder would hold, from the shapes of a one-file model. Shapes do not tell the number
//! of attention heads or norm groups: those of the family (64 channels a head, in Stable Diffusion 1.x 8 heads; 32
//! groups) are given where they fit, and where they do not the file needs a `config` folder beside it.

use super::unet_layout::{Slot, UnetLayout};
use super::{COND_PROJ, FileKind, SingleFile, TextEncoderKeys, TextLayout, UNET, VAE, count};
use crate::Error;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Channels of one attention head in every network but the UNets of Stable Diffusion 1.x.
const HEAD_CHANNELS: usize = 64;
/// Heads in those.
const HEADS_1: usize = 8;
/// Groups of all group norms.
const NORM_GROUPS: usize = 32;

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
    fn size(&self, key: &str, axis: usize) -> Result<usize, Error> {
        self.shape(key)
            .and_then(|shape| shape.get(axis).copied())
            .ok_or_else(|| Error::Missing {
                file: self.file.name().to_owned(),
                key: key.to_owned(),
                expected: Vec::new(),
            })
    }

    /// `channels / unit`, or the sentence that says why the family's convention does not fit.
    fn divide(&self, what: &str, channels: usize, unit: usize) -> Result<usize, Error> {
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
        if self.has("edm_mean") || self.has("edm_std") {
            return Err(Error::Unsupported {
                file: self.file.name().to_owned(),
                field: "noise schedule".to_owned(),
                found: "EDM (`edm_mean`, `edm_std`)".to_owned(),
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
        let has_mid = self.keys(UNET).any(|key| key.starts_with("middle_block."));
        let attention = format!("{UNET}input_blocks.1.1.transformer_blocks.0.attn1.to_k.weight");
        let self_attention = self.shape(&attention).is_some_and(|shape| shape[0] == shape[1]);
        self.kind != FileKind::Sdxl && !has_mid && !self_attention
    }

    fn unet_config(&self) -> Result<Value, Error> {
        let layout = UnetLayout::of(self);
        let down = self.blocks("input_blocks", &layout.input);
        let up = self.blocks("output_blocks", &layout.output);
        let widths = down
            .iter()
            .map(|block| self.width(block))
            .collect::<Result<Vec<_>, _>>()?;
        let layers: Vec<usize> = down.iter().map(|block| block.depths.len()).collect();
        let first_attention = down.iter().chain(&up).find_map(|block| block.cross_attention_dim);
        let mut config = json!({
            "_class_name": "UNet2DConditionModel",
            "act_fn": "silu",
            "attention_head_dim": self.heads(&down, &widths)?,
            "block_out_channels": widths,
            "cross_attention_dim": first_attention,
            "down_block_types": down.iter().map(|block| block.kind(["DownBlock2D", "CrossAttnDownBlock2D"])).collect::<Vec<_>>(),
            "flip_sin_to_cos": true,
            "freq_shift": 0,
            "in_channels": self.size(&format!("{UNET}input_blocks.0.0.weight"), 1)?,
            "layers_per_block": one_or_many(&layers),
            "mid_block_type": self.mid_block_type(),
            "norm_eps": 1e-5,
            "norm_num_groups": NORM_GROUPS,
            "out_channels": self.size(&format!("{UNET}out.2.weight"), 0)?,
            "sample_size": self.sample_size(),
            "time_cond_proj_dim": self.shape(COND_PROJ).map(|shape| shape[1]),
            "up_block_types": up.iter().map(|block| block.kind(["UpBlock2D", "CrossAttnUpBlock2D"])).collect::<Vec<_>>(),
            "use_linear_projection": self.has_linear_projections(),
        });
        if let Some(object) = config.as_object_mut() {
            object.extend(depths(&down, &up));
            object.extend(self.added_conditioning()?);
            if down.iter().any(|block| block.only_cross_attention) {
                let only: Vec<bool> = down.iter().map(|block| block.only_cross_attention).collect();
                object.insert("only_cross_attention".to_owned(), json!(only));
            }
        }
        Ok(config)
    }

    /// The blocks of one side of the UNet, in the file's order.
    fn blocks(&self, side: &str, slots: &BTreeMap<usize, Slot>) -> Vec<BlockShapes> {
        let mut blocks: Vec<BlockShapes> = Vec::new();
        for (&i, slot) in slots.iter().filter(|(_, slot)| slot.has_resnet) {
            let first = format!("{side}.{i}");
            let depth = count(self.keys(UNET), &format!("{first}.1.transformer_blocks."));
            if let Some(block) = blocks.get_mut(slot.block) {
                block.depths.push(depth);
                continue;
            }
            let transformer = format!("{UNET}{first}.1.transformer_blocks.0");
            let read_by = |attention: &str| self.shape(&format!("{transformer}.{attention}.to_k.weight"));
            blocks.push(BlockShapes {
                depths: vec![depth],
                cross_attention_dim: read_by("attn2").map(|shape| shape[1]),
                only_cross_attention: read_by("attn1").is_some_and(|shape| shape[1] != shape[0]),
                first,
            });
        }
        blocks
    }

    fn width(&self, block: &BlockShapes) -> Result<usize, Error> {
        let width = self.size(&format!("{UNET}{}.0.in_layers.2.weight", block.first), 0)?;
        self.divide("channels of the UNet's group norms", width, NORM_GROUPS)?;
        Ok(width)
    }

    /// `attention_head_dim`, which diffusers named so and which is the number of heads.
    fn heads(&self, down: &[BlockShapes], widths: &[usize]) -> Result<Value, Error> {
        let is_1 = self.kind == FileKind::StableDiffusion1;
        let unit = if is_1 { HEADS_1 } else { HEAD_CHANNELS };
        let heads = down.iter().zip(widths).map(|(block, &width)| {
            if block.has_attention() {
                self.divide("channels of the UNet's attention", width, unit)
            } else {
                Ok((width / unit).max(1))
            }
        });
        let heads = heads.collect::<Result<Vec<_>, _>>()?;
        Ok(if is_1 { json!(HEADS_1) } else { json!(heads) })
    }

    fn mid_block_type(&self) -> Option<&'static str> {
        let has = |start: &str| self.keys(UNET).any(|key| key.starts_with(start));
        if has("middle_block.1.transformer_blocks.") || has("middle_block.1.proj_in.") {
            Some("UNetMidBlock2DCrossAttn")
        } else {
            has("middle_block.0.").then_some("UNetMidBlock2D")
        }
    }

    /// Whether the layers around the transformers are matrices, not 1x1 convolutions.
    fn has_linear_projections(&self) -> bool {
        let mut projections = self.keys(UNET).filter(|key| key.ends_with(".1.proj_in.weight"));
        let first = projections.next().and_then(|key| self.shape(&format!("{UNET}{key}")));
        first.is_none_or(|shape| shape.len() == 2)
    }

    fn sample_size(&self) -> usize {
        match self.kind {
            FileKind::Sdxl => 128,
            FileKind::StableDiffusion2 if self.prediction_type() == "v_prediction" => 96,
            _ => 64,
        }
    }

    /// The fields of SDXL's pooled prompt and sizes.
    fn added_conditioning(&self) -> Result<Map<String, Value>, Error> {
        if self.kind != FileKind::Sdxl {
            return Ok(Map::new());
        }
        let addition = self.size(&format!("{UNET}label_emb.0.0.weight"), 1)?;
        Ok(fields([
            ("addition_embed_type", json!("text_time")),
            ("addition_time_embed_dim", json!(256)),
            ("projection_class_embeddings_input_dim", json!(addition)),
        ]))
    }

    fn vae_config(&self) -> Result<Value, Error> {
        let blocks = count(self.keys(VAE), "encoder.down.");
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
            "layers_per_block": count(self.keys(VAE), "encoder.down.0.block."),
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
            let prefix = format!("{half}.");
            let mut kinds = BTreeMap::new();
            for (layer, leaf) in self
                .keys(VAE)
                .filter_map(|key| super::leading_number(key.strip_prefix(&prefix)?))
            {
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
        let last = count(self.keys(VAE), "taesd_decoder.").saturating_sub(1);
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
        let key = |rest: &str| format!("{}{rest}", encoder.prefix);
        let names = match encoder.layout {
            TextLayout::Transformers => [
                "text_model.embeddings.token_embedding.weight",
                "text_model.embeddings.position_embedding.weight",
                "text_model.encoder.layers.0.mlp.fc1.weight",
            ],
            TextLayout::OpenClip => [
                "token_embedding.weight",
                "positional_embedding",
                "transformer.resblocks.0.mlp.c_fc.weight",
            ],
        };
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

/// What the tensors say about one block of a UNet.
struct BlockShapes {
    /// Where its first residual block lies.
    first: String,
    /// Transformer blocks after each residual block.
    depths: Vec<usize>,
    cross_attention_dim: Option<usize>,
    only_cross_attention: bool,
}

impl BlockShapes {
    fn has_attention(&self) -> bool {
        self.depths.iter().any(|&depth| depth > 0)
    }

    fn kind(&self, [plain, cross]: [&'static str; 2]) -> &'static str {
        if self.has_attention() { cross } else { plain }
    }

    /// One number where all layers have the same; blocks without transformers have 1 in diffusers.
    fn depth(&self) -> Value {
        if self.has_attention() {
            one_or_many(&self.depths)
        } else {
            json!(1)
        }
    }
}

/// The number of transformer blocks on the way down and, where it is not the mirror of that, on the way up.
fn depths(down: &[BlockShapes], up: &[BlockShapes]) -> Map<String, Value> {
    let [there, back] = [down, up].map(|blocks| blocks.iter().map(BlockShapes::depth).collect::<Vec<_>>());
    let mut config = fields([("transformer_layers_per_block", json!(there))]);
    let is_nested = there.iter().any(Value::is_array);
    if is_nested || !there.iter().rev().eq(&back) {
        config.insert("reverse_transformer_layers_per_block".to_owned(), json!(back));
    }
    config
}

/// The number that all are, or all of them.
fn one_or_many(values: &[usize]) -> Value {
    match values {
        [first, rest @ ..] if rest.iter().all(|value| value == first) => json!(first),
        _ => json!(values),
    }
}

fn fields<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs.map(|(key, value)| (key.to_owned(), value)).into_iter().collect()
}
