//! A run as a diffusers folder, with a model card and the data's credits.

mod card;
mod lora;

pub use lora::LoraKeys;

use crate::config::{Origin, TrainConfig};
use crate::error::{Error, Result};
use crate::fold_statistics::fold_statistics;
use crate::latent_cache::{LatentStatistics, captions};
use crate::latents;
use crate::objectives::{LcmConfig, LcmLoraConfig, LoraConfig, StageConfig};
use crate::params::{Component, NamedParams};
use crate::stages::{self, Stage};
use crate::trained::{self, Painter};
use prima_checkpoint::export::{write_bytes, write_json};
use prima_checkpoint::{ModelSource, export as write_component, export::weights_name};
use prima_data::{NOTICE, world};
use prima_models::Vae;
use prima_pipeline::KnownWords;
use prima_schedulers::{BetaSchedule, PredictionType, SchedulerConfig, SchedulerKind};
use prima_tensor::DType;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExportConfig {
    /// The folder to write.
    folder: PathBuf,
    /// Which networks to ship: those of `lcm`, or of `teacher`.
    #[serde(default = "default_stage")]
    pub(crate) stage: String,
    /// `lcm` or `euler`; what suits the stage where absent.
    #[serde(default)]
    scheduler: Option<String>,
    /// What `prima` samples with unless told otherwise.
    #[serde(default = "default_steps")]
    num_inference_steps: usize,
    /// Classifier-free guidance that the network is sampled with; none where absent.
    #[serde(default)]
    guidance_scale: Option<f64>,
    /// How much of a picture that is given is painted anew unless told otherwise; prima's own choice where absent.
    #[serde(default)]
    strength: Option<f64>,
    /// Explicit timesteps by step count, for `prima.json`.
    #[serde(default)]
    timesteps: BTreeMap<usize, Vec<f64>>,
    /// Prompts that the studio offers to somebody who has not typed anything yet.
    #[serde(default)]
    prompts: Vec<String>,
    pub(crate) name: String,
}

fn default_steps() -> usize {
    1
}

fn default_stage() -> String {
    "lcm".into()
}

impl ExportConfig {
    /// The stage whose networks are shipped.
    pub(crate) fn stage(&self) -> Result<&'static Stage> {
        let found = stages::named(&self.stage).filter(|stage| stage.ships_with.is_some());
        found.ok_or_else(|| {
            let known = stages::STAGES.iter().filter(|stage| stage.ships_with.is_some());
            let known: Vec<String> = known.map(|stage| format!("{:?}", stage.name)).collect();
            Error::Config(format!(
                "export.stage is {:?}, expected {}",
                self.stage,
                known.join(" or ")
            ))
        })
    }

    /// What its network is sampled with.
    pub(crate) fn scheduler(&self) -> Result<SchedulerKind> {
        match self.scheduler.as_deref() {
            None => Ok(self.stage()?.ships_with.unwrap_or(SchedulerKind::Euler)),
            Some("lcm") => Ok(SchedulerKind::Lcm),
            Some("euler") => Ok(SchedulerKind::Euler),
            Some(other) => {
                let message = format!("export.scheduler is {other:?}, expected \"lcm\" or \"euler\"");
                Err(Error::Config(message))
            }
        }
    }
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Exported {
    pub folder: PathBuf,
    pub parameters: usize,
    pub bytes: u64,
}

/// Writes the folder `export.folder` from the averaged weights, in f16; of the stage `lcm-lora` one file in it.
///
/// An old `model_index.json` is removed before the first network is written, and the new one comes last: networks of two
/// runs are no model.
pub fn export(config: &TrainConfig) -> Result<Exported> {
    let folder = &config.export.folder;
    if config.export.stage == LcmLoraConfig::NAME {
        let size = config.section::<LcmLoraConfig>()?.size;
        let path = folder.join(format!("{}.safetensors", config.export.name));
        return lora::export_lora(config, LcmLoraConfig::NAME, &size, &path, LoraKeys::Kohya);
    }
    let noise = config.scheduler()?;
    let kind = match noise.prediction_type() {
        PredictionType::FlowPrediction => noise.kind().map_err(Error::config)?,
        _ => config.export.scheduler()?,
    };
    let (index, components) = (model_index(config, kind)?, components(config)?);
    let index_path = folder.join("model_index.json");
    match std::fs::remove_file(&index_path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io(&index_path)(error)),
        _ => {}
    }
    let mut parameters = 0;
    for (component, json, params) in components {
        write_component(
            &folder.join(component),
            weights_name(component),
            &json,
            &params,
            DType::F16,
        )?;
        parameters += params.iter().map(|(_, p)| p.numel()).sum::<usize>();
    }
    let scheduler_folder = folder.join("scheduler");
    std::fs::create_dir_all(&scheduler_folder).map_err(Error::io(&scheduler_folder))?;
    let scheduler = scheduler(&noise, kind);
    write_json(&scheduler_folder.join("scheduler_config.json"), &scheduler)?;
    write_json(
        &folder.join("prima.json"),
        &settings(config, kind == SchedulerKind::Lcm)?,
    )?;
    if let Some(known) = known_words(config)? {
        known.write(folder)?;
    }
    if config.pictures.is_none() {
        let notice = config.world.as_ref().map_or(NOTICE.to_owned(), world::Sources::notice);
        write_bytes(&folder.join("NOTICE"), notice.as_bytes())?;
    }
    let card = card::card(config, kind == SchedulerKind::Lcm, parameters)?;
    write_bytes(&folder.join("MODEL_CARD.md"), card.as_bytes())?;
    write_json(&index_path, &index)?;
    Ok(Exported {
        folder: folder.clone(),
        parameters,
        bytes: folder_bytes(folder)?,
    })
}

/// Writes the LoRA that the stage `lora` trained, with its averaged weights.
pub fn export_lora(config: &TrainConfig, path: &Path, keys: LoraKeys) -> Result<Exported> {
    let size = config.section::<LoraConfig>()?.size;
    lora::export_lora(config, LoraConfig::NAME, &size, path, keys)
}

/// The words of the captions that the run learnt from, where the stage `latents` kept them.
fn known_words(config: &TrainConfig) -> Result<Option<KnownWords>> {
    let captions = captions(&config.stage_dir(latents::NAME))?;
    if captions.is_empty() {
        return Ok(None);
    }
    Ok(trained::text_encoders(config)?.known_words(captions.iter().map(String::as_str))?)
}

/// The networks by component, each with its `config.json`; writes the tokenizers beside them.
fn components(config: &TrainConfig) -> Result<Vec<(&'static str, Value, NamedParams)>> {
    let Painter { unet, texts } = Painter::shipped(config)?;
    let mut components = Vec::new();
    for (encoder, (name, params)) in texts.encoders.encoders().iter().zip(&texts.params) {
        components.push((*name, encoder.model.config().to_json(), params.clone()));
        let tokenizer = name.replace("text_encoder", "tokenizer");
        let to = config.export.folder.join(&tokenizer);
        let length = encoder.tokenizer.model_max_length();
        match config.origin()? {
            Origin::Model(model) => copy_tokenizer(model, &tokenizer, &to, length)?,
            Origin::Networks(_) => {
                copy_tokenizer(&ModelSource::Folder(config.data_dir.clone()), "tokenizer", &to, length)?;
            }
        }
    }
    components.push(("unet", unet.network.config().to_json(), unet.params));
    let (json, params) = autoencoder(trained::vae(config)?);
    components.push(("vae", json, params));
    Ok(components)
}

/// With the latents' statistics, where they are measured, in its convolutions.
fn autoencoder(vae: Component<Vae>) -> (Value, NamedParams) {
    let Component { network, params } = vae;
    let config = match &network {
        Vae::Kl(vae) => vae.config(),
        Vae::Tiny(vae) => return (vae.config().to_json(), params),
    };
    match (&config.latents_mean, &config.latents_std) {
        (Some(mean), Some(std)) => {
            let (mean, std) = (narrow(mean), narrow(std));
            let (config, params) = fold_statistics(config, &params, &LatentStatistics { mean, std });
            (config.to_json(), params)
        }
        _ => (config.to_json(), params),
    }
}

/// The model's own with the scheduler that suits, or SDXL's layout.
fn model_index(config: &TrainConfig, kind: SchedulerKind) -> Result<Value> {
    let scheduler = json!(["diffusers", kind.class_name()]);
    if let Origin::Model(model) = config.origin()? {
        let mut index = model.json("", "model_index.json")?;
        index["scheduler"] = scheduler;
        return Ok(index);
    }
    Ok(json!({
        "_class_name": "StableDiffusionXLPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [null, null],
        "force_zeros_for_empty_prompt": true,
        "image_encoder": [null, null],
        "scheduler": scheduler,
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }))
}

/// The noise that training used, under the sampler that suits the networks; a flow's as it is.
fn scheduler(noise: &SchedulerConfig, kind: SchedulerKind) -> Value {
    if noise.prediction_type() == PredictionType::FlowPrediction {
        return json!(noise);
    }
    let is_lcm = kind == SchedulerKind::Lcm;
    let mut config = json!({
        "_class_name": kind.class_name(),
        "_diffusers_version": "0.42.1",
        "beta_end": noise.beta_end.unwrap_or(0.02),
        "beta_schedule": noise.beta_schedule.unwrap_or(BetaSchedule::Linear),
        "beta_start": noise.beta_start.unwrap_or(0.0001),
        "num_train_timesteps": noise.num_train_timesteps(),
        "prediction_type": noise.prediction_type().as_str(),
        "rescale_betas_zero_snr": noise.rescale_betas_zero_snr.unwrap_or(false),
        "steps_offset": 0,
        "timestep_spacing": if is_lcm { "leading" } else { "trailing" },
        "trained_betas": noise.trained_betas,
    });
    if is_lcm {
        config["clip_sample"] = json!(false);
        config["original_inference_steps"] = json!(50);
        config["set_alpha_to_one"] = json!(true);
        config["thresholding"] = json!(false);
        config["timestep_scaling"] = json!(10.0);
    }
    config
}

/// The model's own defaults, for `prima`.
fn settings(config: &TrainConfig, lcm: bool) -> Result<Value> {
    let [height, width] = config.picture_size_px();
    let is_lcm_stage = config.export.stage()?.name == LcmConfig::NAME;
    let told = config.section::<LcmConfig>()?.guidance_scales.filter(|_| is_lcm_stage);
    let guidance_scale = match (config.export.guidance_scale, told) {
        (Some(scale), _) => scale,
        (None, Some([least, largest])) => f64::from(f32::midpoint(least, largest)),
        (None, None) if lcm => 1.0,
        (None, None) => 0.0,
    };
    let mut settings = json!({
        "name": config.export.name,
        "num_inference_steps": config.export.num_inference_steps,
        "guidance_scale": guidance_scale,
        "width": width as usize,
        "height": height as usize,
        "sizes": config.painted_sizes(),
        "guidance_free": guidance_scale <= 1.0 && told.is_none(),
        "timesteps": config.export.timesteps,
    });
    if let Some(strength) = config.export.strength {
        settings["strength"] = json!(strength);
    }
    if !config.export.prompts.is_empty() {
        settings["prompts"] = json!(config.export.prompts);
    }
    if let Some(sources) = &config.world {
        let groups = world::word_groups(&sources.nouns);
        let groups = groups
            .into_iter()
            .map(|(name, words)| json!({ "name": name, "words": words }));
        settings["vocabulary"] = groups.collect();
    }
    Ok(settings)
}

/// The tokenizer's files, with the text encoders' length.
fn copy_tokenizer(from: &ModelSource, component: &str, to: &Path, max_length: usize) -> Result<()> {
    std::fs::create_dir_all(to).map_err(Error::io(to))?;
    for name in [
        "vocab.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer_config.json",
        "tokenizer.json",
    ] {
        let source = format!("{component}/{name}");
        if !from.exists(&source) {
            continue;
        }
        let mut bytes = from.read_bytes(&source)?;
        if name == "tokenizer_config.json" {
            let mut json: Value = serde_json::from_slice(&bytes).map_err(|e| Error::file(&source, e))?;
            json["model_max_length"] = json!(max_length);
            bytes = format!("{json:#}\n").into_bytes();
        }
        let target = to.join(name);
        write_bytes(&target, &bytes)?;
    }
    Ok(())
}

fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let metadata = entry.metadata().map_err(Error::io(entry.path()))?;
        total += if metadata.is_dir() {
            folder_bytes(&entry.path())?
        } else {
            metadata.len()
        };
    }
    Ok(total)
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}
