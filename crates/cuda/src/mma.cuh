// A warp's matrix products on tensor cores, of bf16 values with f32 sums: PTX by hand, because mma.h, like cuda_bf16.h, is not
// part of NVRTC. Fragments are laid out as the PTX manual draws them for mma.m16n8k16: with group = lane / 4 and pair = lane % 4,
//   a[r]: row group + 8 (r % 2), columns 2 pair and 2 pair + 1, from 8 (r / 2) on,
//   b[r]: column group, rows 2 pair and 2 pair + 1, from 8 r on,
//   d[c]: row group + 8 (c / 2), column 2 pair + c % 2.
#pragma once
#include "common.cuh"

// Eight values: what a load of 16 bytes moves.
struct alignas(16) Packet {
    unsigned words[4];
};

#ifdef PRIMA_EMULATE

DEVICE void multiply_accumulate(float* d, const unsigned* a, const unsigned* b) { emulate_mma(d, a, b); }

DEVICE void load_matrices(unsigned* out, const Packet* row) { emulate_ldmatrix(out, row, false); }

DEVICE void load_matrices_transposed(unsigned* out, const Packet* row) { emulate_ldmatrix(out, row, true); }

DEVICE unsigned pack(float low, float high) {
    return emulate_round_to_bf16(low) | (unsigned)emulate_round_to_bf16(high) << 16;
}

#else

// d [16, 8] += a [16, 16] b [16, 8].
DEVICE void multiply_accumulate(float* d, const unsigned* a, const unsigned* b) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

DEVICE unsigned shared_address(const void* p) {
    unsigned address;
    asm("{ .reg .u64 a; cvta.to.shared.u64 a, %1; cvt.u32.u64 %0, a; }" : "=r"(address) : "l"(p));
    return address;
}

// Four matrices of 8 rows of 8 values in shared memory; lane 8 m + r says where row r of matrix m is. out[m] are the values
// 2 pair and 2 pair + 1 of row group.
DEVICE void load_matrices(unsigned* out, const Packet* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same, of column group: rows 2 pair and 2 pair + 1.
DEVICE void load_matrices_transposed(unsigned* out, const Packet* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// Two values, rounded to bf16.
DEVICE unsigned pack(float low, float high) {
    unsigned both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

#endif
