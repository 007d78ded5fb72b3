//! Rows of tables.

use super::parallel;

/// The rows `ids` of a table of rows of `width` values.
pub(crate) fn gather(table: &[f32], ids: &[u32], width: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(ids.len() * width);
    for &id in ids {
        out.extend_from_slice(&table[id as usize * width..][..width]);
    }
    out
}

/// Each row of `grad` added to row `ids[i]` of `rows`.
pub(crate) fn scatter_add(grad: &[f32], ids: &[u32], rows: usize, width: usize) -> Vec<f32> {
    let mut table = vec![0.0; rows * width];
    for (&id, grad) in ids.iter().zip(grad.chunks_exact(width)) {
        let row = &mut table[id as usize * width..(id as usize + 1) * width];
        row.iter_mut().zip(grad).for_each(|(d, g)| *d += g);
    }
    table
}

/// Row i of `grad` as row `ids[i]` of `rows`, zeros elsewhere; the ids differ.
pub(crate) fn scatter(grad: &[f32], ids: &[u32], rows: usize, width: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows * width];
    for (&id, grad) in ids.iter().zip(grad.chunks_exact(width)) {
        out[id as usize * width..][..width].copy_from_slice(grad);
    }
    out
}

/// Samples of `sample` values, to each of which the start of `table` is added.
pub(crate) fn add_table(x: &[f32], table: &[f32], sample: usize) -> Vec<f32> {
    let mut out = x.to_vec();
    for values in out.chunks_exact_mut(sample.max(1)) {
        parallel::for_chunks(values, |at, part| {
            part.iter_mut().zip(&table[at..]).for_each(|(o, t)| *o += t);
        });
    }
    out
}

/// The sum of samples of `sample` values as the first of `numel` values, zeros after them.
pub(crate) fn sum_samples(grad: &[f32], sample: usize, numel: usize) -> Vec<f32> {
    let mut sum = vec![0.0; numel];
    for grad in grad.chunks_exact(sample) {
        sum.iter_mut().zip(grad).for_each(|(d, g)| *d += g);
    }
    sum
}
