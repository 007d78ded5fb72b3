//! Words that a model learns from files (textual inversion), before it paints.

use crate::Error;
use crate::conditioning::TextEncoders;
use crate::weight_files::{check_folder, is_safetensors, sorted, stem};
use prima_checkpoint::{EmbeddingFile, EmbeddingVectors};
use prima_tensor::Tensor;
use std::path::{Path, PathBuf};

/// Which embeddings a pipeline has.
#[derive(Clone, Debug, Default)]
pub struct EmbeddingOptions {
    /// Every safetensors file in this folder that is for the model, by its name without the ending.
    pub folder: Option<PathBuf>,
    /// Files, and the words that they are called by, if not by their names.
    pub files: Vec<(PathBuf, Option<String>)>,
}

/// A word and its number of vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingEntry {
    pub name: String,
    pub vectors: usize,
    pub width: usize,
}

impl TextEncoders {
    /// Teaches these encoders the words of `options`. Returns which, and those of the folder that are for other models.
    pub(crate) fn learn(&mut self, options: &EmbeddingOptions) -> Result<(Vec<EmbeddingEntry>, Vec<String>), Error> {
        let (mut learnt, mut skipped) = (Vec::new(), Vec::new());
        for (path, word) in &options.files {
            self.learn_file(path, word.as_deref(), &mut learnt)?;
        }
        if let Some(folder) = &options.folder {
            check_folder("--embeddings-dir", folder)?;
            for path in sorted(folder).into_iter().filter(|path| is_safetensors(path)) {
                if self.learn_file(&path, None, &mut learnt).is_err() {
                    skipped.push(stem(&path));
                }
            }
        }
        Ok((learnt, skipped))
    }

    fn learn_file(&mut self, path: &Path, word: Option<&str>, learnt: &mut Vec<EmbeddingEntry>) -> Result<(), Error> {
        let file = EmbeddingFile::open(path)?;
        let vectors = self.fitting(&file)?;
        let mut words = vec![word.map_or_else(|| stem(path), str::to_owned)];
        // diffusers' own word, where it is no plain one that prompts have anyway.
        words.extend(file.token.filter(|token| word.is_none() && token.starts_with('<')));
        for word in words {
            if word.trim().is_empty() {
                return Err(Error::request("embedding", "\"\"", "give it a word: FILE:WORD"));
            }
            self.add_word(&word, &vectors);
            learnt.push(EmbeddingEntry {
                vectors: vectors[0].dim(0),
                width: vectors[0].dim(1),
                name: word,
            });
        }
        Ok(())
    }

    /// The vectors for each encoder.
    fn fitting(&self, file: &EmbeddingFile) -> Result<Vec<Tensor>, Error> {
        let widths: Vec<usize> = self.encoders().iter().map(|e| e.model.config().hidden_size).collect();
        let vectors = match (&file.vectors, widths.len()) {
            (EmbeddingVectors::One(vectors), 1) => vec![vectors.clone()],
            (EmbeddingVectors::Two(vectors), 2) => vectors.to_vec(),
            (EmbeddingVectors::One(vectors), _) => return Err(misfit(file, &[vectors.dim(1)], &widths)),
            (EmbeddingVectors::Two(two), _) => return Err(misfit(file, &two.each_ref().map(|v| v.dim(1)), &widths)),
        };
        let found: Vec<usize> = vectors.iter().map(|v| v.dim(1)).collect();
        if found == widths {
            Ok(vectors)
        } else {
            Err(misfit(file, &found, &widths))
        }
    }
}

fn misfit(file: &EmbeddingFile, found: &[usize], widths: &[usize]) -> Error {
    let message = format!(
        "the embedding has vectors of {found:?} channels, and this model's text encoders read {widths:?}: use one that was made \
         for this family of models"
    );
    prima_checkpoint::Error::File {
        file: file.file.clone(),
        message,
    }
    .into()
}
