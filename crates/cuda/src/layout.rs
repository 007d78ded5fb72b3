//! Launchers of layout.cu.

use crate::gpu::{CudaGpu, THREADS, args};
use crate::memory::{Array, tensor};
use prima_tensor::gpu::{DeviceArray, Form, Layout};
use prima_tensor::{DType, Param, Tensor};
use std::sync::Arc;

impl CudaGpu {
    /// `width` columns of `rows` rows; `[stride, start]` of both sides.
    pub(crate) fn copy_columns(
        &self,
        from: &Array,
        to: &Array,
        rows: usize,
        width: usize,
        [from_stride, from_start]: [usize; 2],
        [to_stride, to_start]: [usize; 2],
    ) {
        let n = rows * width;
        let args = args![from, to, n, width, from_stride, from_start, to_stride, to_start];
        self.each("layout", "copy_columns", from.dtype(), n, args);
    }

    /// Swaps the two last axes of `[batch, rows, columns]`.
    pub(crate) fn transpose(&self, x: &Array, batch: usize, rows: usize, columns: usize) -> Array {
        let out = self.empty(x.len(), x.dtype());
        let args = args![x, &out, rows, columns];
        let grid = [columns.div_ceil(32) * rows.div_ceil(32), 1, batch];
        self.launch("layout", "transpose", x.dtype(), grid, THREADS, args);
        out
    }

    fn gather(&self, table: &Arc<Array>, ids: &[u32], width: usize) -> Array {
        let n = ids.len() * width;
        let (out, ids) = (self.empty(n, table.dtype()), self.upload(ids));
        let args = args![table, &ids, &out, n, width];
        self.each("layout", "gather_rows", table.dtype(), n, args);
        out
    }
}

impl Layout for CudaGpu {
    fn concat(&self, parts: &[&Tensor], outer: usize, shape: &[usize]) -> Tensor {
        let dtype = self.common_dtype(parts);
        let out = self.empty(shape.iter().product(), dtype);
        let total = out.len() / outer.max(1);
        let mut start = 0;
        for part in parts {
            let width = part.numel() / outer.max(1);
            self.copy_columns(&self.array(part, dtype), &out, outer, width, [width, 0], [total, start]);
            start += width;
        }
        tensor(out, shape)
    }

    fn narrow(&self, x: &Tensor, total: usize, start: usize, len: usize, shape: &[usize]) -> Tensor {
        let from = self.array(x, self.common_dtype(&[x]));
        let rows = x.numel().checked_div(total).unwrap_or(0);
        let out = self.empty(rows * len, from.dtype());
        self.copy_columns(&from, &out, rows, len, [total, start], [len, 0]);
        tensor(out, shape)
    }

    fn widen(&self, grad: &Tensor, total: usize, start: usize, len: usize, shape: &[usize]) -> Tensor {
        let from = self.array(grad, self.common_dtype(&[grad]));
        let out = self.zeros(shape.iter().product(), from.dtype());
        let rows = grad.numel().checked_div(len).unwrap_or(0);
        self.copy_columns(&from, &out, rows, len, [len, 0], [total, start]);
        tensor(out, shape)
    }

    fn transposed(&self, x: &Tensor, rows: usize, columns: usize, shape: &[usize]) -> Tensor {
        let from = self.array(x, self.common_dtype(&[x]));
        tensor(self.transpose(&from, shape[0], rows, columns), shape)
    }

    fn upsample(&self, x: &Tensor) -> Tensor {
        let (b, h, w, c) = (x.dim(0), x.dim(1), x.dim(2), x.dim(3));
        let n = 4 * x.numel();
        let (from, out) = (self.stored(x), self.empty(n, self.dtype()));
        let args = args![&from, &out, n, h, w, c];
        self.each("layout", "upsample_forward", self.dtype(), n, args);
        tensor(out, &[b, 2 * h, 2 * w, c])
    }

    fn upsample_backward(&self, grad: &Tensor) -> Tensor {
        let (b, h, w, c) = (grad.dim(0), grad.dim(1) / 2, grad.dim(2) / 2, grad.dim(3));
        let n = grad.numel() / 4;
        let (from, dx) = (self.stored(grad), self.empty(n, self.dtype()));
        let args = args![&from, &dx, n, h, w, c];
        self.each("layout", "upsample_backward", self.dtype(), n, args);
        tensor(dx, &[b, h, w, c])
    }

    fn embedding(&self, table: &Param, ids: &[u32], shape: &[usize]) -> Tensor {
        let table = self.param(table, Form::Stored);
        tensor(self.gather(&table, ids, shape[shape.len() - 1]), shape)
    }

    fn gather_rows(&self, x: &Tensor, ids: &[u32], shape: &[usize]) -> Tensor {
        tensor(self.gather(&self.stored(x), ids, x.dim(-1)), shape)
    }

    fn scatter_rows(&self, grad: &Tensor, ids: &[u32], rows: usize) -> Tensor {
        let width = grad.dim(-1);
        let plan = ScatterPlan::new(ids);
        let from = self.stored(grad);
        let out = self.zeros(rows * width, DType::F32);
        let n = plan.rows.len() * width;
        let [row, starts, positions] = [&plan.rows, &plan.starts, &plan.positions].map(|list| self.upload(list));
        let args = args![&from, &row, &starts, &positions, &out, n, width];
        self.each("layout", "scatter_rows", self.dtype(), n, args);
        tensor(out, &[rows, width])
    }
}

/// Which positions hold each id: sums by id then have a fixed order.
struct ScatterPlan {
    /// The distinct ids.
    rows: Vec<u32>,
    /// Where each one's positions begin; one more at the end.
    starts: Vec<u32>,
    positions: Vec<u32>,
}

impl ScatterPlan {
    fn new(ids: &[u32]) -> Self {
        let mut positions: Vec<u32> = (0..ids.len() as u32).collect();
        positions.sort_by_key(|&p| ids[p as usize]);
        let (mut rows, mut starts) = (Vec::new(), Vec::new());
        for (at, &p) in positions.iter().enumerate() {
            let id = ids[p as usize];
            if rows.last() != Some(&id) {
                rows.push(id);
                starts.push(at as u32);
            }
        }
        starts.push(ids.len() as u32);
        Self {
            rows,
            starts,
            positions,
        }
    }
}
