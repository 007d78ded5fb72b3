//! Files that change a model: LoRA and its relatives (LoCon, LoHa, LoKr, DoRA, GLoRA, differences), whoever wrote them.
//!
//! A [`LoraFile`] says which layers it changes, by names that all writers' spellings come down to ([`LayerName`]); a
//! [`Change`] is what one of them becomes, read from the file, with its shapes made those of the layer. Formulas after
//! LyCORIS 4.1 (`lycoris/modules`, `functional`), kohya's `networks/lora.py` and peft 0.21.

mod change;
mod keys;
mod names;
mod scales;

pub use change::{Change, Delta};
pub use keys::{LayerName, Network};
pub use names::{text_names, unet_names};

use crate::{Error, TensorFile};
use change::LayerKeys;
use keys::{Role, Roles};
use scales::Scales;
use std::collections::BTreeMap;
use std::path::Path;

/// A file of changes to layers.
pub struct LoraFile {
    file: TensorFile,
    layers: BTreeMap<LayerName, Roles>,
    /// Keys that are in no form that is known.
    strange: Vec<String>,
    scales: Scales,
    made_for: Option<String>,
}

impl LoraFile {
    /// Reads the header.
    ///
    /// # Errors
    /// Of a file that is no safetensors file, and of one that changes nothing of a Stable Diffusion model.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = TensorFile::open(path)?;
        let (mut layers, mut strange) = (BTreeMap::<LayerName, Roles>::new(), Vec::new());
        for key in file.tensors().keys() {
            match keys::parse(key) {
                Some((layer, role)) => {
                    if layers.entry(layer).or_default().insert(role, key.clone()).is_some() {
                        let message = format!("`{key}` says again what another key says of the same layer");
                        return Err(file_error(&file, message));
                    }
                }
                None => strange.push(key.clone()),
            }
        }
        // An alpha alone says nothing.
        layers.retain(|_, roles| {
            let is_change = roles.keys().any(|role| *role != Role::Alpha);
            if !is_change {
                strange.extend(roles.values().cloned());
            }
            is_change
        });
        if layers.is_empty() {
            let example = strange
                .first()
                .map_or_else(String::new, |key| format!(", such as `{key}`"));
            let message = format!(
                "it is no LoRA for Stable Diffusion: none of its {} keys{example} changes a UNet or a CLIP text encoder",
                file.tensors().len()
            );
            return Err(file_error(&file, message));
        }
        let scales = Scales::of(&file, path);
        Ok(Self {
            made_for: made_for(&file, &layers),
            file,
            layers,
            strange,
            scales,
        })
    }

    /// The path.
    pub fn name(&self) -> &str {
        self.file.name()
    }

    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.file.metadata()
    }

    /// All layers that it changes.
    pub fn layers(&self) -> impl Iterator<Item = &LayerName> {
        self.layers.keys()
    }

    /// The stored keys of a layer.
    pub fn keys_of(&self, layer: &LayerName) -> impl Iterator<Item = &str> {
        self.layers
            .get(layer)
            .into_iter()
            .flat_map(|roles| roles.values().map(String::as_str))
    }

    /// Keys that are in no form that is known.
    pub fn strange_keys(&self) -> &[String] {
        &self.strange
    }

    pub fn key_count(&self) -> usize {
        self.file.tensors().len()
    }

    /// What becomes of `layer`, whose weight has `shape` in the model.
    ///
    /// # Errors
    /// Names the file, the key and the shapes where they do not fit, or values that are not finite.
    pub fn change(&self, layer: &LayerName, shape: &[usize]) -> Result<Change, Error> {
        let none = Roles::new();
        let keys = LayerKeys {
            file: &self.file,
            scales: &self.scales,
            made_for: self.made_for.as_deref(),
            layer,
            roles: self.layers.get(layer).unwrap_or(&none),
            shape,
        };
        keys.read()
    }

    /// Which models this was made for, in words, as far as its shapes or its metadata say so.
    pub fn made_for(&self) -> Option<&str> {
        self.made_for.as_deref()
    }

    /// The web UI's hash of the weights, 12 hexadecimal digits: of all bytes behind the header, unless the metadata has it.
    pub fn short_hash(&self) -> Result<String, Error> {
        let stored = self.metadata().get("sshs_model_hash");
        let is_hash = |hash: &&String| hash.len() >= 12 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let hash = match stored.filter(is_hash) {
            Some(hash) => hash.clone(),
            None => self.file.data_hash()?,
        };
        Ok(hash[..12].to_owned())
    }
}

/// See [`LoraFile::made_for`].
fn made_for(file: &TensorFile, layers: &BTreeMap<LayerName, Roles>) -> Option<String> {
    // Channels of the text, where the attention to it is changed.
    let width = layers.iter().find_map(|(layer, roles)| {
        let reads_text = layer.network == Network::Unet
            && (layer.layer.ends_with("attn2_to_k") || layer.layer.ends_with("attn2_to_v"));
        let key = roles.get(&Role::Down).filter(|_| reads_text)?;
        file.tensors().get(key)?.shape.get(1).copied()
    });
    let known = match width {
        Some(768) => "Stable Diffusion 1",
        Some(1024) => "Stable Diffusion 2",
        Some(1280) => "the SDXL refiner",
        Some(2048) => "SDXL",
        _ => {
            let keys = ["ss_base_model_version", "modelspec.architecture"];
            let said = keys.iter().find_map(|key| file.metadata().get(*key))?;
            return Some(said.chars().filter(|c| !c.is_control()).take(60).collect());
        }
    };
    Some(known.to_owned())
}

fn file_error(file: &TensorFile, message: String) -> Error {
    Error::File {
        file: file.name().to_owned(),
        message,
    }
}
