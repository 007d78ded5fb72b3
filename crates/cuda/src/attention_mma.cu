// Attention's forward pass on tensor cores, for bf16 (f32 and the backward pass: attention.cu, whose layouts are the same). The
// running softmax of FlashAttention-2 (Dao 2023): the scores of one tile of keys exist at a time, in registers, their maxima and
// sums in f32; probabilities are rounded to bf16 for their product with the values.
//
// 128 threads. A warp owns 16 queries, whose fragments stay in registers. Heads that are too wide for a warp's registers are
// SPLIT: so many warps share 16 queries, each computes all scores and its own part of the output.
#include "attention.cuh"
#include "mma.cuh"

#ifdef PRIMA_BF16

#define WARPS 4
#define ROWS 16

// Values d and d + 1 of a row; zeros past the ends.
DEVICE unsigned two_values(Head head, int row, int d, int dim) {
    const bf16* p = head.data + (i64)row * head.stride + d;
    bool inside = row < head.count;
    unsigned low = inside && d < dim ? p[0].bits : 0, high = inside && d + 1 < dim ? p[1].bits : 0;
    return low | high << 16;
}

// Rows first .. first + KEYS of up to DIM values; zeros past the ends. A packet more than the values keeps the rows of a matrix
// in different banks.
template <int DIM, int KEYS> DEVICE void load_tile(Packet (*tile)[DIM / 8 + 1], Head head, int first, int dim) {
    for (int i = threadIdx.x; i < KEYS * (DIM / 8); i += WARPS * 32) {
        int r = i / (DIM / 8), d = i % (DIM / 8) * 8;
        Packet packet = {{0, 0, 0, 0}};
        if (first + r < head.count && d < dim) {
            const bf16* from = head.data + (i64)(first + r) * head.stride + d;
            if (dim % 8 == 0) {
                packet = *(const Packet*)from;
            } else {
                for (int w = 0; w < 4; w++) packet.words[w] = two_values(head, first + r, d + 2 * w, dim);
            }
        }
        tile[r][d / 8] = packet;
    }
}

// Maximum and sum over the four lanes that share a row.
DEVICE float row_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
    return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}

DEVICE float row_sum(float value) {
    value += __shfl_xor_sync(0xffffffffu, value, 1);
    return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

// Grid (blocks of ROWS * WARPS / SPLIT queries, heads, batch).
template <int DIM, int KEYS, int SPLIT>
DEVICE void forward(const bf16* q, const bf16* k, const bf16* v, bf16* out, float* log_sums, Heads s) {
    constexpr int STEPS = DIM / 16, KEY_TILES = KEYS / 8, TILES = DIM / SPLIT / 8;
    __shared__ Packet keys[KEYS][DIM / 8 + 1], values[KEYS][DIM / 8 + 1];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, pair = lane % 4;
    int first = blockIdx.x * (ROWS * WARPS / SPLIT), row0 = first + warp / SPLIT * ROWS + group;
    int tile0 = warp % SPLIT * TILES;
    unsigned query[STEPS][4];
#pragma unroll
    for (int step = 0; step < STEPS; step++)
#pragma unroll
        for (int r = 0; r < 4; r++)
            query[step][r] =
                two_values(head_of(q, s, s.queries), row0 + 8 * (r % 2), step * 16 + 8 * (r / 2) + 2 * pair, s.dim);
    const float nothing = -__int_as_float(0x7f800000);
    // In units of log 2, so that exp2f does.
    float factor = s.scale * 1.44269504f;
    float sums[TILES][4], top[2] = {nothing, nothing}, total[2] = {0.0f, 0.0f};
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int c = 0; c < 4; c++) sums[t][c] = 0.0f;
    int end = s.causal ? min(s.keys, first + ROWS * WARPS / SPLIT) : s.keys;
    for (int key0 = 0; key0 < end; key0 += KEYS) {
        __syncthreads();
        load_tile<DIM, KEYS>(keys, head_of(k, s, s.keys), key0, s.dim);
        load_tile<DIM, KEYS>(values, head_of(v, s, s.keys), key0, s.dim);
        __syncthreads();
        float scores[KEY_TILES][4];
#pragma unroll
        for (int t = 0; t < KEY_TILES; t++)
#pragma unroll
            for (int c = 0; c < 4; c++) scores[t][c] = 0.0f;
#pragma unroll
        for (int step = 0; step < STEPS; step++)
#pragma unroll
            for (int t = 0; t < KEY_TILES; t += 2) {
                // Two tiles of 8 keys, each of two halves of 16 values.
                unsigned b[4];
                load_matrices(b, &keys[(t + lane / 16) * 8 + lane % 8][step * 2 + lane / 8 % 2]);
                multiply_accumulate(scores[t], query[step], b);
                multiply_accumulate(scores[t + 1], query[step], b + 2);
            }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = row0 + 8 * half;
            // Key 0 is in the first tile and every query sees it: the maximum is finite.
            float higher = top[half];
#pragma unroll
            for (int t = 0; t < KEY_TILES; t++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    int key = key0 + t * 8 + 2 * pair + c;
                    float& score = scores[t][2 * half + c];
                    score = key < s.keys && (!s.causal || key <= row) ? score * factor : nothing;
                    higher = fmaxf(higher, score);
                }
            higher = row_max(higher);
            float correction = exp2f(top[half] - higher), sum = 0.0f;
            top[half] = higher;
#pragma unroll
            for (int t = 0; t < KEY_TILES; t++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    float& score = scores[t][2 * half + c];
                    score = exp2f(score - higher);
                    sum += score;
                }
            total[half] = total[half] * correction + sum;
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                sums[t][2 * half] *= correction;
                sums[t][2 * half + 1] *= correction;
            }
        }
#pragma unroll
        for (int j = 0; j < KEYS / 16; j++) {
            // The sums of two tiles are laid out as a factor of 16 columns is.
            unsigned p[4] = {
                pack(scores[2 * j][0], scores[2 * j][1]),
                pack(scores[2 * j][2], scores[2 * j][3]),
                pack(scores[2 * j + 1][0], scores[2 * j + 1][1]),
                pack(scores[2 * j + 1][2], scores[2 * j + 1][3]),
            };
#pragma unroll
            for (int t = 0; t < TILES; t += 2) {
                unsigned b[4];
                load_matrices_transposed(b, &values[j * 16 + lane % 16][tile0 + t + lane / 16]);
                multiply_accumulate(sums[t], p, b);
                multiply_accumulate(sums[t + 1], p, b + 2);
            }
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = row0 + 8 * half;
        float all = row_sum(total[half]);
        if (row >= s.queries) continue;
        if (pair == 0 && warp % SPLIT == 0)
            log_sums[((i64)blockIdx.z * s.queries + row) * s.heads + blockIdx.y] =
                top[half] * 0.69314718f + logf(all);
        bf16* to = out + head_start(s, s.queries) + (i64)row * s.heads * s.dim;
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            int d = (tile0 + t) * 8 + 2 * pair;
            float x = sums[t][2 * half] / all, y = sums[t][2 * half + 1] / all;
            if (s.dim % 2 == 0) {
                if (d < s.dim) *(unsigned*)(to + d) = pack(x, y);
            } else {
                if (d < s.dim) store(to + d, x);
                if (d + 1 < s.dim) store(to + d + 1, y);
            }
        }
    }
}

#define ATTENTION(LARGEST, KEYS, SPLIT)                                                                                \
    KERNEL(attention_mma_##LARGEST, const bf16* q, const bf16* k, const bf16* v, bf16* out, float* log_sums,           \
           int queries, int keys, int heads, int dim, int causal, float scale) {                                       \
        Heads s = {queries, keys, heads, dim, causal, scale};                                                          \
        forward<LARGEST, KEYS, SPLIT>(q, k, v, out, log_sums, s);                                                      \
    }

ATTENTION(32, 64, 1)
ATTENTION(64, 64, 1)
ATTENTION(96, 64, 1)
ATTENTION(128, 64, 1)
ATTENTION(160, 64, 1)
ATTENTION(512, 16, 4)

#endif
