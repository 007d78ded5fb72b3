//! Rounding to bf16, and packing what was rounded in pairs.

use crate::cpu::interleave::{MAX_WIDTH, interleave};
#[cfg(target_arch = "x86_64")]
use crate::cpu::level::{Level, level};
use crate::cpu::math::dispatch;

/// The half of a word that is a bf16 as the f32 it stands for.
pub(crate) const HIGH: u32 = 0xffff_0000;

/// Two values, rounded, in the halves of a word.
#[inline(always)]
pub(crate) fn pair(even: f32, odd: f32) -> u32 {
    rounded(even) >> 16 | rounded(odd) & HIGH
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
    fn pair_depths_anywhere(panel: &[f32], width: usize, out: &mut [u32]) = pair_depths_body
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
    fn pair_row_anywhere(row: &[f32], out: &mut [u32]) = pair_row_body
}

/// A panel `[k][width]` as pairs `[k / 2][width]`: the even `k` in the low half of each word, zero after an odd end.
pub(crate) fn pair_depths(panel: &[f32], width: usize, out: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512Bf16 {
        let whole = panel.len() / (2 * width);
        // SAFETY: the processor has the features.
        unsafe { x86::pair_depths(&panel[..whole * 2 * width], width, &mut out[..whole * width]) };
        return pair_depths_anywhere(&panel[whole * 2 * width..], width, &mut out[whole * width..]);
    }
    pair_depths_anywhere(panel, width, out);
}

/// A row's values, two and two.
pub(crate) fn pair_row(row: &[f32], out: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512Bf16 {
        // SAFETY: the processor has the features.
        let done = unsafe { x86::pair_row(row, out) };
        return pair_row_anywhere(&row[2 * done..], &mut out[done..]);
    }
    pair_row_anywhere(row, out);
}

/// The same with the processor's own rounding, which takes denormal values for zero.
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_epi32,
        _mm512_maskz_loadu_ps, _mm512_permutexvar_epi16, _mm512_storeu_si512,
    };

    /// Half-word 2i is number i, half-word 2i + 1 number 16 + i.
    const MERGE: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 32 {
            order[i] = (i / 2 + i % 2 * 16) as u16;
            i += 1;
        }
        order
    };

    /// `(low, high)` of each, as many as there is room for.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub fn meet(low: &[f32], high: &[f32], out: &mut [u32]) {
        let (low, high) = (&low[..out.len()], &high[..out.len()]);
        for at in (0..out.len()).step_by(16) {
            let mask = ((1u32 << (out.len() - at).min(16)) - 1) as u16;
            // SAFETY: the mask leaves what lies in the slices; both types are 512 bits.
            unsafe {
                let low = _mm512_maskz_loadu_ps(mask, low.as_ptr().add(at));
                let high = _mm512_maskz_loadu_ps(mask, high.as_ptr().add(at));
                let both: __m512i = std::mem::transmute::<__m512bh, _>(_mm512_cvtne2ps_pbh(high, low));
                let merged = _mm512_permutexvar_epi16(_mm512_loadu_si512(MERGE.as_ptr().cast()), both);
                _mm512_mask_storeu_epi32(out.as_mut_ptr().add(at).cast(), mask, merged);
            }
        }
    }

    /// Returns how many words it wrote: the others are up to the caller.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub fn pair_row(row: &[f32], out: &mut [u32]) -> usize {
        let words = out.as_chunks_mut::<16>().0;
        let count = words.len().min(row.len() / 32);
        for (values, words) in row.as_chunks::<32>().0.iter().zip(&mut *words) {
            // SAFETY: there are 32 values and 16 words.
            unsafe {
                let (low, high) = (
                    _mm512_loadu_ps(values.as_ptr()),
                    _mm512_loadu_ps(values.as_ptr().add(16)),
                );
                let both: __m512i = std::mem::transmute::<__m512bh, _>(_mm512_cvtne2ps_pbh(high, low));
                _mm512_storeu_si512(words.as_mut_ptr().cast(), both);
            }
        }
        16 * count
    }

    /// Of whole pairs of rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub fn pair_depths(panel: &[f32], width: usize, out: &mut [u32]) {
        for (two, out) in panel.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
            meet(&two[..width], &two[width..], out);
        }
    }
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
