use crate::autograd::{is_recording, record};
use crate::cpu::embedding as kernel;
use crate::device::gpu;
use crate::ops::elementwise::on_tape;
use crate::{Param, Tensor};

/// Rows of `table` `[V, D]` by id; the result is `[B, L, D]` where `ids.len() == B * L`.
/// Backward: each row's gradient is added to its row of the table.
pub fn embedding(table: &Param, ids: &[u32], batch: usize) -> Tensor {
    let &[rows, width] = &table.shape()[..] else {
        panic!("embedding wants a table [V, D], shape is {:?}", table.shape());
    };
    assert!(
        batch > 0 && ids.len().is_multiple_of(batch),
        "{} ids do not fill {batch} samples",
        ids.len()
    );
    for &id in ids {
        assert!(
            (id as usize) < rows,
            "embedding: id {id} is outside of a table of {rows} rows"
        );
    }
    let shape = [batch, ids.len() / batch, width];
    let out = if let Some(gpu) = gpu() {
        gpu.embedding(table, ids, &shape)
    } else {
        Tensor::from_vec(table.rows(ids), &shape)
    };
    let place = table.on_tape();
    if !is_recording(&[&place]) {
        return out;
    }
    let ids = ids.to_vec();
    record(out, &[&place], move |grad| {
        if let Some(gpu) = gpu() {
            return vec![Some(gpu.scatter_rows(grad, &ids, rows))];
        }
        let d_table = kernel::scatter_add(grad.data(), &ids, rows, width);
        vec![Some(Tensor::from_vec(d_table, &[rows, width]))]
    })
}

/// `x[b, l, :] + table[l, :]`: `x` `[B, L, D]`, `table` `[>= L, D]`.
/// Backward: `grad` to `x`, its sum over the samples to the first `L` rows of the table.
pub fn add_positions(x: &Tensor, table: &Param) -> Tensor {
    let param = table;
    let table = table.tensor();
    let (length, width) = (x.dim(1), x.dim(2));
    let rows = table.dim(0);
    assert_eq!(
        table.dim(1),
        width,
        "add_positions: the table's rows do not fit x of shape {:?}",
        x.shape()
    );
    assert!(
        length <= rows,
        "add_positions: {length} tokens, but the table has {rows} rows"
    );
    let sample = length * width;
    let out = if let Some(gpu) = gpu() {
        gpu.add_positions(x, param)
    } else {
        Tensor::from_vec(kernel::add_table(x.data(), table.data(), sample), x.shape())
    };
    let needs_table = on_tape(&table);
    record(out, &[x, &table], move |grad| {
        let d_table = needs_table.then(|| {
            if let Some(gpu) = gpu() {
                return gpu.sum_batch(grad, rows);
            }
            Tensor::from_vec(kernel::sum_samples(grad.data(), sample, rows * width), &[rows, width])
        });
        vec![Some(grad.clone()), d_table]
    })
}

/// `[B, L, D] -> [B, D]`: row `rows[b]` of each sample (the pooled token).
/// Backward: the gradient goes back to that row, zeros elsewhere.
pub fn gather_rows(x: &Tensor, rows: &[usize]) -> Tensor {
    let (batch, length, width) = (x.dim(0), x.dim(1), x.dim(2));
    assert_eq!(rows.len(), batch, "gather_rows wants one row per sample");
    for &row in rows {
        assert!(row < length, "gather_rows: row {row} of a sample of {length} rows");
    }
    // Rows of the whole batch.
    let ids: Vec<u32> = (0..).zip(rows).map(|(b, row)| (b * length + row) as u32).collect();
    let out = if let Some(gpu) = gpu() {
        gpu.gather_rows(x, &ids, &[batch, width])
    } else {
        Tensor::from_vec(kernel::gather(x.data(), &ids, width), &[batch, width])
    };
    if !is_recording(&[x]) {
        return out;
    }
    record(out, &[x], move |grad| {
        if let Some(gpu) = gpu() {
            let dx = gpu.scatter_rows(grad, &ids, batch * length);
            return vec![Some(dx.reshape(&[batch, length, width]))];
        }
        let dx = kernel::scatter(grad.data(), &ids, batch * length, width);
        vec![Some(Tensor::from_vec(dx, &[batch, length, width]))]
    })
}
