//! CPU kernels. Each op's meaning is in `ops/`; the files here only run it fast.
pub mod activation;
pub mod attention;
pub mod attention_forward;
pub mod bf16;
pub mod conv2d;
pub mod depthwise;
pub mod direct;
pub mod elementwise;
pub mod gemm;
pub mod kernel;
pub mod level;
pub mod math;
pub mod micro_kernel;
pub mod norm;
pub mod pack;
pub mod parallel;
pub mod peak;
