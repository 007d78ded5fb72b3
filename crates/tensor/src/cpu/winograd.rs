//! 3x3 convolutions of bf16 weights with four ninths of the multiplications: Winograd's minimal filtering F(2x2, 3x3) (Lavin
//! and Gray 2016, section 4.1). Sixteen sums of a 4x4 patch of the picture are multiplied, each with a matrix of its own, and
//! sums of the products are a block of 2x2 results. The sums are f32, the factors are rounded to bf16 after they were summed.
//!
//! A task makes the factors of some blocks, which stay in L2 while each panel of weights passes over them, and the products
//! of one panel, which are turned into results at once.

use crate::allocator::room;
use crate::cpu::bf16::rounded;
use crate::cpu::direct::DirectConvolution;
use crate::cpu::kernel::{Pair, Tile, Windows, kernel};
use crate::cpu::math::dispatch;
use crate::cpu::pack::{Panels, pack_panels};
use crate::cpu::packed::Packed;
use crate::cpu::parallel::{Output, for_tasks};
use crate::cpu::tile::{Epilogue, Place, put};
use crate::{DType, Tensor};
use std::cell::RefCell;
use std::ops::Range;

/// Factors of a block of results, and matrices of weights.
const PARTS: usize = 16;
/// Words of the factors of a task: half of a second-level cache of 1 MiB.
const FACTORS: usize = 128 << 10;
/// Fewest channels on one side and on the other, and blocks of results. Measured on a Zen 5, in parts of the direct way's time:
/// 128 to 128 channels 1.00, 256 to 128 0.77, 256 to 256 0.75. With fewer blocks reading the weights takes longer.
const NARROWER: usize = 128;
const WIDER: usize = 256;
const BLOCKS: usize = 1 << 10;
/// Channels that are summed at once.
const LANES: usize = 16;

/// Whether a convolution that keeps the picture's size gains by this.
pub(crate) fn suits(s: &DirectConvolution) -> bool {
    let keeps_size = s.stride == 1 && s.scale == 1 && s.before == [1, 1] && s.places == [s.height, s.width];
    let is_3x3 = s.size == [3, 3] && keeps_size;
    let blocks = s.height.div_ceil(2) * s.width.div_ceil(2);
    let is_wide = s.channels.min(s.outputs) >= NARROWER && s.channels.max(s.outputs) >= WIDER;
    is_3x3 && s.channels.is_multiple_of(LANES) && is_wide && blocks >= BLOCKS
}

/// The sixteen matrices `[inputs, outputs]` of a weight `[outputs, inputs, 3, 3]`, one after the other.
pub(crate) fn weight_panels(weight: &Tensor) -> Packed {
    let (outputs, inputs) = (weight.dim(0), weight.dim(1));
    let block = kernel().for_columns(outputs);
    let (nr, padded) = (block.nr, outputs.next_multiple_of(block.nr));
    let words = pack_panels(PARTS * padded, inputs, nr, |columns, panel| {
        let (part, first) = (columns.start / padded, columns.start % padded);
        let (down, across) = (FILTER[part / 4], FILTER[part % 4]);
        for (input, values) in panel.chunks_exact_mut(nr).enumerate() {
            for (value, output) in values.iter_mut().zip(first..outputs) {
                let kernel = &weight.data()[(output * inputs + input) * 9..][..9];
                let rows = kernel.chunks_exact(3).map(|row| dot(row, &across));
                *value = rows.zip(&down).map(|(sum, factor)| sum * factor).sum();
            }
        }
    });
    let words = words.into();
    Packed::new(Panels { block, words }, inputs, DType::BF16)
}

/// The matrix G of the paper.
const FILTER: [[f32; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

fn dot(row: &[f32], factors: &[f32; 3]) -> f32 {
    row.iter().zip(factors).map(|(x, factor)| x * factor).sum()
}

#[derive(Default)]
struct Workspace {
    /// `[PARTS][blocks][channels]` in bf16.
    factors: Vec<u32>,
    /// For each group of `mr` blocks the products of every part.
    products: Vec<Tile>,
    /// One tile: the results of a block.
    results: Vec<Tile>,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// `epilogue(picture * weight)`: the same as `direct::convolve`, but for rounding.
pub(crate) fn convolve(s: &DirectConvolution, picture: &[f32], panels: &Panels<Pair>, epilogue: &Epilogue) -> Vec<f32> {
    assert!(suits(s), "{s:?} is not for this");
    let shape = Shape {
        s: *s,
        across: s.width.div_ceil(2),
    };
    let blocks = s.height.div_ceil(2) * shape.across;
    let mr = panels.block.mr;
    let at_once = (FACTORS / (PARTS * s.channels / 2) / mr).max(1) * mr;
    // Parts of equal size, so that the last one leaves no thread waiting.
    let at_once = blocks.div_ceil(blocks.div_ceil(at_once)).next_multiple_of(mr);
    let parts = blocks.div_ceil(at_once);
    let len = s.batch * s.height * s.width * s.outputs;
    let mut out = room(len);
    let output = Output::of(&mut out);
    let multiply_adds = PARTS * s.batch * blocks * s.channels * s.outputs;
    for_tasks(s.batch * parts, multiply_adds, |task| {
        let (sample, first) = (task / parts, task % parts * at_once);
        let run = first..blocks.min(first + at_once);
        WORKSPACE.with_borrow_mut(|space| {
            shape.factors(sample, run.clone(), mr, picture, &mut space.factors);
            shape.products(sample, run, panels, space, &output, epilogue);
        });
    });
    // SAFETY: the blocks of all tasks cover the picture, and the panels all outputs; each is written by copying.
    unsafe { out.set_len(len) };
    out
}

struct Shape {
    s: DirectConvolution,
    /// Blocks side by side.
    across: usize,
}

impl Shape {
    /// Row and column of the first result of a block.
    fn corner(&self, block: usize) -> [usize; 2] {
        [2 * (block / self.across), 2 * (block % self.across)]
    }

    fn factors(&self, sample: usize, run: Range<usize>, mr: usize, picture: &[f32], factors: &mut Vec<u32>) {
        let (s, channels) = (&self.s, self.s.channels);
        let picture = &picture[sample * s.height * s.width * channels..][..s.height * s.width * channels];
        let stride = run.len().next_multiple_of(mr) * channels / 2;
        factors.resize(PARTS * stride, 0);
        let zeros = vec![0.0; channels];
        for (i, block) in run.enumerate() {
            let [y, x] = self.corner(block);
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
            transform(&patch, &mut factors[i * channels / 2..], stride);
        }
    }

    fn products(
        &self,
        sample: usize,
        run: Range<usize>,
        panels: &Panels<Pair>,
        space: &mut Workspace,
        output: &Output,
        epilogue: &Epilogue,
    ) {
        let (s, words) = (&self.s, self.s.channels / 2);
        let (mr, nr) = (panels.block.mr, panels.block.nr);
        let windows = Windows {
            segments: &[0],
            length: words,
            row_stride: words,
        };
        let groups = run.len().div_ceil(mr);
        let stride = groups * mr * words;
        space.products.resize_with(groups * PARTS, || Tile::ZERO);
        space.results.resize_with(1, || Tile::ZERO);
        let panels_of_part = s.outputs.div_ceil(nr);
        for panel in 0..panels_of_part {
            for part in 0..PARTS {
                let weights = &panels.words[(part * panels_of_part + panel) * words * nr..][..words * nr];
                let factors = space.factors[part * stride..][..stride].chunks_exact(mr * words);
                for (factors, products) in factors.zip(space.products.chunks_exact_mut(PARTS)) {
                    panels.block.windows(&windows, factors, weights, &mut products[part]);
                }
            }
            let place = Results {
                shape: self,
                output,
                sample,
                column: panel * nr,
                cols: nr.min(s.outputs - panel * nr),
                epilogue,
            };
            for (i, block) in run.clone().enumerate() {
                let products = &space.products[i / mr * PARTS..][..PARTS];
                sum(products, i % mr * nr, nr, &mut space.results[0]);
                place.put(&space.results[0], nr, self.corner(block));
            }
        }
    }
}

/// Where the results of one panel go.
struct Results<'a> {
    shape: &'a Shape,
    output: &'a Output<'a>,
    sample: usize,
    column: usize,
    cols: usize,
    epilogue: &'a Epilogue<'a>,
}

impl Results<'_> {
    /// The results of the block at `[y, x]`.
    fn put(&self, results: &Tile, nr: usize, [y, x]: [usize; 2]) {
        let s = &self.shape.s;
        let columns = 2.min(s.width - x);
        for row in 0..2.min(s.height - y) {
            let pixel = (self.sample * s.height + y + row) * s.width + x;
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
