//! Does a model paint what is asked for? Its pictures are put to the [`Judge`], question by question.

mod prompts;
mod sheet;
mod sketch;
#[cfg(test)]
mod tests;
mod variety;

pub use prompts::{Prompt, SINGLE, prompts};
pub use sheet::{captioned, mistakes, prompt_sheet, sheet};
pub use sketch::sketch;
pub use variety::{VARIETY_PROMPTS, Variety, variety};

use crate::judge::{CENTRE, Score};
use crate::order::{Order, Paint};
use crate::{Error, FeatureNet, Judge, OnProgress};
use prima_picture::Picture;
use serde::Serialize;

/// One question's result.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub question: String,
    pub pictures: usize,
    /// Per cent.
    pub right: f64,
    /// Nouns only: per cent of pictures whose noun is among the judge's first five.
    pub within_five: Option<f64>,
    /// Per cent of what English has on the same nouns.
    pub of_english: Option<f64>,
    /// What the judge itself gets right on held-out renders, per cent: no model can be credited with more.
    pub ceiling: Option<f64>,
    pub ceiling_within_five: Option<f64>,
}

/// A model's figures at one number of steps.
#[derive(Clone, Debug, Serialize)]
pub struct Quality {
    pub steps: usize,
    pub questions: Vec<Row>,
    pub variety: Variety,
}

/// A picture, what was asked of it, and what the judge saw.
#[derive(Clone, Debug)]
pub struct Judged {
    pub picture: Picture,
    pub prompt: String,
    pub saw: Vec<String>,
    pub right: bool,
}

/// What [`ask`] found.
#[derive(Clone, Debug, Default)]
pub struct Answered {
    pub rows: Vec<Row>,
    /// The first seed's pictures, names in other languages left out.
    pub judged: Vec<Judged>,
}

/// Right answers of one row so far.
struct Tally {
    row: String,
    question: &'static str,
    score: Score,
    /// The nouns that a language has names for.
    named: Vec<usize>,
}

/// Has every prompt painted, single objects with each of `seeds` seeds, and judged.
pub fn ask(
    judge: &Judge,
    net: &FeatureNet,
    prompts: &[Prompt],
    seeds: u64,
    paint: Paint,
    on_progress: OnProgress,
) -> Result<Answered, Error> {
    let mut tallies: Vec<Tally> = Vec::new();
    let mut english: Vec<(usize, usize)> = Vec::new();
    let mut judged = Vec::new();
    for (done, prompt) in prompts.iter().enumerate() {
        on_progress(done, prompts.len());
        let is_single = prompt.asked.iter().any(|(row, _)| row == SINGLE);
        for seed in 0..if is_single { seeds } else { 1 } {
            let picture = paint(&Order::new(&prompt.text, seed))?;
            let seen = judge.look(net, &picture);
            let (mut saw, mut right) = (Vec::new(), true);
            for (row, asked) in &prompt.asked {
                let rank = judge.rank(&seen, asked);
                saw.push(judge.answer(&seen, asked));
                right &= rank == 0;
                let tally = tally(&mut tallies, row, asked.question());
                tally.score.add(rank);
                tally.named.extend(prompt.named);
                if let (true, crate::judge::Asked::Noun(noun)) = (is_single, asked) {
                    english.push((*noun, rank));
                }
            }
            if seed == 0 && prompt.named.is_none() {
                judged.push(Judged {
                    picture,
                    prompt: prompt.text.clone(),
                    saw,
                    right,
                });
            }
        }
    }
    let rows = tallies.iter().map(|tally| row(judge, tally, &english)).collect();
    Ok(Answered { rows, judged })
}

fn tally<'a>(tallies: &'a mut Vec<Tally>, row: &str, question: &'static str) -> &'a mut Tally {
    let at = tallies.iter().position(|tally| tally.row == row).unwrap_or_else(|| {
        tallies.push(Tally {
            row: row.to_owned(),
            question,
            score: Score::default(),
            named: Vec::new(),
        });
        tallies.len() - 1
    });
    &mut tallies[at]
}

/// `english`: single objects' nouns and ranks.
fn row(judge: &Judge, tally: &Tally, english: &[(usize, usize)]) -> Row {
    let ceiling = ceiling(judge, tally.question);
    let is_noun = tally.question == "noun";
    let of_english = (!tally.named.is_empty()).then(|| {
        let mut same = Score::default();
        for (_, rank) in english.iter().filter(|(noun, _)| tally.named.contains(noun)) {
            same.add(*rank);
        }
        100.0 * tally.score.percent() / same.percent().max(f64::MIN_POSITIVE)
    });
    Row {
        question: tally.row.clone(),
        pictures: tally.score.pictures,
        right: tally.score.percent(),
        within_five: is_noun.then(|| tally.score.percent_within_five()),
        of_english,
        ceiling: ceiling.map(|score| score.percent()),
        ceiling_within_five: ceiling.filter(|_| is_noun).map(|score| score.percent_within_five()),
    }
}

fn ceiling(judge: &Judge, question: &str) -> Option<Score> {
    let found = judge.ceilings.iter().find(|c| c.question == question);
    found.map(|c| c.score)
}

/// The row of a sketch's score.
pub fn sketch_row(judge: &Judge, score: &Score) -> Row {
    Row {
        question: "sketch kept".to_owned(),
        pictures: score.pictures,
        right: score.percent(),
        within_five: None,
        of_english: None,
        ceiling: ceiling(judge, CENTRE).map(|score| score.percent()),
        ceiling_within_five: None,
    }
}
