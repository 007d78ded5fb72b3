//! bf16 products: weights and activations rounded to bf16, sums in f32. With AVX-512-bf16 a pair of products is one
//! instruction; elsewhere the pairs are widened in registers, which saves memory and its traffic, not arithmetic.

use crate::cpu::kernel::MAX_WIDTH;
use crate::cpu::math::dispatch;
use crate::cpu::pack::interleave;

/// Two values, rounded, in the halves of a word.
#[inline(always)]
fn pair(even: f32, odd: f32) -> u32 {
    rounded(even) >> 16 | rounded(odd) & 0xffff_0000
}

/// The bf16 nearest to `x`, ties to even, in the high half; below it is what was cut off. Without a branch for NaN, of
/// which some become infinite.
#[inline(always)]
pub(crate) fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1))
}

#[inline(always)]
fn pair_depths_body<const FMA: bool>(panel: &[f32], width: usize, out: &mut [u32]) {
    for (two, out) in panel.chunks(2 * width).zip(out.chunks_exact_mut(width)) {
        let (even, odd) = two.split_at(width);
        if odd.is_empty() {
            for (word, x) in out.iter_mut().zip(even) {
                *word = pair(*x, 0.0);
            }
        } else {
            for ((word, x), y) in out.iter_mut().zip(even).zip(odd) {
                *word = pair(*x, *y);
            }
        }
    }
}

dispatch! {
    /// A panel `[k][width]` as pairs `[k / 2][width]`: the even `k` in the low half of each word, zero after an odd end.
    pub(crate) fn pair_depths(panel: &[f32], width: usize, out: &mut [u32]) = pair_depths_body
}

#[inline(always)]
fn pair_row_body<const FMA: bool>(row: &[f32], out: &mut [u32]) {
    let (twos, rest) = row.as_chunks::<2>();
    for (word, [x, y]) in out.iter_mut().zip(twos) {
        *word = pair(*x, *y);
    }
    if let [last] = rest {
        out[twos.len()] = pair(*last, 0.0);
    }
}

dispatch! {
    /// A row's values, two and two.
    fn pair_row(row: &[f32], out: &mut [u32]) = pair_row_body
}

/// Up to `width` strips of equal length as one panel of pairs, `out[k / 2 · width + r]`; see [`interleave`].
/// `space` is scratch.
pub(crate) fn interleave_pairs(strips: &[&[f32]], width: usize, out: &mut [u32], space: &mut Vec<f32>) {
    let half = strips.first().map_or(0, |strip| strip.len().div_ceil(2));
    space.resize(strips.len() * half, 0.0);
    for (strip, out) in strips.iter().zip(space.chunks_exact_mut(half.max(1))) {
        pair_row(strip, bytemuck::cast_slice_mut(out));
    }
    // Words are moved as they are, whatever their type.
    let rows: [&[f32]; MAX_WIDTH] = std::array::from_fn(|r| space.get(r * half..(r + 1) * half).unwrap_or(&[]));
    interleave(&rows[..strips.len()], width, bytemuck::cast_slice_mut(out));
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{avx2_6x16, avx512_12x32, avx512bf16_12x32};

#[cfg(target_arch = "x86_64")]
#[allow(clippy::wildcard_imports)] // intrinsics, by the dozen
mod x86 {
    use std::arch::x86_64::*;

    // SAFETY of all three: the caller passes mr and nr words for each pair, mr x nr writable values, and runs them
    // only where the target features were detected.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn avx2_6x16(pairs: usize, mut a: *const u32, mut b: *const u32, tile: *mut f32) {
        unsafe {
            let mut acc = [[_mm256_setzero_ps(); 2]; 6];
            let high = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            for _ in 0..pairs {
                let words = [_mm256_loadu_si256(b.cast()), _mm256_loadu_si256(b.add(8).cast())];
                let even = words.map(|w| _mm256_castsi256_ps(_mm256_slli_epi32(w, 16)));
                let odd = words.map(|w| _mm256_castsi256_ps(_mm256_and_si256(w, high)));
                for (r, row) in acc.iter_mut().enumerate() {
                    let word = *a.add(r);
                    let x = _mm256_set1_ps(f32::from_bits(word << 16));
                    let y = _mm256_set1_ps(f32::from_bits(word & 0xffff_0000));
                    for (sum, (even, odd)) in row.iter_mut().zip(even.iter().zip(&odd)) {
                        *sum = _mm256_fmadd_ps(y, *odd, _mm256_fmadd_ps(x, *even, *sum));
                    }
                }
                a = a.add(6);
                b = b.add(16);
            }
            for (r, row) in acc.iter().enumerate() {
                _mm256_storeu_ps(tile.add(r * 16), row[0]);
                _mm256_storeu_ps(tile.add(r * 16 + 8), row[1]);
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    pub unsafe fn avx512_12x32(pairs: usize, mut a: *const u32, mut b: *const u32, tile: *mut f32) {
        unsafe {
            let mut acc = [[_mm512_setzero_ps(); 2]; 12];
            let high = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            for _ in 0..pairs {
                let words = [_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.add(16).cast())];
                let even = words.map(|w| _mm512_castsi512_ps(_mm512_slli_epi32(w, 16)));
                let odd = words.map(|w| _mm512_castsi512_ps(_mm512_and_si512(w, high)));
                for (r, row) in acc.iter_mut().enumerate() {
                    let word = *a.add(r);
                    let x = _mm512_set1_ps(f32::from_bits(word << 16));
                    let y = _mm512_set1_ps(f32::from_bits(word & 0xffff_0000));
                    for (sum, (even, odd)) in row.iter_mut().zip(even.iter().zip(&odd)) {
                        *sum = _mm512_fmadd_ps(y, *odd, _mm512_fmadd_ps(x, *even, *sum));
                    }
                }
                a = a.add(12);
                b = b.add(32);
            }
            for (r, row) in acc.iter().enumerate() {
                _mm512_storeu_ps(tile.add(r * 32), row[0]);
                _mm512_storeu_ps(tile.add(r * 32 + 16), row[1]);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub unsafe fn avx512bf16_12x32(pairs: usize, mut a: *const u32, mut b: *const u32, tile: *mut f32) {
        unsafe {
            let mut acc = [[_mm512_setzero_ps(); 2]; 12];
            for _ in 0..pairs {
                let b0: __m512bh = std::mem::transmute(_mm512_loadu_si512(b.cast()));
                let b1: __m512bh = std::mem::transmute(_mm512_loadu_si512(b.add(16).cast()));
                for (r, row) in acc.iter_mut().enumerate() {
                    let x: __m512bh = std::mem::transmute(_mm512_set1_epi32(*a.add(r) as i32));
                    row[0] = _mm512_dpbf16_ps(row[0], x, b0);
                    row[1] = _mm512_dpbf16_ps(row[1], x, b1);
                }
                a = a.add(12);
                b = b.add(32);
            }
            for (r, row) in acc.iter().enumerate() {
                _mm512_storeu_ps(tile.add(r * 32), row[0]);
                _mm512_storeu_ps(tile.add(r * 32 + 16), row[1]);
            }
        }
    }
}

// SAFETY: the caller passes 6 and 8 words for each pair and 48 writable values.
pub(crate) unsafe fn portable_6x8(pairs: usize, a: *const u32, b: *const u32, tile: *mut f32) {
    let (a, b) = unsafe {
        (
            std::slice::from_raw_parts(a, pairs * 6),
            std::slice::from_raw_parts(b, pairs * 8),
        )
    };
    let tile = unsafe { std::slice::from_raw_parts_mut(tile, 48) };
    let widen = |word: u32| (f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000));
    let mut acc = [[0.0f32; 8]; 6];
    for (a, b) in a.chunks_exact(6).zip(b.chunks_exact(8)) {
        for (row, &word) in acc.iter_mut().zip(a) {
            let (x, y) = widen(word);
            for (sum, &word) in row.iter_mut().zip(b) {
                let (even, odd) = widen(word);
                *sum += x * even + y * odd;
            }
        }
    }
    for (out, row) in tile.chunks_exact_mut(8).zip(&acc) {
        out.copy_from_slice(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_rounded_to_nearest_even_and_padded_with_zero() {
        // 1 + 2^-8 lies between two bf16 values, the even one is 1; 1 + 3 2^-8 goes up to 1 + 2^-6.
        let panel = [1.0, 1.0 + 2.0f32.powi(-8), -3.0, 1.0 + 3.0 * 2.0f32.powi(-8), 0.5, 1e-3];
        let mut out = [0; 4];
        pair_depths(&panel, 2, &mut out);
        let bits = |x: f32| u32::from(half::bf16::from_f32(x).to_bits());
        let word = |even: f32, odd: f32| bits(even) | bits(odd) << 16;
        assert_eq!(
            out,
            [
                word(1.0, -3.0),
                word(1.0, 1.0 + 2.0f32.powi(-6)),
                word(0.5, 0.0),
                word(1e-3, 0.0)
            ]
        );
    }
    #[test]
    fn strips_become_the_same_panel_as_their_transpose() {
        for (count, len) in [(1, 1), (12, 7), (5, 64), (12, 34)] {
            let strips: Vec<Vec<f32>> = (0..count)
                .map(|r| (0..len).map(|k| (r * 37 + k) as f32 * 0.317 - 5.0).collect())
                .collect();
            let panel: Vec<f32> = (0..len * 12)
                .map(|i| strips.get(i % 12).map_or(0.0, |strip| strip[i / 12]))
                .collect();
            let words = len.div_ceil(2) * 12;
            let (mut want, mut got) = (vec![0; words], vec![1; words]);
            pair_depths(&panel, 12, &mut want);
            let strips: Vec<&[f32]> = strips.iter().map(Vec::as_slice).collect();
            interleave_pairs(&strips, 12, &mut got, &mut Vec::new());
            assert_eq!(got, want, "{count} strips of {len}");
        }
    }
}
