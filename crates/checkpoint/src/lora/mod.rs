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
        let without_end = attentions_without_end(&layers);
        strange.extend(
            without_end
                .iter()
                .flat_map(|layer| layers.remove(layer).unwrap_or_default().into_values()),
        );
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

/// Layers that diffusers leaves out, and with it this, so that a file paints what it paints there: those of the attention of a text
/// encoder whose `out_proj` has no LoRA, while its perceptron has one. Only of kohya's keys (diffusers 0.42,
/// `convert_state_dict_to_peft`, which tells the spelling of all by that key). Trainers write all layers or no text encoder.
fn attentions_without_end(layers: &BTreeMap<LayerName, Roles>) -> Vec<LayerName> {
    let is_kohyas = |roles: &Roles| roles.get(&Role::Down).is_some_and(|key| key.starts_with("lora_te"));
    [Network::TextEncoder, Network::TextEncoder2]
        .into_iter()
        .flat_map(|network| {
            let own = layers
                .iter()
                .filter(move |(layer, roles)| layer.network == network && is_kohyas(roles));
            let own: Vec<&LayerName> = own.map(|(layer, _)| layer).collect();
            let has = |part: &str| own.iter().any(|layer| layer.layer.contains(part));
            let leaves_out = has("_mlp_") && !has("_self_attn_out_proj");
            own.into_iter()
                .filter(move |layer| leaves_out && layer.layer.contains("_self_attn_"))
                .cloned()
                .collect::<Vec<_>>()
        })
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use prima_tensor::{DType, Param, Tensor};

    /// The sum that a file of these tensors adds to `conv_in` of `shape` at weight 1, without reading its base.
    fn sum(tensors: &[(&str, &[usize], &[f32])], shape: &[usize]) -> Vec<f32> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let params: Vec<_> = tensors
            .iter()
            .map(|(key, shape, values)| {
                let tensor = Tensor::from_vec(values.to_vec(), shape);
                (format!("lora_unet_conv_in.{key}"), Param::new(tensor))
            })
            .collect();
        crate::write_safetensors(&path, &params, DType::F32).unwrap();
        let file = LoraFile::open(&path).unwrap();
        let layer = file.layers().next().unwrap().clone();
        let change = file.change(&layer, shape).unwrap();
        let none = || Tensor::zeros(shape);
        change.dense(shape, 1.0, &none).unwrap().into_vec()
    }

    #[test]
    fn attention_of_a_text_encoder_without_its_last_layer_is_left_out_as_diffusers_does() {
        let folder = tempfile::tempdir().unwrap();
        let layers = |names: &[&str]| {
            let path = folder.path().join("x.safetensors");
            let params: Vec<_> = names
                .iter()
                .flat_map(|name| {
                    ["down", "up"].map(|part| {
                        let key = format!("lora_te1_text_model_encoder_layers_0_{name}.lora_{part}.weight");
                        (key, Param::new(Tensor::zeros(&[2, 2])))
                    })
                })
                .collect();
            crate::write_safetensors(&path, &params, DType::F32).unwrap();
            let file = LoraFile::open(&path).unwrap();
            (file.layers().count(), file.strange_keys().len())
        };
        assert_eq!(layers(&["self_attn_q_proj", "self_attn_v_proj", "mlp_fc1"]), (1, 4));
        assert_eq!(layers(&["self_attn_q_proj", "self_attn_out_proj", "mlp_fc1"]), (3, 0));
        assert_eq!(layers(&["self_attn_q_proj", "self_attn_v_proj"]), (2, 0));
    }

    #[test]
    fn alpha_over_rank_scales_every_kind_once() {
        let (column, row): (&[usize], &[usize]) = (&[2, 1], &[1, 2]);
        let lora = sum(
            &[
                ("lora_down.weight", row, &[1.0, 2.0]),
                ("lora_up.weight", column, &[3.0, 4.0]),
                ("alpha", &[], &[0.5]),
            ],
            &[2, 2],
        );
        assert_eq!(lora, [1.5, 3.0, 2.0, 4.0]);
        let loha = sum(
            &[
                ("hada_w1_a", column, &[1.0, 2.0]),
                ("hada_w1_b", row, &[3.0, 4.0]),
                ("hada_w2_a", column, &[1.0, -1.0]),
                ("hada_w2_b", row, &[2.0, 1.0]),
                ("alpha", &[], &[0.5]),
            ],
            &[2, 2],
        );
        assert_eq!(loha, [3.0, 2.0, -6.0, -4.0]);
        // kron([[1, 2]], up · down) halved.
        let lokr = sum(
            &[
                ("lokr_w1", row, &[1.0, 2.0]),
                ("lokr_w2_a", column, &[1.0, 3.0]),
                ("lokr_w2_b", &[1, 1], &[2.0]),
                ("alpha", &[], &[0.5]),
            ],
            &[2, 2],
        );
        assert_eq!(lokr, [1.0, 2.0, 3.0, 6.0]);
        // Where nothing has a rank, alpha says nothing.
        let whole = sum(
            &[
                ("lokr_w1", &[1, 1], &[2.0]),
                ("lokr_w2", row, &[1.0, 3.0]),
                ("alpha", &[], &[9.0]),
            ],
            &[1, 2],
        );
        assert_eq!(whole, [2.0, 6.0]);
    }

    #[test]
    fn tuckers_form_is_the_chain_of_its_convolutions() {
        // up 2, mid [1, 1, 1, 2] = [3, 5], down [1, 2] = [7, 11].
        let chained = sum(
            &[
                ("lora_down.weight", &[1, 2, 1, 1], &[7.0, 11.0]),
                ("lora_mid.weight", &[1, 1, 1, 2], &[3.0, 5.0]),
                ("lora_up.weight", &[1, 1, 1, 1], &[2.0]),
            ],
            &[1, 2, 1, 2],
        );
        assert_eq!(chained, [42.0, 70.0, 66.0, 110.0]);
    }
}
