//! The loops in registers under every product of matrices: one for each width of vectors, for what a word of the panels
//! holds (an f32, a pair of bf16, or four bytes), and for the shape of the register block.

use crate::cpu::bf16::HIGH;

/// Groups of rows of a block.
pub(crate) const GROUPS: usize = 3;

/// Rows of each group of a block of `mr`: as many as divide it, and the lines of most pictures.
pub(crate) const fn rows_of_group(mr: usize) -> usize {
    if mr.is_multiple_of(4) { 4 } else { 2 }
}

/// A left matrix in words of 4 bytes. Its rows are in groups of [`rows_of_group`] that begin at `groups`; those of one lie
/// `row_stride` apart. Each consists of runs of `length` words, which begin at `segments`, seen from the row's begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows<'a> {
    pub segments: &'a [usize],
    pub length: usize,
    pub row_stride: usize,
    pub groups: [usize; GROUPS],
}

impl<'a> Windows<'a> {
    /// All rows of a block of `mr` the same distance apart.
    pub const fn even(mr: usize, segments: &'a [usize], length: usize, row_stride: usize) -> Self {
        let group = rows_of_group(mr) * row_stride;
        Self {
            segments,
            length,
            row_stride,
            groups: [0, group, 2 * group],
        }
    }
}

impl Windows<'_> {
    /// The rows of a packed panel: side by side, their words a panel's width apart.
    const fn packed(mr: usize, depth: usize) -> Self {
        Self::even(mr, &[0], depth, 1)
    }
}

/// `tile[mr × nr] = a[depth × mr]ᵀ · b[depth × nr]`, both packed with the depth outermost. Words are f32 or pairs of bf16.
///
/// # Safety
/// The processor has the instructions; `a`, `b` and `tile` have that many words.
pub(crate) type PackedKernel = unsafe fn(depth: usize, a: *const u32, b: *const u32, tile: *mut f32);

/// The same with the left matrix where it lies.
///
/// # Safety
/// As above, and every window lies in `a`.
pub(crate) type WindowKernel = unsafe fn(windows: &Windows, a: *const u32, b: *const u32, tile: *mut f32);

/// What a word holds, and so what a multiply-add is.
pub(crate) trait Product {
    fn add(sum: f32, a: u32, b: u32) -> f32;

    /// # Safety
    /// The processor has AVX2 and FMA, and `a` is a word.
    #[cfg(target_arch = "x86_64")]
    unsafe fn add_256(sum: __m256, a: *const u32, b: __m256) -> __m256;

    /// # Safety
    /// The processor has AVX-512 and what the product is made of, and `a` is a word.
    #[cfg(target_arch = "x86_64")]
    unsafe fn add_512(sum: __m512, a: *const u32, b: __m512) -> __m512;
}

/// A word is an f32.
pub(crate) struct Single;

/// A word is a pair of bf16, the first in the low half. They are widened in registers, which saves memory and its traffic,
/// not arithmetic.
pub(crate) struct Widened;

impl Product for Single {
    #[inline(always)]
    fn add(sum: f32, a: u32, b: u32) -> f32 {
        multiply_add(f32::from_bits(a), f32::from_bits(b), sum)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn add_256(sum: __m256, a: *const u32, b: __m256) -> __m256 {
        // SAFETY: the caller's promise: the instructions, and that `a` is a word.
        unsafe { _mm256_fmadd_ps(_mm256_broadcast_ss(&*a.cast()), b, sum) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn add_512(sum: __m512, a: *const u32, b: __m512) -> __m512 {
        // SAFETY: the caller's promise: the instructions, and that `a` is a word.
        unsafe { _mm512_fmadd_ps(_mm512_set1_ps(*a.cast()), b, sum) }
    }
}

impl Product for Widened {
    #[inline(always)]
    fn add(sum: f32, a: u32, b: u32) -> f32 {
        let even = f32::from_bits(a << 16) * f32::from_bits(b << 16);
        sum + (even + f32::from_bits(a & HIGH) * f32::from_bits(b & HIGH))
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn add_256(sum: __m256, a: *const u32, b: __m256) -> __m256 {
        // SAFETY: the caller's promise: the instructions, and that `a` is a word.
        unsafe {
            let (x, y) = (f32::from_bits(*a << 16), f32::from_bits(*a & HIGH));
            let even = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(b), 16));
            let odd = _mm256_and_ps(b, _mm256_set1_ps(f32::from_bits(HIGH)));
            _mm256_fmadd_ps(_mm256_set1_ps(y), odd, _mm256_fmadd_ps(_mm256_set1_ps(x), even, sum))
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn add_512(sum: __m512, a: *const u32, b: __m512) -> __m512 {
        // SAFETY: the caller's promise: the instructions, and that `a` is a word.
        unsafe {
            let (x, y) = (f32::from_bits(*a << 16), f32::from_bits(*a & HIGH));
            let words = _mm512_castps_si512(b);
            let even = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
            let odd = _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(HIGH as i32)));
            _mm512_fmadd_ps(_mm512_set1_ps(y), odd, _mm512_fmadd_ps(_mm512_set1_ps(x), even, sum))
        }
    }
}

/// `x·y + sum`, fused where that is the machine's baseline.
#[inline(always)]
fn multiply_add(x: f32, y: f32, sum: f32) -> f32 {
    if cfg!(target_arch = "aarch64") {
        x.mul_add(y, sum)
    } else {
        x * y + sum
    }
}

/// # Safety
/// See [`PackedKernel`].
pub(crate) unsafe fn portable_packed<P: Product, const MR: usize, const NR: usize>(
    depth: usize,
    a: *const u32,
    b: *const u32,
    tile: *mut f32,
) {
    // SAFETY: a packed panel is `depth` windows of one word; the rest is the caller's promise.
    unsafe { portable::<P, MR, NR>(&Windows::packed(MR, depth), MR, a, b, tile) };
}

/// # Safety
/// See [`WindowKernel`].
pub(crate) unsafe fn portable_windows<P: Product, const MR: usize, const NR: usize>(
    windows: &Windows,
    a: *const u32,
    b: *const u32,
    tile: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe { portable::<P, MR, NR>(windows, 1, a, b, tile) };
}

/// `step`: from one word of a row to the next.
///
/// # Safety
/// Every word of the windows lies in `a`; `b` has `NR` words for each of them, `tile` room for `MR · NR`.
#[inline(always)]
unsafe fn portable<P: Product, const MR: usize, const NR: usize>(
    windows: &Windows,
    step: usize,
    a: *const u32,
    b: *const u32,
    tile: *mut f32,
) {
    let mut acc = [[0.0f32; NR]; MR];
    for (segment, start) in windows.segments.iter().enumerate() {
        for k in 0..windows.length {
            let at = start + k * step;
            // SAFETY: the caller's promise of `b`; words have no alignment but their own.
            let b = unsafe { &*b.add((segment * windows.length + k) * NR).cast::<[u32; NR]>() };
            for (r, row) in acc.iter_mut().enumerate() {
                let group = rows_of_group(MR);
                let start = windows.groups[r / group] + r % group * windows.row_stride;
                // SAFETY: this word is one of a window.
                let x = unsafe { *a.add(at + start) };
                for (sum, &y) in row.iter_mut().zip(b) {
                    *sum = P::add(*sum, x, y);
                }
            }
        }
    }
    // SAFETY: the caller's promise of `tile`.
    unsafe { tile.cast::<[[f32; NR]; MR]>().write(acc) };
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, __m512, _mm256_and_ps, _mm256_broadcast_ss, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_fmadd_ps,
    _mm256_set1_ps, _mm256_slli_epi32, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_fmadd_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_slli_epi32,
};

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use super::{Product, Widened, Windows, rows_of_group};
    use std::arch::x86_64::{
        __m256, __m512, __m512bh, _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps, _mm512_dpbf16_ps,
        _mm512_loadu_ps, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
    };

    /// A word is a pair of bf16, and the processor multiplies them: one instruction for both.
    pub struct Pairs;

    impl Product for Pairs {
        fn add(sum: f32, a: u32, b: u32) -> f32 {
            Widened::add(sum, a, b)
        }

        unsafe fn add_256(sum: __m256, a: *const u32, b: __m256) -> __m256 {
            // SAFETY: the same promises.
            unsafe { Widened::add_256(sum, a, b) }
        }

        #[inline(always)]
        unsafe fn add_512(sum: __m512, a: *const u32, b: __m512) -> __m512 {
            // SAFETY: as in the others; both types are 512 bits.
            unsafe {
                let x: __m512bh = std::mem::transmute(_mm512_set1_epi32(*a as i32));
                _mm512_dpbf16_ps(sum, x, std::mem::transmute::<__m512, __m512bh>(b))
            }
        }
    }

    /// Defines the kernels of one body for some features: `V` vectors in each of `MR` rows.
    macro_rules! kernels {
        ($features:literal, $body:ident: $packed:ident, $windows:ident) => {
            kernels!($features, $body: $windows);

            /// # Safety
            /// See [`super::PackedKernel`].
            #[target_feature(enable = $features)]
            pub unsafe fn $packed<P: Product, const MR: usize, const V: usize>(
                depth: usize,
                a: *const u32,
                b: *const u32,
                tile: *mut f32,
            ) {
                // SAFETY: a packed panel is `depth` windows of one word; the rest is the caller's promise.
                unsafe { $body::<P, MR, V>(&Windows::packed(MR, depth), MR, a, b, tile) };
            }
        };
        ($features:literal, $body:ident: $windows:ident) => {
            /// # Safety
            /// See [`super::WindowKernel`].
            #[target_feature(enable = $features)]
            pub unsafe fn $windows<P: Product, const MR: usize, const V: usize>(
                windows: &Windows,
                a: *const u32,
                b: *const u32,
                tile: *mut f32,
            ) {
                // SAFETY: the caller's promise.
                unsafe { $body::<P, MR, V>(windows, 1, a, b, tile) };
            }
        };
    }

    kernels!("avx2,fma", body_256: packed_256, windows_256);
    kernels!("avx512f", body_512: packed_512, windows_512);
    kernels!("avx512f,avx512bf16", body_512: packed_512_bf16, windows_512_bf16);
    kernels!("avx2,avxvnni", body_256: windows_256_vnni);
    kernels!("avx512f,avx512bw", body_512: windows_512_bw);
    kernels!("avx512f,avx512vnni", body_512: windows_512_vnni);

    /// Defines one body. `step`: from one word of a row to the next.
    macro_rules! body {
        ($name:ident, $add:ident, $zero:ident, $load:ident, $store:ident, $lanes:literal) => {
            /// # Safety
            /// The processor has the instructions; every word of the windows lies in `a`; `b` has `V`
            /// vectors for each word of a window, `tile` room for `MR` rows.
            #[inline(always)]
            unsafe fn $name<P: Product, const MR: usize, const V: usize>(
                windows: &Windows,
                step: usize,
                a: *const u32,
                mut b: *const u32,
                tile: *mut f32,
            ) {
                // SAFETY: the caller's promise. Pointers to groups and to the next row of `b` may end one past their memory, where
                // nothing is read.
                unsafe {
                    let group = const { rows_of_group(MR) };
                    let mut acc = [[$zero(); V]; MR];
                    for segment in windows.segments {
                        let mut groups = windows.groups.map(|at| a.wrapping_add(segment + at));
                        for _ in 0..windows.length {
                            let mut words = [$zero(); V];
                            for v in 0..V {
                                words[v] = $load(b.add(v * $lanes).cast());
                            }
                            for r in 0..MR {
                                let x = groups[r / group].add(r % group * windows.row_stride);
                                for v in 0..V {
                                    acc[r][v] = P::$add(acc[r][v], x, words[v]);
                                }
                            }
                            for row in &mut groups[..MR / group] {
                                *row = row.wrapping_add(step);
                            }
                            b = b.add(V * $lanes);
                        }
                    }
                    for (i, sum) in acc.as_flattened().iter().enumerate() {
                        $store(tile.add(i * $lanes), *sum);
                    }
                }
            }
        };
    }

    body!(
        body_256,
        add_256,
        _mm256_setzero_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        8
    );
    body!(
        body_512,
        add_512,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        16
    );
}
