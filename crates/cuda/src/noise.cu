// Philox4x32-10 and Box-Muller, to the bit what random.rs gives on the CPU: integers, then f64 additions, products,
// divisions and roots that every IEEE machine rounds alike. Nothing here may be fused or replaced by a faster function.
#include "common.cuh"

DEVICE double times(double a, double b) { return __dmul_rn(a, b); }

DEVICE double plus(double a, double b) { return __dadd_rn(a, b); }

DEVICE void philox(unsigned counter[4], unsigned key0, unsigned key1) {
    for (int round = 0; round < 10; round++) {
        if (round > 0) {
            key0 += 0x9E3779B9u;
            key1 += 0xBB67AE85u;
        }
        unsigned long long p0 = 0xD2511F53ull * counter[0], p1 = 0xCD9E8D57ull * counter[2];
        unsigned c0 = (unsigned)(p1 >> 32) ^ counter[1] ^ key0, c2 = (unsigned)(p0 >> 32) ^ counter[3] ^ key1;
        counter[0] = c0;
        counter[1] = (unsigned)p1;
        counter[2] = c2;
        counter[3] = (unsigned)p0;
    }
}

// ln(k / 2^24) for k in 1 ..= 2^24: exponent and the series of artanh.
DEVICE double log_of_units(unsigned k) {
    int exponent = 0;
    double m = (double)k;
    while (m >= 2.0) {
        m = times(m, 0.5);
        exponent++;
    }
    if (m > 1.4142135623730951) {
        m = times(m, 0.5);
        exponent++;
    }
    double s = plus(m, -1.0) / plus(m, 1.0), z = times(s, s), p = 1.0 / 19.0;
    for (int i = 8; i >= 0; i--) p = plus(times(p, z), 1.0 / (double)(2 * i + 1));
    return plus(times((double)(exponent - 24), 0.6931471805599453), times(times(2.0, s), p));
}

// Sine and cosine of 2 pi j / 2^24: the nearest quarter turn, then their series within an eighth.
DEVICE void sin_cos_of_units(unsigned j, double* sine, double* cosine) {
    int quarter = (int)((j + (1u << 21)) >> 22);
    double t = times((double)((int)j - (quarter << 22)), 3.7450702829239286e-7), z = times(t, t);
    double s = 1.0, c = 1.0;
    for (int i = 8; i >= 1; i--) {
        s = plus(1.0, -times(s, times(z, 1.0 / (double)(2 * i * (2 * i + 1)))));
        c = plus(1.0, -times(c, times(z, 1.0 / (double)(2 * i * (2 * i - 1)))));
    }
    s = times(s, t);
    switch (quarter & 3) {
    case 0: *sine = s, *cosine = c; break;
    case 1: *sine = c, *cosine = -s; break;
    case 2: *sine = -s, *cosine = -c; break;
    default: *sine = -c, *cosine = s; break;
    }
}

DEVICE void box_muller(unsigned u, unsigned v, float* first, float* second) {
    double radius = sqrt(times(-2.0, log_of_units((u >> 8) + 1))), sine, cosine;
    sin_cos_of_units(v >> 8, &sine, &cosine);
    *first = (float)times(radius, cosine);
    *second = (float)times(radius, sine);
}

// Standard normal values: n of each image, images `image ..` one after the other. One thread a block of four.
KERNEL(philox_normal, float* out, i64 n, i64 blocks, i64 total, unsigned seed_low, unsigned seed_high, unsigned image,
       unsigned purpose, unsigned step) {
    FOR_EACH(i, total) {
        unsigned counter[4] = {(unsigned)(i % blocks), image + (unsigned)(i / blocks), purpose, step};
        philox(counter, seed_low, seed_high);
        float values[4];
        box_muller(counter[0], counter[1], values, values + 1);
        box_muller(counter[2], counter[3], values + 2, values + 3);
        for (int k = 0; k < 4; k++)
            if (i % blocks * 4 + k < n) out[i / blocks * n + i % blocks * 4 + k] = values[k];
    }
}
