//! Reading the fixtures that `scripts/goldens` wrote from diffusers.

#![allow(dead_code, reason = "each test binary uses its own part")]

use prima_checkpoint::{Error, Reader, TensorFile};
use prima_tensor::{Tensor, nchw_to_nhwc};
use std::path::{Path, PathBuf};

/// Of the largest magnitude of the expected tensor.
const TOLERANCE: f32 = 1e-4;

pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens")
}

/// The outputs of diffusers for one component.
pub struct Golden {
    file: TensorFile,
}

impl Golden {
    pub fn open(name: &str) -> Self {
        let path = goldens().join("components").join(format!("{name}.safetensors"));
        Self {
            file: TensorFile::open(&path).unwrap(),
        }
    }

    pub fn has(&self, key: &str) -> bool {
        self.file.tensors().contains_key(key)
    }

    pub fn keys(&self) -> Vec<String> {
        self.file.tensors().keys().cloned().collect()
    }

    pub fn tensor(&self, key: &str) -> Tensor {
        self.file.read(key).unwrap()
    }

    /// Token ids `[B, L]` and `B`.
    pub fn ids(&self, key: &str) -> (Vec<u32>, usize) {
        let bytes = std::fs::read(self.file.name()).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let view = file.tensor(key).unwrap();
        assert_eq!(view.dtype(), safetensors::Dtype::I64);
        let ids = view
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|&id| i64::from_le_bytes(id) as u32)
            .collect();
        (ids, view.shape()[0])
    }

    /// A picture-like tensor, to channels-last.
    pub fn nhwc(&self, key: &str) -> Tensor {
        nchw_to_nhwc(&self.tensor(key))
    }
}

/// A component of a diffusers folder: the text of its config and a reader of its weights.
pub fn component(folder: &str, weights: &str) -> (String, Reader) {
    let folder = goldens().join(folder);
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
    (config, Reader::open(&folder.join(weights)).unwrap())
}

/// Builds a model and checks that every tensor of the file was used.
pub fn build<M>(mut reader: Reader, new: impl FnOnce(&mut Reader) -> Result<M, Error>) -> M {
    let model = new(&mut reader).unwrap();
    reader.finish().unwrap();
    model
}

pub fn assert_close(what: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.shape(), expected.shape(), "{what}: shape");
    let scale = expected.data().iter().fold(0.0_f32, |max, v| max.max(v.abs()));
    let worst = found
        .data()
        .iter()
        .zip(expected.data())
        .fold(0.0_f32, |max, (a, b)| max.max((a - b).abs()));
    let finite = found.data().iter().all(|v| v.is_finite());
    assert!(
        finite && worst <= TOLERANCE * scale,
        "{what}: off by {worst} where the largest value is {scale}"
    );
}
