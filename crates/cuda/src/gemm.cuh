// One tile of a matrix product, for the products and convolutions that no library does.
#pragma once
#include "common.cuh"

#define TILE 64
#define DEPTH 16

// out(row, column, sum over k of a(row, k) * b(column, k)) for the 64 x 64 tile (blockIdx.x, blockIdx.y). 256 threads, each
// with 4 x 4 sums. A and B say how a value is found, and with `K_FIRST` that neighbours in k are neighbours in memory.
template <class A, class B, class Out> DEVICE void multiply_tile(A a, B b, Out out, int m, int n, int k) {
    __shared__ float left[DEPTH][TILE + 1], right[DEPTH][TILE + 1];
    int row0 = blockIdx.x * TILE, column0 = blockIdx.y * TILE, ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    float sums[4][4];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) sums[i][j] = 0.0f;
    for (int k0 = 0; k0 < k; k0 += DEPTH) {
        for (int i = threadIdx.x; i < TILE * DEPTH; i += 256) {
            int depth = A::K_FIRST ? i % DEPTH : i / TILE, line = A::K_FIRST ? i / DEPTH : i % TILE;
            left[depth][line] = row0 + line < m && k0 + depth < k ? a.at(row0 + line, k0 + depth) : 0.0f;
            depth = B::K_FIRST ? i % DEPTH : i / TILE, line = B::K_FIRST ? i / DEPTH : i % TILE;
            right[depth][line] = column0 + line < n && k0 + depth < k ? b.at(column0 + line, k0 + depth) : 0.0f;
        }
        __syncthreads();
        for (int d = 0; d < DEPTH; d++)
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sums[i][j] += left[d][ty * 4 + i] * right[d][tx + 16 * j];
        __syncthreads();
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            int row = row0 + ty * 4 + i, column = column0 + tx + 16 * j;
            if (row < m && column < n) out.put(row, column, sums[i][j]);
        }
}

// Row-major [n columns] with an epilogue.
struct Finished {
    T* out;
    const float* bias;
    const T* residual;
    int act, columns;
    __device__ void put(int row, int column, float value) const {
        i64 at = (i64)row * columns + column;
        store(out + at, finish(value, bias, act, residual, column, at));
    }
};

// Row-major f32: gradients of weights.
struct Wide {
    float* out;
    int columns;
    __device__ void put(int row, int column, float value) const { out[(i64)row * columns + column] = value; }
};
