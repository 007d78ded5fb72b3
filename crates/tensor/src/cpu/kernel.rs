//! The register-blocked micro-kernels of matrix multiplication, and which of them this machine runs.

use crate::cpu::bf16;
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

impl Windows {
    /// The rows of a packed panel: side by side, their values a panel's width apart.
    fn packed(k: usize) -> Self {
        Self {
            segments: 1,
            length: k,
            segment_stride: 0,
            row_stride: 1,
        }
    }
}

/// [`MicroKernel`] with the left matrix where it lies.
type WindowKernel = unsafe fn(windows: &Windows, a: *const f32, b: *const f32, tile: *mut f32);

/// The micro-kernels of a machine, their register block and the cache block that suits it.
pub(crate) struct Kernel {
    pub name: &'static str,
    pub mr: usize,
    pub nr: usize,
    /// Rows of a block of the left matrix, which stays in L2.
    pub mc: usize,
    /// Whether a pair of bf16 products is one instruction. Elsewhere bf16 saves memory, not arithmetic.
    pub multiplies_bf16: bool,
    run: MicroKernel,
    run_bf16: PairKernel,
    run_windows: WindowKernel,
}

/// Largest register block of any kernel.
const MAX_TILE: usize = 12 * 32;
/// Widest register block of any kernel, in rows or columns.
pub(crate) const MAX_WIDTH: usize = 32;

/// One register block of results, `[mr][nr]`, on cache lines of its own.
#[repr(C, align(64))]
pub(crate) struct Tile(pub [f32; MAX_TILE]);

impl Tile {
    pub const ZERO: Self = Self([0.0; MAX_TILE]);
}

impl Kernel {
    /// `tile[mr × nr] = a[depth × mr]ᵀ · b[depth × nr]`.
    pub fn multiply(&self, depth: usize, a: &[f32], b: &[f32], tile: &mut [f32]) {
        assert!(a.len() >= depth * self.mr && b.len() >= depth * self.nr && tile.len() >= self.mr * self.nr);
        // SAFETY: the lengths were just checked, and `kernel` checked the processor.
        unsafe { (self.run)(depth, a.as_ptr(), b.as_ptr(), tile.as_mut_ptr()) };
    }

    /// The same for `pairs` pairs of bf16.
    pub fn multiply_pairs(&self, pairs: usize, a: &[u32], b: &[u32], tile: &mut [f32]) {
        assert!(a.len() >= pairs * self.mr && b.len() >= pairs * self.nr && tile.len() >= self.mr * self.nr);
        // SAFETY: as above.
        unsafe { (self.run_bf16)(pairs, a.as_ptr(), b.as_ptr(), tile.as_mut_ptr()) };
    }

    /// `tile[mr × nr] = a · b`: the windows at the start of `a`, and a packed panel.
    pub fn windows(&self, windows: &Windows, a: &[f32], b: &[f32], tile: &mut Tile) {
        let last = (self.mr - 1) * windows.row_stride + (windows.segments - 1) * windows.segment_stride;
        assert!(a.len() >= last + windows.length && b.len() >= windows.segments * windows.length * self.nr);
        // SAFETY: what the kernel reads of a and b was checked to be there; a tile holds mr x nr values.
        unsafe { (self.run_windows)(windows, a.as_ptr(), b.as_ptr(), tile.0.as_mut_ptr()) };
    }
}

/// The kernel of this machine: AVX-512, AVX2+FMA, or portable (NEON where it is the baseline).
pub(crate) fn kernel() -> &'static Kernel {
    static KERNEL: OnceLock<Kernel> = OnceLock::new();
    KERNEL.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                let multiplies_bf16 = is_x86_feature_detected!("avx512bf16");
                let (name, run_bf16): (_, PairKernel) = if multiplies_bf16 {
                    ("avx512-bf16", bf16::avx512bf16_12x32)
                } else {
                    ("avx512", bf16::avx512_12x32)
                };
                return Kernel {
                    name,
                    mr: 12,
                    nr: 32,
                    mc: 192,
                    multiplies_bf16,
                    run: x86::avx512_12x32,
                    run_bf16,
                    run_windows: x86::avx512_12x32_windows,
                };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Kernel {
                    name: "avx2",
                    mr: 6,
                    nr: 16,
                    mc: 96,
                    multiplies_bf16: false,
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
            mc: 96,
            multiplies_bf16: false,
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

    // SAFETY of all: the caller passes k·mr or windows of mr rows and k·nr readable values, mr·nr writable ones, and runs
    // them only where the target features were detected. The bodies are compiled into functions that have these.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn avx2_6x16(k: usize, a: *const f32, b: *const f32, tile: *mut f32) {
        unsafe { avx2_body(&Windows::packed(k), 6, a, b, tile) };
    }

    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn avx2_6x16_windows(windows: &Windows, a: *const f32, b: *const f32, tile: *mut f32) {
        unsafe { avx2_body(windows, 1, a, b, tile) };
    }

    #[target_feature(enable = "avx512f")]
    pub unsafe fn avx512_12x32(k: usize, a: *const f32, b: *const f32, tile: *mut f32) {
        unsafe { avx512_body(&Windows::packed(k), 12, a, b, tile) };
    }

    #[target_feature(enable = "avx512f")]
    pub unsafe fn avx512_12x32_windows(windows: &Windows, a: *const f32, b: *const f32, tile: *mut f32) {
        unsafe { avx512_body(windows, 1, a, b, tile) };
    }

    /// `step`: from one value of a row to the next. Rows are reached from every third, since an address is a pointer and one
    /// or two strides.
    #[inline(always)]
    unsafe fn avx2_body(windows: &Windows, step: usize, a: *const f32, mut b: *const f32, tile: *mut f32) {
        unsafe {
            let mut acc = [[_mm256_setzero_ps(); 2]; 6];
            for segment in 0..windows.segments {
                let start = a.add(segment * windows.segment_stride);
                let mut thirds = [0, 3].map(|r| start.add(r * windows.row_stride));
                for _ in 0..windows.length {
                    let b0 = _mm256_loadu_ps(b);
                    let b1 = _mm256_loadu_ps(b.add(8));
                    for (third, rows) in thirds.iter_mut().zip(acc.chunks_exact_mut(3)) {
                        for (r, row) in rows.iter_mut().enumerate() {
                            let x = _mm256_broadcast_ss(&*third.add(r * windows.row_stride));
                            row[0] = _mm256_fmadd_ps(x, b0, row[0]);
                            row[1] = _mm256_fmadd_ps(x, b1, row[1]);
                        }
                        *third = third.add(step);
                    }
                    b = b.add(16);
                }
            }
            for (r, row) in acc.iter().enumerate() {
                _mm256_storeu_ps(tile.add(r * 16), row[0]);
                _mm256_storeu_ps(tile.add(r * 16 + 8), row[1]);
            }
        }
    }

    #[inline(always)]
    unsafe fn avx512_body(windows: &Windows, step: usize, a: *const f32, mut b: *const f32, tile: *mut f32) {
        unsafe {
            let mut acc = [[_mm512_setzero_ps(); 2]; 12];
            for segment in 0..windows.segments {
                let start = a.add(segment * windows.segment_stride);
                let mut thirds = [0, 3, 6, 9].map(|r| start.add(r * windows.row_stride));
                for _ in 0..windows.length {
                    let b0 = _mm512_loadu_ps(b);
                    let b1 = _mm512_loadu_ps(b.add(16));
                    for (third, rows) in thirds.iter_mut().zip(acc.chunks_exact_mut(3)) {
                        for (r, row) in rows.iter_mut().enumerate() {
                            let x = _mm512_set1_ps(*third.add(r * windows.row_stride));
                            row[0] = _mm512_fmadd_ps(x, b0, row[0]);
                            row[1] = _mm512_fmadd_ps(x, b1, row[1]);
                        }
                        *third = third.add(step);
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
    unsafe { portable_body(&Windows::packed(k), 6, a, b, tile) };
}

// SAFETY: the caller passes the windows of 6 rows, 8 values of b for each of their values, and 48 writable ones.
unsafe fn portable_6x8_windows(windows: &Windows, a: *const f32, b: *const f32, tile: *mut f32) {
    unsafe { portable_body(windows, 1, a, b, tile) };
}

#[inline(always)]
unsafe fn portable_body(windows: &Windows, step: usize, a: *const f32, b: *const f32, tile: *mut f32) {
    let mut acc = [[0.0f32; 8]; 6];
    for segment in 0..windows.segments {
        for k in 0..windows.length {
            let at = segment * windows.segment_stride + k * step;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Also what a run in an emulator prints to show which kernel it was.
    #[test]
    fn the_kernel_is_the_best_that_the_processor_can_run() {
        let features = crate::cpu_features();
        let has = |name: &str| features.contains(&name);
        let want = if cfg!(target_arch = "x86_64") && has("avx512f") {
            if has("avx512bf16") { "avx512-bf16" } else { "avx512" }
        } else if has("avx2") && has("fma") {
            "avx2"
        } else {
            "portable"
        };
        println!("kernel {} of {features:?}", kernel().name);
        assert_eq!(kernel().name, want);
    }

    /// `k` values of each of `width` rows, packed, that bf16 holds exactly.
    fn panel(k: usize, width: usize, seed: usize) -> Vec<f32> {
        (0..k * width)
            .map(|i| ((i * 7 + i / 5 + seed) % 17) as f32 / 8.0 - 1.0)
            .collect()
    }

    #[test]
    fn micro_kernels_multiply_exactly_where_the_sums_are_exact() {
        let kernel = kernel();
        let (mr, nr) = (kernel.mr, kernel.nr);
        for k in [1, 2, 3, 7, 64, 129] {
            let (a, b) = (panel(k, mr, 1), panel(k, nr, 5));
            let want: Vec<f32> = (0..mr * nr)
                .map(|i| (0..k).map(|kk| a[kk * mr + i / nr] * b[kk * nr + i % nr]).sum())
                .collect();
            let mut tile = Tile([f32::NAN; MAX_TILE]);
            kernel.multiply(k, &a, &b, &mut tile.0);
            assert_eq!(tile.0[..mr * nr], want, "f32, depth {k}");
            let pairs = |panel: &[f32], width: usize| {
                let mut out = vec![0; k.div_ceil(2) * width];
                bf16::pair_depths(panel, width, &mut out);
                out
            };
            let mut tile = Tile([f32::NAN; MAX_TILE]);
            kernel.multiply_pairs(k.div_ceil(2), &pairs(&a, mr), &pairs(&b, nr), &mut tile.0);
            assert_eq!(tile.0[..mr * nr], want, "bf16, depth {k}");
        }
    }

    #[test]
    fn windows_are_read_where_they_lie() {
        let kernel = kernel();
        let (mr, nr) = (kernel.mr, kernel.nr);
        for (segments, length, row_stride) in [(1, 1, 1), (3, 6, 2), (2, 65, 3)] {
            let segment_stride = row_stride * mr + length + 5;
            let a = panel(segments, segment_stride, 3);
            let b = panel(segments * length, nr, 5);
            let windows = Windows {
                segments,
                length,
                segment_stride,
                row_stride,
            };
            let at = |r: usize, k: usize| a[r * row_stride + k / length * segment_stride + k % length];
            let want: Vec<f32> = (0..mr * nr)
                .map(|i| (0..segments * length).map(|k| at(i / nr, k) * b[k * nr + i % nr]).sum())
                .collect();
            let mut tile = Tile([f32::NAN; MAX_TILE]);
            kernel.windows(&windows, &a, &b, &mut tile);
            assert_eq!(tile.0[..mr * nr], want, "{windows:?}");
        }
    }
}
