//! A matrix made orthogonal (see [`crate::orthogonalize`]): products of small matrices, most of which are symmetric. Of a
//! symmetric product the tiles on one side of the diagonal are computed, and a symmetric factor is packed by copying its rows.

use crate::DType;
use crate::cpu::kernel::{Pair, Tile, Word, kernel};
use crate::cpu::optimizer::sum_squares;
use crate::cpu::pack::Aligned;
use crate::cpu::tile::{Epilogue, Place, put};
use crate::ops::QUINTIC;
use std::ops::Range;

/// After so many steps no singular value that matters is small any more, and products may round their factors to bf16.
const STEPS_IN_F32: usize = 2;
/// Depth of a block in values: its panels stay in L2.
const DEPTH: usize = 1024;
/// Rows and columns that are mirrored at a time.
const MIRRORED: usize = 16;

/// A factor of a product.
#[derive(Clone, Copy)]
struct Factor<'a> {
    values: &'a [f32],
    /// From one row to the next.
    stride: usize,
    /// Whether the depth of the product runs along the rows, or down the columns.
    along_rows: bool,
}

impl<'a> Factor<'a> {
    fn symmetric(values: &'a [f32], n: usize) -> Self {
        Self {
            values,
            stride: n,
            along_rows: false,
        }
    }

    /// Panels of `width` for the depths `ks`: of rows, or of columns, of which there are `count`.
    fn pack<W: Word>(&self, count: usize, ks: &Range<usize>, width: usize) -> Aligned<W> {
        let words = ks.len().div_ceil(W::DEPTHS) * width;
        let mut out = Aligned::zeroed(count.div_ceil(width) * words);
        let (mut space, mut panel) = (Vec::new(), Vec::new());
        for (first, out) in (0..count).step_by(width).zip(out.chunks_exact_mut(words)) {
            let here = first..count.min(first + width);
            if self.along_rows {
                let row = |r: usize| &self.values[r * self.stride..][ks.clone()];
                let strips: Vec<&[f32]> = here.map(row).collect();
                W::interleave(&strips, width, out, &mut space);
            } else {
                panel.resize(ks.len() * width, 0.0);
                for (k, to) in ks.clone().zip(panel.chunks_exact_mut(width)) {
                    let row = &self.values[k * self.stride..][here.clone()];
                    to[..row.len()].copy_from_slice(row);
                    to[row.len()..].fill(0.0);
                }
                W::join(&panel, width, out);
            }
        }
        out
    }
}

/// Puts the product of packed factors in `out` `[m, n]`, or adds it; of a symmetric one the tiles that reach above the diagonal.
fn multiply<W: Word>(
    [m, n, depth]: [usize; 3],
    lefts: &[W],
    rights: &[W],
    symmetric: bool,
    add: bool,
    out: &mut [f32],
) {
    let block = kernel().for_columns(n);
    let (mr, nr) = (block.mr, block.nr);
    let mut tile = Tile::ZERO;
    for (column, right) in (0..n).step_by(nr).zip(rights.chunks_exact(depth * nr)) {
        for (row, left) in (0..m).step_by(mr).zip(lefts.chunks_exact(depth * mr)) {
            if symmetric && row >= column + nr {
                break;
            }
            block.multiply(depth, left, right, &mut tile.0);
            let place = Place {
                start: out[row * n + column..].as_mut_ptr(),
                stride: n,
                rows: mr.min(m - row),
                cols: nr.min(n - column),
            };
            put(&tile.0, nr, &place, add, &Epilogue::NONE);
        }
    }
}

/// `left [m, k] · right [k, n]`; if it is symmetric, only half of it is computed.
fn product<W: Word>([m, n, k]: [usize; 3], left: Factor, right: Factor, symmetric: bool) -> Vec<f32> {
    let mut out = vec![0.0; m * n];
    let block = kernel().for_columns(n);
    for first in (0..k).step_by(DEPTH) {
        let ks = first..k.min(first + DEPTH);
        let (lefts, rights) = (left.pack::<W>(m, &ks, block.mr), right.pack::<W>(n, &ks, block.nr));
        let sizes = [m, n, ks.len().div_ceil(W::DEPTHS)];
        multiply(sizes, &lefts, &rights, symmetric, first > 0, &mut out);
    }
    if symmetric {
        mirror(&mut out, n);
    }
    out
}

/// A step on `g` of side `n`, which becomes `q g q` unless it is the last one; the product of all steps' factors gets another.
fn step<W: Word>(g: &mut Vec<f32>, all: &mut Option<Vec<f32>>, n: usize, is_last: bool) {
    let block = kernel().for_columns(n);
    let pack = |values: &[f32], width: usize| Factor::symmetric(values, n).pack::<W>(n, &(0..n), width);
    let times = |left: &[W], right: &[W]| {
        let mut out = vec![0.0; n * n];
        multiply([n, n, n.div_ceil(W::DEPTHS)], left, right, true, false, &mut out);
        mirror(&mut out, n);
        out
    };
    let left = pack(g, block.mr);
    let q = polynomial(QUINTIC.map(|x| x as f32), g, times(&left, &pack(g, block.nr)), n);
    let right = pack(&q, block.nr);
    if !is_last {
        let gq = times(&left, &right);
        *g = times(&pack(&gq, block.mr), &right);
    }
    *all = Some(match all.take() {
        Some(all) => times(&pack(&all, block.mr), &right),
        None => q,
    });
}

/// [`product`] whose factors are rounded to `dtype`.
fn rounded(dtype: DType, sizes: [usize; 3], left: Factor, right: Factor, symmetric: bool) -> Vec<f32> {
    match dtype {
        DType::F32 => product::<f32>(sizes, left, right, symmetric),
        _ => product::<Pair>(sizes, left, right, symmetric),
    }
}

/// Copies what lies above the diagonal below it.
fn mirror(values: &mut [f32], n: usize) {
    for rows in (0..n).step_by(MIRRORED) {
        for columns in (0..=rows).step_by(MIRRORED) {
            for r in rows..n.min(rows + MIRRORED) {
                for c in columns..r.min(columns + MIRRORED) {
                    values[r * n + c] = values[c * n + r];
                }
            }
        }
    }
}

/// `a · identity + b · g + c · squared` in the place of `squared`.
fn polynomial([a, b, c]: [f32; 3], g: &[f32], mut squared: Vec<f32>, n: usize) -> Vec<f32> {
    squared.iter_mut().zip(g).for_each(|(q, g)| *q = b * g + c * *q);
    squared.iter_mut().step_by(n + 1).for_each(|q| *q += a);
    squared
}

/// `x` `[rows, columns]` after so many steps, all of them taken on its smaller Gram matrix `g`: a step multiplies `x` by
/// `q = a + b g + c g²`, and so `g` by `q` twice, and all of these commute.
pub(crate) fn orthogonalize(x: &[f32], [rows, columns]: [usize; 2], steps: usize, dtype: DType) -> Vec<f32> {
    let (n, is_wide) = (rows.min(columns), rows < columns);
    let inverse = 1.0 / sum_squares(&[x]).sqrt().max(1e-7);
    let scaled = |values: Vec<f32>, by: f64| -> Vec<f32> { values.iter().map(|x| x * by as f32).collect() };
    // Both factors of the Gram matrix, and the left or right one of the result.
    let factor = Factor {
        values: x,
        stride: columns,
        along_rows: is_wide,
    };
    let gram = rounded(dtype, [n, n, rows.max(columns)], factor, factor, true);
    let mut g = scaled(gram, inverse * inverse);
    let mut all = None;
    for number in 0..steps {
        let is_last = number + 1 == steps;
        match dtype {
            DType::BF16 if number >= STEPS_IN_F32 => step::<Pair>(&mut g, &mut all, n, is_last),
            _ => step::<f32>(&mut g, &mut all, n, is_last),
        }
    }
    let Some(all) = all else {
        return scaled(x.to_vec(), inverse);
    };
    let all = scaled(all, inverse);
    let all = Factor::symmetric(&all, n);
    let x = Factor {
        along_rows: !is_wide,
        ..factor
    };
    let [left, right] = if is_wide { [all, x] } else { [x, all] };
    rounded(dtype, [rows, columns, n], left, right, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without the pattern that would leave some singular values close to zero.
    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// The iteration of the paper, on `x` itself in f64.
    fn by_the_book(x: &[f32], rows: usize, columns: usize, steps: usize) -> Vec<f64> {
        let norm = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let mut x: Vec<f64> = x.iter().map(|x| f64::from(*x) / norm).collect();
        let product = |a: &dyn Fn(usize, usize) -> f64, b: &dyn Fn(usize, usize) -> f64, [m, n, k]: [usize; 3]| {
            let at = |i: usize| (0..k).map(|j| a(i / n, j) * b(j, i % n)).sum::<f64>();
            (0..m * n).map(at).collect::<Vec<f64>>()
        };
        let [a, b, c] = QUINTIC;
        for _ in 0..steps {
            let g = product(
                &|r, k| x[r * columns + k],
                &|k, c| x[c * columns + k],
                [rows, rows, columns],
            );
            let squared = product(&|r, k| g[r * rows + k], &|k, c| g[k * rows + c], [rows; 3]);
            let q = |r: usize, k: usize| {
                let one = if r == k { a } else { 0.0 };
                one + b * g[r * rows + k] + c * squared[r * rows + k]
            };
            x = product(&q, &|k, c| x[k * columns + c], [rows, columns, rows]);
        }
        x
    }

    #[test]
    fn steps_are_those_of_the_paper() {
        for (rows, columns) in [(5, 9), (20, 20), (33, 70), (70, 33), (50, 1100)] {
            let x = values(rows * columns, 1);
            for (dtype, tolerance) in [(DType::F32, 2e-4), (DType::BF16, 0.15)] {
                // In bf16 each step amplifies what rounding did, and the smallest singular value of a square one is lost.
                if rows == columns && dtype == DType::BF16 {
                    continue;
                }
                let got = orthogonalize(&x, [rows, columns], 5, dtype);
                let want = by_the_book(&x, rows, columns, 5);
                let largest = want.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
                let apart = got.iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).abs());
                let apart = apart.fold(0.0, f64::max) / largest;
                assert!(apart < tolerance, "{rows}x{columns} {dtype:?}: {apart}");
            }
        }
    }
}
