//! What a product counts for: `alpha / rank`, where the file says alpha.

use super::keys::{LayerName, Network};
use crate::TensorFile;
use serde_json::Value;
use std::path::Path;

/// The settings with which peft made an adapter, where they are written beside the weights: in diffusers' own metadata, or in
/// the `adapter_config.json` of peft's folders.
#[derive(Default)]
pub(super) struct Scales {
    settings: Value,
    /// Fields begin with the component's name.
    by_component: bool,
}

impl Scales {
    pub fn of(file: &TensorFile, path: &Path) -> Self {
        let stored = file.metadata().get("lora_adapter_metadata");
        if let Some(settings) = stored.and_then(|text| serde_json::from_str(text).ok()) {
            return Self {
                settings,
                by_component: true,
            };
        }
        let is_pefts = path.file_name().is_some_and(|name| name == "adapter_model.safetensors");
        let beside = is_pefts.then(|| std::fs::read(path.with_file_name("adapter_config.json")).ok());
        let settings = beside.flatten().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self {
            settings: settings.unwrap_or_default(),
            by_component: false,
        }
    }

    fn field(&self, network: Network, name: &str) -> &Value {
        if self.by_component {
            &self.settings[format!("{}.{name}", network.component())]
        } else {
            &self.settings[name]
        }
    }

    /// Of a layer of this rank, where these settings say it. `alpha_pattern` has paths of modules, or their ends.
    pub fn scale(&self, layer: &LayerName, rank: usize) -> Option<f32> {
        let network = layer.network;
        let of_pattern = self.field(network, "alpha_pattern").as_object().and_then(|patterns| {
            let fits = |pattern: &str| {
                let pattern = pattern.trim_start_matches('^').trim_end_matches('$').replace('.', "_");
                let pattern = pattern.strip_prefix("text_model_").unwrap_or(&pattern);
                layer.layer == pattern || layer.layer.ends_with(&format!("_{pattern}"))
            };
            patterns.iter().find(|(pattern, _)| fits(pattern))?.1.as_f64()
        });
        let alpha = of_pattern.or_else(|| self.field(network, "lora_alpha").as_f64())?;
        let rank = rank as f64;
        let is_stabilized = self.field(network, "use_rslora").as_bool().unwrap_or(false);
        Some((alpha / if is_stabilized { rank.sqrt() } else { rank }) as f32)
    }
}
