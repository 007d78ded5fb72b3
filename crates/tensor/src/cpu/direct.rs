//! Convolution without im2col: the left matrix of the product lies in a copy of the picture with its padding around it. Read
//! flat, rows of that copy one after the other, the windows of consecutive pixels begin a fixed number of values apart, wherever
//! they are. The few places at the end of a row where a window would wrap around are computed and thrown away. With few
//! output channels this saves the packing, which costs as much as the products there. Under a stride the rows of the copy are
//! sorted by their place in it, so that the rows of consecutive results stay neighbours.
//!
//! A 3x3 convolution of a picture that was doubled by repeating its pixels reads each of them more than once: it is four 2x2
//! convolutions of the picture before, one for each place in a block of 2x2 results, with sums of the weights. So is the
//! gradient of a convolution of stride 2 with respect to its picture.

use crate::cpu::kernel::{Block, Tile, Windows, Word};
use crate::cpu::pack::Panels;
use crate::cpu::parallel::{Output, for_tasks};
use crate::cpu::prefetch::Ahead;
use crate::cpu::tile::{Epilogue, Place, put};
use crate::ops::ConvolutionSizes;
use std::cell::RefCell;

/// Values of a padded band of rows: it stays in L2 while each panel of weights passes over it.
const BAND: usize = 1 << 15;
/// Most words of a panel of weights that one pass reads, again for every tile of a band: they stay in L2 with it.
const PANEL: usize = 96 << 10;
/// Fewest pixels of a band: with so many a panel of weights is worth reading.
const PIXELS: usize = 256;

/// A picture `[batch, height, width, channels]`, and a filter that walks over it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirectConvolution {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub outputs: usize,
    /// Height and width of what is multiplied.
    pub size: [usize; 2],
    pub stride: usize,
    /// Rows above the picture and columns before it.
    pub before: [usize; 2],
    /// Rows and columns of places that the filter stops at.
    pub places: [usize; 2],
    /// Results per place, in each direction: 1, or 2 with a filter for each, which begins to read that much further on.
    pub scale: usize,
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
    static PADDED: RefCell<Padded> = RefCell::default();
}

/// A thread's padded part of a picture.
#[derive(Default)]
struct Padded {
    words: Vec<u32>,
    /// A row whose pixels end between words.
    row: Vec<f32>,
}

impl DirectConvolution {
    /// The forward pass of `s`.
    pub fn forward(s: &ConvolutionSizes) -> Self {
        Self {
            batch: s.batch,
            height: s.height,
            width: s.width,
            channels: s.inputs,
            outputs: s.outputs,
            size: [s.kh, s.kw],
            stride: s.stride,
            before: [s.top(), s.left()],
            places: [s.out_height, s.out_width],
            scale: 1,
        }
    }

    /// Twice the size of a picture `[batch, height, width, channels]`, by four filters of 2x2.
    pub fn doubling([batch, height, width, channels]: [usize; 4], outputs: usize) -> Self {
        Self {
            batch,
            height,
            width,
            channels,
            outputs,
            size: [2, 2],
            stride: 1,
            before: [1, 1],
            places: [height, width],
            scale: 2,
        }
    }

    /// Words of a pixel.
    fn pixel<W: Word>(&self) -> usize {
        self.channels.div_ceil(W::DEPTHS)
    }

    /// Pixels of a padded row: a multiple of the stride.
    fn stretch(&self) -> usize {
        let reach = (self.places[1] - 1) * self.stride + self.size[1] + self.scale - 1;
        reach.next_multiple_of(self.stride)
    }

    /// Padded rows that `rows` rows of places read.
    fn padded_rows(&self, rows: usize) -> usize {
        (rows - 1) * self.stride + self.size[0] + self.scale - 1
    }

    /// Rows of places that a task takes: of a small picture a quarter, so that there is work for several threads. Depends on the
    /// shape alone.
    fn band_rows(&self) -> usize {
        let around = self.size[0] + self.scale - 2;
        let rows = (BAND / (self.stretch() * self.channels)).saturating_sub(around) / self.stride;
        let [height, width] = self.places;
        rows.max(PIXELS / width).clamp(1, height.div_ceil(4))
    }

    /// Results of one row of places.
    fn results(&self) -> usize {
        self.scale.pow(2) * self.places[1] * self.outputs
    }

    /// Rows of places `first..first + rows` of a sample with all that they read, zero outside the picture, in words of type `W`:
    /// the padded rows in order of their place in the stride, `sorted` rows of each.
    fn pad<W: Word>(&self, picture: &[f32], first: usize, rows: usize, sorted: usize, more: usize, out: &mut Padded) {
        let ([above, before], row) = (self.before, self.width * self.channels);
        let stretch = self.stretch();
        let (line, start) = (stretch * self.pixel::<W>(), before.min(stretch) * self.pixel::<W>());
        let inside = self.width.min(stretch.saturating_sub(before));
        // What is not written is read for places alone that are thrown away.
        out.words
            .resize(self.stride * sorted * line + more * self.stride * self.pixel::<W>(), 0);
        for r in 0..self.padded_rows(rows) {
            let y = (first * self.stride + r).wrapping_sub(above);
            let at = (r % self.stride * sorted + r / self.stride) * line;
            let words = &mut out.words[at..][..line];
            if y >= self.height {
                words.fill(0);
                continue;
            }
            words[..start].fill(0);
            words[start + inside * self.pixel::<W>()..].fill(0);
            let words = bytemuck::cast_slice_mut(&mut words[start..][..inside * self.pixel::<W>()]);
            let values = &picture[y * row..][..inside * self.channels];
            if self.channels.is_multiple_of(W::DEPTHS) {
                W::convert(values, words);
            } else {
                let whole = self.pixel::<W>() * W::DEPTHS;
                out.row.clear();
                out.row.resize(inside * whole, 0.0);
                for (to, from) in out.row.chunks_exact_mut(whole).zip(values.chunks_exact(self.channels)) {
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = *from;
                    }
                }
                W::convert(&out.row, words);
            }
        }
    }

    /// Where the rows of the filter begin, seen from a place.
    fn segments<W: Word>(&self, sorted: usize) -> Vec<usize> {
        let row = |ky: usize| ky % self.stride * sorted + ky / self.stride;
        let line = self.stretch() * self.pixel::<W>();
        (0..self.size[0]).map(|ky| row(ky) * line).collect()
    }

    /// One pass, or several whose weights stay in L2, in panels of `nr` columns.
    fn passes<W: Word>(&self, nr: usize, segments: &[usize]) -> Vec<Pass> {
        let [kh, kw] = self.size;
        let width = kw * self.pixel::<W>();
        if kh * width <= PANEL / nr {
            let segments = segments.to_vec();
            return vec![Pass {
                segments,
                length: width,
                depth: 0,
            }];
        }
        let length = width.div_ceil(width.div_ceil(PANEL / nr));
        let starts = (0..kh).flat_map(|ky| (0..width).step_by(length).map(move |at| (ky, at)));
        let pass = |(ky, at)| Pass {
            segments: vec![segments[ky] + at],
            length: length.min(width - at),
            depth: ky * width + at,
        };
        starts.map(pass).collect()
    }

    /// Writes the results of `rows` rows of places, the first of which is number `first_row` of all samples' rows.
    fn band<W: Word>(
        &self,
        padded: &[W],
        passes: &[Pass],
        panels: &Panels<W>,
        [first_row, rows]: [usize; 2],
        next: &[f32],
        output: &Output,
        epilogue: &Epilogue,
    ) {
        let (scale, nr, pixel) = (self.scale, panels.block.nr, self.pixel::<W>());
        let depth = self.size.iter().product::<usize>() * pixel;
        let panels_of_part = self.outputs.div_ceil(nr);
        let tiles = rows * self.stretch() / self.stride / panels.block.mr;
        let mut ahead = Ahead::of(next, tiles);
        for (panel, weights) in panels.words.chunks_exact(depth * nr).enumerate() {
            let part = panel / panels_of_part;
            let (down, right) = (part / scale, part % scale);
            let padded = &padded[(down * self.stretch() + right) * pixel..];
            let results = Results {
                shape: self,
                output,
                block: panels.block,
                first: ((first_row * scale + down) * scale * self.places[1] + right) * self.outputs,
                column: panel % panels_of_part * nr,
            };
            for (i, pass) in passes.iter().enumerate() {
                let epilogue = if i + 1 == passes.len() {
                    epilogue
                } else {
                    &Epilogue::NONE
                };
                let windows = Windows {
                    segments: &pass.segments,
                    length: pass.length,
                    row_stride: self.stride * pixel,
                };
                let weights = &weights[pass.depth * nr..];
                results.pass(&windows, padded, weights, rows, i > 0, epilogue, &mut ahead);
            }
        }
    }
}

/// Part of the depth of a convolution, in words: the runs of a window, and where it begins in the weights.
struct Pass {
    segments: Vec<usize>,
    length: usize,
    depth: usize,
}

/// Where the results of one panel go.
struct Results<'a> {
    shape: &'a DirectConvolution,
    output: &'a Output<'a>,
    block: &'a Block,
    /// Place of the first pixel in the output.
    first: usize,
    /// First column of the panel.
    column: usize,
}

impl Results<'_> {
    /// The place of the pixel `(y, x)`, and how far it is from the output's start.
    fn place(&self, y: usize, x: usize, rows: usize) -> (Place, usize) {
        let (s, scale) = (self.shape, self.shape.scale);
        let offset = self.first + scale * (y * scale * s.places[1] + x) * s.outputs + self.column;
        let place = Place {
            start: self.output.at(offset),
            stride: scale * s.outputs,
            rows,
            cols: self.block.nr.min(s.outputs - self.column),
        };
        (place, offset)
    }

    /// One panel's product over the windows of all places of the band.
    fn pass<W: Word>(
        &self,
        windows: &Windows,
        padded: &[W],
        weights: &[W],
        rows: usize,
        add: bool,
        epilogue: &Epilogue,
        ahead: &mut Ahead,
    ) {
        let (block, width) = (self.block, self.shape.places[1]);
        // Places of a row, those at its end included where a window wraps around.
        let stretch = self.shape.stretch() / self.shape.stride;
        // Without what follows the last pixel.
        let places = rows * stretch - (stretch - width);
        let mut tile = Tile::ZERO;
        let (mut y, mut x) = (0, 0);
        for first in (0..places).step_by(block.mr) {
            if x < width {
                self.place(y, x, block.mr.min(width - x)).0.prefetch();
            }
            ahead.fetch();
            block.windows(windows, &padded[first * windows.row_stride..], weights, &mut tile);
            let (mut row, end) = (0, block.mr.min(places - first));
            while row < end {
                // A run of pixels, or of places at the end of a row.
                let run = (if x < width { width - x } else { stretch - x }).min(end - row);
                if x < width {
                    let (place, offset) = self.place(y, x, run);
                    let epilogue = epilogue.within(self.column, offset);
                    put(&tile.0[row * block.nr..], block.nr, &place, add, &epilogue);
                }
                (row, x) = (row + run, x + run);
                if x == stretch {
                    (y, x) = (y + 1, 0);
                }
            }
        }
    }
}

/// `epilogue(picture * weight)`. `panels` is the weight, packed as the right matrix of a product whose depth is (row of the
/// kernel, column, channel), the channel innermost and filled up to whole words with zeros; where the results are doubled four of
/// them, by the row and then the column of the results.
pub(crate) fn convolve<W: Word>(
    s: &DirectConvolution,
    picture: &[f32],
    panels: &Panels<W>,
    epilogue: &Epilogue,
) -> Vec<f32> {
    let (height, results) = (s.places[0], s.results());
    let len = s.batch * height * results;
    if len == 0 {
        return Vec::new();
    }
    let rows = s.band_rows();
    let bands = height.div_ceil(rows);
    let sample = s.height * s.width * s.channels;
    let sorted = s.padded_rows(rows).div_ceil(s.stride);
    let passes = s.passes::<W>(panels.block.nr, &s.segments::<W>(sorted));
    let nr = panels.block.nr;
    let depth = s.size.iter().product::<usize>() * s.pixel::<W>();
    assert_eq!(
        panels.words.len(),
        s.scale.pow(2) * s.outputs.div_ceil(nr) * depth * nr,
        "the weight of {s:?} is packed for another convolution"
    );
    let mut out = Vec::with_capacity(len);
    let output = Output::of(&mut out);
    let multiply_adds = len * s.channels * s.size.iter().product::<usize>();
    for_tasks(s.batch * bands, multiply_adds, |task| {
        let (b, first) = (task / bands, task % bands * rows);
        let rows = rows.min(height - first);
        // What the next task adds to this one's rows.
        let seen = (b * s.height + (first + rows) * s.stride) * s.width * s.channels;
        let next = &picture[seen.min(picture.len())..picture.len().min(seen + rows * s.stride * s.width * s.channels)];
        PADDED.with_borrow_mut(|padded| {
            let picture = &picture[b * sample..][..sample];
            // The windows of the last tile may begin behind the last pixel.
            s.pad::<W>(picture, first, rows, sorted, panels.block.mr + s.scale, padded);
            s.band(
                bytemuck::cast_slice(&padded.words),
                &passes,
                panels,
                [b * height + first, rows],
                next,
                &output,
                epilogue,
            );
        });
    });
    // SAFETY: the bands cover all rows, and the panels all columns; each is written by copying first.
    unsafe { out.set_len(len) };
    out
}
