//! `--model`: the embedded model, a folder or a file.

use crate::{Usage, embedded};
use anyhow::Result;
use prima_checkpoint::ModelSource;
use std::path::Path;

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
