// Convolutions where cuDNN is missing (ops/conv2d.rs): implicit products, the picture is gathered while tiles are loaded.
// x [B, H, W, inputs], weight [outputs, kh, kw, inputs], grad and out [B, H', W', outputs].
#include "gemm.cuh"

struct Geometry {
    int height, width, inputs, outputs, kh, kw, out_height, out_width, stride, top, left;
};

// The window of output pixel `line` as a row of kh * kw * inputs values.
template <bool ALONG_K> struct Window {
    enum { K_FIRST = ALONG_K };
    const T* x;
    Geometry g;
    __device__ float value(int pixel, int k) const {
        int c = k % g.inputs, kx = k / g.inputs % g.kw, ky = k / g.inputs / g.kw;
        int column = pixel % g.out_width * g.stride + kx - g.left;
        int row = pixel / g.out_width % g.out_height * g.stride + ky - g.top;
        int b = pixel / g.out_width / g.out_height;
        if (row < 0 || row >= g.height || column < 0 || column >= g.width) return 0.0f;
        return load(x + (((i64)b * g.height + row) * g.width + column) * g.inputs + c);
    }
    // Forward: a line is a pixel. Gradient of the weight: a line is a place in the window, k the pixel.
    __device__ float at(int line, int k) const { return ALONG_K ? value(line, k) : value(k, line); }
};

// What input pixel `line` was read for: kh * kw * outputs values of the gradient.
struct Readers {
    enum { K_FIRST = 1 };
    const T* grad;
    Geometry g;
    __device__ float at(int pixel, int k) const {
        int o = k % g.outputs, kx = k / g.outputs % g.kw, ky = k / g.outputs / g.kw;
        int column = pixel % g.width + g.left - kx, row = pixel / g.width % g.height + g.top - ky;
        int b = pixel / g.width / g.height;
        if (row < 0 || column < 0 || row % g.stride || column % g.stride) return 0.0f;
        row /= g.stride, column /= g.stride;
        if (row >= g.out_height || column >= g.out_width) return 0.0f;
        return load(grad + (((i64)b * g.out_height + row) * g.out_width + column) * g.outputs + o);
    }
};

// The weight by its outputs (forward) ...
struct Filters {
    enum { K_FIRST = 1 };
    const T* weight;
    int window;
    __device__ float at(int output, int k) const { return load(weight + (i64)output * window + k); }
};

// ... and by its inputs, k being (tap, output).
struct FiltersByInput {
    enum { K_FIRST = 0 };
    const T* weight;
    Geometry g;
    __device__ float at(int input, int k) const {
        int o = k % g.outputs, tap = k / g.outputs;
        return load(weight + ((i64)o * g.kh * g.kw + tap) * g.inputs + input);
    }
};

// The gradient by its channel, k being the pixel.
struct GradByOutput {
    enum { K_FIRST = 0 };
    const T* grad;
    int outputs;
    __device__ float at(int output, int pixel) const { return load(grad + (i64)pixel * outputs + output); }
};

#define GEOMETRY                                                                                                       \
    int batch, int height, int width, int inputs, int outputs, int kh, int kw, int out_height, int out_width,          \
        int stride, int top, int left
#define MAKE_GEOMETRY                                                                                                  \
    Geometry g = {height, width, inputs, outputs, kh, kw, out_height, out_width, stride, top, left}

// out = act(conv(x, weight) + bias) + residual.
KERNEL(conv_forward, const T* x, const T* weight, T* out, const float* bias, int act, const T* residual, GEOMETRY) {
    MAKE_GEOMETRY;
    Window<true> a = {x, g};
    Filters b = {weight, kh * kw * inputs};
    Finished to = {out, bias, residual, act, outputs};
    multiply_tile(a, b, to, batch * out_height * out_width, outputs, kh * kw * inputs);
}

KERNEL(conv_grad_input, const T* grad, const T* weight, T* dx, GEOMETRY) {
    MAKE_GEOMETRY;
    Readers a = {grad, g};
    FiltersByInput b = {weight, g};
    Finished to = {dx, 0, 0, ACT_NONE, inputs};
    multiply_tile(a, b, to, batch * height * width, inputs, kh * kw * outputs);
}

// dw [outputs, kh, kw, inputs] in f32.
KERNEL(conv_grad_weight, const T* grad, const T* x, float* dw, GEOMETRY) {
    MAKE_GEOMETRY;
    GradByOutput a = {grad, outputs};
    Window<false> b = {x, g};
    Wide to = {dw, kh * kw * inputs};
    multiply_tile(a, b, to, outputs, kh * kw * inputs, batch * out_height * out_width);
}

// One filter a channel: weight [C, kh * kw] (ops/depthwise.rs). n counts the output.
KERNEL(depthwise, const T* x, const float* weight, const float* bias, int act, T* out, i64 n, GEOMETRY) {
    FOR_EACH(i, n) {
        int c = (int)(i % outputs);
        i64 pixel = i / outputs;
        int x0 = (int)(pixel % out_width) * stride - left, y0 = (int)(pixel / out_width % out_height) * stride - top;
        i64 b = pixel / out_width / out_height;
        float sum = bias ? bias[c] : 0.0f;
        for (int ky = 0; ky < kh; ky++)
            for (int kx = 0; kx < kw; kx++) {
                int row = y0 + ky, column = x0 + kx;
                if (row >= 0 && row < height && column >= 0 && column < width)
                    sum += weight[(c * kh + ky) * kw + kx] * load(x + ((b * height + row) * width + column) * inputs + c);
            }
        store(out + i, activate(act, sum));
    }
}

// From the gradient of the output to that of the input, whose values n counts.
KERNEL(depthwise_grad_input, const T* grad, const float* weight, T* dx, i64 n, GEOMETRY) {
    FOR_EACH(i, n) {
        int c = (int)(i % inputs);
        i64 pixel = i / inputs;
        int x = (int)(pixel % width) + left, y = (int)(pixel / width % height) + top;
        i64 b = pixel / width / height;
        float sum = 0.0f;
        for (int ky = 0; ky < kh; ky++)
            for (int kx = 0; kx < kw; kx++) {
                int row = y - ky, column = x - kx;
                if (row < 0 || column < 0 || row % stride || column % stride) continue;
                row /= stride, column /= stride;
                if (row < out_height && column < out_width)
                    sum += weight[(c * kh + ky) * kw + kx] *
                           load(grad + ((b * out_height + row) * out_width + column) * outputs + c);
            }
        store(dx + i, sum);
    }
}
