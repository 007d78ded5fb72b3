// Updates of parameters (ops/optimizer.rs): parameters, gradients and averages are float whatever T is. Old and new values lie in
// different memory, since tensors are never changed in place on a device.
#include "common.cuh"

// One partial sum of squares a block, from `start` on: the gradient's norm.
KERNEL(sum_squares, const float* x, float* partial, i64 start, i64 n) {
    __shared__ float scratch[32];
    float sum = 0.0f;
    FOR_EACH(i, n) sum += x[i] * x[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[start + blockIdx.x] = sum;
}

// The arithmetic of ops/optimizer.rs, in its order.
KERNEL(adamw, const float* value, const float* grad, const float* exp_avg, const float* exp_avg_sq, float* new_value,
       float* new_exp_avg, float* new_exp_avg_sq, i64 n, float beta1, float beta2, float epsilon, float grad_scale,
       float step_size, float inv_sqrt_correction2, float keep) {
    FOR_EACH(i, n) {
        float g = grad[i] * grad_scale;
        float m = beta1 * exp_avg[i] + (1.0f - beta1) * g;
        float v = beta2 * exp_avg_sq[i] + (1.0f - beta2) * g * g;
        new_exp_avg[i] = m;
        new_exp_avg_sq[i] = v;
        new_value[i] = value[i] * keep - step_size * m / (sqrtf(v) * inv_sqrt_correction2 + epsilon);
    }
}

KERNEL(ema, const float* average, const float* value, float* new_average, i64 n, float decay) {
    FOR_EACH(i, n) new_average[i] = average[i] + (1.0f - decay) * (value[i] - average[i]);
}
