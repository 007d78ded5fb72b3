// Moving values (ops/layout.rs, ops/resample.rs, ops/embedding.rs).
#include "common.cuh"

// A block of `width` columns between two matrices of other widths: concatenation, slices and their gradients.
KERNEL(copy_columns, const T* from, T* to, i64 n, i64 width, i64 from_stride, i64 from_start, i64 to_stride,
       i64 to_start) {
    FOR_EACH(i, n) to[i / width * to_stride + to_start + i % width] = from[i / width * from_stride + from_start + i % width];
}

// Swaps the two last axes of [batch, rows, columns] in tiles of 32 x 32. Grid (tiles, 1, batch), 256 threads.
KERNEL(transpose, const T* x, T* out, int rows, int columns) {
    __shared__ T tile[32][33];
    int lane = threadIdx.x % 32, line = threadIdx.x / 32, across = (columns + 31) / 32;
    int row0 = blockIdx.x / across * 32, column0 = blockIdx.x % across * 32;
    i64 start = (i64)blockIdx.z * rows * columns;
    int column = column0 + lane;
    for (int i = line; i < 32; i += 8) {
        int row = row0 + i;
        if (row < rows && column < columns) tile[i][lane] = x[start + (i64)row * columns + column];
    }
    __syncthreads();
    int row = row0 + lane;
    for (int i = line; i < 32; i += 8) {
        int to = column0 + i;
        if (row < rows && to < columns) out[start + (i64)to * rows + row] = tile[lane][i];
    }
}

// [B, h, w, C] to [B, 2h, 2w, C]; n counts the output.
KERNEL(upsample_forward, const T* x, T* out, i64 n, int h, int w, int channels) {
    FOR_EACH(i, n) {
        i64 c = i % channels, column = i / channels % (2 * w), row = i / channels / (2 * w) % (2 * h);
        i64 b = i / channels / (2 * w) / (2 * h);
        out[i] = x[((b * h + row / 2) * w + column / 2) * channels + c];
    }
}

// Each pixel sums its four copies; n counts dx.
KERNEL(upsample_backward, const T* grad, T* dx, i64 n, int h, int w, int channels) {
    FOR_EACH(i, n) {
        i64 c = i % channels, column = i / channels % w, row = i / channels / w % h, b = i / channels / w / h;
        const T* top = grad + ((b * 2 * h + 2 * row) * 2 * w + 2 * column) * channels + c;
        const T* bottom = top + (i64)2 * w * channels;
        store(dx + i, (load(top) + load(top + channels)) + (load(bottom) + load(bottom + channels)));
    }
}

// out[i, :] = table[ids[i], :]; n = ids * width.
KERNEL(gather_rows, const T* table, const unsigned* ids, T* out, i64 n, int width) {
    FOR_EACH(i, n) out[i] = table[(i64)ids[i / width] * width + i % width];
}

// d_table[row[u], :] = the sum of grad[position, :] over the positions starts[u] .. starts[u + 1], in that order: the host
// sorts them, so that no two threads write one value. n = distinct rows * width; d_table was zeroed.
KERNEL(scatter_rows, const T* grad, const unsigned* row, const unsigned* starts, const unsigned* positions,
       float* d_table, i64 n, int width) {
    FOR_EACH(i, n) {
        i64 u = i / width, d = i % width;
        float sum = 0.0f;
        for (unsigned p = starts[u]; p < starts[u + 1]; p++) sum += load(grad + (i64)positions[p] * width + d);
        d_table[(i64)row[u] * width + d] = sum;
    }
}
