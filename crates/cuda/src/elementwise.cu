// Pointwise operations (ops/elementwise.rs, ops/activation.rs) and casts.
#include "common.cuh"

// 0: a + b, 1: a - b, 2: a * b.
KERNEL(binary, int op, const T* a, const T* b, T* out, i64 n) {
    FOR_EACH(i, n) {
        float x = load(a + i), y = load(b + i);
        store(out + i, op == 0 ? x + y : op == 1 ? x - y : x * y);
    }
}

KERNEL(affine, const T* x, float scale, float shift, T* out, i64 n) {
    FOR_EACH(i, n) store(out + i, scale * load(x + i) + shift);
}

KERNEL(activation_forward, int kind, const T* x, T* out, i64 n) {
    FOR_EACH(i, n) {
        float value = load(x + i);
        store(out + i, kind == ACT_SOFTPLUS ? softplus(value) : activate(kind, value));
    }
}

KERNEL(activation_backward, int kind, const T* x, const T* grad, T* out, i64 n) {
    FOR_EACH(i, n) store(out + i, load(grad + i) * activation_slope(kind, load(x + i)));
}

// Rows of 2 half values to rows of half: the first half times gelu of the second.
KERNEL(geglu_forward, const T* x, T* out, i64 n, int half) {
    FOR_EACH(i, n) {
        const T* row = x + i / half * 2 * half;
        int column = (int)(i % half);
        float gate = load(row + half + column);
        store(out + i, load(row + column) * gate * normal_cdf(gate));
    }
}

KERNEL(geglu_backward, const T* x, const T* grad, T* dx, i64 n, int half) {
    FOR_EACH(i, n) {
        i64 start = i / half * 2 * half;
        int column = (int)(i % half);
        float value = load(x + start + column), gate = load(x + start + half + column), g = load(grad + i);
        float cdf = normal_cdf(gate);
        store(dx + start + column, g * gate * cdf);
        store(dx + start + half + column, g * value * (cdf + gate * normal_pdf(gate)));
    }
}

// What follows a library's convolution or product: y = act(y + bias) + residual, rows of `width`.
KERNEL(epilogue, T* y, const float* bias, int act, const T* residual, i64 n, int width) {
    FOR_EACH(i, n) store(y + i, finish(load(y + i), bias, act, residual, (int)(i % width), i));
}

// a[b] x + c[b] y; without y, a[b] x.
KERNEL(combine_per_sample, const float* a, const T* x, const float* c, const T* y, T* out, i64 n, i64 sample) {
    FOR_EACH(i, n) {
        i64 b = i / sample;
        float value = a[b] * load(x + i);
        if (y) value += c[b] * load(y + i);
        store(out + i, value);
    }
}

// A scheduler's step: up to four tensors, each with its weight; absent ones are null.
KERNEL(weighted_sum, const T* x0, const T* x1, const T* x2, const T* x3, float w0, float w1, float w2, float w3, T* out,
       i64 n) {
    FOR_EACH(i, n) {
        float sum = w0 * load(x0 + i);
        if (x1) sum += w1 * load(x1 + i);
        if (x2) sum += w2 * load(x2 + i);
        if (x3) sum += w3 * load(x3 + i);
        store(out + i, sum);
    }
}

// x[b, ..., c] + v[b, c].
KERNEL(add_per_sample_channel, const T* x, const T* v, T* out, i64 n, i64 sample, int channels) {
    FOR_EACH(i, n) store(out + i, load(x + i) + load(v + i / sample * channels + i % channels));
}

// scale * v[b, c] for each row of each sample.
KERNEL(broadcast_rows, const T* v, T* out, i64 n, i64 sample, int channels, float scale) {
    FOR_EACH(i, n) store(out + i, scale * load(v + i / sample * channels + i % channels));
}

// x[b, l, d] + table[l, d].
KERNEL(add_positions, const T* x, const float* table, T* out, i64 n, i64 sample) {
    FOR_EACH(i, n) store(out + i, load(x + i) + table[i % sample]);
}

KERNEL(fill, T* out, float value, i64 n) {
    FOR_EACH(i, n) store(out + i, value);
}

KERNEL(to_f32, const T* x, float* out, i64 n) {
    FOR_EACH(i, n) out[i] = load(x + i);
}

KERNEL(from_f32, const float* x, T* out, i64 n) {
    FOR_EACH(i, n) store(out + i, x[i]);
}

// Values of -1..1 as bytes, halves to even.
KERNEL(picture_bytes, const T* x, unsigned char* out, i64 n) {
    FOR_EACH(i, n) {
        float value = load(x + i) * 0.5f + 0.5f;
        out[i] = (unsigned char)rintf(fminf(fmaxf(value, 0.0f), 1.0f) * 255.0f);
    }
}
