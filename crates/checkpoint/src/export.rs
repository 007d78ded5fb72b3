//! Parameters to model files: a reader sees the old file or the new one, never half of one
//! ([`whole_file`](crate::whole_file)).

use crate::Error;
use crate::tensor_file::{GROUPS, SCALE};
use crate::whole_file::replace;
use prima_tensor::{DType, INT4_GROUP, Param, Tensor};
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
    create_folder(folder)?;
    write_safetensors(&folder.join(weights), params, dtype)?;
    write_json(&folder.join("config.json"), config)
}

/// Makes a folder, and those that it lies in.
pub fn create_folder(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(Error::io("create", folder))
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
    write_views(path, views, metadata)
}

/// [`write_safetensors`] with every weight that is kept in 8 bits as bytes, its scales under the same key with `_scale` behind it; those
/// of 4 bits as `[outputs, ..., inputs / 2]` bytes, the first weight in the low half, and with `_groups` behind the key the
/// step and the zero plus 128 of every 32 of them; other matrices and convolutions in bf16, vectors in f32.
pub fn write_quantized(path: &Path, params: &[(String, Param)]) -> Result<(), Error> {
    let mut views = Vec::new();
    for (key, param) in params {
        if let Some(bits) = param.bits() {
            views.push((key.clone(), Quantized::new(param, Part::Weights(bits))));
            views.push((format!("{key}{SCALE}"), Quantized::new(param, Part::Scales)));
            if bits == 4 {
                views.push((format!("{key}{GROUPS}"), Quantized::new(param, Part::Groups)));
            }
        } else {
            let is_vector = param.shape().len() < 2;
            let dtype = if is_vector { DType::F32 } else { DType::BF16 };
            views.push((key.clone(), Quantized::new(param, Part::Value(dtype))));
        }
    }
    write_views(path, views, &[])
}

fn write_views<S: AsRef<str> + Ord + std::fmt::Display, V: View>(
    path: &Path,
    views: Vec<(S, V)>,
    metadata: &[(&str, String)],
) -> Result<(), Error> {
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

/// A tensor of a quantized file, made when its turn to be written comes.
struct Quantized<'a> {
    param: &'a Param,
    part: Part,
    shape: Vec<usize>,
}

/// What of a parameter is written.
#[derive(Clone, Copy)]
enum Part {
    /// It in this many bits.
    Weights(u8),
    /// What one of them is worth, for each output.
    Scales,
    /// Of 4 bits, step and zero of each group.
    Groups,
    /// The value in this type.
    Value(DType),
}

impl<'a> Quantized<'a> {
    fn new(param: &'a Param, part: Part) -> Self {
        let mut shape = param.shape();
        match part {
            Part::Scales => shape.truncate(1),
            Part::Groups => shape = vec![shape[0], shape[1..].iter().product::<usize>() / INT4_GROUP, 2],
            Part::Weights(4) => {
                let inputs = shape.remove(1);
                shape.push(inputs / 2);
            }
            Part::Weights(_) | Part::Value(_) => {}
        }
        Self { param, part, shape }
    }
}

impl View for Quantized<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        match self.part {
            Part::Weights(4) | Part::Groups => safetensors::Dtype::U8,
            Part::Weights(_) => safetensors::Dtype::I8,
            Part::Value(DType::BF16) => safetensors::Dtype::BF16,
            Part::Scales | Part::Value(_) => safetensors::Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = || self.param.int8_values().unwrap_or_default();
        let nibbles = || self.param.int4_values().unwrap_or_default();
        Cow::Owned(match self.part {
            Part::Weights(4) => nibbles().nibbles,
            Part::Groups => nibbles().groups.into_flattened(),
            Part::Weights(_) => bytes().0.into_iter().map(i8::cast_unsigned).collect(),
            Part::Scales => {
                let scales = self.param.int4_values().map_or_else(|| bytes().1, |rows| rows.scales);
                scales.iter().flat_map(|v| v.to_le_bytes()).collect()
            }
            Part::Value(dtype) => Encoded::new(self.param, dtype).data().into_owned(),
        })
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype().bitsize() / 8
    }
}
