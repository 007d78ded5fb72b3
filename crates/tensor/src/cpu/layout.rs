//! Values that change places.

use super::parallel;

/// Tensors `[outer, widths[i]]` joined along the second axis.
pub(crate) fn concat(parts: &[&[f32]], widths: &[usize], outer: usize) -> Vec<f32> {
    let total: usize = widths.iter().sum();
    let mut out = vec![0.0; outer * total];
    if total > 0 {
        parallel::for_rows(&mut out, total, |at, rows| {
            for (i, row) in rows.chunks_exact_mut(total).enumerate() {
                let mut to = 0;
                for (part, &width) in parts.iter().zip(widths) {
                    let from = (at / total + i) * width;
                    row[to..to + width].copy_from_slice(&part[from..from + width]);
                    to += width;
                }
            }
        });
    }
    out
}

/// Values `start .. start + len` of each row of `total` values.
pub(crate) fn narrow(x: &[f32], total: usize, start: usize, len: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len().checked_div(total).map_or(0, |rows| rows * len)];
    if len > 0 {
        parallel::for_rows(&mut out, len, |at, rows| {
            for (i, row) in rows.chunks_exact_mut(len).enumerate() {
                let from = (at / len + i) * total + start;
                row.copy_from_slice(&x[from..from + len]);
            }
        });
    }
    out
}

/// The gradient of [`narrow`], `numel` values: zeros around it.
pub(crate) fn widen(grad: &[f32], total: usize, start: usize, len: usize, numel: usize) -> Vec<f32> {
    let mut dx = vec![0.0; numel];
    if len > 0 {
        for (row, grad) in dx.chunks_exact_mut(total).zip(grad.chunks_exact(len)) {
            row[start..start + len].copy_from_slice(grad);
        }
    }
    dx
}

/// Swaps the two last axes of `[batch, rows, columns]`.
pub(crate) fn transpose(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let sample = rows * columns;
    let mut out = vec![0.0; x.len()];
    if sample == 0 {
        return out;
    }
    for (x, out) in x.chunks_exact(sample).zip(out.chunks_exact_mut(sample)) {
        parallel::for_rows(out, rows, |at, part| {
            // Tiles keep both sides in cache lines that are used whole.
            let first = at / rows;
            let count = part.len() / rows;
            for row0 in (0..rows).step_by(16) {
                for column in 0..count {
                    for row in row0..(row0 + 16).min(rows) {
                        part[column * rows + row] = x[row * columns + first + column];
                    }
                }
            }
        });
    }
    out
}
