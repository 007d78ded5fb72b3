//! Words that were learnt (textual inversion): vectors in place of tokens' embeddings, in a file of their own.

use crate::{Error, TensorFile};
use prima_tensor::Tensor;
use std::path::Path;

/// The vectors of one word, `[vectors, width]` for each text encoder that it is for.
#[derive(Clone, Debug)]
pub struct EmbeddingFile {
    pub file: String,
    /// What diffusers wrote them under, such as `<cat-toy>`.
    pub token: Option<String>,
    pub vectors: EmbeddingVectors,
}

/// For which text encoders they are.
#[derive(Clone, Debug)]
pub enum EmbeddingVectors {
    /// Of a model with one.
    One(Tensor),
    /// Of SDXL: `clip_l` and `clip_g`.
    Two([Tensor; 2]),
}

impl EmbeddingFile {
    /// A safetensors file as the web UI (`emb_params`), kohya for SDXL (`clip_l`, `clip_g`) or diffusers (the word itself)
    /// names its tensors.
    ///
    /// # Errors
    /// Of pickled files, which may run code when they are read, and of files that are no embeddings.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let error = |message: String| Error::File {
            file: path.display().to_string(),
            message,
        };
        let ending = path
            .extension()
            .unwrap_or_default()
            .to_string_lossy()
            .to_ascii_lowercase();
        if ["pt", "bin", "pth", "ckpt"].contains(&ending.as_str()) {
            return Err(error(
                "a pickled embedding is not read, for it may run code: use its safetensors form".to_owned(),
            ));
        }
        let file = TensorFile::open(path)?;
        let keys: Vec<&String> = file.tensors().keys().collect();
        let read = |key: &str| {
            let tensor = file.read(key)?;
            match *tensor.shape() {
                [width] if width > 0 => Ok(tensor.reshape(&[1, width])),
                [vectors, width] if vectors * width > 0 => Ok(tensor),
                _ => Err(error(format!(
                    "`{key}` has shape {:?}, and an embedding is [vectors, width]",
                    tensor.shape()
                ))),
            }
        };
        let has = |key: &str| file.tensors().contains_key(key);
        let (token, vectors) = if has("clip_l") && has("clip_g") {
            let two = [read("clip_l")?, read("clip_g")?];
            if two[0].dim(0) != two[1].dim(0) {
                return Err(error(
                    "`clip_l` and `clip_g` have different numbers of vectors".to_owned(),
                ));
            }
            (None, EmbeddingVectors::Two(two))
        } else if has("emb_params") {
            (None, EmbeddingVectors::One(read("emb_params")?))
        } else {
            let [key] = keys[..] else {
                let message = "it is no embedding: expected are `emb_params`, `clip_l` and `clip_g`, or one tensor named like its word";
                return Err(error(message.to_owned()));
            };
            let is_word = !key.contains('.') && !["clip_l", "clip_g"].contains(&key.as_str());
            (is_word.then(|| key.clone()), EmbeddingVectors::One(read(key)?))
        };
        Ok(Self {
            file: path.display().to_string(),
            token,
            vectors,
        })
    }
}
