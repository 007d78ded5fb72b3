//! A pipeline of random weights, made on the spot: no file is read.

use crate::layout::{Layout, Painting};
use anyhow::{Context, Result};
use prima_checkpoint::{Error, Init, ParamSource};
use prima_models::{
    AutoencoderKl, AutoencoderKlConfig, ClipTextConfig, ClipTextModel, Tokenizer, TokenizerFiles, Unet2dCondition,
    Unet2dConditionConfig,
};
use prima_pipeline::families::STABLE_DIFFUSION_XL;
use prima_pipeline::{ModelCard, Parts, Pipeline, TextEncoder, TextEncoders, Vae};
use prima_schedulers::SchedulerConfig;
use prima_tensor::{DType, Param, Philox, Tensor, affine};
use serde_json::{Value, json};

/// Random values from the device's own generator, in the type in which a loaded model would keep them. No weight is zero, as
/// some are in a network that is yet to be trained: a GPU is faster at products of zeros.
pub struct RandomWeights {
    pub dtype: DType,
    made: u32,
}

impl RandomWeights {
    pub fn new(dtype: DType) -> Self {
        Self { dtype, made: 0 }
    }
}

impl ParamSource for RandomWeights {
    fn param(&mut self, key: &str, shape: &[usize], init: Init) -> Result<Param, Error> {
        let is_matrix = shape.len() >= 2;
        let fan_in: usize = shape.iter().skip(1).product();
        let deviation = match init {
            Init::Normal(deviation) => deviation,
            _ if is_matrix => 1.0 / (3.0 * fan_in.max(1) as f32).sqrt(),
            _ => 0.02,
        };
        let mean = if init == Init::Ones { 1.0 } else { 0.0 };
        self.made += 1;
        let noise = Philox {
            seed: 1,
            image: 0,
            purpose: 0xbe9c,
            step: self.made,
        };
        let len = shape.iter().product();
        let values = affine(&noise.normal_batch(&[1, len]), deviation, mean).into_vec();
        let param = Param::new(Tensor::from_vec(values, shape));
        if self.dtype == DType::BF16 && is_matrix && !key.contains("embeddings.") {
            param.narrow_to_bf16();
        }
        Ok(param)
    }
}

/// Letters and nothing else; the encoders' work does not depend on the words.
fn tokenizer(length: usize) -> Result<Tokenizer> {
    let mut vocabulary = serde_json::Map::new();
    let letters = ('a'..='z').flat_map(|c| [c.to_string(), format!("{c}</w>")]);
    let special = ["<|startoftext|>", "<|endoftext|>"].map(String::from);
    for (id, token) in special.into_iter().chain(letters).enumerate() {
        vocabulary.insert(token, json!(id));
    }
    let files = TokenizerFiles {
        vocab_json: Some(Value::Object(vocabulary).to_string().into_bytes()),
        merges_txt: Some(b"#version: 0.2\n".to_vec()),
        ..TokenizerFiles::default()
    };
    Ok(Tokenizer::new("the bench's tokenizer", &files, length)?)
}

fn text_encoder(layout: &Layout, name: &str, source: &mut RandomWeights) -> Result<TextEncoder> {
    let config = ClipTextConfig::from_json(&layout.configs[name].to_string(), name)?;
    Ok(TextEncoder {
        tokenizer: tokenizer(config.max_position_embeddings)?,
        model: ClipTextModel::new(config, source)?,
    })
}

/// The parts in the order in which a model is loaded; the autoencoder's weights stay f32, as there.
pub fn parts(layout: &Layout, painting: &Painting, dtype: DType) -> Result<Parts> {
    let mut source = RandomWeights::new(dtype);
    let encoders = ["text_encoder", "text_encoder_2"]
        .map(|name| text_encoder(layout, name, &mut source))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let unet = Unet2dConditionConfig::from_json(&layout.configs["unet"].to_string(), "unet")?;
    let unet = Unet2dCondition::new(unet, &mut source)?;
    let vae = AutoencoderKlConfig::from_json(&layout.configs["vae"].to_string(), "vae")?;
    let vae = AutoencoderKl::new(vae, &mut RandomWeights::new(DType::F32))?;
    Ok(Parts {
        name: "random weights".to_owned(),
        family: &STABLE_DIFFUSION_XL,
        text_encoders: TextEncoders::new(encoders, STABLE_DIFFUSION_XL.hidden_state),
        unet,
        vae: Vae::Kl(vae),
        scheduler_config: scheduler(painting)?,
        replaced_scheduler: None,
        known: None,
        card: ModelCard::default(),
        force_zeros_for_empty_prompt: true,
        components: Vec::new(),
    })
}

pub fn scheduler(painting: &Painting) -> Result<SchedulerConfig> {
    let config = json!({
        "_class_name": painting.scheduler,
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "epsilon",
        "timestep_spacing": "trailing",
        "steps_offset": 1,
    });
    SchedulerConfig::from_json(&config.to_string()).context("the bench's scheduler")
}

/// The pipeline of another painting with the same weights.
pub fn with_scheduler(pipeline: Pipeline, painting: &Painting) -> Result<Pipeline> {
    let mut parts = pipeline.into_parts();
    parts.scheduler_config = scheduler(painting)?;
    Ok(Pipeline::new(parts)?)
}
