//! `--model`: the embedded model, a folder or a file; and the files that stand in for parts of it.

use crate::{Usage, embedded};
use anyhow::Result;
use prima_checkpoint::{Library, ModelSource, hub};
use prima_pipeline::{LoadOptions, PredictionType};
use std::path::{Path, PathBuf};

/// What is used of other files, and what a model's files leave unsaid.
#[derive(clap::Args, Default)]
pub struct Parts {
    /// A file whose UNet stands in for the model's, as SDXL-Lightning, DMD2 and Hyper-SD are published
    #[arg(long, value_name = "FILE")]
    unet: Option<PathBuf>,
    /// The same for the autoencoder
    #[arg(long, value_name = "FILE")]
    vae: Option<PathBuf>,
    /// The same for the text encoder, of SDXL the first
    #[arg(long, value_name = "FILE")]
    text_encoder: Option<PathBuf>,
    /// The same for SDXL's second
    #[arg(long, value_name = "FILE")]
    text_encoder_2: Option<PathBuf>,
    /// What the network predicts, where the model's files do not say: epsilon, v_prediction, sample [default: the model's]
    #[arg(long, value_name = "NAME")]
    prediction_type: Option<PredictionType>,
    /// The model was trained on noise that ends without signal (zero terminal SNR)
    #[arg(long)]
    zero_snr: bool,
}

impl Parts {
    /// `options` with what the model's files leave unsaid.
    pub fn told(&self, options: LoadOptions) -> LoadOptions {
        LoadOptions {
            prediction_type: self.prediction_type,
            zero_snr: self.zero_snr,
            ..options
        }
    }
}

/// What `--model` names; without it, the model inside the binary.
pub fn open(model: Option<&str>) -> Result<ModelSource> {
    open_in(model, &Library::of_user(None))
}

/// The same, where models have names in this library.
pub fn open_in(model: Option<&str>, library: &Library) -> Result<ModelSource> {
    match model {
        None | Some("embedded") => {
            if embedded::FILES.is_empty() {
                return Err(Usage("this build has no embedded model; pass --model DIR".to_owned()).into());
            }
            Ok(ModelSource::embedded("prima-mini", embedded::FILES))
        }
        Some(name) => Ok(ModelSource::open(path_of(Path::new(name), library)?)?),
    }
}

/// Where a model lies that is named by its path, by its name in a library, or as the hub does. What is nowhere comes back as
/// it is, unless it can only be a path.
pub fn path_of(name: &Path, library: &Library) -> Result<PathBuf> {
    let text = name.to_string_lossy();
    if name.exists() {
        return Ok(name.to_owned());
    }
    let entry = library.find(&text).map(|entry| entry.path);
    if let Some(found) = entry.or_else(|| hub::find(&text).filter(|found| found.is_file())) {
        return Ok(found);
    }
    check_there(name)?;
    Ok(name.to_owned())
}

/// The same with other files for some of its parts.
pub fn open_with(model: Option<&str>, parts: &Parts, library: &Library) -> Result<ModelSource> {
    let files = [
        ("unet", &parts.unet),
        ("vae", &parts.vae),
        ("text_encoder", &parts.text_encoder),
        ("text_encoder_2", &parts.text_encoder_2),
    ];
    let mut source = open_in(model, library)?;
    for (component, file) in files {
        if let Some(file) = file {
            source = source.with_part(component, file)?;
        }
    }
    Ok(source)
}

/// What can only be a file or a folder on this machine, and is not there, is said to be missing; a name may also be one on
/// the hub.
pub fn check_there(path: &Path) -> Result<()> {
    let text = path.to_string_lossy();
    let endings = ["safetensors", "sft", "gguf", "ckpt", "pt", "pth", "bin"];
    let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    let is_file = ending.is_some_and(|ending| endings.contains(&ending.as_str()));
    let is_path = ["/", "./", "../", "~"].iter().any(|start| text.starts_with(start));
    // A link that leads nowhere is missing as well.
    if (is_file || is_path) && !path.exists() {
        let what = if is_file { "file" } else { "file or folder" };
        let of_hub = hub::Id::parse(&text).filter(|id| is_file && id.file.is_some());
        let hint = of_hub.map_or_else(String::new, |id| {
            format!(" (`prima models pull {id}` gets it, if it is one of the hub)")
        });
        anyhow::bail!("there is no {what} {text}: is the path right?{hint}");
    }
    Ok(())
}
