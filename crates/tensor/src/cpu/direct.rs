//! Convolution without im2col, for stride 1 and pictures that keep their size: the left matrix of the product lies in a copy
//! of the picture with its padding around it. Read flat, rows of that copy one after the other, the windows of consecutive
//! pixels begin `channels` values apart, wherever they are. The few places at the end of a row where a window would
//! wrap around are computed and thrown away. With few output channels this saves the packing, which costs as much
//! as the products there.
//!
//! A 3x3 convolution of a picture that was doubled by repeating its pixels reads each of them more than once: it is four 2x2
//! convolutions of the picture before, one for each place in a block of 2x2 results, with sums of the weights.

use crate::cpu::kernel::{Block, Tile, Windows, Word};
use crate::cpu::pack::Panels;
use crate::cpu::parallel::{Output, for_tasks};
use crate::cpu::tile::{Epilogue, Place, put};
use std::cell::RefCell;

/// Values of a padded band of rows: it stays in L2 while each panel of weights passes over it.
const BAND: usize = 1 << 15;
/// Most words of a panel of weights that one pass reads, again for every tile of a band: they stay in L2 with it.
const PANEL: usize = 96 << 10;
/// Fewest pixels of a band: with so many a panel of weights is worth reading.
const PIXELS: usize = 256;

/// A picture `[batch, height, width, channels]`, and a filter around each pixel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirectConvolution {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub outputs: usize,
    pub filter: Filter,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Filter {
    /// `kh x kw`, both odd, with the pixel in its middle.
    Centred(usize, usize),
    /// 3x3 on the picture doubled by repetition: `[batch, 2 height, 2 width, outputs]`.
    Doubled,
}

impl Filter {
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

impl DirectConvolution {
    /// Pixels of a padded row.
    fn stretch(&self) -> usize {
        self.width + 2 * self.filter.border()[1]
    }

    /// Rows that a task takes: of a small picture a quarter, so that there is work for several threads. Depends on the shape
    /// alone.
    fn band_rows(&self) -> usize {
        let rows = (BAND / (self.stretch() * self.channels)).saturating_sub(2 * self.filter.border()[0]);
        rows.max(PIXELS / self.width).clamp(1, self.height.div_ceil(4))
    }

    /// Values that one row of the picture becomes.
    fn results(&self) -> usize {
        self.filter.scale().pow(2) * self.width * self.outputs
    }

    /// Rows `first..first + rows` of a sample with the rows and columns around them, zero outside the picture, and `more`
    /// pixels, in words of type `W`.
    fn pad<W: Word>(&self, picture: &[f32], first: usize, rows: usize, more: usize, padded: &mut Vec<u32>) {
        let ([above, before], row) = (self.filter.border(), self.width * self.channels);
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

    /// One pass, or several whose weights stay in L2, in panels of `nr` columns.
    fn passes<W: Word>(&self, nr: usize) -> Vec<Pass> {
        let [kh, kw] = self.filter.size();
        let channels = self.channels / W::DEPTHS;
        let whole = Windows {
            segments: kh,
            length: kw * channels,
            segment_stride: self.stretch() * channels,
            row_stride: channels,
        };
        if kh * whole.length <= PANEL / nr {
            return vec![Pass {
                windows: whole,
                depth: 0,
                start: 0,
            }];
        }
        let parts = whole.length.div_ceil(PANEL / nr);
        let length = whole.length.div_ceil(parts);
        let starts = (0..kh).flat_map(|ky| (0..whole.length).step_by(length).map(move |at| (ky, at)));
        let pass = |(ky, at)| Pass {
            windows: Windows {
                segments: 1,
                length: length.min(whole.length - at),
                ..whole
            },
            depth: ky * whole.length + at,
            start: ky * whole.segment_stride + at,
        };
        starts.map(pass).collect()
    }

    /// Writes the results of `rows` padded rows, the first of which is number `first_row` of all samples' rows.
    fn band<W: Word>(
        &self,
        padded: &[W],
        panels: &Panels<W>,
        [first_row, rows]: [usize; 2],
        output: &Output,
        epilogue: &Epilogue,
    ) {
        let scale = self.filter.scale();
        let nr = panels.block.nr;
        let (channels, passes) = (self.channels / W::DEPTHS, self.passes::<W>(nr));
        let depth = self.filter.size().iter().product::<usize>() * channels;
        let panels_of_part = self.outputs.div_ceil(nr);
        for (panel, weights) in panels.words.chunks_exact(depth * nr).enumerate() {
            let part = panel / panels_of_part;
            let (down, right) = (part / scale, part % scale);
            let padded = &padded[(down * self.stretch() + right) * channels..];
            let results = Results {
                shape: self,
                output,
                block: panels.block,
                first: ((first_row * scale + down) * scale * self.width + right) * self.outputs,
                column: panel % panels_of_part * nr,
            };
            for (i, pass) in passes.iter().enumerate() {
                let last = i + 1 == passes.len();
                let epilogue = if last { epilogue } else { &Epilogue::NONE };
                let (padded, weights) = (&padded[pass.start..], &weights[pass.depth * nr..]);
                results.pass(&pass.windows, padded, weights, rows, i > 0, epilogue);
            }
        }
    }
}

/// Part of the depth of a convolution, in words: where it begins in the weights and, for the first pixel, in the padded
/// picture.
struct Pass {
    windows: Windows,
    depth: usize,
    start: usize,
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
        let (s, scale) = (self.shape, self.shape.filter.scale());
        let offset = self.first + scale * (y * scale * s.width + x) * s.outputs + self.column;
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
    ) {
        let (block, width, stretch) = (self.block, self.shape.width, self.shape.stretch());
        // Without what follows the last pixel.
        let places = rows * stretch - (stretch - width);
        let mut tile = Tile::ZERO;
        let (mut y, mut x) = (0, 0);
        for first in (0..places).step_by(block.mr) {
            if x < width {
                self.place(y, x, block.mr.min(width - x)).0.prefetch();
            }
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
/// kernel, column, channel), the channel innermost; for a doubled picture four of them, by the row and then the column of
/// the results.
pub(crate) fn convolve<W: Word>(
    s: &DirectConvolution,
    picture: &[f32],
    panels: &Panels<W>,
    epilogue: &Epilogue,
) -> Vec<f32> {
    assert!(s.channels.is_multiple_of(W::DEPTHS), "a word holds values of one pixel");
    let (rows, results) = (s.band_rows(), s.results());
    let bands = s.height.div_ceil(rows);
    let sample = s.height * s.width * s.channels;
    let len = s.batch * s.height * results;
    let mut out = Vec::with_capacity(len);
    let output = Output::of(&mut out);
    let multiply_adds = s.batch * s.height * results * s.channels * s.filter.size().iter().product::<usize>();
    for_tasks(s.batch * bands, multiply_adds, |task| {
        let (b, first) = (task / bands, task % bands * rows);
        let rows = rows.min(s.height - first);
        PADDED.with_borrow_mut(|padded| {
            let picture = &picture[b * sample..][..sample];
            // The windows of the last tile may begin behind the last pixel.
            s.pad::<W>(picture, first, rows, panels.block.mr, padded);
            s.band(
                bytemuck::cast_slice(padded),
                panels,
                [b * s.height + first, rows],
                &output,
                epilogue,
            );
        });
    });
    // SAFETY: the bands cover all rows, and the panels all columns; each is written by copying first.
    unsafe { out.set_len(len) };
    out
}
