//! ControlNets in one file, in diffusers' names or the original's (`control_model.`).

use super::Family;
use super::network::Network;
use super::rename::CONTROLNET_EMBEDDING as EMBEDDING;
use super::unet_config::unet_config;
use crate::tensor_file::TensorFile;
use crate::{Error, Reader};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// A file that holds a ControlNet.
pub struct ControlNetFile(Network);

impl ControlNetFile {
    /// Opens it; one that holds no ControlNet is refused by what it lacks.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = Arc::new(TensorFile::open(path)?);
        let network = Network::controlnet(&file).ok_or_else(|| Error::Unsupported {
            file: path.display().to_string(),
            field: "kind of file".to_owned(),
            found: "no ControlNet".to_owned(),
            fix: "a ControlNet has `controlnet_cond_embedding.` keys, or `input_hint_block.` in the original's names"
                .to_owned(),
        })?;
        Ok(Self(network))
    }

    /// The `config.json` that a folder of it would have, told by its tensors.
    pub fn config(&self) -> Result<Value, Error> {
        told(&self.0)
    }

    /// A reader of its weights under diffusers' keys.
    pub fn reader(self) -> Reader {
        self.0.reader("controlnet")
    }
}

/// The config that diffusers would write.
fn told(network: &Network) -> Result<Value, Error> {
    let family = network.unet_family();
    let mut config = unet_config(network, family, if family == Family::Sdxl { 128 } else { 64 })?;
    let mut widths = vec![network.size(&format!("{EMBEDDING}.conv_in.weight"), 0)?];
    for i in 0..network.count(&format!("{EMBEDDING}.blocks.")) / 2 {
        widths.push(network.size(&format!("{EMBEDDING}.blocks.{}.weight", 2 * i + 1), 0)?);
    }
    config["_class_name"] = json!("ControlNetModel");
    config["conditioning_channels"] = json!(network.size(&format!("{EMBEDDING}.conv_in.weight"), 1)?);
    config["conditioning_embedding_out_channels"] = json!(widths);
    Ok(config)
}
