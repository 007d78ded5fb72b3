//! Launchers of attention.cu and attention_mma.cu.

use super::gpu::{Arg, Gpu, THREADS, args};
use super::memory::Array;
use crate::cpu::attention::Shape;
use crate::{DType, Tensor};
use std::sync::Arc;

/// Threads of a block: 4 warps.
const ATTENTION_THREADS: usize = 128;
/// Rows of a block: 4 warps by 4 rows, and by 2.
const FORWARD_ROWS: usize = 16;
const BACKWARD_ROWS: usize = 8;

/// The kernels for heads of up to 64, 128, 256 and 512 values: forward, gradient of the queries, of keys and values.
const KERNELS: [(usize, [&str; 3]); 4] = [
    (
        64,
        [
            "attention_forward_64",
            "attention_backward_queries_64",
            "attention_backward_keys_64",
        ],
    ),
    (
        128,
        [
            "attention_forward_128",
            "attention_backward_queries_128",
            "attention_backward_keys_128",
        ],
    ),
    (
        256,
        [
            "attention_forward_256",
            "attention_backward_queries_256",
            "attention_backward_keys_256",
        ],
    ),
    (
        512,
        [
            "attention_forward_512",
            "attention_backward_queries_512",
            "attention_backward_keys_512",
        ],
    ),
];

/// Kernels for tensor cores: the widest head, the kernel, the queries of a block.
const TENSOR_CORE_KERNELS: [(usize, &str, usize); 6] = [
    (32, "attention_mma_32", 64),
    (64, "attention_mma_64", 64),
    (96, "attention_mma_96", 64),
    (128, "attention_mma_128", 64),
    (160, "attention_mma_160", 64),
    (512, "attention_mma_512", 16),
];

impl Shape {
    /// File, kernel and queries of a block of the forward pass.
    fn forward_kernel(self, dtype: DType) -> (&'static str, &'static str, usize) {
        let mut fitting = TENSOR_CORE_KERNELS.iter().filter(|(largest, ..)| self.dim <= *largest);
        match fitting.next() {
            Some((_, kernel, rows)) if dtype == DType::BF16 => ("attention_mma", kernel, *rows),
            _ => ("attention", self.kernels()[0], FORWARD_ROWS),
        }
    }

    fn kernels(self) -> [&'static str; 3] {
        KERNELS
            .iter()
            .find(|(largest, _)| self.dim <= *largest)
            .unwrap_or_else(|| panic!("attention on a GPU takes heads of up to 512 values, not {}", self.dim))
            .1
    }

    fn args(self) -> [Arg; 6] {
        [
            self.queries.into(),
            self.keys.into(),
            self.heads.into(),
            self.dim.into(),
            usize::from(self.causal).into(),
            (1.0 / (self.dim as f32).sqrt()).into(),
        ]
    }

    fn grid(self, length: usize, rows: usize) -> [usize; 3] {
        [length.div_ceil(rows), self.heads, self.batch]
    }
}

/// What the backward pass needs beside the inputs.
pub(crate) type LogSums = Arc<Array>;

impl Gpu {
    pub fn attention(&self, s: Shape, q: &Tensor, k: &Tensor, v: &Tensor) -> (Tensor, LogSums) {
        assert!(s.keys > 0, "attention over no keys");
        let (from_q, k, v) = (self.stored(q), self.stored(k), self.stored(v));
        let out = self.empty(q.numel(), self.dtype());
        let log_sums = Arc::new(self.empty(s.batch * s.queries * s.heads, DType::F32));
        let mut args = args![&from_q, &k, &v, &out, &log_sums].to_vec();
        args.extend(s.args());
        let (file, kernel, rows) = s.forward_kernel(self.dtype());
        let grid = s.grid(s.queries, rows);
        self.launch(file, kernel, self.dtype(), grid, ATTENTION_THREADS, &args);
        (Tensor::from_array(out, q.shape()), log_sums)
    }

    /// Gradients of q, k and v.
    pub fn attention_backward(
        &self,
        s: Shape,
        [q, k, v]: [&Tensor; 3],
        out: &Tensor,
        log_sums: &LogSums,
        grad: &Tensor,
    ) -> [Tensor; 3] {
        let dtype = self.dtype();
        let [from_q, from_k, from_v, out, grad] = [q, k, v, out, grad].map(|tensor| self.stored(tensor));
        let rows_heads = s.batch * s.queries * s.heads;
        let delta = self.empty(rows_heads, DType::F32);
        let grid = [self.blocks(rows_heads * 32), 1, 1];
        let args = args![&out, &grad, &delta, rows_heads, s.dim];
        self.launch("attention", "attention_delta", dtype, grid, THREADS, args);
        let [dq, dk, dv] = [q, k, v].map(|tensor| self.empty(tensor.numel(), dtype));
        let inputs = args![&from_q, &from_k, &from_v, &grad, log_sums, &delta].to_vec();
        let run = |name: &'static str, length: usize, outputs: &[Arg]| {
            let args = [&inputs[..], outputs, &s.args()].concat();
            let grid = s.grid(length, BACKWARD_ROWS);
            self.launch("attention", name, dtype, grid, ATTENTION_THREADS, &args);
        };
        run(s.kernels()[1], s.queries, args![&dq]);
        run(s.kernels()[2], s.keys, args![&dk, &dv]);
        [(dq, q), (dk, k), (dv, v)].map(|(array, like)| Tensor::from_array(array, like.shape()))
    }
}
