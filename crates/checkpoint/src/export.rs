//! Parameters to model files: a reader sees the old file or the new one, never half of one
//! ([`whole_file`](crate::whole_file)).

use crate::Error;
use crate::whole_file::replace;
use prima_tensor::{DType, Param, Tensor};
use safetensors::tensor::View;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// Writes a component into `folder`: `config.json` and `<weights>` (diffusers calls the latter
/// `diffusion_pytorch_model.safetensors`, transformers `model.safetensors`; see [`weights_name`]).
pub fn export(
    folder: &Path,
    weights: &str,
    config: &serde_json::Value,
    params: &[(String, Param)],
    dtype: DType,
) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    write_safetensors(&folder.join(weights), params, dtype)?;
    write_json(&folder.join("config.json"), config)
}

/// The name of the weights file that loaders expect in a component's folder.
pub fn weights_name(component: &str) -> &'static str {
    if component.starts_with("text_encoder") {
        "model.safetensors"
    } else {
        "diffusion_pytorch_model.safetensors"
    }
}

/// Writes `params` to one safetensors file in the given storage type, atomically.
pub fn write_safetensors(path: &Path, params: &[(String, Param)], dtype: DType) -> Result<(), Error> {
    write_safetensors_with(path, params, dtype, &[])
}

/// The same with `metadata` in the file's header.
pub fn write_safetensors_with(
    path: &Path,
    params: &[(String, Param)],
    dtype: DType,
    metadata: &[(&str, String)],
) -> Result<(), Error> {
    let views: Vec<_> = params
        .iter()
        .map(|(key, param)| (key.as_str(), Encoded::new(param, dtype)))
        .collect();
    // transformers refuses a file that does not say so.
    let format = ("format".to_owned(), "pt".to_owned());
    let said = metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
    let metadata: HashMap<String, String> = said.chain([format]).collect();
    replace(path, |temporary| {
        safetensors::serialize_to_file(views, Some(metadata), temporary).map_err(|error| match error {
            safetensors::SafeTensorError::IoError(source) => Error::Io {
                doing: "write",
                path: path.to_path_buf(),
                source,
            },
            other => Error::File {
                file: path.display().to_string(),
                message: other.to_string(),
            },
        })
    })
}

/// Writes pretty-printed JSON with a final newline, atomically.
pub fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), Error> {
    write_bytes(path, format!("{value:#}\n").as_bytes())
}

/// Writes a file, atomically.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace(path, |temporary| {
        fs::write(temporary, bytes).map_err(Error::io("write", path))
    })
}

/// A parameter that is converted only when its turn to be written comes.
struct Encoded {
    tensor: Tensor,
    dtype: DType,
}

impl Encoded {
    fn new(param: &Param, dtype: DType) -> Self {
        Self {
            tensor: param.tensor().detach(),
            dtype,
        }
    }
}

impl View for Encoded {
    fn dtype(&self) -> safetensors::Dtype {
        match self.dtype {
            DType::F32 => safetensors::Dtype::F32,
            DType::F16 => safetensors::Dtype::F16,
            DType::BF16 => safetensors::Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.tensor.data().iter();
        Cow::Owned(match self.dtype {
            DType::F32 => values.flat_map(|v| v.to_le_bytes()).collect(),
            DType::F16 => values.flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            DType::BF16 => values.flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
        })
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.dtype.size()
    }
}
