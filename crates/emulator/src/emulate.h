// CUDA's words for a C++ compiler, so that the tests run the kernels of the .cu files on the CPU, one block after the
// other. The threads of a block are fibres that change places at each barrier and shuffle. What this checks is indexing,
// reductions and barriers (one that not all threads reach is an error, a missing one gives wrong results); not speed.
#pragma once
#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

struct dim3 {
    unsigned x, y, z;
};

#define __device__
#define __forceinline__ inline
#define __shared__ static

using std::max;
using std::min;

namespace emulator {
constexpr int MAX_THREADS = 1024;
constexpr size_t STACK_BYTES = 64 * 1024;

struct Barrier {
    int arrived = 0;
    long generation = 0;
};

struct Fibre {
    jmp_buf place;
    bool started = false, done = true;
    std::vector<char> stack;
};

struct Block {
    dim3 grid, block, index;
    unsigned thread = 0;
    int threads = 0;
    // Threads take turns in rising order in one block and in falling order in the next: where a barrier is missing, one of the
    // two has a thread run ahead of what it reads, or over what others still have to read.
    bool backwards = false;
    long progress = 0;
    Barrier all, warps[MAX_THREADS / 32];
    unsigned slots[MAX_THREADS];
    // What the lanes of a warp bring to a product of matrices.
    unsigned factors[MAX_THREADS][6];
    const unsigned short* rows[MAX_THREADS];
    Fibre fibres[MAX_THREADS];
    jmp_buf scheduler;
    ucontext_t entry, back;
    void (*body)(void**);
    void** args;
};

inline Block& state() {
    static Block block;
    return block;
}

inline void yield() {
    Block& s = state();
    if (!_setjmp(s.fibres[s.thread].place)) _longjmp(s.scheduler, 1);
}

inline void wait(Barrier& barrier, int expected) {
    Block& s = state();
    long generation = barrier.generation;
    s.progress++;
    if (++barrier.arrived == expected) {
        barrier.arrived = 0;
        barrier.generation++;
        return;
    }
    while (barrier.generation == generation) yield();
    s.progress++;
}

// A fibre's stack is entered once; afterwards it only waits for the next block.
inline void enter() {
    Block& s = state();
    for (;;) {
        s.body(s.args);
        s.fibres[s.thread].done = true;
        yield();
    }
}

inline void resume(int thread) {
    Block& s = state();
    Fibre& fibre = s.fibres[thread];
    s.thread = thread;
    if (_setjmp(s.scheduler)) return;
    if (fibre.started) _longjmp(fibre.place, 1);
    fibre.started = true;
    fibre.stack.resize(STACK_BYTES);
    getcontext(&s.entry);
    s.entry.uc_stack.ss_sp = fibre.stack.data();
    s.entry.uc_stack.ss_size = fibre.stack.size();
    s.entry.uc_link = nullptr;
    makecontext(&s.entry, enter, 0);
    setcontext(&s.entry);
}

// 0, or 1 where some threads wait for others that never come.
inline int run(void (*body)(void**), dim3 grid, dim3 block, void** args) {
    Block& s = state();
    s.grid = grid, s.block = block, s.body = body, s.args = args;
    s.threads = (int)(block.x * block.y * block.z);
    for (s.index.z = 0; s.index.z < grid.z; s.index.z++)
        for (s.index.y = 0; s.index.y < grid.y; s.index.y++)
            for (s.index.x = 0; s.index.x < grid.x; s.index.x++) {
                s.backwards = !s.backwards;
                s.all = Barrier();
                for (Barrier& warp : s.warps) warp = Barrier();
                for (int t = 0; t < s.threads; t++) s.fibres[t].done = false;
                for (int left = s.threads; left > 0;) {
                    long before = s.progress;
                    for (int i = 0; i < s.threads; i++) {
                        int t = s.backwards ? s.threads - 1 - i : i;
                        if (s.fibres[t].done) continue;
                        resume(t);
                        if (s.fibres[t].done) left--, s.progress++;
                    }
                    if (s.progress == before) return 1;
                }
            }
    return 0;
}

template <class... A, size_t... I> void unpack(void (*f)(A...), void** args, std::index_sequence<I...>) {
    f(*static_cast<A*>(args[I])...);
}

template <class... A> constexpr int count(void (*)(A...)) { return sizeof...(A); }

template <class... A> void call(void (*f)(A...), void** args) { unpack(f, args, std::index_sequence_for<A...>()); }
} // namespace emulator

#define threadIdx (dim3{emulator::state().thread, 0, 0})
#define blockIdx (emulator::state().index)
#define blockDim (emulator::state().block)
#define gridDim (emulator::state().grid)

// `name` becomes a function that runs its threads, under the name that the tests look up, and one that counts its arguments.
#define KERNEL(name, ...)                                                                                              \
    static void name(__VA_ARGS__);                                                                                     \
    extern "C" int JOINED(JOINED(name, SUFFIX), _arguments)() { return emulator::count(name); }                        \
    extern "C" int JOINED(name, SUFFIX)(dim3 grid, dim3 block, void** args) {                                          \
        return emulator::run([](void** args) { emulator::call(name, args); }, grid, block, args);                      \
    }                                                                                                                  \
    static void name(__VA_ARGS__)

static inline void __syncthreads() { emulator::wait(emulator::state().all, emulator::state().threads); }

static inline float exchange(float value, int lane) {
    emulator::Block& s = emulator::state();
    unsigned me = s.thread, bits;
    emulator::Barrier& warp = s.warps[me / 32];
    std::memcpy(&s.slots[me], &value, 4);
    emulator::wait(warp, 32);
    bits = s.slots[me / 32 * 32 + lane];
    emulator::wait(warp, 32);
    std::memcpy(&value, &bits, 4);
    return value;
}

static inline float __shfl_sync(unsigned, float value, int lane) { return exchange(value, lane); }

static inline float __shfl_xor_sync(unsigned, float value, int mask) {
    return exchange(value, (int)(emulator::state().thread % 32) ^ mask);
}

static inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

static inline float __int_as_float(int bits) { return __uint_as_float((unsigned)bits); }

static inline double __dmul_rn(double a, double b) { return a * b; }

static inline double __dadd_rn(double a, double b) { return a + b; }

// mma.m16n8k16: the lanes bring their fragments together, and each computes its four values of the result (layouts: mma.cuh).
static inline void emulate_mma(float* d, const unsigned* a, const unsigned* b) {
    emulator::Block& s = emulator::state();
    unsigned me = s.thread, first = me / 32 * 32;
    emulator::Barrier& warp = s.warps[me / 32];
    std::memcpy(s.factors[me], a, 16);
    std::memcpy(s.factors[me] + 4, b, 8);
    emulator::wait(warp, 32);
    auto value = [&](int lane, int word, int half) {
        unsigned bits = s.factors[first + lane][word] >> (16 * half) << 16;
        float value;
        std::memcpy(&value, &bits, 4);
        return value;
    };
    int group = (int)(me % 32) / 4, pair = me % 4;
    for (int c = 0; c < 4; c++) {
        int row = group + 8 * (c / 2), column = 2 * pair + c % 2;
        for (int k = 0; k < 16; k++) {
            float left = value(row % 8 * 4 + k % 8 / 2, row / 8 + 2 * (k / 8), k % 2);
            float right = value(column * 4 + k % 8 / 2, 4 + k / 8, k % 2);
            d[c] += left * right;
        }
    }
    emulator::wait(warp, 32);
}

// ldmatrix.x4, plain or transposed.
static inline void emulate_ldmatrix(unsigned* out, const void* row, bool transposed) {
    emulator::Block& s = emulator::state();
    unsigned me = s.thread, first = me / 32 * 32, lane = me % 32;
    emulator::Barrier& warp = s.warps[me / 32];
    s.rows[me] = static_cast<const unsigned short*>(row);
    emulator::wait(warp, 32);
    for (unsigned m = 0; m < 4; m++) {
        const unsigned short** rows = s.rows + first + 8 * m;
        unsigned r = lane / 4, c = lane % 4 * 2;
        unsigned low = transposed ? rows[c][r] : rows[r][c], high = transposed ? rows[c + 1][r] : rows[r][c + 1];
        out[m] = low | high << 16;
    }
    emulator::wait(warp, 32);
}

// Round to nearest, ties to even, as cvt.rn does.
static inline unsigned short emulate_round_to_bf16(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, 4);
    if (value != value) return 0x7fff;
    return (unsigned short)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
