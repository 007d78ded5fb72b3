//! Matrix multiplication for every network op: a packed, cache-blocked loop nest around one
//! register-blocked micro-kernel, chosen at run time. Convolutions come here too: what
//! they pack as the left matrix is gathered straight from the picture (implicit GEMM).

use crate::cpu::bf16;
use crate::cpu::parallel::zeros;
use crate::{Activation, DType};
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::OnceLock;

/// `tile[mr × nr] = a[k × mr]ᵀ · b[k × nr]`, both packed with `k` outermost.
type MicroKernel = unsafe fn(k: usize, a: *const f32, b: *const f32, tile: *mut f32);

/// The same on bf16, two values of `k` in each word: `tile[mr × nr] = a[pairs × mr]ᵀ · b[pairs × nr]`, summed in f32.
type PairKernel = unsafe fn(pairs: usize, a: *const u32, b: *const u32, tile: *mut f32);

/// A left matrix that is not packed: row r begins at `r · row_stride` and consists of `segments` runs of `length` values,
/// `segment_stride` apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    pub segments: usize,
    pub length: usize,
    pub segment_stride: usize,
    pub row_stride: usize,
}

/// [`MicroKernel`] with the left matrix where it lies.
type WindowKernel = unsafe fn(windows: &Windows, a: *const f32, b: *const f32, tile: *mut f32);

/// The micro-kernels of a machine and their register block.
pub(crate) struct Kernel {
    pub name: &'static str,
    pub mr: usize,
    pub nr: usize,
    run: MicroKernel,
    run_bf16: PairKernel,
    run_windows: WindowKernel,
}

impl Kernel {
    /// `tile[mr × nr] = a · b`: the windows at the start of `a`, and a packed panel.
    pub fn windows(&self, windows: &Windows, a: &[f32], b: &[f32], tile: &mut [f32; MAX_TILE]) {
        let last = (self.mr - 1) * windows.row_stride + (windows.segments - 1) * windows.segment_stride;
        assert!(a.len() >= last + windows.length && b.len() >= windows.segments * windows.length * self.nr);
        // SAFETY: what the kernel reads of a and b was checked to be there; a tile holds mr x nr values.
        unsafe { (self.run_windows)(windows, a.as_ptr(), b.as_ptr(), tile.as_mut_ptr()) };
    }
}

/// Largest register block of any kernel.
pub(crate) const MAX_TILE: usize = 12 * 32;
/// Widest register block of any kernel, in rows or columns.
const MAX_WIDTH: usize = 32;
/// Depth of a block: `KC × nr` of the right matrix stays in L1.
const KC: usize = 384;
/// Rows of a block: `MC × KC` of the left matrix stays in L2.
const MC: usize = 96;

/// The kernel of this machine: AVX-512, AVX2+FMA, or portable (NEON where it is the baseline).
pub(crate) fn kernel() -> &'static Kernel {
    static KERNEL: OnceLock<Kernel> = OnceLock::new();
    KERNEL.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                let bf16 = is_x86_feature_detected!("avx512bf16");
                return Kernel {
                    name: if bf16 { "avx512-bf16" } else { "avx512" },
                    mr: 12,
                    nr: 32,
                    run: x86::avx512_12x32,
                    run_bf16: if bf16 {
                        bf16::avx512bf16_12x32
                    } else {
                        bf16::avx512_12x32
                    },
                    run_windows: x86::avx512_12x32_windows,
                };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Kernel {
                    name: "avx2",
                    mr: 6,
                    nr: 16,
                    run: x86::avx2_6x16,
                    run_bf16: bf16::avx2_6x16,
                    run_windows: x86::avx2_6x16_windows,
                };
            }
        }
        Kernel {
            name: "portable",
            mr: 6,
            nr: 8,
            run: portable_6x8,
            run_bf16: bf16::portable_6x8,
            run_windows: portable_6x8_windows,
        }
    })
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::wildcard_imports)] // intrinsics, by the dozen
mod x86 {
    use super::Windows;
    use std::arch::x86_64::*;

    // SAFETY of all: the caller passes k·mr and k·nr readable values, mr·nr writable ones, and
    // runs them only where the target features were detected.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn avx2_6x16(k: usize, mut a: *const f32, mut b: *const f32, tile: *mut f32) {
        unsafe {
            let mut acc = [[_mm256_setzero_ps(); 2]; 6];
            for _ in 0..k {
                let b0 = _mm256_loadu_ps(b);
                let b1 = _mm256_loadu_ps(b.add(8));
                for (r, row) in acc.iter_mut().enumerate() {
                    let x = _mm256_broadcast_ss(&*a.add(r));
                    row[0] = _mm256_fmadd_ps(x, b0, row[0]);
                    row[1] = _mm256_fmadd_ps(x, b1, row[1]);
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
    pub unsafe fn avx512_12x32(k: usize, mut a: *const f32, mut b: *const f32, tile: *mut f32) {
        unsafe {
            let mut acc = [[_mm512_setzero_ps(); 2]; 12];
            for _ in 0..k {
                let b0 = _mm512_loadu_ps(b);
                let b1 = _mm512_loadu_ps(b.add(16));
                for (r, row) in acc.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add(r));
                    row[0] = _mm512_fmadd_ps(x, b0, row[0]);
                    row[1] = _mm512_fmadd_ps(x, b1, row[1]);
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

    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn avx2_6x16_windows(windows: &Windows, a: *const f32, mut b: *const f32, tile: *mut f32) {
        unsafe {
            let mut acc = [[_mm256_setzero_ps(); 2]; 6];
            for segment in 0..windows.segments {
                let mut top = a.add(segment * windows.segment_stride);
                let mut bottom = top.add(3 * windows.row_stride);
                for _ in 0..windows.length {
                    let b0 = _mm256_loadu_ps(b);
                    let b1 = _mm256_loadu_ps(b.add(8));
                    for (half, rows) in [top, bottom].into_iter().zip(acc.chunks_exact_mut(3)) {
                        for (r, row) in rows.iter_mut().enumerate() {
                            let x = _mm256_broadcast_ss(&*half.add(r * windows.row_stride));
                            row[0] = _mm256_fmadd_ps(x, b0, row[0]);
                            row[1] = _mm256_fmadd_ps(x, b1, row[1]);
                        }
                    }
                    (top, bottom) = (top.add(1), bottom.add(1));
                    b = b.add(16);
                }
            }
            for (r, row) in acc.iter().enumerate() {
                _mm256_storeu_ps(tile.add(r * 16), row[0]);
                _mm256_storeu_ps(tile.add(r * 16 + 8), row[1]);
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    pub unsafe fn avx512_12x32_windows(windows: &Windows, a: *const f32, mut b: *const f32, tile: *mut f32) {
        unsafe {
            let mut acc = [[_mm512_setzero_ps(); 2]; 12];
            for segment in 0..windows.segments {
                let start = a.add(segment * windows.segment_stride);
                let mut quarters = [0, 3, 6, 9].map(|r| start.add(r * windows.row_stride));
                for _ in 0..windows.length {
                    let b0 = _mm512_loadu_ps(b);
                    let b1 = _mm512_loadu_ps(b.add(16));
                    for (quarter, rows) in quarters.iter_mut().zip(acc.chunks_exact_mut(3)) {
                        for (r, row) in rows.iter_mut().enumerate() {
                            let x = _mm512_set1_ps(*quarter.add(r * windows.row_stride));
                            row[0] = _mm512_fmadd_ps(x, b0, row[0]);
                            row[1] = _mm512_fmadd_ps(x, b1, row[1]);
                        }
                        *quarter = quarter.add(1);
                    }
                    b = b.add(32);
                }
            }
            for (r, row) in acc.iter().enumerate() {
                _mm512_storeu_ps(tile.add(r * 32), row[0]);
                _mm512_storeu_ps(tile.add(r * 32 + 16), row[1]);
            }
        }
    }
}

// SAFETY: the caller passes 6·k and 8·k readable values and 48 writable ones.
unsafe fn portable_6x8(k: usize, a: *const f32, b: *const f32, tile: *mut f32) {
    let (a, b) = unsafe {
        (
            std::slice::from_raw_parts(a, k * 6),
            std::slice::from_raw_parts(b, k * 8),
        )
    };
    let tile = unsafe { std::slice::from_raw_parts_mut(tile, 48) };
    let mut acc = [[0.0f32; 8]; 6];
    for (a, b) in a.chunks_exact(6).zip(b.chunks_exact(8)) {
        for (row, &x) in acc.iter_mut().zip(a) {
            for (sum, &y) in row.iter_mut().zip(b) {
                *sum = multiply_add(x, y, *sum);
            }
        }
    }
    for (out, row) in tile.chunks_exact_mut(8).zip(&acc) {
        out.copy_from_slice(row);
    }
}

// SAFETY: the caller passes the windows of 6 rows, 8 values of b for each of their values, and 48 writable ones.
unsafe fn portable_6x8_windows(windows: &Windows, a: *const f32, b: *const f32, tile: *mut f32) {
    let mut acc = [[0.0f32; 8]; 6];
    for segment in 0..windows.segments {
        for k in 0..windows.length {
            let at = segment * windows.segment_stride + k;
            let b = unsafe { std::slice::from_raw_parts(b.add((segment * windows.length + k) * 8), 8) };
            for (r, row) in acc.iter_mut().enumerate() {
                let x = unsafe { *a.add(at + r * windows.row_stride) };
                for (sum, &y) in row.iter_mut().zip(b) {
                    *sum = multiply_add(x, y, *sum);
                }
            }
        }
    }
    let tile = unsafe { std::slice::from_raw_parts_mut(tile, 48) };
    tile.copy_from_slice(acc.as_flattened());
}

/// `x·y + sum`, fused where that is the machine's baseline.
fn multiply_add(x: f32, y: f32, sum: f32) -> f32 {
    if cfg!(target_arch = "aarch64") {
        x.mul_add(y, sum)
    } else {
        x * y + sum
    }
}

/// What happens to a finished row of the product: `act(row + bias) + residual`.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue<'a> {
    pub bias: Option<&'a [f32]>,
    pub act: Activation,
    pub residual: Option<&'a [f32]>,
}

impl Epilogue<'_> {
    pub const NONE: Epilogue<'static> = Epilogue {
        bias: None,
        act: Activation::None,
        residual: None,
    };

    fn apply(&self, row: &mut [f32], cols: Range<usize>, offset: usize) {
        if let Some(bias) = self.bias {
            for (x, b) in row.iter_mut().zip(&bias[cols]) {
                *x += b;
            }
        }
        self.finish(row, offset);
    }

    /// The same for whole rows of `n` columns.
    pub fn apply_rows(&self, rows: &mut [f32], n: usize, offset: usize) {
        if let Some(bias) = self.bias {
            for row in rows.chunks_exact_mut(n) {
                for (x, b) in row.iter_mut().zip(bias) {
                    *x += b;
                }
            }
        }
        self.finish(rows, offset);
    }

    fn finish(&self, values: &mut [f32], offset: usize) {
        self.act.apply_slice(values);
        if let Some(residual) = self.residual {
            for (x, r) in values.iter_mut().zip(&residual[offset..]) {
                *x += r;
            }
        }
    }
}

/// The left matrix of a product: packs a block of it into panels of `mr` rows,
/// `out[(panel · depth + k) · mr + row]`. Rows past the end are zero.
pub(crate) trait Left: Sync {
    fn pack(&self, rows: Range<usize>, ks: Range<usize>, mr: usize, out: &mut [f32]);
}

/// A right matrix, packed: `[n / nr][k][nr]` values, or `[n / nr][k / 2][nr]` pairs of bf16.
#[derive(Debug)]
pub(crate) enum Packed {
    F32(Vec<f32>),
    Bf16(Vec<u32>),
}

impl Packed {
    /// `values` as [`pack_right`] leaves them; anything but f32 becomes bf16.
    pub fn new(values: Vec<f32>, k: usize, dtype: DType) -> Self {
        if dtype == DType::F32 || k == 0 {
            return Self::F32(values);
        }
        let nr = kernel().nr;
        let mut pairs = Vec::with_capacity(values.len() / k * k.div_ceil(2));
        for panel in values.chunks_exact(k * nr) {
            bf16::append_pairs(panel, nr, &mut pairs);
        }
        Self::Bf16(pairs)
    }
}

/// The right matrix packed whole: `[n / nr][k][nr]`, columns past the end zero.
/// `fill(panel's columns, out[k × nr])` writes one zeroed panel.
pub(crate) fn pack_right(n: usize, k: usize, fill: impl Fn(Range<usize>, usize, &mut [f32]) + Sync) -> Vec<f32> {
    let nr = kernel().nr;
    let mut packed = zeros(n.div_ceil(nr) * nr * k);
    if packed.is_empty() {
        return packed;
    }
    packed
        .par_chunks_mut(k * nr)
        .enumerate()
        .for_each(|(p, panel)| fill(p * nr..n.min((p + 1) * nr), nr, panel));
    packed
}

/// Packs a row-major right matrix `[k, n]`.
pub(crate) fn pack_right_rows(b: &[f32], n: usize, k: usize) -> Vec<f32> {
    pack_right(n, k, |cols, nr, panel| {
        for (row, out) in b.chunks_exact(n).zip(panel.chunks_exact_mut(nr)) {
            out[..cols.len()].copy_from_slice(&row[cols.clone()]);
        }
    })
}

/// Packs the transpose of a row-major matrix `[n, k]`: linear weights `[out, in]`.
pub(crate) fn pack_right_transposed(b: &[f32], n: usize, k: usize) -> Vec<f32> {
    pack_right(n, k, |cols, nr, panel| {
        let strips: Vec<&[f32]> = cols.map(|col| &b[col * k..(col + 1) * k]).collect();
        interleave(&strips, nr, panel);
    })
}

thread_local! {
    static LEFT_BLOCK: RefCell<(Vec<f32>, Vec<u32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// The output, shared between tasks that write disjoint blocks of it.
struct Output(*mut f32);
// SAFETY: every task writes rows × columns that no other task touches.
unsafe impl Sync for Output {}

/// `epilogue(left[m × k] · right[k × n])`, row-major. Where `right` is bf16, so is `left` while it is multiplied.
pub(crate) fn gemm(m: usize, n: usize, k: usize, left: &dyn Left, right: &Packed, epilogue: &Epilogue) -> Vec<f32> {
    if m == 0 || n == 0 {
        return Vec::new();
    }
    if k == 0 {
        let mut out = zeros(m * n);
        for (i, row) in out.chunks_exact_mut(n).enumerate() {
            epilogue.apply(row, 0..n, i * n);
        }
        return out;
    }
    let mut out = Vec::with_capacity(m * n);
    let kernel = kernel();
    let panels = n.div_ceil(kernel.nr);
    let mc = (MC / kernel.mr).max(1) * kernel.mr;
    let row_blocks = m.div_ceil(mc);
    // Few rows (text, time embeddings): split the columns so that every thread has work.
    let wanted = (4 * rayon::current_num_threads()).div_ceil(row_blocks);
    let panels_per_task = panels.div_ceil(wanted.min(panels)).max(1);
    let column_blocks = panels.div_ceil(panels_per_task);
    let output = Output(out.as_mut_ptr());
    (0..row_blocks * column_blocks).into_par_iter().for_each(|task| {
        let rows = (task / column_blocks) * mc..m.min((task / column_blocks + 1) * mc);
        let first = (task % column_blocks) * panels_per_task;
        let block = Block {
            rows,
            panels: first..panels.min(first + panels_per_task),
            n,
            k,
        };
        block.run(kernel, left, right, epilogue, &output);
    });
    // SAFETY: the blocks cover all rows and columns, and each writes its first depth by copying.
    unsafe { out.set_len(m * n) };
    out
}

struct Block {
    rows: Range<usize>,
    panels: Range<usize>,
    n: usize,
    k: usize,
}

impl Block {
    fn run(&self, kernel: &Kernel, left: &dyn Left, right: &Packed, epilogue: &Epilogue, output: &Output) {
        let (mr, nr) = (kernel.mr, kernel.nr);
        let tiles = self.rows.len().div_ceil(mr);
        let mut tile = [0.0f32; MAX_TILE];
        LEFT_BLOCK.with_borrow_mut(|(packed, pairs)| {
            packed.resize(tiles * mr * KC.min(self.k), 0.0);
            for k0 in (0..self.k).step_by(KC) {
                let depth = KC.min(self.k - k0);
                let packed = &mut packed[..tiles * mr * depth];
                left.pack(self.rows.clone(), k0..k0 + depth, mr, packed);
                if let Packed::Bf16(_) = right {
                    pairs.clear();
                    for panel in packed.chunks_exact(mr * depth) {
                        bf16::append_pairs(panel, mr, pairs);
                    }
                }
                let half = depth.div_ceil(2);
                for panel in self.panels.clone() {
                    for t in 0..tiles {
                        // SAFETY of both: a, b and tile have the lengths that the kernel reads and writes. KC is even,
                        // so that a block of the depth begins with a whole pair.
                        match right {
                            Packed::F32(right) => {
                                let a = &packed[t * mr * depth..][..mr * depth];
                                let b = &right[(panel * self.k + k0) * nr..][..depth * nr];
                                unsafe { (kernel.run)(depth, a.as_ptr(), b.as_ptr(), tile.as_mut_ptr()) };
                            }
                            Packed::Bf16(right) => {
                                let a = &pairs[t * mr * half..][..mr * half];
                                let b = &right[(panel * self.k.div_ceil(2) + k0 / 2) * nr..][..half * nr];
                                unsafe { (kernel.run_bf16)(half, a.as_ptr(), b.as_ptr(), tile.as_mut_ptr()) };
                            }
                        }
                        self.store(kernel, &tile, t, panel, k0, k0 + depth == self.k, epilogue, output);
                    }
                }
            }
        });
    }

    fn store(
        &self,
        kernel: &Kernel,
        tile: &[f32],
        t: usize,
        panel: usize,
        k0: usize,
        last: bool,
        epilogue: &Epilogue,
        output: &Output,
    ) {
        let (mr, nr) = (kernel.mr, kernel.nr);
        let cols = panel * nr..self.n.min((panel + 1) * nr);
        let first_row = self.rows.start + t * mr;
        for (r, values) in tile
            .chunks_exact(nr)
            .take(mr.min(self.rows.end - first_row))
            .enumerate()
        {
            let offset = (first_row + r) * self.n + cols.start;
            // SAFETY: rows and columns lie inside the output and belong to this task alone; they are
            // written before they are read, the first time through a pointer.
            let out = unsafe {
                let start = output.0.add(offset);
                if k0 == 0 {
                    std::ptr::copy_nonoverlapping(values.as_ptr(), start, cols.len());
                }
                std::slice::from_raw_parts_mut(start, cols.len())
            };
            if k0 != 0 {
                for (o, v) in out.iter_mut().zip(values) {
                    *o += v;
                }
            }
            if last {
                epilogue.apply(out, cols.clone(), offset);
            }
        }
    }
}

/// Copies up to `mr` strips of equal length into one panel, element by element across strips.
pub(crate) fn interleave(strips: &[&[f32]], mr: usize, out: &mut [f32]) {
    if let ([a, b, c, d, e, f], 6) = (strips, mr) {
        for ((((((o, a), b), c), d), e), f) in out.chunks_exact_mut(6).zip(*a).zip(*b).zip(*c).zip(*d).zip(*e).zip(*f) {
            o[0] = *a;
            o[1] = *b;
            o[2] = *c;
            o[3] = *d;
            o[4] = *e;
            o[5] = *f;
        }
        return;
    }
    out.chunks_exact_mut(mr).for_each(|o| o[strips.len()..].fill(0.0));
    let mut r = 0;
    while let Some([a, b, c, d]) = strips.get(r..r + 4) {
        for ((((o, a), b), c), d) in out.chunks_exact_mut(mr).zip(*a).zip(*b).zip(*c).zip(*d) {
            let o: &mut [f32] = &mut o[r..r + 4];
            o[0] = *a;
            o[1] = *b;
            o[2] = *c;
            o[3] = *d;
        }
        r += 4;
    }
    for (r, strip) in strips.iter().enumerate().skip(r) {
        for (o, x) in out.chunks_exact_mut(mr).zip(*strip) {
            o[r] = *x;
        }
    }
}

/// A row-major left matrix `[m, k]`.
pub(crate) struct Rows<'a> {
    pub data: &'a [f32],
    pub k: usize,
}

impl Left for Rows<'_> {
    fn pack(&self, rows: Range<usize>, ks: Range<usize>, mr: usize, out: &mut [f32]) {
        let mut strips: Vec<&[f32]> = Vec::with_capacity(mr);
        for (p, panel) in out.chunks_exact_mut(mr * ks.len()).enumerate() {
            strips.clear();
            let first = rows.start + p * mr;
            strips.extend((first..rows.end.min(first + mr)).map(|r| &self.data[r * self.k..][ks.clone()]));
            interleave(&strips, mr, panel);
        }
    }
}

/// The transpose of a row-major matrix `[k, m]`.
pub(crate) struct Columns<'a> {
    pub data: &'a [f32],
    pub m: usize,
}

impl Left for Columns<'_> {
    fn pack(&self, rows: Range<usize>, ks: Range<usize>, mr: usize, out: &mut [f32]) {
        for (p, panel) in out.chunks_exact_mut(mr * ks.len()).enumerate() {
            let first = rows.start + p * mr;
            let len = mr.min(rows.end - first);
            for (k, o) in ks.clone().zip(panel.chunks_exact_mut(mr)) {
                o[..len].copy_from_slice(&self.data[k * self.m + first..][..len]);
                o[len..].fill(0.0);
            }
        }
    }
}

/// A strided view of a small matrix.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub data: &'a [f32],
    pub row_stride: usize,
    pub col_stride: usize,
}

/// Packing space of [`gemm_serial`].
#[derive(Default)]
pub(crate) struct Scratch {
    a: Vec<f32>,
    b: Vec<f32>,
}

/// `c (+)= a[m × k] · b[k × n]` on this thread, for the blocks of attention.
pub(crate) fn gemm_serial(
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
    let kernel = kernel();
    let (mr, nr) = (kernel.mr, kernel.nr);
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
    let mut tile = [0.0f32; MAX_TILE];
    for (j, b) in scratch.b.chunks_exact(nr * k).enumerate() {
        let cols = nr.min(n - j * nr);
        for (i, a) in scratch.a.chunks_exact(mr * k).enumerate() {
            // SAFETY: a, b and tile have the lengths that the kernel reads and writes.
            unsafe { (kernel.run)(k, a.as_ptr(), b.as_ptr(), tile.as_mut_ptr()) };
            for (r, values) in tile.chunks_exact(nr).take(mr.min(m - i * mr)).enumerate() {
                let out = &mut c[(i * mr + r) * ldc + j * nr..][..cols];
                if accumulate {
                    for (o, v) in out.iter_mut().zip(values) {
                        *o += v;
                    }
                } else {
                    out.copy_from_slice(&values[..cols]);
                }
            }
        }
    }
}

/// Panels of `width` rows of a strided matrix `[m, k]`.
fn pack_view(a: &View, m: usize, k: usize, width: usize, out: &mut Vec<f32>) {
    out.clear();
    out.resize(m.div_ceil(width) * width * k, 0.0);
    for (p, panel) in out.chunks_exact_mut(width * k).enumerate() {
        let rows = width.min(m - p * width);
        if a.row_stride == 1 {
            for (kk, o) in panel.chunks_exact_mut(width).enumerate() {
                o[..rows].copy_from_slice(&a.data[kk * a.col_stride + p * width..][..rows]);
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
