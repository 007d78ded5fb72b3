//! Products of 8 bits: signed weights with a scale for each output, unsigned activations with a scale and a zero for each row
//! of a matrix or band of a picture, sums in i32. With `x ≈ size (byte - zero)` and `w ≈ scale · weight` a product is
//! `size · scale · (Σ byte · weight - zero · Σ weight)`; the sums of the weights are part of their panels.

use crate::cpu::direct::BandWord;
use crate::cpu::gemm::Part;
use crate::cpu::kernel::{Factor, Quad, Tile, Windows, kernel};
use crate::cpu::math::dispatch;
use crate::cpu::pack::RightPanels;
use crate::cpu::parallel::Output;
use crate::cpu::quad::FOOT;
use crate::cpu::tile::Epilogue;
use std::cell::RefCell;

/// Values that are looked at together.
const LANES: usize = 64;

/// How values become bytes: `byte = round(value / size) + zero`, within 0 and 255.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ByteRange {
    /// NaN if one of the values is not finite, so that no result is.
    pub size: f32,
    inverse: f32,
    pub zero: i32,
}

impl ByteRange {
    /// From the lowest to the highest of `values`, zero among them.
    pub fn of(values: &[f32]) -> Self {
        let mut found = [0.0; 3];
        extremes(values, &mut found);
        let [low, high, poison] = found;
        let size = (high - low) / 255.0 + poison;
        // What is smaller has no inverse: all of it is zero.
        let inverse = if size > f32::MIN_POSITIVE { 1.0 / size } else { 0.0 };
        Self {
            size,
            inverse,
            zero: (-low * inverse).round_ties_even() as i32,
        }
    }

    /// The word of four zeros.
    fn zeros(&self) -> Quad {
        Quad::from_le_bytes([self.zero as u8; 4])
    }

    /// `values`, four a word, and zero after an end within a word.
    pub fn words(&self, values: &[f32], out: &mut [Quad]) {
        if !values.len().is_multiple_of(Quad::DEPTHS) {
            out[values.len() / Quad::DEPTHS] = self.zeros();
        }
        bytes(values, self, bytemuck::cast_slice_mut(out));
    }
}

#[inline(always)]
fn extremes_body<const FMA: bool>(values: &[f32], found: &mut [f32; 3]) {
    let (mut low, mut high, mut poison) = ([0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES]);
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            let x = chunk[l];
            low[l] = if x < low[l] { x } else { low[l] };
            high[l] = if x > high[l] { x } else { high[l] };
            // NaN of what is not finite, else nothing.
            poison[l] += x * 0.0;
        }
    }
    for (l, x) in rest.iter().enumerate() {
        low[l] = low[l].min(*x);
        high[l] = high[l].max(*x);
        poison[l] += x * 0.0;
    }
    *found = [
        low.iter().copied().fold(0.0, f32::min),
        high.iter().copied().fold(0.0, f32::max),
        poison.iter().sum(),
    ];
}

dispatch! {
    /// The lowest and the highest, zero among them, and NaN if one is not finite, else zero.
    fn extremes(values: &[f32], found: &mut [f32; 3]) = extremes_body
}

/// Adding this rounds what is small enough to the nearest integer, and leaves it in the low bits.
const ROUND: f32 = 12_582_912.0;

#[inline(always)]
fn byte(x: f32, range: &ByteRange) -> u8 {
    let rounded = (x * range.inverse + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
    (rounded + range.zero).clamp(0, 255) as u8
}

#[inline(always)]
fn bytes_body<const FMA: bool>(values: &[f32], range: &ByteRange, out: &mut [u8]) {
    let range = *range;
    let (chunks, rest) = values.as_chunks::<LANES>();
    let (out, end) = out[..values.len()].split_at_mut(chunks.len() * LANES);
    for (values, out) in chunks.iter().zip(out.as_chunks_mut::<LANES>().0) {
        for l in 0..LANES {
            out[l] = byte(values[l], &range);
        }
    }
    for (out, x) in end.iter_mut().zip(rest) {
        *out = byte(*x, &range);
    }
}

dispatch! {
    fn bytes(values: &[f32], range: &ByteRange, out: &mut [u8]) = bytes_body
}

#[inline(always)]
fn finish_columns<const NR: usize>(tile: &mut [f32], ranges: &[ByteRange], foot: &[Quad]) {
    let (Some(sums), Some(scales)) = (foot.first_chunk::<NR>(), foot[NR..].first_chunk::<NR>()) else {
        return;
    };
    // All rows of a band have one.
    let one = ranges[0];
    for (r, row) in tile.as_chunks_mut::<NR>().0.iter_mut().enumerate() {
        let range = ranges.get(r).unwrap_or(&one);
        for i in 0..NR {
            let sum = (row[i].to_bits() as i32).wrapping_sub(range.zero.wrapping_mul(sums[i]));
            row[i] = sum as f32 * (range.size * f32::from_bits(scales[i] as u32));
        }
    }
}

#[inline(always)]
fn finish_body<const FMA: bool>(tile: &mut [f32], nr: usize, ranges: &[ByteRange], foot: &[Quad]) {
    match nr {
        48 => finish_columns::<48>(tile, ranges, foot),
        32 => finish_columns::<32>(tile, ranges, foot),
        16 => finish_columns::<16>(tile, ranges, foot),
        _ => finish_columns::<8>(tile, ranges, foot),
    }
}

dispatch! {
    /// The sums in a tile to values, with the ranges of its rows (the first is also that of rows that have none) and the foot
    /// of the panel.
    fn finish(tile: &mut [f32], nr: usize, ranges: &[ByteRange], foot: &[Quad]) = finish_body
}

impl BandWord for Quad {
    type Range = ByteRange;
    const FOOT: usize = FOOT;
    // In bytes half of L2, for the sake of few rows that are read twice: each is rounded anew for each band.
    const BAND: usize = 1 << 19;
    const EVEN: usize = 4;
    /// Each has a range of its own.
    const JOINS_SAMPLES: bool = false;
    /// The sums of several passes would have to be kept in i32.
    const PANEL: usize = usize::MAX;

    fn range(rows: &[f32]) -> ByteRange {
        ByteRange::of(rows)
    }

    fn padding(range: &ByteRange) -> u32 {
        range.zeros() as u32
    }

    fn convert(values: &[f32], range: &ByteRange, out: &mut [Self]) {
        range.words(values, out);
    }

    fn finish(tile: &mut Tile, [mr, nr]: [usize; 2], range: &ByteRange, foot: &[Self]) {
        finish(&mut tile.0[..mr * nr], nr, std::slice::from_ref(range), foot);
    }
}

/// Rows of a left matrix in bytes.
#[derive(Default)]
struct Rows {
    words: Vec<Quad>,
    ranges: Vec<ByteRange>,
    /// A panel of weights, where they are kept otherwise.
    panel: Vec<Quad>,
}

thread_local! {
    static ROWS: RefCell<Rows> = RefCell::default();
}

/// Bytes of the rows that a task keeps: they stay in L2 beside a panel of weights.
const PART: usize = 384 << 10;

impl Rows {
    /// Each of the rows of `k` values, `stride` words apart; of as many as there are whole tiles of `mr`.
    fn fill(&mut self, values: &[f32], k: usize, stride: usize, mr: usize) {
        let rows = values.len() / k;
        self.words.resize(rows.next_multiple_of(mr) * stride, 0);
        self.ranges.clear();
        for (row, words) in values.chunks_exact(k).zip(self.words.chunks_exact_mut(stride)) {
            let range = ByteRange::of(row);
            range.words(row, words);
            self.ranges.push(range);
        }
        // What lies behind the end is computed and not used.
        self.ranges.resize(rows.next_multiple_of(mr), ByteRange::default());
    }
}

/// `epilogue(x [m, k] · right [k, n])`, row-major, each row of `x` with a range of its own.
pub(crate) fn product(x: &[f32], [n, k]: [usize; 2], right: &impl RightPanels<Quad>, epilogue: &Epilogue) -> Vec<f32> {
    let m = x.len() / k;
    let block = right.block();
    let (mr, nr) = (block.mr, block.nr);
    let words = k.div_ceil(Quad::DEPTHS);
    // Rows a multiple of 4 KiB apart would share the lines of L1.
    let stride = if words.is_multiple_of(1 << 10) {
        words + 16
    } else {
        words
    };
    let windows = Windows::even(mr, &[0], words, stride);
    let mc = kernel().mc.min(PART / (4 * words) / mr * mr).max(mr);
    let mut out = Vec::with_capacity(m * n);
    let output = Output::of(&mut out);
    Part::for_each([m, n, k], block, mc, |part| {
        ROWS.with_borrow_mut(|left| {
            left.fill(&x[part.rows.start * k..part.rows.end * k], k, stride, mr);
            let Rows {
                words: left,
                ranges,
                panel,
            } = left;
            let mut space = std::mem::take(panel);
            for number in part.panels.clone() {
                let panel = right.panel(number, (words + FOOT) * nr, &mut space);
                let part = part.of_panel(number);
                part.each_tile(&(0..k), epilogue, &output, |t, _, tile| {
                    block.windows(&windows, &left[t * mr * stride..], panel, tile);
                    finish(
                        &mut tile.0[..mr * nr],
                        nr,
                        &ranges[t * mr..][..mr],
                        &panel[words * nr..],
                    );
                });
            }
            *panel = space;
        });
    });
    // SAFETY: the parts cover all rows and columns, and each is written by copying.
    unsafe { out.set_len(m * n) };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_hold_the_range_of_the_values_and_zero_exactly() {
        for values in [
            &[0.5f32, -1.0, 3.0, 0.1, 0.0][..],
            &[2.0; 70],
            &[-7.0, -0.5],
            &[0.0; 3],
            &[1e-42; 5],
        ] {
            let range = ByteRange::of(values);
            let mut words = vec![-1; values.len().div_ceil(4)];
            range.words(values, &mut words);
            let bytes: &[u8] = bytemuck::cast_slice(&words);
            for (i, byte) in bytes.iter().enumerate() {
                let x = values.get(i).copied().unwrap_or(0.0);
                let value = range.size * (i32::from(*byte) - range.zero) as f32;
                assert!(
                    (value - x).abs() <= 0.5001 * range.size.max(1e-38),
                    "{x} became {value} of {range:?}"
                );
                assert!(x != 0.0 || value == 0.0);
            }
        }
    }

    #[test]
    fn what_is_not_finite_leaves_no_finite_result() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 5, 69] {
                let mut values = [1.0; 70];
                values[at] = bad;
                assert!(ByteRange::of(&values).size.is_nan(), "{bad} at {at}");
            }
        }
    }
}
