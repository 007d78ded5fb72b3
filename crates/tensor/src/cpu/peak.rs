//! The machine's peak: independent fused multiply-adds in registers, on every thread at once.

use crate::cpu::level::{Level, level};
use std::time::Instant;

const ACCUMULATORS: usize = 12;

#[cfg(target_arch = "x86_64")]
#[allow(clippy::wildcard_imports)] // intrinsics, by the dozen
mod x86 {
    use super::ACCUMULATORS;
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2(rounds: usize) -> f32 {
        let (scale, shift) = (_mm256_set1_ps(0.5), _mm256_set1_ps(0.25));
        let mut acc = [shift; ACCUMULATORS];
        for _ in 0..rounds {
            for a in &mut acc {
                *a = _mm256_fmadd_ps(scale, *a, shift);
            }
        }
        acc.iter().map(|a| _mm256_cvtss_f32(*a)).sum()
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub fn avx512_bf16(rounds: usize) -> f32 {
        // SAFETY: any bits are values.
        let (pairs, start): (__m512bh, _) = (
            unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(0x3f00_3f00)) },
            _mm512_set1_ps(0.25),
        );
        let mut acc = [start; ACCUMULATORS];
        for _ in 0..rounds {
            for a in &mut acc {
                *a = _mm512_dpbf16_ps(*a, pairs, pairs);
            }
        }
        acc.iter().map(|a| _mm512_cvtss_f32(*a)).sum()
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn avx512_vnni(rounds: usize) -> f32 {
        let (quads, start) = (_mm512_set1_epi32(0x0101_0101), _mm512_set1_epi32(1));
        let mut acc = [start; ACCUMULATORS];
        for _ in 0..rounds {
            for a in &mut acc {
                *a = _mm512_dpbusd_epi32(*a, quads, quads);
            }
        }
        acc.iter().map(|a| _mm512_cvtsi512_si32(*a) as f32).sum()
    }

    #[target_feature(enable = "avx2,avxvnni")]
    pub fn avx_vnni(rounds: usize) -> f32 {
        let (quads, start) = (_mm256_set1_epi32(0x0101_0101), _mm256_set1_epi32(1));
        let mut acc = [start; ACCUMULATORS];
        for _ in 0..rounds {
            for a in &mut acc {
                *a = _mm256_dpbusd_avx_epi32(*a, quads, quads);
            }
        }
        acc.iter().map(|a| _mm256_cvtsi256_si32(*a) as f32).sum()
    }

    #[target_feature(enable = "avx512f")]
    pub fn avx512(rounds: usize) -> f32 {
        let (scale, shift) = (_mm512_set1_ps(0.5), _mm512_set1_ps(0.25));
        let mut acc = [shift; ACCUMULATORS];
        for _ in 0..rounds {
            for a in &mut acc {
                *a = _mm512_fmadd_ps(scale, *a, shift);
            }
        }
        acc.iter().map(|a| _mm512_cvtss_f32(*a)).sum()
    }
}

fn portable(rounds: usize) -> f32 {
    let mut acc = [[0.25f32; 4]; ACCUMULATORS];
    for _ in 0..rounds {
        for x in acc.iter_mut().flatten() {
            *x = *x * 0.5 + 0.25;
        }
    }
    acc.iter().flatten().sum()
}

/// Runs `rounds` rounds and returns (multiply-adds per accumulator, a value that keeps the work alive).
fn run(rounds: usize) -> (usize, f32) {
    match level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the level's features.
        Level::Avx512 | Level::Avx512Vnni | Level::Avx512Bf16 => (16, unsafe { x86::avx512(rounds) }),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 | Level::AvxVnni => (8, unsafe { x86::avx2(rounds) }),
        _ => (4, portable(rounds)),
    }
}

/// The same with products of bf16 where the processor has them.
fn run_bf16(rounds: usize) -> (usize, f32) {
    match level() {
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Bf16 => (32, unsafe { x86::avx512_bf16(rounds) }),
        _ => run(rounds),
    }
}

/// The same with products of bytes where the processor has them.
fn run_int8(rounds: usize) -> (usize, f32) {
    match level() {
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni | Level::Avx512Bf16 => (64, unsafe { x86::avx512_vnni(rounds) }),
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => (32, unsafe { x86::avx_vnni(rounds) }),
        _ => run(rounds),
    }
}

/// Peak f32 GFLOP/s of the thread pool's threads together: best of five runs.
pub fn peak_gflops() -> f64 {
    best(run)
}

/// Peak GFLOP/s with factors in bf16; that of f32 where the processor does not multiply bf16.
pub fn bf16_peak_gflops() -> f64 {
    best(run_bf16)
}

/// Peak of products of bytes, in billions of operations a second; that of f32 where the processor has none.
pub fn int8_peak_gops() -> f64 {
    best(run_int8)
}

fn best(run: impl Fn(usize) -> (usize, f32) + Sync) -> f64 {
    let rounds = 4_000_000;
    (0..5)
        .map(|_| {
            let start = Instant::now();
            let lanes = rayon::broadcast(|_| std::hint::black_box(run(rounds)).0);
            let flops = 2.0 * (rounds * ACCUMULATORS * lanes.iter().sum::<usize>()) as f64;
            flops / start.elapsed().as_secs_f64() / 1e9
        })
        .fold(0.0, f64::max)
}
