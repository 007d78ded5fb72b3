//! The register blocks that matrices are multiplied in, and which of them this machine has.

use crate::cpu::level::{Level, level};
#[cfg(target_arch = "x86_64")]
use crate::cpu::micro_kernel::x86::{
    Pairs, packed_256, packed_512, packed_512_bf16, windows_256, windows_256_vnni, windows_512, windows_512_bf16,
    windows_512_bw, windows_512_vnni,
};
pub(crate) use crate::cpu::micro_kernel::{GROUPS, Windows};
use crate::cpu::micro_kernel::{
    PackedKernel, Single, Widened, WindowKernel, portable_packed, portable_windows, rows_of_group,
};
pub(crate) use crate::cpu::outer_kernel::Walk;
#[cfg(target_arch = "x86_64")]
use crate::cpu::outer_kernel::x86::{outer_256, outer_512, outer_512_bf16};
use crate::cpu::outer_kernel::{self, Outer, OuterKernel};
use crate::cpu::quad::Quads;
#[cfg(target_arch = "x86_64")]
use crate::cpu::quad::x86::Dots;
use crate::cpu::slide::{self, Slide};
use crate::cpu::{bf16, interleave};

/// Two values of bf16, the first in the low half.
pub(crate) type Pair = u32;

/// Four values of 8 bits, the first in the lowest byte: unsigned on the left of a product, signed on its right.
pub(crate) type Quad = i32;

/// What panels consist of.
pub(crate) trait Factor: bytemuck::Pod + Send + Sync {
    /// Depths in a word.
    const DEPTHS: usize;

    fn windows(block: &Block) -> WindowKernel;
}

impl Factor for f32 {
    const DEPTHS: usize = 1;

    fn windows(block: &Block) -> WindowKernel {
        block.single.windows
    }
}

impl Factor for Pair {
    const DEPTHS: usize = 2;

    fn windows(block: &Block) -> WindowKernel {
        block.pairs.windows
    }
}

impl Factor for Quad {
    const DEPTHS: usize = 4;

    fn windows(block: &Block) -> WindowKernel {
        block.quads
    }
}

/// The factors that values become by rounding alone: f32, or pairs of bf16 that are neighbours in the depth.
pub(crate) trait Word: Factor {
    fn forms(block: &Block) -> &Forms;

    /// Up to `width` strips of equal length as one panel, `out[word · width + r]`, zero for strips that are not there and
    /// after an odd end. `space` is scratch.
    fn interleave(strips: &[&[f32]], width: usize, out: &mut [Self], space: &mut Vec<f32>);

    /// A panel `[k][width]` as words, zero after an odd end.
    fn join(panel: &[f32], width: usize, out: &mut [Self]);

    /// Values in a row as words: [`join`](Self::join) of a panel of width one.
    fn convert(values: &[f32], out: &mut [Self]);

    /// For each pixel that [`Slide`] names the word of its values and those of the pixel after it.
    fn slide(line: &[f32], slide: &Slide, out: &mut [Self]);

    fn outer(outer: &Outer) -> &'static [OuterKernel];
}

impl Word for f32 {
    fn forms(block: &Block) -> &Forms {
        &block.single
    }

    fn interleave(strips: &[&[f32]], width: usize, out: &mut [Self], _: &mut Vec<f32>) {
        interleave::interleave(strips, width, out);
    }

    fn join(panel: &[f32], _: usize, out: &mut [Self]) {
        out.copy_from_slice(panel);
    }

    fn convert(values: &[f32], out: &mut [Self]) {
        out.copy_from_slice(values);
    }

    fn slide(line: &[f32], slide: &Slide, out: &mut [Self]) {
        slide::slide_values(line, slide, out);
    }

    fn outer(outer: &Outer) -> &'static [OuterKernel] {
        outer.single
    }
}

impl Word for Pair {
    fn forms(block: &Block) -> &Forms {
        &block.pairs
    }

    fn interleave(strips: &[&[f32]], width: usize, out: &mut [Self], space: &mut Vec<f32>) {
        bf16::interleave_pairs(strips, width, out, space);
    }

    fn join(panel: &[f32], width: usize, out: &mut [Self]) {
        bf16::pair_depths(panel, width, out);
    }

    fn convert(values: &[f32], out: &mut [Self]) {
        bf16::pair_row(values, out);
    }

    fn slide(line: &[f32], slide: &Slide, out: &mut [Self]) {
        slide::slide_pairs(line, slide, out);
    }

    fn outer(outer: &Outer) -> &'static [OuterKernel] {
        outer.pairs
    }
}

/// A block of results, `mr x nr`, that is summed in registers.
pub(crate) struct Block {
    pub mr: usize,
    pub nr: usize,
    single: Forms,
    pairs: Forms,
    /// Its sums are i32, in the bits of the tile's f32.
    quads: WindowKernel,
}

/// The micro-kernels of a block for one kind of word.
pub(crate) struct Forms {
    packed: PackedKernel,
    windows: WindowKernel,
}

/// The blocks of a machine, and what else suits it.
pub(crate) struct Kernel {
    pub name: &'static str,
    /// Whether a pair of bf16 products is one instruction. Elsewhere bf16 saves memory, not arithmetic.
    pub multiplies_bf16: bool,
    /// Rows of a part of the left matrix, which stays in L2: a multiple of every `mr`.
    pub mc: usize,
    /// The best first, should the others fit no better.
    pub blocks: &'static [Block],
    pub outer: Outer,
}

/// Largest block of any kernel.
const MAX_TILE: usize = 12 * 32;

/// One block of results, `[mr][nr]`, on cache lines of its own.
#[repr(C, align(64))]
pub(crate) struct Tile(pub [f32; MAX_TILE]);

impl Tile {
    pub const ZERO: Self = Self([0.0; MAX_TILE]);
}

impl Block {
    /// Rows of a group of [`Windows`].
    pub fn group(&self) -> usize {
        rows_of_group(self.mr)
    }

    /// `tile[mr × nr] = a[depth × mr]ᵀ · b[depth × nr]`, the depth in words.
    pub fn multiply<W: Word>(&self, depth: usize, a: &[W], b: &[W], tile: &mut [f32]) {
        assert!(a.len() >= depth * self.mr && b.len() >= depth * self.nr && tile.len() >= self.mr * self.nr);
        // SAFETY: the lengths were just checked, and `kernel` checked the processor.
        unsafe { (W::forms(self).packed)(depth, a.as_ptr().cast(), b.as_ptr().cast(), tile.as_mut_ptr()) };
    }

    /// `tile[mr × nr] = a · b`: the windows at the start of `a`, and a packed panel.
    pub fn windows<W: Factor>(&self, windows: &Windows, a: &[W], b: &[W], tile: &mut Tile) {
        let groups = &windows.groups[..self.mr / self.group()];
        let last = groups.iter().max().unwrap_or(&0)
            + (self.group() - 1) * windows.row_stride
            + windows.segments.iter().max().unwrap_or(&0);
        assert!(a.len() >= last + windows.length && b.len() >= windows.segments.len() * windows.length * self.nr);
        // SAFETY: what the kernel reads of a and b was checked to be there; a tile holds mr x nr values.
        unsafe { W::windows(self)(windows, a.as_ptr().cast(), b.as_ptr().cast(), tile.0.as_mut_ptr()) };
    }
}

impl Kernel {
    /// The block that multiplies the fewest columns past the end of `columns`.
    pub fn for_columns(&self, columns: usize) -> &Block {
        self.cheapest(|block| columns.next_multiple_of(block.nr))
    }

    /// The block of the lowest cost, the first of equals.
    pub fn cheapest(&self, cost: impl Fn(&Block) -> usize) -> &Block {
        let cheaper = |best, block| if cost(block) < cost(best) { block } else { best };
        self.blocks.iter().fold(&self.blocks[0], cheaper)
    }
}

/// Defines a block of `MR` rows of `V` vectors of some lanes.
macro_rules! block {
    ($(#[$meta:meta])* $name:ident: $lanes:literal, $packed:ident, $windows:ident, $quads:ident) => {
        $(#[$meta])*
        const fn $name<const MR: usize, const V: usize>() -> Block {
            Block {
                mr: MR,
                nr: V * $lanes,
                single: Forms {
                    packed: $packed::<Single, MR, V>,
                    windows: $windows::<Single, MR, V>,
                },
                pairs: Forms {
                    packed: $packed::<Widened, MR, V>,
                    windows: $windows::<Widened, MR, V>,
                },
                quads: $quads::<Quads, MR, V>,
            }
        }
    };
}

block!(portable: 1, portable_packed, portable_windows, portable_windows);
block!(#[cfg(target_arch = "x86_64")] avx2: 8, packed_256, windows_256, windows_256);
block!(#[cfg(target_arch = "x86_64")] avx512: 16, packed_512, windows_512, windows_512_bw);

#[cfg(target_arch = "x86_64")]
const fn avx_vnni<const MR: usize, const V: usize>() -> Block {
    Block {
        quads: windows_256_vnni::<Dots, MR, V>,
        ..avx2::<MR, V>()
    }
}

#[cfg(target_arch = "x86_64")]
const fn avx512_vnni<const MR: usize, const V: usize>() -> Block {
    Block {
        quads: windows_512_vnni::<Dots, MR, V>,
        ..avx512::<MR, V>()
    }
}

#[cfg(target_arch = "x86_64")]
const fn avx512_bf16<const MR: usize, const V: usize>() -> Block {
    Block {
        pairs: Forms {
            packed: packed_512_bf16::<Pairs, MR, V>,
            windows: windows_512_bf16::<Pairs, MR, V>,
        },
        ..avx512_vnni::<MR, V>()
    }
}

/// The kernels of `$mr` rows and these numbers of columns, in the kernel's own count.
macro_rules! outer {
    ($mr:literal, $lanes:literal, $kernel:path, $product:ty, $($columns:literal),+) => {{
        use $kernel as kernel;
        const KERNELS: &[OuterKernel] = &[$(kernel::<$product, $mr, $columns>),+];
        KERNELS
    }};
    ($mr:literal, $lanes:literal, $kernel:path, $($columns:literal),+) => {
        Outer {
            mr: $mr,
            lanes: $lanes,
            single: outer!($mr, $lanes, $kernel, Single, $($columns),+),
            pairs: outer!($mr, $lanes, $kernel, Widened, $($columns),+),
        }
    };
}

static PORTABLE: Kernel = Kernel {
    name: "portable",
    multiplies_bf16: false,
    mc: 96,
    blocks: &[portable::<6, 8>()],
    outer: outer!(4, 4, outer_kernel::portable, 4, 8, 12),
};

#[cfg(target_arch = "x86_64")]
static AVX2: Kernel = Kernel {
    name: "avx2",
    multiplies_bf16: false,
    mc: 96,
    blocks: &[avx2::<6, 2>()],
    outer: outer!(6, 8, outer_256, 1, 2),
};

#[cfg(target_arch = "x86_64")]
static AVX_VNNI: Kernel = Kernel {
    name: "avx-vnni",
    multiplies_bf16: false,
    mc: 96,
    blocks: &[avx_vnni::<6, 2>()],
    outer: outer!(6, 8, outer_256, 1, 2),
};

#[cfg(target_arch = "x86_64")]
static AVX512: Kernel = Kernel {
    name: "avx512",
    multiplies_bf16: false,
    mc: 192,
    blocks: &[avx512::<12, 2>(), avx512::<12, 1>(), avx512::<8, 3>()],
    outer: outer!(8, 16, outer_512, 1, 2, 3),
};

#[cfg(target_arch = "x86_64")]
static AVX512_VNNI: Kernel = Kernel {
    name: "avx512-vnni",
    multiplies_bf16: false,
    mc: 192,
    blocks: &[avx512_vnni::<12, 2>(), avx512_vnni::<12, 1>(), avx512_vnni::<8, 3>()],
    outer: outer!(8, 16, outer_512, 1, 2, 3),
};

#[cfg(target_arch = "x86_64")]
static AVX512_BF16: Kernel = Kernel {
    name: "avx512-bf16",
    multiplies_bf16: true,
    mc: 192,
    blocks: &[avx512_bf16::<12, 2>(), avx512_bf16::<12, 1>(), avx512_bf16::<8, 3>()],
    outer: Outer {
        pairs: outer!(8, 16, outer_512_bf16, Pairs, 1, 2, 3),
        ..outer!(8, 16, outer_512, 1, 2, 3)
    },
};

/// What this machine multiplies with.
pub(crate) fn kernel() -> &'static Kernel {
    match level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Bf16 => &AVX512_BF16,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => &AVX512_VNNI,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => &AVX512,
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => &AVX_VNNI,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => &AVX2,
        _ => &PORTABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::interleave::MAX_WIDTH;

    /// `k` values of each of `width` rows, packed, that bf16 holds exactly.
    fn panel(k: usize, width: usize, seed: usize) -> Vec<f32> {
        (0..k * width)
            .map(|i| ((i * 7 + i / 5 + seed) % 17) as f32 / 8.0 - 1.0)
            .collect()
    }

    fn pairs(panel: &[f32], width: usize) -> Vec<Pair> {
        let mut out = vec![0; (panel.len() / width).div_ceil(2) * width];
        bf16::pair_depths(panel, width, &mut out);
        out
    }

    fn all_blocks() -> impl Iterator<Item = &'static Block> {
        kernel().blocks.iter().chain(PORTABLE.blocks)
    }

    #[test]
    fn blocks_are_multiplied_exactly_where_the_sums_are_exact() {
        for block in all_blocks() {
            let (mr, nr) = (block.mr, block.nr);
            assert!(mr * nr <= MAX_TILE && mr.max(nr) <= MAX_WIDTH && kernel().mc.is_multiple_of(mr));
            for k in [1, 2, 3, 7, 64, 129] {
                let (a, b) = (panel(k, mr, 1), panel(k, nr, 5));
                let want: Vec<f32> = (0..mr * nr)
                    .map(|i| (0..k).map(|kk| a[kk * mr + i / nr] * b[kk * nr + i % nr]).sum())
                    .collect();
                let mut tile = Tile([f32::NAN; MAX_TILE]);
                block.multiply(k, &a, &b, &mut tile.0);
                assert_eq!(tile.0[..mr * nr], want, "{mr}x{nr} f32, depth {k}");
                let mut tile = Tile([f32::NAN; MAX_TILE]);
                block.multiply(k.div_ceil(2), &pairs(&a, mr), &pairs(&b, nr), &mut tile.0);
                assert_eq!(tile.0[..mr * nr], want, "{mr}x{nr} bf16, depth {k}");
            }
        }
    }

    #[test]
    fn windows_are_read_where_they_lie() {
        for (block, (segments, length, row_stride)) in
            all_blocks().flat_map(|block| [(1, 2, 2), (3, 6, 2), (2, 66, 4)].map(|sizes| (block, sizes)))
        {
            let (mr, nr) = (block.mr, block.nr);
            let segment_stride = 2 * row_stride * mr + length + 6;
            let a = panel(segments, segment_stride, 3);
            let b = panel(segments * length, nr, 5);
            let starts: Vec<usize> = (0..segments).map(|i| i * segment_stride).collect();
            // Groups anywhere, the last of them first.
            let group = block.group();
            let windows = Windows {
                groups: [2, 0, 1].map(|i| i * (group + 1) * row_stride),
                ..Windows::even(mr, &starts, length, row_stride)
            };
            let row = |r: usize| windows.groups[r / group] + r % group * row_stride;
            let at = |r: usize, k: usize| a[row(r) + k / length * segment_stride + k % length];
            let want: Vec<f32> = (0..mr * nr)
                .map(|i| (0..segments * length).map(|k| at(i / nr, k) * b[k * nr + i % nr]).sum())
                .collect();
            let mut tile = Tile([f32::NAN; MAX_TILE]);
            block.windows(&windows, &a, &b, &mut tile);
            assert_eq!(tile.0[..mr * nr], want, "{mr}x{nr} f32, {windows:?}");
            let halves = Windows {
                segments: &starts.iter().map(|at| at / 2).collect::<Vec<_>>(),
                length: length / 2,
                row_stride: row_stride / 2,
                groups: windows.groups.map(|at| at / 2),
            };
            let mut tile = Tile([f32::NAN; MAX_TILE]);
            block.windows(&halves, &pairs(&a, 1), &pairs(&b, nr), &mut tile);
            assert_eq!(tile.0[..mr * nr], want, "{mr}x{nr} bf16, {windows:?}");
        }
    }

    #[test]
    fn the_block_is_the_one_that_wastes_least() {
        for columns in 1usize..300 {
            let width = |block: &Block| columns.next_multiple_of(block.nr);
            let chosen = width(kernel().for_columns(columns));
            assert!(kernel().blocks.iter().all(|block| width(block) >= chosen));
        }
    }
}
