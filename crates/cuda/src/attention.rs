//! Launchers of attention.cu and attention_mma.cu.

use crate::gpu::{Arg, CudaGpu, THREADS, args};
use crate::memory::tensor;
use prima_tensor::gpu::Attention;
use prima_tensor::ops::AttentionSizes;
use prima_tensor::{DType, Tensor};

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

/// File, kernel and queries of a block of the forward pass.
fn forward_kernel(s: AttentionSizes, dtype: DType) -> (&'static str, &'static str, usize) {
    let mut fitting = TENSOR_CORE_KERNELS.iter().filter(|(largest, ..)| s.dim <= *largest);
    match fitting.next() {
        Some((_, kernel, rows)) if dtype == DType::BF16 => ("attention_mma", kernel, *rows),
        _ => ("attention", kernels(s)[0], FORWARD_ROWS),
    }
}

fn kernels(s: AttentionSizes) -> [&'static str; 3] {
    KERNELS
        .iter()
        .find(|(largest, _)| s.dim <= *largest)
        .unwrap_or_else(|| panic!("attention on a GPU takes heads of up to 512 values, not {}", s.dim))
        .1
}

/// The last parameters of every kernel.
fn size_args(s: AttentionSizes) -> [Arg; 6] {
    [
        s.queries.into(),
        s.keys.into(),
        s.heads.into(),
        s.dim.into(),
        usize::from(s.causal).into(),
        s.scale().into(),
    ]
}

fn blocks(s: AttentionSizes, length: usize, rows: usize) -> [usize; 3] {
    [length.div_ceil(rows), s.heads, s.batch]
}

impl Attention for CudaGpu {
    fn attention(&self, s: AttentionSizes, q: &Tensor, k: &Tensor, v: &Tensor) -> (Tensor, Tensor) {
        assert!(s.keys > 0, "attention over no keys");
        let (from_q, k, v) = (self.stored(q), self.stored(k), self.stored(v));
        let out = self.empty(q.numel(), self.dtype());
        let rows_heads = s.batch * s.queries * s.heads;
        let log_sums = self.empty(rows_heads, DType::F32);
        let mut args = args![&from_q, &k, &v, &out, &log_sums].to_vec();
        args.extend(size_args(s));
        let (file, kernel, rows) = forward_kernel(s, self.dtype());
        let grid = blocks(s, s.queries, rows);
        self.launch(file, kernel, self.dtype(), grid, ATTENTION_THREADS, &args);
        (tensor(out, q.shape()), tensor(log_sums, &[rows_heads]))
    }

    fn attention_backward(
        &self,
        s: AttentionSizes,
        [q, k, v]: [&Tensor; 3],
        out: &Tensor,
        log_sums: &Tensor,
        grad: &Tensor,
    ) -> [Tensor; 3] {
        let dtype = self.dtype();
        let [from_q, from_k, from_v, out, grad] = [q, k, v, out, grad].map(|tensor| self.stored(tensor));
        let log_sums = self.array(log_sums, DType::F32);
        let rows_heads = s.batch * s.queries * s.heads;
        let delta = self.empty(rows_heads, DType::F32);
        let grid = [self.blocks(rows_heads * 32), 1, 1];
        let args = args![&out, &grad, &delta, rows_heads, s.dim];
        self.launch("attention", "attention_delta", dtype, grid, THREADS, args);
        let [dq, dk, dv] = [q, k, v].map(|tensor| self.empty(tensor.numel(), dtype));
        let inputs = args![&from_q, &from_k, &from_v, &grad, &log_sums, &delta].to_vec();
        let run = |name: &'static str, length: usize, outputs: &[Arg]| {
            let args = [&inputs[..], outputs, &size_args(s)].concat();
            let grid = blocks(s, length, BACKWARD_ROWS);
            self.launch("attention", name, dtype, grid, ATTENTION_THREADS, &args);
        };
        run(kernels(s)[1], s.queries, args![&dq]);
        run(kernels(s)[2], s.keys, args![&dk, &dv]);
        [(dq, q), (dk, k), (dv, v)].map(|(array, like)| tensor(array, like.shape()))
    }
}
