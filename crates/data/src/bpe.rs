//! Trains a byte-level BPE in the format of CLIP's tokenizer, on the captions of a data set.
//!
//! The format is that of Hugging Face's `CLIPTokenizer`: text is lower-cased and its white space collapsed, split by
//! CLIP's pattern, its UTF-8 bytes written as printable characters, and merged within words, the last symbol of each
//! word carrying `</w>`. `vocab.json` holds the 256 byte symbols, the same with `</w>`, one entry per merge in order,
//! then `<|startoftext|>` and `<|endoftext|>`; `merges.txt` has a version line and one merge a line.
//!
//! Sennrich, Haddow and Birch 2016, "Neural Machine Translation of Rare Words with Subword Units", algorithm 1.

use crate::DataError;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use tokenizers::Normalizer;
use tokenizers::normalizers::{Lowercase, NFC, Sequence as NormalizerSequence};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::{NormalizedString, SplitDelimiterBehavior};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

/// CLIP's word pattern, as in transformers' `convert_slow_tokenizer.py` (CLIPConverter).
pub const WORD_PATTERN: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
pub const START_OF_TEXT: &str = "<|startoftext|>";
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// A trained vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bpe {
    /// Tokens in the order of their ids.
    pub vocab: Vec<String>,
    pub merges: Vec<(String, String)>,
}

/// Splits text into words as CLIP does; bytes are written as printable characters.
pub struct WordSplitter {
    normalizer: NormalizerSequence,
    split: Split,
    bytes: ByteLevel,
}

impl WordSplitter {
    pub fn new() -> Result<Self, DataError> {
        let pattern = SplitPattern::Regex(WORD_PATTERN.to_owned());
        Ok(Self {
            normalizer: NormalizerSequence::new(vec![NFC.into(), Lowercase.into()]),
            split: Split::new(pattern, SplitDelimiterBehavior::Removed, true).map_err(DataError::tokenizer)?,
            bytes: ByteLevel::new(false, true, false),
        })
    }

    /// The words of `text`.
    pub fn words(&self, text: &str) -> Result<Vec<String>, DataError> {
        let mut normalized = NormalizedString::from(text);
        self.normalizer
            .normalize(&mut normalized)
            .map_err(DataError::tokenizer)?;
        let mut pieces = PreTokenizedString::from(normalized);
        self.split.pre_tokenize(&mut pieces).map_err(DataError::tokenizer)?;
        self.bytes.pre_tokenize(&mut pieces).map_err(DataError::tokenizer)?;
        let splits = pieces.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        Ok(splits.into_iter().map(|(word, _, _)| word.to_owned()).collect())
    }
}

/// GPT-2's table: a printable character for each byte, in the order in which CLIP numbers them.
fn byte_symbols() -> Vec<char> {
    let printable = (b'!'..=b'~').chain(0xa1..=0xac).chain(0xae..=0xff);
    let mut symbols: Vec<char> = printable.clone().map(char::from).collect();
    let hidden = (0..=255u8).filter(|b| !printable.clone().any(|p| p == *b)).count() as u32;
    symbols.extend((0..hidden).filter_map(|n| char::from_u32(256 + n)));
    symbols
}

/// Words of the corpus with their weight.
pub type WordCounts = BTreeMap<String, u64>;

/// A tokenizer of `entries` tokens for texts like these.
pub fn tokenizer_of<'a>(texts: impl Iterator<Item = &'a str>, entries: usize) -> Result<Bpe, DataError> {
    let splitter = WordSplitter::new()?;
    let mut counts = WordCounts::new();
    for text in texts {
        for word in splitter.words(text)? {
            *counts.entry(word).or_default() += 1;
        }
    }
    Ok(train(&counts, entries))
}

/// Trains `entries` tokens. Fewer come out if the corpus has no more pairs that occur at least twice.
pub fn train(words: &WordCounts, entries: usize) -> Bpe {
    let symbols = byte_symbols();
    let mut vocab: Vec<String> = symbols.iter().map(char::to_string).collect();
    vocab.extend(symbols.iter().map(|c| format!("{c}</w>")));
    let mut ids: HashMap<String, u32> = vocab.iter().enumerate().map(|(i, t)| (t.clone(), i as u32)).collect();
    let mut corpus: Vec<(Vec<u32>, u64)> = words
        .iter()
        .map(|(word, count)| {
            let last = word.chars().count().saturating_sub(1);
            let symbol = |(i, c): (usize, char)| if i == last { format!("{c}</w>") } else { c.to_string() };
            (
                word.chars()
                    .enumerate()
                    .filter_map(|x| ids.get(&symbol(x)).copied())
                    .collect(),
                *count,
            )
        })
        .collect();

    let mut pairs: HashMap<(u32, u32), u64> = HashMap::new();
    for (word, count) in &corpus {
        word.windows(2)
            .for_each(|w| *pairs.entry((w[0], w[1])).or_default() += count);
    }
    let mut merges = Vec::new();
    while vocab.len() + 2 < entries {
        // The tie-break by ids keeps the result the same on every run.
        let best = pairs
            .iter()
            .filter(|(_, n)| **n > 1)
            .max_by_key(|(pair, n)| (**n, std::cmp::Reverse(**pair)));
        let Some((&(left, right), _)) = best else { break };
        let token = format!("{}{}", vocab[left as usize], vocab[right as usize]);
        merges.push((vocab[left as usize].clone(), vocab[right as usize].clone()));
        // Two merges can make the same string; it has one id.
        let id = *ids.entry(token.clone()).or_insert_with(|| {
            vocab.push(token);
            (vocab.len() - 1) as u32
        });
        for (word, count) in &mut corpus {
            if word.windows(2).any(|w| w == [left, right]) {
                word.windows(2)
                    .for_each(|w| *pairs.entry((w[0], w[1])).or_default() -= *count);
                *word = merged(word, left, right, id);
                word.windows(2)
                    .for_each(|w| *pairs.entry((w[0], w[1])).or_default() += *count);
            }
        }
        pairs.remove(&(left, right));
    }
    vocab.push(START_OF_TEXT.to_owned());
    vocab.push(END_OF_TEXT.to_owned());
    Bpe { vocab, merges }
}

fn merged(word: &[u32], left: u32, right: u32, id: u32) -> Vec<u32> {
    let mut out = Vec::with_capacity(word.len());
    let mut i = 0;
    while i < word.len() {
        if i + 1 < word.len() && word[i] == left && word[i + 1] == right {
            out.push(id);
            i += 2;
        } else {
            out.push(word[i]);
            i += 1;
        }
    }
    out
}

impl Bpe {
    /// Writes the files of a diffusers `tokenizer/` folder.
    pub fn write(&self, folder: &Path) -> Result<(), DataError> {
        std::fs::create_dir_all(folder).map_err(|e| DataError::io(folder, e))?;
        let vocab: serde_json::Map<String, serde_json::Value> = self
            .vocab
            .iter()
            .enumerate()
            .map(|(id, token)| (token.clone(), id.into()))
            .collect();
        let mut merges = String::from("#version: 0.2\n");
        for (left, right) in &self.merges {
            merges.extend([left.as_str(), " ", right.as_str(), "\n"]);
        }
        let special = |token: &str| serde_json::json!({"content": token, "lstrip": false, "normalized": true, "rstrip": false, "single_word": false});
        let map = serde_json::json!({
            "bos_token": special(START_OF_TEXT),
            "eos_token": special(END_OF_TEXT),
            "pad_token": END_OF_TEXT,
            "unk_token": special(END_OF_TEXT),
        });
        let mut config = map.clone();
        config["tokenizer_class"] = "CLIPTokenizer".into();
        config["do_lower_case"] = true.into();
        config["add_prefix_space"] = false.into();
        config["errors"] = "replace".into();
        config["model_max_length"] = 77.into();
        for (name, text) in [
            ("vocab.json", serde_json::Value::Object(vocab).to_string()),
            ("merges.txt", merges),
            ("special_tokens_map.json", format!("{map:#}\n")),
            ("tokenizer_config.json", format!("{config:#}\n")),
        ] {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(|e| DataError::io(&path, e))?;
        }
        Ok(())
    }
}
