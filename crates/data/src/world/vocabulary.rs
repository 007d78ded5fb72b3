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

/// Words for everyday nouns that no caption has.
const SYNONYMS: &str = include_str!("synonyms.tsv");

/// A word that no caption has, and the everyday noun that it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synonym {
    pub word: &'static str,
    pub noun: &'static str,
    /// No text that any network learns from has it either.
    pub never_seen: bool,
}

/// Words that a model is judged on without having read them in a caption. Chosen before training, as the nouns were.
pub fn synonyms() -> Vec<Synonym> {
    SYNONYMS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut columns = line.split('\t');
            Some(Synonym {
                word: columns.next()?,
                noun: columns.next()?,
                never_seen: columns.next() == Some("never"),
            })
        })
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
    /// Nouns that an icon shows and no model.
    drawn_only: Vec<String>,
    /// How often a noun is an everyday one.
    pub everyday_share: f32,
}

/// Two nouns in three.
pub const EVERYDAY_SHARE: f32 = 0.66;

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
            drawn_only: Vec::new(),
            everyday_share: EVERYDAY_SHARE,
        }
    }

    /// Only these nouns from now on; those without a model are for icons.
    pub fn restrict(&mut self, nouns: &[String]) {
        let (modelled, drawn_only) = nouns.iter().cloned().partition(|noun| self.words.contains_key(noun));
        (self.everyday, self.others, self.drawn_only) = (modelled, Vec::new(), drawn_only);
        self.words.retain(|word, _| nouns.contains(word));
    }

    /// Models that a word names.
    pub fn models(&self, word: &str) -> Option<&[usize]> {
        self.words.get(word).map(Vec::as_slice)
    }

    /// A noun that icons may show: one with or without a model.
    pub fn draw_shown(&self, random: &mut Random) -> &str {
        let all = self.everyday.len() + self.drawn_only.len();
        if self.drawn_only.is_empty() || random.below(all) < self.everyday.len() {
            self.draw(random)
        } else {
            &self.drawn_only[random.below(self.drawn_only.len())]
        }
    }

    /// A noun with a model.
    pub fn draw(&self, random: &mut Random) -> &str {
        let list = if random.chance(self.everyday_share) || self.others.is_empty() {
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
            .chain(&self.drawn_only)
            .map(|word| (word.as_str(), self.models(word).map_or(0, <[usize]>::len)))
            .collect()
    }
}
