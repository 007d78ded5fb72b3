//! 3x3 convolutions of bf16 weights with four ninths of the multiplications: Winograd's minimal filtering F(2x2, 3x3) (Lavin
//! and Gray 2016, section 4.1). Sixteen sums of a 4x4 patch of the picture are multiplied, each with a matrix of its own, and
//! sums of the products are a block of 2x2 results. The sums are f32, the factors are rounded to bf16 after they were summed.
//!
//! In a large picture a task makes the factors of some blocks, which stay in L2 while each panel of weights passes over them.
//! In a small one, whose weights are the larger part, all factors are made first, and a task takes one panel of weights, which
//! is read once. Either way the products of one panel are turned into results at once.

use crate::allocator::room;
use crate::cpu::bf16::{HIGH, pair, rounded};
use crate::cpu::direct::DirectConvolution;
use crate::cpu::kernel::{Pair, Tile, Windows, kernel};
use crate::cpu::math::dispatch;
use crate::cpu::pack::{Aligned, Panels};
use crate::cpu::packed::Packed;
use crate::cpu::parallel::{Output, for_tasks};
use crate::cpu::tile::{Epilogue, Place, put};
use crate::cpu::weights::Values;
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;

/// Factors of a block of results, and matrices of weights.
const PARTS: usize = 16;
const TAPS: usize = 9;
/// Words of the factors of a task: half of a second-level cache of 1 MiB.
const FACTORS: usize = 128 << 10;
/// Blocks whose products of one panel are there at once, where the panel passes over all: half of that cache.
const RUN: usize = 128;
/// Fewest channels on one side and on the other, and blocks of results. Measured on a Zen 5, in parts of the direct way's time:
/// 128 to 128 channels 1.00, 256 to 128 0.77, 256 to 256 0.75. With fewer blocks reading the weights takes longer.
const NARROWER: usize = 128;
const WIDER: usize = 256;
const BLOCKS: usize = 1 << 10;
/// Channels on both sides of weights that gain with any number of blocks, so that no other form of them is needed.
const WIDE: usize = 512;
/// Channels that are summed at once.
const LANES: usize = 16;

/// Whether a convolution goes this way, which keeps the picture's size.
pub(crate) fn fits(s: &DirectConvolution) -> bool {
    let keeps_size = s.stride == 1 && s.scale == 1 && s.before == [1, 1] && s.places == [s.height, s.width];
    s.size == [3, 3] && keeps_size && s.channels.is_multiple_of(LANES)
}

/// Whether it gains by that, if its weight is kept in another form too.
pub(crate) fn suits(s: &DirectConvolution) -> bool {
    let blocks = s.height.div_ceil(2) * s.width.div_ceil(2);
    let is_wide = s.channels.min(s.outputs) >= NARROWER && s.channels.max(s.outputs) >= WIDER;
    fits(s) && is_wide && blocks >= BLOCKS
}

/// Whether a weight of this shape, of a convolution that keeps the picture's size, needs no other form.
pub(crate) fn suits_weight(shape: &[usize]) -> bool {
    matches!(*shape, [outputs, inputs, 3, 3] if inputs.is_multiple_of(LANES) && inputs.min(outputs) >= WIDE)
}

/// How many values a weight of this shape is kept in as [`Keep::Summed`](crate::Keep::Summed).
pub fn summed_values(shape: &[usize]) -> usize {
    let values = shape.iter().product();
    if suits_weight(shape) {
        values / TAPS * PARTS
    } else {
        values
    }
}

/// The sixteen matrices `[inputs, outputs]` of a weight `[outputs, inputs, 3, 3]`: `[panel][PARTS][inputs / 2][nr]`.
pub(crate) fn pack<V: Values + ?Sized>(shape: &[usize], values: &V) -> Result<Packed, V::Error> {
    let (outputs, inputs) = (shape[0], shape[1]);
    let block = kernel().for_columns(outputs);
    let (nr, depth, words) = (block.nr, inputs * TAPS, inputs / 2);
    let size = PARTS * words * nr;
    let write = |panel, out: &mut [Pair], space: &mut Vec<f32>| {
        let columns = panel * nr..outputs.min((panel + 1) * nr);
        let rows = values.wide(columns.start * depth..columns.end * depth, space)?;
        let out: &mut [u32] = bytemuck::cast_slice_mut(out);
        for word in 0..words {
            for (column, row) in rows.chunks_exact(depth).enumerate() {
                let [low, high] = [0, 1].map(|half| matrices(&row[(2 * word + half) * TAPS..][..TAPS]));
                for part in 0..PARTS {
                    out[(part * words + word) * nr + column] = pair(low[part], high[part]);
                }
            }
        }
        Ok(())
    };
    let words = Aligned::written(outputs.div_ceil(nr) * size, size, write)?.into();
    Ok(Packed::Winograd(Panels { block, words }))
}

/// The paper's G g Gᵀ.
fn matrices(kernel: &[f32]) -> [f32; PARTS] {
    let filter = |[a, b, c]: [f32; 3]| [a, 0.5 * (a + c) + 0.5 * b, 0.5 * (a + c) - 0.5 * b, c];
    let columns = [0, 1, 2].map(|x| filter([0, 1, 2].map(|y| kernel[3 * y + x])));
    let mut out = [0.0; PARTS];
    for (y, row) in out.chunks_exact_mut(4).enumerate() {
        row.copy_from_slice(&filter(columns.map(|column| column[y])));
    }
    out
}

/// Whether these are as many words as [`pack`] makes of a weight of that shape.
pub(crate) fn is_whole(panels: &Panels<Pair>, shape: &[usize]) -> bool {
    suits_weight(shape) && panels.words.len() == shape[0].next_multiple_of(panels.block.nr) * PARTS * shape[1] / 2
}

/// The weight of `shape` that was packed, but for what rounding the sums took of the kernels' middle row and column.
pub(crate) fn unpack(panels: &Panels<Pair>, shape: &[usize]) -> Vec<f32> {
    let (outputs, inputs) = (shape[0], shape[1]);
    let (nr, words) = (panels.block.nr, inputs / 2);
    let mut out = vec![0.0; outputs * inputs * TAPS];
    let rows = out.par_chunks_mut((inputs * TAPS).max(1)).enumerate();
    rows.for_each(|(output, row)| {
        let panel = &panels.words[output / nr * nr * PARTS * words..][..nr * PARTS * words];
        for (input, kernel) in row.chunks_exact_mut(TAPS).enumerate() {
            let part = |part: usize| {
                let word = panel[(part * words + input / 2) * nr + output % nr];
                f32::from_bits(if input % 2 == 0 { word << 16 } else { word & HIGH })
            };
            let filtered = |[a, b, c, d]: [f32; 4]| [a, b - c, d];
            let columns = [0, 1, 2, 3].map(|x| filtered([0, 1, 2, 3].map(|y| part(4 * y + x))));
            for (y, row) in kernel.chunks_exact_mut(3).enumerate() {
                row.copy_from_slice(&filtered(columns.map(|column| column[y])));
            }
        }
    });
    out
}

struct Workspace {
    /// For each group of `mr` blocks `[PARTS][mr][channels]` in bf16.
    factors: Vec<u32>,
    /// For each group of `mr` blocks the products of every part.
    products: Vec<Tile>,
    /// Of one block.
    results: Tile,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = const {
        RefCell::new(Workspace { factors: Vec::new(), products: Vec::new(), results: Tile::ZERO })
    };
}

/// `epilogue(picture * weight)`: the same as `direct::convolve`, but for rounding.
pub(crate) fn convolve(s: &DirectConvolution, picture: &[f32], panels: &Panels<Pair>, epilogue: &Epilogue) -> Vec<f32> {
    assert!(fits(s), "{s:?} is not for this");
    let across = s.width.div_ceil(2);
    let shape = Shape {
        s: *s,
        across,
        blocks: s.height.div_ceil(2) * across,
        words: s.channels / 2,
    };
    let len = s.batch * s.height * s.width * s.outputs;
    let mut out = room(len);
    let ends = Ends {
        output: &Output::of(&mut out),
        epilogue,
        panels,
    };
    if shape.blocks >= BLOCKS {
        shape.by_blocks(picture, &ends);
    } else {
        shape.by_panels(picture, &ends);
    }
    // SAFETY: the blocks of all tasks cover the picture, and the panels all outputs; each is written by copying.
    unsafe { out.set_len(len) };
    out
}

/// The weights, and where the results go.
struct Ends<'a> {
    panels: &'a Panels<Pair>,
    output: &'a Output<'a>,
    epilogue: &'a Epilogue<'a>,
}

struct Shape {
    s: DirectConvolution,
    /// Blocks side by side.
    across: usize,
    /// Of one picture. They are numbered through all pictures.
    blocks: usize,
    /// Of two channels.
    words: usize,
}

impl Shape {
    /// The picture, and row and column of the first result of a block.
    fn corner(&self, block: usize) -> (usize, [usize; 2]) {
        let (sample, block) = (block / self.blocks, block % self.blocks);
        (sample, [2 * (block / self.across), 2 * (block % self.across)])
    }

    fn multiply_adds(&self) -> usize {
        PARTS * self.s.batch * self.blocks * self.s.channels * self.s.outputs
    }

    /// A task is some blocks.
    fn by_blocks(&self, picture: &[f32], ends: &Ends) {
        let mr = ends.panels.block.mr;
        let blocks = self.s.batch * self.blocks;
        let at_once = (FACTORS / (PARTS * self.words) / mr).max(1) * mr;
        // Tasks of equal size, so that the last one leaves no thread waiting.
        let at_once = blocks.div_ceil(blocks.div_ceil(at_once)).next_multiple_of(mr);
        for_tasks(blocks.div_ceil(at_once), self.multiply_adds(), |task| {
            let run = task * at_once..blocks.min((task + 1) * at_once);
            WORKSPACE.with_borrow_mut(|space| {
                let mut factors = std::mem::take(&mut space.factors);
                let group = PARTS * mr * self.words;
                factors.resize(run.len().div_ceil(mr) * group, 0);
                for (i, factors) in factors.chunks_exact_mut(group).enumerate() {
                    let first = run.start + i * mr;
                    self.factors(first..run.end.min(first + mr), picture, factors);
                }
                for panel in 0..self.s.outputs.div_ceil(ends.panels.block.nr) {
                    self.products(&run, panel, &factors, space, ends);
                }
                space.factors = factors;
            });
        });
    }

    /// A task is a panel.
    fn by_panels(&self, picture: &[f32], ends: &Ends) {
        let mr = ends.panels.block.mr;
        let blocks = self.s.batch * self.blocks;
        let group = PARTS * mr * self.words;
        // Kept for the next convolution, so that its pages are not cleared again.
        let mut factors = WORKSPACE.with_borrow_mut(|space| std::mem::take(&mut space.factors));
        factors.resize(blocks.div_ceil(mr) * group, 0);
        let groups = factors.par_chunks_exact_mut(group).enumerate();
        groups.for_each(|(i, factors)| self.factors(i * mr..blocks.min((i + 1) * mr), picture, factors));
        let run = RUN.next_multiple_of(mr);
        for_tasks(
            self.s.outputs.div_ceil(ends.panels.block.nr),
            self.multiply_adds(),
            |panel| {
                WORKSPACE.with_borrow_mut(|space| {
                    for (i, factors) in factors.chunks(run / mr * group).enumerate() {
                        let run = i * run..blocks.min((i + 1) * run);
                        self.products(&run, panel, factors, space, ends);
                    }
                });
            },
        );
        WORKSPACE.with_borrow_mut(|space| space.factors = factors);
    }

    /// `[PARTS][mr][words]`: the factors of at most `mr` blocks, whose number is filled up by what is there.
    fn factors(&self, blocks: Range<usize>, picture: &[f32], factors: &mut [u32]) {
        let (s, channels) = (&self.s, self.s.channels);
        let (size, stride) = (s.height * s.width * channels, factors.len() / PARTS);
        let zeros = vec![0.0; channels];
        for (i, block) in blocks.enumerate() {
            let (sample, [y, x]) = self.corner(block);
            let picture = &picture[sample * size..][..size];
            let patch: [&[f32]; PARTS] = std::array::from_fn(|at| {
                // Padding: before the first row or column the difference wraps to one that is too large.
                let (y, x) = ((y + at / 4).wrapping_sub(1), (x + at % 4).wrapping_sub(1));
                let inside = y < s.height && x < s.width;
                if inside {
                    &picture[(y * s.width + x) * channels..][..channels]
                } else {
                    &zeros
                }
            });
            transform(&patch, &mut factors[i * self.words..], stride);
        }
    }

    /// The results of these blocks by one panel.
    fn products(&self, blocks: &Range<usize>, panel: usize, factors: &[u32], space: &mut Workspace, ends: &Ends) {
        let (s, words, panels) = (&self.s, self.words, ends.panels);
        let (mr, nr) = (panels.block.mr, panels.block.nr);
        let windows = Windows::even(mr, &[0], words, words);
        let groups = blocks.len().div_ceil(mr);
        if space.products.len() < groups * PARTS {
            space.products.resize_with(groups * PARTS, || Tile::ZERO);
        }
        let weights = &panels.words[panel * PARTS * words * nr..][..PARTS * words * nr];
        for (part, weights) in weights.chunks_exact(words * nr).enumerate() {
            let groups = factors.chunks_exact(PARTS * mr * words);
            for (factors, products) in groups.zip(space.products.chunks_exact_mut(PARTS)) {
                let factors = &factors[part * mr * words..][..mr * words];
                panels.block.windows(&windows, factors, weights, &mut products[part]);
            }
        }
        let place = Results {
            shape: self,
            output: ends.output,
            column: panel * nr,
            cols: nr.min(s.outputs - panel * nr),
            epilogue: ends.epilogue,
        };
        for (i, block) in blocks.clone().enumerate() {
            let products = &space.products[i / mr * PARTS..][..PARTS];
            sum(products, i % mr * nr, nr, &mut space.results);
            place.put(&space.results, nr, block);
        }
    }
}

/// Where the results of one panel go.
struct Results<'a> {
    shape: &'a Shape,
    output: &'a Output<'a>,
    column: usize,
    cols: usize,
    epilogue: &'a Epilogue<'a>,
}

impl Results<'_> {
    fn put(&self, results: &Tile, nr: usize, block: usize) {
        let s = &self.shape.s;
        let (sample, [y, x]) = self.shape.corner(block);
        let columns = 2.min(s.width - x);
        for row in 0..2.min(s.height - y) {
            let pixel = (sample * s.height + y + row) * s.width + x;
            let offset = pixel * s.outputs + self.column;
            let place = Place {
                start: self.output.at(offset),
                stride: s.outputs,
                rows: columns,
                cols: self.cols,
            };
            let epilogue = self.epilogue.within(self.column, offset);
            put(&results.0[2 * row * nr..], nr, &place, false, &epilogue);
        }
    }
}

#[inline(always)]
fn transform_body<const FMA: bool>(patch: &[&[f32]; PARTS], factors: &mut [u32], stride: usize) {
    for at in (0..patch[0].len()).step_by(LANES) {
        let mut d = [[0.0f32; LANES]; PARTS];
        for (d, pixel) in d.iter_mut().zip(patch) {
            d.copy_from_slice(&pixel[at..at + LANES]);
        }
        // The paper's Bᵀ d B: differences down the columns, then along the rows.
        let mut t = [[0.0f32; LANES]; PARTS];
        for x in 0..4 {
            let [a, b, c, e] = [d[x], d[4 + x], d[8 + x], d[12 + x]];
            for l in 0..LANES {
                t[x][l] = a[l] - c[l];
                t[4 + x][l] = b[l] + c[l];
                t[8 + x][l] = c[l] - b[l];
                t[12 + x][l] = b[l] - e[l];
            }
        }
        for y in 0..4 {
            let [a, b, c, e] = [t[4 * y], t[4 * y + 1], t[4 * y + 2], t[4 * y + 3]];
            let mut sums = [[0.0f32; LANES]; 4];
            for l in 0..LANES {
                sums[0][l] = a[l] - c[l];
                sums[1][l] = b[l] + c[l];
                sums[2][l] = c[l] - b[l];
                sums[3][l] = b[l] - e[l];
            }
            for (x, sums) in sums.iter().enumerate() {
                let out: &mut [u16] =
                    bytemuck::cast_slice_mut(&mut factors[(4 * y + x) * stride + at / 2..][..LANES / 2]);
                for (out, value) in out.iter_mut().zip(sums) {
                    *out = (rounded(*value) >> 16) as u16;
                }
            }
        }
    }
}

dispatch! {
    /// The sixteen factors of one block in bf16, `stride` words apart.
    fn transform(patch: &[&[f32]; PARTS], factors: &mut [u32], stride: usize) = transform_body
}

#[inline(always)]
fn sum_body<const FMA: bool>(products: &[Tile], at: usize, nr: usize, results: &mut Tile) {
    for first in (0..nr).step_by(8) {
        let m: [[f32; 8]; PARTS] = std::array::from_fn(|part| {
            let mut values = [0.0; 8];
            values.copy_from_slice(&products[part].0[at + first..][..8]);
            values
        });
        let mut t = [[[0.0f32; 8]; 4]; 2];
        for x in 0..4 {
            for l in 0..8 {
                t[0][x][l] = m[x][l] + m[4 + x][l] + m[8 + x][l];
                t[1][x][l] = m[4 + x][l] - m[8 + x][l] - m[12 + x][l];
            }
        }
        for (row, [a, b, c, d]) in t.iter().enumerate() {
            let left: [f32; 8] = std::array::from_fn(|l| a[l] + b[l] + c[l]);
            let right: [f32; 8] = std::array::from_fn(|l| b[l] - c[l] - d[l]);
            results.0[2 * row * nr + first..][..8].copy_from_slice(&left);
            results.0[(2 * row + 1) * nr + first..][..8].copy_from_slice(&right);
        }
    }
}

dispatch! {
    /// The four results of one block, `[2][2][nr]`: the paper's Aᵀ m A.
    fn sum(products: &[Tile], at: usize, nr: usize, results: &mut Tile) = sum_body
}
