//! What the judge sees in one picture.

use super::colour::palette;
use super::head::{CELLS, Layout};
use super::labels::NOTHING;
use super::relation;

/// Probabilities of all answers.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Of each everyday noun.
    pub nouns: Vec<f32>,
    pub places: Vec<f32>,
    pub times: Vec<f32>,
    pub weathers: Vec<f32>,
    pub styles: Vec<f32>,
    /// Of one, two, three and four things; none until they are counted.
    pub counts: Vec<f32>,
    /// What the head makes of each cell, `[CELLS, WIDTH]`.
    pub(super) tokens: Vec<f32>,
    /// `[CELLS, nouns + 2]`: nothing, each noun, another thing.
    cells: Vec<f32>,
    /// `[MOSAIC, MOSAIC, 3]`.
    mosaic: Vec<u8>,
}

/// Weight of what is read off the cells in what is said of the nouns; the rest is read off the picture as a whole.
const CELLS_SHARE: f32 = 0.5;

impl Seen {
    pub(super) fn of(cells: &[f32], whole: &[f32], mosaic: Vec<u8>, layout: &Layout) -> Self {
        let rows = |range: &std::ops::Range<usize>| -> Vec<f32> {
            let rows = cells.chunks_exact(layout.cell());
            rows.flat_map(|row| softmax(&row[range.clone()])).collect()
        };
        let mut seen = Self {
            nouns: softmax(&whole[layout.nouns.clone()]),
            places: softmax(&whole[layout.places.clone()]),
            times: softmax(&whole[layout.times.clone()]),
            weathers: softmax(&whole[layout.weathers.clone()]),
            styles: softmax(&whole[layout.styles.clone()]),
            counts: Vec::new(),
            tokens: Vec::new(),
            cells: rows(&layout.things),
            mosaic,
        };
        let there: f32 = seen.things().iter().sum();
        for noun in 0..seen.nouns.len() {
            let shown: f32 = seen.evidence(&[noun]).iter().sum();
            let own = &mut seen.nouns[noun];
            *own = (1.0 - CELLS_SHARE) * *own + CELLS_SHARE * shown / there.max(1.0);
        }
        seen
    }

    fn width(&self) -> usize {
        self.cells.len() / CELLS
    }

    /// How much each cell shows of any of these nouns, `[CELLS]`.
    pub(crate) fn evidence(&self, nouns: &[usize]) -> Vec<f32> {
        let rows = self.cells.chunks_exact(self.width());
        rows.map(|row| nouns.iter().map(|noun| row[noun + 1]).sum()).collect()
    }

    /// How much each cell shows of any thing at all, `[CELLS]`.
    pub(crate) fn things(&self) -> Vec<f32> {
        let rows = self.cells.chunks_exact(self.width());
        rows.map(|row| 1.0 - row[usize::from(NOTHING)]).collect()
    }

    /// The centre of what is shown, fractions of the picture.
    pub fn centre(&self) -> Option<[f32; 2]> {
        // Squares, so that a faint guess in many cells does not draw the centre to the picture's middle.
        let map: Vec<f32> = self.things().into_iter().map(|v| v * v).collect();
        relation::centre(&map)
    }

    /// What the colour of these nouns is read off, `[COLOURS_OF]`.
    pub(super) fn colours_of(&self, nouns: &[usize]) -> Vec<f32> {
        let mut values = palette(&self.mosaic, &self.evidence(nouns), &self.things());
        values.extend(self.times.iter().chain(&self.weathers).chain(&self.styles));
        values
    }

    /// Everyday nouns, the likeliest first.
    pub fn ranking(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.nouns.len()).collect();
        order.sort_by(|a, b| self.nouns[*b].total_cmp(&self.nouns[*a]));
        order
    }
}

/// The likeliest answer.
pub(crate) fn most(values: &[f32]) -> usize {
    let best = values.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map_or(0, |(i, _)| i)
}

pub(super) fn softmax(scores: &[f32]) -> Vec<f32> {
    let max = scores.iter().copied().fold(f32::MIN, f32::max);
    let mut values: Vec<f32> = scores.iter().map(|v| (v - max).exp()).collect();
    let sum: f32 = values.iter().sum();
    for v in &mut values {
        *v /= sum;
    }
    values
}
