//! The gradient of the weight of a convolution or a linear layer: a product whose depth is the output pixels. Both operands
//! are read in the order they have in memory: a band of lines of the picture becomes words in which neighbouring pixels
//! meet, once, and each row of the kernel reads them at another place. What is summed stays in registers while a band is
//! walked over; im2col is never stored, nothing is transposed.

use crate::DType;
use crate::cpu::kernel::{Pair, Walk, Word, kernel};
use crate::cpu::parallel::{map_tasks, zeros};
use crate::cpu::prefetch::Ahead;
use crate::cpu::slide::Slide;
use crate::cpu::sums::add_columns;
use crate::ops::ConvolutionSizes;
use std::cell::RefCell;
use std::ops::Range;

/// Words of a band of both operands: they stay in L2.
const BAND: usize = 1 << 16;
/// Pixels that are worth sums of their own, which are added to the others' in the end.
const PIXELS_OF_PART: usize = 1 << 11;
/// Most such parts.
const PARTS: usize = 16;
/// Most tasks that there should be in all: those of the same part make the same words of the picture.
const TASKS: usize = 8;

thread_local! {
    static WORDS: RefCell<[Vec<u32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// How the sums of a weight are laid out and walked over.
struct Plan<'a> {
    shape: &'a ConvolutionSizes,
    /// Pixels in a word.
    depths: usize,
    mr: usize,
    lanes: usize,
    /// Input channels worked on at a time, and how many such blocks there are.
    block: usize,
    blocks: usize,
    /// Steps of a line of output pixels.
    steps: usize,
    /// Places of a line of the picture.
    places: usize,
    /// Pixels between the places of a line of the picture.
    apart: usize,
}

/// Channels to work on at a time, of `channels`: what wastes the fewest lanes, and then fills kernels of `widest` vectors.
fn block_of(channels: usize, kw: usize, lanes: usize, widest: usize) -> usize {
    if channels <= 4 * lanes {
        return channels;
    }
    let vectors = |block: usize| channels.div_ceil(block) * (kw * block).div_ceil(lanes);
    let choices = if widest == 2 { [4, 2, 3, 1] } else { [3, 2, 1, 4] };
    let choices = choices.map(|vectors| vectors * lanes);
    let best = choices.iter().copied().min_by_key(|block| vectors(*block));
    best.unwrap_or(lanes)
}

impl<'a> Plan<'a> {
    fn new<W: Word>(s: &'a ConvolutionSizes) -> Self {
        let (mr, lanes) = (kernel().outer.mr, kernel().outer.lanes);
        let block = block_of(s.inputs, s.kw, lanes, kernel().outer.widest());
        let steps = s.out_width.div_ceil(W::DEPTHS);
        // Where each pixel is read through one column alone, only those places are made that a step begins at.
        let step = W::DEPTHS * s.stride;
        let (apart, places) = if s.kw == 1 {
            (step, steps)
        } else {
            (1, (steps - 1) * step + s.kw)
        };
        Self {
            shape: s,
            depths: W::DEPTHS,
            mr,
            lanes,
            block,
            blocks: s.inputs.div_ceil(block),
            steps,
            places,
            apart,
        }
    }

    /// Vectors of a window of one row of the kernel.
    fn vectors(&self) -> usize {
        (self.shape.kw * self.block).div_ceil(self.lanes)
    }

    /// The vectors in groups that the kernels take, of two rather than one.
    fn groups(&self) -> impl Iterator<Item = Range<usize>> {
        let (all, widest) = (self.vectors(), kernel().outer.widest());
        let mut first = 0;
        std::iter::from_fn(move || {
            let len = match all - first {
                0 => return None,
                4 => 2,
                rest => rest.min(widest),
            };
            first += len;
            Some(first - len..first)
        })
    }

    /// Sums of `mr` outputs.
    fn sums_of_outputs(&self) -> usize {
        self.blocks * self.shape.kh * self.vectors() * self.mr * self.lanes
    }

    /// Rows of the picture that `lines` output lines of one sample read.
    fn rows(&self, lines: usize) -> usize {
        (lines - 1) * self.shape.stride + self.shape.kh
    }

    /// Output lines of a band: a part of a sample, or several whole ones.
    fn band_lines(&self) -> usize {
        let s = self.shape;
        let line = self.steps * s.outputs.next_multiple_of(self.mr) + s.stride * self.places * self.block * self.blocks;
        let fits = (BAND / line).max(1);
        if fits >= s.out_height {
            return fits / s.out_height * s.out_height;
        }
        s.out_height.div_ceil(s.out_height.div_ceil(fits))
    }

    /// The bands: first sample, samples, and lines of each of them.
    fn bands(&self) -> Vec<(Range<usize>, Range<usize>)> {
        let (s, lines) = (self.shape, self.band_lines());
        if lines >= s.out_height {
            let samples = lines / s.out_height;
            let starts = (0..s.batch).step_by(samples);
            return starts.map(|b| (b..s.batch.min(b + samples), 0..s.out_height)).collect();
        }
        let band = |b: usize, y: usize| (b..b + 1, y..s.out_height.min(y + lines));
        let starts = (0..s.out_height).step_by(lines);
        (0..s.batch)
            .flat_map(|b| starts.clone().map(move |y| band(b, y)))
            .collect()
    }

    /// The lines of the picture that a band reads, as words `[block][row][place][channel]`.
    fn picture_words<W: Word>(&self, x: &[f32], band: &(Range<usize>, Range<usize>), out: &mut Vec<u32>) {
        let s = self.shape;
        let (rows, line) = (self.rows(band.1.len()), self.places * self.block);
        let of_block = band.0.len() * rows * line;
        // The last vectors may end behind the last word.
        out.resize(self.blocks * of_block + 4 * self.lanes, 0);
        let words: &mut [W] = bytemuck::cast_slice_mut(out);
        for (block, words) in words.chunks_exact_mut(of_block).take(self.blocks).enumerate() {
            let slide = Slide {
                channels: s.inputs,
                first: block * self.block,
                block: self.block,
                start: -(s.left() as isize),
                apart: self.apart,
                next: s.stride,
            };
            for (i, words) in words.chunks_exact_mut(line).enumerate() {
                let y = (band.1.start * s.stride + i % rows).wrapping_sub(s.top());
                if y < s.height {
                    let start = ((band.0.start + i / rows) * s.height + y) * s.width * s.inputs;
                    W::slide(&x[start..x.len().min(start + s.width * s.inputs)], &slide, words);
                } else {
                    words.fill(W::zeroed());
                }
            }
        }
    }

    /// The lines of the gradient as words `[mr outputs][line][step][output]`.
    fn gradient_words<W: Word>(
        &self,
        g: &[f32],
        band: &(Range<usize>, Range<usize>),
        outputs: &Range<usize>,
        out: &mut Vec<u32>,
    ) {
        let s = self.shape;
        let (lines, line) = (band.0.len() * band.1.len(), self.steps * self.mr);
        out.resize(outputs.len().div_ceil(self.mr) * lines * line, 0);
        let words: &mut [W] = bytemuck::cast_slice_mut(out);
        let first = band.0.start * s.out_height + band.1.start;
        for (i, words) in words.chunks_exact_mut(lines * line).enumerate() {
            let slide = Slide {
                channels: s.outputs,
                first: outputs.start + i * self.mr,
                block: self.mr,
                start: 0,
                apart: self.depths,
                next: 1,
            };
            let rows = g[first * s.out_width * s.outputs..].chunks(s.out_width * s.outputs);
            for (words, row) in words.chunks_exact_mut(line).zip(rows) {
                W::slide(row, &slide, words);
            }
        }
    }

    /// What `band` reads of the picture and of the gradient, where they lie.
    fn read_by<'d>(&self, x: &'d [f32], g: &'d [f32], band: &(Range<usize>, Range<usize>)) -> [&'d [f32]; 2] {
        let (s, last) = (self.shape, band.0.end - 1);
        let row = |b: usize, y: usize| ((b * s.height + y.min(s.height)) * s.width * s.inputs).min(x.len());
        let line = |b: usize, y: usize| ((b * s.out_height + y) * s.out_width * s.outputs).min(g.len());
        let first = (band.1.start * s.stride).saturating_sub(s.top());
        let end = ((band.1.end - 1) * s.stride + s.kh).saturating_sub(s.top());
        [
            &x[row(band.0.start, first)..row(last, end).max(row(band.0.start, first))],
            &g[line(band.0.start, band.1.start)..line(last, band.1.end)],
        ]
    }

    /// Adds what `bands` give to the sums of `outputs`: `[mr outputs][block][row of the kernel][group of vectors][mr][columns]`.
    /// To `bias`, where there is one, the sums of all columns of the gradient.
    fn add<W: Word>(
        &self,
        x: &[f32],
        g: &[f32],
        bands: &[(Range<usize>, Range<usize>)],
        outputs: &Range<usize>,
        sums: &mut [f32],
        bias: &mut [f32],
    ) {
        let s = self.shape;
        let line = self.places * self.block;
        let step = if s.kw == 1 { 1 } else { self.depths * s.stride } * self.block;
        WORDS.with_borrow_mut(|[picture, gradient]| {
            for (number, band) in bands.iter().enumerate() {
                let next = bands
                    .get(number + 1)
                    .map_or([&[][..]; 2], |next| self.read_by(x, g, next));
                let calls = self.blocks * s.kh * self.groups().count() * outputs.len().div_ceil(self.mr);
                let mut ahead = next.map(|values| Ahead::of(values, calls));
                self.picture_words::<W>(x, band, picture);
                self.gradient_words::<W>(g, band, outputs, gradient);
                if !bias.is_empty() {
                    add_columns(self.read_by(x, g, band)[1], bias);
                }
                let (picture, gradient): (&[W], &[W]) = (bytemuck::cast_slice(picture), bytemuck::cast_slice(gradient));
                let rows = self.rows(band.1.len());
                let lines: Vec<[usize; 2]> = (0..band.0.len() * band.1.len())
                    .map(|i| {
                        let row = i / band.1.len() * rows + i % band.1.len() * s.stride;
                        [i * self.steps * self.mr, row * line]
                    })
                    .collect();
                let walk = Walk {
                    lines: &lines,
                    steps: self.steps,
                    steps_apart: [self.mr, step],
                };
                let gradient_block = lines.len() * self.steps * self.mr;
                for (block, ky) in (0..self.blocks).flat_map(|block| (0..s.kh).map(move |ky| (block, ky))) {
                    let picture = &picture[(block * band.0.len() * rows + ky) * line..];
                    for group in self.groups() {
                        let first = (block * s.kh + ky) * self.vectors() + group.start;
                        let blocks = gradient.chunks_exact(gradient_block);
                        for (sums, gradient) in sums.chunks_exact_mut(self.sums_of_outputs()).zip(blocks) {
                            let sums = &mut sums[first * self.mr * self.lanes..];
                            let picture = &picture[group.start * self.lanes..];
                            ahead.iter_mut().for_each(Ahead::fetch);
                            kernel().outer.add(group.len(), &walk, gradient, picture, sums);
                        }
                    }
                }
            }
        });
    }

    /// Puts the sums of `outputs` in their places in `[outputs, inputs, kh, kw]`.
    fn put(&self, sums: &[f32], outputs: usize, out: &mut [f32]) {
        let s = self.shape;
        let (taps, tile) = (s.kh * s.kw, self.mr * self.lanes);
        // Where the columns of a window go, seen from its first.
        let places: Vec<usize> = (0..s.kw * self.block)
            .map(|at| at % self.block * taps + at / self.block)
            .collect();
        for (o, sums) in (0..outputs)
            .step_by(self.mr)
            .zip(sums.chunks_exact(self.sums_of_outputs()))
        {
            let windows = sums.chunks_exact(self.vectors() * tile).enumerate();
            for (window, sums) in windows {
                let (first, ky) = (window / s.kh * self.block, window % s.kh);
                let end = (s.inputs - first) * taps;
                for group in self.groups() {
                    let columns = group.len() * self.lanes;
                    let rows = sums[group.start * tile..].chunks_exact(columns).take(self.mr);
                    let places = places.get(group.start * self.lanes..).unwrap_or(&[]);
                    for (o, row) in (o..outputs).zip(rows) {
                        let out = &mut out[(o * s.inputs + first) * taps..][..end];
                        for (place, sum) in places.iter().zip(row) {
                            // The last block may have fewer channels.
                            if let Some(to) = out.get_mut(place + ky * s.kw) {
                                *to = *sum;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Of `x` and the gradient of the output: `[outputs, inputs, kh, kw]`, and the bias' `[outputs]`. `dtype`: what both are rounded to. The last line of
/// the last sample may be shorter than the others.
pub(crate) fn weight_gradient(s: &ConvolutionSizes, x: &[f32], g: &[f32], dtype: DType) -> (Vec<f32>, Vec<f32>) {
    match dtype {
        DType::F32 => gradient::<f32>(s, x, g),
        _ => gradient::<Pair>(s, x, g),
    }
}

fn gradient<W: Word>(s: &ConvolutionSizes, x: &[f32], g: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let size = s.inputs * s.kh * s.kw;
    let (mut out, mut bias) = (zeros(s.outputs * size), vec![0.0; s.outputs]);
    if out.is_empty() || s.out_pixels() == 0 {
        if !g.is_empty() {
            add_columns(g, &mut bias);
        }
        return (out, bias);
    }
    let plan = Plan::new::<W>(s);
    let bands = plan.bands();
    // Parts depend on the shape alone, and so does the result.
    let parts = (s.out_pixels() / PIXELS_OF_PART).clamp(1, PARTS).min(bands.len());
    let of_part = bands.len().div_ceil(parts);
    let parts: Vec<_> = bands.chunks(of_part).collect();
    let tasks = rayon::current_num_threads().min(TASKS);
    let wanted = tasks.div_ceil(parts.len()).min(s.outputs.div_ceil(4 * plan.mr));
    let outputs = s.outputs.div_ceil(wanted).next_multiple_of(plan.mr);
    let chunks = s.outputs.div_ceil(outputs);
    let sums = map_tasks(parts.len() * chunks, s.out_pixels() * out.len(), |task| {
        let first = task % chunks * outputs;
        let outputs = first..s.outputs.min(first + outputs);
        let mut sums = vec![0.0; outputs.len().div_ceil(plan.mr) * plan.sums_of_outputs()];
        let mut bias = vec![0.0; if first == 0 { s.outputs } else { 0 }];
        plan.add::<W>(x, g, parts[task / chunks], &outputs, &mut sums, &mut bias);
        (sums, bias)
    });
    let mut total: Vec<Vec<f32>> = Vec::with_capacity(chunks);
    for (i, (part, of_bias)) in sums.into_iter().enumerate() {
        bias.iter_mut().zip(of_bias).for_each(|(sum, x)| *sum += x);
        match total.get_mut(i % chunks) {
            Some(total) => total.iter_mut().zip(part).for_each(|(sum, x)| *sum += x),
            None => total.push(part),
        }
    }
    for (sums, out) in total.iter().zip(out.chunks_mut(outputs * size)) {
        plan.put(sums, out.len() / size, out);
    }
    (out, bias)
}
