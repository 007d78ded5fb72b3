//! The loop in registers under the gradients of weights: a product whose depth is the pixels of some lines, each operand
//! read where it lies.

use crate::cpu::kernel::Word;
use crate::cpu::micro_kernel::Product;

/// A walk over the pixels of some lines, in words of 4 bytes. Step k of a line reads the first operand at its place in
/// `lines` plus `k · steps_apart[0]`, the second likewise.
pub(crate) struct Walk<'a> {
    pub lines: &'a [[usize; 2]],
    pub steps: usize,
    pub steps_apart: [usize; 2],
}

/// `sums[r][c] += Σ a[r] · b[c]` over all steps: `MR` rows, and as many columns as `V` vectors have.
///
/// # Safety
/// The processor has the instructions; `a` has `MR` words at every step, `b` and `sums` have that many columns.
pub(crate) type OuterKernel = unsafe fn(walk: &Walk, a: *const u32, b: *const u32, sums: *mut f32);

/// The kernels of a processor.
pub(crate) struct Outer {
    /// Rows of a block.
    pub mr: usize,
    /// Columns of a vector.
    pub lanes: usize,
    /// For one vector of columns, two and so on, as many as leave every sum in a register.
    pub single: &'static [OuterKernel],
    pub pairs: &'static [OuterKernel],
}

impl Outer {
    /// Most vectors of columns that a kernel takes.
    pub fn widest(&self) -> usize {
        self.single.len()
    }

    /// [`OuterKernel`] for `vectors` vectors of columns.
    pub fn add<W: Word>(&self, vectors: usize, walk: &Walk, a: &[W], b: &[W], sums: &mut [f32]) {
        let columns = vectors * self.lanes;
        let last = |operand: usize| {
            let starts = walk.lines.iter().map(|line| line[operand]);
            starts.max().unwrap_or(0) + walk.steps.saturating_sub(1) * walk.steps_apart[operand]
        };
        assert!(a.len() >= last(0) + self.mr && b.len() >= last(1) + columns && sums.len() >= self.mr * columns);
        // SAFETY: the lengths were just checked, and `kernel` checked the processor.
        unsafe { W::outer(self)[vectors - 1](walk, a.as_ptr().cast(), b.as_ptr().cast(), sums.as_mut_ptr()) };
    }
}

/// # Safety
/// See [`OuterKernel`].
pub(crate) unsafe fn portable<P: Product, const MR: usize, const NR: usize>(
    walk: &Walk,
    a: *const u32,
    b: *const u32,
    sums: *mut f32,
) {
    let mut acc = [[0.0f32; NR]; MR];
    for [first_a, first_b] in walk.lines {
        for step in 0..walk.steps {
            // SAFETY: the caller's promise; words have no alignment but their own.
            let (a, b) = unsafe {
                (
                    &*a.add(first_a + step * walk.steps_apart[0]).cast::<[u32; MR]>(),
                    &*b.add(first_b + step * walk.steps_apart[1]).cast::<[u32; NR]>(),
                )
            };
            for (row, &x) in acc.iter_mut().zip(a) {
                for (sum, &y) in row.iter_mut().zip(b) {
                    *sum = P::add(*sum, x, y);
                }
            }
        }
    }
    // SAFETY: the caller's promise of `sums`.
    let sums = unsafe { &mut *sums.cast::<[[f32; NR]; MR]>() };
    for (sum, x) in sums.as_flattened_mut().iter_mut().zip(acc.as_flattened()) {
        *sum += x;
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use super::{Product, Walk};
    use std::arch::x86_64::{
        _mm256_add_ps, _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps, _mm512_add_ps, _mm512_loadu_ps,
        _mm512_setzero_ps, _mm512_storeu_ps,
    };

    /// Defines the kernel of some features and width.
    macro_rules! outer {
        ($name:ident, $features:literal, $fma:ident, $zero:ident, $load:ident, $store:ident, $add:ident, $lanes:literal) => {
            /// # Safety
            /// See [`super::OuterKernel`].
            #[target_feature(enable = $features)]
            pub unsafe fn $name<P: Product, const MR: usize, const V: usize>(
                walk: &Walk,
                a: *const u32,
                b: *const u32,
                sums: *mut f32,
            ) {
                // SAFETY: the caller's promise. The pointers may end past their memory, where nothing is read.
                unsafe {
                    let mut acc = [[$zero(); V]; MR];
                    for [first_a, first_b] in walk.lines {
                        let (mut a, mut b) = (a.add(*first_a), b.add(*first_b));
                        for _ in 0..walk.steps {
                            let mut words = [$zero(); V];
                            for v in 0..V {
                                words[v] = $load(b.add(v * $lanes).cast());
                            }
                            for r in 0..MR {
                                for v in 0..V {
                                    acc[r][v] = P::$fma(acc[r][v], a.add(r), words[v]);
                                }
                            }
                            a = a.wrapping_add(walk.steps_apart[0]);
                            b = b.wrapping_add(walk.steps_apart[1]);
                        }
                    }
                    for (i, sum) in acc.as_flattened().iter().enumerate() {
                        let to = sums.add(i * $lanes);
                        $store(to, $add($load(to), *sum));
                    }
                }
            }
        };
    }

    outer!(
        outer_256,
        "avx2,fma",
        add_256,
        _mm256_setzero_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_add_ps,
        8
    );
    outer!(
        outer_512,
        "avx512f",
        add_512,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_add_ps,
        16
    );
    outer!(
        outer_512_bf16,
        "avx512f,avx512bf16",
        add_512,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_add_ps,
        16
    );
}
