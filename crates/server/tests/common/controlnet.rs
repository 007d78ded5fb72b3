//! A folder with a ControlNet for the tiny model.

use super::model_folder;
use prima_pipeline::{ControlNetOptions, LoadOptions};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// A ControlNet as it is before its training, of the model's own way down, but that adds something.
fn write_controlnet(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let unet = model_folder().join("unet");
    let config: Value = serde_json::from_slice(&std::fs::read(unet.join("config.json")).unwrap()).unwrap();
    let fields = config.as_object().unwrap().iter();
    let mut config: Value = fields
        .filter(|(key, _)| !key.starts_with("up_") && !key.starts_with('_'))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    config["_class_name"] = json!("ControlNetModel");
    config["conditioning_embedding_out_channels"] = json!([4, 4, 8, 8]);
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();

    let bytes = std::fs::read(unet.join("diffusion_pytorch_model.safetensors")).unwrap();
    let own = SafeTensors::deserialize(&bytes).unwrap();
    let shared = [
        "conv_in.",
        "time_embedding.",
        "add_embedding.",
        "down_blocks.",
        "mid_block.",
    ];
    let mut tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (key, view) in own.tensors() {
        if shared.iter().any(|start| key.starts_with(start)) {
            tensors.insert(key, (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
        }
    }
    let mut add = |key: String, shape: &[usize]| {
        let count: usize = shape.iter().product();
        let length = key.len();
        let values = (0..count).flat_map(|i| (((i * 37 + length * 11) % 19) as f32 / 19.0 - 0.4).to_le_bytes());
        tensors.insert(key, (Dtype::F32, shape.to_vec(), values.collect()));
    };
    let mut conv = |name: String, [from, to, side]: [usize; 3]| {
        add(format!("{name}.weight"), &[to, from, side, side]);
        add(format!("{name}.bias"), &[to]);
    };
    for (i, width) in [8, 8, 8, 8, 16, 16, 16, 32, 32].into_iter().enumerate() {
        conv(format!("controlnet_down_blocks.{i}"), [width, width, 1]);
    }
    conv("controlnet_mid_block".to_owned(), [32, 32, 1]);
    let blocks = [[4, 4], [4, 4], [4, 4], [4, 8], [8, 8], [8, 8]];
    for (i, [from, to]) in blocks.into_iter().enumerate() {
        conv(format!("controlnet_cond_embedding.blocks.{i}"), [from, to, 3]);
    }
    conv("controlnet_cond_embedding.conv_in".to_owned(), [3, 4, 3]);
    conv("controlnet_cond_embedding.conv_out".to_owned(), [8, 8, 3]);
    let views = tensors
        .iter()
        .map(|(key, (dtype, shape, data))| (key, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    safetensors::serialize_to_file(views, None, &folder.join("diffusion_pytorch_model.safetensors")).unwrap();
}

/// A model beside a folder of one ControlNet.
pub fn options(place: &Path) -> LoadOptions {
    write_controlnet(&place.join("lines"));
    LoadOptions {
        controlnets: ControlNetOptions {
            folder: Some(place.to_path_buf()),
            files: Vec::new(),
        },
        ..LoadOptions::default()
    }
}
