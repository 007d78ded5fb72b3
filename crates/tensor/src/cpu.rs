//! CPU kernels. Each op's meaning is in `ops/`; the files here only run it fast.
