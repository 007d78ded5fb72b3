//! The nouns that pictures show, and how often.

use super::catalogue::Catalogue;
use crate::random::Random;
use std::collections::BTreeMap;

/// The everyday nouns that a model is judged on, most common first, one a line.
const EVERYDAY: &str = include_str!("everyday.txt");

/// The everyday nouns, most common first. Chosen before training; the list is not changed to suit a model.
pub fn everyday() -> Vec<&'static str> {
    EVERYDAY
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .collect()
}

/// Which models may be called by which word.
#[derive(Debug)]
pub struct Vocabulary {
    /// By noun or everyday synonym.
    words: BTreeMap<String, Vec<usize>>,
    everyday: Vec<String>,
    /// Nouns of the pack that are recognisable.
    others: Vec<String>,
}

/// Categories that pictures for everybody leave out most of the time.
const RARE: [&str; 3] = ["weapon", "symbol", "graveyard"];

impl Vocabulary {
    pub fn new(catalogue: &Catalogue) -> Self {
        let mut words: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, model) in catalogue.models.iter().enumerate().filter(|(_, m)| !m.weak) {
            words.entry(model.noun.clone()).or_default().push(index);
        }
        let mut known = Vec::new();
        for noun in everyday() {
            let called: Vec<usize> = catalogue
                .models
                .iter()
                .enumerate()
                .filter(|(_, m)| !m.weak && (m.noun == noun || m.synonyms.iter().any(|s| s == noun)))
                .map(|(index, _)| index)
                .collect();
            if !called.is_empty() {
                words.insert(noun.to_owned(), called);
                known.push(noun.to_owned());
            }
        }
        let others = words
            .iter()
            .filter(|(word, models)| {
                !known.contains(word)
                    && models
                        .iter()
                        .any(|m| !RARE.contains(&catalogue.models[*m].category.as_str()))
            })
            .map(|(word, _)| word.clone())
            .collect();
        Self {
            words,
            everyday: known,
            others,
        }
    }

    /// Models that a word names.
    pub fn models(&self, word: &str) -> Option<&[usize]> {
        self.words.get(word).map(Vec::as_slice)
    }

    /// A noun: an everyday one two times in three.
    pub fn draw(&self, random: &mut Random) -> &str {
        let list = if random.chance(0.66) || self.others.is_empty() {
            &self.everyday
        } else {
            &self.others
        };
        random.pick(list).map_or("tree", String::as_str)
    }

    pub fn listing(&self) -> Vec<(&str, usize)> {
        self.everyday
            .iter()
            .chain(&self.others)
            .map(|word| (word.as_str(), self.words[word].len()))
            .collect()
    }
}
