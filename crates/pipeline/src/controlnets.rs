//! The ControlNets that a pipeline has. They are read when a request
//! first asks for them, and the last few are kept.

use crate::control::Control;
use crate::packed_weights::read_alone;
use crate::weight_files::{check_folder, is_safetensors, sorted, stem};
use crate::{Error, Parts, families};
use prima_checkpoint::{ControlNetFile, ModelSource};
use prima_models::{ControlNet, ControlNetConfig};
use prima_tensor::DType;
use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Which ControlNets a pipeline has.
#[derive(Clone, Debug, Default)]
pub struct ControlNetOptions {
    /// Every safetensors file and every folder with a `config.json` in this folder, by its name without the ending.
    pub folder: Option<PathBuf>,
    /// Others, by their names.
    pub files: Vec<(String, PathBuf)>,
}

/// Kept in memory between requests.
const KEPT: usize = 2;

#[derive(Default)]
pub(crate) struct ControlNets {
    options: ControlNetOptions,
    dtype: Option<DType>,
    /// Last used first.
    loaded: Mutex<VecDeque<(PathBuf, Arc<ControlNet>)>>,
}

impl ControlNets {
    pub fn new(options: &ControlNetOptions, dtype: DType) -> Result<Self, Error> {
        if let Some(folder) = &options.folder {
            check_folder("--controlnet-dir", folder)?;
        }
        Ok(Self {
            options: options.clone(),
            dtype: Some(dtype),
            loaded: Mutex::default(),
        })
    }

    /// Those that there are, by name.
    pub fn list(&self) -> Vec<(String, PathBuf)> {
        let mut all = self.options.files.clone();
        let folder = self.options.folder.as_deref();
        for path in folder.map(sorted).unwrap_or_default() {
            if is_safetensors(&path) {
                all.push((stem(&path), path));
            } else if path.join("config.json").is_file() {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                all.push((name, path));
            }
        }
        all
    }

    /// Where the ControlNet of this name lies.
    pub fn path(&self, name: &str) -> Result<PathBuf, Error> {
        let mut all = self.list();
        if let Some(at) = all.iter().position(|(own, _)| own == name) {
            return Ok(all.swap_remove(at).1);
        }
        let name: String = name.chars().take(60).collect();
        let names: Vec<&str> = all.iter().take(12).map(|(own, _)| own.as_str()).collect();
        let fix = if names.is_empty() {
            "there are none here: name one with --controlnet, or a folder with --controlnet-dir".to_owned()
        } else {
            format!("use one of {}", names.join(", "))
        };
        Err(Error::request("controlnet", format!("{name:?}"), fix))
    }

    /// What the weights of those that a request names take in memory, by the headers of their files.
    pub fn weight_bytes(&self, controls: &[Control]) -> Result<usize, Error> {
        let names: BTreeSet<&str> = controls.iter().map(|control| control.name.as_str()).collect();
        let mut bytes = 0;
        for name in names {
            let path = self.path(name)?;
            let reader = if path.is_dir() {
                ModelSource::Folder(path).component_reader("")?
            } else {
                ControlNetFile::open(&path)?.reader()
            };
            bytes += families::network_bytes(&reader, self.dtype.unwrap_or(DType::F32));
        }
        Ok(bytes)
    }

    /// The ControlNet of this name, which has to fit the model of `parts`.
    pub fn network(&self, name: &str, parts: &Parts) -> Result<Arc<ControlNet>, Error> {
        let path = self.path(name)?;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let known = loaded.iter().position(|(own, _)| *own == path);
        let network = match known.and_then(|at| loaded.remove(at)) {
            Some((_, network)) => network,
            None => Arc::new(open(&path, parts, self.dtype.unwrap_or(DType::F32))?),
        };
        loaded.push_front((path, network.clone()));
        loaded.truncate(KEPT);
        Ok(network)
    }
}

fn open(path: &Path, parts: &Parts, dtype: DType) -> Result<ControlNet, Error> {
    let name = path.display().to_string();
    let (config, reader) = if path.is_dir() {
        let folder = ModelSource::Folder(path.to_path_buf());
        (folder.json("", "config.json")?, folder.component_reader("")?)
    } else {
        let file = ControlNetFile::open(path)?;
        let config = match file.config() {
            Ok(config) => config,
            // Widths that no family's convention fits: a config may lie beside the file.
            Err(error) => match ModelSource::Folder(path.with_extension("config")).json("", "config.json") {
                Ok(config) => config,
                Err(_) => return Err(error.into()),
            },
        };
        (config, file.reader())
    };
    let config = ControlNetConfig::from_json(&config.to_string(), &name)?;
    check_fit(&config, parts, path)?;
    read_alone(reader, dtype, |source| Ok(ControlNet::new(config, source)?))
}

/// The widths that a ControlNet shares with its UNet.
fn check_fit(config: &ControlNetConfig, parts: &Parts, path: &Path) -> Result<(), Error> {
    let (own, unet) = (&config.unet, parts.unet.config());
    let context = own.cross_attention_dim.values();
    let width = parts.text_encoders.width();
    let fixes: [(bool, &str, String); 5] = [
        (
            context.iter().any(|dim| *dim != width),
            "cross_attention_dim",
            format!("it reads texts of {context:?} channels, and the model's have {width}"),
        ),
        (
            own.block_out_channels != unet.block_out_channels,
            "block_out_channels",
            format!(
                "its blocks have {:?} channels, and the model's {:?}",
                own.block_out_channels, unet.block_out_channels
            ),
        ),
        (
            own.layers_per_block != unet.layers_per_block,
            "layers_per_block",
            "its blocks have another number of layers than the model's".to_owned(),
        ),
        (
            own.in_channels != parts.vae.latent_channels(),
            "conv_in.weight",
            format!(
                "it reads {} channels, and latents have {}",
                own.in_channels,
                parts.vae.latent_channels()
            ),
        ),
        (
            own.addition_embed_type.is_some() != unet.addition_embed_type.is_some(),
            "addition_embed_type",
            "it and the model are not of one family".to_owned(),
        ),
    ];
    match fixes.into_iter().find(|(is_wrong, ..)| *is_wrong) {
        Some((_, key, message)) => Err(misfit(path, key, &message)),
        None => Ok(()),
    }
}

pub(crate) fn misfit(path: &Path, key: &str, message: &str) -> Error {
    Error::Model {
        model: path.display().to_string(),
        message: format!("{key} does not fit: {message}; use a ControlNet that was made for the model's family"),
    }
}
