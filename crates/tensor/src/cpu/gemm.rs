//! Matrix multiplication for every network op: a packed, cache-blocked loop nest around one
//! register-blocked micro-kernel, chosen at run time. Convolutions come here too: what
//! they pack as the left matrix is gathered straight from the picture (implicit GEMM).

use crate::allocator::room;
use crate::cpu::bf16::{interleave_pairs, pair_depths};
use crate::cpu::interleave::interleave;
use crate::cpu::kernel::{self, Pair, Tile, Word, kernel};
use crate::cpu::pack::{Panels, View, pack_view};
use crate::cpu::packed::Packed;
use crate::cpu::parallel::{Output, for_tasks, zeros};
use crate::cpu::tile::{Epilogue, Place, put};
use std::cell::RefCell;
use std::ops::Range;

/// Depth of a block in words (a value, or a pair of bf16): `KC × nr` of the right matrix is read again for every tile of
/// a block of the left one, from L1 or in one stream from L2.
pub(crate) const KC: usize = 768;

/// The left matrix of a product: packs a block of it into panels of `mr` rows,
/// `out[(panel · depth + k) · mr + row]`. Rows past the end are zero.
pub(crate) trait Left: Sync {
    fn pack(&self, rows: Range<usize>, ks: Range<usize>, mr: usize, out: &mut [f32]);

    /// The same as pairs of bf16, `out[(panel · depth / 2 + k / 2) · mr + row]`; `ks` begins with an even one.
    fn pack_pairs(&self, rows: Range<usize>, ks: Range<usize>, mr: usize, out: &mut [u32], space: &mut Vec<f32>) {
        pairs_of_values(self, rows, ks, mr, out, space);
    }
}

/// [`Left::pack_pairs`] by way of the values: for what cannot take pairs from where they lie.
pub(crate) fn pairs_of_values(
    left: &(impl Left + ?Sized),
    rows: Range<usize>,
    ks: Range<usize>,
    mr: usize,
    out: &mut [u32],
    space: &mut Vec<f32>,
) {
    let (depth, half) = (ks.len(), ks.len().div_ceil(2));
    space.resize(out.len() / half * depth, 0.0);
    left.pack(rows, ks, mr, space);
    for (panel, out) in space.chunks_exact(mr * depth).zip(out.chunks_exact_mut(mr * half)) {
        pair_depths(panel, mr, out);
    }
}

/// Words that a left matrix can be packed in.
trait LeftWord: Word {
    fn pack(left: &dyn Left, rows: Range<usize>, ks: Range<usize>, mr: usize, out: &mut [Self], space: &mut Vec<f32>);
}

impl LeftWord for f32 {
    fn pack(left: &dyn Left, rows: Range<usize>, ks: Range<usize>, mr: usize, out: &mut [f32], _: &mut Vec<f32>) {
        left.pack(rows, ks, mr, out);
    }
}

impl LeftWord for Pair {
    fn pack(left: &dyn Left, rows: Range<usize>, ks: Range<usize>, mr: usize, out: &mut [Pair], space: &mut Vec<f32>) {
        left.pack_pairs(rows, ks, mr, out, space);
    }
}

/// A thread's packed part of the left matrix.
#[derive(Default)]
struct LeftPart {
    words: Vec<u32>,
    space: Vec<f32>,
}

thread_local! {
    static LEFT_PART: RefCell<LeftPart> = RefCell::default();
}

/// `epilogue(left[m × k] · right[k × n])`, row-major. Where `right` is bf16, so is `left` while it is multiplied.
pub(crate) fn gemm(m: usize, n: usize, k: usize, left: &dyn Left, right: &Packed, epilogue: &Epilogue) -> Vec<f32> {
    match right {
        Packed::F32(right) => gemm_words(m, n, k, left, right, epilogue),
        Packed::Bf16(right) => gemm_words(m, n, k, left, right, epilogue),
        Packed::Winograd(_) => panic!("the matrices of a convolution are multiplied in `winograd`"),
        Packed::Int8(_) | Packed::Int4(_) => panic!("panels of bytes are multiplied by rows, in `product`"),
    }
}

fn gemm_words<W: LeftWord>(
    m: usize,
    n: usize,
    k: usize,
    left: &dyn Left,
    right: &Panels<W>,
    epilogue: &Epilogue,
) -> Vec<f32> {
    if m == 0 || n == 0 {
        return Vec::new();
    }
    if k == 0 {
        let mut out = zeros(m * n);
        for (i, row) in out.chunks_exact_mut(n).enumerate() {
            epilogue.apply(row, i, n);
        }
        return out;
    }
    let mut out = room(m * n);
    let output = Output::of(&mut out);
    Part::for_each([m, n, k], right.block, kernel().mc, |part| {
        LEFT_PART.with_borrow_mut(|space| part.run(left, right, epilogue, &output, space));
    });
    // SAFETY: the parts cover all rows and columns, and each writes its first depth by copying.
    unsafe { out.set_len(m * n) };
    out
}

/// What one task computes: some rows, some panels of columns.
pub(crate) struct Part {
    pub rows: Range<usize>,
    pub panels: Range<usize>,
    n: usize,
    k: usize,
    block: &'static kernel::Block,
}

impl Part {
    /// Every part of a product of these sizes, in parallel, of about `mc` rows.
    pub fn for_each([m, n, k]: [usize; 3], block: &'static kernel::Block, mc: usize, f: impl Fn(&Self) + Sync + Send) {
        let panels = n.div_ceil(block.nr);
        // Parts of equal size, so that the last one leaves no thread waiting.
        let mc = m.div_ceil(m.div_ceil(mc)).next_multiple_of(block.mr);
        let row_parts = m.div_ceil(mc);
        // Few rows (text, time embeddings): split the columns so that every thread has work.
        let wanted = (4 * rayon::current_num_threads()).div_ceil(row_parts);
        let panels_per_task = panels.div_ceil(wanted.min(panels)).max(1);
        let column_parts = panels.div_ceil(panels_per_task);
        for_tasks(row_parts * column_parts, m * n * k, |task| {
            let first = (task % column_parts) * panels_per_task;
            f(&Self {
                rows: (task / column_parts) * mc..m.min((task / column_parts + 1) * mc),
                panels: first..panels.min(first + panels_per_task),
                n,
                k,
                block,
            });
        });
    }

    /// Of this part what one of its panels gives.
    pub fn of_panel(&self, panel: usize) -> Self {
        Self {
            rows: self.rows.clone(),
            panels: panel..panel + 1,
            ..*self
        }
    }

    fn run<W: LeftWord>(
        &self,
        left: &dyn Left,
        right: &Panels<W>,
        epilogue: &Epilogue,
        output: &Output,
        space: &mut LeftPart,
    ) {
        let (mr, nr) = (self.block.mr, self.block.nr);
        let rows = self.rows.len().next_multiple_of(mr);
        // Equal depths, of whole words.
        let words = self.k.div_ceil(W::DEPTHS);
        let step = words.div_ceil(words.div_ceil(KC)) * W::DEPTHS;
        for k0 in (0..self.k).step_by(step) {
            let ks = k0..self.k.min(k0 + step);
            let depth = ks.len().div_ceil(W::DEPTHS);
            space.words.resize(rows * depth, 0);
            let words: &mut [W] = bytemuck::cast_slice_mut(&mut space.words);
            W::pack(left, self.rows.clone(), ks.clone(), mr, words, &mut space.space);
            self.each_tile(&ks, epilogue, output, |t, panel, tile| {
                let a = &words[t * mr * depth..];
                let b = &right.words[(panel * self.k.div_ceil(W::DEPTHS) + k0 / W::DEPTHS) * nr..];
                self.block.multiply(depth, a, b, &mut tile.0);
            });
        }
    }

    /// `multiply(row of tiles, panel of columns, tile)` for each tile of the part over the depths `ks`, put in its place.
    pub fn each_tile(
        &self,
        ks: &Range<usize>,
        epilogue: &Epilogue,
        output: &Output,
        multiply: impl Fn(usize, usize, &mut Tile),
    ) {
        let (mr, nr) = (self.block.mr, self.block.nr);
        let mut tile = Tile::ZERO;
        for panel in self.panels.clone() {
            for (t, first_row) in self.rows.clone().step_by(mr).enumerate() {
                let first = panel * nr;
                let offset = first_row * self.n + first;
                // These rows and columns belong to this task alone.
                let place = Place {
                    start: output.at(offset),
                    stride: self.n,
                    rows: mr.min(self.rows.end - first_row),
                    cols: nr.min(self.n - first),
                };
                place.prefetch();
                multiply(t, panel, &mut tile);
                let epilogue = if ks.end == self.k {
                    epilogue.within(first, offset)
                } else {
                    Epilogue::NONE
                };
                put(&tile.0, nr, &place, ks.start > 0, &epilogue);
            }
        }
    }
}

/// A row-major left matrix `[m, k]`.
pub(crate) struct Rows<'a> {
    pub data: &'a [f32],
    pub k: usize,
}

impl Rows<'_> {
    /// Up to `mr` of the rows, from the `skip`th on.
    fn strips(&self, rows: &Range<usize>, ks: &Range<usize>, skip: usize, mr: usize) -> impl Iterator<Item = &[f32]> {
        let first = rows.start + skip;
        (first..rows.end.min(first + mr)).map(move |r| &self.data[r * self.k..][ks.clone()])
    }
}

impl Left for Rows<'_> {
    fn pack(&self, rows: Range<usize>, ks: Range<usize>, mr: usize, out: &mut [f32]) {
        let mut strips: Vec<&[f32]> = Vec::with_capacity(mr);
        for (p, panel) in out.chunks_exact_mut(mr * ks.len()).enumerate() {
            strips.clear();
            strips.extend(self.strips(&rows, &ks, p * mr, mr));
            interleave(&strips, mr, panel);
        }
    }

    fn pack_pairs(&self, rows: Range<usize>, ks: Range<usize>, mr: usize, out: &mut [u32], space: &mut Vec<f32>) {
        let mut strips: Vec<&[f32]> = Vec::with_capacity(mr);
        for (p, panel) in out.chunks_exact_mut(mr * ks.len().div_ceil(2)).enumerate() {
            strips.clear();
            strips.extend(self.strips(&rows, &ks, p * mr, mr));
            interleave_pairs(&strips, mr, panel, space);
        }
    }
}

/// Packing space of [`gemm_serial`].
#[derive(Default)]
pub(crate) struct Scratch {
    a: Vec<f32>,
    b: Vec<f32>,
    /// Both again, where words are not values.
    words: [Vec<u32>; 2],
}

/// Words that packed values can be turned into.
pub(crate) trait SerialWord: Word {
    /// Panels `[k][width]` of values as panels of words.
    fn panels<'a>(values: &'a [f32], width: usize, k: usize, space: &'a mut Vec<u32>) -> &'a [Self];

    /// The same of values that are not wanted for anything else.
    fn owned(values: Vec<f32>, width: usize, k: usize) -> Vec<Self>;
}

impl SerialWord for f32 {
    fn panels<'a>(values: &'a [f32], _: usize, _: usize, _: &'a mut Vec<u32>) -> &'a [Self] {
        values
    }

    fn owned(values: Vec<f32>, _: usize, _: usize) -> Vec<Self> {
        values
    }
}

impl SerialWord for Pair {
    fn panels<'a>(values: &'a [f32], width: usize, k: usize, space: &'a mut Vec<u32>) -> &'a [Self] {
        let half = k.div_ceil(2);
        space.resize(values.len() / k.max(1) * half, 0);
        for (panel, out) in values.chunks_exact(k * width).zip(space.chunks_exact_mut(half * width)) {
            pair_depths(panel, width, out);
        }
        space
    }

    fn owned(values: Vec<f32>, width: usize, k: usize) -> Vec<Self> {
        let mut space = Vec::new();
        Self::panels(&values, width, k, &mut space);
        space
    }
}

/// `c (+)= a[m × k] · b[k × n]` on this thread, both rounded to words of type `W`: for the blocks of attention.
pub(crate) fn gemm_serial<W: SerialWord>(
    m: usize,
    n: usize,
    k: usize,
    a: View,
    b: View,
    c: &mut [f32],
    ldc: usize,
    accumulate: bool,
    scratch: &mut Scratch,
) {
    let block = kernel().for_columns(n);
    let (mr, nr) = (block.mr, block.nr);
    pack_view(&a, m, k, mr, &mut scratch.a);
    pack_view(
        &View {
            data: b.data,
            row_stride: b.col_stride,
            col_stride: b.row_stride,
        },
        n,
        k,
        nr,
        &mut scratch.b,
    );
    let [a_space, b_space] = &mut scratch.words;
    let (left, right) = (
        W::panels(&scratch.a, mr, k, a_space),
        W::panels(&scratch.b, nr, k, b_space),
    );
    multiply_panels([m, n, k], left, right, c, ldc, accumulate, |_, _| true);
}

/// The product of panels of `mr` rows and of the `nr` columns that suit `n`, in `c` or added to it: those tiles whose first row and column
/// are `wanted`.
pub(crate) fn multiply_panels<W: Word>(
    [m, n, k]: [usize; 3],
    left: &[W],
    right: &[W],
    c: &mut [f32],
    ldc: usize,
    accumulate: bool,
    wanted: impl Fn(usize, usize) -> bool,
) {
    assert!(
        m == 0 || c.len() >= (m - 1) * ldc + n,
        "the product's last row ends past its place"
    );
    let block = kernel().for_columns(n);
    let (mr, nr, depth) = (block.mr, block.nr, k.div_ceil(W::DEPTHS));
    let mut tile = Tile::ZERO;
    for (column, b) in (0..n).step_by(nr).zip(right.chunks_exact(nr * depth)) {
        for (row, a) in (0..m).step_by(mr).zip(left.chunks_exact(mr * depth)) {
            if !wanted(row, column) {
                continue;
            }
            block.multiply(depth, a, b, &mut tile.0);
            let place = Place {
                start: c[row * ldc + column..].as_mut_ptr(),
                stride: ldc,
                rows: mr.min(m - row),
                cols: nr.min(n - column),
            };
            put(&tile.0, nr, &place, accumulate, &Epilogue::NONE);
        }
    }
}
