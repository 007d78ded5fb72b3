// Attention by blocks with a running softmax (FlashAttention, Dao 2022), forward and backward (ops/attention.rs): the
// scores of one tile exist at a time, in registers. q and out are [batch, queries, heads * dim], k and v [batch, keys,
// heads * dim]; log_sums and delta [batch, queries, heads].
//
// 128 threads. A warp owns ROWS rows, which stay in shared memory; its lanes are the 32 columns of a tile. Heads are read
// in CHUNKS of 64 values, so that one tile of 32 x 64 is all that is loaded at once. There are no atomics: the backward
// pass walks once by queries (dq) and once by keys (dk, dv).
#include "attention.cuh"

#define WARPS 4
#define CHUNK 64

// Rows first .. first + WARPS * ROWS, whole; zeros past the end.
template <int CHUNKS, int ROWS>
DEVICE void load_rows(float (*rows)[CHUNKS * CHUNK], Head head, int first, int dim) {
    for (int i = threadIdx.x; i < WARPS * ROWS * CHUNKS * CHUNK; i += WARPS * 32) {
        int r = i / (CHUNKS * CHUNK), d = i % (CHUNKS * CHUNK);
        rows[r][d] = first + r < head.count && d < dim ? load(head.data + (i64)(first + r) * head.stride + d) : 0.0f;
    }
}

// Values d0 .. d0 + CHUNK of 32 rows; zeros past the end.
DEVICE void load_tile(float (*tile)[CHUNK + 1], Head head, int first, int d0, int dim) {
    __syncthreads();
    for (int i = threadIdx.x; i < 32 * CHUNK; i += WARPS * 32) {
        int r = i / CHUNK, d = i % CHUNK;
        bool inside = first + r < head.count && d0 + d < dim;
        tile[r][d] = inside ? load(head.data + (i64)(first + r) * head.stride + d0 + d) : 0.0f;
    }
    __syncthreads();
}

// products[r] += row r of the warp times the lane's row of the tile.
template <int CHUNKS, int ROWS>
DEVICE void multiply(float* products, float (*rows)[CHUNKS * CHUNK], float (*tile)[CHUNK + 1], Head head, int first,
                     int dim) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int r = 0; r < ROWS; r++) products[r] = 0.0f;
#pragma unroll 1
    for (int c = 0; c < CHUNKS; c++) {
        load_tile(tile, head, first, c * CHUNK, dim);
#pragma unroll 8
        for (int d = 0; d < CHUNK; d++) {
            float value = tile[lane][d];
#pragma unroll
            for (int r = 0; r < ROWS; r++) products[r] += rows[warp * ROWS + r][c * CHUNK + d] * value;
        }
    }
}

// sums[r] += the lanes' weights[r] times the rows of the tile; a lane owns every 32nd value of the head.
template <int CHUNKS, int ROWS>
DEVICE void accumulate(float (*sums)[2 * CHUNKS], const float* weights, float (*tile)[CHUNK + 1], Head head, int first,
                       int dim) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        load_tile(tile, head, first, c * CHUNK, dim);
#pragma unroll 4
        for (int j = 0; j < 32; j++) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                float weight = __shfl_sync(0xffffffffu, weights[r], j);
                sums[r][2 * c] += weight * tile[j][lane];
                sums[r][2 * c + 1] += weight * tile[j][lane + 32];
            }
        }
    }
}

template <int CHUNKS, int ROWS>
DEVICE void write_rows(T* out, float (*sums)[2 * CHUNKS], Heads s, int length, int first) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    T* base = out + head_start(s, length);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int row = first + warp * ROWS + r;
#pragma unroll
        for (int i = 0; i < 2 * CHUNKS; i++)
            if (row < length && i * 32 + lane < s.dim)
                store(base + (i64)row * s.heads * s.dim + i * 32 + lane, sums[r][i]);
    }
}

// Grid (blocks of WARPS * ROWS queries, heads, batch).
template <int CHUNKS, int ROWS>
DEVICE void forward(const T* q, const T* k, const T* v, T* out, float* log_sums, Heads s) {
    __shared__ float query[WARPS * ROWS][CHUNKS * CHUNK];
    __shared__ float tile[32][CHUNK + 1];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = blockIdx.x * WARPS * ROWS;
    load_rows<CHUNKS, ROWS>(query, head_of(q, s, s.queries), first, s.dim);
    const float nothing = -__int_as_float(0x7f800000);
    float sums[ROWS][2 * CHUNKS], top[ROWS], total[ROWS], weights[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        top[r] = nothing;
        total[r] = 0.0f;
        for (int i = 0; i < 2 * CHUNKS; i++) sums[r][i] = 0.0f;
    }
    int end = s.causal ? min(s.keys, first + WARPS * ROWS) : s.keys;
    for (int key0 = 0; key0 < end; key0 += 32) {
        multiply<CHUNKS, ROWS>(weights, query, tile, head_of(k, s, s.keys), key0, s.dim);
        int key = key0 + lane;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            bool visible = key < s.keys && (!s.causal || key <= first + warp * ROWS + r);
            float score = visible ? weights[r] * s.scale : nothing;
            // Key 0 is in the first tile and every query sees it: the maximum is finite.
            float higher = fmaxf(top[r], warp_max(score)), correction = expf(top[r] - higher);
            weights[r] = visible ? expf(score - higher) : 0.0f;
            total[r] = total[r] * correction + warp_sum(weights[r]);
            top[r] = higher;
            for (int i = 0; i < 2 * CHUNKS; i++) sums[r][i] *= correction;
        }
        accumulate<CHUNKS, ROWS>(sums, weights, tile, head_of(v, s, s.keys), key0, s.dim);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int row = first + warp * ROWS + r;
        for (int i = 0; i < 2 * CHUNKS; i++) sums[r][i] /= total[r];
        if (lane == 0 && row < s.queries)
            log_sums[((i64)blockIdx.z * s.queries + row) * s.heads + blockIdx.y] = top[r] + logf(total[r]);
    }
    write_rows<CHUNKS, ROWS>(out, sums, s, s.queries, first);
}

// Grid (blocks of queries, heads, batch).
template <int CHUNKS, int ROWS>
DEVICE void backward_queries(const T* q, const T* k, const T* v, const T* grad, const float* log_sums,
                             const float* delta, T* dq, Heads s) {
    __shared__ float query[WARPS * ROWS][CHUNKS * CHUNK], output_grad[WARPS * ROWS][CHUNKS * CHUNK];
    __shared__ float tile[32][CHUNK + 1];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = blockIdx.x * WARPS * ROWS;
    load_rows<CHUNKS, ROWS>(query, head_of(q, s, s.queries), first, s.dim);
    load_rows<CHUNKS, ROWS>(output_grad, head_of(grad, s, s.queries), first, s.dim);
    float sums[ROWS][2 * CHUNKS], log_sum[ROWS], constant[ROWS], scores[ROWS], products[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int row = min(first + warp * ROWS + r, s.queries - 1);
        i64 at = ((i64)blockIdx.z * s.queries + row) * s.heads + blockIdx.y;
        log_sum[r] = log_sums[at];
        constant[r] = delta[at];
        for (int i = 0; i < 2 * CHUNKS; i++) sums[r][i] = 0.0f;
    }
    int end = s.causal ? min(s.keys, first + WARPS * ROWS) : s.keys;
    for (int key0 = 0; key0 < end; key0 += 32) {
        multiply<CHUNKS, ROWS>(scores, query, tile, head_of(k, s, s.keys), key0, s.dim);
        multiply<CHUNKS, ROWS>(products, output_grad, tile, head_of(v, s, s.keys), key0, s.dim);
        int key = key0 + lane;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            bool visible = key < s.keys && (!s.causal || key <= first + warp * ROWS + r);
            float p = visible ? expf(scores[r] * s.scale - log_sum[r]) : 0.0f;
            scores[r] = p * (products[r] - constant[r]) * s.scale;
        }
        accumulate<CHUNKS, ROWS>(sums, scores, tile, head_of(k, s, s.keys), key0, s.dim);
    }
    write_rows<CHUNKS, ROWS>(dq, sums, s, s.queries, first);
}

// Grid (blocks of keys, heads, batch).
template <int CHUNKS, int ROWS>
DEVICE void backward_keys(const T* q, const T* k, const T* v, const T* grad, const float* log_sums, const float* delta,
                          T* dk, T* dv, Heads s) {
    __shared__ float key[WARPS * ROWS][CHUNKS * CHUNK], value[WARPS * ROWS][CHUNKS * CHUNK];
    __shared__ float tile[32][CHUNK + 1];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = blockIdx.x * WARPS * ROWS;
    load_rows<CHUNKS, ROWS>(key, head_of(k, s, s.keys), first, s.dim);
    load_rows<CHUNKS, ROWS>(value, head_of(v, s, s.keys), first, s.dim);
    float key_sums[ROWS][2 * CHUNKS], value_sums[ROWS][2 * CHUNKS], scores[ROWS], products[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < 2 * CHUNKS; i++) key_sums[r][i] = value_sums[r][i] = 0.0f;
    for (int query0 = s.causal ? first / 32 * 32 : 0; query0 < s.queries; query0 += 32) {
        multiply<CHUNKS, ROWS>(scores, key, tile, head_of(q, s, s.queries), query0, s.dim);
        multiply<CHUNKS, ROWS>(products, value, tile, head_of(grad, s, s.queries), query0, s.dim);
        int query = query0 + lane;
        i64 at = ((i64)blockIdx.z * s.queries + min(query, s.queries - 1)) * s.heads + blockIdx.y;
        float log_sum = log_sums[at], constant = delta[at];
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int row = first + warp * ROWS + r;
            bool visible = query < s.queries && row < s.keys && (!s.causal || row <= query);
            float p = visible ? expf(scores[r] * s.scale - log_sum) : 0.0f;
            scores[r] = p;
            products[r] = p * (products[r] - constant) * s.scale;
        }
        accumulate<CHUNKS, ROWS>(value_sums, scores, tile, head_of(grad, s, s.queries), query0, s.dim);
        accumulate<CHUNKS, ROWS>(key_sums, products, tile, head_of(q, s, s.queries), query0, s.dim);
    }
    write_rows<CHUNKS, ROWS>(dk, key_sums, s, s.keys, first);
    write_rows<CHUNKS, ROWS>(dv, value_sums, s, s.keys, first);
}

// delta[row, head] = sum of grad * out over the head: the softmax backward's constant. One warp a (row, head).
KERNEL(attention_delta, const T* out, const T* grad, float* delta, i64 rows_heads, int dim) {
    int lane = threadIdx.x % 32;
    i64 warps = (i64)gridDim.x * (blockDim.x / 32);
    for (i64 i = (i64)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; i < rows_heads; i += warps) {
        float sum = 0.0f;
        for (int d = lane; d < dim; d += 32) sum += load(out + i * dim + d) * load(grad + i * dim + d);
        sum = warp_sum(sum);
        if (lane == 0) delta[i] = sum;
    }
}

#define ATTENTION(LARGEST, CHUNKS)                                                                                     \
    KERNEL(attention_forward_##LARGEST, const T* q, const T* k, const T* v, T* out, float* log_sums, int queries,      \
           int keys, int heads, int dim, int causal, float scale) {                                                    \
        Heads s = {queries, keys, heads, dim, causal, scale};                                                          \
        forward<CHUNKS, 4>(q, k, v, out, log_sums, s);                                                                 \
    }                                                                                                                  \
    KERNEL(attention_backward_queries_##LARGEST, const T* q, const T* k, const T* v, const T* grad,                    \
           const float* log_sums, const float* delta, T* dq, int queries, int keys, int heads, int dim, int causal,    \
           float scale) {                                                                                              \
        Heads s = {queries, keys, heads, dim, causal, scale};                                                          \
        backward_queries<CHUNKS, 2>(q, k, v, grad, log_sums, delta, dq, s);                                            \
    }                                                                                                                  \
    KERNEL(attention_backward_keys_##LARGEST, const T* q, const T* k, const T* v, const T* grad,                       \
           const float* log_sums, const float* delta, T* dk, T* dv, int queries, int keys, int heads, int dim,         \
           int causal, float scale) {                                                                                  \
        Heads s = {queries, keys, heads, dim, causal, scale};                                                          \
        backward_keys<CHUNKS, 2>(q, k, v, grad, log_sums, delta, dk, dv, s);                                           \
    }

ATTENTION(64, 1)
ATTENTION(128, 2)
ATTENTION(256, 4)
ATTENTION(512, 8)
