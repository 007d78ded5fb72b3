//! A model's files to a pipeline.

use crate::conditioning::{TextEncoder, TextEncoders};
use crate::model_card::{Defaults, ModelCard, Traits};
use crate::{Error, Pipeline, Vae};
use prima_checkpoint::{Init, ModelSource, ParamSource};
use prima_models::{ClipTextConfig, ClipTextModel, OneOrMany, Tokenizer, Unet2dCondition, Unet2dConditionConfig};
use prima_schedulers::{PredictionType, SchedulerConfig};
use prima_tensor::{DType, Param};
use std::path::Path;

/// How a model is loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Storage type of the weights: f32, or bf16 for the text encoders' and the UNet's matrices and convolutions,
    /// which are then multiplied in bf16. The autoencoder stays in f32 (diffusers' `force_upcast`).
    pub dtype: DType,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { dtype: DType::F32 }
    }
}

/// What a pipeline is made of; the trainer puts its own networks here for sample grids.
pub struct Parts {
    pub name: String,
    pub text_encoders: TextEncoders,
    pub unet: Unet2dCondition,
    pub vae: Vae,
    pub scheduler_config: SchedulerConfig,
    pub card: ModelCard,
    /// `force_zeros_for_empty_prompt` of `model_index.json`.
    pub force_zeros_for_empty_prompt: bool,
}

impl Parts {
    /// Reads every component, each tensor once.
    pub fn load(source: &ModelSource, options: &LoadOptions) -> Result<Self, Error> {
        Self::load_telling(source, options, &mut |_| {})
    }

    /// As [`load`](Self::load), and tells what is read next.
    pub fn load_telling(
        source: &ModelSource,
        options: &LoadOptions,
        on_component: &mut dyn FnMut(&'static str),
    ) -> Result<Self, Error> {
        Self::make(source, options.dtype, Weights::Read, on_component)
    }

    /// The networks of a model without their weights: to find out what they need.
    pub(crate) fn outline(source: &ModelSource, dtype: DType) -> Result<Self, Error> {
        Self::make(source, dtype, Weights::Absent, &mut |_| {})
    }

    fn make(
        source: &ModelSource,
        dtype: DType,
        weights: Weights,
        on_component: &mut dyn FnMut(&'static str),
    ) -> Result<Self, Error> {
        if dtype == DType::F16 {
            return Err(Error::request("dtype", "f16", "use f32 or bf16".to_owned()));
        }
        let index = source.json("", "model_index.json")?;
        let class = index["_class_name"].as_str().unwrap_or("StableDiffusionXLPipeline");
        if !class.starts_with("StableDiffusionXL") {
            let message = format!("its pipeline is {class}; only StableDiffusionXLPipeline and its kin are supported");
            return Err(Error::Model {
                model: source.name(),
                message,
            });
        }
        let card = if source.exists("prima.json") {
            ModelCard::parse(&text(source, "", "prima.json")?, &path(source, "", "prima.json"))?
        } else {
            ModelCard::default()
        };
        on_component("text encoders");
        let text_encoders = text_encoders(source, dtype, weights)?;
        on_component("unet");
        let unet = unet(source, dtype, weights)?;
        on_component("vae");
        let vae = vae(source, weights)?;
        Ok(Self {
            name: card.name.clone().unwrap_or_else(|| short_name(source)),
            text_encoders,
            unet,
            vae,
            scheduler_config: scheduler_config(source)?,
            card,
            force_zeros_for_empty_prompt: index["force_zeros_for_empty_prompt"].as_bool().unwrap_or(true),
        })
    }
}

impl Pipeline {
    /// Reads a model: a diffusers folder, a single file, or the embedded one.
    pub fn load(source: &ModelSource, options: &LoadOptions) -> Result<Self, Error> {
        Self::new(Parts::load(source, options)?)
    }

    /// A pipeline of parts that fit together.
    pub fn new(parts: Parts) -> Result<Self, Error> {
        check_fit(&parts).map_err(|message| Error::Model {
            model: parts.name.clone(),
            message,
        })?;
        let config = parts.unet.config();
        let scheduler = parts.scheduler_config.kind();
        let latent_size = match &config.sample_size {
            Some(OneOrMany::One(side)) => *side,
            Some(OneOrMany::Many(sides)) => sides.first().copied().unwrap_or(DEFAULT_LATENT_SIZE),
            None => DEFAULT_LATENT_SIZE,
        };
        let traits = Traits {
            scheduler: scheduler.map_err(|source| Error::SchedulerConfig {
                file: format!("scheduler_config.json of {}", parts.name),
                source,
            })?,
            spacing: parts.scheduler_config.timestep_spacing.map(Into::into),
            predicts_sample: parts.scheduler_config.prediction_type() == PredictionType::Sample,
            guidance_embedding: config.time_cond_proj_dim.is_some(),
            native_px: latent_size * parts.vae.scale_factor(),
        };
        Ok(Self {
            defaults: Defaults::new(&parts.card, traits),
            parts,
        })
    }
}

/// Where a UNet's config does not say: SDXL's.
const DEFAULT_LATENT_SIZE: usize = 128;

/// The widths that one component hands to the next.
fn check_fit(parts: &Parts) -> Result<(), String> {
    let config = parts.unet.config();
    let width = parts.text_encoders.width();
    let context = match &config.cross_attention_dim {
        OneOrMany::One(dim) => vec![*dim],
        OneOrMany::Many(dims) => dims.clone(),
    };
    if context.iter().any(|&dim| dim != width) {
        return Err(format!(
            "the text encoders give {width} channels, the UNet's cross_attention_dim is {context:?}"
        ));
    }
    let latent_channels = parts.vae.latent_channels();
    if config.in_channels != latent_channels || config.out_channels != latent_channels {
        return Err(format!(
            "the VAE has {latent_channels} latent channels, the UNet takes {} and gives {}",
            config.in_channels, config.out_channels
        ));
    }
    if config.addition_embed_type.is_some() {
        let Some(pooled) = parts.text_encoders.pooled_width() else {
            return Err("the UNet wants a pooled prompt, and the last text encoder has no projection".to_owned());
        };
        let found = pooled + 6 * config.addition_time_embed_dim.unwrap_or(0);
        let expected = config.projection_class_embeddings_input_dim.unwrap_or(0);
        if found != expected {
            return Err(format!(
                "pooled prompt and time_ids have {found} channels, projection_class_embeddings_input_dim is {expected}"
            ));
        }
    }
    Ok(())
}

/// Whether a model's weights are wanted.
#[derive(Clone, Copy)]
enum Weights {
    Read,
    Absent,
}

impl Weights {
    /// What `make` makes of the parameters of `component`, each of which it has to ask for once.
    fn of<T, E: Into<Error>>(
        self,
        source: &ModelSource,
        component: &str,
        make: impl FnOnce(&mut dyn ParamSource) -> Result<T, E>,
    ) -> Result<T, Error> {
        match self {
            Self::Absent => make(&mut AbsentParams).map_err(Into::into),
            Self::Read => {
                let mut reader = source.component_reader(component)?;
                let made = make(&mut reader).map_err(Into::into)?;
                reader.finish()?;
                Ok(made)
            }
        }
    }
}

struct AbsentParams;

impl ParamSource for AbsentParams {
    fn param(&mut self, _: &str, shape: &[usize], _: Init) -> Result<Param, prima_checkpoint::Error> {
        Ok(Param::absent(shape))
    }
}

fn text_encoders(source: &ModelSource, dtype: DType, weights: Weights) -> Result<TextEncoders, Error> {
    let mut encoders = Vec::new();
    for (tokenizer, component) in [("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")] {
        // A refiner or a small model may have the second one alone.
        if component == "text_encoder" && !source.exists("text_encoder/config.json") {
            continue;
        }
        let (json, file) = config(source, component)?;
        let config = ClipTextConfig::from_json(&json, &file)?;
        let length = config.max_position_embeddings;
        let model = weights.of(source, component, |source| {
            let mut stored = Stored::new(source, dtype);
            let model = ClipTextModel::new(config, &mut stored).map_err(named(&file))?;
            stored.pack();
            Ok::<_, Error>(model)
        })?;
        encoders.push(TextEncoder {
            tokenizer: Tokenizer::load(source, tokenizer, length)?,
            model,
        });
    }
    Ok(TextEncoders::new(encoders))
}

/// Parameters in the storage type asked for. Vectors and embeddings, which nothing is multiplied with, stay f32.
struct Stored<'a> {
    source: &'a mut dyn ParamSource,
    dtype: DType,
    /// The weights that something is multiplied with.
    weights: Vec<Param>,
}

impl<'a> Stored<'a> {
    fn new(source: &'a mut dyn ParamSource, dtype: DType) -> Self {
        Self {
            source,
            dtype,
            weights: Vec::new(),
        }
    }

    /// Packs every weight, so that the first picture does not wait for it.
    fn pack(self) {
        self.weights.iter().for_each(Param::pack);
    }
}

impl ParamSource for Stored<'_> {
    fn param(&mut self, key: &str, shape: &[usize], init: Init) -> Result<Param, prima_checkpoint::Error> {
        let param = self.source.param(key, shape, init)?;
        if shape.len() >= 2 && !key.contains("embeddings.") {
            if self.dtype == DType::BF16 {
                param.narrow_to_bf16();
            }
            // Those of convolutions that follow a doubling have a packed form of their own.
            if !key.contains("upsamplers.") {
                self.weights.push(param.clone());
            }
        }
        Ok(param)
    }
}

/// A network knows its config's values, not whose they are: the error gets the file's full name.
fn named(file: &str) -> impl FnOnce(prima_checkpoint::Error) -> prima_checkpoint::Error {
    move |error| match error {
        prima_checkpoint::Error::File { file: short, message } if file.ends_with(&short) => {
            prima_checkpoint::Error::File {
                file: file.to_owned(),
                message,
            }
        }
        other => other,
    }
}

fn unet(source: &ModelSource, dtype: DType, weights: Weights) -> Result<Unet2dCondition, Error> {
    let (json, file) = config(source, "unet")?;
    let config = Unet2dConditionConfig::from_json(&json, &file)?;
    weights.of(source, "unet", |source| {
        let mut stored = Stored::new(source, dtype);
        let unet = Unet2dCondition::new(config, &mut stored).map_err(named(&file))?;
        stored.pack();
        Ok::<_, Error>(unet)
    })
}

fn vae(source: &ModelSource, weights: Weights) -> Result<Vae, Error> {
    let (json, file) = config(source, "vae")?;
    weights.of(source, "vae", |source| {
        Vae::new(&json, &file, source).map_err(|error| match error {
            Error::Checkpoint(error) => named(&file)(error).into(),
            other => other,
        })
    })
}

fn scheduler_config(source: &ModelSource) -> Result<SchedulerConfig, Error> {
    let (component, name) = ("scheduler", "scheduler_config.json");
    // Python writes infinities, which JSON does not have: the text goes to the schedulers as it is.
    let text = match text(source, component, name) {
        Ok(text) => text,
        Err(_) => source.json(component, name)?.to_string(),
    };
    let file = path(source, component, name);
    SchedulerConfig::from_json(&text).map_err(|source| Error::SchedulerConfig { file, source })
}

/// The text of a component's `config.json`, and what errors call it.
fn config(source: &ModelSource, component: &str) -> Result<(String, String), Error> {
    let json = source.json(component, "config.json")?;
    Ok((json.to_string(), path(source, component, "config.json")))
}

fn text(source: &ModelSource, component: &str, file: &str) -> Result<String, Error> {
    let bytes = source.read_bytes(&Path::new(component).join(file).to_string_lossy())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn path(source: &ModelSource, component: &str, file: &str) -> String {
    let inside = Path::new(component).join(file);
    match source {
        ModelSource::Folder(root) => root.join(inside).display().to_string(),
        _ => format!("{} in {}", inside.display(), source.name()),
    }
}

/// A folder's or a file's own name; of a hub snapshot, the repository's.
fn short_name(source: &ModelSource) -> String {
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    match source {
        ModelSource::Embedded(model) => model.name.to_owned(),
        ModelSource::SingleFile(path) => name(path),
        ModelSource::Folder(path) => {
            let snapshot = path
                .parent()
                .filter(|p| p.ends_with("snapshots"))
                .and_then(Path::parent);
            match snapshot.and_then(|p| p.file_name()?.to_str()?.strip_prefix("models--")) {
                Some(repository) => repository.replacen("--", "/", 1),
                None => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            }
        }
    }
}
