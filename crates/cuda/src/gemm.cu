// Matrix products where cuBLASLt is missing (ops/linear.rs).
#include "gemm.cuh"

template <bool ALONG_K> struct Matrix {
    enum { K_FIRST = ALONG_K };
    const T* data;
    i64 stride;
    // Row-major [lines, k] if ALONG_K, else [k, lines].
    __device__ float at(int line, int k) const { return load(data + (ALONG_K ? line * stride + k : k * stride + line)); }
};

// out [m, n] = act(x [m, k] w [n, k]^T + bias) + residual.
KERNEL(linear_forward, const T* x, const T* w, T* out, const float* bias, int act, const T* residual, int m, int n,
       int k) {
    Matrix<true> a = {x, k}, b = {w, k};
    Finished to = {out, bias, residual, act, n};
    multiply_tile(a, b, to, m, n, k);
}

// dx [m, k] = grad [m, n] w [n, k].
KERNEL(linear_grad_input, const T* grad, const T* w, T* dx, int m, int n, int k) {
    Matrix<true> a = {grad, n};
    Matrix<false> b = {w, k};
    Finished to = {dx, 0, 0, ACT_NONE, k};
    multiply_tile(a, b, to, m, k, n);
}

// dw [n, k] = grad [m, n]^T x [m, k], in f32.
KERNEL(linear_grad_weight, const T* grad, const T* x, float* dw, int m, int n, int k) {
    Matrix<false> a = {grad, n}, b = {x, k};
    Wide to = {dw, k};
    multiply_tile(a, b, to, n, k, m);
}
