// What every kernel file begins with. Each file is compiled twice: with T = float, and with T = bf16 where PRIMA_BF16 is
// defined. Parameters, statistics and sums are always float; T is only how activations are stored.
//
// The same text is compiled by NVRTC for a GPU and, with PRIMA_EMULATE, by a C++ compiler for the tests (emulate.h).
#pragma once

#ifdef PRIMA_BF16
#define SUFFIX _bf16
#else
#define SUFFIX _f32
#endif
#define JOIN_NAMES(a, b) a##b
#define JOINED(a, b) JOIN_NAMES(a, b)

// A kernel's symbol is its name and T's.
#ifdef PRIMA_EMULATE
#include "emulate.h"
#else
#define KERNEL(name, ...) extern "C" __global__ void JOINED(name, SUFFIX)(__VA_ARGS__)
#endif

#define DEVICE static __device__ __forceinline__

typedef long long i64;

// No cuda_bf16.h: NVRTC would need an include path for it, and a machine may have the library alone.
struct bf16 {
    unsigned short bits;
};

#ifdef PRIMA_BF16
typedef bf16 T;
#else
typedef float T;
#endif

DEVICE float load(const float* p) { return *p; }

DEVICE float load(const bf16* p) { return __uint_as_float((unsigned)p->bits << 16); }

DEVICE void store(float* p, float value) { *p = value; }

DEVICE void store(bf16* p, float value) {
#ifdef PRIMA_EMULATE
    p->bits = emulate_round_to_bf16(value);
#else
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    p->bits = bits;
#endif
}

// A grid of any size walks over n elements.
#define FOR_EACH(i, n)                                                                                                 \
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (i64)gridDim.x * blockDim.x)

DEVICE float warp_sum(float value) {
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}

DEVICE float warp_max(float value) {
    for (int offset = 16; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
    return value;
}

// Sum over a block of up to 1024 threads (a multiple of 32); every thread gets it. `scratch` holds 32 values.
DEVICE float block_sum(float value, float* scratch) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    value = warp_sum(value);
    __syncthreads();
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i < warps; i++) sum += scratch[i];
    return sum;
}

// The order of prima_tensor::Activation.
enum { ACT_NONE, ACT_RELU, ACT_RELU6, ACT_SILU, ACT_GELU, ACT_QUICK_GELU, ACT_TANH, ACT_SOFTPLUS };

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

DEVICE float normal_cdf(float x) { return 0.5f * erfcf(-0.70710678f * x); }

DEVICE float normal_pdf(float x) { return 0.39894228f * expf(-0.5f * x * x); }

DEVICE float silu_slope(float x) {
    float s = sigmoid(x);
    return s + x * s * (1.0f - s);
}

DEVICE float activate(int kind, float x) {
    switch (kind) {
    case ACT_RELU: return x < 0.0f ? 0.0f : x;
    case ACT_RELU6: return x < 0.0f ? 0.0f : (x > 6.0f ? 6.0f : x);
    case ACT_SILU: return x * sigmoid(x);
    case ACT_GELU: return x * normal_cdf(x);
    case ACT_QUICK_GELU: return x * sigmoid(1.702f * x);
    case ACT_TANH: return tanhf(x);
    default: return x;
    }
}

// By itself, not in `activate`: it is no epilogue of products (products.rs).
DEVICE float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }

DEVICE float activation_slope(int kind, float x) {
    switch (kind) {
    case ACT_RELU: return x > 0.0f ? 1.0f : 0.0f;
    case ACT_RELU6: return x > 0.0f && x < 6.0f ? 1.0f : 0.0f;
    case ACT_SILU: return silu_slope(x);
    case ACT_GELU: return normal_cdf(x) + x * normal_pdf(x);
    case ACT_QUICK_GELU: return silu_slope(1.702f * x);
    case ACT_TANH: {
        float y = tanhf(x);
        return 1.0f - y * y;
    }
    case ACT_SOFTPLUS: return sigmoid(x);
    default: return 1.0f;
    }
}

// `act(value + bias[column]) + residual[at]`; bias and residual may be null.
DEVICE float finish(float value, const float* bias, int act, const T* residual, int column, i64 at) {
    if (bias) value += bias[column];
    value = activate(act, value);
    if (residual) value += load(residual + at);
    return value;
}
