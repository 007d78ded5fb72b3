//! A matrix made orthogonal (see [`crate::orthogonalize`]): products of small matrices, most of which are symmetric. Of a
//! symmetric product the tiles that reach above the diagonal are computed, and a symmetric factor is packed by copying its rows.

use crate::DType;
use crate::cpu::gemm::{Scratch, SerialWord, gemm_serial, multiply_panels};
use crate::cpu::kernel::{Pair, kernel};
use crate::cpu::optimizer::sum_squares;
use crate::cpu::pack::{View, pack_view};
use crate::ops::QUINTIC;

/// After so many steps no singular value that matters is small any more, and products may round their factors to bf16.
const STEPS_IN_F32: usize = 2;
/// Depth of a block in values: its panels stay in L2.
const DEPTH: usize = 1024;
/// Rows and columns that are mirrored at a time.
const MIRRORED: usize = 16;

/// Panels of `width` of the `n` rows of `view`, `k` deep.
fn pack<W: SerialWord>(view: &View, n: usize, k: usize, width: usize) -> Vec<W> {
    let mut values = Vec::new();
    pack_view(view, n, k, width, &mut values);
    W::owned(values, width, k)
}

/// Adds a symmetric product of packed factors to `sum`, above the diagonal.
fn add_symmetric<W: SerialWord>(n: usize, k: usize, left: &[W], right: &[W], sum: &mut [f32]) {
    let nr = kernel().for_columns(n).nr;
    multiply_panels([n, n, k], left, right, sum, n, true, |row, column| row < column + nr);
}

/// The product of the `n` rows of `view`, `k` deep, with their transpose.
fn gram<W: SerialWord>(view: &View, n: usize, k: usize) -> Vec<f32> {
    let block = kernel().for_columns(n);
    let mut sum = vec![0.0; n * n];
    for first in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - first);
        let data = &view.data[first * view.col_stride..];
        let [left, right] = [block.mr, block.nr].map(|width| pack::<W>(&View { data, ..*view }, n, depth, width));
        add_symmetric(n, depth, &left, &right, &mut sum);
    }
    mirror(&mut sum, n);
    sum
}

/// A step on `g` of side `n`, which becomes `q g q` unless it is the last one; the product of all steps' factors gets another.
fn step<W: SerialWord>(g: &mut Vec<f32>, all: &mut Option<Vec<f32>>, n: usize, is_last: bool) {
    let block = kernel().for_columns(n);
    let pack = |values: &[f32], width: usize| pack::<W>(&columns(values, n), n, n, width);
    let times = |left: &[W], right: &[W]| {
        let mut out = vec![0.0; n * n];
        add_symmetric(n, n, left, right, &mut out);
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

/// A matrix `[.., width]`, each of whose columns is a row of the view.
fn columns(data: &[f32], width: usize) -> View<'_> {
    View {
        data,
        row_stride: 1,
        col_stride: width,
    }
}

/// A matrix `[.., width]` as it is.
fn rows(data: &[f32], width: usize) -> View<'_> {
    View {
        data,
        row_stride: width,
        col_stride: 1,
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

/// `x` `[height, width]` after so many steps, all of them taken on its smaller Gram matrix `g`: a step multiplies `x` by
/// `q = a + b g + c g²`, and so `g` by `q` twice, and all of these commute.
pub(crate) fn orthogonalize(x: &[f32], sizes: [usize; 2], steps: usize, dtype: DType) -> Vec<f32> {
    match dtype {
        DType::F32 => in_words::<f32>(x, sizes, steps),
        _ => in_words::<Pair>(x, sizes, steps),
    }
}

fn in_words<W: SerialWord>(x: &[f32], [height, width]: [usize; 2], steps: usize) -> Vec<f32> {
    let (n, is_wide) = (height.min(width), height < width);
    let inverse = 1.0 / sum_squares(&[x]).sqrt().max(1e-7);
    let scaled = |values: &[f32], by: f64| -> Vec<f32> { values.iter().map(|x| x * by as f32).collect() };
    let view = if is_wide { rows(x, width) } else { columns(x, width) };
    let mut g = scaled(&gram::<W>(&view, n, height.max(width)), inverse * inverse);
    let mut all = None;
    for number in 0..steps {
        let step = if number < STEPS_IN_F32 { step::<f32> } else { step::<W> };
        step(&mut g, &mut all, n, number + 1 == steps);
    }
    let Some(all) = all else {
        return scaled(x, inverse);
    };
    let all = scaled(&all, inverse);
    // It is symmetric, so that its columns are its rows too.
    let (all, x) = (columns(&all, n), rows(x, width));
    let [left, right] = if is_wide { [all, x] } else { [x, all] };
    let mut out = vec![0.0; height * width];
    gemm_serial::<W>(
        height,
        width,
        n,
        left,
        right,
        &mut out,
        width,
        false,
        &mut Scratch::default(),
    );
    out
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
