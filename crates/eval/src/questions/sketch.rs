//! Does a picture keep what a sketch put where? A blob in the object's colour at a drawn place is the initial picture.

use super::prompts::painted_nouns;
use crate::judge::Score;
use crate::order::{Order, Paint};
use crate::{Error, FeatureNet, Judge, OnProgress};
use prima_data::Colour;
use prima_data::caption::with_adjective;
use prima_data::world::{Catalogue, with_article};
use prima_picture::Picture;
use prima_tensor::Philox;

/// Sketches that are drawn.
const CASES: usize = 50;
const SIDE_PX: usize = 256;
/// How far off the object's centre may be, of the picture's width.
const KEPT: f32 = 0.2;
/// Where the cases are drawn from.
const SEED: u64 = 0x0053_4B45;
/// The paper.
const PAPER: [u8; 3] = [214, 222, 230];

/// What one sketch shows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Case {
    pub prompt: String,
    pub colour: Colour,
    /// Fractions of the picture.
    pub centre: [f32; 2],
    pub radii: [f32; 2],
}

/// The same fifty for every model.
pub(super) fn cases(catalogue: &Catalogue, judge: &Judge) -> Vec<Case> {
    let nouns = painted_nouns(catalogue, judge.answers());
    let chosen = [
        Colour::Red,
        Colour::Orange,
        Colour::Yellow,
        Colour::Green,
        Colour::Blue,
        Colour::Purple,
    ];
    let case = |number: usize| {
        let stream = Philox {
            seed: SEED,
            image: number as u32,
            purpose: 0,
            step: 0,
        };
        let drawn = stream.uniform(4);
        let colour = chosen[number % chosen.len()];
        let noun = &judge.answers().nouns[nouns[number % nouns.len()]];
        Case {
            prompt: with_adjective(&with_article(noun), colour.name()),
            colour,
            centre: [0.25 + 0.5 * drawn[0], 0.35 + 0.35 * drawn[1]],
            radii: [0.14 + 0.08 * drawn[2], 0.14 + 0.08 * drawn[3]],
        }
    };
    (0..CASES.min(CASES * nouns.len())).map(case).collect()
}

/// An ellipse on paper.
pub(super) fn drawn(case: &Case) -> Picture {
    let ink = case.colour.object().map(|v| (v * 255.0).round() as u8);
    let mut rgb = Vec::with_capacity(SIDE_PX * SIDE_PX * 3);
    for y in 0..SIDE_PX {
        for x in 0..SIDE_PX {
            let at = [x, y].map(|v| (v as f32 + 0.5) / SIDE_PX as f32);
            let off: f32 = (0..2).map(|k| ((at[k] - case.centre[k]) / case.radii[k]).powi(2)).sum();
            rgb.extend(if off < 1.0 { ink } else { PAPER });
        }
    }
    Picture {
        width: SIDE_PX,
        height: SIDE_PX,
        rgb,
    }
}

/// How often the object's centre is within a fifth of the width of where the sketch had it.
pub fn sketch(
    judge: &Judge,
    net: &FeatureNet,
    catalogue: &Catalogue,
    paint: Paint,
    on_progress: OnProgress,
) -> Result<Score, Error> {
    let cases = cases(catalogue, judge);
    let mut score = Score::default();
    for (done, case) in cases.iter().enumerate() {
        on_progress(done, cases.len());
        let picture = paint(&Order {
            prompt: &case.prompt,
            seed: 0,
            sketch: Some(&drawn(case)),
        })?;
        let found = judge.look(net, &picture).centre();
        let kept = found.is_some_and(|[x, y]| (x - case.centre[0]).hypot(y - case.centre[1]) <= KEPT);
        score.add(usize::from(!kept));
    }
    Ok(score)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sketch_has_its_blob_where_the_case_says() {
        let case = Case {
            prompt: "a red car".to_owned(),
            colour: Colour::Red,
            centre: [0.25, 0.5],
            radii: [0.1, 0.2],
        };
        let picture = drawn(&case);
        let at = |x: usize, y: usize| &picture.rgb[(y * SIDE_PX + x) * 3..][..3];
        assert_eq!(at(64, 128), [222, 40, 40]);
        assert_eq!(at(64, 128 + 48), [222, 40, 40]);
        assert_eq!(at(64 + 30, 128), PAPER);
    }
}
