//! CLIP whole (transformers `CLIPModel`, 5.23.0): pictures and words in one space (Radford et al. 2021).

use crate::config::{CONFIG, Check, MAX_CHANNELS, MAX_LAYERS, Ranges, invalid};
use crate::layers::{Conv, LayerNorm, Linear, Start};
use crate::text_encoders::clip_layer::{EncoderLayer, Layers, activation, check_heads};
use crate::text_encoders::clip_text::WITH_PROJECTION;
use crate::{ClipTextConfig, ClipTextModel, HiddenState};
use prima_checkpoint::{Error, Init, ParamSource, Reader};
use prima_tensor::{Conv2d, Param, Tensor, add_positions, concat_tokens, gather_rows};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

/// Largest picture in pixels a side.
const MAX_SIDE_PX: usize = 4096;

/// `CLIPVisionConfig`. What else a file says (old ones have every setting of a text generator) changes nothing.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClipVisionConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub projection_dim: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_channels: usize,
    /// In pixels, as `patch_size`.
    pub image_size: usize,
    pub patch_size: usize,
    pub hidden_act: String,
    pub layer_norm_eps: f64,
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
        }
    }
}

impl ClipVisionConfig {
    fn check(&self) -> Result<(), Error> {
        self.check_ranges(&Check { file: CONFIG })?;
        check_heads(self.hidden_size, self.num_attention_heads)?;
        if self.num_channels != 3 || !self.image_size.is_multiple_of(self.patch_size) {
            return Err(invalid(format!(
                "num_channels = {}, image_size = {}, patch_size = {}: expected 3 channels and patches that fill the picture",
                self.num_channels, self.image_size, self.patch_size
            )));
        }
        Ok(())
    }
}

impl Ranges for ClipVisionConfig {
    fn check_ranges(&self, check: &Check) -> Result<(), Error> {
        check.channels(&[
            ("hidden_size", self.hidden_size),
            ("projection_dim", self.projection_dim),
            ("num_attention_heads", self.num_attention_heads),
        ])?;
        check.within("intermediate_size", self.intermediate_size, 1..=4 * MAX_CHANNELS)?;
        check.within("num_hidden_layers", self.num_hidden_layers, 1..=MAX_LAYERS)?;
        check.within("image_size", self.image_size, 1..=MAX_SIDE_PX)?;
        check.within("patch_size", self.patch_size, 1..=self.image_size)?;
        check.epsilon("layer_norm_eps", self.layer_norm_eps)
    }
}

/// `CLIPVisionModelWithProjection`.
struct VisionModel {
    class_embedding: Param,
    patch_embedding: Conv,
    position_embedding: Param,
    pre_norm: LayerNorm,
    layers: Vec<EncoderLayer>,
    post_norm: LayerNorm,
    projection: Linear,
}

impl VisionModel {
    fn new(config: &ClipVisionConfig, source: &mut dyn ParamSource) -> Result<Self, Error> {
        config.check()?;
        let (width, patch, eps) = (config.hidden_size, config.patch_size, config.layer_norm_eps as f32);
        let places = 1 + (config.image_size / patch).pow(2);
        let layers = Layers {
            width,
            inner: config.intermediate_size,
            count: config.num_hidden_layers,
            heads: config.num_attention_heads,
            eps,
            activation: activation(&config.hidden_act)?,
            is_causal: false,
        };
        let embeddings = "vision_model.embeddings";
        let start = Init::Normal(0.02);
        Ok(Self {
            class_embedding: source.param(&format!("{embeddings}.class_embedding"), &[width], start)?,
            patch_embedding: Conv::new(
                source,
                &format!("{embeddings}.patch_embedding"),
                [3, width, patch],
                Conv2d::strided(patch, 0),
                false,
                Start::Normal(0.02),
            )?,
            position_embedding: source.param(
                &format!("{embeddings}.position_embedding.weight"),
                &[places, width],
                start,
            )?,
            // The name has lost a letter in every file.
            pre_norm: LayerNorm::new(source, "vision_model.pre_layrnorm", width, eps)?,
            layers: layers.read(source, "vision_model.encoder.layers")?,
            post_norm: LayerNorm::new(source, "vision_model.post_layernorm", width, eps)?,
            projection: Linear::new(
                source,
                "visual_projection",
                width,
                config.projection_dim,
                false,
                Start::Normal((width as f32).powf(-0.5)),
            )?,
        })
    }

    fn forward(&self, pictures: &Tensor) -> Tensor {
        let patches = self.patch_embedding.forward(pictures);
        let (batch, width) = (patches.dim(0), patches.dim(3));
        let patches = patches.reshape(&[batch, patches.dim(1) * patches.dim(2), width]);
        let class = Tensor::from_vec(self.class_embedding.tensor().data().repeat(batch), &[batch, 1, width]);
        let x = add_positions(&concat_tokens(&[&class, &patches]), &self.position_embedding);
        let x = self
            .layers
            .iter()
            .fold(self.pre_norm.forward(&x), |x, layer| layer.forward(&x));
        let seen = gather_rows(&x, &vec![0; batch]);
        self.projection.forward(&self.post_norm.forward(&seen))
    }
}

/// `CLIPModel`: both encoders, each up to the space that they share.
pub struct Clip {
    text: ClipTextModel,
    vision: VisionModel,
    config: ClipVisionConfig,
}

impl Clip {
    /// Of the `config.json` and the weights of a folder of transformers.
    pub fn new(config: &Value, source: &mut dyn ParamSource) -> Result<Self, Error> {
        let text: ClipTextConfig = part(config, "text_config")?;
        let vision: ClipVisionConfig = part(config, "vision_config")?;
        // That of the whole counts, whatever the parts say.
        let shared = config.get("projection_dim").and_then(Value::as_u64);
        let projection_dim = shared.map_or(vision.projection_dim, |dim| dim as usize);
        let vision = ClipVisionConfig {
            projection_dim,
            ..vision
        };
        let text = ClipTextConfig {
            projection_dim,
            architectures: Some(vec![WITH_PROJECTION.to_owned()]),
            ..text
        };
        Ok(Self {
            text: ClipTextModel::new(text, source)?,
            vision: VisionModel::new(&vision, source)?,
            config: vision,
        })
    }

    /// A folder with `config.json` and `model.safetensors`.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(CONFIG);
        let json = std::fs::read(&path).map_err(|source| Error::Io {
            doing: "read",
            path: path.clone(),
            source,
        })?;
        let config = serde_json::from_slice(&json).map_err(|source| Error::Json {
            file: path.display().to_string(),
            source,
        })?;
        let mut reader = Reader::open(&folder.join("model.safetensors"))?;
        let clip = Self::new(&config, &mut reader)?;
        reader.finish()?;
        Ok(clip)
    }

    pub fn config(&self) -> &ClipVisionConfig {
        &self.config
    }

    /// Longest row of tokens.
    pub fn max_tokens(&self) -> usize {
        self.text.config().max_position_embeddings
    }

    /// `image_embeds` `[B, projection_dim]` of pictures `[B, image_size, image_size, 3]`, normalised as the folder's
    /// preprocessor says.
    pub fn image_embeds(&self, pictures: &Tensor) -> Tensor {
        self.vision.forward(pictures)
    }

    /// `text_embeds` `[B, projection_dim]` of `batch` rows of tokens.
    pub fn text_embeds(&self, ids: &[u32], batch: usize) -> Option<Tensor> {
        self.text.forward(ids, batch, HiddenState::LAST).pooled
    }
}

fn part<T: for<'a> Deserialize<'a> + Default>(config: &Value, name: &str) -> Result<T, Error> {
    match config.get(name) {
        None | Some(Value::Null) => Ok(T::default()),
        Some(part) => T::deserialize(part).map_err(|error| invalid(format!("{name}: {error}"))),
    }
}
