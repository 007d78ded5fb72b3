//! The texts to learn with their embeddings: `texts.txt` and `embeddings.safetensors` of a data folder.

use crate::error::{Error, Result};
use crate::networks::Texts;
use prima_checkpoint::TensorFile;
use prima_tensor::Tensor;
use std::collections::HashMap;
use std::path::Path;

/// Texts of at most so many tokens, start and end included, are drawn together; the last bound is the encoders' own.
const LENGTHS: [usize; 6] = [5, 7, 9, 12, 16, 22];

pub(crate) struct Corpus {
    texts: Vec<Text>,
    /// `[texts, width]`.
    embeddings: Vec<f32>,
    width: usize,
    /// Tokens of a row.
    length: usize,
    /// Texts in the order of their buckets, and where each bucket ends.
    order: Vec<usize>,
    ends: Vec<usize>,
}

struct Text {
    /// For each encoder, with its start and end tokens and padding.
    ids: Vec<Vec<u32>>,
    /// Where the end token is.
    end: usize,
    /// Positions whose words stand alone in the corpus as well, and where there.
    words: Vec<(usize, usize)>,
}

/// A batch.
pub(super) struct Rows {
    /// For each encoder, row by row.
    pub(super) ids: Vec<Vec<u32>>,
    /// `[B, width]`.
    pub(super) target: Tensor,
    /// `[B * L, width]`, zeros where there is nothing to learn.
    pub(super) token_targets: Tensor,
    /// `B * L`, 1 in the mean.
    pub(super) token_weights: Vec<f32>,
}

impl Corpus {
    pub(crate) fn open(folder: &Path, texts: &Texts) -> Result<Self> {
        let path = folder.join("texts.txt");
        let lines = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let lines: Vec<&str> = lines.lines().collect();
        let path = folder.join("embeddings.safetensors");
        let embeddings = TensorFile::open(&path)?.read("embeddings")?;
        if embeddings.shape().len() != 2 || embeddings.dim(0) != lines.len() || lines.is_empty() {
            let message = format!(
                "embeddings have shape {:?}, but texts.txt has {} lines; write both again with scripts/words/embed.py",
                embeddings.shape(),
                lines.len()
            );
            return Err(Error::file(&path, message));
        }
        Self::new(&lines, embeddings, texts)
    }

    /// `embeddings`: `[lines, width]`.
    pub(crate) fn new(lines: &[&str], embeddings: Tensor, texts: &Texts) -> Result<Self> {
        let alone: HashMap<String, usize> = lines.iter().enumerate().map(|(i, l)| (l.to_lowercase(), i)).collect();
        let read: Vec<Text> = lines
            .iter()
            .map(|line| Text::read(line, texts, &alone))
            .collect::<Result<_>>()?;
        let length = texts.max_length();
        let bucket = |text: &Text| LENGTHS.iter().take_while(|most| text.end + 1 > **most).count();
        let mut order: Vec<usize> = (0..read.len()).collect();
        order.sort_by_key(|&i| bucket(&read[i]));
        let ends = (0..=LENGTHS.len())
            .map(|b| order.partition_point(|&i| bucket(&read[i]) <= b))
            .collect();
        Ok(Self {
            texts: read,
            width: embeddings.dim(1),
            embeddings: embeddings.into_vec(),
            length,
            order,
            ends,
        })
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// One row for each of `draws`, all from the bucket in which `which` falls; the draws and `padding` are in [0, 1).
    pub(super) fn rows(&self, which: f32, draws: &[f32], padding: &[f32], is_full: bool) -> Rows {
        let pick = |range: std::ops::Range<usize>, draw: f32| {
            range.start + ((f64::from(draw) * range.len() as f64) as usize).min(range.len() - 1)
        };
        let at = pick(0..self.order.len(), which);
        let end = self.ends[self.ends.partition_point(|&end| end <= at)];
        let start = self.ends.iter().rev().find(|&&end| end <= at).copied().unwrap_or(0);
        let chosen: Vec<usize> = draws.iter().map(|&draw| self.order[pick(start..end, draw)]).collect();
        let longest = chosen.iter().map(|&i| self.texts[i].end + 1).max().unwrap_or(1);
        let length = if is_full {
            self.length
        } else {
            (longest + 1).min(self.length)
        };
        let encoders = self.texts[chosen[0]].ids.len();
        let ids = (0..encoders)
            .map(|e| {
                chosen
                    .iter()
                    .flat_map(|&i| &self.texts[i].ids[e][..length])
                    .copied()
                    .collect()
            })
            .collect();
        let mut target = Vec::with_capacity(chosen.len() * self.width);
        let mut token_targets = vec![0.0; chosen.len() * length * self.width];
        let mut token_weights = vec![0.0f32; chosen.len() * length];
        for ((row, &i), &draw) in chosen.iter().enumerate().zip(padding) {
            let text = &self.texts[i];
            target.extend_from_slice(self.embedding(i));
            let mut learn = |position: usize, of: usize| {
                let token = row * length + position;
                token_weights[token] = 1.0;
                token_targets[token * self.width..(token + 1) * self.width].copy_from_slice(self.embedding(of));
            };
            for &(position, word) in &text.words {
                learn(position, word);
            }
            learn(text.end, i);
            if text.end + 1 < length {
                learn(pick(text.end + 1..length, draw), i);
            }
        }
        let scale = token_weights.len() as f32 / token_weights.iter().sum::<f32>();
        for weight in &mut token_weights {
            *weight *= scale;
        }
        Rows {
            ids,
            target: Tensor::from_vec(target, &[chosen.len(), self.width]),
            token_targets: Tensor::from_vec(token_targets, &[chosen.len() * length, self.width]),
            token_weights,
        }
    }

    fn embedding(&self, text: usize) -> &[f32] {
        &self.embeddings[text * self.width..(text + 1) * self.width]
    }
}

impl Text {
    fn read(line: &str, texts: &Texts, alone: &HashMap<String, usize>) -> Result<Self> {
        let (mut ids, mut end, mut words) = (Vec::new(), 0, Vec::new());
        for encoder in texts.encoders.encoders() {
            let encoded = encoder.tokenizer.encode(line)?;
            end = encoded.eos_index;
            let kept = line.strip_suffix(encoded.dropped.as_str()).unwrap_or(line);
            words = known_words(kept, &encoded.starts, alone);
            ids.push(encoded.ids);
        }
        Ok(Self { ids, end, words })
    }
}

/// For each word that stands alone in the corpus: the position of its last token, the start token counted, and its number
/// there. `starts` are the bytes at which tokens begin.
fn known_words(line: &str, starts: &[usize], alone: &HashMap<String, usize>) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for word in line.split_whitespace() {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
        if bare.is_empty() {
            continue;
        }
        let first = bare.as_ptr() as usize - line.as_ptr() as usize;
        let last = starts.partition_point(|&start| start < first + bare.len());
        if let Some(&number) = alone.get(&bare.to_lowercase()) {
            found.push((last, number));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_stand_alone_are_found_at_their_last_tokens() {
        let alone = HashMap::from([("red".to_owned(), 4), ("car".to_owned(), 7), ("red car".to_owned(), 9)]);
        // "A re|d car, o|dd": the tokens begin at these bytes.
        let starts = [0, 2, 4, 6, 9, 11, 12];
        assert_eq!(known_words("A Red car, odd", &starts, &alone), [(3, 4), (4, 7)]);
    }
}
