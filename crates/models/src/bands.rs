//! The wide end of a decoder, one band of rows after the other. GroupNorm's statistics are those of the whole picture: it is
//! there whole between two layers, and is given up band by band while the next one is made. Every value is the one that
//! the layers give for the whole picture, to the bit; rows beside a band are computed twice.

use crate::layers::{Conv, GroupNorm};
use prima_tensor::Tensor;
use prima_tensor::bands::{GroupStatistics, Piece, rows_plus, stack_rows};
use std::collections::VecDeque;
use std::ops::Range;

/// Values of a band; together with what is made of it some 100 MB.
pub(crate) const BAND: usize = 8 << 20;
/// Rows of a band are a multiple of it: so that bands are whole tasks of the norms' sums, and whole blocks of what convolutions
/// compute at once.
const UNIT: usize = 16;
/// Rows above and below that are computed with a band: what a 3x3 convolution reads, and even, for the same reason.
const HALO: usize = 2;

/// A picture `[1, H, W, C]` in bands.
pub(crate) struct Bands {
    /// Each with its first row; those that are not needed any more are gone.
    parts: VecDeque<(usize, Tensor)>,
    height: usize,
    /// Values of a band, or [`UNIT`] rows if they have more.
    values: usize,
}

impl Bands {
    /// Of no rows yet.
    pub fn empty(values: usize) -> Self {
        Self {
            parts: VecDeque::new(),
            height: 0,
            values,
        }
    }

    /// `x` in bands of about so many values.
    pub fn cut(x: &Tensor, values: usize) -> Self {
        let mut cut = Self::empty(values);
        for rows in ranges(x.dim(1), values / (x.dim(2) * x.dim(3))) {
            cut.push(rows_plus(x, rows, None));
        }
        cut
    }

    pub fn joined(&self) -> Tensor {
        stack_rows(&self.pieces(0..self.height))
    }

    fn width(&self) -> usize {
        self.parts[0].1.dim(2)
    }

    fn channels(&self) -> usize {
        self.parts[0].1.dim(3)
    }

    /// The rows that come next.
    pub fn push(&mut self, band: Tensor) {
        let first = self.height;
        self.height += band.dim(1);
        self.parts.push_back((first, band));
    }

    fn pieces(&self, rows: Range<usize>) -> Vec<Piece<'_>> {
        let inside = |(first, band): &(usize, Tensor)| {
            let (from, to) = (rows.start.max(*first), rows.end.min(first + band.dim(1)));
            (from < to).then(|| from - first..to - first)
        };
        self.parts
            .iter()
            .filter_map(|band| Some((&band.1, inside(band)?)))
            .collect()
    }

    /// `rows` as one picture.
    pub fn rows(&self, rows: Range<usize>) -> Tensor {
        stack_rows(&self.pieces(rows))
    }

    /// `rows` and `halo` more on each side, as far as there are any.
    fn around(&self, rows: &Range<usize>, halo: usize) -> Range<usize> {
        rows.start.saturating_sub(halo)..(rows.end + halo).min(self.height)
    }

    /// What a band has at most, in values.
    pub fn values(&self) -> usize {
        self.values
    }

    /// Rows before that one are not needed any more.
    fn forget_before(&mut self, row: usize) {
        while self
            .parts
            .front()
            .is_some_and(|(first, band)| first + band.dim(1) <= row)
        {
            self.parts.pop_front();
        }
    }

    fn statistics(&self, norm: &GroupNorm) -> GroupStatistics {
        norm.statistics(&self.parts.iter().map(|(_, band)| band).collect::<Vec<_>>())
    }

    /// GroupNorm, SiLU and a 3x3 convolution that keeps the size, and `residual` added. `on_rows` is told
    /// which rows of this are about to go.
    pub fn norm_conv(
        mut self,
        norm: &GroupNorm,
        conv: &Conv,
        mut residual: Option<Self>,
        mut on_rows: impl FnMut(&Self, Range<usize>),
    ) -> Self {
        let statistics = self.statistics(norm);
        let mut out = Self::empty(self.values);
        let row = self.width() * self.channels().max(conv.outputs());
        for rows in ranges(self.height, self.values / row) {
            on_rows(&self, rows.clone());
            let around = self.around(&rows, HALO);
            let made = conv.forward(&norm.silu_of(&statistics, &self.pieces(around.clone())));
            self.forget_before(rows.end.saturating_sub(HALO));
            let added = residual.as_mut().map(|residual| {
                let added = residual.rows(rows.clone());
                residual.forget_before(rows.end);
                added
            });
            let kept = rows.start - around.start..rows.end - around.start;
            out.push(rows_plus(&made, kept, added.as_ref()));
        }
        out
    }

    /// A 3x3 convolution of the doubled picture, which keeps its number of channels.
    pub fn doubled_conv(mut self, conv: &Conv) -> Self {
        let mut out = Self::empty(self.values);
        // Results have four times the values.
        for rows in ranges(self.height, self.values / (4 * self.width() * self.channels())) {
            let around = self.around(&rows, 1);
            let made = conv.of_doubled(&self.rows(around.clone()));
            self.forget_before(rows.end.saturating_sub(1));
            let kept = 2 * (rows.start - around.start)..2 * (rows.end - around.start);
            out.push(rows_plus(&made, kept, None));
        }
        out
    }
}

/// `height` rows in bands of about so many.
fn ranges(height: usize, rows: usize) -> impl Iterator<Item = Range<usize>> {
    let rows = (rows / UNIT * UNIT).max(UNIT);
    (0..height)
        .step_by(rows)
        .map(move |first| first..height.min(first + rows))
}
