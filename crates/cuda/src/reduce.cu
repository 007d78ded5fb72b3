// Sums over rows (gradients of biases, pooling) and the losses (ops/loss.rs). Every sum has a fixed order.
#include "common.cuh"

// x [batch, rows, channels] to partial [batch, splits, channels]. Grid (channels / 32, splits, batch), 256 threads: 32
// channels by 8 rows at a time.
KERNEL(column_sums, const T* x, float* partial, int rows, int channels, int splits) {
    __shared__ float sums[8][33];
    int lane = threadIdx.x % 32, line = threadIdx.x / 32;
    int c = blockIdx.x * 32 + lane, split = blockIdx.y, b = blockIdx.z;
    float sum = 0.0f;
    if (c < channels)
        for (int r = split * 8 + line; r < rows; r += splits * 8) sum += load(x + ((i64)b * rows + r) * channels + c);
    sums[line][lane] = sum;
    __syncthreads();
    if (line == 0 && c < channels) {
        for (int i = 1; i < 8; i++) sum += sums[i][lane];
        partial[((i64)b * splits + split) * channels + c] = sum;
    }
}

// partial [batch, splits, channels] to scale times its sum over the splits, n = batch * channels values.
KERNEL(sum_partials, const float* partial, float* out, int n, int channels, int splits, float scale) {
    FOR_EACH(i, n) {
        i64 b = i / channels, c = i % channels;
        float sum = 0.0f;
        for (int s = 0; s < splits; s++) sum += partial[(b * splits + s) * channels + c];
        out[i] = scale * sum;
    }
}

// 0: squares, 1: pseudo-Huber of width c, 2: absolute values. The order of ops::loss::Kind.
DEVICE float loss_value(int kind, float d, float c) {
    if (kind == 0) return d * d;
    if (kind == 2) return fabsf(d);
    float root = sqrtf(d * d + c * c);
    return root + c > 0.0f ? d * d / (root + c) : 0.0f;
}

DEVICE float loss_slope(int kind, float d, float c) {
    if (kind == 0) return 2.0f * d;
    if (kind == 2) return d == 0.0f ? 0.0f : copysignf(1.0f, d);
    float root = sqrtf(d * d + c * c);
    return root > 0.0f ? d / root : 0.0f;
}

// One partial sum a block of weight[b] * value(x - target).
KERNEL(loss_forward, int kind, const T* x, const T* target, const float* weight, float* partial, i64 n, i64 sample,
       float c) {
    __shared__ float scratch[32];
    float sum = 0.0f;
    FOR_EACH(i, n) sum += weight[i / sample] * loss_value(kind, load(x + i) - load(target + i), c);
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block: out[0] = scale * sum of count values.
KERNEL(sum_all, const float* partial, float* out, int count, float scale) {
    __shared__ float scratch[32];
    float sum = 0.0f;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += partial[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) out[0] = scale * sum;
}

// grad is the loss's own gradient, one value; scale is one over the number of values.
KERNEL(loss_backward, int kind, const T* x, const T* target, const float* weight, const float* grad, T* dx, i64 n,
       i64 sample, float c, float scale) {
    FOR_EACH(i, n) {
        float slope = loss_slope(kind, load(x + i) - load(target + i), c);
        store(dx + i, grad[0] * scale * weight[i / sample] * slope);
    }
}
