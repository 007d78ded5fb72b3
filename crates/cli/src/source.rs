//! `--model`: the embedded model, a folder or a file; and the files that stand in for parts of it.

use crate::{Usage, embedded};
use anyhow::Result;
use prima_checkpoint::ModelSource;
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
    match model {
        None | Some("embedded") => {
            if embedded::FILES.is_empty() {
                return Err(Usage("this build has no embedded model; pass --model DIR".to_owned()).into());
            }
            Ok(ModelSource::embedded("prima-mini", embedded::FILES))
        }
        Some(path) => {
            check_there(Path::new(path))?;
            Ok(ModelSource::open(path)?)
        }
    }
}

/// The same with other files for some of its parts.
pub fn open_with(model: Option<&str>, parts: &Parts) -> Result<ModelSource> {
    let files = [
        ("unet", &parts.unet),
        ("vae", &parts.vae),
        ("text_encoder", &parts.text_encoder),
        ("text_encoder_2", &parts.text_encoder_2),
    ];
    let mut source = open(model)?;
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
        anyhow::bail!("there is no {what} {text}: is the path right?");
    }
    Ok(())
}
