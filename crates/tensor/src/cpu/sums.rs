//! Sums over axes.

use super::math::dispatch;
use super::parallel;
use rayon::prelude::*;

/// Values that are added at a time.
const WIDE: usize = 64;

/// Sums in f64 of `f(i)` over `0..len`, whatever the number of threads in the same order.
pub(crate) fn of(len: usize, f: impl Fn(usize) -> f64 + Sync) -> f64 {
    const BLOCK: usize = 1 << 14;
    let part = |block: usize| (block * BLOCK..((block + 1) * BLOCK).min(len)).map(&f).sum::<f64>();
    let blocks = len.div_ceil(BLOCK);
    if blocks < 4 {
        return (0..blocks).map(part).sum();
    }
    let parts: Vec<f64> = (0..blocks).into_par_iter().map(part).collect();
    parts.iter().sum()
}

/// Column sums of the rows of `x` (`width` values each): `[width]`.
fn column_sums(x: &[f32], width: usize) -> Vec<f32> {
    let rows = x.len() / width;
    let per_task = parallel::rows_per_task(width);
    let parts = parallel::map_tasks(rows.div_ceil(per_task), x.len(), |task| {
        let end = ((task + 1) * per_task).min(rows);
        let mut sums = vec![0.0f32; width];
        for row in x[task * per_task * width..end * width].chunks_exact(width) {
            for (s, v) in sums.iter_mut().zip(row) {
                *s += v;
            }
        }
        sums
    });
    let mut total = vec![0.0f64; width];
    for part in parts {
        for (t, v) in total.iter_mut().zip(part) {
            *t += f64::from(v);
        }
    }
    total.into_iter().map(|v| v as f32).collect()
}

#[inline(always)]
fn add_columns_body<const FMA: bool>(rows: &[f32], sums: &mut [f32]) {
    for row in rows.chunks_exact(sums.len()) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += x;
        }
    }
}

dispatch! {
    fn add_columns_of(rows: &[f32], sums: &mut [f32]) = add_columns_body
}

/// Adds the column sums of `rows` to `sums`, on this thread.
pub(crate) fn add_columns(rows: &[f32], sums: &mut [f32]) {
    // Narrow rows several at a time, which fills the vectors.
    let width = sums.len();
    let wide = width * (WIDE / width).max(1);
    let whole = rows.len() / wide * wide;
    let mut partial = vec![0.0; wide];
    add_columns_of(&rows[..whole], &mut partial);
    add_columns_of(&rows[whole..], &mut partial[..width]);
    partial.chunks_exact(width).for_each(|part| add_columns_of(part, sums));
}

/// The column sums of each sample of `sample` values: `[B, width]`.
pub(crate) fn of_samples(x: &[f32], sample: usize, width: usize) -> Vec<f32> {
    x.chunks_exact(sample).flat_map(|s| column_sums(s, width)).collect()
}

/// The sum of rows of `n` values: a bias' gradient. Its order depends on the number of threads.
pub(crate) fn of_rows(x: &[f32], n: usize) -> Vec<f32> {
    let rows_per_task = (x.len() / n).div_ceil(rayon::current_num_threads()).max(64);
    let sums = x
        .par_chunks(rows_per_task * n)
        .map(|chunk| {
            let mut sum = vec![0.0f32; n];
            for row in chunk.chunks_exact(n) {
                for (s, x) in sum.iter_mut().zip(row) {
                    *s += x;
                }
            }
            sum
        })
        .collect::<Vec<_>>();
    let mut total = vec![0.0; n];
    for sum in sums {
        for (t, s) in total.iter_mut().zip(sum) {
            *t += s;
        }
    }
    total
}
