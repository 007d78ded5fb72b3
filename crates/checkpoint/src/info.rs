//! What a model is, without loading it: components, classes, sizes, storage types, preset.

use crate::files::read_small;
use crate::model_source::folder_reader;
use crate::single_file::what_is_it;
use crate::tensor_file::TensorFile;
use crate::{Error, FileKind, ModelSource, Reader, quantized_bits};
use safetensors::Dtype;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// A summary of a model's files.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ModelInfo {
    pub name: String,
    /// `folder`, `embedded`, `single_file`, or `weights` (one safetensors file that is no whole model).
    pub layout: &'static str,
    /// `_class_name` of `model_index.json`.
    pub pipeline_class: Option<String>,
    /// How it wants to be sampled, told by its tensors and its scheduler: `sdxl`, `lcm-sdxl`, ...
    pub preset: String,
    pub parameters: u64,
    pub bytes: u64,
    pub components: Vec<ComponentInfo>,
}

/// One network of a model.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ComponentInfo {
    pub name: String,
    /// `_class_name` (diffusers) or the first of `architectures` (transformers).
    pub class_name: Option<String>,
    pub tensors: usize,
    pub parameters: u64,
    /// Size of the weights on disk.
    pub bytes: u64,
    /// Parameters by storage type: `{"f16": 1234}`.
    pub dtypes: BTreeMap<String, u64>,
}

/// The networks that a model may have, in the order in which a prompt passes them.
const COMPONENTS: [&str; 4] = ["text_encoder", "text_encoder_2", "unet", "vae"];

/// Summarises a model (anything [`ModelSource::open`] takes) or one safetensors file of any kind.
/// Headers are read, weights are not.
pub fn info(path: &Path) -> Result<ModelInfo, Error> {
    if path.is_dir() && !path.join("model_index.json").is_file() && path.join("config.json").is_file() {
        return component_folder(path);
    }
    let source = ModelSource::open(path)?;
    if let ModelSource::SingleFile(path) = &source {
        let file = TensorFile::open(path)?;
        let kind = what_is_it(&file);
        if !kind.is_model() {
            return Ok(weights_file(file, kind));
        }
    }
    ModelInfo::of(&source)
}

impl ModelInfo {
    /// Summarises a model that is already found (for instance the embedded one).
    pub fn of(source: &ModelSource) -> Result<Self, Error> {
        let index = source.json("", "model_index.json")?;
        let mut components = Vec::new();
        let mut unet = Value::Null;
        for name in COMPONENTS {
            if !source.exists(&format!("{name}/config.json")) {
                continue;
            }
            let config = source.json(name, "config.json")?;
            components.push(ComponentInfo::of(name, &config, &source.component_reader(name)?));
            if name == "unet" {
                unet = config;
            }
        }
        let scheduler = source.json("scheduler", "scheduler_config.json").unwrap_or(Value::Null);
        let layout = match source {
            ModelSource::Folder(_) => "folder",
            ModelSource::Embedded(_) => "embedded",
            ModelSource::SingleFile(_) => "single_file",
            ModelSource::Assembled(_) => "assembled",
        };
        let class = index["_class_name"].as_str().map(str::to_owned);
        let preset = preset(&unet, &scheduler).to_owned();
        Ok(Self::sum(source.name(), layout, class, preset, components))
    }

    fn sum(
        name: String,
        layout: &'static str,
        pipeline_class: Option<String>,
        preset: String,
        components: Vec<ComponentInfo>,
    ) -> Self {
        let parameters = components.iter().map(|c| c.parameters).sum();
        let bytes = components.iter().map(|c| c.bytes).sum();
        Self {
            name,
            layout,
            pipeline_class,
            preset,
            parameters,
            bytes,
            components,
        }
    }
}

impl ComponentInfo {
    fn of(name: &str, config: &Value, reader: &Reader) -> Self {
        let class = config["_class_name"].as_str().or(config["architectures"][0].as_str());
        let (mut tensors, mut parameters, mut bytes, mut dtypes) = (0, 0, 0, BTreeMap::new());
        for (key, dtype, shape) in reader.tensors() {
            // A buffer, not a parameter.
            if key.contains("position_ids") {
                continue;
            }
            let numel = shape.iter().product::<usize>() as u64;
            tensors += 1;
            parameters += numel;
            if let Some((name, stored)) = reader.in_blocks(key) {
                bytes += stored as u64;
                *dtypes.entry(name).or_insert(0) += numel;
                continue;
            }
            let name = match dtype {
                Dtype::I8 => "int8".to_owned(),
                Dtype::U8 => "int4".to_owned(),
                other => format!("{other:?}").to_lowercase(),
            };
            let bits = quantized_bits(dtype).unwrap_or(dtype.bitsize() as f64);
            bytes += (numel as f64 * bits / 8.0) as u64;
            *dtypes.entry(name).or_insert(0) += numel;
        }
        Self {
            name: name.to_owned(),
            class_name: class.map(str::to_owned),
            tensors,
            parameters,
            bytes,
            dtypes,
        }
    }
}

/// The folder of a single network.
fn component_folder(path: &Path) -> Result<ModelInfo, Error> {
    let file = path.join("config.json");
    let text = read_small(&file)?;
    let config: Value = serde_json::from_slice(&text).map_err(|source| Error::Json {
        file: file.display().to_string(),
        source,
    })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let component = ComponentInfo::of(&name, &config, &folder_reader(path)?);
    Ok(ModelInfo::sum(
        path.display().to_string(),
        "weights",
        None,
        "none".to_owned(),
        vec![component],
    ))
}

/// A safetensors file that is not a whole model.
fn weights_file(file: TensorFile, kind: FileKind) -> ModelInfo {
    let preset = match kind {
        FileKind::StableDiffusion1 => "stable-diffusion-1",
        FileKind::StableDiffusion2 => "stable-diffusion-2",
        FileKind::Sdxl => "sdxl",
        FileKind::Refiner => "sdxl-refiner",
        FileKind::Inpaint => "inpaint",
        FileKind::Unet => "unet",
        FileKind::Vae => "vae",
        FileKind::TextEncoder => "text-encoder",
        FileKind::ControlNet => "controlnet",
        FileKind::Lora => "lora",
        FileKind::Unknown => "unknown",
    };
    let name = file.name().to_owned();
    let component = ComponentInfo::of("weights", &Value::Null, &Reader::from_file(file));
    ModelInfo::sum(name, "weights", None, preset.to_owned(), vec![component])
}

/// How a model of these configs is sampled.
fn preset(unet: &Value, scheduler: &Value) -> &'static str {
    let class = scheduler["_class_name"].as_str().unwrap_or_default();
    let trailing = scheduler["timestep_spacing"] == "trailing";
    let is_sdxl = unet["addition_embed_type"] == "text_time";
    if unet["in_channels"] == 9 {
        "inpaint"
    } else if unet["time_cond_proj_dim"].is_number() {
        if is_sdxl { "lcm-sdxl" } else { "lcm-sd" }
    } else if class == "LCMScheduler" {
        "lcm"
    } else if class == "TCDScheduler" {
        "tcd"
    } else if class == "EulerAncestralDiscreteScheduler" && trailing {
        "sdxl-turbo"
    } else if class == "EulerDiscreteScheduler" && trailing {
        if is_sdxl { "few-step" } else { "sd-turbo" }
    } else if is_sdxl {
        "sdxl"
    } else if unet["cross_attention_dim"] == 1024 {
        "stable-diffusion-2"
    } else {
        "stable-diffusion-1"
    }
}
