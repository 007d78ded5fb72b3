//! Binary and scaling loops. The compiler vectorises them as they stand; they are bound by
//! memory, so wider registers would not help.

use super::parallel;
use rayon::prelude::*;

/// `out[i] = f(a[i], b[i])`.
pub(crate) fn binary(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    assert_eq!(a.len(), b.len());
    let mut out = a.to_vec();
    parallel::for_chunks(&mut out, |at, part| {
        for (o, &b) in part.iter_mut().zip(&b[at..]) {
            *o = f(*o, b);
        }
    });
    out
}

/// `out[i] = f(a[i])`.
pub(crate) fn unary(a: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = a.to_vec();
    parallel::for_chunks(&mut out, |_, part| {
        for o in part {
            *o = f(*o);
        }
    });
    out
}

/// Sums in f64 of `f(i)` over `0..len`, whatever the number of threads in the same order.
pub(crate) fn sum(len: usize, f: impl Fn(usize) -> f64 + Sync) -> f64 {
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
pub(crate) fn column_sums(x: &[f32], width: usize) -> Vec<f32> {
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
