//! Weights of 4 bits that become the bytes of `int8` panel by panel while they are multiplied: of each
//! [`GROUP`] inputs of an output a step and a zero in whole bytes, `byte = step · nibble + zero`, and a scale for the output.
//! The bytes are exact, so that products are those of 8 bits; memory is that of four and a half.

use crate::cpu::kernel::{Block, Quad, kernel};
use crate::cpu::math::dispatch;
use crate::cpu::pack::{Aligned, RightPanels};
use crate::cpu::quad::{FOOT, MAX_WEIGHT};
use std::ops::Range;

/// Inputs that share a step and a zero.
pub const GROUP: usize = 32;
/// Rows of words of a group: eight nibbles each.
const ROWS: usize = GROUP / 8;
/// Steps that are tried below the one that holds a group's whole range.
const TRIED: i32 = 4;

/// A right matrix in panels of a block's columns, each `[groups · 4 + groups / 2 + 2][nr]` words: nibbles, of two groups step and
/// zero, and the foot of a panel of bytes.
pub(crate) struct Int4Panels {
    pub block: &'static Block,
    pub words: Aligned<u32>,
    /// Along the depth.
    groups: usize,
}

/// Weights of 4 bits of some outputs, whose depth is (tap, input).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Int4Rows {
    /// Two a byte, the first in the low half.
    pub nibbles: Vec<u8>,
    /// For each group its step, and its zero plus 128.
    pub groups: Vec<[u8; 2]>,
    /// What a byte is worth, for each output.
    pub scales: Vec<f32>,
}

impl Int4Rows {
    /// Adds an output: its weights as they are stored, `[inputs][taps]`.
    pub fn push(&mut self, row: &[f32], taps: usize) {
        let largest = row.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let scale = largest / MAX_WEIGHT;
        let inverse = if scale > f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
        let inputs = row.len() / taps;
        let mut group = [0.0; GROUP];
        for (tap, first) in (0..taps).flat_map(|tap| (0..inputs).step_by(GROUP).map(move |first| (tap, first))) {
            for (i, x) in group.iter_mut().enumerate() {
                *x = row[(first + i) * taps + tap] * inverse;
            }
            let (step, zero) = best_steps(&group);
            let nibble = |x: f32| nibble(x, step, zero) as u8;
            self.nibbles.extend(
                group
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|[a, b]| nibble(*a) | nibble(*b) << 4),
            );
            self.groups.push([step as u8, (zero + 128) as u8]);
        }
        self.scales.push(scale);
    }

    /// Byte `at` of the weights that were pushed, one output after the other.
    pub fn byte(&self, at: usize) -> i8 {
        let nibble = self.nibbles[at / 2] >> (4 * (at % 2)) & 15;
        let [step, zero] = self.groups[at / GROUP];
        (nibble.wrapping_mul(step)).wrapping_add(zero.wrapping_sub(128)) as i8
    }
}

/// The nibble that `step · nibble + zero` comes nearest to `x` with, within 127.
#[inline(always)]
fn nibble(x: f32, step: i32, zero: i32) -> i32 {
    let most = ((127 - zero) / step).min(15);
    (((x - zero as f32) / step as f32).round_ties_even() as i32).clamp(0, most)
}

/// Step and zero that lose least of a group, in squares.
fn best_steps(group: &[f32; GROUP]) -> (i32, i32) {
    let low = group.iter().copied().fold(f32::INFINITY, f32::min);
    let high = group.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let widest = (((high - low) / 15.0).ceil() as i32).clamp(1, 17);
    let loss = |step: i32, zero: i32| -> f32 {
        let apart = group.iter().map(|x| x - (step * nibble(*x, step, zero) + zero) as f32);
        apart.map(|x| x * x).sum()
    };
    let mut best = (f32::INFINITY, 1, 0);
    for step in (widest - TRIED).max(1)..=widest {
        // The middle of the range in the middle of the nibbles.
        let zero = ((low + high - 15.0 * step as f32) / 2.0)
            .round_ties_even()
            .clamp(-128.0, 127.0) as i32;
        let loss = loss(step, zero);
        if loss < best.0 {
            best = (loss, step, zero);
        }
    }
    (best.1, best.2)
}

impl Int4Panels {
    /// `rows(outputs)` gives the weights of some outputs of that depth.
    pub fn pack<E: Send>(
        outputs: usize,
        depth: usize,
        rows: impl Fn(Range<usize>) -> Result<Int4Rows, E> + Sync,
    ) -> Result<Self, E> {
        let block = kernel().for_columns(outputs);
        let (nr, groups) = (block.nr, depth / GROUP);
        let size = rows_of_panel(groups) * nr;
        let write = |panel: usize, out: &mut [u32], (): &mut ()| {
            let columns = panel * nr..outputs.min((panel + 1) * nr);
            let rows = rows(columns.clone())?;
            for column in 0..columns.len() {
                let mut sum = 0;
                for group in 0..groups {
                    let first = column * depth + group * GROUP;
                    for i in 0..GROUP {
                        sum += i32::from(rows.byte(first + i));
                        // A group begins with a whole byte.
                        let nibble = u32::from(rows.nibbles[first / 2 + i / 2] >> (4 * (i % 2)) & 15);
                        // Byte i % 4 of word i / 8, the low half for the first four of eight.
                        out[(group * ROWS + i / 8) * nr + column] |= nibble << (8 * (i % 4) + 4 * (i % 8 / 4));
                    }
                    let [step, zero] = rows.groups[column * groups + group];
                    let both = u32::from(step) | u32::from(zero.wrapping_sub(128)) << 8;
                    out[(groups * ROWS + group / 2) * nr + column] |= both << (16 * (group % 2));
                }
                let foot = groups * ROWS + groups.div_ceil(2);
                out[foot * nr + column] = sum as u32;
                out[(foot + 1) * nr + column] = rows.scales[column].to_bits();
            }
            Ok(())
        };
        let words = Aligned::written(outputs.div_ceil(nr) * size, size, write)?;
        Ok(Self { block, words, groups })
    }

    /// The weights of all outputs.
    pub fn rows(&self, outputs: usize) -> Int4Rows {
        let (nr, groups) = (self.block.nr, self.groups);
        let mut rows = Int4Rows::default();
        for output in 0..outputs {
            let panel = &self.words[output / nr * rows_of_panel(groups) * nr..];
            let word = |row: usize| panel[row * nr + output % nr];
            for group in 0..groups {
                let nibble = |i: usize| (word(group * ROWS + i / 8) >> (8 * (i % 4) + 4 * (i % 8 / 4)) & 15) as u8;
                let pairs = (0..GROUP / 2).map(|i| nibble(2 * i) | nibble(2 * i + 1) << 4);
                rows.nibbles.extend(pairs);
                let both = word(groups * ROWS + group / 2) >> (16 * (group % 2));
                rows.groups.push([both as u8, (both >> 8) as u8 ^ 128]);
            }
            let scale = word(groups * ROWS + groups.div_ceil(2) + 1);
            rows.scales.push(f32::from_bits(scale));
        }
        rows
    }
}

fn rows_of_panel(groups: usize) -> usize {
    groups * ROWS + groups.div_ceil(2) + FOOT
}

impl RightPanels<Quad> for Int4Panels {
    fn block(&self) -> &'static Block {
        self.block
    }

    fn holds(&self, panels: usize, words: usize) -> bool {
        let nr = self.block.nr;
        let widened = (2 * ROWS * self.groups + FOOT) * nr;
        words == widened && self.words.len() == panels * rows_of_panel(self.groups) * nr
    }

    fn panel<'a>(&'a self, index: usize, words: usize, space: &'a mut Vec<Quad>) -> &'a [Quad] {
        let size = rows_of_panel(self.groups) * self.block.nr;
        space.resize(words, 0);
        widen(&self.words[index * size..][..size], self.block.nr, self.groups, space);
        space
    }
}

#[inline(always)]
fn widen_columns<const NR: usize>(panel: &[u32], groups: usize, out: &mut [Quad]) {
    const LOW: u32 = 0x0f0f_0f0f;
    const TOP: u32 = 0x8080_8080;
    const EACH: u32 = 0x0101_0101;
    let rows = panel.as_chunks::<NR>().0;
    let (nibbles, rest) = rows.split_at(groups * ROWS);
    let (steps, foot) = rest.split_at(groups.div_ceil(2));
    let out = out.as_chunks_mut::<NR>().0;
    let (bytes, foot_out) = out.split_at_mut(groups * 2 * ROWS);
    for ((group, nibbles), bytes) in nibbles
        .chunks_exact(ROWS)
        .enumerate()
        .zip(bytes.chunks_exact_mut(2 * ROWS))
    {
        let both = &steps[group / 2];
        let shift = 16 * (group as u32 % 2);
        let step: [u32; NR] = std::array::from_fn(|i| both[i] >> shift & 255);
        let zero: [u32; NR] = std::array::from_fn(|i| (both[i] >> (shift + 8) & 255) * EACH);
        for (row, two) in nibbles.iter().zip(bytes.as_chunks_mut::<2>().0) {
            for i in 0..NR {
                for (half, out) in two.iter_mut().enumerate() {
                    // Steps are at most 17: no byte reaches into the next.
                    let product = (row[i] >> (4 * half) & LOW) * step[i];
                    let sum = (product & !TOP) + (zero[i] & !TOP);
                    out[i] = (sum ^ (product ^ zero[i]) & TOP) as Quad;
                }
            }
        }
    }
    for (to, from) in foot_out.iter_mut().zip(foot) {
        *to = from.map(|word| word as Quad);
    }
}

#[inline(always)]
fn widen_body<const FMA: bool>(panel: &[u32], nr: usize, groups: usize, out: &mut [Quad]) {
    match nr {
        48 => widen_columns::<48>(panel, groups, out),
        32 => widen_columns::<32>(panel, groups, out),
        16 => widen_columns::<16>(panel, groups, out),
        _ => widen_columns::<8>(panel, groups, out),
    }
}

dispatch! {
    /// A panel of nibbles to one of bytes.
    fn widen(panel: &[u32], nr: usize, groups: usize, out: &mut [Quad]) = widen_body
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn row(seed: usize, len: usize) -> Vec<f32> {
        (0..len)
            .map(|i| ((i * 37 + seed * 11) as f32 * 0.7371).sin() * (1.0 + (i % 7) as f32))
            .collect()
    }

    #[test]
    fn nibbles_come_as_near_as_half_a_step_or_lose_less_in_all() {
        let (inputs, taps) = (64, 3);
        let values = row(1, inputs * taps);
        let mut rows = Int4Rows::default();
        rows.push(&values, taps);
        let mut square = 0.0;
        for (i, x) in values.iter().enumerate() {
            let at = i % taps * inputs + i / taps;
            let step = f32::from(rows.groups[at / GROUP][0]) * rows.scales[0];
            let apart = (x - rows.scales[0] * f32::from(rows.byte(at))).abs();
            assert!(apart <= 3.0 * step, "weight {i}: {apart} of steps of {step}");
            square += (apart / step).powi(2);
        }
        // A uniform rounding error has a twelfth.
        assert!(square / (values.len() as f32) < 0.12, "{square}");
    }

    #[test]
    fn panels_of_nibbles_hold_their_rows_and_widen_to_their_bytes() {
        for (outputs, depth) in [(1, 32), (50, 96), (33, 160)] {
            let mut all = Int4Rows::default();
            (0..outputs).for_each(|output| all.push(&row(output, depth), 1));
            let Ok(panels) = Int4Panels::pack::<Infallible>(outputs, depth, |range| {
                Ok(Int4Rows {
                    nibbles: all.nibbles[range.start * depth / 2..range.end * depth / 2].to_vec(),
                    groups: all.groups[range.start * depth / GROUP..range.end * depth / GROUP].to_vec(),
                    scales: all.scales[range].to_vec(),
                })
            });
            assert_eq!(panels.rows(outputs), all);
            let nr = panels.block.nr;
            let mut space = Vec::new();
            for output in 0..outputs {
                let panel = panels.panel(output / nr, (depth / 4 + FOOT) * nr, &mut space);
                let bytes = (0..depth).map(|at| panel[at / 4 * nr + output % nr].to_le_bytes()[at % 4] as i8);
                let (bytes, want): (Vec<i8>, Vec<i8>) = (
                    bytes.collect(),
                    (0..depth).map(|at| all.byte(output * depth + at)).collect(),
                );
                assert_eq!(bytes, want, "output {output} of {outputs}x{depth}");
                let sum: i32 = want.iter().map(|byte| i32::from(*byte)).sum();
                assert_eq!(panel[depth / 4 * nr + output % nr], sum);
                assert_eq!(
                    panel[(depth / 4 + 1) * nr + output % nr] as u32,
                    all.scales[output].to_bits()
                );
            }
        }
    }
}
