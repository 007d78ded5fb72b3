use crate::{Param, Tensor};

/// Rows of `table` `[V, D]` by id; the result is `[B, L, D]` where `ids.len() == B * L`.
pub fn embedding(table: &Param, ids: &[u32], batch: usize) -> Tensor {
    let _ = (table, ids, batch);
    todo!()
}

/// `x[b, l, :] + table[l, :]`: `x` `[B, L, D]`, `table` `[>= L, D]`.
pub fn add_positions(x: &Tensor, table: &Param) -> Tensor {
    let _ = (x, table);
    todo!()
}

/// `[B, L, D] -> [B, D]`: row `rows[b]` of each sample (the pooled token).
pub fn gather_rows(x: &Tensor, rows: &[usize]) -> Tensor {
    let _ = (x, rows);
    todo!()
}
