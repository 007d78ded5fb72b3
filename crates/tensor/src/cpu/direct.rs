//! Convolution without im2col, for stride 1 and pictures that keep their size: the left matrix of the product lies in a copy
//! of the picture with its padding around it. Read flat, rows of that copy one after the other, the windows of consecutive
//! pixels begin `channels` values apart, wherever they are. The few places at the end of a row where a window would
//! wrap around are computed and thrown away. With few output channels this saves the packing, which costs as much
//! as the products there.
//!
//! A 3x3 convolution of a picture that was doubled by repeating its pixels reads each of them more than once: it is four 2x2
//! convolutions of the picture before, one for each place in a block of 2x2 results, with sums of the weights.

use crate::cpu::gemm::Epilogue;
use crate::cpu::kernel::{Block, Tile, Windows, Word};
use crate::cpu::pack::Panels;
use crate::cpu::parallel::zeros;
use rayon::prelude::*;
use std::cell::RefCell;

/// Values of a padded band of rows: it stays in L2 while each panel of weights passes over it.
const BAND: usize = 1 << 15;
/// Fewest pixels of a band: with so many a panel of weights is worth reading.
const PIXELS: usize = 256;

/// A picture `[batch, height, width, channels]`, and a kernel around each pixel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub outputs: usize,
    pub kernel: Kernel,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kernel {
    /// `kh x kw`, both odd, with the pixel in its middle.
    Centred(usize, usize),
    /// 3x3 on the picture doubled by repetition: `[batch, 2 height, 2 width, outputs]`.
    Doubled,
}

impl Kernel {
    /// Height and width of what is multiplied.
    pub fn size(self) -> [usize; 2] {
        match self {
            Self::Centred(kh, kw) => [kh, kw],
            Self::Doubled => [2, 2],
        }
    }

    /// Zeros above and below, left and right of the picture.
    fn border(self) -> [usize; 2] {
        match self {
            Self::Centred(kh, kw) => [kh / 2, kw / 2],
            Self::Doubled => [1, 1],
        }
    }

    /// Results per pixel, in each direction.
    fn scale(self) -> usize {
        match self {
            Self::Centred(..) => 1,
            Self::Doubled => 2,
        }
    }
}

/// Taps `0..3` of one direction of a 3x3 kernel that meet, on a doubled picture, at tap `tap` of the 2x2 kernel for results
/// with parity `parity`.
pub(crate) fn doubled_taps(parity: usize, tap: usize) -> std::ops::Range<usize> {
    match (parity, tap) {
        (0, 0) => 0..1,
        (0, _) => 1..3,
        (_, 0) => 0..2,
        _ => 2..3,
    }
}

thread_local! {
    static PADDED: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

impl Shape {
    /// Pixels of a padded row.
    fn stretch(&self) -> usize {
        self.width + 2 * self.kernel.border()[1]
    }

    /// Rows that a task takes: of a small picture a quarter, so that there is work for several threads. Depends on the shape
    /// alone.
    fn band_rows(&self) -> usize {
        let rows = (BAND / (self.stretch() * self.channels)).saturating_sub(2 * self.kernel.border()[0]);
        rows.max(PIXELS / self.width).clamp(1, self.height.div_ceil(4))
    }

    /// Values that one row of the picture becomes.
    fn results(&self) -> usize {
        self.kernel.scale().pow(2) * self.width * self.outputs
    }

    /// Rows `first..first + rows` of a sample with the rows and columns around them, zero outside the picture, and `more`
    /// pixels, in words of type `W`.
    fn pad<W: Word>(&self, picture: &[f32], first: usize, rows: usize, more: usize, padded: &mut Vec<u32>) {
        let ([above, before], row) = (self.kernel.border(), self.width * self.channels);
        let words = |pixels: usize| pixels * self.channels / W::DEPTHS;
        padded.clear();
        for y in first..first + rows + 2 * above {
            let end = padded.len() + words(self.stretch());
            if (above..above + self.height).contains(&y) {
                let start = padded.len() + words(before);
                padded.resize(start + words(self.width), 0);
                let values = &picture[(y - above) * row..][..row];
                W::convert(values, bytemuck::cast_slice_mut(&mut padded[start..]));
            }
            padded.resize(end, 0);
        }
        padded.resize(padded.len() + words(more), 0);
    }

    /// The results of a padded band, before the epilogue.
    fn band<W: Word>(&self, padded: &[W], panels: &Panels<W>, out: &mut [f32]) {
        let scale = self.kernel.scale();
        let each = panels.words.len() / scale.pow(2);
        for (part, words) in panels.words.chunks_exact(each).enumerate() {
            self.part(padded, panels.block, words, [part / scale, part % scale], out);
        }
    }

    /// The results at `(scale · y + down, scale · x + right)`.
    fn part<W: Word>(&self, padded: &[W], block: &Block, panels: &[W], [down, right]: [usize; 2], out: &mut [f32]) {
        let (mr, nr) = (block.mr, block.nr);
        let ([kh, kw], scale, stretch) = (self.kernel.size(), self.kernel.scale(), self.stretch());
        // Words of a pixel.
        let channels = self.channels / W::DEPTHS;
        let windows = Windows {
            segments: kh,
            length: kw * channels,
            segment_stride: stretch * channels,
            row_stride: channels,
        };
        // Without what follows the last pixel.
        let places = out.len() / self.results() * stretch - (stretch - self.width);
        let padded = &padded[(down * stretch + right) * channels..];
        let mut tile = Tile::ZERO;
        for (panel, weights) in panels.chunks_exact(kh * kw * channels * nr).enumerate() {
            let cols = panel * nr..self.outputs.min((panel + 1) * nr);
            let (mut y, mut x) = (0, 0);
            for first in (0..places).step_by(mr) {
                block.windows(&windows, &padded[first * channels..], weights, &mut tile);
                for values in tile.0.chunks_exact(nr).take(mr.min(places - first)) {
                    if x < self.width {
                        let pixel = (scale * y + down) * scale * self.width + scale * x + right;
                        let at = pixel * self.outputs;
                        out[at + cols.start..at + cols.end].copy_from_slice(&values[..cols.len()]);
                    }
                    x += 1;
                    if x == stretch {
                        (y, x) = (y + 1, 0);
                    }
                }
            }
        }
    }
}

/// `epilogue(picture * weight)`. `panels` is the weight, packed as the right matrix of a product whose depth is (row of the
/// kernel, column, channel), the channel innermost; for a doubled picture four of them, by the row and then the column of
/// the results.
pub(crate) fn convolve<W: Word>(s: &Shape, picture: &[f32], panels: &Panels<W>, epilogue: &Epilogue) -> Vec<f32> {
    assert!(s.channels.is_multiple_of(W::DEPTHS), "a word holds values of one pixel");
    let (rows, results) = (s.band_rows(), s.results());
    let bands = s.height.div_ceil(rows);
    let sample = s.height * s.width * s.channels;
    let mut out = zeros(s.batch * s.height * results);
    let mut rest = out.as_mut_slice();
    let mut tasks = Vec::with_capacity(s.batch * bands);
    for (b, first) in (0..s.batch).flat_map(|b| (0..bands).map(move |band| (b, band * rows))) {
        let (part, behind) = rest.split_at_mut(rows.min(s.height - first) * results);
        tasks.push((b, first, part));
        rest = behind;
    }
    tasks.into_par_iter().for_each(|(b, first, part)| {
        PADDED.with_borrow_mut(|padded| {
            let picture = &picture[b * sample..][..sample];
            // The windows of the last tile may begin behind the last pixel.
            s.pad::<W>(picture, first, part.len() / results, panels.block.mr, padded);
            s.band(bytemuck::cast_slice(padded), panels, part);
        });
        epilogue.apply_rows(part, s.outputs, (b * s.height + first) * results);
    });
    out
}
