//! Products of bytes: four unsigned ones with four signed ones, summed in i32. The sums lie in the bits of f32, which every
//! register block is made of, and are turned into values by `int8`.

use crate::cpu::micro_kernel::Product;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, __m512, _mm256_add_epi32, _mm256_and_si256, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_madd_epi16,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_slli_epi16, _mm256_srai_epi16, _mm256_srli_epi16, _mm512_add_epi32,
    _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_madd_epi16, _mm512_set1_epi16,
    _mm512_set1_epi32, _mm512_slli_epi16, _mm512_srai_epi16, _mm512_srli_epi16,
};

/// Deepest product whose sums surely fit an i32: `255 · 127` a depth.
pub(crate) const MAX_DEPTH: usize = 1 << 16;
/// Largest weight.
pub(crate) const MAX_WEIGHT: f32 = 127.0;
/// Rows of words behind those of a panel: the sums of the columns, and their scales in the bits of f32.
pub(crate) const FOOT: usize = 2;

/// A word is four bytes, which are widened in registers: the sums of two products of bytes do not fit 16 bits, which is what
/// `maddubs` would cut them to.
pub(crate) struct Quads;

impl Product for Quads {
    #[inline(always)]
    fn add(sum: f32, a: u32, b: u32) -> f32 {
        let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
        let products = (0..4).map(|i| i32::from(a[i]) * i32::from(b[i] as i8));
        f32::from_bits((sum.to_bits() as i32 + products.sum::<i32>()) as u32)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn add_256(sum: __m256, a: *const u32, b: __m256) -> __m256 {
        // SAFETY: the caller's promise: the instructions, and that `a` is a word.
        unsafe {
            let (a, b, low) = (
                _mm256_set1_epi32(*a as i32),
                _mm256_castps_si256(b),
                _mm256_set1_epi16(0xff),
            );
            let even = _mm256_madd_epi16(_mm256_and_si256(a, low), _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8));
            let odd = _mm256_madd_epi16(_mm256_srli_epi16(a, 8), _mm256_srai_epi16(b, 8));
            let four = _mm256_add_epi32(even, odd);
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(sum), four))
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn add_512(sum: __m512, a: *const u32, b: __m512) -> __m512 {
        // SAFETY: the caller's promise: the instructions, and that `a` is a word.
        unsafe {
            let (a, b, low) = (
                _mm512_set1_epi32(*a as i32),
                _mm512_castps_si512(b),
                _mm512_set1_epi16(0xff),
            );
            let even = _mm512_madd_epi16(_mm512_and_si512(a, low), _mm512_srai_epi16(_mm512_slli_epi16(b, 8), 8));
            let odd = _mm512_madd_epi16(_mm512_srli_epi16(a, 8), _mm512_srai_epi16(b, 8));
            let four = _mm512_add_epi32(even, odd);
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(sum), four))
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use super::{Product, Quads};
    use std::arch::x86_64::{
        __m256, __m512, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_dpbusd_avx_epi32, _mm256_set1_epi32,
        _mm512_castps_si512, _mm512_castsi512_ps, _mm512_dpbusd_epi32, _mm512_set1_epi32,
    };

    /// The same where the processor multiplies bytes: one instruction for all four.
    pub struct Dots;

    impl Product for Dots {
        fn add(sum: f32, a: u32, b: u32) -> f32 {
            Quads::add(sum, a, b)
        }

        #[inline(always)]
        unsafe fn add_256(sum: __m256, a: *const u32, b: __m256) -> __m256 {
            // SAFETY: the caller's promise: the instructions, and that `a` is a word.
            unsafe {
                let (sum, a) = (_mm256_castps_si256(sum), _mm256_set1_epi32(*a as i32));
                _mm256_castsi256_ps(_mm256_dpbusd_avx_epi32(sum, a, _mm256_castps_si256(b)))
            }
        }

        #[inline(always)]
        unsafe fn add_512(sum: __m512, a: *const u32, b: __m512) -> __m512 {
            // SAFETY: the caller's promise: the instructions, and that `a` is a word.
            unsafe {
                let (sum, a) = (_mm512_castps_si512(sum), _mm512_set1_epi32(*a as i32));
                _mm512_castsi512_ps(_mm512_dpbusd_epi32(sum, a, _mm512_castps_si512(b)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu::kernel::{Quad, Tile, Windows, kernel};

    /// The largest factors are among them: 255 times ±127, of which two already overflow 16 bits.
    #[test]
    fn products_of_bytes_are_exact_sums() {
        for block in kernel().blocks {
            let (mr, nr) = (block.mr, block.nr);
            for (segments, length, row_stride) in [(1, 1, 1), (1, 40, 40), (3, 6, 2), (2, 66, 4)] {
                let segment_stride = row_stride * mr + length + 3;
                let a: Vec<[u8; 4]> = (0..segments * segment_stride)
                    .map(|i| [255, (i * 7) as u8, 255, (i * 31 + 5) as u8])
                    .collect();
                let b: Vec<[i8; 4]> = (0..segments * length * nr)
                    .map(|i| [i % 3 / 2 * 254, i * 5 % 255, i % 2 * 254, i % 255].map(|x| (x as i32 - 127) as i8))
                    .collect();
                let starts: Vec<usize> = (0..segments).map(|i| i * segment_stride).collect();
                let windows = Windows::even(mr, &starts, length, row_stride);
                let want = |i: usize| {
                    let depth = (0..segments * length).map(|k| {
                        let x = a[i / nr * row_stride + k / length * segment_stride + k % length];
                        let y = b[k * nr + i % nr];
                        (0..4).map(|j| i32::from(x[j]) * i32::from(y[j])).sum::<i32>()
                    });
                    depth.sum()
                };
                let want: Vec<i32> = (0..mr * nr).map(want).collect();
                let a: Vec<Quad> = a.into_iter().map(Quad::from_le_bytes).collect();
                let b: Vec<Quad> = b
                    .iter()
                    .map(|four| Quad::from_le_bytes(four.map(|x| x as u8)))
                    .collect();
                let mut tile = Tile::ZERO;
                block.windows(&windows, &a, &b, &mut tile);
                let got: Vec<i32> = tile.0[..mr * nr].iter().map(|sum| sum.to_bits() as i32).collect();
                assert_eq!(got, want, "{mr}x{nr}, {windows:?}");
            }
        }
    }
}
