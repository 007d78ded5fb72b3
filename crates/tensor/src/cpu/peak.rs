//! The machine's peak: independent fused multiply-adds in registers, on every thread at once.

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

/// Runs `rounds` rounds and returns (lanes per accumulator, a value that keeps the work alive).
fn run(rounds: usize) -> (usize, f32) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512F.
            return (16, unsafe { x86::avx512(rounds) });
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has AVX2 and FMA.
            return (8, unsafe { x86::avx2(rounds) });
        }
    }
    (4, portable(rounds))
}

/// Peak f32 GFLOP/s of the thread pool's threads together: best of five runs.
pub fn peak_gflops() -> f64 {
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
