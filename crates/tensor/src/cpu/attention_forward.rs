//! Attention's forward pass in blocks of queries and keys with a running softmax (FlashAttention, Dao 2022): only one block
//! of scores exists at a time. Its products multiply f32, or bf16 with sums and softmax in f32.
//!
//! A block of scores is kept transposed, `[keys][queries]`: the columns of a register block are then queries, whose softmax
//! runs in vector lanes, and the weights of a pair of keys lie where the second product wants them. So keys and values
//! are packed once, and scores never.

use crate::Tensor;
use crate::allocator::room;
use crate::cpu::bf16::HIGH;
use crate::cpu::interleave::{MAX_WIDTH, interleave};
use crate::cpu::kernel::{Block, Pair, Word, kernel};
use crate::cpu::math::{dispatch, exp2, exp2_rough, mul_add};
use crate::cpu::pack::Aligned;
use crate::cpu::parallel::{Output, for_tasks};
use crate::ops::AttentionSizes;
use rayon::prelude::*;
use std::ops::Range;

/// Most panels of queries of a task: each block of keys is read once for all of them.
const PANELS: usize = 4;
/// Up to so many scores a head is one task.
const SMALL: usize = 1 << 17;
/// Keys of a block: whole register rows of every kernel, and pairs. The scores of one panel nearly fit L1.
const KEY_BLOCK: usize = 192;

/// `softmax(q kᵀ / sqrt(D)) v`, and per (sample, query, head) the log of the sum of exponentials. In pairs q, k, v and the
/// softmax's weights are rounded to bf16.
pub(crate) fn forward<W: Weight>(s: &AttentionSizes, q: &Tensor, k: &Tensor, v: &Tensor) -> (Tensor, Vec<f32>) {
    // The block that multiplies least, counting what lies past the ends.
    let block = kernel().cheapest(|block| {
        let products = s.keys.next_multiple_of(block.mr) * s.dim + s.dim.next_multiple_of(block.mr) * s.keys;
        s.queries.next_multiple_of(block.nr) * products
    });
    let heads = s.batch * s.heads;
    let pack = |bh| Head::pack(s, block, k, v, bh / s.heads, bh % s.heads);
    let (mut out, mut log_sums) = (room(q.numel()), Vec::with_capacity(heads * s.queries));
    let output = (Output::of(&mut out), Output::of(&mut log_sums));
    let attend = |work: &mut Workspace<W>, head: &Head<W>, bh: usize, first: usize| {
        work.attend(s, head, q, bh, first..s.queries.min(first + PANELS * block.nr));
        work.finish(s, bh, first, &output);
    };
    let starts = (0..s.queries).step_by(PANELS * block.nr);
    let new = || Workspace::new(s, block);
    if s.queries * s.keys <= SMALL {
        // Packing and attending are one task of a head: waking threads twice would cost more than it gains.
        for_tasks(heads, 2 * heads * s.queries * s.keys * s.dim, |bh| {
            let (head, mut work) = (pack(bh), new());
            starts.clone().for_each(|first| attend(&mut work, &head, bh, first));
        });
    } else {
        let packed: Vec<Head<W>> = (0..heads).into_par_iter().map(pack).collect();
        let tasks: Vec<(usize, usize)> = (0..heads)
            .flat_map(|bh| starts.clone().map(move |first| (bh, first)))
            .collect();
        tasks
            .into_par_iter()
            .for_each_init(new, |work, (bh, first)| attend(work, &packed[bh], bh, first));
    }
    // SAFETY: the tasks cover every query of every head, whose rows they write whole.
    unsafe {
        out.set_len(q.numel());
        log_sums.set_len(heads * s.queries);
    }
    (Tensor::from_vec(out, q.shape()), log_sums)
}

/// One head's keys and values as left matrices.
struct Head<W> {
    /// `[keys / mr][D][mr]`.
    keys: Vec<W>,
    /// For each block of keys `[D / mr][keys of the block][mr]`.
    values: Vec<W>,
}

impl<W: Weight> Head<W> {
    fn pack(s: &AttentionSizes, block: &Block, k: &Tensor, v: &Tensor, b: usize, h: usize) -> Self {
        let (mr, words) = (block.mr, s.dim.div_ceil(W::DEPTHS));
        let mut keys = vec![W::zeroed(); s.keys.div_ceil(mr) * mr * words];
        let mut space = Vec::new();
        for (tile, out) in keys.chunks_exact_mut(mr * words).enumerate() {
            let rows = tile * mr..s.keys.min((tile + 1) * mr);
            let strips: Vec<&[f32]> = rows.map(|key| s.row(k.data(), s.keys, b, h, key)).collect();
            W::interleave(&strips, mr, out, &mut space);
        }
        let mut values = Vec::with_capacity(s.dim.next_multiple_of(mr) * s.keys.div_ceil(W::DEPTHS));
        let mut panel = Vec::new();
        for first in (0..s.keys).step_by(KEY_BLOCK) {
            let len = KEY_BLOCK.min(s.keys - first);
            for d in (0..s.dim).step_by(mr) {
                let dims = d..s.dim.min(d + mr);
                panel.clear();
                for key in first..first + len {
                    panel.extend_from_slice(&s.row(v.data(), s.keys, b, h, key)[dims.clone()]);
                    panel.resize(panel.len() + mr - dims.len(), 0.0);
                }
                let at = values.len();
                values.resize(at + len.div_ceil(W::DEPTHS) * mr, W::zeroed());
                W::join(&panel, mr, &mut values[at..]);
            }
        }
        Self { keys, values }
    }
}

/// What a thread needs for its queries: panels of `nr` of them.
struct Workspace<W: 'static> {
    block: &'static Block,
    /// `[D][nr]` of each panel.
    queries: Aligned<W>,
    /// `[keys of a block][nr]` of one panel; then the softmax's weights, in words.
    scores: Aligned<f32>,
    /// `[D][nr]`, D rounded up to register rows: one block's product, and the sum of each panel.
    product: Aligned<f32>,
    sums: Aligned<f32>,
    /// One panel of the output, `[nr][D]`.
    transposed: Vec<f32>,
    space: Vec<f32>,
    softmax: Vec<Running>,
}

/// The softmax of a panel's queries so far, in powers of two: the largest score, the sum of the weights, what the last
/// block scaled the earlier ones by.
#[derive(Clone)]
pub(crate) struct Running {
    top: [f32; MAX_WIDTH],
    total: [f32; MAX_WIDTH],
    correction: [f32; MAX_WIDTH],
}

impl<W: Weight> Workspace<W> {
    fn new(s: &AttentionSizes, block: &'static Block) -> Self {
        let (nr, dims) = (block.nr, s.dim.next_multiple_of(block.mr));
        Self {
            block,
            queries: Aligned::zeroed(PANELS * nr * s.dim.div_ceil(W::DEPTHS)),
            scores: Aligned::zeroed(KEY_BLOCK * nr),
            product: Aligned::zeroed(dims * nr),
            sums: Aligned::zeroed(PANELS * nr * dims),
            transposed: vec![0.0; s.dim * nr],
            space: Vec::new(),
            softmax: Vec::new(),
        }
    }

    /// Sums up the values that some queries see, weighted but not divided by the weights' sum.
    fn attend(&mut self, s: &AttentionSizes, head: &Head<W>, q: &Tensor, bh: usize, rows: Range<usize>) {
        let (mr, nr) = (self.block.mr, self.block.nr);
        let (words, dims) = (s.dim.div_ceil(W::DEPTHS), s.dim.next_multiple_of(mr));
        self.pack_queries(s, q, bh, rows.clone());
        self.sums.fill(0.0);
        self.softmax.clear();
        self.softmax.resize(
            rows.len().div_ceil(nr),
            Running {
                top: [f32::NEG_INFINITY; MAX_WIDTH],
                total: [0.0; MAX_WIDTH],
                correction: [0.0; MAX_WIDTH],
            },
        );
        for key0 in (0..s.visible(rows.end - 1, 0, s.keys)).step_by(KEY_BLOCK) {
            let keys = KEY_BLOCK.min(s.keys - key0);
            let values = &head.values[key0 / W::DEPTHS * dims..];
            for (panel, softmax) in self.softmax.iter_mut().enumerate() {
                // The panel's last query sees as many of the block's keys as any.
                let len = s.visible(rows.start + (panel + 1) * nr - 1, key0, keys);
                if len == 0 {
                    continue;
                }
                let queries = &self.queries[panel * words * nr..][..words * nr];
                let tiles = self.scores.chunks_exact_mut(mr * nr).take(len.div_ceil(mr));
                for (tile, scores) in tiles.enumerate() {
                    let keys = &head.keys[(key0 + tile * mr) * words..];
                    self.block.multiply(words, keys, queries, scores);
                }
                let scores = &mut self.scores[..len * nr];
                if s.causal {
                    for (key, row) in scores.chunks_exact_mut(nr).enumerate() {
                        let unseen = (0..nr).take_while(|i| s.visible(rows.start + panel * nr + i, key0, keys) <= key);
                        row[..unseen.count()].fill(f32::NEG_INFINITY);
                    }
                }
                W::softmax(scores, nr, s.scale() * std::f32::consts::LOG2_E, softmax);
                let weights: &[W] = bytemuck::cast_slice(&self.scores);
                for (tile, product) in self.product.chunks_exact_mut(mr * nr).enumerate() {
                    let values = &values[tile * mr * keys.div_ceil(W::DEPTHS)..];
                    self.block.multiply(len.div_ceil(W::DEPTHS), values, weights, product);
                }
                let sums = &mut self.sums[panel * dims * nr..][..dims * nr];
                accumulate(sums, &self.product, nr, &softmax.correction);
            }
        }
    }

    fn pack_queries(&mut self, s: &AttentionSizes, q: &Tensor, bh: usize, rows: Range<usize>) {
        let (b, h, nr) = (bh / s.heads, bh % s.heads, self.block.nr);
        let panels = self.queries.chunks_exact_mut(s.dim.div_ceil(W::DEPTHS) * nr);
        for (first, out) in rows.clone().step_by(nr).zip(panels) {
            let rows = first..rows.end.min(first + nr);
            let strips: Vec<&[f32]> = rows.map(|row| s.row(q.data(), s.queries, b, h, row)).collect();
            W::interleave(&strips, nr, out, &mut self.space);
        }
    }

    /// Divides by the sums of the weights, turns the panels `[D][nr]` into rows `[D]` and puts these, and the log of the
    /// sums, in their place.
    fn finish(&mut self, s: &AttentionSizes, bh: usize, first: usize, (out, log_sums): &(Output, Output)) {
        let (b, h, nr, dims) = (
            bh / s.heads,
            bh % s.heads,
            self.block.nr,
            self.product.len() / self.block.nr,
        );
        for (panel, softmax) in self.softmax.iter().enumerate() {
            let sums = &mut self.sums[panel * dims * nr..][..s.dim * nr];
            for row in sums.chunks_exact_mut(nr) {
                for (x, total) in row.iter_mut().zip(&softmax.total) {
                    *x /= total;
                }
            }
            let strips: Vec<&[f32]> = sums.chunks_exact(nr).collect();
            interleave(&strips, s.dim, &mut self.transposed);
            let first = first + panel * nr;
            let rows = self.transposed.chunks_exact(s.dim).take(s.queries - first);
            for (i, values) in rows.enumerate() {
                let place = (b * s.queries + first + i) * s.heads + h;
                let log_sum = (softmax.top[i] + softmax.total[i].log2()) * std::f32::consts::LN_2;
                // SAFETY: no other task has these queries of this head.
                unsafe {
                    out.write(place * s.dim, values);
                    log_sums.write(place, &[log_sum]);
                }
            }
        }
    }
}

/// A word that the softmax's weights are kept in.
pub(crate) trait Weight: Word {
    /// Turns one block of scores `[keys][nr]` into weights `2^(scale · score - top)`, in words at the same place, and keeps
    /// the running sums.
    fn softmax(scores: &mut [f32], nr: usize, scale: f32, softmax: &mut Running);

    /// The second half of that, for the vectors `column, column + stride, ...` of the scores: returns the weights' sum.
    fn weigh<const FMA: bool, const L: usize>(
        vectors: &mut [[f32; L]],
        column: usize,
        stride: usize,
        scale: f32,
        top: &[f32; L],
    ) -> [f32; L];
}

impl Weight for f32 {
    fn softmax(scores: &mut [f32], nr: usize, scale: f32, softmax: &mut Running) {
        softmax_f32(scores, nr, scale, softmax);
    }

    #[inline(always)]
    fn weigh<const FMA: bool, const L: usize>(
        vectors: &mut [[f32; L]],
        column: usize,
        stride: usize,
        scale: f32,
        top: &[f32; L],
    ) -> [f32; L] {
        let mut total = [0.0; L];
        for scores in vectors.iter_mut().skip(column).step_by(stride) {
            for i in 0..L {
                scores[i] = exp2::<FMA>(mul_add::<FMA>(scores[i], scale, -top[i]));
                total[i] += scores[i];
            }
        }
        total
    }
}

impl Weight for Pair {
    fn softmax(scores: &mut [f32], nr: usize, scale: f32, softmax: &mut Running) {
        softmax_pairs(scores, nr, scale, softmax);
    }

    /// Sums the rounded weights, so that those of a query add up to one.
    #[inline(always)]
    fn weigh<const FMA: bool, const L: usize>(
        vectors: &mut [[f32; L]],
        column: usize,
        stride: usize,
        scale: f32,
        top: &[f32; L],
    ) -> [f32; L] {
        // Half away from zero: ties are rare enough.
        let rounded = |score: f32, top: f32| {
            let weight = exp2_rough::<FMA>(mul_add::<FMA>(score, scale, -top));
            weight.to_bits().wrapping_add(0x8000) & HIGH
        };
        let (mut even_total, mut odd_total) = ([0.0; L], [0.0; L]);
        let keys = vectors.len() / stride;
        for pair in 0..keys / 2 {
            let even = vectors[2 * pair * stride + column];
            let odd = vectors[(2 * pair + 1) * stride + column];
            // Words of this and later pairs lie before scores that are still to be read.
            let words = &mut vectors[pair * stride + column];
            for i in 0..L {
                let (low, high) = (rounded(even[i], top[i]), rounded(odd[i], top[i]));
                even_total[i] += f32::from_bits(low);
                odd_total[i] += f32::from_bits(high);
                words[i] = f32::from_bits(low >> 16 | high);
            }
        }
        if !keys.is_multiple_of(2) {
            let even = vectors[(keys - 1) * stride + column];
            let words = &mut vectors[keys / 2 * stride + column];
            for i in 0..L {
                let low = rounded(even[i], top[i]);
                even_total[i] += f32::from_bits(low);
                words[i] = f32::from_bits(low >> 16);
            }
        }
        std::array::from_fn(|i| even_total[i] + odd_total[i])
    }
}

dispatch! {
    fn softmax_f32(scores: &mut [f32], nr: usize, scale: f32, softmax: &mut Running) = softmax_f32_body
}

#[inline(always)]
fn softmax_f32_body<const FMA: bool>(scores: &mut [f32], nr: usize, scale: f32, softmax: &mut Running) {
    softmax_body::<FMA, f32>(scores, nr, scale, softmax);
}

dispatch! {
    fn softmax_pairs(scores: &mut [f32], nr: usize, scale: f32, softmax: &mut Running) = softmax_pairs_body
}

#[inline(always)]
fn softmax_pairs_body<const FMA: bool>(scores: &mut [f32], nr: usize, scale: f32, softmax: &mut Running) {
    softmax_body::<FMA, Pair>(scores, nr, scale, softmax);
}

#[inline(always)]
fn softmax_body<const FMA: bool, W: Weight>(scores: &mut [f32], nr: usize, scale: f32, softmax: &mut Running) {
    if nr.is_multiple_of(16) {
        softmax_lanes::<FMA, 16, W>(scores, nr, scale, softmax);
    } else {
        softmax_lanes::<FMA, 8, W>(scores, nr, scale, softmax);
    }
}

/// `L` queries at a time.
#[inline(always)]
fn softmax_lanes<const FMA: bool, const L: usize, W: Weight>(
    scores: &mut [f32],
    nr: usize,
    scale: f32,
    softmax: &mut Running,
) {
    let stride = nr / L;
    let vectors = scores.as_chunks_mut::<L>().0;
    let lanes = softmax.top.as_chunks_mut::<L>().0.iter_mut();
    let lanes = lanes.zip(softmax.total.as_chunks_mut::<L>().0);
    let lanes = lanes.zip(softmax.correction.as_chunks_mut::<L>().0);
    for (column, ((top, total), correction)) in lanes.take(stride).enumerate() {
        let mut largest = [f32::NEG_INFINITY; L];
        for scores in vectors.iter().skip(column).step_by(stride) {
            for i in 0..L {
                largest[i] = if scores[i] > largest[i] { scores[i] } else { largest[i] };
            }
        }
        for i in 0..L {
            let (before, block) = (top[i], largest[i] * scale);
            top[i] = if block > before { block } else { before };
            correction[i] = exp2::<FMA>(before - top[i]);
        }
        let sum = W::weigh::<FMA, L>(vectors, column, stride, scale, top);
        for i in 0..L {
            total[i] = mul_add::<FMA>(total[i], correction[i], sum[i]);
        }
    }
}

#[inline(always)]
fn accumulate_body<const FMA: bool>(sums: &mut [f32], product: &[f32], nr: usize, correction: &[f32; MAX_WIDTH]) {
    if nr.is_multiple_of(16) {
        accumulate_lanes::<FMA, 16>(sums, product, nr, correction);
    } else {
        accumulate_lanes::<FMA, 8>(sums, product, nr, correction);
    }
}

#[inline(always)]
fn accumulate_lanes<const FMA: bool, const L: usize>(
    sums: &mut [f32],
    product: &[f32],
    nr: usize,
    correction: &[f32; MAX_WIDTH],
) {
    for (sums, product) in sums.chunks_exact_mut(nr).zip(product.chunks_exact(nr)) {
        let vectors = sums.as_chunks_mut::<L>().0.iter_mut().zip(product.as_chunks::<L>().0);
        for ((sum, product), correction) in vectors.zip(correction.as_chunks::<L>().0) {
            for i in 0..L {
                sum[i] = mul_add::<FMA>(sum[i], correction[i], product[i]);
            }
        }
    }
}

dispatch! {
    /// `sums = sums · correction + product`, each `[D][nr]`, column by column.
    fn accumulate(sums: &mut [f32], product: &[f32], nr: usize, correction: &[f32; MAX_WIDTH]) = accumulate_body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Philox;
    use crate::cpu::bf16::rounded;

    /// Normal values that bf16 holds exactly.
    fn values(seed: u64, shape: &[usize]) -> Tensor {
        let noise = Philox {
            seed,
            image: 0,
            purpose: 0x7e57,
            step: 0,
        };
        let values = noise.normal(shape.iter().product());
        Tensor::from_vec(
            values
                .into_iter()
                .map(|x| f32::from_bits(rounded(x) & 0xffff_0000))
                .collect(),
            shape,
        )
    }

    /// The definition in f64, for one head of one sample and one query; and the log of the sum of exponentials.
    fn plain(s: &AttentionSizes, q: &[f32], k: &Tensor, v: &Tensor, b: usize, h: usize, row: usize) -> (Vec<f64>, f64) {
        let keys = 0..s.visible(row, 0, s.keys);
        let scores: Vec<f64> = keys
            .map(|key| {
                let k = s.row(k.data(), s.keys, b, h, key);
                let dot: f64 = q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                dot / (s.dim as f64).sqrt()
            })
            .collect();
        let top = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|x| (x - top).exp()).collect();
        let total: f64 = weights.iter().sum();
        let value = |key: usize, d: usize| f64::from(s.row(v.data(), s.keys, b, h, key)[d]);
        let result = (0..s.dim).map(|d| {
            let values = weights.iter().enumerate().map(|(key, w)| w / total * value(key, d));
            values.sum()
        });
        (result.collect(), top + total.ln())
    }

    /// Checks results against the definition: off by at most `tolerance` of the largest value.
    fn check<W: Weight>(tolerance: f64) {
        for (batch, queries, keys, heads, dim, causal) in [
            (1, 1, 1, 1, 1, false),
            (2, 5, 7, 3, 4, false),
            (1, 50, 50, 2, 8, true),
            (1, 97, 301, 1, 16, false),
            (2, 77, 77, 2, 5, true),
            (1, 260, 520, 1, 3, true),
            (1, 400, 700, 1, 64, true),
            (1, 130, 77, 2, 64, false),
            (1, 129, 385, 1, 70, true),
            (2, 33, 192, 1, 12, false),
        ] {
            let (q, k, v) = (
                values(1, &[batch, queries, heads * dim]),
                values(2, &[batch, keys, heads * dim]),
                values(3, &[batch, keys, heads * dim]),
            );
            let s = AttentionSizes::new(q.shape(), k.shape(), v.shape(), heads, causal);
            let (got, log_sums) = forward::<W>(&s, &q, &k, &v);
            assert_eq!(got.shape(), q.shape());
            let largest = f64::from(v.data().iter().fold(0.0f32, |m, x| m.max(x.abs())));
            for b in 0..batch {
                for (h, row) in (0..heads).flat_map(|h| (0..queries).map(move |row| (h, row))) {
                    let query = s.row(q.data(), queries, b, h, row);
                    let result = s.row(got.data(), queries, b, h, row);
                    let (want, want_log_sum) = plain(&s, query, &k, &v, b, h, row);
                    for (d, want) in want.iter().enumerate() {
                        let off = (f64::from(result[d]) - want).abs();
                        assert!(
                            off <= largest * tolerance,
                            "{s:?}: sample {b}, head {h}, query {row}, {d}: {} against {want}",
                            result[d]
                        );
                    }
                    let log_sum = f64::from(log_sums[(b * queries + row) * heads + h]);
                    assert!(
                        (log_sum - want_log_sum).abs() <= tolerance * want_log_sum.abs().max(1.0),
                        "{s:?}: the sum of sample {b}, head {h}, query {row}"
                    );
                }
            }
        }
    }

    #[test]
    fn f32_attention_is_its_definition() {
        check::<f32>(2e-6);
    }

    /// Only the softmax's weights are rounded here, each by at most 2⁻⁹ of itself, and their sum alike: the result is off
    /// by at most 2⁻⁸ of the largest value.
    #[test]
    fn bf16_attention_is_its_definition_within_the_rounding_of_the_weights() {
        check::<Pair>(1.0 / 256.0);
    }

    #[test]
    fn weights_add_up_to_one_also_when_scores_grow() {
        // The largest score comes last, so that every block corrects the ones before it; all values are the same.
        let ramp = |rows: usize, dim: usize, step: f32| {
            let values = (0..rows * dim).map(|i| f32::from_bits(rounded((i / dim) as f32 * step) & 0xffff_0000));
            Tensor::from_vec(values.collect(), &[1, rows, dim])
        };
        let (q, k) = (ramp(70, 8, 0.1), ramp(700, 8, 0.05));
        let v = Tensor::full(1.5, &[1, 700, 8]);
        let s = AttentionSizes::new(q.shape(), k.shape(), v.shape(), 1, false);
        for (got, _) in [forward::<f32>(&s, &q, &k, &v), forward::<Pair>(&s, &q, &k, &v)] {
            assert!(got.data().iter().all(|x| (x - 1.5).abs() < 1e-5));
        }
    }
}
