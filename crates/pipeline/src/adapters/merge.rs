//! A model with LoRAs in its weights, as a folder of its own.

use super::prepared::Targets;
use crate::families;
use crate::packed_weights::NamedParams;
use crate::{Error, Family};
use prima_checkpoint::export::{create_folder, weights_name, write_bytes, write_json};
use prima_checkpoint::lora::LoraFile;
use prima_checkpoint::{ModelSource, Reader, files_beside_weights, write_safetensors};
use prima_tensor::{DType, Param, Tensor};
use std::path::{Path, PathBuf};

/// Writes `source` to the folder `out` with `loras` added to its weights, each with its weight, in the type in which the model
/// is stored. Returns what is to be said, a sentence each.
pub fn merge(source: &ModelSource, loras: &[(PathBuf, f32)], out: &Path) -> Result<Vec<String>, Error> {
    let family = Family::of(source)?;
    let opened = loras.iter().map(|(path, weight)| Ok((LoraFile::open(path)?, *weight)));
    let loras = opened.collect::<Result<Vec<_>, Error>>()?;
    let files = files_beside_weights(source)?;
    let encoders = family.text_encoders.iter().map(|components| components.text_encoder);
    let encoders = encoders.filter(|name| source.exists(&format!("{name}/config.json")));
    let components: Vec<&str> = encoders.chain(["unet", "vae"]).collect();
    // Before anything is read or written that takes time.
    check_each_changes_something(source, &components, &loras)?;
    let mut counts = vec![0; loras.len()];
    for component in components {
        let (params, dtype) = values(source, component)?;
        let components = [(component.to_owned(), params)];
        add(&components, &loras, &mut counts)?;
        let folder = out.join(component);
        create_folder(&folder)?;
        write_safetensors(&folder.join(weights_name(component)), &components[0].1, dtype)?;
        write_json(&folder.join("config.json"), &source.json(component, "config.json")?)?;
    }
    for (path, bytes) in files {
        let path = out.join(path);
        path.parent().map_or(Ok(()), create_folder)?;
        write_bytes(&path, &bytes)?;
    }
    let mut said = Vec::new();
    for ((lora, _), changed) in loras.iter().zip(counts) {
        let all = lora.layers().count();
        if changed < all {
            said.push(format!(
                "{}: {} of its {all} layers match nothing in this model",
                lora.name(),
                all - changed
            ));
        }
    }
    Ok(said)
}

/// By the keys alone.
fn check_each_changes_something(
    source: &ModelSource,
    components: &[&str],
    loras: &[(LoraFile, f32)],
) -> Result<(), Error> {
    let listed = components.iter().map(|component| {
        let mut reader = source.component_reader(component)?;
        reader.defer();
        load(source, component, &mut reader)?;
        Ok(((*component).to_owned(), reader.into_params()))
    });
    let listed = listed.collect::<Result<Vec<_>, Error>>()?;
    let targets = Targets::of(&listed);
    for (lora, _) in loras {
        if !lora.layers().any(|layer| targets.get(layer).is_some()) {
            let message = "it changes nothing in this model: use a LoRA that was made for this family of models";
            return Err(file_error(lora, message.to_owned()));
        }
    }
    Ok(())
}

/// The network of a component, for its parameters alone.
fn load(source: &ModelSource, component: &str, reader: &mut Reader) -> Result<(), Error> {
    match component {
        "unet" => families::load_unet(source, reader).map(drop),
        "vae" => families::load_vae(source, reader).map(drop),
        _ => families::load_text_encoder(source, component, reader).map(drop),
    }
}

fn file_error(lora: &LoraFile, message: String) -> Error {
    let file = lora.name().to_owned();
    prima_checkpoint::Error::File { file, message }.into()
}

/// A component's parameters in f32, and the type in which they are stored.
fn values(source: &ModelSource, component: &str) -> Result<(NamedParams, DType), Error> {
    let mut stored = DType::F32;
    let params = families::read(source, component, |reader: &mut Reader| {
        if reader.is_quantized() {
            return Err(Error::Model {
                model: source.name(),
                message:
                    "LoRAs are not merged into weights of 8 or 4 bits: merge them into the model that it was made of"
                        .to_owned(),
            });
        }
        stored = storage(reader);
        load(source, component, reader)?;
        Ok(reader.params().to_vec())
    })?;
    Ok((params, stored))
}

/// The type of the largest tensor.
fn storage(reader: &Reader) -> DType {
    let largest = reader
        .tensors()
        .max_by_key(|(_, _, shape)| shape.iter().product::<usize>());
    match largest.map(|(_, dtype, _)| format!("{dtype:?}")).as_deref() {
        Some("F16") => DType::F16,
        Some("BF16") => DType::BF16,
        _ => DType::F32,
    }
}

fn add(components: &[(String, NamedParams)], loras: &[(LoraFile, f32)], counts: &mut [usize]) -> Result<(), Error> {
    let targets = Targets::of(components);
    // All sums are of the model's own weights, in whatever order they come.
    let mut sums: Vec<(Param, Tensor)> = Vec::new();
    for ((lora, weight), count) in loras.iter().zip(counts) {
        for layer in lora.layers() {
            let Some(target) = targets.get(layer) else { continue };
            let shape = target.weight.shape();
            let change = lora.change(layer, &shape)?;
            if let Some(sum) = change.dense(&shape, *weight, &|| target.weight.tensor()) {
                sums.push((target.weight.clone(), sum));
            }
            if let Some(bias) = change.bias {
                let Some(own) = target.bias else {
                    let message = format!(
                        "it gives {} a bias, which that layer has none of: use it without merging",
                        layer.layer
                    );
                    return Err(file_error(lora, message));
                };
                let values = bias.data().iter().map(|x| weight * x).collect();
                sums.push((own.clone(), Tensor::from_vec(values, bias.shape())));
            }
            *count += 1;
        }
    }
    for (param, sum) in sums {
        param.update(|values| {
            for (value, added) in values.iter_mut().zip(sum.data()) {
                *value += added;
            }
        });
    }
    Ok(())
}
