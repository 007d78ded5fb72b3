//! CPU kernels. Each op's meaning is in `ops/`; the files here only run it fast.
pub mod math;
pub mod attention;
pub mod conv2d;
pub mod gemm;
pub mod activation;
pub mod elementwise;
pub mod parallel;
pub mod peak;
pub mod norm;
pub mod depthwise;
