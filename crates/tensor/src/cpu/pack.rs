//! Packing matrices into the panels that the micro-kernels read.

use crate::DType;
use crate::cpu::bf16;
use crate::cpu::kernel::{Block, MAX_WIDTH, Pair, kernel};
use crate::cpu::parallel::zeros;
use rayon::prelude::*;
use std::ops::{Deref, DerefMut, Range};

/// A cache line.
const ALIGNMENT: usize = 64;

/// 4-byte words that begin on a cache line, so that no vector load crosses one.
#[derive(Debug)]
pub(crate) struct Aligned<T> {
    words: Vec<T>,
    start: usize,
}

impl<T> Aligned<T> {
    /// Words to allocate for `len` aligned ones.
    const fn room(len: usize) -> usize {
        len + ALIGNMENT / 4 - 1
    }

    /// The aligned part of `words`, which has [`room`](Self::room) for it. It stays where it is: nothing is appended.
    fn within(words: Vec<T>) -> Self {
        const { assert!(size_of::<T>() == 4) };
        let start = (words.as_ptr() as usize).next_multiple_of(ALIGNMENT) - words.as_ptr() as usize;
        Self {
            words,
            start: start / 4,
        }
    }
}

impl Aligned<f32> {
    /// [`zeroed`](Self::zeroed), in parallel when there are many.
    pub fn zeros(len: usize) -> Self {
        let mut aligned = Self::within(zeros(Self::room(len)));
        aligned.words.truncate(aligned.start + len);
        aligned
    }
}

impl<T: bytemuck::Zeroable + Clone> Aligned<T> {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let mut aligned = Self::within(vec![T::zeroed(); Self::room(len)]);
        aligned.words.truncate(aligned.start + len);
        aligned
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.words[self.start..]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.words[self.start..]
    }
}

/// A right matrix in panels of a block's columns: `[n / nr][k][nr]` values, or `[n / nr][k / 2][nr]` pairs of bf16.
pub(crate) struct Panels<W> {
    pub block: &'static Block,
    pub words: Aligned<W>,
}

/// A packed right matrix of either kind.
pub(crate) enum Packed {
    F32(Panels<f32>),
    Bf16(Panels<Pair>),
}

impl Packed {
    /// `values`, of depth `k`; anything but f32 becomes bf16.
    pub fn new(values: Panels<f32>, k: usize, dtype: DType) -> Self {
        if dtype == DType::F32 || k == 0 {
            return Self::F32(values);
        }
        let nr = values.block.nr;
        let half = k.div_ceil(2);
        let mut words = Aligned::zeroed(values.words.len() / k * half);
        words
            .par_chunks_exact_mut(half * nr)
            .zip(values.words.par_chunks_exact(k * nr))
            .for_each(|(out, panel)| bf16::pair_depths(panel, nr, out));
        Self::Bf16(Panels {
            block: values.block,
            words,
        })
    }
}

/// A right matrix `[k, n]` packed whole, columns past the end zero.
/// `fill(panel's columns, nr, out[k × nr])` writes one zeroed panel.
pub(crate) fn pack_right(n: usize, k: usize, fill: impl Fn(Range<usize>, usize, &mut [f32]) + Sync) -> Panels<f32> {
    let block = kernel().for_columns(n);
    let words = pack_panels(n, k, block.nr, |cols, panel| fill(cols, block.nr, panel));
    Panels { block, words }
}

/// The panels of `nr` columns each; `fill(panel's columns, out[k × nr])` writes one of them, which is zeroed.
pub(crate) fn pack_panels(
    n: usize,
    k: usize,
    nr: usize,
    fill: impl Fn(Range<usize>, &mut [f32]) + Sync,
) -> Aligned<f32> {
    let mut words = Aligned::zeros(n.div_ceil(nr) * nr * k);
    if !words.is_empty() {
        let panels = words.par_chunks_mut(k * nr).enumerate();
        panels.for_each(|(p, panel)| fill(p * nr..n.min((p + 1) * nr), panel));
    }
    words
}

/// Packs a row-major right matrix `[k, n]`.
pub(crate) fn pack_right_rows(b: &[f32], n: usize, k: usize) -> Panels<f32> {
    pack_right(n, k, |cols, nr, panel| {
        for (row, out) in b.chunks_exact(n).zip(panel.chunks_exact_mut(nr)) {
            copy_few(&row[cols.clone()], out);
        }
    })
}

/// Copies a few values to the start of `to`: a call of memcpy for a register row costs more than the copy.
#[inline(always)]
pub(crate) fn copy_few(from: &[f32], to: &mut [f32]) {
    let to = &mut to[..from.len()];
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_loadu_ps, _mm_storeu_ps};
        /// Vectors of four, one after the other. Of a loop the compiler would make the call again.
        macro_rules! copy_vectors {
            ($($vector:literal)*) => {
                // SAFETY: SSE is part of every x86-64; both slices have the values of the match below.
                unsafe {
                    $(_mm_storeu_ps(to.as_mut_ptr().add(4 * $vector), _mm_loadu_ps(from.as_ptr().add(4 * $vector)));)*
                }
            };
        }
        match from.len() {
            4 => return copy_vectors!(0),
            8 => return copy_vectors!(0 1),
            12 => return copy_vectors!(0 1 2),
            16 => return copy_vectors!(0 1 2 3),
            32 => return copy_vectors!(0 1 2 3 4 5 6 7),
            48 => return copy_vectors!(0 1 2 3 4 5 6 7 8 9 10 11),
            _ => {}
        }
    }
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

/// Packs the transpose of a row-major matrix `[n, k]`: linear weights `[out, in]`.
pub(crate) fn pack_right_transposed(b: &[f32], n: usize, k: usize) -> Panels<f32> {
    pack_right(n, k, |cols, nr, panel| {
        let strips: Vec<&[f32]> = cols.map(|col| &b[col * k..(col + 1) * k]).collect();
        interleave(&strips, nr, panel);
    })
}

/// Copies up to `width` strips of equal length into one panel, element by element across strips:
/// `out[k · width + r] = strips[r][k]`, zero for strips that are not there.
pub(crate) fn interleave(strips: &[&[f32]], width: usize, out: &mut [f32]) {
    if strips.len() < width {
        out.chunks_exact_mut(width).for_each(|o| o[strips.len()..].fill(0.0));
    }
    let mut r = 0;
    while let Some(group) = strips.get(r..).and_then(|rest| rest.first_chunk::<4>()) {
        interleave_4(*group, width, &mut out[r..]);
        r += 4;
    }
    if let Some(group) = strips[r..].first_chunk::<2>() {
        interleave_2(*group, width, &mut out[r..]);
        r += 2;
    }
    if let Some(strip) = strips.get(r) {
        for (o, x) in out[r..].iter_mut().step_by(width).zip(*strip) {
            *o = *x;
        }
    }
}

/// Four strips side by side, `out[k · width + r] = strips[r][k]`.
fn interleave_4(strips: [&[f32]; 4], width: usize, out: &mut [f32]) {
    let first = in_registers(&strips, |k, rows| transpose_4x4(rows, width, &mut out[k * width..]));
    let [a, b, c, d] = strips.map(|strip| &strip[first..]);
    let rows = out.chunks_mut(width).skip(first);
    for ((((o, a), b), c), d) in rows.zip(a).zip(b).zip(c).zip(d) {
        o[..4].copy_from_slice(&[*a, *b, *c, *d]);
    }
}

/// Two strips side by side.
fn interleave_2(strips: [&[f32]; 2], width: usize, out: &mut [f32]) {
    let first = in_registers(&strips, |k, rows| transpose_2x4(rows, width, &mut out[k * width..]));
    let [a, b] = strips.map(|strip| &strip[first..]);
    let rows = out.chunks_mut(width).skip(first);
    for ((o, a), b) in rows.zip(a).zip(b) {
        o[..2].copy_from_slice(&[*a, *b]);
    }
}

/// Calls `f` with four values of each strip at a time and returns how many of them it got: none where there is no
/// transposition in registers.
#[inline(always)]
fn in_registers<const N: usize>(strips: &[&[f32]; N], mut f: impl FnMut(usize, [&[f32; 4]; N])) -> usize {
    if !cfg!(target_arch = "x86_64") {
        return 0;
    }
    let blocks = strips.map(|strip| strip.as_chunks::<4>().0);
    let count = blocks.iter().map(|b| b.len()).min().unwrap_or(0);
    let blocks = blocks.map(|b| &b[..count]);
    for i in 0..count {
        f(4 * i, blocks.map(|b| &b[i]));
    }
    4 * count
}

#[cfg(target_arch = "x86_64")]
fn transpose_4x4(rows: [&[f32; 4]; 4], width: usize, out: &mut [f32]) {
    use std::arch::x86_64::{_MM_TRANSPOSE4_PS, _mm_loadu_ps, _mm_storeu_ps};
    assert!(out.len() >= 3 * width + 4);
    // SAFETY: SSE is part of every x86-64; each row has four values, and the output's length was just checked.
    unsafe {
        let [mut a, mut b, mut c, mut d] = rows.map(|row| _mm_loadu_ps(row.as_ptr()));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        for (i, row) in [a, b, c, d].into_iter().enumerate() {
            _mm_storeu_ps(out.as_mut_ptr().add(i * width), row);
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn transpose_2x4(rows: [&[f32; 4]; 2], width: usize, out: &mut [f32]) {
    use std::arch::x86_64::{
        _mm_castps_pd, _mm_loadu_ps, _mm_storeh_pd, _mm_storel_pd, _mm_unpackhi_ps, _mm_unpacklo_ps,
    };
    assert!(out.len() >= 3 * width + 2);
    // SAFETY: as above. The moves of 64 bits need no alignment.
    unsafe {
        let [a, b] = rows.map(|row| _mm_loadu_ps(row.as_ptr()));
        for (i, two) in [_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b)].into_iter().enumerate() {
            let at = out.as_mut_ptr().add(2 * i * width);
            _mm_storel_pd(at.cast(), _mm_castps_pd(two));
            _mm_storeh_pd(at.add(width).cast(), _mm_castps_pd(two));
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn transpose_4x4(_: [&[f32; 4]; 4], _: usize, _: &mut [f32]) {}

#[cfg(not(target_arch = "x86_64"))]
fn transpose_2x4(_: [&[f32; 4]; 2], _: usize, _: &mut [f32]) {}

/// A strided view of a small matrix.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub data: &'a [f32],
    pub row_stride: usize,
    pub col_stride: usize,
}

/// Panels of `width` rows of a strided matrix `[m, k]`.
pub(crate) fn pack_view(a: &View, m: usize, k: usize, width: usize, out: &mut Vec<f32>) {
    out.clear();
    out.resize(m.div_ceil(width) * width * k, 0.0);
    for (p, panel) in out.chunks_exact_mut(width * k).enumerate() {
        let rows = width.min(m - p * width);
        if a.row_stride == 1 {
            for (kk, o) in panel.chunks_exact_mut(width).enumerate() {
                copy_few(&a.data[kk * a.col_stride + p * width..][..rows], o);
            }
        } else if a.col_stride == 1 {
            let strips: [&[f32]; MAX_WIDTH] = std::array::from_fn(|r| {
                if r < rows {
                    &a.data[(p * width + r) * a.row_stride..][..k]
                } else {
                    &[]
                }
            });
            interleave(&strips[..rows], width, panel);
        } else {
            for r in 0..rows {
                let row = &a.data[(p * width + r) * a.row_stride..];
                for (o, x) in panel[r..]
                    .iter_mut()
                    .step_by(width)
                    .zip(row.iter().step_by(a.col_stride))
                {
                    *o = *x;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_of_any_number_and_length_are_interleaved() {
        for width in [6, 8, 12, 16, 24, 32, 48] {
            for count in 1..=width {
                for len in [1, 2, 4, 5, 11, 16] {
                    let rows: Vec<Vec<f32>> = (0..count)
                        .map(|r| (0..len).map(|k| (1 + r * 100 + k) as f32).collect())
                        .collect();
                    let strips: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
                    let mut out = vec![f32::NAN; len * width];
                    interleave(&strips, width, &mut out);
                    for (i, x) in out.iter().enumerate() {
                        let want = rows.get(i % width).map_or(0.0, |row| row[i / width]);
                        assert_eq!(*x, want, "{count} strips of {len} in panels of {width}, value {i}");
                    }
                }
            }
        }
    }

    #[test]
    fn aligned_words_begin_on_a_cache_line() {
        for len in [0, 1, 15, 16, 1000] {
            let (values, pairs) = (Aligned::zeros(len), Aligned::<Pair>::zeroed(len));
            assert_eq!((values.len(), pairs.len()), (len, len));
            assert!((values.as_ptr() as usize).is_multiple_of(64) && (pairs.as_ptr() as usize).is_multiple_of(64));
        }
    }
}
