//! What text encoders make of words, before any picture is painted: is the nearest everyday noun the one that a word means?
//!
//! Every word is read as a prompt by itself and compared by the cosine of two things that the UNet is told: the pooled
//! output, and the hidden states of the word's last token, each less its mean over the nouns.

use crate::Error;
use prima_data::Colour;
use prima_data::world::{everyday, plural, synonyms};
use prima_pipeline::TextEncoders;
use serde::Serialize;
use std::collections::BTreeMap;

/// How often the nearest is the right one, in per cent, and of how many.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub struct Nearest {
    pub of: usize,
    /// By the pooled output.
    pub pooled: f64,
    /// By the last token's hidden states.
    pub token: f64,
}

/// What [`words`] found.
#[derive(Clone, Debug, Serialize)]
pub struct Words {
    /// Words for everyday nouns that no caption has, but the sentence encoder's texts do; nearest of the everyday nouns.
    pub synonyms: Nearest,
    /// Words that no text had at all.
    pub never_seen: Nearest,
    /// The everyday nouns' names by language code.
    pub languages: BTreeMap<String, Nearest>,
    /// `picture of one red car`: nearest of the everyday nouns in all colours.
    pub colours: Nearest,
    /// `picture of 3 cars`: nearest of the everyday nouns in twos, threes and fours.
    pub counts: Nearest,
    /// Words whose nearest noun, by the pooled output, is another: (word, meant, nearest).
    pub wrong: Vec<(String, String, String)>,
}

/// `names`: of nouns, by language code.
pub fn words(encoders: &TextEncoders, names: &BTreeMap<String, BTreeMap<String, String>>) -> Result<Words, Error> {
    let nouns: Vec<String> = everyday().into_iter().map(str::to_owned).collect();
    let known = Space::of(encoders, nouns.clone())?;
    let mut wrong = Vec::new();
    let mut ask = |pairs: Vec<(String, String)>| known.ask(encoders, pairs, &mut wrong);
    let of_synonyms = |never: bool| {
        let chosen = synonyms().into_iter().filter(|synonym| synonym.never_seen == never);
        chosen.map(|s| (s.word.to_owned(), s.noun.to_owned())).collect()
    };
    let (seen, never_seen) = (ask(of_synonyms(false))?, ask(of_synonyms(true))?);
    let mut by_language: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for noun in &nouns {
        for (code, name) in names.get(noun).into_iter().flatten() {
            by_language
                .entry(code.clone())
                .or_default()
                .push((name.clone(), noun.clone()));
        }
    }
    let mut languages = BTreeMap::new();
    for (code, pairs) in by_language {
        languages.insert(code, ask(pairs)?);
    }
    let mut ignored = Vec::new();
    let mut variants = |pairs: Vec<(String, String)>| -> Result<Nearest, Error> {
        let space = Space::of(encoders, pairs.iter().map(|(_, meant)| meant.clone()).collect())?;
        space.ask(encoders, pairs, &mut ignored)
    };
    let colours = nouns.iter().flat_map(|noun| {
        let names = Colour::OBJECTS.iter().map(|colour| colour.name());
        names.map(move |colour| (format!("picture of one {colour} {noun}"), format!("{colour} {noun}")))
    });
    let counts = nouns.iter().flat_map(|noun| {
        let many = plural(noun);
        [("2", "two"), ("3", "three"), ("4", "four")]
            .map(|(digit, number)| (format!("picture of {digit} {many}"), format!("{number} {many}")))
    });
    Ok(Words {
        synonyms: seen,
        never_seen,
        languages,
        colours: variants(colours.collect())?,
        counts: variants(counts.collect())?,
        wrong,
    })
}

/// Texts and where they lie.
struct Space {
    texts: Vec<String>,
    pooled: Vectors,
    token: Vectors,
}

/// Rows of unit length, and the mean that was taken off them.
struct Vectors {
    mean: Vec<f32>,
    rows: Vec<Vec<f32>>,
}

impl Vectors {
    fn of(rows: Vec<Vec<f32>>) -> Self {
        let width = rows.first().map_or(0, Vec::len);
        let count = rows.len().max(1) as f32;
        let mean: Vec<f32> = (0..width)
            .map(|c| rows.iter().map(|row| row[c]).sum::<f32>() / count)
            .collect();
        let rows = rows.iter().map(|row| unit(row, &mean)).collect();
        Self { mean, rows }
    }

    /// The row with the greatest cosine.
    fn nearest(&self, row: &[f32]) -> usize {
        let row = unit(row, &self.mean);
        let cosine = |other: &Vec<f32>| other.iter().zip(&row).map(|(a, b)| a * b).sum::<f32>();
        let best = self
            .rows
            .iter()
            .enumerate()
            .max_by(|(_, a), (_, b)| cosine(a).total_cmp(&cosine(b)));
        best.map_or(0, |(i, _)| i)
    }
}

fn unit(row: &[f32], mean: &[f32]) -> Vec<f32> {
    let moved: Vec<f32> = row.iter().zip(mean).map(|(v, m)| v - m).collect();
    let length = moved.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-9);
    moved.into_iter().map(|v| v / length).collect()
}

impl Space {
    fn of(encoders: &TextEncoders, texts: Vec<String>) -> Result<Self, Error> {
        let (pooled, token) = read(encoders, &texts)?;
        Ok(Self {
            texts,
            pooled: Vectors::of(pooled),
            token: Vectors::of(token),
        })
    }

    /// `pairs`: what is asked, and the text that should be nearest.
    fn ask(
        &self,
        encoders: &TextEncoders,
        pairs: Vec<(String, String)>,
        wrong: &mut Vec<(String, String, String)>,
    ) -> Result<Nearest, Error> {
        let (asked, meant): (Vec<String>, Vec<String>) = pairs.into_iter().unzip();
        let (pooled, token) = read(encoders, &asked)?;
        let (mut by_pooled, mut by_token) = (0usize, 0usize);
        for (i, meant) in meant.iter().enumerate() {
            let nearest = &self.texts[self.pooled.nearest(&pooled[i])];
            if nearest == meant {
                by_pooled += 1;
            } else {
                wrong.push((asked[i].clone(), meant.clone(), nearest.clone()));
            }
            by_token += usize::from(self.texts[self.token.nearest(&token[i])] == *meant);
        }
        let share = |right: usize| 100.0 * right as f64 / asked.len().max(1) as f64;
        Ok(Nearest {
            of: asked.len(),
            pooled: share(by_pooled),
            token: share(by_token),
        })
    }
}

/// Texts that are read at once.
const BATCH: usize = 64;

type Rows = Vec<Vec<f32>>;

/// The pooled output and the last token's hidden states of each text.
fn read(encoders: &TextEncoders, texts: &[String]) -> Result<(Rows, Rows), Error> {
    let (mut pooled, mut token) = (Vec::new(), Vec::new());
    for chunk in texts.chunks(BATCH) {
        let mut ids = vec![Vec::new(); encoders.encoders().len()];
        let mut last = Vec::new();
        for text in chunk {
            for (ids, encoder) in ids.iter_mut().zip(encoders.encoders()) {
                let encoded = encoder.tokenizer.encode(text)?;
                ids.extend(encoded.ids);
                if last.len() < ids.len() / encoder.tokenizer.model_max_length() {
                    last.push(encoded.eos_index - 1);
                }
            }
        }
        let (hidden, output) = encoders.forward(&ids, chunk.len());
        let output = output.ok_or(Error::NoPooledOutput)?;
        pooled.extend(output.data().chunks(output.dim(-1)).map(<[f32]>::to_vec));
        let (length, width) = (hidden.dim(1), hidden.dim(2));
        let rows: Vec<&[f32]> = hidden.data().chunks(width).collect();
        token.extend(last.iter().enumerate().map(|(i, at)| rows[i * length + at].to_vec()));
    }
    Ok((pooled, token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_row_is_found_by_its_direction_from_the_mean() {
        let space = Vectors::of(vec![vec![11.0, 10.0], vec![10.0, 11.0], vec![9.0, 9.0]]);
        assert_eq!(space.nearest(&[15.0, 10.5]), 0);
        assert_eq!(space.nearest(&[10.2, 14.0]), 1);
        assert_eq!(space.nearest(&[2.0, 3.0]), 2);
    }
}
