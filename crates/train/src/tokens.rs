//! Captions to CLIP token ids, padded to one length.

use crate::error::{Error, Result};
use prima_data::bpe::{Bpe, END_OF_TEXT, START_OF_TEXT, WordSplitter};
use std::collections::HashMap;
use std::path::Path;

/// Encodes captions with a `vocab.json` / `merges.txt` folder, as transformers' `CLIPTokenizer`.
pub struct CaptionTokenizer {
    splitter: WordSplitter,
    ids: HashMap<String, u32>,
    ranks: HashMap<(String, String), usize>,
    start: u32,
    end: u32,
    cache: HashMap<String, Vec<u32>>,
}

/// Rows of ids, `length` each.
pub struct Tokens {
    pub ids: Vec<u32>,
    pub length: usize,
}

impl Tokens {
    pub fn row(&self, row: usize) -> &[u32] {
        &self.ids[row * self.length..(row + 1) * self.length]
    }

    pub fn rows(&self, rows: &[usize]) -> Vec<u32> {
        rows.iter().flat_map(|&r| self.row(r)).copied().collect()
    }
}

impl CaptionTokenizer {
    pub fn open(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).map_err(Error::io(&path))
        };
        let ids: HashMap<String, u32> =
            serde_json::from_str(&read("vocab.json")?).map_err(|e| Error::file(folder.join("vocab.json"), e))?;
        let merges = read("merges.txt")?;
        let pairs = merges
            .lines()
            .filter(|line| !line.starts_with("#version"))
            .filter_map(|line| line.split_once(' '));
        Self::new(ids, pairs.map(|(l, r)| (l.to_owned(), r.to_owned())).collect())
    }

    pub fn from_bpe(bpe: &Bpe) -> Result<Self> {
        let ids = bpe
            .vocab
            .iter()
            .enumerate()
            .map(|(i, t)| (t.clone(), i as u32))
            .collect();
        Self::new(ids, bpe.merges.clone())
    }

    fn new(ids: HashMap<String, u32>, merges: Vec<(String, String)>) -> Result<Self> {
        let special = |token: &str| {
            ids.get(token)
                .copied()
                .ok_or_else(|| Error::Config(format!("vocab.json has no token {token}")))
        };
        let (start, end) = (special(START_OF_TEXT)?, special(END_OF_TEXT)?);
        let splitter = WordSplitter::new().map_err(|e| Error::Data(e.to_string()))?;
        let ranks = merges
            .into_iter()
            .enumerate()
            .map(|(rank, pair)| (pair, rank))
            .collect();
        Ok(Self {
            splitter,
            ids,
            ranks,
            start,
            end,
            cache: HashMap::new(),
        })
    }

    pub fn vocab_size(&self) -> usize {
        self.ids.len()
    }

    /// `start, words, end, end, ...`; too long a caption loses its tail.
    pub fn encode(&mut self, caption: &str, length: usize) -> Result<Vec<u32>> {
        let mut out = vec![self.start];
        for word in self.splitter.words(caption).map_err(|e| Error::Data(e.to_string()))? {
            out.extend(self.word(&word));
        }
        out.truncate(length - 1);
        out.resize(length, self.end);
        Ok(out)
    }

    pub fn encode_all(&mut self, captions: &[String], length: usize) -> Result<Tokens> {
        let mut ids = Vec::with_capacity(captions.len() * length);
        for caption in captions {
            ids.extend(self.encode(caption, length)?);
        }
        Ok(Tokens { ids, length })
    }

    /// Ids of one word (of byte characters): merges by rank, lowest first.
    fn word(&mut self, word: &str) -> Vec<u32> {
        if let Some(known) = self.cache.get(word) {
            return known.clone();
        }
        let mut symbols: Vec<String> = word.chars().map(String::from).collect();
        if let Some(last) = symbols.last_mut() {
            last.push_str("</w>");
        }
        while let Some(at) = self.best_merge(&symbols) {
            let tail = symbols.remove(at + 1);
            symbols[at].push_str(&tail);
        }
        // Every byte has a token, so that nothing is unknown.
        let ids: Vec<u32> = symbols
            .iter()
            .map(|s| self.ids.get(s).copied().unwrap_or(self.end))
            .collect();
        self.cache.insert(word.to_owned(), ids.clone());
        ids
    }

    fn best_merge(&self, symbols: &[String]) -> Option<usize> {
        let rank = |pair: &[String]| self.ranks.get(&(pair[0].clone(), pair[1].clone())).copied();
        let ranked = symbols
            .windows(2)
            .enumerate()
            .filter_map(|(at, pair)| Some((rank(pair)?, at)));
        ranked.min().map(|(_, at)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prima_data::bpe::{WordCounts, train};

    #[test]
    fn captions_start_end_and_fill_up_with_end() {
        let words = WordCounts::from([("apple".to_owned(), 5), ("red".to_owned(), 5)]);
        let mut tokenizer = CaptionTokenizer::from_bpe(&train(&words, 540)).unwrap();
        let ids = tokenizer.encode("Red  APPLE", 6).unwrap();
        let (start, end) = (tokenizer.start, tokenizer.end);
        let token = |t: &str| tokenizer.ids[t];
        assert_eq!(ids, [start, token("red</w>"), token("apple</w>"), end, end, end]);
        assert_eq!(tokenizer.encode("red red red red", 4).unwrap()[3], end);
    }
}
