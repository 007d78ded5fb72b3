// Where the matrices of one head lie in [batch, length, heads * dim]: of block (., head, sample).
#pragma once
#include "common.cuh"

struct Heads {
    int queries, keys, heads, dim, causal;
    float scale;
};

// A matrix of one head: rows of `stride` values apart, `count` of them.
struct Head {
    const T* data;
    int count, stride;
};

DEVICE i64 head_start(Heads s, int length) {
    return (i64)blockIdx.z * length * s.heads * s.dim + blockIdx.y * s.dim;
}

DEVICE Head head_of(const T* data, Heads s, int length) {
    Head head = {data + head_start(s, length), length, s.heads * s.dim};
    return head;
}
