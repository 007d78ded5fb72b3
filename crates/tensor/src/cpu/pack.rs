//! Packing matrices into the panels that the micro-kernels read.

use crate::allocator::room;
use crate::cpu::interleave::{MAX_WIDTH, copy_few, interleave};
use crate::cpu::kernel::{Block, kernel};
use crate::cpu::parallel::zeros;
use crate::mapped::MappedBytes;
use rayon::prelude::*;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
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

impl<T: bytemuck::Pod + Send> Aligned<T> {
    /// `len` words in parts of `size`, each written by `f(number, part, space)`, which is given zeros. They are cleared and
    /// written part by part.
    pub fn written<S, E: Send>(
        len: usize,
        size: usize,
        f: impl Fn(usize, &mut [T], &mut S) -> Result<(), E> + Sync,
    ) -> Result<Self, E>
    where
        S: Default,
    {
        let mut words: Vec<T> = room(Self::room(len));
        let start = words.as_ptr().addr().next_multiple_of(ALIGNMENT) - words.as_ptr().addr();
        let (before, free) = words.spare_capacity_mut().split_at_mut(start / 4);
        before.fill(MaybeUninit::zeroed());
        let parts = free[..len].par_chunks_mut(size.max(1)).enumerate();
        parts.try_for_each_init(S::default, |space, (i, part)| {
            part.fill(MaybeUninit::zeroed());
            // SAFETY: it was just filled, and zero bits are a value of its type.
            f(i, unsafe { part.assume_init_mut() }, space)
        })?;
        // SAFETY: everything up to there was written.
        unsafe { words.set_len(start / 4 + len) };
        Ok(Self::within(words))
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

/// Values in memory of this process, or where they lie in a mapped file.
pub(crate) enum Words<W, O = Aligned<W>> {
    Owned(O),
    Mapped(MappedBytes, PhantomData<W>),
}

impl<W: bytemuck::Pod, O> Words<W, O> {
    /// `None` if the bytes are not whole values that begin where such values may.
    pub fn mapped(bytes: MappedBytes) -> Option<Self> {
        bytemuck::try_cast_slice::<u8, W>(bytes.bytes()).ok()?;
        Some(Self::Mapped(bytes, PhantomData))
    }

    /// They are about to be multiplied with.
    pub fn used(&self) {
        if let Self::Mapped(bytes, _) = self {
            bytes.used();
        }
    }
}

impl<W: bytemuck::Pod, O: Deref<Target = [W]>> Deref for Words<W, O> {
    type Target = [W];

    fn deref(&self) -> &[W] {
        match self {
            Self::Owned(words) => words,
            Self::Mapped(bytes, _) => bytemuck::cast_slice(bytes.bytes()),
        }
    }
}

impl<W> From<Aligned<W>> for Words<W> {
    fn from(words: Aligned<W>) -> Self {
        Self::Owned(words)
    }
}

/// A right matrix in panels of a block's columns: `[n / nr][k][nr]` values, or `[n / nr][k / 2][nr]` pairs of bf16, or
/// `[n / nr][k / 4 + 2][nr]` words of four bytes and the foot of `int8`.
pub(crate) struct Panels<W> {
    pub block: &'static Block,
    pub words: Words<W>,
}

/// A right matrix whose panels are of words `W` when they are multiplied.
pub(crate) trait RightPanels<W>: Sync {
    fn block(&self) -> &'static Block;

    /// Whether there are `panels` panels of `words` words.
    fn holds(&self, panels: usize, words: usize) -> bool;

    /// Panel number `index`, of `words` words; in `space` where it is kept in fewer.
    fn panel<'a>(&'a self, index: usize, words: usize, space: &'a mut Vec<W>) -> &'a [W];
}

impl<W: bytemuck::Pod + Sync> RightPanels<W> for Panels<W> {
    fn block(&self) -> &'static Block {
        self.block
    }

    fn holds(&self, panels: usize, words: usize) -> bool {
        self.words.len() == panels * words
    }

    fn panel<'a>(&'a self, index: usize, words: usize, _: &'a mut Vec<W>) -> &'a [W] {
        &self.words[index * words..][..words]
    }
}

/// A right matrix `[k, n]` packed whole, columns past the end zero.
/// `fill(panel's columns, nr, out[k × nr])` writes one zeroed panel.
pub(crate) fn pack_right(n: usize, k: usize, fill: impl Fn(Range<usize>, usize, &mut [f32]) + Sync) -> Panels<f32> {
    let block = kernel().for_columns(n);
    let words = pack_panels(n, k, block.nr, |cols, panel| fill(cols, block.nr, panel)).into();
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
    use crate::cpu::kernel::Pair;

    #[test]
    fn aligned_words_begin_on_a_cache_line() {
        for len in [0, 1, 15, 16, 1000] {
            let (values, pairs) = (Aligned::zeros(len), Aligned::<Pair>::zeroed(len));
            assert_eq!((values.len(), pairs.len()), (len, len));
            assert!((values.as_ptr() as usize).is_multiple_of(64) && (pairs.as_ptr() as usize).is_multiple_of(64));
        }
    }
}
