//! CPU kernels. Each op's meaning is in `ops/`; the files here only run it fast.
pub mod math;
pub mod attention;
pub mod conv2d;
pub mod gemm;
