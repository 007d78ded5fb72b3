//! The words that a model learnt from pictures, so that a prompt's others can be named with what they come nearest to.
//!
//! Two files beside `model_index.json`, which `prima train export` writes:
//! - `known_words.txt`: the words of the captions in lower case, one a line, the most frequent first;
//! - `known_words.safetensors`: `embeddings` `[M, projection_dim]`, the last text encoder's pooled output for each of the
//!   first `M` words by itself, of length 1.

use crate::Error;
use prima_checkpoint::{Init, ModelSource, ParamSource, Reader, write_safetensors};
use prima_tensor::{DType, Param, Tensor};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

const WORDS: &str = "known_words.txt";
const EMBEDDINGS: &str = "known_words.safetensors";
/// Words with an embedding: 1 MB at 256 channels.
const MOST_SUGGESTED: usize = 2048;
/// Below this cosine two words have nothing to do with each other.
const RELATED: f32 = 0.4;
/// Nearest words that are named.
const NEAREST: usize = 2;

/// Words that show nothing, which nobody needs to be told about.
const SILENT: [&str; 56] = [
    "a", "an", "the", "this", "that", "these", "those", "some", "any", "each", "every", "and", "or", "but", "not",
    "no", "is", "are", "was", "be", "being", "been", "am", "has", "have", "having", "of", "to", "for", "from", "by",
    "at", "in", "on", "into", "with", "without", "as", "it", "its", "his", "her", "their", "my", "your", "our", "he",
    "she", "they", "very", "so", "please", "me", "i", "you", "than",
];

/// Gives a text's embedding; `None` where the text encoders have none.
pub(crate) type Embed<'a> = &'a dyn Fn(&str) -> Result<Option<Vec<f32>>, Error>;

/// A word that no caption had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    pub word: String,
    /// Those that captions had and that mean about the same, the nearest first; often none.
    pub nearest: Vec<String>,
}

/// What [`TextEncoders`](crate::TextEncoders) looks words up in.
pub struct KnownWords {
    words: Vec<String>,
    set: HashSet<String>,
    /// `[M, width]`.
    embeddings: Vec<f32>,
    width: usize,
}

impl KnownWords {
    /// Of the words in `captions`; `None` where `embed` gives nothing.
    pub(crate) fn learn<'a>(captions: impl Iterator<Item = &'a str>, embed: Embed) -> Result<Option<Self>, Error> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for word in captions.flat_map(spelled) {
            *counts.entry(word).or_default() += 1;
        }
        let mut words: Vec<(String, usize)> = counts.into_iter().collect();
        words.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let words: Vec<String> = words.into_iter().map(|(word, _)| word).collect();
        let (mut embeddings, mut width) = (Vec::new(), 0);
        for word in words.iter().take(MOST_SUGGESTED) {
            let Some(embedding) = embed(word)? else {
                return Ok(None);
            };
            width = embedding.len();
            embeddings.extend(embedding);
        }
        Ok((width > 0).then(|| Self::of(words, embeddings, width)))
    }

    fn of(words: Vec<String>, embeddings: Vec<f32>, width: usize) -> Self {
        Self {
            set: words.iter().cloned().collect(),
            words,
            embeddings,
            width,
        }
    }

    /// Writes both files into a model's folder.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let text = self.words.join("\n") + "\n";
        prima_checkpoint::export::write_bytes(&folder.join(WORDS), text.as_bytes())?;
        let rows = self.embeddings.len() / self.width;
        let tensor = Param::new(Tensor::from_vec(self.embeddings.clone(), &[rows, self.width]));
        let tensors = [("embeddings".to_owned(), tensor)];
        Ok(write_safetensors(&folder.join(EMBEDDINGS), &tensors, DType::F16)?)
    }

    /// A model's, if it has the files; `width` is its last encoder's `projection_dim`.
    pub(crate) fn load(source: &ModelSource, width: usize) -> Result<Option<Self>, Error> {
        if !source.exists(WORDS) || !source.exists(EMBEDDINGS) {
            return Ok(None);
        }
        let text = source.read_bytes(WORDS)?;
        let words: Vec<String> = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect();
        let name = format!("{EMBEDDINGS} of {}", source.name());
        let mut reader = Reader::from_bytes(&name, source.read_bytes(EMBEDDINGS)?)?;
        let rows = words.len().min(MOST_SUGGESTED);
        let embeddings = reader.param("embeddings", &[rows, width], Init::Zeros)?;
        reader.finish()?;
        Ok(Some(Self::of(words, embeddings.tensor().into_vec(), width)))
    }

    /// The words of `text` that no caption had, each once.
    pub(crate) fn unknown(&self, text: &str, embed: Embed) -> Result<Vec<UnknownWord>, Error> {
        let mut unknown: Vec<UnknownWord> = Vec::new();
        for word in spelled(text) {
            let is_named = unknown.iter().any(|other| other.word == word);
            if is_named || SILENT.contains(&word.as_str()) || self.set.contains(&word) {
                continue;
            }
            let nearest = self.nearest(&word, embed)?;
            unknown.push(UnknownWord { word, nearest });
        }
        Ok(unknown)
    }

    fn nearest(&self, word: &str, embed: Embed) -> Result<Vec<String>, Error> {
        let Some(asked) = embed(word)? else {
            return Ok(Vec::new());
        };
        let cosine = |row: &[f32]| row.iter().zip(&asked).map(|(a, b)| a * b).sum::<f32>();
        let rows = self.embeddings.chunks(self.width).map(cosine).zip(&self.words);
        let mut related: Vec<(f32, &String)> = rows
            .filter(|(cosine, word)| *cosine >= RELATED && !SILENT.contains(&word.as_str()))
            .collect();
        related.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        Ok(related
            .into_iter()
            .take(NEAREST)
            .map(|(_, word)| word.clone())
            .collect())
    }
}

/// The words of a text in lower case, less single letters. Those of scripts that leave no space between words are left out: where one ends is not
/// known here.
fn spelled(text: &str) -> impl Iterator<Item = String> {
    let parts = text.split(|c: char| !c.is_alphanumeric());
    let is_word = |part: &&str| part.chars().any(char::is_alphabetic) && part.chars().nth(1).is_some();
    let words = parts.filter(is_word).filter(|part| !part.chars().any(is_unspaced));
    words.map(str::to_lowercase).collect::<Vec<_>>().into_iter()
}

/// Thai, Lao, Khmer, Japanese and Chinese.
fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_spelled_in_lower_case_without_signs_numbers_and_unspaced_scripts() {
        let words: Vec<String> = spelled("Two Dog's, 3 caf\u{e9}-tables; \u{732b}").collect();
        assert_eq!(words, ["two", "dog", "caf\u{e9}", "tables"]);
    }

    /// Animals point one way, vehicles another, and nonsense nowhere.
    const EMBED: Embed = &|word| {
        Ok(Some(match word {
            "dog" | "puppy" => vec![1.0, 0.0, 0.0],
            "cat" => vec![0.8, 0.6, 0.0],
            "car" | "automobile" => vec![0.0, 1.0, 0.0],
            _ => vec![0.0, 0.0, 1.0],
        }))
    };

    fn known() -> KnownWords {
        let captions = ["a dog", "a dog and a cat", "a car"];
        KnownWords::learn(captions.into_iter(), EMBED).unwrap().unwrap()
    }

    #[test]
    fn unknown_words_come_with_the_nearest_known_ones_once_each() {
        let unknown = known()
            .unknown("The puppy is near a Dog, a puppy and qwrt", EMBED)
            .unwrap();
        let told: Vec<(&str, Vec<&str>)> = unknown
            .iter()
            .map(|u| (u.word.as_str(), u.nearest.iter().map(String::as_str).collect()))
            .collect();
        assert_eq!(
            told,
            [("puppy", vec!["dog", "cat"]), ("near", vec![]), ("qwrt", vec![])]
        );
    }

    #[test]
    fn a_model_s_folder_keeps_the_words_and_one_without_them_has_none() {
        let folder = std::env::temp_dir().join(format!("prima-known-words-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let source = ModelSource::Folder(folder.clone());
        assert!(KnownWords::load(&source, 3).unwrap().is_none());
        known().write(&folder).unwrap();
        let loaded = KnownWords::load(&source, 3).unwrap().unwrap();
        let wrong_width = KnownWords::load(&source, 4);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(loaded.words, ["dog", "and", "car", "cat"]);
        assert_eq!(loaded.unknown("automobile", EMBED).unwrap()[0].nearest, ["car", "cat"]);
        assert!(wrong_width.is_err());
    }
}
