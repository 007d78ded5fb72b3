// GroupNorm (with SiLU) and LayerNorm, forward and backward (ops/norm.rs).
#include "common.cuh"

// GroupNorm's sums of x - shift and (x - shift)^2, shift being the group's first value: it keeps the digits of groups far
// from zero. Grid (groups, splits, batch); partial [batch, groups, splits, 2].
KERNEL(group_sums, const T* x, float* partial, int rows, int channels, int groups, int splits) {
    __shared__ float scratch[32];
    int group = blockIdx.x, split = blockIdx.y, b = blockIdx.z, width = channels / groups;
    const T* start = x + (i64)b * rows * channels + group * width;
    float shift = load(start), sum = 0.0f, squares = 0.0f;
    i64 count = (i64)rows * width;
    for (i64 i = (i64)split * blockDim.x + threadIdx.x; i < count; i += (i64)splits * blockDim.x) {
        float d = load(start + i / width * channels + i % width) - shift;
        sum += d;
        squares += d * d;
    }
    sum = block_sum(sum, scratch);
    squares = block_sum(squares, scratch);
    if (threadIdx.x == 0) {
        float* out = partial + (((i64)b * groups + group) * splits + split) * 2;
        out[0] = sum;
        out[1] = squares;
    }
}

// Mean and reciprocal standard deviation [batch, groups, 2] out of group_sums. One thread a group.
KERNEL(group_statistics, const T* x, const float* partial, float* statistics, int rows, int channels, int groups,
       int splits, int batch, float eps) {
    FOR_EACH(i, batch * groups) {
        int width = channels / groups;
        double shift = load(x + i / groups * rows * channels + i % groups * width);
        double sum = 0.0, squares = 0.0, count = (double)rows * width;
        for (int s = 0; s < splits; s++) {
            sum += partial[(i * splits + s) * 2];
            squares += partial[(i * splits + s) * 2 + 1];
        }
        double mean = sum / count, variance = squares / count - mean * mean;
        statistics[i * 2] = (float)(shift + mean);
        statistics[i * 2 + 1] = (float)(1.0 / sqrt((variance > 0.0 ? variance : 0.0) + eps));
    }
}

KERNEL(group_norm_forward, const T* x, const float* statistics, const float* gamma, const float* beta, T* out, i64 n,
       i64 sample, int channels, int groups, int silu) {
    FOR_EACH(i, n) {
        int c = (int)(i % channels);
        const float* s = statistics + (i / sample * groups + c / (channels / groups)) * 2;
        float z = (load(x + i) - s[0]) * s[1] * gamma[c] + beta[c];
        store(out + i, silu ? z * sigmoid(z) : z);
    }
}

// The gradient before SiLU.
DEVICE float before_silu(float grad, float xhat, float gamma, float beta, int silu) {
    return silu ? grad * silu_slope(xhat * gamma + beta) : grad;
}

// Per channel the sums of dz and dz * xhat: partial [batch, splits, 2, channels]. Grid (channels / 32, splits, batch), 256
// threads.
KERNEL(group_norm_backward_sums, const T* x, const T* grad, const float* statistics, const float* gamma,
       const float* beta, float* partial, int rows, int channels, int groups, int splits, int silu) {
    __shared__ float sums[2][8][33];
    int lane = threadIdx.x % 32, line = threadIdx.x / 32;
    int c = blockIdx.x * 32 + lane, split = blockIdx.y, b = blockIdx.z;
    float d_beta = 0.0f, d_gamma = 0.0f;
    if (c < channels) {
        const float* s = statistics + ((i64)b * groups + c / (channels / groups)) * 2;
        for (int r = split * 8 + line; r < rows; r += splits * 8) {
            i64 at = ((i64)b * rows + r) * channels + c;
            float xhat = (load(x + at) - s[0]) * s[1];
            float dz = before_silu(load(grad + at), xhat, gamma[c], beta[c], silu);
            d_beta += dz;
            d_gamma += dz * xhat;
        }
    }
    sums[0][line][lane] = d_beta;
    sums[1][line][lane] = d_gamma;
    __syncthreads();
    if (line < 2 && c < channels) {
        float sum = 0.0f;
        for (int i = 0; i < 8; i++) sum += sums[line][i][lane];
        partial[(((i64)b * splits + split) * 2 + line) * channels + c] = sum;
    }
}

// Per (sample, group) the means of gamma dz and gamma dz xhat: means [batch, groups, 2], out of sums [batch, 2, channels].
KERNEL(group_norm_backward_means, const float* sums, const float* gamma, float* means, int rows, int channels,
       int groups, int batch) {
    FOR_EACH(i, batch * groups) {
        int width = channels / groups, first = (int)(i % groups) * width;
        const float* of = sums + i / groups * 2 * channels;
        double dz = 0.0, dz_xhat = 0.0, count = (double)rows * width;
        for (int c = first; c < first + width; c++) {
            dz += (double)gamma[c] * of[c];
            dz_xhat += (double)gamma[c] * of[channels + c];
        }
        means[i * 2] = (float)(dz / count);
        means[i * 2 + 1] = (float)(dz_xhat / count);
    }
}

KERNEL(group_norm_backward, const T* x, const T* grad, const float* statistics, const float* means, const float* gamma,
       const float* beta, T* dx, i64 n, i64 sample, int channels, int groups, int silu) {
    FOR_EACH(i, n) {
        int c = (int)(i % channels);
        i64 group = i / sample * groups + c / (channels / groups);
        float rstd = statistics[group * 2 + 1], xhat = (load(x + i) - statistics[group * 2]) * rstd;
        float dz = before_silu(load(grad + i), xhat, gamma[c], beta[c], silu);
        store(dx + i, rstd * (gamma[c] * dz - means[group * 2] - xhat * means[group * 2 + 1]));
    }
}

// One warp a row. statistics [rows, 2] is kept for the backward pass.
KERNEL(layer_norm_forward, const T* x, const float* gamma, const float* beta, T* out, float* statistics, i64 rows,
       int channels, float eps) {
    int lane = threadIdx.x % 32;
    i64 warps = (i64)gridDim.x * (blockDim.x / 32);
    for (i64 row = (i64)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; row < rows; row += warps) {
        const T* from = x + row * channels;
        float shift = load(from), sum = 0.0f, squares = 0.0f;
        for (int c = lane; c < channels; c += 32) sum += load(from + c) - shift;
        float mean = shift + warp_sum(sum) / channels;
        for (int c = lane; c < channels; c += 32) {
            float d = load(from + c) - mean;
            squares += d * d;
        }
        float rstd = 1.0f / sqrtf(warp_sum(squares) / channels + eps);
        for (int c = lane; c < channels; c += 32)
            store(out + row * channels + c, (load(from + c) - mean) * rstd * gamma[c] + beta[c]);
        if (lane == 0) {
            statistics[row * 2] = mean;
            statistics[row * 2 + 1] = rstd;
        }
    }
}

KERNEL(layer_norm_backward, const T* x, const T* grad, const float* statistics, const float* gamma, T* dx, i64 rows,
       int channels) {
    int lane = threadIdx.x % 32;
    i64 warps = (i64)gridDim.x * (blockDim.x / 32);
    for (i64 row = (i64)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; row < rows; row += warps) {
        const T *from = x + row * channels, *g = grad + row * channels;
        float mean = statistics[row * 2], rstd = statistics[row * 2 + 1], sum = 0.0f, sum_xhat = 0.0f;
        for (int c = lane; c < channels; c += 32) {
            float d = load(g + c) * gamma[c];
            sum += d;
            sum_xhat += d * (load(from + c) - mean) * rstd;
        }
        sum = warp_sum(sum) / channels;
        sum_xhat = warp_sum(sum_xhat) / channels;
        for (int c = lane; c < channels; c += 32) {
            float xhat = (load(from + c) - mean) * rstd;
            store(dx + row * channels + c, rstd * (load(g + c) * gamma[c] - sum - xhat * sum_xhat));
        }
    }
}

// Per channel the sums of grad and grad * xhat: partial [splits, 2, channels]. Grid (channels / 32, splits), 256 threads.
KERNEL(layer_norm_backward_sums, const T* x, const T* grad, const float* statistics, float* partial, i64 rows,
       int channels, int splits) {
    __shared__ float sums[2][8][33];
    int lane = threadIdx.x % 32, line = threadIdx.x / 32, c = blockIdx.x * 32 + lane, split = blockIdx.y;
    float d_beta = 0.0f, d_gamma = 0.0f;
    if (c < channels)
        for (i64 r = split * 8 + line; r < rows; r += splits * 8) {
            float g = load(grad + r * channels + c);
            d_beta += g;
            d_gamma += g * (load(x + r * channels + c) - statistics[r * 2]) * statistics[r * 2 + 1];
        }
    sums[0][line][lane] = d_beta;
    sums[1][line][lane] = d_gamma;
    __syncthreads();
    if (line < 2 && c < channels) {
        float sum = 0.0f;
        for (int i = 0; i < 8; i++) sum += sums[line][i][lane];
        partial[((i64)split * 2 + line) * channels + c] = sum;
    }
}
