//! `--model`: the embedded model, a folder or a file.

use crate::{Usage, embedded};
use anyhow::Result;
use prima_checkpoint::ModelSource;

/// What `--model` names; without it, the model inside the binary.
pub fn open(model: Option<&str>) -> Result<ModelSource> {
    match model {
        None | Some("embedded") => {
            if embedded::FILES.is_empty() {
                return Err(Usage("this build has no embedded model; pass --model DIR".to_owned()).into());
            }
            Ok(ModelSource::embedded("prima-mini", embedded::FILES))
        }
        Some(path) => Ok(ModelSource::open(path)?),
    }
}
