//! Convolution without im2col: the left matrix of the product lies in a copy of the picture with its padding around it. Read
//! flat, rows of that copy one after the other, the windows of consecutive pixels begin a fixed number of values apart, wherever
//! they are. A tile is some groups of such pixels, from one row or several, of one sample or several; where rows do not consist of
//! whole groups, the few places at their ends where a window would wrap around are computed and thrown away. With few
//! output channels this saves the packing, which costs as much as the products there. Under a stride the rows of the copy are
//! sorted by their place in it, so that the rows of consecutive results stay neighbours.
//!
//! A 3x3 convolution of a picture that was doubled by repeating its pixels reads each of them more than once: it is four 2x2
//! convolutions of the picture before, one for each place in a block of 2x2 results, with sums of the weights. So is the
//! gradient of a convolution of stride 2 with respect to its picture.

use crate::allocator::room;
use crate::cpu::kernel::{Block, Factor, GROUPS, Pair, Tile, Windows, Word};
use crate::cpu::pack::RightPanels;
use crate::cpu::parallel::{Output, for_tasks};
use crate::cpu::prefetch::Ahead;
use crate::cpu::tile::{Epilogue, Place, put};
use crate::ops::ConvolutionSizes;
use std::cell::RefCell;
use std::ops::Range;

/// Fewest pixels of a band: with so many a panel of weights is worth reading.
const PIXELS: usize = 256;
/// Fewest of a small picture's, of which a tile is not half empty.
const FEW_PIXELS: usize = 8;
/// Of so many samples each thread has whole ones.
const MANY_SAMPLES: usize = 8;

/// What the padded copy of a band consists of.
pub(crate) trait BandWord: Factor {
    /// What the words of a band depend on beside its values.
    type Range: Copy;
    /// Rows of words behind those of a panel, for [`finish`](Self::finish).
    const FOOT: usize;
    /// Values of a padded band of rows: it stays in L2 while each panel of weights passes over it.
    const BAND: usize;
    /// The number of bands is a multiple of this, if there are so many: large ones are shared evenly among few threads.
    const EVEN: usize;
    /// Whether a band may have several samples.
    const JOINS_SAMPLES: bool;
    /// Most words of a panel of weights that one pass reads, again for every tile of a band: they stay in L2 with it.
    const PANEL: usize;

    /// Of the rows of the picture that a band reads.
    fn range(rows: &[f32]) -> Self::Range;

    /// The word of zeros, for padding.
    fn padding(range: &Self::Range) -> u32;

    fn convert(values: &[f32], range: &Self::Range, out: &mut [Self]);

    /// The sums of products `[mr][nr]` to values.
    fn finish(tile: &mut Tile, block: [usize; 2], range: &Self::Range, foot: &[Self]);
}

/// Words that are their values rounded.
macro_rules! rounded {
    ($word:ty) => {
        impl BandWord for $word {
            type Range = ();
            const FOOT: usize = 0;
            const BAND: usize = 1 << 15;
            const EVEN: usize = 1;
            const JOINS_SAMPLES: bool = true;
            const PANEL: usize = 96 << 10;

            fn range(_: &[f32]) {}

            fn padding((): &()) -> u32 {
                0
            }

            fn convert(values: &[f32], (): &(), out: &mut [Self]) {
                Word::convert(values, out);
            }

            fn finish(_: &mut Tile, _: [usize; 2], (): &(), _: &[Self]) {}
        }
    };
}

rounded!(f32);
rounded!(Pair);

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
    fn pixel<W: Factor>(&self) -> usize {
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

    /// Samples and rows of places that a task takes: several small samples, or a part of one; of a small picture a quarter, so
    /// that there is work for several threads. Depends on the shape alone.
    fn band<W: BandWord>(&self) -> [usize; 2] {
        let [height, width] = self.places;
        let row = self.stretch() * self.channels;
        let sample = self.padded_rows(height) * row;
        if W::JOINS_SAMPLES && self.batch >= MANY_SAMPLES && sample <= 4 * W::BAND {
            let samples = PIXELS.div_ceil(height * width).min(4 * W::BAND / sample);
            return [samples.min(self.batch / MANY_SAMPLES), height];
        }
        let around = self.size[0] + self.scale - 2;
        let rows = (W::BAND / row).saturating_sub(around) / self.stride;
        let most = height.div_ceil(4).max(FEW_PIXELS / width).min(height);
        let rows = rows.max(PIXELS / width).clamp(1, most);
        [1, height.div_ceil(height.div_ceil(rows).next_multiple_of(W::EVEN))]
    }

    /// Results of one row of places.
    fn results(&self) -> usize {
        self.scale.pow(2) * self.places[1] * self.outputs
    }

    /// Words of a padded part of a sample, `sorted` rows of it for each place in the stride.
    fn padded_words<W: Factor>(&self, sorted: usize) -> usize {
        self.stride * sorted * self.stretch() * self.pixel::<W>()
    }

    /// Rows of places `first..first + rows` of a sample with all that they read, zero outside the picture, in words of type `W`:
    /// the padded rows in order of their place in the stride, `sorted` rows of each. What is not written of `out` is read for
    /// places alone that are thrown away. `space` is a row whose pixels end between words.
    fn pad<W: BandWord>(
        &self,
        picture: &[f32],
        first: usize,
        rows: usize,
        sorted: usize,
        out: &mut [u32],
        space: &mut Vec<f32>,
    ) -> W::Range {
        let ([above, before], row) = (self.before, self.width * self.channels);
        let stretch = self.stretch();
        let (line, start) = (stretch * self.pixel::<W>(), before.min(stretch) * self.pixel::<W>());
        let inside = self.width.min(stretch.saturating_sub(before));
        // The rows of the picture that are read.
        let seen =
            [0, self.padded_rows(rows)].map(|r| (first * self.stride + r).saturating_sub(above).min(self.height));
        let range = W::range(&picture[seen[0] * row..seen[1] * row]);
        let padding = W::padding(&range);
        for r in 0..self.padded_rows(rows) {
            let y = (first * self.stride + r).wrapping_sub(above);
            let at = (r % self.stride * sorted + r / self.stride) * line;
            let words = &mut out[at..][..line];
            if y >= self.height {
                words.fill(padding);
                continue;
            }
            words[..start].fill(padding);
            words[start + inside * self.pixel::<W>()..].fill(padding);
            let words = bytemuck::cast_slice_mut(&mut words[start..][..inside * self.pixel::<W>()]);
            let values = &picture[y * row..][..inside * self.channels];
            if self.channels.is_multiple_of(W::DEPTHS) {
                W::convert(values, &range, words);
            } else {
                let whole = self.pixel::<W>() * W::DEPTHS;
                space.clear();
                space.resize(inside * whole, 0.0);
                for (to, from) in space.chunks_exact_mut(whole).zip(values.chunks_exact(self.channels)) {
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = *from;
                    }
                }
                W::convert(space, &range, words);
            }
        }
        range
    }

    /// Where the rows of the filter begin, seen from a place.
    fn segments<W: Factor>(&self, sorted: usize) -> Vec<usize> {
        let row = |ky: usize| ky % self.stride * sorted + ky / self.stride;
        let line = self.stretch() * self.pixel::<W>();
        (0..self.size[0]).map(|ky| row(ky) * line).collect()
    }

    /// One pass, or several whose weights stay in L2, in panels of `nr` columns.
    fn passes<W: BandWord>(&self, nr: usize, segments: &[usize]) -> Vec<Pass> {
        let [kh, kw] = self.size;
        let width = kw * self.pixel::<W>();
        if kh * width <= W::PANEL / nr {
            let segments = segments.to_vec();
            return vec![Pass {
                segments,
                length: width,
                depth: 0,
            }];
        }
        let length = width.div_ceil(width.div_ceil(W::PANEL / nr));
        let starts = (0..kh).flat_map(|ky| (0..width).step_by(length).map(move |at| (ky, at)));
        let pass = |(ky, at)| Pass {
            segments: vec![segments[ky] + at],
            length: length.min(width - at),
            depth: ky * width + at,
        };
        starts.map(pass).collect()
    }

    /// The tiles of `rows` rows of places of each of `samples` samples, whose padded copies are `sample` words apart.
    fn stops<W: BandWord>(&self, [samples, rows]: [usize; 2], sample: usize, block: &Block) -> Stops {
        let (group, width) = (block.group(), self.places[1]);
        // Places of a row, those at its end included where a window wraps around.
        let stretch = self.stretch() / self.stride;
        let of_sample: Vec<[usize; 2]> = if width.is_multiple_of(group) {
            let row = |y: usize| (0..width).step_by(group).map(move |x| [y, x]);
            (0..rows).flat_map(row).collect()
        } else {
            // Without what follows the last pixel.
            let places = rows * stretch - (stretch - width);
            let place = |at: usize| [at / stretch, at % stretch];
            (0..places).step_by(group).map(place).collect()
        };
        let mut stops = Stops {
            samples_and_rows: [samples, rows],
            ..Stops::default()
        };
        let groups: Vec<_> = (0..samples)
            .flat_map(|b| of_sample.iter().map(move |place| (b, *place)))
            .collect();
        for groups in groups.chunks(block.mr / group) {
            let mut stop = Stop {
                groups: [0; GROUPS],
                runs: stops.runs.len()..stops.runs.len(),
            };
            for (i, (b, [y, x])) in groups.iter().enumerate() {
                stop.groups[i] = b * sample + (y * stretch + x) * self.stride * self.pixel::<W>();
                let (mut y, mut x, mut left) = (*y, *x, group);
                while left > 0 && y < rows {
                    let run = (if x < width { width - x } else { stretch - x }).min(left);
                    if x < width {
                        let result = (b * self.places[0] + y) * self.scale * self.places[1] + x;
                        let offset = self.scale * result * self.outputs;
                        stops.run(
                            stop.runs.start,
                            (i + 1) * group - left,
                            run,
                            offset,
                            self.scale * self.outputs,
                        );
                    }
                    (left, x) = (left - run, x + run);
                    if x == stretch {
                        (y, x) = (y + 1, 0);
                    }
                }
            }
            stop.runs.end = stops.runs.len();
            stops.tiles.push(stop);
        }
        stops
    }

    /// Writes the results of a band, the first row of which is number `first_row` of all samples' rows.
    fn multiply<W: BandWord>(
        &self,
        padded: &[W],
        range: &W::Range,
        passes: &[Pass],
        panels: &impl RightPanels<W>,
        first_row: usize,
        stops: &Stops,
        next: &[f32],
        output: &Output,
        epilogue: &Epilogue,
    ) {
        let block = panels.block();
        let (scale, nr, pixel) = (self.scale, block.nr, self.pixel::<W>());
        let depth = self.size.iter().product::<usize>() * pixel;
        let panels_of_part = self.outputs.div_ceil(nr);
        let mut ahead = Ahead::of(next, stops.tiles.len());
        let mut space = Vec::new();
        for panel in 0..scale.pow(2) * panels_of_part {
            let weights = panels.panel(panel, (depth + W::FOOT) * nr, &mut space);
            let part = panel / panels_of_part;
            let (down, right) = (part / scale, part % scale);
            let padded = &padded[(down * self.stretch() + right) * pixel..];
            let results = Results {
                shape: self,
                output,
                block,
                first: ((first_row * scale + down) * scale * self.places[1] + right) * self.outputs,
                column: panel % panels_of_part * nr,
            };
            for (i, pass) in passes.iter().enumerate() {
                let epilogue = if i + 1 == passes.len() {
                    epilogue
                } else {
                    &Epilogue::NONE
                };
                let windows = Windows::even(block.mr, &pass.segments, pass.length, self.stride * pixel);
                let of_pass = &weights[pass.depth * nr..];
                let finish = |tile: &mut Tile| {
                    W::finish(tile, [block.mr, nr], range, &weights[depth * nr..]);
                };
                results.pass(windows, padded, of_pass, finish, stops, i > 0, epilogue, &mut ahead);
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

/// The tiles of a band.
#[derive(Default)]
struct Stops {
    /// Of how many samples, and rows of each.
    samples_and_rows: [usize; 2],
    tiles: Vec<Stop>,
    runs: Vec<Run>,
}

/// A tile: where its groups of rows begin in the padded copy, and which of their results are kept.
struct Stop {
    groups: [usize; GROUPS],
    runs: Range<usize>,
}

/// Rows of a tile that are consecutive pixels: the first of them, and how far its result is from the band's first.
struct Run {
    row: usize,
    rows: usize,
    offset: usize,
}

impl Stops {
    /// Adds `rows` rows from `row` on to the tile whose runs begin with number `first`, to its last run if they go on with it.
    /// Results lie `apart`.
    fn run(&mut self, first: usize, row: usize, rows: usize, offset: usize, apart: usize) {
        match self.runs[first..].last_mut() {
            Some(run) if run.row + run.rows == row && run.offset + run.rows * apart == offset => run.rows += rows,
            _ => self.runs.push(Run { row, rows, offset }),
        }
    }
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
    /// The place of a run, and how far it is from the output's start.
    fn place(&self, run: &Run) -> (Place, usize) {
        let s = self.shape;
        let offset = self.first + run.offset + self.column;
        let place = Place {
            start: self.output.at(offset),
            stride: s.scale * s.outputs,
            rows: run.rows,
            cols: self.block.nr.min(s.outputs - self.column),
        };
        (place, offset)
    }

    /// One panel's product over the windows of all places of the band.
    fn pass<W: BandWord>(
        &self,
        mut windows: Windows,
        padded: &[W],
        weights: &[W],
        finish: impl Fn(&mut Tile),
        stops: &Stops,
        add: bool,
        epilogue: &Epilogue,
        ahead: &mut Ahead,
    ) {
        let block = self.block;
        let mut tile = Tile::ZERO;
        for stop in &stops.tiles {
            let runs = &stops.runs[stop.runs.clone()];
            for run in runs {
                self.place(run).0.prefetch();
            }
            ahead.fetch();
            windows.groups = stop.groups;
            block.windows(&windows, padded, weights, &mut tile);
            finish(&mut tile);
            for run in runs {
                let (place, offset) = self.place(run);
                let epilogue = epilogue.within(self.column, offset);
                put(&tile.0[run.row * block.nr..], block.nr, &place, add, &epilogue);
            }
        }
    }
}

/// `epilogue(picture * weight)`. `panels` is the weight, packed as the right matrix of a product whose depth is (row of the
/// kernel, column, channel), the channel innermost and filled up to whole words with zeros; where the results are doubled four of
/// them, by the row and then the column of the results.
pub(crate) fn convolve<W: BandWord>(
    s: &DirectConvolution,
    picture: &[f32],
    panels: &impl RightPanels<W>,
    epilogue: &Epilogue,
) -> Vec<f32> {
    let (height, results) = (s.places[0], s.results());
    let len = s.batch * height * results;
    if len == 0 {
        return Vec::new();
    }
    let [samples, rows] = s.band::<W>();
    let bands = height.div_ceil(rows);
    let sample = s.height * s.width * s.channels;
    let sorted = s.padded_rows(rows).div_ceil(s.stride);
    let block = panels.block();
    let passes = s.passes::<W>(block.nr, &s.segments::<W>(sorted));
    let depth = s.size.iter().product::<usize>() * s.pixel::<W>();
    let of_outputs = s.scale.pow(2) * s.outputs.div_ceil(block.nr);
    assert!(
        panels.holds(of_outputs, (depth + W::FOOT) * block.nr),
        "the weight of {s:?} is packed for another convolution"
    );
    let words = s.padded_words::<W>(sorted);
    // The windows of the last tile may begin behind the last pixel.
    let more = (block.mr + s.scale) * s.stride * s.pixel::<W>();
    let whole = s.stops::<W>([samples, rows], words, block);
    let mut out = room(len);
    let output = Output::of(&mut out);
    let multiply_adds = len * s.channels * s.size.iter().product::<usize>();
    for_tasks(s.batch.div_ceil(samples) * bands, multiply_adds, |task| {
        let (b, first) = (task / bands * samples, task % bands * rows);
        let (samples, rows) = (samples.min(s.batch - b), rows.min(height - first));
        // What the next task adds to this one's rows.
        let seen = ((b + samples - 1) * s.height + (first + rows) * s.stride) * s.width * s.channels;
        let more_seen = samples * rows * s.stride * s.width * s.channels;
        let next = &picture[seen.min(picture.len())..picture.len().min(seen + more_seen)];
        let is_whole = whole.samples_and_rows == [samples, rows];
        let rest = (!is_whole).then(|| s.stops::<W>([samples, rows], words, block));
        PADDED.with_borrow_mut(|Padded { words: padded, row }| {
            padded.resize(samples * words + more, 0);
            let parts = picture[b * sample..].chunks(sample).zip(padded.chunks_exact_mut(words));
            let ranges = parts
                .take(samples)
                .map(|(picture, padded)| s.pad::<W>(picture, first, rows, sorted, padded, row));
            // Where samples are joined, words depend on nothing but their values: any range will do.
            let Some(range) = ranges.last() else { return };
            s.multiply(
                bytemuck::cast_slice(padded),
                &range,
                &passes,
                panels,
                b * height + first,
                rest.as_ref().unwrap_or(&whole),
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
