//! A trained LoRA as a file, under kohya's keys or those of peft (and so of diffusers).

use super::Exported;
use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::objectives::LoraSize;
use crate::params::NamedParams;
use crate::trained::needed_state;
use prima_checkpoint::{TensorFile, write_safetensors_with};
use prima_tensor::{DType, Param, Tensor};
use std::path::Path;

/// How a file's keys are spelt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoraKeys {
    /// `lora_unet_down_blocks_1_..._to_q.lora_down.weight` with an `alpha`: A1111, ComfyUI and diffusers read them.
    #[default]
    Kohya,
    /// `unet.down_blocks.1. ... .to_q.lora_A.weight`: diffusers' own.
    Peft,
}

/// A layer of a saved state.
struct Layer {
    /// With its component: `unet.down_blocks.1 ...`.
    module: String,
    down: Tensor,
    up: Tensor,
}

/// Writes the averaged LoRA that `stage` trained to `path`, in f16.
pub(crate) fn export_lora(
    config: &TrainConfig,
    stage: &str,
    size: &LoraSize,
    path: &Path,
    keys: LoraKeys,
) -> Result<Exported> {
    let layers = layers(&needed_state(config, stage)?)?;
    let encoders = config.family()?.text_encoders.len();
    let (mut params, mut greatest) = (NamedParams::new(), 0);
    for Layer { module, down, up } in layers {
        let rank = down.dim(0);
        let scale = size.scale(rank);
        greatest = greatest.max(rank);
        let mut push = |key: String, tensor: Tensor| params.push((key, Param::new(tensor)));
        match keys {
            LoraKeys::Kohya => {
                let name = kohyas(&module, encoders);
                push(format!("{name}.lora_down.weight"), down);
                push(format!("{name}.lora_up.weight"), up);
                push(format!("{name}.alpha"), Tensor::scalar(scale * rank as f32));
            }
            LoraKeys::Peft => {
                // Readers take an alpha of the rank, unless metadata of their own say otherwise.
                let up_values = up.data().iter().map(|value| scale * value).collect();
                push(format!("{module}.lora_A.weight"), down);
                push(
                    format!("{module}.lora_B.weight"),
                    Tensor::from_vec(up_values, up.shape()),
                );
            }
        }
    }
    params.sort_by(|a, b| a.0.cmp(&b.0));
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut said = vec![
        ("modelspec.title", config.export.name.clone()),
        ("ss_output_name", name),
    ];
    if keys == LoraKeys::Kohya {
        said.push(("ss_network_module", "networks.lora".to_owned()));
        said.push(("ss_network_dim", greatest.to_string()));
        said.push(("ss_network_alpha", (size.scale(greatest) * greatest as f32).to_string()));
    }
    write_safetensors_with(path, &params, DType::F16, &said)?;
    Ok(Exported {
        folder: path.to_path_buf(),
        parameters: params.iter().map(|(_, param)| param.numel()).sum(),
        bytes: std::fs::metadata(path).map_err(Error::io(path))?.len(),
    })
}

fn layers(state: &Path) -> Result<Vec<Layer>> {
    let file = TensorFile::open(state)?;
    let mut layers = Vec::new();
    for key in file.tensors().keys() {
        let module = key
            .strip_prefix("ema.")
            .and_then(|key| key.strip_suffix(".lora_A.weight"));
        let Some(module) = module else { continue };
        layers.push(Layer {
            module: module.to_owned(),
            down: file.read(key)?,
            up: file.read(&format!("ema.{module}.lora_B.weight"))?,
        });
    }
    if layers.is_empty() {
        return Err(Error::file(state, "has no LoRA: it is another stage's"));
    }
    Ok(layers)
}

/// `unet.a.b` to `lora_unet_a_b`; where there are two text encoders, they are numbered.
fn kohyas(module: &str, encoders: usize) -> String {
    let (component, layer) = module.split_once('.').unwrap_or((module, ""));
    let start = match component {
        "text_encoder" if encoders > 1 => "lora_te1",
        "text_encoder_2" => "lora_te2",
        "text_encoder" => "lora_te",
        _ => "lora_unet",
    };
    format!("{start}_{}", layer.replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_encoders_are_numbered_where_there_are_two() {
        let layer = "text_model.encoder.layers.0.mlp.fc1";
        for (component, encoders, start) in [
            ("text_encoder", 1, "lora_te_"),
            ("text_encoder", 2, "lora_te1_"),
            ("text_encoder_2", 2, "lora_te2_"),
            ("unet", 2, "lora_unet_"),
        ] {
            let want = format!("{start}text_model_encoder_layers_0_mlp_fc1");
            assert_eq!(kohyas(&format!("{component}.{layer}"), encoders), want);
        }
    }
}
