//! Weights of linear layers and convolutions as the panels that their forward pass multiplies with, made part by part
//! from wherever the values are, and back: depth is (tap, input), the inputs of each tap filled up to whole words.

use crate::DType;
use crate::cpu::bf16::{HIGH, rounded};
use crate::cpu::int4::{self, Int4Panels, Int4Rows};
use crate::cpu::interleave::interleave;
use crate::cpu::kernel::{Block, Factor, Pair, Quad, Word, kernel};
use crate::cpu::pack::{Aligned, Panels};
use crate::cpu::packed::Packed;
use crate::cpu::{quad, winograd};
use half::bf16;
use rayon::prelude::*;
use std::convert::Infallible;
use std::ops::Range;

/// Where a parameter's values come from, in the file's order. Parts are asked for by several threads at once.
pub trait Values: Sync {
    type Error: Send;

    /// Those of `range`, in `space` if they are not in memory anyway.
    fn wide<'a>(&'a self, range: Range<usize>, space: &'a mut Vec<f32>) -> Result<&'a [f32], Self::Error>;

    /// The same, rounded to the nearest bf16.
    fn narrow<'a>(&'a self, range: Range<usize>, space: &'a mut Vec<bf16>) -> Result<&'a [bf16], Self::Error>;

    /// In how many bits they are stored, if not as floats.
    fn bits(&self) -> Option<u8> {
        None
    }

    /// The weights of some outputs as they are stored in 4 bits, if they are.
    fn int4(&self, outputs: Range<usize>, depth: usize) -> Option<Result<Int4Rows, Self::Error>> {
        let _ = (outputs, depth);
        None
    }

    /// Appends the weights of some outputs, `depth` each, in 8 bits, and what one of each output's is worth.
    fn int8(
        &self,
        outputs: Range<usize>,
        depth: usize,
        weights: &mut Vec<i8>,
        scales: &mut Vec<f32>,
    ) -> Result<(), Self::Error> {
        let mut space = Vec::new();
        let rows = self.wide(outputs.start * depth..outputs.end * depth, &mut space)?;
        scales.extend(rows.chunks_exact(depth).map(|row| quantize_row(row, weights)));
        Ok(())
    }
}

/// Some outputs of a weight, `[inputs][taps]` each, rounded to 4 bits.
fn int4_rows(rows: &[f32], depth: usize, taps: usize) -> Int4Rows {
    let mut made = Int4Rows::default();
    rows.chunks_exact(depth).for_each(|row| made.push(row, taps));
    made
}

/// Appends a row of weights rounded to 8 bits, its largest to 127, and returns what one is worth.
pub fn quantize_row(row: &[f32], weights: &mut Vec<i8>) -> f32 {
    let largest = row.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let scale = largest / quad::MAX_WEIGHT;
    let inverse = if scale > f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
    // A cast keeps within -128 and 127, and the row's largest is 127.
    weights.extend(row.iter().map(|x| (x * inverse).round_ties_even() as i8));
    scale
}

/// How a parameter is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// In the file's layout: f32, or else bf16.
    Stored(DType),
    /// As the panels that products on the CPU read, and nothing else, if it is a weight of a linear layer or a
    /// convolution. What is stored in 8 or 4 bits stays so.
    Packed(DType),
    /// The same, but where the forward pass multiplies faster with sums of the weights ([`Param::sums_weights`]) these are kept
    /// alone: bf16 weights are not to be had back to the last bit.
    ///
    /// [`Param::sums_weights`]: crate::Param::sums_weights
    Summed(DType),
    /// The same as `Packed` in 8 bits; bf16 where that is not possible. What is stored in 4 bits stays so.
    Int8,
}

impl Values for [f32] {
    type Error = Infallible;

    fn wide<'a>(&'a self, range: Range<usize>, _: &'a mut Vec<f32>) -> Result<&'a [f32], Infallible> {
        Ok(&self[range])
    }

    fn narrow<'a>(&'a self, range: Range<usize>, space: &'a mut Vec<bf16>) -> Result<&'a [bf16], Infallible> {
        space.clear();
        space.extend(self[range].iter().map(|x| bf16::from_bits((rounded(*x) >> 16) as u16)));
        Ok(space)
    }
}

/// Another number for each way in which packed forms were laid out, and parameters made of files: files of packed weights that
/// were written under another are not read.
pub(crate) const LAYOUT: u32 = 2;

/// Whether a weight of this shape can be kept in 4 bits.
pub(crate) fn fits_int4(shape: &[usize]) -> bool {
    fits_int8(shape) && shape[1].is_multiple_of(int4::GROUP)
}

/// Whether a weight of this shape can be kept in bytes.
pub(crate) fn fits_int8(shape: &[usize]) -> bool {
    is_weight(shape) && shape[1..].iter().product::<usize>() <= quad::MAX_DEPTH
}

/// Whether a parameter of this shape is what products have on their right.
pub(crate) fn is_weight(shape: &[usize]) -> bool {
    match *shape {
        [outputs, inputs] => outputs * inputs > 0,
        // One input channel may be a depthwise filter, which is packed otherwise.
        [outputs, inputs, kh, kw] => inputs > 1 && outputs * kh * kw > 0,
        _ => false,
    }
}

/// Outputs, inputs, and the taps of a convolution.
fn sizes(shape: &[usize]) -> [usize; 3] {
    [shape[0], shape[1], shape[2..].iter().product()]
}

/// Words, and the values that they consist of.
trait WeightWord: Word {
    type Value: bytemuck::Pod;

    fn take<'a, V: Values + ?Sized>(
        values: &'a V,
        range: Range<usize>,
        space: &'a mut Vec<Self::Value>,
    ) -> Result<&'a [Self::Value], V::Error>;
}

impl WeightWord for f32 {
    type Value = f32;

    fn take<'a, V: Values + ?Sized>(
        values: &'a V,
        range: Range<usize>,
        space: &'a mut Vec<f32>,
    ) -> Result<&'a [f32], V::Error> {
        values.wide(range, space)
    }
}

impl WeightWord for Pair {
    type Value = bf16;

    fn take<'a, V: Values + ?Sized>(
        values: &'a V,
        range: Range<usize>,
        space: &'a mut Vec<bf16>,
    ) -> Result<&'a [bf16], V::Error> {
        values.narrow(range, space)
    }
}

/// A weight `[outputs, inputs]` or `[outputs, inputs, kh, kw]` as the right matrix of a product of depth (tap, input).
pub(crate) fn pack<V: Values + ?Sized>(shape: &[usize], dtype: DType, values: &V) -> Result<Packed, V::Error> {
    Ok(if dtype == DType::F32 {
        Packed::F32(panels(sizes(shape), values)?)
    } else {
        Packed::Bf16(panels(sizes(shape), values)?)
    })
}

/// The same in 8 bits.
pub(crate) fn pack_int8<V: Values + ?Sized>(shape: &[usize], values: &V) -> Result<Packed, V::Error> {
    let [outputs, inputs, taps] = sizes(shape);
    pack_bytes(
        kernel().for_columns(outputs),
        [outputs, inputs, taps],
        |rows, bytes, scales| values.int8(rows, inputs * taps, bytes, scales),
    )
}

/// The same in 4 bits, which they are stored in or become.
pub(crate) fn pack_int4<V: Values + ?Sized>(shape: &[usize], values: &V) -> Result<Packed, V::Error> {
    let [outputs, inputs, taps] = sizes(shape);
    let depth = inputs * taps;
    let panels = Int4Panels::pack(outputs, depth, |rows| {
        if let Some(stored) = values.int4(rows.clone(), depth) {
            return stored;
        }
        let mut space = Vec::new();
        let wide = values.wide(rows.start * depth..rows.end * depth, &mut space)?;
        Ok(int4_rows(wide, depth, taps))
    })?;
    Ok(Packed::Int4(panels))
}

/// The same for a block that is chosen already; `rows(outputs, bytes, scales)` appends the bytes of some outputs in the file's
/// order, and a scale for each.
pub(crate) fn pack_bytes<E: Send>(
    block: &'static Block,
    [outputs, inputs, taps]: [usize; 3],
    rows: impl Fn(Range<usize>, &mut Vec<i8>, &mut Vec<f32>) -> Result<(), E> + Sync,
) -> Result<Packed, E> {
    let (nr, depth) = (block.nr, inputs * taps);
    let words_deep = taps * inputs.div_ceil(Quad::DEPTHS);
    let panel_words = (words_deep + quad::FOOT) * nr;
    let write = |panel, out: &mut [Quad], space: &mut (Vec<i8>, Vec<f32>, Vec<Quad>)| {
        let (bytes, scales, ordered) = space;
        let columns = panel * nr..outputs.min((panel + 1) * nr);
        bytes.clear();
        scales.clear();
        rows(columns.clone(), bytes, scales)?;
        ordered.clear();
        ordered.resize(columns.len() * words_deep, 0);
        let (out, foot) = out.split_at_mut(words_deep * nr);
        let (sums, worths) = foot.split_at_mut(nr);
        for (i, row) in bytes.chunks_exact(depth).enumerate() {
            let words = &mut ordered[i * words_deep..][..words_deep];
            order(row, taps, bytemuck::cast_slice_mut(words));
            sums[i] = row.iter().map(|weight| i32::from(*weight)).sum();
            worths[i] = scales[i].to_bits() as i32;
        }
        // Words are moved as they are, whatever their type.
        let strips: Vec<&[f32]> = ordered.chunks_exact(words_deep).map(bytemuck::cast_slice).collect();
        interleave(&strips, nr, bytemuck::cast_slice_mut(out));
        Ok(())
    };
    let words = Aligned::written(outputs.div_ceil(nr) * panel_words, panel_words, write)?;
    let words = words.into();
    Ok(Packed::Int8(Panels { block, words }))
}

fn panels<W: WeightWord, V: Values + ?Sized>(
    [outputs, inputs, taps]: [usize; 3],
    values: &V,
) -> Result<Panels<W>, V::Error> {
    let block = kernel().for_columns(outputs);
    let (nr, depth) = (block.nr, inputs * taps);
    let words_deep = taps * inputs.div_ceil(W::DEPTHS);
    let len = outputs.div_ceil(nr) * nr * words_deep;
    let write = |panel, out: &mut [W], (space, ordered): &mut (Vec<W::Value>, Vec<W>)| {
        let columns = panel * nr..outputs.min((panel + 1) * nr);
        let stored = W::take(values, columns.start * depth..columns.end * depth, space)?;
        ordered.clear();
        ordered.resize(columns.len() * words_deep, W::zeroed());
        let rows = ordered.chunks_exact_mut(words_deep).zip(stored.chunks_exact(depth));
        rows.for_each(|(out, row)| order(row, taps, bytemuck::cast_slice_mut(out)));
        // Words are moved as they are, whatever their type.
        let strips: Vec<&[f32]> = ordered.chunks_exact(words_deep).map(bytemuck::cast_slice).collect();
        interleave(&strips, nr, bytemuck::cast_slice_mut(out));
        Ok(())
    };
    let words = Aligned::written(len, nr * words_deep, write)?.into();
    Ok(Panels { block, words })
}

/// Whether these are as many words as [`pack`] makes of a weight of that shape.
pub(crate) fn fits(packed: &Packed, shape: &[usize]) -> bool {
    fn is_whole<W: WeightWord>(panels: &Panels<W>, [outputs, inputs, taps]: [usize; 3]) -> bool {
        panels.words.len() == outputs.next_multiple_of(panels.block.nr) * taps * inputs.div_ceil(W::DEPTHS)
    }
    is_weight(shape)
        && match packed {
            Packed::F32(panels) => is_whole(panels, sizes(shape)),
            Packed::Bf16(panels) => is_whole(panels, sizes(shape)),
            Packed::Winograd(panels) => winograd::is_whole(panels, shape),
            Packed::Int8(_) | Packed::Int4(_) => false,
        }
}

/// `[inputs, taps]` to `[taps, inputs]`, the inputs filled up to whole words by what is there.
fn order<T: Copy>(row: &[T], taps: usize, out: &mut [T]) {
    if taps == 1 {
        out[..row.len()].copy_from_slice(row);
        return;
    }
    let padded = out.len() / taps;
    for (tap, out) in out.chunks_exact_mut(padded).enumerate() {
        for (value, stored) in out.iter_mut().zip(row[tap..].iter().step_by(taps)) {
            *value = *stored;
        }
    }
}

/// The values of a weight of `shape`, in the file's order.
pub(crate) fn unpack(packed: &Packed, shape: &[usize]) -> Vec<f32> {
    match packed {
        Packed::F32(panels) => unpack_panels(panels, 0, sizes(shape), |word, _, _| word),
        Packed::Bf16(panels) => unpack_panels(panels, 0, sizes(shape), |pair, half, _| {
            f32::from_bits(if half == 0 { pair << 16 } else { pair & HIGH })
        }),
        Packed::Winograd(panels) => winograd::unpack(panels, shape),
        Packed::Int8(panels) => unpack_panels(panels, quad::FOOT, sizes(shape), |four, byte, foot| {
            let scale = f32::from_bits(foot[1] as u32);
            scale * f32::from(four.to_le_bytes()[byte] as i8)
        }),
        Packed::Int4(panels) => unpack_int4(panels, sizes(shape)),
    }
}

/// The values of weights in 4 bits.
fn unpack_int4(panels: &Int4Panels, [outputs, inputs, taps]: [usize; 3]) -> Vec<f32> {
    let rows = panels.rows(outputs);
    let depth = inputs * taps;
    let mut out = vec![0.0; outputs * depth];
    out.par_chunks_mut(depth.max(1)).enumerate().for_each(|(output, row)| {
        for (i, x) in row.iter_mut().enumerate() {
            let at = output * depth + i % taps * inputs + i / taps;
            *x = rows.scales[output] * f32::from(rows.byte(at));
        }
    });
    out
}

/// The same of a weight in 8 bits, as it is kept: its bytes, and what one is worth for each output.
pub(crate) fn unpack_int8(packed: &Packed, shape: &[usize]) -> Option<(Vec<i8>, Vec<f32>)> {
    let Packed::Int8(panels) = packed else {
        return None;
    };
    let sizes = sizes(shape);
    let bytes = unpack_panels(panels, quad::FOOT, sizes, |four, byte, _| {
        four.to_le_bytes()[byte] as i8
    });
    let [outputs, inputs, taps] = sizes;
    let (nr, words) = (panels.block.nr, taps * inputs.div_ceil(Quad::DEPTHS));
    let scale = |output: usize| {
        let panel = &panels.words[output / nr * nr * (words + quad::FOOT)..];
        f32::from_bits(panel[(words + 1) * nr + output % nr] as u32)
    };
    Some((bytes, (0..outputs).map(scale).collect()))
}

/// `value(word, which of its values, the column's words behind the panel)`.
fn unpack_panels<W: Factor, T: Copy + Default + Send>(
    panels: &Panels<W>,
    foot: usize,
    [outputs, inputs, taps]: [usize; 3],
    value: impl Fn(W, usize, &[W]) -> T + Sync,
) -> Vec<T> {
    let (nr, depth, pixel) = (panels.block.nr, inputs * taps, inputs.div_ceil(W::DEPTHS));
    let mut out = vec![T::default(); outputs * depth];
    out.par_chunks_mut(depth.max(1)).enumerate().for_each(|(output, row)| {
        let panel = &panels.words[output / nr * nr * (taps * pixel + foot)..];
        let column = &panel[output % nr..];
        let foot: Vec<W> = (0..foot).map(|row| column[(taps * pixel + row) * nr]).collect();
        for (at, stored) in row.iter_mut().enumerate() {
            let (tap, input) = (at % taps, at / taps);
            let word = tap * pixel + input / W::DEPTHS;
            *stored = value(column[word * nr], input % W::DEPTHS, &foot);
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_as_it_was() {
        for shape in [
            &[1, 1][..],
            &[33, 7],
            &[70, 64],
            &[5, 2, 3, 3],
            &[40, 3, 3, 3],
            &[19, 33, 1, 3],
        ] {
            // Integers up to 255 are exact in bf16.
            let values: Vec<f32> = (0..shape.iter().product()).map(|i| (i % 251) as f32 - 99.0).collect();
            for dtype in [DType::F32, DType::BF16] {
                let Ok(packed) = pack(shape, dtype, &values[..]);
                assert_eq!(packed.dtype(), dtype);
                assert!(fits(&packed, shape) && !fits(&packed, &[shape[0] + 100, shape[1]]));
                assert_eq!(unpack(&packed, shape), values, "{shape:?} {dtype:?}");
            }
        }
    }

    #[test]
    fn panels_are_laid_out_as_files_of_packed_weights_have_them() {
        let [outputs, inputs, taps] = [70, 33, 9];
        let values: Vec<f32> = (0..outputs * inputs * taps).map(|i| (i % 251) as f32 - 99.0).collect();
        let value = |o: usize, i: usize, tap: usize| {
            let is_there = o < outputs && i < inputs;
            if is_there {
                values[(o * inputs + i) * taps + tap]
            } else {
                0.0
            }
        };
        let told = "the layout changed: raise LAYOUT, and then this test";
        let shape = [outputs, inputs, 3, 3];
        let (Ok(Packed::F32(single)), Ok(Packed::Bf16(pairs))) = (
            pack(&shape, DType::F32, &values[..]),
            pack(&shape, DType::BF16, &values[..]),
        ) else {
            panic!("{told}");
        };
        let nr = single.block.nr;
        let mut word = 0;
        for panel in 0..outputs.div_ceil(nr) {
            for tap in 0..taps {
                for i in 0..inputs {
                    for column in 0..nr {
                        assert_eq!(single.words[word], value(panel * nr + column, i, tap), "{told}");
                        word += 1;
                    }
                }
            }
        }
        word = 0;
        for panel in 0..outputs.div_ceil(nr) {
            for tap in 0..taps {
                for i in (0..inputs).step_by(2) {
                    for column in 0..nr {
                        let [low, high] = [i, i + 1].map(|i| value(panel * nr + column, i, tap).to_bits() >> 16);
                        assert_eq!(pairs.words[word], low | high << 16, "{told}");
                        word += 1;
                    }
                }
            }
        }
        assert_eq!(LAYOUT, 2);
    }
}
